//! The progress of an import: on a terminal one line that is rewritten, elsewhere a line every few seconds.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::cli::output;
use crate::cli::text::{grouped, span};

/// The shortest time between two lines in a log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// How many batches the rate is of: the speed changes, for example where a file begins that is in already.
const RECENT: usize = 8;

/// The cells of the bar on a terminal.
const BAR: u64 = 20;

/// Prints the progress on standard error.
pub(super) struct ProgressReporter {
    style: Style,
    /// The size of the file in bytes, if known.
    size: Option<u64>,
    /// The end of the last batch.
    last_batch: Instant,
    /// The new lines of the last batches that had some, and how long each batch took.
    recent: VecDeque<(u64, Duration)>,
    is_estimated: bool,
    last_printed: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Silent,
    Terminal,
    Log,
}

/// What was sent of the file so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The lines that have an outcome.
    pub(super) lines: u64,
    /// The lines of the last batch that were new: those that are in already are much faster.
    pub(super) new: u64,
    /// The bytes that were read.
    pub(super) bytes: u64,
}

/// How much of the file was sent, and how fast.
#[derive(Clone, Copy, Debug)]
struct Progress {
    sent: Sent,
    size: Option<u64>,
    /// The new lines in this time; none if no line was new.
    new: u64,
    time: Duration,
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
            last_batch: Instant::now(),
            recent: VecDeque::new(),
            is_estimated: false,
            last_printed: None,
        }
    }

    /// Reports a finished batch. The first one with new lines gives an estimate for the rest of the file.
    pub(super) fn advance(&mut self, sent: Sent, dry_run: bool) {
        let now = Instant::now();
        if sent.new > 0 {
            self.recent.push_back((sent.new, now - self.last_batch));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
        self.last_batch = now;
        let progress = Progress {
            sent,
            size: self.size,
            new: self.recent.iter().map(|(new, _)| new).sum(),
            time: self.recent.iter().map(|(_, time)| *time).sum(),
        };
        let is_whole = self.size == Some(sent.bytes);
        if sent.new > 0 && !self.is_estimated && !is_whole {
            self.is_estimated = true;
            self.print(&progress.estimate(dry_run));
        } else if self.last_printed.is_none() && is_whole {
            // The whole file was one batch.
            return;
        } else if self.style == Style::Terminal {
            // Without a newline, so that the next line replaces this one.
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{}{}", progress.bar(), progress.line());
            let _ = stderr.flush();
        } else if self
            .last_printed
            .is_none_or(|last| now - last >= LOG_INTERVAL)
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
    /// The estimate after the first batch with new lines.
    fn estimate(self, dry_run: bool) -> String {
        let why = if dry_run {
            ""
        } else {
            " (for each new key the server computes one Argon2 root)"
        };
        let left = self.left().map_or_else(String::new, |left| {
            format!(", so the rest of the file takes about {}", rough(left))
        });
        format!("{} new lines a second{left}{why}", self.rate())
    }

    fn line(self) -> String {
        let percent = self
            .percent()
            .map_or_else(String::new, |percent| format!(", {percent} %"));
        let rate = if self.new == 0 {
            ", all of them in already".to_owned()
        } else {
            format!(", {} new ones a second", self.rate())
        };
        let left = self
            .left()
            .map_or_else(String::new, |left| format!(", about {} left", rough(left)));
        format!("{} lines{percent}{rate}{left}", grouped(self.sent.lines))
    }

    /// A bar, with a space after it; empty if the size of the file is not known.
    fn bar(self) -> String {
        self.percent().map_or_else(String::new, |percent| {
            let full = (percent * BAR / 100) as usize;
            format!("{}{} ", "█".repeat(full), "░".repeat(BAR as usize - full))
        })
    }

    fn percent(self) -> Option<u64> {
        let size = self.size.filter(|size| *size > 0)?;
        Some((self.sent.bytes.saturating_mul(100) / size).min(100))
    }

    fn rate(self) -> String {
        let millis = self.time.as_millis().max(1);
        let rate = u128::from(self.new) * 1_000 / millis;
        if rate == 0 {
            "less than 1".to_owned()
        } else {
            grouped(u64::try_from(rate).unwrap_or(u64::MAX))
        }
    }

    /// Estimates the time for the rest, all of it new. The number of its lines is estimated by the bytes.
    fn left(self) -> Option<Duration> {
        let size = self.size.filter(|_| self.new > 0)?;
        let bytes = u128::from(size.saturating_sub(self.sent.bytes));
        let lines = bytes * u128::from(self.sent.lines) / u128::from(self.sent.bytes.max(1));
        let millis = self.time.as_millis() * lines / u128::from(self.new);
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
            sent: Sent {
                lines: 1_200,
                new: 100,
                bytes: 60_000,
            },
            size,
            new: 400,
            time: Duration::from_secs(10),
        }
    }

    #[test]
    fn the_first_new_lines_give_an_estimate() {
        assert_eq!(
            progress(Some(6_000_000)).estimate(false),
            "40 new lines a second, so the rest of the file takes about 49min \
             (for each new key the server computes one Argon2 root)"
        );
        assert_eq!(progress(None).estimate(true), "40 new lines a second");
    }

    #[test]
    fn the_line_shows_how_much_is_left() {
        assert_eq!(
            progress(Some(120_000)).line(),
            "1,200 lines, 50 %, 40 new ones a second, about 30s left"
        );
        assert_eq!(progress(Some(120_000)).bar(), "██████████░░░░░░░░░░ ");
        assert_eq!(progress(None).line(), "1,200 lines, 40 new ones a second");
        assert_eq!(progress(None).bar(), "");
        assert_eq!(
            progress(Some(0)).line(),
            "1,200 lines, 40 new ones a second, about 1s left",
            "a file that was empty and has grown"
        );
    }

    /// Seen red with the rate of all lines.
    #[test]
    fn lines_that_are_in_already_promise_no_speed() {
        let known = Progress {
            new: 0,
            time: Duration::ZERO,
            ..progress(Some(120_000))
        };
        assert_eq!(known.line(), "1,200 lines, 50 %, all of them in already");
    }
}
