//! The `claviger` program.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use claviger::cli::{self, ClientCommand, Connection};
use claviger::commands::{self, BootstrapArgs, MigrateArgs};
use claviger::config::ServeArgs;
use claviger::telemetry::{self, LogArgs};

/// An authority for API keys: issues keys, and decides for each request whether its key may do it.
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
    /// Create the authority and its first operator key, without serving, and print only the key on standard output.
    Bootstrap {
        #[command(flatten)]
        bootstrap: BootstrapArgs,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Migrate the database's schema to this version, without serving.
    Migrate {
        #[command(flatten)]
        migrate: MigrateArgs,
        #[command(flatten)]
        log: LogArgs,
    },
    #[command(flatten)]
    Client(ClientCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    let matches = CommandLine::command().get_matches();
    let CommandLine {
        connection,
        command,
    } = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let log = match &command {
        Command::Serve { log, .. }
        | Command::Bootstrap { log, .. }
        | Command::Migrate { log, .. } => Some(log),
        Command::Client(_) => None,
    };
    if log.is_some() {
        refuse_client_flags(&matches);
    }
    if let Some(Err(problem)) = log.map(telemetry::start) {
        eprintln!("error: {problem}");
        return ExitCode::from(commands::BAD_CONFIGURATION);
    }
    match command {
        Command::Serve { serve, .. } => commands::serve(&serve).await,
        Command::Bootstrap { bootstrap, .. } => commands::bootstrap(&bootstrap).await,
        Command::Migrate { migrate, .. } => commands::migrate(&migrate).await,
        Command::Client(command) => cli::run(connection, command).await,
    }
}

/// Refuses flags of the client commands. They may stand anywhere on the command line, so clap accepts them with every command;
/// ignoring them would mislead the user.
fn refuse_client_flags(matches: &ArgMatches) {
    let (_, of_command) = matches.subcommand().expect("a command is required");
    let flags = Connection::augment_args(clap::Command::new("client"));
    for flag in flags.get_arguments() {
        if of_command.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine) {
            let name = flag.get_long().unwrap_or_default();
            let message = format!(
                "--{name} is only for the commands that call a running server: leave it out\n"
            );
            CommandLine::command()
                .error(ErrorKind::ArgumentConflict, message)
                .exit();
        }
    }
}
