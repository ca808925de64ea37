//! The commands that run where the authority is kept: `serve` and `bootstrap`.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::authority::Refusal;
use crate::config::{ServeArgs, StoreArgs};
use crate::data_dir::{
    DataDir, DataDirError, IfEmpty, LockedDir, operator_key_path, write_operator_key,
};
use crate::domain::clock::Clock;
use crate::domain::key_text::PlainKey;
use crate::server::{Listeners, ServeError, Server, Stop};

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

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error(
        "there is an authority in the data directory already, and its first operator key is not shown again; if it is lost, \
         `claviger bootstrap --recover` makes another"
    )]
    AlreadyFounded,
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

impl LaunchError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::DataDir(DataDirError::Store(_) | DataDirError::Refused(_))
            | Self::Serve(_)
            | Self::Refused(_)
            | Self::AlreadyFounded
            | Self::Signals(_) => 1,
            Self::DataDir(_) => BAD_CONFIGURATION,
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

fn exit(outcome: Result<(), LaunchError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For people, whatever the form of the log.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn try_serve(args: &ServeArgs) -> Result<(), LaunchError> {
    // From here on a signal waits to be read, whatever happens in between.
    let stop = signals().map_err(LaunchError::Signals)?;
    // A second process hears that the directory is taken, and a port that is taken is known before anything is made.
    let dir = LockedDir::take(&args.store, args.init)?;
    let listeners = Listeners::bind(args).await?;
    let address = listeners.grpc_address();
    let on_terminal = io::stdout().is_terminal();
    let left_at = operator_key_path(&args.store);
    let mut hand_over = |key: &PlainKey| {
        if on_terminal {
            return welcome(&mut io::stdout(), address, key);
        }
        write_operator_key(&left_at, key)?;
        tracing::info!(file = %left_at.display(), "the first operator key was made and left in a file");
        Ok(())
    };
    let if_empty = if args.init {
        IfEmpty::Found(&mut hand_over)
    } else {
        IfEmpty::Refuse
    };
    let data = dir.open(Clock::system(), if_empty).await?;
    tracing::info!(
        grpc = %address,
        http = %listeners.http_address(),
        data_dir = %args.store.data_dir.display(),
        "listening"
    );
    Server::new(args, data, listeners).await?.run(stop).await?;
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

async fn try_bootstrap(args: &BootstrapArgs) -> Result<(), LaunchError> {
    let print = |key: &PlainKey| -> io::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{}", key.expose())?;
        out.flush()
    };
    if args.recover {
        let data = DataDir::open(&args.store, Clock::system(), IfEmpty::Refuse).await?;
        data.recover(print).await?;
        data.store.close().await;
        return Ok(());
    }
    let mut is_new = false;
    let mut hand_over = |key: &PlainKey| {
        is_new = true;
        print(key)
    };
    let data = DataDir::open(&args.store, Clock::system(), IfEmpty::Found(&mut hand_over)).await?;
    data.store.close().await;
    if is_new {
        Ok(())
    } else {
        Err(LaunchError::AlreadyFounded)
    }
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
