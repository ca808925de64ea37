//! Identifiers: short texts of a fixed alphabet, compared byte by byte.
//!
//! Each identifier is a shared string, so that a million keys can refer to their realm without a million copies of its id.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::time::Timestamp;

/// Defines an identifier type: a text that matches the rule of the type.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $matches:expr) => {
        $(#[$doc])*
        ///
        #[doc = concat!("It matches `", $rule, "`.")]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an identifier.
            ///
            /// # Errors
            /// The rule, if the text does not match it.
            pub fn parse(text: &str) -> Result<Self, &'static str> {
                if Self::matches(text) {
                    Ok(Self(text.into()))
                } else if text.is_empty() {
                    Err(concat!("is required and must match ", $rule))
                } else {
                    Err(concat!("must match ", $rule))
                }
            }

            /// Returns whether `text` matches the rule.
            pub fn matches(text: &str) -> bool {
                let matches: fn(&[u8]) -> bool = $matches;
                matches(text.as_bytes())
            }

            /// Returns the identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

/// Returns whether `text` is one byte of `first`, followed by at most `rest_at_most` bytes of `rest`.
fn matches(
    text: &[u8],
    first: impl Fn(u8) -> bool,
    rest: impl Fn(u8) -> bool,
    rest_at_most: usize,
) -> bool {
    match text {
        [head, tail @ ..] => {
            first(*head) && tail.len() <= rest_at_most && tail.iter().all(|byte| rest(*byte))
        }
        [] => false,
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase()
}

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn kebab(byte: u8) -> bool {
    lower_or_digit(byte) || byte == b'-'
}

fn account(text: &[u8]) -> bool {
    matches(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || b"._@|+:=-".contains(&byte),
        127,
    )
}

identifier!(
    /// The identifier of a realm.
    RealmId,
    "[a-z][a-z0-9-]{0,31}",
    |text| matches(text, lower, kebab, 31)
);
identifier!(
    /// The prefix of a realm's API keys.
    Prefix,
    "[a-z][a-z0-9]{1,15}",
    |text| text.len() >= 2 && matches(text, lower, lower_or_digit, 15)
);
identifier!(
    /// The tag of an environment in API keys.
    Tag,
    "[a-z0-9]{1,12}",
    |text| matches(text, lower_or_digit, lower_or_digit, 11)
);
identifier!(
    /// The name of an environment of a realm.
    EnvironmentName,
    "[a-z][a-z0-9-]{0,31}",
    |text| matches(text, lower, kebab, 31)
);
identifier!(
    /// The name of a scope of a realm.
    ScopeName,
    "[a-z][a-z0-9:._-]{0,63}",
    |text| matches(text, lower, |byte| lower_or_digit(byte) || b":._-".contains(&byte), 63)
);
identifier!(
    /// The identifier of a partner, the account that owns keys.
    PartnerId,
    "[A-Za-z0-9][A-Za-z0-9._@|+:=-]{0,127}",
    account
);
identifier!(
    /// The identifier of a partner's project.
    ProjectId,
    "[A-Za-z0-9][A-Za-z0-9._@|+:=-]{0,127}",
    account
);

impl RealmId {
    /// The id of the built-in realm, which contains the keys of the operators, managers and gateways.
    pub const BUILT_IN: &'static str = "claviger";

    /// Returns the id of the built-in realm.
    pub fn built_in() -> Self {
        Self(Self::BUILT_IN.into())
    }

    /// Returns whether this is the built-in realm.
    pub fn is_built_in(&self) -> bool {
        self.as_str() == Self::BUILT_IN
    }

    /// Returns the partner of the built-in realm that represents this realm.
    pub fn as_partner(&self) -> PartnerId {
        PartnerId(self.0.clone())
    }
}

impl PartnerId {
    /// Returns the owner of the operators' keys, which are not limited to one realm. It is the only empty partner id.
    pub fn nobody() -> Self {
        Self("".into())
    }

    /// Returns whether this is [`PartnerId::nobody`].
    pub fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }
}

/// The unique identifier of a key: a `UUIDv7` (RFC 9562), so that ids sort by the time of issue. It is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(Uuid);

impl KeyId {
    /// Returns a new id from the time of issue and ten random bytes.
    ///
    /// The twelve bits after the milliseconds contain the fraction of a millisecond (RFC 9562, section 6.2, method 3), so that
    /// ids sort by microseconds.
    pub fn new(now: Timestamp, random: &[u8; 10]) -> Self {
        let micros = u64::try_from(now.as_micros()).unwrap_or(0);
        let fraction = ((micros % 1_000) * 4_096).div_ceil(1_000) as u16;
        let mut rest = *random;
        rest[..2].copy_from_slice(&fraction.to_be_bytes());
        Self(uuid::Builder::from_unix_timestamp_millis(micros / 1_000, &rest).into_uuid())
    }

    /// Returns an id that sorts after the ids of all keys that were issued before `time`, and before the ids of all others.
    pub fn first_of(time: Timestamp) -> Self {
        Self::new(time, &[0; 10])
    }

    /// Parses the text form with hyphens.
    ///
    /// # Errors
    /// The rule, if the text does not match it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        parse_uuid(text).map(Self).ok_or(if text.is_empty() {
            "is required and must be a UUID such as 0192f0c1-2345-7abc-8def-0123456789ab"
        } else {
            "must be a UUID such as 0192f0c1-2345-7abc-8def-0123456789ab, not the API key"
        })
    }

    /// Returns the id with these 16 bytes, as an API key contains them.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the 16 bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Returns the UUID, the form in which the store keeps the id.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

/// Parses the text form with hyphens, and no other form.
fn parse_uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == 36)
}

impl From<Uuid> for KeyId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The UUID that a caller chooses for a request, so that it can repeat the request safely.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Parses the text form with hyphens.
    ///
    /// # Errors
    /// The rule, if the text does not match it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        parse_uuid(text)
            .map(Self)
            .ok_or("must be a UUID such as 0192f0c1-2345-7abc-8def-0123456789ab")
    }

    /// Returns the UUID, the form in which the store keeps the id.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identifier_is_checked_at_both_ends_of_its_rule() {
        let long = |length: usize| "a".repeat(length);
        assert!(RealmId::parse("a").is_ok() && RealmId::parse(&long(32)).is_ok());
        assert!(RealmId::parse("").is_err() && RealmId::parse(&long(33)).is_err());
        assert!(RealmId::parse("a-1").is_ok() && RealmId::parse("-a").is_err());
        assert!(RealmId::parse("1a").is_err() && RealmId::parse("aB").is_err());

        assert!(Prefix::parse("ab").is_ok() && Prefix::parse(&long(16)).is_ok());
        assert!(Prefix::parse("a").is_err() && Prefix::parse(&long(17)).is_err());
        assert!(Prefix::parse("a_b").is_err() && Prefix::parse("1ab").is_err());

        assert!(Tag::parse("1").is_ok() && Tag::parse(&long(12)).is_ok());
        assert!(Tag::parse("").is_err() && Tag::parse(&long(13)).is_err());

        assert!(ScopeName::parse("a:b.c_d-e").is_ok() && ScopeName::parse(&long(64)).is_ok());
        assert!(ScopeName::parse(&long(65)).is_err() && ScopeName::parse("A").is_err());

        assert!(PartnerId::parse("Me@x.io").is_ok() && PartnerId::parse(&long(128)).is_ok());
        assert!(PartnerId::parse(&long(129)).is_err() && PartnerId::parse("").is_err());
        assert!(PartnerId::parse("é").is_err() && PartnerId::parse("a b").is_err());
        for id in ["auth0|5f7c8ec7", "user+tag@example.com", "org:team", "ou=a"] {
            assert!(
                PartnerId::parse(id).is_ok() && ProjectId::parse(id).is_ok(),
                "{id}"
            );
        }
        for id in [
            "|a", "+1", ":a", "=", "a/b", "a,b", "a;b", "a%b", "a\"b", "a\\b",
        ] {
            assert!(
                PartnerId::parse(id).is_err() && ProjectId::parse(id).is_err(),
                "{id}"
            );
        }
    }

    #[test]
    fn the_error_for_an_empty_identifier_is_that_it_is_required() {
        let rule = "[a-z][a-z0-9-]{0,31}";
        let empty = RealmId::parse("").unwrap_err();
        assert_eq!(empty, format!("is required and must match {rule}"));
        let other = RealmId::parse("A").unwrap_err();
        assert_eq!(other, format!("must match {rule}"));
        assert!(KeyId::parse("").unwrap_err().starts_with("is required"));
        assert!(KeyId::parse("x").unwrap_err().ends_with("not the API key"));
    }

    #[test]
    fn only_the_canonical_form_of_a_key_id_is_parsed() {
        let text = "0192f0c1-2345-7abc-8def-0123456789ab";
        assert_eq!(KeyId::parse(text).unwrap().to_string(), text);
        for other in [
            "",
            "0192f0c123457abc8def0123456789ab",
            "{0192f0c1-2345-7abc-8def-0123456789ab}",
            "x",
        ] {
            assert!(KeyId::parse(other).is_err(), "{other}");
        }
    }

    #[test]
    fn an_id_of_a_later_time_sorts_later() {
        let early = KeyId::new(Timestamp::from_micros(1_700_000_000_000_000), &[0xff; 10]);
        let late = KeyId::new(Timestamp::from_micros(1_700_000_000_000_001), &[0; 10]);
        assert!(early < late);
        assert_eq!(late.as_uuid().get_version_num(), 7);
        let latest = KeyId::new(Timestamp::from_micros(1_700_000_000_000_999), &[0xff; 10]);
        assert!(
            late < latest
                && latest < KeyId::new(Timestamp::from_micros(1_700_000_000_001_000), &[0; 10])
        );
    }
}
