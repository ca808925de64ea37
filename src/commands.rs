//! The commands that run where the authority is kept: `serve`, `bootstrap` and `migrate`.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::authority::Refusal;
use crate::config::{LocationArgs, ServeArgs, StoreArgs};
use crate::domain::clock::Clock;
use crate::domain::key_text::PlainKey;
use crate::open::{
    IfEmpty, OpenStoreError, OpenedStore, StoreLock, operator_key_path, write_operator_key,
};
use crate::server::{Listeners, ServeError, Server, Stop};
use crate::store::{OpenError, Schema};

/// The exit code for a configuration that cannot work (`EX_CONFIG` of sysexits.h).
pub const BAD_CONFIGURATION: u8 = 78;

/// `claviger bootstrap`.
#[derive(Args, Debug)]
pub struct BootstrapArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub store: StoreArgs,

    /// Make another operator key for an authority that has one, because that was lost. The server must be stopped
    #[arg(long)]
    pub recover: bool,
}

/// `claviger migrate`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub location: LocationArgs,
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    OpenedStore(#[from] OpenStoreError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error(
        "there is an authority already, and its first operator key is not shown again; if it is lost, \
         `claviger bootstrap --recover` makes another"
    )]
    AlreadyCreated,
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

impl CommandError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::OpenedStore(
                OpenStoreError::Store(_)
                | OpenStoreError::Refused(_)
                | OpenStoreError::Open(OpenError::Unreachable(_)),
            )
            | Self::Serve(_)
            | Self::Refused(_)
            | Self::AlreadyCreated
            | Self::Signals(_) => 1,
            Self::OpenedStore(_) => BAD_CONFIGURATION,
        }
    }
}

/// Serves until told to stop.
pub async fn serve(args: &ServeArgs) -> ExitCode {
    exit(try_serve(args).await)
}

/// Makes an operator key and prints it, alone, on standard output.
pub async fn bootstrap(args: &BootstrapArgs) -> ExitCode {
    exit(try_bootstrap(args).await)
}

/// Brings the schema up to date and says what it did.
pub async fn migrate(args: &MigrateArgs) -> ExitCode {
    exit(try_migrate(args).await)
}

fn exit(outcome: Result<(), CommandError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For people, whatever the form of the log.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn try_serve(args: &ServeArgs) -> Result<(), CommandError> {
    // From here on a signal waits to be read, whatever happens in between.
    let stop = signals().map_err(CommandError::Signals)?;
    // A second process hears that the location is taken, and a port that is taken is known before anything is made.
    let lock = StoreLock::take(&args.store.location, args.init).await?;
    let listeners = Listeners::bind(args).await?;
    let address = listeners.grpc_address();
    let on_terminal = io::stdout().is_terminal();
    let left_at = operator_key_path(&args.store.location);
    let mut hand_over = |key: &PlainKey| {
        if on_terminal {
            return welcome(&mut io::stdout(), address, key);
        }
        write_operator_key(&left_at, key)?;
        tracing::info!(file = %left_at.display(), "the first operator key was made and left in a file");
        Ok(())
    };
    let if_empty = if args.init {
        IfEmpty::Create(&mut hand_over)
    } else {
        IfEmpty::Refuse
    };
    let location = lock.location();
    let opened = lock.open(&args.store, Clock::system(), if_empty).await?;
    tracing::info!(grpc = %address, http = %listeners.http_address(), %location, "listening");
    Server::new(args, opened, listeners)
        .await?
        .run(stop)
        .await?;
    Ok(())
}

/// Shows the operator key, once, inside the commands to type next.
fn welcome(out: &mut impl Write, address: SocketAddr, key: &PlainKey) -> io::Result<()> {
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "claviger".to_owned());
    let key = key.expose();
    let endpoint = if address.to_string() == "127.0.0.1:7700" {
        String::new()
    } else {
        format!(" CLAVIGER_ENDPOINT=http://{address}")
    };
    writeln!(
        out,
        "\nA new authority. The first of these two commands holds its operator key, which is shown this once.\n\
         Type them in another terminal:\n\n\
         \x20   export CLAVIGER_KEY={key}{endpoint}\n\
         \x20   {program} realm put demo --prefix demo --environment production=live --scope read --scope write=read\n"
    )?;
    out.flush()
}

async fn try_bootstrap(args: &BootstrapArgs) -> Result<(), CommandError> {
    let print = |key: &PlainKey| -> io::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{}", key.expose())?;
        out.flush()
    };
    if args.recover {
        let opened = OpenedStore::open(&args.store, Clock::system(), IfEmpty::Refuse).await?;
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
    // A directory without a database may be an unmounted volume; a database at a URL is the one that was meant.
    let make = args.location.database_url.is_some();
    let Schema { found, now } = StoreLock::take(&args.location, make)
        .await?
        .migrate()
        .await?;
    let said = if found == now {
        format!("The schema is up to date: it was at step {now} already.")
    } else {
        format!("The schema was brought from step {found} to step {now}.")
    };
    let _ = writeln!(io::stdout(), "{said}");
    Ok(())
}

/// Turns signals into words to the server.
fn signals() -> io::Result<mpsc::Receiver<Stop>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let word = tokio::select! {
                _ = terminate.recv() => Stop::Drain,
                _ = interrupt.recv() => Stop::Now,
            };
            if tell.send(word).await.is_err() {
                return;
            }
        }
    });
    Ok(told)
}
