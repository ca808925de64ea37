//! The only code that reads the system clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, Timespec, clock_gettime};

use super::time::Timestamp;

/// The longest time between the question for a sample and its answer. A later answer says too little.
const LONGEST_SAMPLING: Duration = Duration::from_secs(1);

/// By how much a clock that is ahead may be slower than the boot clock, as a divisor: a millisecond in a second.
const SLOWING: i64 = 1_000;

/// The time of the authority. It never runs back, except when an operator sets it.
///
/// An embedded database has the time of its machine. Its clock has a mark, below which it never falls, so that an expired key stays
/// expired when the machine's clock is set back.
///
/// The servers of a shared database have the time of that database. Between two samples of it, their clocks go on by the boot clocks
/// of their machines. So their wall clocks do not matter, and the time never stands still.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    mark: Arc<AtomicI64>,
    /// How often an operator has set the time, as far as this clock knows.
    setting: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
    Database(Arc<Followed>),
}

/// The time of a database, told by the boot clock of this machine.
#[derive(Debug)]
struct Followed {
    clock: ElapsedClock,
    /// How far the time is ahead of the boot clock, in microseconds.
    ahead: AtomicI64,
    /// When the last sample was taken that counted, on the boot clock in microseconds.
    sampled: AtomicI64,
}

/// A time, and how often an operator had set the time before: the store ignores a time from before it was set.
#[derive(Clone, Copy, Debug)]
pub struct ClockReading {
    /// The time.
    pub time: Timestamp,
    /// How often the time was set; `None` if that does not matter, as in tests.
    pub setting: Option<i64>,
}

impl From<Timestamp> for ClockReading {
    fn from(time: Timestamp) -> Self {
        Self {
            time,
            setting: None,
        }
    }
}

/// The time that a database told.
#[derive(Clone, Copy, Debug)]
pub struct TimeSample {
    /// The time of the authority, at some moment between the question and the answer.
    pub time: Timestamp,
    /// How often an operator has set the time.
    pub setting: i64,
}

impl Clock {
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self::new(Source::System)
    }

    /// Returns a clock for tests, which changes only with [`Clock::set`].
    pub fn manual(now: Timestamp) -> Self {
        Self::new(Source::Manual(Arc::new(AtomicI64::new(now.as_micros()))))
    }

    /// Returns a clock that follows a database, instead of the machine's clock. A clock for tests stays as it is.
    #[must_use]
    pub fn following(self, elapsed: ElapsedClock, sample: TimeSample) -> Self {
        if let Source::Manual(_) = self.source {
            return self;
        }
        let answered = elapsed.read().boot;
        let clock = Self::new(Source::Database(Arc::new(Followed {
            ahead: AtomicI64::new(sample.time.as_micros() - answered),
            sampled: AtomicI64::new(answered),
            clock: elapsed,
        })));
        clock.setting.store(sample.setting, Ordering::Release);
        clock
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            mark: Arc::new(AtomicI64::new(i64::MIN)),
            setting: Arc::default(),
        }
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        // A plain load, because every thread reads the time on every request.
        self.source_time()
            .max(Timestamp::from_micros(self.mark.load(Ordering::Relaxed)))
    }

    /// Returns the current time for a change.
    pub fn read(&self) -> ClockReading {
        // First the setting: the time is from no earlier setting then.
        let setting = Some(self.setting.load(Ordering::Acquire));
        ClockReading {
            time: self.now(),
            setting,
        }
    }

    /// Raises the mark: from now on the time is never before `mark`. Returns how far the source is behind `mark`. A clock that follows a
    /// database needs no mark.
    pub fn advance(&self, mark: Timestamp) -> Duration {
        if let Source::Database(_) = self.source {
            return Duration::ZERO;
        }
        self.mark.fetch_max(mark.as_micros(), Ordering::Relaxed);
        mark.since(self.source_time())
    }

    /// Removes the mark, if the time was set for the time of this number. A clock that follows a database learns it with a sample.
    pub fn was_set(&self, setting: i64) {
        if !matches!(self.source, Source::Database(_))
            && self.setting.load(Ordering::Relaxed) != setting
        {
            self.mark.store(i64::MIN, Ordering::Relaxed);
            self.setting.store(setting, Ordering::Release);
        }
    }

    /// How far the time of a sample is ahead of this clock, in microseconds; negative if it is behind. `None` if this clock follows no
    /// database, or if the time was set since.
    pub fn ahead(&self, sample: TimeSample) -> Option<i64> {
        let follows = matches!(self.source, Source::Database(_));
        (follows && self.setting.load(Ordering::Relaxed) == sample.setting)
            .then(|| sample.time.as_micros() - self.now().as_micros())
    }

    /// Goes on from a sample, the question for which was sent then. Only one task may do that.
    ///
    /// The clock is never ahead of the best sample by more than what the clocks of the two machines differ in rate, and that it loses
    /// again slowly. It never runs back, unless an operator has set the time.
    pub fn follow(&self, sample: TimeSample, sent: ElapsedReading) {
        let Source::Database(followed) = &self.source else {
            return;
        };
        let answered = followed.clock.read();
        // As if it had been taken at the last moment: the clock may be behind, and not ahead.
        let told = sample.time.as_micros() - answered.boot;
        if self.setting.load(Ordering::Relaxed) != sample.setting {
            self.mark.store(i64::MIN, Ordering::Relaxed);
            followed.ahead.store(told, Ordering::Relaxed);
            self.setting.store(sample.setting, Ordering::Release);
        } else if answered.since(sent) <= LONGEST_SAMPLING {
            let known = followed.ahead.load(Ordering::Relaxed);
            let since = answered.boot - followed.sampled.load(Ordering::Relaxed);
            if told < known {
                self.mark
                    .fetch_max(answered.boot + known, Ordering::Relaxed);
            }
            followed
                .ahead
                .store(told.max(known - since / SLOWING), Ordering::Relaxed);
        } else {
            return;
        }
        followed.sampled.store(answered.boot, Ordering::Relaxed);
    }

    /// Sets a manual clock to `now`.
    ///
    /// # Panics
    /// If this is not a manual clock.
    pub fn set(&self, now: Timestamp) {
        match &self.source {
            Source::Manual(time) => time.store(now.as_micros(), Ordering::Relaxed),
            Source::System | Source::Database(_) => panic!("only a manual clock can be set"),
        }
    }

    /// The time of the source, without the mark.
    pub fn source_time(&self) -> Timestamp {
        match &self.source {
            #[expect(
                clippy::disallowed_methods,
                reason = "only the clock reads the system time"
            )]
            Source::System => SystemTime::now().into(),
            Source::Manual(time) => Timestamp::from_micros(time.load(Ordering::Relaxed)),
            Source::Database(followed) => {
                let boot = followed.clock.boot_micros();
                Timestamp::from_micros(boot + followed.ahead.load(Ordering::Relaxed))
            }
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
        ElapsedReading {
            boot: self.boot_micros(),
            wall: match &self.0 {
                ElapsedSource::System => micros_of(ClockId::Realtime),
                ElapsedSource::Manual(times) => times[1].load(Ordering::Relaxed),
            },
        }
    }

    /// Reads the clock that counts while the machine is suspended, in microseconds.
    fn boot_micros(&self) -> i64 {
        match &self.0 {
            ElapsedSource::System => micros_of(ClockId::Boottime),
            ElapsedSource::Manual(times) => times[0].load(Ordering::Relaxed),
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

fn micros_of(clock: ClockId) -> i64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    tv_sec * 1_000_000 + tv_nsec / 1_000
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

    const SECOND: i64 = 1_000_000;

    fn sample(micros: i64, setting: i64) -> TimeSample {
        TimeSample {
            time: Timestamp::from_micros(micros),
            setting,
        }
    }

    /// Passes `micros` on the boot clock, while the wall clock of the machine is set somewhere.
    fn pass(elapsed: &ElapsedClock, micros: i64) {
        let wall = Duration::from_hours(24);
        elapsed.advance(Duration::from_micros(micros.unsigned_abs()), wall);
    }

    #[test]
    fn a_clock_that_follows_a_database_goes_on_by_the_boot_clock() {
        let elapsed = ElapsedClock::manual();
        let clock = Clock::system().following(elapsed.clone(), sample(100 * SECOND, 0));
        assert_eq!(clock.now(), Timestamp::from_micros(100 * SECOND));
        pass(&elapsed, 3 * SECOND);
        assert_eq!(clock.now(), Timestamp::from_micros(103 * SECOND));

        // A database that is ahead is followed at once.
        clock.follow(sample(104 * SECOND, 0), elapsed.read());
        assert_eq!(clock.now(), Timestamp::from_micros(104 * SECOND));
        // A late answer proves less than what is known.
        let sent = elapsed.read();
        pass(&elapsed, 2 * SECOND);
        clock.follow(sample(104 * SECOND, 0), sent);
        assert_eq!(clock.now(), Timestamp::from_micros(106 * SECOND));
    }

    #[test]
    fn a_clock_that_is_ahead_of_its_database_loses_a_millisecond_in_a_second_and_never_runs_back() {
        let elapsed = ElapsedClock::manual();
        let clock = Clock::system().following(elapsed.clone(), sample(100 * SECOND, 0));
        let mut before = clock.now();
        for second in 1..=20 {
            pass(&elapsed, SECOND);
            let reached = clock.now();
            assert!(reached > before, "{second}");
            // The database's clock was set back by an hour.
            clock.follow(sample((100 - 3_600 + second) * SECOND, 0), elapsed.read());
            before = clock.now();
            assert!(before >= reached, "{second}");
        }
        let lost = 120 * SECOND - clock.now().as_micros();
        assert!((19_000..=20_000).contains(&lost), "{lost}");
    }

    #[test]
    fn a_time_that_was_set_is_followed_in_both_directions() {
        let elapsed = ElapsedClock::manual();
        let clock = Clock::system().following(elapsed.clone(), sample(100 * SECOND, 0));
        assert_eq!(clock.ahead(sample(5 * SECOND, 0)), Some(-95 * SECOND));
        assert_eq!(clock.ahead(sample(5 * SECOND, 1)), None);
        clock.follow(sample(5 * SECOND, 1), elapsed.read());
        assert_eq!(clock.now(), Timestamp::from_micros(5 * SECOND));
        assert_eq!(clock.read().setting, Some(1));

        let machine = Clock::manual(Timestamp::from_micros(5));
        machine.advance(Timestamp::from_micros(90));
        machine.was_set(0);
        assert_eq!(machine.now(), Timestamp::from_micros(90));
        machine.was_set(1);
        assert_eq!(machine.now(), Timestamp::from_micros(5));
    }
}
