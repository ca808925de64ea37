//! Limits on connections, calls and incomplete bodies, for each address and for all addresses together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::{
    MAX_ANONYMOUS_CALLS, MAX_ANONYMOUS_CALLS_PER_ADDRESS, MAX_BODY_BYTES,
    MAX_BODY_BYTES_PER_ADDRESS, MAX_VERIFY_STREAMS, MAX_VERIFY_STREAMS_PER_ADDRESS,
};
use crate::metrics::Limit;

/// The limiter of one listener's connections.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    max_connections: usize,
    max_per_address: usize,
    open: Mutex<OpenConnections>,
    all: Arc<Counters>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    total: usize,
    /// Of the peers that come over a Unix socket, which have no address, too.
    by_address: HashMap<Option<IpAddr>, AddressUsage>,
}

#[derive(Debug, Default)]
struct AddressUsage {
    connections: usize,
    counters: Arc<Counters>,
}

/// The calls and bytes that connections hold.
#[derive(Debug, Default)]
struct Counters {
    /// The calls to all services except health and reflection.
    calls: AtomicUsize,
    /// The calls to health and reflection, which need no key.
    anonymous_calls: AtomicUsize,
    /// The streams of questions.
    verify_streams: AtomicUsize,
    /// The bytes of incomplete bodies.
    bodies: AtomicUsize,
}

/// The reason why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LimitReached {
    /// The listener has its maximum of connections.
    #[error("the limit of --max-connections is reached")]
    Listener,
    /// The address has its maximum of connections.
    #[error("an address has reached the limit of --max-connections-per-address")]
    Address,
}

impl LimitReached {
    /// The limit.
    pub(super) fn limit(self) -> Limit {
        match self {
            Self::Listener => Limit::Connections,
            Self::Address => Limit::ConnectionsOfAddress,
        }
    }
}

impl ConnectionLimiter {
    /// Creates a limiter.
    pub(super) fn new(max_connections: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            max_connections,
            max_per_address,
            open: Mutex::default(),
            all: Arc::default(),
        })
    }

    /// Admits a connection from this address.
    ///
    /// # Errors
    /// If the listener or the address has its maximum of connections.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: Option<IpAddr>,
    ) -> Result<ConnectionPermit, LimitReached> {
        let address = address.map(address_group);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.max_connections {
            return Err(LimitReached::Listener);
        }
        let usage = open.by_address.entry(address).or_default();
        if usage.connections >= self.max_per_address {
            return Err(LimitReached::Address);
        }
        usage.connections += 1;
        let quota = CallQuota {
            address: Arc::clone(&usage.counters),
            all: Arc::clone(&self.all),
        };
        open.total += 1;
        Ok(ConnectionPermit {
            limiter: Arc::clone(self),
            address,
            quota,
        })
    }
}

/// The right to one connection. Dropping the permit returns it.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: Option<IpAddr>,
    quota: CallQuota,
}

impl ConnectionPermit {
    /// The quota of the connection's address.
    pub(super) fn quota(&self) -> CallQuota {
        self.quota.clone()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self
            .limiter
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Entry::Occupied(mut usage) = open.by_address.entry(self.address) {
            usage.get_mut().connections -= 1;
            if usage.get().connections == 0 {
                usage.remove();
            }
        }
    }
}

/// The calls and the bytes of incomplete bodies that one address holds, and that all addresses together hold.
#[derive(Clone, Debug, Default)]
pub struct CallQuota {
    address: Arc<Counters>,
    all: Arc<Counters>,
}

impl CallQuota {
    /// Counts a call until [`end_call`](Self::end_call). Returns `false` if there are more than `max` calls, or the address has
    /// more than half of `max`, so that one address cannot use up the limit. A refused call is counted too.
    pub fn begin_call(&self, max: usize) -> bool {
        let of_address = self.address.calls.fetch_add(1, Ordering::Relaxed);
        let of_all = self.all.calls.fetch_add(1, Ordering::Relaxed);
        of_address < max.div_ceil(2) && of_all < max
    }

    /// Ends the count of a call.
    pub fn end_call(&self) {
        self.address.calls.fetch_sub(1, Ordering::Relaxed);
        self.all.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a call to health or reflection until [`end_anonymous_call`](Self::end_anonymous_call). Returns `false` if the address has too
    /// many such calls, or if all addresses together have too many, unless the call must be answered. A refused call is counted
    /// too.
    pub fn begin_anonymous_call(&self, must_be_answered: bool) -> bool {
        let of_address = self.address.anonymous_calls.fetch_add(1, Ordering::Relaxed);
        let of_all = self.all.anonymous_calls.fetch_add(1, Ordering::Relaxed);
        of_address < MAX_ANONYMOUS_CALLS_PER_ADDRESS
            && (must_be_answered || of_all < MAX_ANONYMOUS_CALLS)
    }

    /// Ends the count of a call to health or reflection.
    pub fn end_anonymous_call(&self) {
        self.address.anonymous_calls.fetch_sub(1, Ordering::Relaxed);
        self.all.anonymous_calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a stream of questions until [`end_verify_stream`](Self::end_verify_stream). Returns `false` if the address or all
    /// addresses together have too many. A refused stream is counted too.
    pub fn begin_verify_stream(&self) -> bool {
        let of_address = self.address.verify_streams.fetch_add(1, Ordering::Relaxed);
        let of_all = self.all.verify_streams.fetch_add(1, Ordering::Relaxed);
        of_address < MAX_VERIFY_STREAMS_PER_ADDRESS && of_all < MAX_VERIFY_STREAMS
    }

    /// Ends the count of a stream of questions.
    pub fn end_verify_stream(&self) {
        self.address.verify_streams.fetch_sub(1, Ordering::Relaxed);
        self.all.verify_streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts received bytes of a body until [`give_back`](Self::give_back). Returns `false` if there are too many. Refused bytes
    /// are counted too.
    pub fn keep(&self, bytes: usize) -> bool {
        let of_address = self.address.bodies.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let of_all = self.all.bodies.fetch_add(bytes, Ordering::Relaxed) + bytes;
        of_address <= MAX_BODY_BYTES_PER_ADDRESS && of_all <= MAX_BODY_BYTES
    }

    /// Ends the count of bytes.
    pub fn give_back(&self, bytes: usize) {
        self.address.bodies.fetch_sub(bytes, Ordering::Relaxed);
        self.all.bodies.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The address by which a connection is counted: an IPv4 address, or an IPv6 network of 64 bits, because one customer gets at
/// least such a network.
pub(super) fn address_group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_dropped_permit_admits_another_connection() {
        let limiter = ConnectionLimiter::new(3, 2);
        let permits = [(); 2].map(|()| limiter.admit(Some(address("192.0.2.1"))).unwrap());
        assert_eq!(
            limiter.admit(Some(address("192.0.2.1"))).unwrap_err(),
            LimitReached::Address
        );
        // The same machine, as a listener for both address families reports it.
        assert_eq!(
            limiter
                .admit(Some(address("::ffff:192.0.2.1")))
                .unwrap_err(),
            LimitReached::Address
        );
        let other = limiter.admit(Some(address("192.0.2.2"))).unwrap();
        assert_eq!(
            limiter.admit(Some(address("192.0.2.3"))).unwrap_err(),
            LimitReached::Listener
        );
        drop(permits);
        drop(limiter.admit(Some(address("192.0.2.1"))).unwrap());
        drop(other);
        assert!(
            limiter.open.lock().unwrap().by_address.is_empty(),
            "an address without connections is removed"
        );
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let limiter = ConnectionLimiter::new(9, 1);
        let _permit = limiter.admit(Some(address("2001:db8:0:1::1"))).unwrap();
        assert_eq!(
            limiter
                .admit(Some(address("2001:db8:0:1:ffff::2")))
                .unwrap_err(),
            LimitReached::Address
        );
        assert!(limiter.admit(Some(address("2001:db8:0:2::1"))).is_ok());
    }

    #[test]
    fn a_health_check_is_answered_although_watches_of_others_use_up_the_limit() {
        let limiter = ConnectionLimiter::new(99, 99);
        let quotas: Vec<_> = (0..8)
            .map(|i| limiter.admit(Some([192, 0, 2, i].into())).unwrap().quota())
            .collect();
        for quota in &quotas {
            for _ in 0..MAX_ANONYMOUS_CALLS_PER_ADDRESS {
                assert!(quota.begin_anonymous_call(false));
            }
            assert!(
                !quota.begin_anonymous_call(true),
                "the limit of one address"
            );
            quota.end_anonymous_call();
        }
        let probe = limiter.admit(Some([192, 0, 2, 9].into())).unwrap().quota();
        assert!(!probe.begin_anonymous_call(false));
        assert!(probe.begin_anonymous_call(true));
    }

    #[test]
    fn one_address_cannot_use_up_the_limit_of_all() {
        let limiter = ConnectionLimiter::new(9, 9);
        let one = limiter.admit(Some(address("192.0.2.1"))).unwrap().quota();
        assert!(one.keep(MAX_BODY_BYTES_PER_ADDRESS));
        assert!(!one.keep(1));
        let other = limiter.admit(Some(address("192.0.2.2"))).unwrap().quota();
        assert!(other.keep(MAX_BODY_BYTES_PER_ADDRESS));
        one.give_back(2);
        assert!(one.keep(1));

        assert!(one.begin_call(4) && one.begin_call(4));
        assert!(!one.begin_call(4));
        assert!(other.begin_call(4));
        assert!(
            !other.begin_call(4),
            "a refused call is counted until it ends"
        );
        for quota in [&one, &one, &other] {
            quota.end_call();
        }
        assert!(other.begin_call(4));
    }
}
