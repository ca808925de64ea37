//! The last use of a key: when it was, and from where.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;

use super::time::Timestamp;

/// The last use of a key or of one of its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// The time of the use.
    pub at: Timestamp,
    /// From where the key was used. `None` if the realm does not record it, or if the client address was not known.
    pub address: Option<RecordedAddress>,
}

impl LastUse {
    /// Returns the later of two uses. Of two at the same time, one with an address.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        let rank = |last: &Self| (last.at, last.address.is_some());
        if rank(&other) > rank(&self) {
            other
        } else {
            self
        }
    }
}

/// As much of a client address as is recorded: an IPv4 address, or the first 64 bits of an IPv6 address, because the others may
/// identify a device (RFC 8981).
///
/// An IPv4 address is a number of 32 bits. So no address of `::/32` can be recorded, of which the hosts of the internet use none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedAddress(NonZeroU64);

impl RecordedAddress {
    /// Returns the part of an address that is recorded. An IPv4-mapped address is recorded as the IPv4 address. `None` for 0.0.0.0
    /// and for the other addresses of `::/32`.
    pub fn of(address: IpAddr) -> Option<Self> {
        let number = match address.to_canonical() {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => {
                let network = (v6.to_bits() >> 64) as u64;
                Some(network).filter(|network| network >> 32 != 0)?
            }
        };
        NonZeroU64::new(number).map(Self)
    }

    /// Returns the number that [`Self::as_number`] returned. `None` for 0.
    pub fn from_number(number: i64) -> Option<Self> {
        NonZeroU64::new(number.cast_unsigned()).map(Self)
    }

    /// Returns the address as a number, for the store.
    pub fn as_number(self) -> i64 {
        self.0.get().cast_signed()
    }
}

/// An IPv4 address, or the range of an IPv6 address, such as `2001:db8::/64`.
impl fmt::Display for RecordedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.get();
        match u32::try_from(number) {
            Ok(v4) => Ipv4Addr::from_bits(v4).fmt(f),
            Err(_) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(number) << 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(address: &str) -> Option<String> {
        let recorded = RecordedAddress::of(address.parse().unwrap())?;
        assert_eq!(
            RecordedAddress::from_number(recorded.as_number()),
            Some(recorded)
        );
        Some(recorded.to_string())
    }

    /// Seen red with 48 bits of an IPv6 address, and without `to_canonical`.
    #[test]
    fn an_ipv4_address_is_recorded_and_the_network_of_an_ipv6_address() {
        for (address, expected) in [
            ("203.0.113.9", Some("203.0.113.9")),
            ("255.255.255.255", Some("255.255.255.255")),
            ("::ffff:203.0.113.9", Some("203.0.113.9")),
            ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::/64")),
            (
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                Some("ffff:ffff:ffff:ffff::/64"),
            ),
            ("fe80::1", Some("fe80::/64")),
            ("0:1::1", Some("0:1::/64")),
            ("::1", None),
            ("::7:8:0:0:0:1", None),
            ("0.0.0.0", None),
        ] {
            assert_eq!(recorded(address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn the_later_use_counts_and_of_two_at_once_the_one_with_an_address() {
        let address = RecordedAddress::of("203.0.113.9".parse().unwrap());
        let last = |micros, address| LastUse {
            at: Timestamp::from_micros(micros),
            address,
        };
        for (earlier, later) in [
            (last(1, address), last(2, None)),
            (last(1, None), last(2, address)),
            (last(1, None), last(1, address)),
        ] {
            assert_eq!(earlier.or_later(later), later);
            assert_eq!(later.or_later(earlier), later);
        }
    }
}
