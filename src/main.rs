//! The `claviger` program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use claviger::cli::{self, ClientCommand, Connection};
use claviger::config::ServeArgs;
use claviger::launch::{self, BootstrapArgs};
use claviger::telemetry::{self, LogArgs};

/// A key authority: issues API keys, and answers on every request whether a key is good for it.
#[derive(Parser)]
#[command(name = "claviger", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the authority.
    Serve {
        #[command(flatten)]
        serve: Box<ServeArgs>,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Make the first operator key, without serving, and print it alone on standard output.
    Bootstrap {
        #[command(flatten)]
        bootstrap: BootstrapArgs,
        #[command(flatten)]
        log: LogArgs,
    },
    #[command(flatten)]
    Client(ClientCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    let CommandLine {
        connection,
        command,
    } = CommandLine::parse();
    let log = match &command {
        Command::Serve { log, .. } | Command::Bootstrap { log, .. } => Some(log),
        Command::Client(_) => None,
    };
    if let Some(Err(problem)) = log.map(telemetry::start) {
        eprintln!("error: {problem}");
        return ExitCode::from(launch::BAD_CONFIGURATION);
    }
    match command {
        Command::Serve { serve, .. } => launch::serve(&serve).await,
        Command::Bootstrap { bootstrap, .. } => launch::bootstrap(&bootstrap).await,
        Command::Client(command) => cli::run(connection, command).await,
    }
}
