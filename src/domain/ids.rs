//! Identifiers: short words of a fixed alphabet, compared byte by byte.
//!
//! Each is a shared string, so that a million keys can name their realm without a million copies of its name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::time::Timestamp;

/// A word that follows the rule of its kind.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $follows:expr) => {
        $(#[$doc])*
        ///
        #[doc = concat!("Its rule: `", $rule, "`.")]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rule.
            ///
            /// # Errors
            /// A sentence that tells the rule.
            pub fn parse(text: &str) -> Result<Self, &'static str> {
                if Self::matches(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(concat!("must match ", $rule))
                }
            }

            /// Whether `text` follows the rule.
            pub fn matches(text: &str) -> bool {
                let follows: fn(&[u8]) -> bool = $follows;
                follows(text.as_bytes())
            }

            /// The word itself.
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

/// Whether `text` is one byte of `first` and then up to `rest_at_most` bytes of `rest`.
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
        |byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte),
        127,
    )
}

word!(
    /// Names a realm: one protected API.
    RealmId,
    "[a-z][a-z0-9-]{0,31}",
    |text| matches(text, lower, kebab, 31)
);
word!(
    /// What the text of a realm's keys begins with.
    Prefix,
    "[a-z][a-z0-9]{1,15}",
    |text| text.len() >= 2 && matches(text, lower, lower_or_digit, 15)
);
word!(
    /// Stands for an environment in the text of a key.
    Tag,
    "[a-z0-9]{1,12}",
    |text| matches(text, lower_or_digit, lower_or_digit, 11)
);
word!(
    /// Names one of a realm's environments.
    EnvironmentName,
    "[a-z][a-z0-9-]{0,31}",
    |text| matches(text, lower, kebab, 31)
);
word!(
    /// Names a scope of a realm.
    ScopeName,
    "[a-z][a-z0-9:._-]{0,63}",
    |text| matches(text, lower, |byte| lower_or_digit(byte) || b":._-".contains(&byte), 63)
);
word!(
    /// Names the account that owns a key.
    PartnerId,
    "[A-Za-z0-9][A-Za-z0-9._@-]{0,127}",
    account
);
word!(
    /// Names a partner's project or program.
    ProjectId,
    "[A-Za-z0-9][A-Za-z0-9._@-]{0,127}",
    account
);

impl RealmId {
    /// The built-in realm, which holds the keys of the operators and gateways themselves.
    pub const BUILT_IN: &'static str = "claviger";

    /// The built-in realm's id.
    pub fn built_in() -> Self {
        Self(Self::BUILT_IN.into())
    }

    /// Whether this is the built-in realm.
    pub fn is_built_in(&self) -> bool {
        self.as_str() == Self::BUILT_IN
    }

    /// The partner that stands for this realm in the built-in one.
    pub fn as_partner(&self) -> PartnerId {
        PartnerId(self.0.clone())
    }
}

impl PartnerId {
    /// The owner of the operators' keys, which serve no one realm: the only empty partner id there is.
    pub fn nobody() -> Self {
        Self("".into())
    }

    /// Whether this is [`PartnerId::nobody`].
    pub fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }
}

/// Names a key for ever: a `UUIDv7` (RFC 9562), so that ids sort by time of issue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(Uuid);

impl KeyId {
    /// A new id, from the time of issue and ten random bytes. The twelve bits after the milliseconds tell the fraction of
    /// one (RFC 9562, section 6.2, method 3), so that ids sort as their microseconds do.
    pub fn new(now: Timestamp, random: &[u8; 10]) -> Self {
        let micros = u64::try_from(now.as_micros()).unwrap_or(0);
        let fraction = ((micros % 1_000) * 4_096).div_ceil(1_000) as u16;
        let mut rest = *random;
        rest[..2].copy_from_slice(&fraction.to_be_bytes());
        Self(uuid::Builder::from_unix_timestamp_millis(micros / 1_000, &rest).into_uuid())
    }

    /// Sorts behind the ids of all keys that were issued before this time, and before all others.
    pub fn first_of(time: Timestamp) -> Self {
        Self::new(time, &[0; 10])
    }

    /// Reads the text form with hyphens.
    ///
    /// # Errors
    /// A sentence that tells the rule.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match Uuid::try_parse(text) {
            Ok(uuid) if text.len() == 36 => Ok(Self(uuid)),
            _ => Err("must be a UUID such as 0192f0c1-2345-7abc-8def-0123456789ab"),
        }
    }

    /// From the 16 bytes that a key's text carries.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// As the stores keep it.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
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

/// What a caller names a request by, so that it can be repeated: a UUID of its choice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Reads the text form with hyphens.
    ///
    /// # Errors
    /// A sentence that tells the rule.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        KeyId::parse(text).map(|id| Self(id.0))
    }

    /// As the stores keep it.
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
    fn each_kind_of_word_keeps_its_rule_at_both_ends() {
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
    }

    #[test]
    fn a_key_id_is_read_in_its_canonical_form_only() {
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
    fn ids_made_later_sort_later() {
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
