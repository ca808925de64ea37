//! Leases: how long a server of a shared database may say "allowed" without news from the database.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::clock::{ElapsedClock, ElapsedReading};

/// The longest time between two heartbeats.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);

/// The right to say "allowed", until an end that is moved ahead as long as the database answers.
///
/// A thread that decides reads it without a lock. Only the task that proves the contact with the database writes it.
#[derive(Debug)]
pub struct Lease {
    clock: ElapsedClock,
    /// The end on the boot clock and on the wall clock, in microseconds. The lease ends with the earlier one, so that neither a
    /// suspended machine nor one whose clock stood still with it goes on.
    boot_end: AtomicI64,
    wall_end: AtomicI64,
    /// When the last heartbeat that was answered had been sent, on the boot clock in microseconds; 0 if none was.
    answered: AtomicI64,
    terms: Mutex<LeaseTerms>,
}

impl Lease {
    /// A lease without an end, for the only server of a database.
    pub fn unlimited() -> Self {
        Self {
            clock: ElapsedClock::system(),
            boot_end: AtomicI64::new(i64::MAX),
            wall_end: AtomicI64::new(i64::MAX),
            answered: AtomicI64::new(0),
            terms: Mutex::new(LeaseTerms::NONE),
        }
    }

    /// A lease that was never renewed.
    pub fn lapsed(clock: ElapsedClock) -> Self {
        Self {
            clock,
            boot_end: AtomicI64::new(i64::MIN),
            wall_end: AtomicI64::new(i64::MIN),
            answered: AtomicI64::new(0),
            terms: Mutex::new(LeaseTerms::DEFAULT),
        }
    }

    /// Whether the lease ends unless it is renewed.
    pub fn has_end(&self) -> bool {
        self.boot_end.load(Ordering::Relaxed) != i64::MAX
    }

    /// How much of the lease is left: zero if it has lapsed, [`Duration::MAX`] if it has no end.
    pub fn left(&self) -> Duration {
        // With acquire: what was applied before a renewal is visible to whoever sees the renewal.
        let boot_end = self.boot_end.load(Ordering::Acquire);
        if boot_end == i64::MAX {
            return Duration::MAX;
        }
        let wall_end = self.wall_end.load(Ordering::Acquire);
        let now = self.clock.read();
        let left = (boot_end.saturating_sub(now.boot_micros()))
            .min(wall_end.saturating_sub(now.wall_micros()));
        Duration::from_micros(left.max(0).unsigned_abs())
    }

    /// Records that a heartbeat was answered that had been sent then.
    pub fn heartbeat_answered(&self, sent: ElapsedReading) {
        self.answered.store(sent.boot_micros(), Ordering::Relaxed);
    }

    /// The time since the sending of the last heartbeat that was answered; `None` if none was.
    pub fn heartbeat_age(&self) -> Option<Duration> {
        let answered = self.answered.load(Ordering::Relaxed);
        let age = self.clock.read().boot_micros() - answered;
        (answered != 0).then(|| Duration::from_micros(age.max(0).unsigned_abs()))
    }

    /// The terms of the leases of all servers, as the database told them last.
    pub fn terms(&self) -> LeaseTerms {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the terms of the leases of all servers.
    pub fn set_terms(&self, terms: LeaseTerms) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms;
    }

    /// Moves the end to `length` after `sent`, the time at which the question was sent whose answer proves the contact.
    ///
    /// Everything that the answer tells must be in the mirror already.
    pub fn renew(&self, sent: ElapsedReading, length: Duration) {
        let length = i64::try_from(length.as_micros()).unwrap_or(0);
        self.wall_end
            .store(sent.wall_micros() + length, Ordering::Release);
        self.boot_end
            .store(sent.boot_micros() + length, Ordering::Release);
    }

    /// Ends the lease at once.
    pub fn end(&self) {
        self.boot_end.store(i64::MIN, Ordering::Release);
        self.wall_end.store(i64::MIN, Ordering::Release);
    }
}

/// The lengths of leases that are in force: one number for all servers of a database, and a longer one while it is being lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// How long a lease is from now on.
    pub length: Duration,
    /// How long a lease may be that a server has already.
    pub longest: Duration,
}

impl LeaseTerms {
    /// The terms in a new authority.
    pub const DEFAULT: Self = Self {
        length: Duration::from_secs(30),
        longest: Duration::from_secs(30),
    };

    /// The terms of the only server of a database, which needs no lease.
    pub const NONE: Self = Self {
        length: Duration::ZERO,
        longest: Duration::ZERO,
    };

    /// The shortest length that can be set.
    pub const MIN: Duration = Duration::from_secs(1);

    /// The longest length that can be set.
    pub const MAX: Duration = Duration::from_mins(5);

    /// The time between two heartbeats.
    pub fn heartbeat_interval(self) -> Duration {
        (self.length / 10).min(LONGEST_INTERVAL)
    }

    /// How long a heartbeat may take. A connection that is silent for longer is given up, as long as there is time for another one.
    pub fn heartbeat_limit(self) -> Duration {
        self.length / 3
    }

    /// The time after which no lease is left that began before it, measured with any clock whose rate is right within one percent.
    pub fn outlasting(self) -> Duration {
        let longest = self.longest.max(self.length);
        // The clocks of two machines may differ by two percent in rate. The second is for a machine that was paused without its
        // knowledge.
        longest + longest / 50 + Duration::from_secs(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_ends_by_the_clock_that_is_further() {
        for (boot, wall, left) in [(1, 1, 2), (2, 1, 1), (1, 2, 1), (1, 60, 0), (60, 1, 0)] {
            let clock = ElapsedClock::manual();
            let lease = Lease::lapsed(clock.clone());
            assert_eq!(lease.left(), Duration::ZERO);
            lease.renew(clock.read(), 3 * SECOND);
            assert_eq!(lease.left(), 3 * SECOND);
            clock.advance(SECOND * boot, SECOND * wall);
            assert_eq!(lease.left(), SECOND * left, "{boot} {wall}");
        }
    }

    #[test]
    fn a_lease_counts_from_the_sending() {
        let clock = ElapsedClock::manual();
        let lease = Lease::lapsed(clock.clone());
        let sent = clock.read();
        clock.advance(2 * SECOND, 2 * SECOND);
        lease.renew(sent, 3 * SECOND);
        assert_eq!(lease.left(), SECOND);
        lease.end();
        assert_eq!(lease.left(), Duration::ZERO);
    }

    #[test]
    fn the_lease_of_the_only_server_has_no_end() {
        assert_eq!(Lease::unlimited().left(), Duration::MAX);
    }
}
