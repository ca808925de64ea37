//! Logging on standard error, for people on a terminal, as JSON otherwise; and traces.
//!
//! Nothing waits for the log: see `writer.rs`. Nothing else in the process writes to standard error while it serves.

mod limiter;
mod request_id;
mod tracer;
mod writer;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use clap::{Args, ValueEnum};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

pub(crate) use limiter::limited;
pub use limiter::{LineRate, LogLimiter};
pub use request_id::{REQUEST_ID, is_request_id, request_id, request_id_text, trace_id};
pub use tracer::{TraceArgs, TraceParent, TracedCall, Tracer};
use writer::{LogQueue, Lost};

/// How long the exit of the process may wait for the log to be written. Nobody may be reading it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// The flags of the log.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What to log: a level such as info or debug, or directives such as debug,h2=debug. A single level
    /// applies to claviger, and libraries log at most info
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

/// The running log. Dropping it waits until all lines are written, for at most three seconds.
pub struct Log(Arc<LogQueue>);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

impl LogArgs {
    /// Returns what to log.
    ///
    /// # Errors
    /// A message for the user, if the filter cannot be parsed.
    pub fn filter(&self) -> Result<Targets, String> {
        let Self { log, log_format: _ } = self;
        if let Ok(level) = log.parse::<LevelFilter>() {
            // What libraries say in detail is about frames and statements. Directives such as h2=debug ask for it.
            let own = Targets::new().with_default(level.min(LevelFilter::INFO));
            return Ok(own.with_target(env!("CARGO_PKG_NAME"), level));
        }
        log.parse()
            .map_err(|error| format!("--log {log}: {error}; try info, debug or claviger=debug"))
    }
}

/// Starts logging.
///
/// # Errors
/// A message for the user, if the filter cannot be parsed, or the log cannot be started.
pub fn start(args: &LogArgs) -> Result<Log, String> {
    let filter = args.filter()?;
    let stderr = io::stderr();
    let on_terminal = stderr.is_terminal();
    let human = match args.log_format {
        LogFormat::Auto => on_terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    // A descriptor of its own, because a write that waits would hold the lock of `io::stderr()`.
    let output = stderr.as_fd().try_clone_to_owned().map(File::from);
    let queue = output
        .and_then(|output| LogQueue::start(output, log_lost_lines))
        .map_err(|error| format!("cannot start the log: {error}"))?;
    let logs = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(Arc::clone(&queue))
        // It would be reported by `eprintln!`, which panics if it fails as well.
        .log_internal_errors(false)
        .with_ansi(on_terminal && AutoStream::choice(&stderr) != ColorChoice::Never);
    let libraries = LibraryLimiter::default();
    if human {
        let logs = logs.with_target(false).finish();
        logs.with(libraries).with(filter).init();
    } else {
        let logs = logs
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .finish();
        logs.with(libraries).with(filter).init();
    }
    log_panics();
    let _ = QUEUE.set(Arc::clone(&queue));
    Ok(Log(queue))
}

/// Prints a line for people on standard error, after the lines of the log. Failures are ignored, because there is nowhere to
/// report them.
pub fn print(line: &str) {
    let line = format!("{line}\n");
    match QUEUE.get() {
        Some(queue) => queue.push(line.as_bytes()),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// The number of lines that were lost since the log was started.
pub fn lost_lines() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.lost())
}

/// Logs the number of lines that were lost because they did not fit into the queue, or could not be written.
fn log_lost_lines(Lost { dropped, failed }: Lost) {
    tracing::warn!(
        dropped,
        failed,
        "log lines lost: standard error could not be written"
    );
}

/// Limits warnings and errors of libraries, such as h2's about frames that a client sends. They cannot use
/// [`limited!`](limited). More detailed levels are not limited, because who asks for them wants all lines.
#[derive(Default)]
struct LibraryLimiter(LogLimiter);

impl<S: Subscriber> Layer<S> for LibraryLimiter {
    // Not `enabled`, which libraries also call before they prepare an event.
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let library = metadata.target();
        if library.starts_with(env!("CARGO_PKG_NAME")) || *metadata.level() > Level::WARN {
            return true;
        }
        match self.0.admit((library, metadata.line())) {
            None => false,
            Some(0) => true,
            Some(suppressed) => {
                tracing::warn!(library, suppressed, "lines of a library left out");
                true
            }
        }
    }
}

/// Logs panics as events instead of printing them. A message that was formatted at run time is left out, because it may contain
/// secrets; a literal message is logged.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>();
        let location = panic.location().map(ToString::to_string);
        // Requests may be what causes it.
        limited!(panic.location() => error,
            location,
            panic_message = message,
            "panic: this is a bug in claviger"
        );
    }));
}
