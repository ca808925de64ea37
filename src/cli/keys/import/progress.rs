//! The progress of an import: on a terminal one line that is rewritten, elsewhere a line every few seconds.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::cli::output;
use crate::cli::text::{grouped, span};

/// The shortest time between two lines in a log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Prints the progress on standard error.
pub(super) struct ProgressReporter {
    style: Style,
    /// The size of the file in bytes, if known.
    size: Option<u64>,
    start: Instant,
    last_printed: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Silent,
    Terminal,
    Log,
}

/// How much of the file was sent, and in which time.
#[derive(Clone, Copy, Debug)]
struct Progress {
    lines: u64,
    bytes: u64,
    size: Option<u64>,
    elapsed: Duration,
}

impl ProgressReporter {
    /// Starts now. JSON output has no progress.
    pub(super) fn start(is_json: bool, size: Option<u64>) -> Self {
        let style = if is_json {
            Style::Silent
        } else if io::stderr().is_terminal() {
            Style::Terminal
        } else {
            Style::Log
        };
        Self {
            style,
            size,
            start: Instant::now(),
            last_printed: None,
        }
    }

    /// Reports a finished batch. The first batch gives an estimate for the whole file.
    pub(super) fn advance(&mut self, lines: u64, bytes: u64, dry_run: bool) {
        let now = Instant::now();
        let progress = Progress {
            lines,
            bytes,
            size: self.size,
            elapsed: now - self.start,
        };
        if self.last_printed.is_none() && self.size == Some(bytes) {
            // The whole file was one batch, so no estimate is needed.
            return;
        } else if self.last_printed.is_none() {
            self.print(&progress.estimate(dry_run));
        } else if self.style == Style::Terminal {
            // Without a newline, so that the next line replaces this one.
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{}", progress.line());
            let _ = stderr.flush();
        } else if self
            .last_printed
            .is_some_and(|last| now - last >= LOG_INTERVAL)
        {
            self.print(&progress.line());
        } else {
            return;
        }
        self.last_printed = Some(now);
    }

    /// Prints a line that stays.
    pub(super) fn print(&self, line: &str) {
        if self.style != Style::Silent {
            self.finish();
            output::print_error(line);
        }
    }

    /// Clears the rewritten line.
    pub(super) fn finish(&self) {
        if self.style == Style::Terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Progress {
    /// The estimate after the first batch.
    fn estimate(self, dry_run: bool) -> String {
        let why = if dry_run {
            ""
        } else {
            " (for each new key the server computes one Argon2 root)"
        };
        let left = self.left().map_or_else(String::new, |left| {
            format!(
                ", so the whole file takes about {}",
                rough(left + self.elapsed)
            )
        });
        format!("{} lines a second{left}{why}", self.rate())
    }

    fn line(self) -> String {
        let percent = self
            .size
            .filter(|size| *size > 0)
            .map_or_else(String::new, |size| {
                format!(", {} %", (self.bytes.saturating_mul(100) / size).min(100))
            });
        let left = self
            .left()
            .map_or_else(String::new, |left| format!(", about {} left", rough(left)));
        format!(
            "{} lines{percent}, {} a second{left}",
            grouped(self.lines),
            self.rate()
        )
    }

    fn rate(self) -> String {
        let millis = self.elapsed.as_millis().max(1);
        let rate = u128::from(self.lines) * 1_000 / millis;
        if rate == 0 {
            "less than 1".to_owned()
        } else {
            grouped(u64::try_from(rate).unwrap_or(u64::MAX))
        }
    }

    /// Estimates the time left by the bytes, because the number of lines is unknown.
    fn left(self) -> Option<Duration> {
        let size = self.size?;
        let left = u128::from(size.saturating_sub(self.bytes));
        let millis = self.elapsed.as_millis() * left / u128::from(self.bytes.max(1));
        Some(Duration::from_millis(u64::try_from(millis).ok()?))
    }
}

/// Formats an estimate with one unit.
fn rough(length: Duration) -> String {
    let seconds = length.as_secs();
    let unit = match seconds {
        0..120 => 1,
        120..7_200 => 60,
        _ => 3_600,
    };
    span(Duration::from_secs((seconds / unit * unit).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(size: Option<u64>) -> Progress {
        Progress {
            lines: 1_200,
            bytes: 60_000,
            size,
            elapsed: Duration::from_secs(30),
        }
    }

    #[test]
    fn the_first_batch_gives_an_estimate() {
        assert_eq!(
            progress(Some(6_000_000)).estimate(false),
            "40 lines a second, so the whole file takes about 50min (for each new key the server computes one Argon2 root)"
        );
        assert_eq!(progress(None).estimate(true), "40 lines a second");
    }

    #[test]
    fn the_line_shows_how_much_is_left() {
        assert_eq!(
            progress(Some(120_000)).line(),
            "1,200 lines, 50 %, 40 a second, about 30s left"
        );
        assert_eq!(progress(None).line(), "1,200 lines, 40 a second");
        assert_eq!(
            progress(Some(0)).line(),
            "1,200 lines, 40 a second, about 1s left",
            "a file that was empty and has grown"
        );
    }
}
