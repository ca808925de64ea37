//! The pace of a connection: how soon the server reads from it again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{BODY_BYTES_PER_SECOND, CALL_WITHOUT_A_KEY, FRAME_BYTES, PACE_BURST};

/// The pace of a connection. What the server does before it knows a caller, or only to pass on the bytes of a body, takes time
/// from the verifications of other connections on the same thread. The peer pays for it with time in which the server does not
/// read from the connection. A Verify of a caller with a key pays nothing.
#[derive(Debug)]
pub struct Pace {
    begun: Instant,
    /// When all is paid, in nanoseconds since the begin. Only the connection's own thread writes it.
    paid_at: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            paid_at: AtomicU64::new(0),
        }
    }
}

impl Pace {
    /// Adds the price of a call that needs no key, or that was refused.
    pub fn call_without_a_key(&self) {
        self.add(CALL_WITHOUT_A_KEY, self.begun.elapsed());
    }

    /// Adds the price of a frame of a body.
    pub fn frame(&self, bytes: usize) {
        self.add(price_of_frame(bytes), self.begun.elapsed());
    }

    fn add(&self, price: Duration, now: Duration) {
        let earliest = now.saturating_sub(PACE_BURST).as_nanos() as u64;
        let from = self.paid_at.load(Ordering::Relaxed).max(earliest);
        let paid_at = from + price.as_nanos() as u64;
        self.paid_at.store(paid_at, Ordering::Relaxed);
    }

    /// Returns when the server reads again, which is when a whole burst may be read: to wake for each frame would cost as much as the
    /// frame. Returns `None` if it need not wait.
    pub(super) fn pause(&self) -> Option<Instant> {
        let paid_at = self.paid_at.load(Ordering::Relaxed);
        // No clock is read for a connection that only verifies.
        if paid_at == 0 {
            return None;
        }
        let end = self.begun + Duration::from_nanos(paid_at);
        (end > Instant::now()).then_some(end + PACE_BURST)
    }
}

fn price_of_frame(bytes: usize) -> Duration {
    Duration::from_secs(1) / BODY_BYTES_PER_SECOND * (bytes + FRAME_BYTES) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paid_at(pace: &Pace) -> Duration {
        Duration::from_nanos(pace.paid_at.load(Ordering::Relaxed))
    }

    /// Seen red with the time since the begin left out, and without the burst.
    #[test]
    fn calls_have_a_rate_and_an_idle_connection_collects_one_burst() {
        let pace = Pace::default();
        assert_eq!(pace.pause(), None);
        for idle_until in [Duration::ZERO, Duration::from_hours(1)] {
            let mut now = idle_until;
            for _ in 0..10_000 {
                pace.add(CALL_WITHOUT_A_KEY, now);
                now = now.max(paid_at(&pace));
            }
            let paced = now.saturating_sub(idle_until);
            let burst = idle_until.min(PACE_BURST);
            assert_eq!(paced + burst, CALL_WITHOUT_A_KEY * 10_000);
        }
    }

    #[test]
    fn a_pause_lasts_until_a_burst_may_be_read() {
        let pace = Pace::default();
        for _ in 0..100 {
            pace.call_without_a_key();
        }
        let end = pace.pause().expect("more than a burst");
        let expected = pace.begun + CALL_WITHOUT_A_KEY * 100 + PACE_BURST;
        assert!(end >= expected && end <= expected + pace.begun.elapsed());
    }

    #[test]
    fn small_frames_are_not_cheaper_than_large_ones() {
        let whole = price_of_frame(16 * 1024);
        assert!(whole < price_of_frame(1) * 17);
        assert!(whole * 64 < Duration::from_millis(17), "a MiB");
    }
}
