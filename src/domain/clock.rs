//! The only code that reads the system clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use super::time::Timestamp;

/// A clock that never returns a time before its mark.
///
/// The mark keeps an expired key expired when the machine's clock is set back. Code that gets a later time from elsewhere, such
/// as from the store at a start, passes it to [`Clock::advance`].
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
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self {
            source: Source::System,
            mark: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }

    /// Returns a clock for tests, which changes only with [`Clock::set`].
    pub fn manual(now: Timestamp) -> Self {
        Self {
            source: Source::Manual(Arc::new(AtomicI64::new(now.as_micros()))),
            mark: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        // A plain load, because every thread reads the time on every request.
        self.reading()
            .max(Timestamp::from_micros(self.mark.load(Ordering::Relaxed)))
    }

    /// Raises the mark: from now on the time is never before `mark`. Returns how far the source is behind `mark`.
    pub fn advance(&self, mark: Timestamp) -> Duration {
        self.mark.fetch_max(mark.as_micros(), Ordering::Relaxed);
        mark.since(self.reading())
    }

    /// Sets a manual clock to `now`.
    ///
    /// # Panics
    /// If this is the machine's clock.
    pub fn set(&self, now: Timestamp) {
        match &self.source {
            Source::Manual(time) => time.store(now.as_micros(), Ordering::Relaxed),
            Source::System => panic!("the machine's clock cannot be set"),
        }
    }

    fn reading(&self) -> Timestamp {
        match &self.source {
            #[expect(
                clippy::disallowed_methods,
                reason = "only the clock reads the system time"
            )]
            Source::System => SystemTime::now().into(),
            Source::Manual(time) => Timestamp::from_micros(time.load(Ordering::Relaxed)),
        }
    }
}

/// The clocks by which a process measures how much time has passed: one that counts while the machine is suspended, and the
/// machine's wall clock, which goes on also if the machine was paused without its knowledge and has its time set afterwards.
#[derive(Clone, Debug)]
pub struct ElapsedClock(ElapsedSource);

#[derive(Clone, Debug)]
enum ElapsedSource {
    System,
    Manual(Arc<[AtomicI64; 2]>),
}

/// A reading of an [`ElapsedClock`]. It means nothing to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElapsedReading {
    boot: i64,
    wall: i64,
}

impl ElapsedClock {
    /// Returns the machine's clocks.
    pub fn system() -> Self {
        Self(ElapsedSource::System)
    }

    /// Returns clocks for tests, which change only with [`ElapsedClock::advance`].
    pub fn manual() -> Self {
        Self(ElapsedSource::Manual(Arc::default()))
    }

    /// Reads the clocks.
    pub fn read(&self) -> ElapsedReading {
        match &self.0 {
            ElapsedSource::System => {
                let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
                let micros =
                    |time: rustix::time::Timespec| time.tv_sec * 1_000_000 + time.tv_nsec / 1_000;
                ElapsedReading {
                    boot: micros(boot),
                    wall: micros(wall),
                }
            }
            ElapsedSource::Manual(times) => ElapsedReading {
                boot: times[0].load(Ordering::Relaxed),
                wall: times[1].load(Ordering::Relaxed),
            },
        }
    }

    /// Lets time pass on manual clocks.
    ///
    /// # Panics
    /// If these are the machine's clocks.
    pub fn advance(&self, boot: Duration, wall: Duration) {
        let ElapsedSource::Manual(times) = &self.0 else {
            panic!("the machine's clocks cannot be set");
        };
        for (time, passed) in times.iter().zip([boot, wall]) {
            time.fetch_add(passed.as_micros() as i64, Ordering::Relaxed);
        }
    }
}

impl ElapsedReading {
    /// The time on the boot clock, in microseconds.
    pub fn boot_micros(self) -> i64 {
        self.boot
    }

    /// The time on the wall clock, in microseconds since the Unix epoch.
    pub fn wall_micros(self) -> i64 {
        self.wall
    }

    /// The time on the boot clock since an earlier reading, whose rate alone matters.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros((self.boot - earlier.boot).max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_never_before_the_mark() {
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
