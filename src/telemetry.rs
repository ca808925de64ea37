//! Logs: for people on a terminal, as JSON otherwise. Always on standard error.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What is logged, and how.
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

    /// The form of the log
    #[arg(long, env = "CLAVIGER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people if standard error is a terminal, JSON otherwise
    Auto,
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

/// Begins to log.
///
/// # Errors
/// A sentence, if the filter cannot be understood.
pub fn start(args: &LogArgs) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| {
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
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(on_terminal);
    if human {
        logs.with_target(false).init();
    } else {
        logs.json().flatten_event(true).init();
    }
    log_panics();
    Ok(())
}

/// A panic is logged like everything else, and only here. What was put together for it is left out, as it may hold
/// anything; what stands in the source may be said.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let said = panic.payload().downcast_ref::<&'static str>();
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, said, "a panic, which is a bug in claviger");
    }));
}
