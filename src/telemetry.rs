//! Logging on standard error: for people on a terminal, as JSON otherwise.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// The flags of the log.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What to log: a level such as info or debug, or directives such as claviger=debug,h2=warn
    #[arg(
        long,
        env = "CLAVIGER_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,

    /// The format of the log
    #[arg(long, env = "CLAVIGER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people if standard error is a terminal, JSON otherwise
    Auto,
    /// For people
    Human,
    /// One JSON object per line
    Json,
}

/// Starts logging.
///
/// # Errors
/// A message for the user, if the filter cannot be parsed.
pub fn start(args: &LogArgs) -> Result<(), String> {
    let filter: Targets = args.log.parse().map_err(|error| {
        format!(
            "--log {}: {error}; try info, debug or claviger=debug",
            args.log
        )
    })?;
    let on_terminal = std::io::stderr().is_terminal();
    let human = match args.log_format {
        LogFormat::Auto => on_terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let logs = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(on_terminal);
    if human {
        logs.with_target(false).finish().with(filter).init();
    } else {
        logs.json().flatten_event(true).finish().with(filter).init();
    }
    log_panics();
    Ok(())
}

/// Logs panics as events instead of printing them. A message that was formatted at run time is left out, because it may contain
/// secrets; a literal message is logged.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>();
        let location = panic.location().map(ToString::to_string);
        tracing::error!(
            location,
            panic_message = message,
            "panic: this is a bug in claviger"
        );
    }));
}
