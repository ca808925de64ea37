//! Who holds how much: connections, calls and unfinished bodies, of each address and of all together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::{
    BODIES_OF_ALL, BODIES_OF_AN_ADDRESS, OPEN_CALLS_OF_ALL, OPEN_CALLS_OF_AN_ADDRESS,
};

/// The connections of one listener, and what is kept for them.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    max_connections: usize,
    max_of_an_address: usize,
    open: Mutex<Open>,
    all: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Open {
    connections: usize,
    of_address: HashMap<IpAddr, AddressUsage>,
}

#[derive(Debug, Default)]
struct AddressUsage {
    connections: usize,
    counters: Arc<Counters>,
}

/// What is held through connections.
#[derive(Debug, Default)]
struct Counters {
    calls: AtomicUsize,
    /// Of health and reflection.
    open_calls: AtomicUsize,
    /// In bytes.
    bodies: AtomicUsize,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// There are as many as there may be.
    #[error("there are as many as --max-connections allows")]
    Listener,
    /// This address has as many as one may have.
    #[error("an address has as many as --max-connections-per-address allows")]
    Address,
}

impl ConnectionLimiter {
    /// A limiter for so many connections, and so many from one address.
    pub(super) fn new(max_connections: usize, max_of_an_address: usize) -> Arc<Self> {
        Arc::new(Self {
            max_connections,
            max_of_an_address,
            open: Mutex::default(),
            all: Arc::default(),
        })
    }

    /// Takes a connection in.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, Full> {
        let address = address_group(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.connections >= self.max_connections {
            return Err(Full::Listener);
        }
        let usage = open.of_address.entry(address).or_default();
        if usage.connections >= self.max_of_an_address {
            return Err(Full::Address);
        }
        usage.connections += 1;
        let quota = CallQuota {
            address: Arc::clone(&usage.counters),
            all: Arc::clone(&self.all),
        };
        open.connections += 1;
        Ok(ConnectionPermit {
            limiter: Arc::clone(self),
            address,
            quota,
        })
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
    quota: CallQuota,
}

impl ConnectionPermit {
    /// What the address may hold.
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
        open.connections -= 1;
        if let Entry::Occupied(mut usage) = open.of_address.entry(self.address) {
            usage.get_mut().connections -= 1;
            if usage.get().connections == 0 {
                usage.remove();
            }
        }
    }
}

/// What an address, and all together, hold of calls and of bodies that are not complete.
#[derive(Clone, Debug, Default)]
pub struct CallQuota {
    address: Arc<Counters>,
    all: Arc<Counters>,
}

impl CallQuota {
    /// Notes that a call begins. `false` if there are more than `max`, or the address has more than half of that: nobody
    /// alone can take the places of all others. It is noted all the same, until it ends.
    pub fn begin_call(&self, max: usize) -> bool {
        let of_address = self.address.calls.fetch_add(1, Ordering::Relaxed);
        let of_all = self.all.calls.fetch_add(1, Ordering::Relaxed);
        of_address < max.div_ceil(2) && of_all < max
    }

    /// Notes that a call ended.
    pub fn end_call(&self) {
        self.address.calls.fetch_sub(1, Ordering::Relaxed);
        self.all.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that a call of health or reflection begins. `false` if the address has too many open, or all have and the call
    /// is not one that must be answered. It is noted all the same, until it ends.
    pub fn begin_open_call(&self, must_be_answered: bool) -> bool {
        let of_address = self.address.open_calls.fetch_add(1, Ordering::Relaxed);
        let of_all = self.all.open_calls.fetch_add(1, Ordering::Relaxed);
        of_address < OPEN_CALLS_OF_AN_ADDRESS && (must_be_answered || of_all < OPEN_CALLS_OF_ALL)
    }

    /// Notes that such a call ended.
    pub fn end_open_call(&self) {
        self.address.open_calls.fetch_sub(1, Ordering::Relaxed);
        self.all.open_calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that bytes came. `false` if they are too many; they are noted all the same, until they are given back.
    pub fn keep(&self, bytes: usize) -> bool {
        let of_address = self.address.bodies.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let of_all = self.all.bodies.fetch_add(bytes, Ordering::Relaxed) + bytes;
        of_address <= BODIES_OF_AN_ADDRESS && of_all <= BODIES_OF_ALL
    }

    /// Notes that bytes are kept no longer.
    pub fn give_back(&self, bytes: usize) {
        self.address.bodies.fetch_sub(bytes, Ordering::Relaxed);
        self.all.bodies.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Whose connection this is: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets at the least.
fn address_group(address: IpAddr) -> IpAddr {
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
    fn an_address_has_its_share_and_gets_it_back() {
        let limiter = ConnectionLimiter::new(3, 2);
        let permits = [(); 2].map(|()| limiter.admit(address("192.0.2.1")).unwrap());
        assert_eq!(
            limiter.admit(address("192.0.2.1")).unwrap_err(),
            Full::Address
        );
        // The same machine, as a listener for both families calls it.
        assert_eq!(
            limiter.admit(address("::ffff:192.0.2.1")).unwrap_err(),
            Full::Address
        );
        let other = limiter.admit(address("192.0.2.2")).unwrap();
        assert_eq!(
            limiter.admit(address("192.0.2.3")).unwrap_err(),
            Full::Listener
        );
        drop(permits);
        drop(limiter.admit(address("192.0.2.1")).unwrap());
        drop(other);
        assert!(
            limiter.open.lock().unwrap().of_address.is_empty(),
            "who has gone is forgotten"
        );
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let limiter = ConnectionLimiter::new(9, 1);
        let _seat = limiter.admit(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(
            limiter.admit(address("2001:db8:0:1:ffff::2")).unwrap_err(),
            Full::Address
        );
        assert!(limiter.admit(address("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn a_look_at_health_is_answered_though_others_watch_all_there_is_to_watch() {
        let limiter = ConnectionLimiter::new(99, 99);
        let quotas: Vec<_> = (0..8)
            .map(|i| limiter.admit([192, 0, 2, i].into()).unwrap().quota())
            .collect();
        for quota in &quotas {
            for _ in 0..OPEN_CALLS_OF_AN_ADDRESS {
                assert!(quota.begin_open_call(false));
            }
            assert!(!quota.begin_open_call(true), "one address takes its own");
            quota.end_open_call();
        }
        let probe = limiter.admit([192, 0, 2, 9].into()).unwrap().quota();
        assert!(!probe.begin_open_call(false));
        assert!(probe.begin_open_call(true));
    }

    #[test]
    fn one_address_cannot_hold_what_all_may() {
        let limiter = ConnectionLimiter::new(9, 9);
        let one = limiter.admit(address("192.0.2.1")).unwrap().quota();
        assert!(one.keep(BODIES_OF_AN_ADDRESS));
        assert!(!one.keep(1));
        let other = limiter.admit(address("192.0.2.2")).unwrap().quota();
        assert!(other.keep(BODIES_OF_AN_ADDRESS));
        one.give_back(2);
        assert!(one.keep(1));

        assert!(one.begin_call(4) && one.begin_call(4));
        assert!(!one.begin_call(4));
        assert!(other.begin_call(4));
        assert!(
            !other.begin_call(4),
            "those who were refused are noted until they end"
        );
        for quota in [&one, &one, &other] {
            quota.end_call();
        }
        assert!(other.begin_call(4));
    }
}
