//! The one place where the time is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use super::time::Timestamp;

/// Tells what time it is, never an earlier one than it was once told to be past.
///
/// The mark is what keeps an expired key expired when the machine's clock is set back: whoever learns of a later time
/// (from the store, at a start) calls [`Clock::advance`].
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    mark: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self {
            source: Source::System,
            mark: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }

    /// A clock that stands still until it is moved; for tests.
    pub fn manual(now: Timestamp) -> Self {
        Self {
            source: Source::Manual(Arc::new(AtomicI64::new(now.as_micros()))),
            mark: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        // A plain load: this is read on every request, by every thread.
        self.reading()
            .max(Timestamp::from_micros(self.mark.load(Ordering::Relaxed)))
    }

    /// From now on it is never earlier than `mark`. Returns how far behind that the source is.
    pub fn advance(&self, mark: Timestamp) -> Duration {
        self.mark.fetch_max(mark.as_micros(), Ordering::Relaxed);
        mark.since(self.reading())
    }

    /// Moves a manual clock.
    ///
    /// # Panics
    /// If this is the machine's clock.
    pub fn set(&self, now: Timestamp) {
        match &self.source {
            Source::Manual(time) => time.store(now.as_micros(), Ordering::Relaxed),
            Source::System => panic!("the machine's clock cannot be moved"),
        }
    }

    fn reading(&self) -> Timestamp {
        match &self.source {
            #[expect(clippy::disallowed_methods, reason = "this is the clock's one home")]
            Source::System => SystemTime::now().into(),
            Source::Manual(time) => Timestamp::from_micros(time.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_back_behind_the_mark() {
        let clock = Clock::manual(Timestamp::from_micros(100));
        assert_eq!(clock.advance(Timestamp::from_micros(90)), Duration::ZERO);
        assert_eq!(clock.now(), Timestamp::from_micros(100));

        let behind = clock.advance(Timestamp::from_micros(250));
        assert_eq!(behind, Duration::from_micros(150));
        assert_eq!(clock.now(), Timestamp::from_micros(250));

        clock.set(Timestamp::from_micros(300));
        assert_eq!(clock.now(), Timestamp::from_micros(300));
    }
}
