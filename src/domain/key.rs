//! A key: an identity with an owner, a reach, a life, and one or two secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::access::Access;
use super::event::Revision;
use super::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use super::time::{Expiry, Timestamp};

/// All that is known of a key, except what proves a lost pepper's digests anew (the store keeps those roots apart).
///
/// Serialised, this is the row that the store keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its name, for ever.
    pub id: KeyId,
    /// The realm that it belongs to.
    pub realm: RealmId,
    /// The partner that owns it.
    pub partner: PartnerId,
    /// What of the partner it reaches.
    #[serde(rename = "project")]
    pub level: Level,
    /// The one environment that it lives in.
    pub environment: EnvironmentName,
    /// For people.
    pub name: String,
    /// What may be shown of its text.
    pub hint: String,
    /// What it was granted.
    pub access: Access,
    /// Free words of its issuer.
    pub labels: BTreeMap<String, String>,
    /// Where it may be used from; empty is anywhere.
    pub allowed_cidrs: Vec<IpNet>,
    /// When it was issued.
    pub created_at: Timestamp,
    /// The key with which it was issued; none if on the command line of the server.
    pub created_by: Option<KeyId>,
    /// The revision at which it was issued.
    pub created_revision: Revision,
    /// When it expires.
    pub expires_at: Expiry,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether it was switched off by somebody above its partner, so that its partner cannot switch it on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
    /// Its end, if it was ended.
    pub revocation: Option<Revocation>,
    /// The oldest first: one, or two since a rotation with an overlap.
    pub secrets: Vec<Secret>,
    /// When it was last presented and proven, or used to call this authority. Written down apart, and up to a few seconds
    /// late.
    #[serde(skip)]
    pub last_used_at: Option<Timestamp>,
}

/// What of its partner a key reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<ProjectId>", into = "Option<ProjectId>")]
pub enum Level {
    /// All of it.
    Partner,
    /// One project, and nothing that is partner-wide.
    Project(ProjectId),
}

impl Level {
    /// The project that it is bound to.
    pub fn project(&self) -> Option<&ProjectId> {
        match self {
            Self::Partner => None,
            Self::Project(project) => Some(project),
        }
    }

    /// Which of the levels this is.
    pub fn kind(&self) -> LevelKind {
        match self {
            Self::Partner => LevelKind::Partner,
            Self::Project(_) => LevelKind::Project,
        }
    }
}

impl From<Option<ProjectId>> for Level {
    fn from(project: Option<ProjectId>) -> Self {
        project.map_or(Self::Partner, Self::Project)
    }
}

impl From<Level> for Option<ProjectId> {
    fn from(level: Level) -> Self {
        match level {
            Level::Partner => None,
            Level::Project(project) => Some(project),
        }
    }
}

/// The levels there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelKind {
    /// A partner key.
    Partner,
    /// A project key.
    Project,
}

/// That a key was ended for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// Why, in the words of who did it.
    pub reason: String,
}

/// One secret of a key, as it may be kept: what proves it, never what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// What proves it.
    pub digest: Digest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops; it never outlives its key.
    pub expires_at: Expiry,
    /// Whether it is a text of another system, which does not name its key and is therefore found by its digest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
    /// What may be shown of its text, while a newer one's is shown of the key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// When it was last presented, as for the key.
    #[serde(skip)]
    pub last_used_at: Option<Timestamp>,
}

/// A keyed digest of a secret: of one that was made here `HMAC-SHA256(pepper[version], "verify" ‖ key id ‖ secret)`, of an
/// imported one `HMAC-SHA256(pepper[version], "import" ‖ SHA-256(text))`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The version of the pepper that it was made under.
    pub pepper: u32,
    /// The digest itself.
    #[serde(with = "hex")]
    pub mac: [u8; 32],
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest(pepper {})", self.pepper)
    }
}

/// Bytes as hexadecimal text.
mod hex {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(
        bytes: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!(
            "{:032x}{:032x}",
            u128::from_be_bytes(*bytes.first_chunk().expect("16 of 32 bytes")),
            u128::from_be_bytes(*bytes.last_chunk().expect("16 of 32 bytes")),
        ))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        deserializer.deserialize_str(Digits)
    }

    /// Reads the digits where they stand: a mirror of a million keys is loaded from a million of them.
    struct Digits;

    impl Visitor<'_> for Digits {
        type Value = [u8; 32];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("64 hexadecimal digits")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<[u8; 32], E> {
            parse(text).ok_or_else(|| E::custom("expected 64 hexadecimal digits"))
        }
    }

    fn parse(text: &str) -> Option<[u8; 32]> {
        let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Some(bytes)
    }
}

/// Where a key stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It can be used.
    Active,
    /// It is switched off.
    Disabled,
    /// Its end has come.
    Expired,
    /// It was ended for ever.
    Revoked,
}

impl Key {
    /// Where the key stands at `now`. Where more than one holds, the first of revoked, disabled, expired.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revocation.is_some() {
            KeyState::Revoked
        } else if self.disabled {
            KeyState::Disabled
        } else if self.expires_at.is_over(now) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }
}

/// Whether a key with these address ranges may be used from this address; from an unknown one only if it has no ranges.
pub fn admits(ranges: &[IpNet], client: Option<IpAddr>) -> bool {
    ranges.is_empty()
        || client.is_some_and(|client| {
            let client = client.to_canonical();
            ranges.iter().any(|range| range.contains(&client))
        })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::ids::ScopeName;

    /// A key of realm `demo`, partner `acme`, with nothing special about it.
    pub(crate) fn sample() -> Key {
        Key {
            id: KeyId::parse("0192f0c1-2345-7abc-8def-0123456789ab").unwrap(),
            realm: RealmId::parse("demo").unwrap(),
            partner: PartnerId::parse("acme").unwrap(),
            level: Level::Partner,
            environment: EnvironmentName::parse("production").unwrap(),
            name: "sample".to_owned(),
            hint: "demo_live_…0000".to_owned(),
            access: Access::Scopes(BTreeSet::from([ScopeName::parse("read").unwrap()])),
            labels: BTreeMap::new(),
            allowed_cidrs: Vec::new(),
            created_at: Timestamp::from_micros(1),
            created_by: None,
            created_revision: Revision::from(1),
            expires_at: Expiry::Never,
            disabled: false,
            withheld: false,
            revocation: None,
            secrets: vec![Secret {
                digest: Digest {
                    pepper: 1,
                    mac: std::array::from_fn(|i| i as u8),
                },
                created_at: Timestamp::from_micros(1),
                expires_at: Expiry::Never,
                imported: false,
                hint: String::new(),
                last_used_at: None,
            }],
            last_used_at: None,
        }
    }

    #[test]
    fn a_key_survives_the_form_in_which_it_is_stored() {
        let mut key = sample();
        for level in [
            Level::Partner,
            Level::Project(ProjectId::parse("mtKDhe1U").unwrap()),
        ] {
            for access in [key.access.clone(), Access::Full] {
                key.level = level.clone();
                key.access = access;
                key.allowed_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
                key.expires_at = Expiry::At(Timestamp::from_micros(7));
                let text = serde_json::to_string(&key).unwrap();
                assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key, "{text}");
            }
        }
    }

    #[test]
    fn the_stored_form_is_pinned_since_databases_outlive_programs() {
        assert_eq!(
            serde_json::to_string(&sample()).unwrap(),
            concat!(
                r#"{"id":"0192f0c1-2345-7abc-8def-0123456789ab","realm":"demo","partner":"acme","project":null,"#,
                r#""environment":"production","name":"sample","hint":"demo_live_…0000","access":{"scopes":["read"]},"#,
                r#""labels":{},"allowed_cidrs":[],"created_at":1,"created_by":null,"created_revision":1,"#,
                r#""expires_at":null,"disabled":false,"revocation":null,"secrets":[{"digest":{"pepper":1,"mac":"#,
                r#""000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},"created_at":1,"#,
                r#""expires_at":null}]}"#
            )
        );
    }

    #[test]
    fn the_strongest_reason_is_the_state() {
        let mut key = sample();
        let now = Timestamp::from_micros(10);
        assert_eq!(key.state(now), KeyState::Active);
        key.expires_at = Expiry::At(now);
        assert_eq!(key.state(now), KeyState::Expired);
        key.disabled = true;
        assert_eq!(key.state(now), KeyState::Disabled);
        key.revocation = Some(Revocation {
            at: now,
            reason: String::new(),
        });
        assert_eq!(key.state(now), KeyState::Revoked);
    }
}
