//! How far an import is, while it runs: one line that changes on a terminal, one now and then elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::cli::output;
use crate::cli::text::{grouped, span};

/// How often a log gets a line.
const PAUSE: Duration = Duration::from_secs(5);

/// What is told on standard error.
pub(super) struct Progress {
    manner: Manner,
    /// How long the file is, if that is known.
    size: Option<u64>,
    start: Instant,
    told: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Silent,
    Terminal,
    Log,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
struct Stand {
    lines: u64,
    bytes: u64,
    size: Option<u64>,
    elapsed: Duration,
}

impl Progress {
    /// From now on. What programs read has no place for it.
    pub(super) fn start(is_json: bool, size: Option<u64>) -> Self {
        let manner = if is_json {
            Manner::Silent
        } else if io::stderr().is_terminal() {
            Manner::Terminal
        } else {
            Manner::Log
        };
        Self {
            manner,
            size,
            start: Instant::now(),
            told: None,
        }
    }

    /// A batch is done. After the first it is known how fast that goes.
    pub(super) fn advance(&mut self, lines: u64, bytes: u64, dry_run: bool) {
        let now = Instant::now();
        let stand = Stand {
            lines,
            bytes,
            size: self.size,
            elapsed: now - self.start,
        };
        if self.told.is_none() && self.size == Some(bytes) {
            // A file of one batch takes no time that could be told before.
            return;
        } else if self.told.is_none() {
            self.tell(&stand.estimate(dry_run));
        } else if self.manner == Manner::Terminal {
            // It is wiped off again, and written without a new line.
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{}", stand.line());
            let _ = stderr.flush();
        } else if self.told.is_some_and(|told| now - told >= PAUSE) {
            self.tell(&stand.line());
        } else {
            return;
        }
        self.told = Some(now);
    }

    /// Says something that stays.
    pub(super) fn tell(&self, words: &str) {
        if self.manner != Manner::Silent {
            self.finish();
            output::tell(words);
        }
    }

    /// Clears the line.
    pub(super) fn finish(&self) {
        if self.manner == Manner::Terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Stand {
    /// What is to be expected, after the first batch.
    fn estimate(self, dry_run: bool) -> String {
        let why = if dry_run {
            ""
        } else {
            " (for each new key the server runs Argon2 once, for its root)"
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
        let share = self
            .size
            .filter(|size| *size > 0)
            .map_or_else(String::new, |size| {
                format!(", {} %", (self.bytes.saturating_mul(100) / size).min(100))
            });
        let left = self
            .left()
            .map_or_else(String::new, |left| format!(", about {} left", rough(left)));
        format!(
            "{} lines{share}, {} a second{left}",
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

    /// By the bytes, as nobody has counted the lines.
    fn left(self) -> Option<Duration> {
        let size = self.size?;
        let left = u128::from(size.saturating_sub(self.bytes));
        let millis = self.elapsed.as_millis() * left / u128::from(self.bytes.max(1));
        Some(Duration::from_millis(u64::try_from(millis).ok()?))
    }
}

/// As exact as an estimate deserves.
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

    fn stand(size: Option<u64>) -> Stand {
        Stand {
            lines: 1_200,
            bytes: 60_000,
            size,
            elapsed: Duration::from_secs(30),
        }
    }

    #[test]
    fn the_first_batch_tells_how_long_it_will_take() {
        assert_eq!(
            stand(Some(6_000_000)).estimate(false),
            "40 lines a second, so the whole file takes about 50m (for each new key the server runs Argon2 once, for its root)"
        );
        assert_eq!(stand(None).estimate(true), "40 lines a second");
    }

    #[test]
    fn the_line_tells_how_much_is_left() {
        assert_eq!(
            stand(Some(120_000)).line(),
            "1,200 lines, 50 %, 40 a second, about 30s left"
        );
        assert_eq!(stand(None).line(), "1,200 lines, 40 a second");
        assert_eq!(
            stand(Some(0)).line(),
            "1,200 lines, 40 a second, about 1s left",
            "a file that was empty and has grown"
        );
    }
}
