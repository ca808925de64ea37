//! The rate of TLS handshakes of each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::transport::connection_limiter::address_group;
use crate::transport::limits::{TLS_HANDSHAKE, TLS_HANDSHAKE_BURST, TLS_HANDSHAKE_EVERY};

/// The number of addresses from which on those without a recent handshake are removed.
const ADDRESSES: usize = 1024;

/// The limiter of TLS handshakes: each address has a rate, after a burst. Its lock is taken once for each handshake, and never by
/// a call.
#[derive(Debug)]
pub(super) struct HandshakeLimiter(Mutex<Addresses>);

#[derive(Debug)]
struct Addresses {
    /// When each address has paid for its handshakes. One without an entry owes nothing.
    paid_at: HashMap<IpAddr, Instant>,
    /// The number of entries at which they are looked through.
    prune_at: usize,
}

impl HandshakeLimiter {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Addresses {
            paid_at: HashMap::new(),
            prune_at: ADDRESSES,
        }))
    }

    /// Gives a handshake of this address its turn. Returns how long it must wait, or `None`, without a turn, if that is longer than
    /// a handshake may take.
    pub(super) fn take_turn(&self, address: IpAddr) -> Option<Duration> {
        self.take_turn_at(address, Instant::now())
    }

    fn take_turn_at(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let paid_at = addresses
            .paid_at
            .entry(address_group(address))
            .or_insert(now);
        let owed = paid_at.saturating_duration_since(now);
        let wait = owed.saturating_sub(TLS_HANDSHAKE_EVERY * (TLS_HANDSHAKE_BURST - 1));
        if wait > TLS_HANDSHAKE {
            return None;
        }
        *paid_at = now + owed + TLS_HANDSHAKE_EVERY;
        addresses.prune(now);
        Some(wait)
    }
}

impl Addresses {
    /// Removes the addresses that owe nothing, once there are twice as many as were left the last time.
    fn prune(&mut self, now: Instant) {
        if self.paid_at.len() >= self.prune_at {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
            self.prune_at = (2 * self.paid_at.len()).max(ADDRESSES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// Seen red without the bound on the wait, and with a burst that is never collected again.
    #[test]
    fn an_address_has_a_burst_then_a_rate_and_then_no_turn() {
        let limiter = HandshakeLimiter::new();
        let start = Instant::now();
        for now in [start, start + Duration::from_hours(1)] {
            for _ in 0..TLS_HANDSHAKE_BURST {
                assert_eq!(limiter.take_turn_at(ONE, now), Some(Duration::ZERO));
            }
            let within_the_deadline = TLS_HANDSHAKE.div_duration_f64(TLS_HANDSHAKE_EVERY) as u32;
            for waiting in 1..=within_the_deadline {
                let wait = limiter.take_turn_at(ONE, now);
                assert_eq!(wait, Some(TLS_HANDSHAKE_EVERY * waiting));
            }
            for _ in 0..1_000 {
                assert_eq!(limiter.take_turn_at(ONE, now), None);
            }
            let other = IpAddr::from([192, 0, 2, 2]);
            assert_eq!(limiter.take_turn_at(other, now), Some(Duration::ZERO));
            // The thousand that had no turn owe nothing.
            let next = now + TLS_HANDSHAKE_EVERY;
            assert_eq!(limiter.take_turn_at(ONE, next), Some(TLS_HANDSHAKE));
        }
    }

    /// Seen red without `prune`.
    #[test]
    fn addresses_that_owe_nothing_are_forgotten() {
        let limiter = HandshakeLimiter::new();
        let start = Instant::now();
        for number in 0..100_000_u32 {
            let now = start + TLS_HANDSHAKE_EVERY * number;
            limiter.take_turn_at(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(limiter.0.lock().unwrap().paid_at.len() <= ADDRESSES);
    }
}
