//! The commands that open the store themselves: `serve`, `bootstrap`, `migrate` and `doctor`.

mod check;
mod doctor;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::authority::{DeclaredState, Refusal};
use crate::cli;
use crate::config::{CertifiedService, LocationArgs, ServeArgs, StoreArgs};
use crate::domain::clock::Clock;
use crate::domain::key_text::PlainKey;
use crate::grpc;
use crate::open::{
    IfEmpty, OpenStoreError, OpenedStore, StoreLock, describe_declaration, operator_key_path,
    write_operator_key,
};
use crate::server::{Listeners, ServeError, Server, ServerThreads, Stop};
use crate::store::{LockMode, OpenError, Schema};
use crate::telemetry;
use crate::threads::lower_priority;

pub use check::check_config;
pub use doctor::{doctor, doctor_without_settings};

/// The exit code for a wrong configuration (`EX_CONFIG` of sysexits.h).
pub const BAD_CONFIGURATION: u8 = 78;

/// The flags of `claviger bootstrap`.
#[derive(Args, Debug)]
pub struct BootstrapArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub store: StoreArgs,

    /// Issue another operator key for an existing authority, because the first was lost. The server must be stopped
    #[arg(long)]
    pub recover: bool,
}

/// The flags of `claviger migrate`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub location: LocationArgs,
}

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    OpenStore(#[from] OpenStoreError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error(
        "there is an authority already, and its first operator key is not shown again; if the key is lost, issue another with \
         `claviger bootstrap --recover`"
    )]
    AlreadyCreated,
    #[error("{0}")]
    Declared(&'static str),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("cannot start the threads of the program: {0}")]
    Runtime(io::Error),
}

impl CommandError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::OpenStore(
                OpenStoreError::Store(_)
                | OpenStoreError::Refused(_)
                | OpenStoreError::Open(OpenError::Unreachable(_)),
            )
            | Self::Refused(_)
            | Self::AlreadyCreated
            | Self::Signals(_)
            | Self::Runtime(_) => 1,
            Self::Serve(ServeError::Listen(error)) if !error.is_of_configuration() => 1,
            Self::Serve(ServeError::Listen(_) | ServeError::Traces(_))
            | Self::OpenStore(_)
            | Self::Declared(_) => BAD_CONFIGURATION,
            Self::Serve(_) => 1,
        }
    }
}

/// Serves until a signal stops the server.
///
/// The commands run their runtimes themselves, because the compiler generates the code of an `async fn` in the crate that polls
/// it: here, and not a second time in the program.
pub fn serve(args: &ServeArgs) -> ExitCode {
    exit(
        ServerThreads::start(args)
            .map_err(Into::into)
            .and_then(|threads| {
                // All threads that are started from here on, by the runtime or by the driver of the store, inherit the priority.
                lower_priority();
                run(try_serve(args, threads))
            }),
    )
}

/// Creates an authority, or with `--recover` another operator key, and prints only the key on standard output.
pub fn bootstrap(args: &BootstrapArgs) -> ExitCode {
    exit(run(try_bootstrap(args)))
}

/// Migrates the schema and prints the result.
pub fn migrate(args: &MigrateArgs) -> ExitCode {
    exit(run(try_migrate(args)))
}

fn run<T>(command: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    Runtime::new()
        .map_err(CommandError::Runtime)?
        .block_on(command)
}

fn exit(outcome: Result<(), CommandError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not logged: the message is for people, also if the log is JSON.
            telemetry::print(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

async fn try_serve(args: &ServeArgs, threads: ServerThreads) -> Result<(), CommandError> {
    // First, so that no signal during the start is lost.
    let stop = signals().map_err(CommandError::Signals)?;
    let hangups = signal(SignalKind::hangup()).map_err(CommandError::Signals)?;
    check_apply(args).map_err(CommandError::Declared)?;
    // The lock comes before the ports, so that a second process reports the lock, and the ports before the store, so that
    // nothing is created if a port is in use.
    let lock = StoreLock::take_to_open(&args.store, LockMode::Shared, args.init).await?;
    let listeners = Listeners::bind(args).map_err(ServeError::from)?;
    let _reload = AbortOnDropHandle::new(tokio::spawn(listeners.reload_certificates(hangups)));
    let grpc = listeners.grpc_address();
    let admin = listeners.admin_address();
    let is_encrypted = listeners.is_encrypted();
    let needs_certificate = args
        .tls
        .requires_client_certificate(CertifiedService::Admin);
    let on_terminal = io::stdout().is_terminal();
    let key_file = operator_key_path(&args.store.location);
    let mut hand_over = |key: &PlainKey| {
        if on_terminal {
            let address = admin.unwrap_or(grpc);
            let mut flags = endpoint(address, is_encrypted);
            if needs_certificate {
                flags.push_str(CLIENT_CERTIFICATE);
            }
            return welcome(&mut io::stdout(), &flags, is_encrypted, key);
        }
        write_operator_key(&key_file, key)?;
        tracing::info!(file = %key_file.display(), "first operator key written to a file");
        Ok(())
    };
    let declared = || declared_state(&args.apply);
    let if_empty = match args.init {
        true if !args.apply.is_empty() => IfEmpty::Declare(&declared),
        true => IfEmpty::Create(&mut hand_over),
        false => IfEmpty::Refuse,
    };
    let location = lock.location();
    let opened = lock.open(&args.store, Clock::system(), if_empty).await?;
    let http = listeners.http_address();
    let unix = listeners.unix_path();
    tracing::info!(
        %grpc,
        %http,
        admin = admin.map(tracing::field::display),
        unix = unix.as_deref().map(|path| tracing::field::display(path.display())),
        tls = is_encrypted,
        %location,
        "listening"
    );
    Server::new(args, opened, listeners, threads)
        .await?
        .run(stop)
        .await?;
    Ok(())
}

/// Reads the files that declare a new authority.
fn declared_state(files: &[PathBuf]) -> Result<DeclaredState, String> {
    let state = cli::read_declared(files)?;
    grpc::declared_state(state).map_err(|violations| describe_declaration(&violations))
}

/// Checks that `--apply` is given with `--init` only.
fn check_apply(args: &ServeArgs) -> Result<(), &'static str> {
    if args.apply.is_empty() || args.init {
        return Ok(());
    }
    Err(
        "--apply is only for a new authority: add --init, or use `claviger apply` for one that exists",
    )
}

/// The flags of the client's certificate.
const CLIENT_CERTIFICATE: &str = " --client-cert client.pem --client-key client.key";

/// Shows the operator key, and the commands to type next. The key is shown only this once.
fn welcome(
    out: &mut impl Write,
    flags: &str,
    is_encrypted: bool,
    key: &PlainKey,
) -> io::Result<()> {
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "claviger".to_owned());
    let key = key.expose();
    writeln!(
        out,
        "\nCreated a new authority. This is its operator key, which is shown only now:\n\n\
         {key}\n\n\
         Type these commands in another terminal. The first one asks for the key, and\n\
         keeps it for the commands after it:\n\n\
         \x20   {program} login{flags}\n\
         \x20   {program} realm create demo --prefix demo --environment production=live --scope read --scope write=read\n"
    )?;
    if is_encrypted {
        writeln!(
            out,
            "--endpoint must have a name or an address of the server's certificate. --ca-file\n\
             is the file with the certificate of its issuer; leave it out if this machine\n\
             trusts the issuer.\n"
        )?;
    }
    out.flush()
}

/// The flags that a client needs to reach the server.
fn endpoint(address: SocketAddr, is_encrypted: bool) -> String {
    let port = address.port();
    match (is_encrypted, address.ip().is_unspecified()) {
        (true, true) => format!(" --endpoint https://HOST:{port} --ca-file ca.pem"),
        (true, false) => format!(" --endpoint https://{address} --ca-file ca.pem"),
        (false, _) => format!(" --endpoint http://{address}"),
    }
}

async fn try_bootstrap(args: &BootstrapArgs) -> Result<(), CommandError> {
    let print = |key: &PlainKey| -> io::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{}", key.expose())?;
        out.flush()
    };
    if args.recover {
        let opened = OpenedStore::open(
            &args.store,
            LockMode::Exclusive,
            Clock::system(),
            IfEmpty::Refuse,
        )
        .await?;
        opened.recover(print).await?;
        opened.store.close().await;
        return Ok(());
    }
    let mut is_new = false;
    let mut hand_over = |key: &PlainKey| {
        is_new = true;
        print(key)
    };
    let opened = OpenedStore::open(
        &args.store,
        LockMode::Exclusive,
        Clock::system(),
        IfEmpty::Create(&mut hand_over),
    )
    .await?;
    opened.store.close().await;
    if is_new {
        Ok(())
    } else {
        Err(CommandError::AlreadyCreated)
    }
}

async fn try_migrate(args: &MigrateArgs) -> Result<(), CommandError> {
    // A directory without a database may be an unmounted volume, so it is an error. A database at a URL may be new.
    let create = args.location.database().is_some();
    let Schema { found, now } = StoreLock::take(&args.location, LockMode::Exclusive, create)
        .await?
        .migrate()
        .await?;
    let message = if found == now {
        format!("The schema is up to date, at step {now}.")
    } else {
        format!("Migrated the schema from step {found} to step {now}.")
    };
    let _ = writeln!(io::stdout(), "{message}");
    Ok(())
}

/// Converts signals into stop requests for the server.
fn signals() -> io::Result<mpsc::Receiver<Stop>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (requests, stop) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                _ = terminate.recv() => Stop::Drain,
                _ = interrupt.recv() => Stop::Now,
            };
            if requests.send(request).await.is_err() {
                return;
            }
        }
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red with `http` for every address.
    #[test]
    fn a_new_operator_is_told_how_to_reach_the_server() {
        for (address, is_encrypted, told) in [
            ("127.0.0.1:7700", false, " --endpoint http://127.0.0.1:7700"),
            ("127.0.0.1:1", false, " --endpoint http://127.0.0.1:1"),
            (
                "127.0.0.1:7700",
                true,
                " --endpoint https://127.0.0.1:7700 --ca-file ca.pem",
            ),
            (
                "[::1]:1",
                true,
                " --endpoint https://[::1]:1 --ca-file ca.pem",
            ),
            (
                "0.0.0.0:1",
                true,
                " --endpoint https://HOST:1 --ca-file ca.pem",
            ),
        ] {
            assert_eq!(endpoint(address.parse().unwrap(), is_encrypted), told);
        }
    }
}
