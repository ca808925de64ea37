//! The limiter for log lines that requests can cause.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The minimum time between two lines with the same reason.
const INTERVAL: Duration = Duration::from_mins(1);

/// The number of reasons that are told apart. All further reasons together count as one, so that a limiter never grows.
const REASONS: usize = 32;

/// The most lines in a second of an event that is logged each time.
const LINES_PER_SECOND: u64 = 50;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A limiter for the lines of one log event: at most one line a minute for each reason. It takes no lock and allocates nothing.
#[derive(Debug)]
pub struct LogLimiter {
    reasons: [Reason; REASONS],
}

#[derive(Debug)]
struct Reason {
    /// The hash of the reason, or 0 if this entry is free.
    hash: AtomicU64,
    /// The time from which on the next line may be written, in milliseconds after [`START`].
    next_at: AtomicU64,
    /// The number of lines since the last one that was written.
    suppressed: AtomicU64,
}

impl LogLimiter {
    /// Creates a limiter, usually as the value of a `static`.
    pub const fn new() -> Self {
        Self {
            reasons: [const { Reason::new() }; REASONS],
        }
    }

    /// Returns whether a line with this reason is to be written now: the number of lines with the same reason that were not
    /// written since the last one, or `None` if this line is not to be written either.
    pub fn admit(&self, reason: impl Hash) -> Option<u64> {
        self.admit_at(reason, START.elapsed())
    }

    fn admit_at(&self, reason: impl Hash, now: Duration) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        reason.hash(&mut hasher);
        self.entry(hasher.finish().max(1)).admit(now)
    }

    /// The entry of a reason: its own, else the first free one, else the last.
    fn entry(&self, hash: u64) -> &Reason {
        let (last, others) = self.reasons.split_last().expect("there are entries");
        let is_own = |entry: &&Reason| {
            let mut found = entry.hash.load(Ordering::Relaxed);
            if found == 0 {
                let taken =
                    entry
                        .hash
                        .compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed);
                found = taken.err().unwrap_or(hash);
            }
            found == hash
        };
        others.iter().find(is_own).unwrap_or(last)
    }
}

impl Default for LogLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl Reason {
    const fn new() -> Self {
        Self {
            hash: AtomicU64::new(0),
            next_at: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    fn admit(&self, now: Duration) -> Option<u64> {
        let next_at = self.next_at.load(Ordering::Relaxed);
        let take = |later| {
            self.next_at
                .compare_exchange(next_at, later, Ordering::Relaxed, Ordering::Relaxed)
        };
        // Of several threads that find the line due, one writes it.
        if now.as_millis() as u64 >= next_at && take((now + INTERVAL).as_millis() as u64).is_ok() {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// A limiter for the lines of an event that is logged each time, such as a change: at most 50 lines in a second.
#[derive(Debug)]
pub struct LineRate(Mutex<Second>);

#[derive(Debug)]
struct Second {
    /// Its number after [`START`].
    number: u64,
    /// The number of lines that were written in this second.
    written: u64,
    /// The number of lines since the last one that was written.
    suppressed: u64,
}

impl LineRate {
    /// Creates a limiter, usually as the value of a `static`.
    pub const fn new() -> Self {
        Self(Mutex::new(Second {
            number: 0,
            written: 0,
            suppressed: 0,
        }))
    }

    /// Returns whether a line is to be written now: the number of lines that were not written since the last one, or `None` if
    /// this line is not to be written either.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(START.elapsed())
    }

    fn admit_at(&self, now: Duration) -> Option<u64> {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.number != now.as_secs() {
            second.number = now.as_secs();
            second.written = 0;
        }
        if second.written == LINES_PER_SECOND {
            second.suppressed += 1;
            return None;
        }
        second.written += 1;
        Some(std::mem::take(&mut second.suppressed))
    }
}

impl Default for LineRate {
    fn default() -> Self {
        Self::new()
    }
}

/// Logs an event that requests can cause: `limited!(error, ...)` is `tracing::error!(...)`, but of the lines from this place at
/// most one a minute is written. Its field `suppressed` is the number of lines since the last one that were not.
///
/// `limited!(reason => warn, ...)` tells lines with different reasons apart. A client must not be able to choose the reason.
macro_rules! limited {
    ($reason:expr => $level:ident, $($event:tt)+) => {{
        static LIMITER: $crate::telemetry::LogLimiter = $crate::telemetry::LogLimiter::new();
        if let Some(suppressed) = LIMITER.admit($reason) {
            tracing::$level!(suppressed, $($event)+);
        }
    }};
    ($level:ident, $($event:tt)+) => {
        $crate::telemetry::limited!(() => $level, $($event)+)
    };
}
pub(crate) use limited;

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red with a limiter that forgets what it did not admit, and with one that admits all.
    #[test]
    fn a_minute_has_one_line_and_the_next_line_says_how_many_are_missing() {
        let limiter = LogLimiter::new();
        let at = Duration::from_secs;
        assert_eq!(limiter.admit_at("full", at(5)), Some(0));
        for second in 5..65 {
            assert_eq!(limiter.admit_at("full", at(second)), None);
        }
        assert_eq!(limiter.admit_at("full", at(65)), Some(60));
        assert_eq!(limiter.admit_at("full", at(124)), None);
        assert_eq!(limiter.admit_at("full", at(1_000)), Some(1));
    }

    /// Seen red with a rate that never ends, and with a count that is not taken.
    #[test]
    fn a_second_has_fifty_lines_and_the_next_line_says_how_many_are_missing() {
        let rate = LineRate::new();
        let at = |millis| rate.admit_at(Duration::from_millis(millis));
        for line in 0..LINES_PER_SECOND {
            assert_eq!(at(line), Some(0));
        }
        for suppressed in 0..70 {
            assert_eq!(at(900 + suppressed), None);
        }
        assert_eq!(at(1_000), Some(70));
        assert_eq!(at(1_000), Some(0));
    }

    /// Seen red with one entry for all reasons.
    #[test]
    fn each_reason_has_lines_of_its_own_and_too_many_reasons_share_one() {
        let limiter = LogLimiter::new();
        let now = Duration::ZERO;
        for reason in 0..REASONS {
            assert_eq!(limiter.admit_at(reason, now), Some(0), "{reason}");
        }
        for reason in 0..2 * REASONS {
            assert_eq!(limiter.admit_at(reason, now), None, "{reason}");
        }
        // The last reason with an entry has missed one line; those that share one have missed one each.
        let later = now + INTERVAL;
        assert_eq!(limiter.admit_at(REASONS - 2, later), Some(1));
        assert_eq!(
            limiter.admit_at(2 * REASONS, later),
            Some(REASONS as u64 + 1)
        );
    }

    /// Seen red with a load and a store in place of the exchange: both threads then write the line of one minute.
    #[test]
    fn threads_write_one_line_a_minute_together_and_no_line_is_counted_twice() {
        const MINUTES: u32 = 50_000;
        const THREADS: u32 = 2;
        let limiter = LogLimiter::new();
        let arrived = AtomicU64::new(0);
        // The threads meet before each minute, so that they find its line due at the same moment.
        let work = || {
            let mut admitted = Vec::new();
            for minute in 0..MINUTES {
                arrived.fetch_add(1, Ordering::Relaxed);
                while arrived.load(Ordering::Relaxed) < u64::from((minute + 1) * THREADS) {
                    std::thread::yield_now();
                }
                admitted.extend(limiter.admit_at((), minute * INTERVAL));
            }
            admitted
        };
        let admitted: Vec<u64> = std::thread::scope(|threads| {
            let threads: Vec<_> = (0..THREADS).map(|_| threads.spawn(work)).collect();
            let admitted = threads.into_iter().map(|thread| thread.join().unwrap());
            admitted.flatten().collect()
        });
        assert_eq!(admitted.len(), MINUTES as usize);
        let last = limiter.admit_at((), MINUTES * INTERVAL).unwrap();
        let suppressed = admitted.iter().sum::<u64>() + last;
        assert_eq!(suppressed, u64::from(MINUTES * (THREADS - 1)));
    }
}
