//! A key: an identity with an owner, a reach, a life, and one or two secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::access::Access;
use super::event::Revision;
use super::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use super::last_use::LastUse;
use super::time::{Expiry, Timestamp};

/// A key with all its facts.
///
/// The roots of its secrets are not part of it: the store keeps them in a separate table, and only the recovery from a lost
/// pepper needs them. The serialization of this type is the form in which the store keeps a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The key's unique identifier; never reused.
    pub id: KeyId,
    /// The realm that the key belongs to.
    pub realm: RealmId,
    /// The partner that owns the key.
    pub partner: PartnerId,
    /// The part of the partner that the key reaches.
    #[serde(rename = "project")]
    pub level: Level,
    /// The environment that the key belongs to.
    pub environment: EnvironmentName,
    /// The display name.
    pub name: String,
    /// The id that another system has for the key, unique among the keys of the realm. The mirror does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The part of the API key that may be shown.
    pub hint: String,
    /// The granted access.
    pub access: Access,
    /// Free names and values that the issuer attached.
    pub labels: BTreeMap<String, String>,
    /// The address ranges from which the key may be used. Empty: every address.
    pub allowed_cidrs: Vec<IpNet>,
    /// The time of issue.
    pub created_at: Timestamp,
    /// The key of the issuer. `None`: issued on the command line of the server.
    pub created_by: Option<KeyId>,
    /// The revision at which the key was issued.
    pub created_revision: Revision,
    /// The expiry.
    pub expires_at: Expiry,
    /// Whether the key is disabled.
    pub disabled: bool,
    /// Whether an operator or manager disabled the key, so that its partner cannot enable it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
    /// The revocation, if the key was revoked.
    pub revocation: Option<Revocation>,
    /// The secrets, oldest first: one, or two after a rotation with an overlap.
    pub secrets: Vec<Secret>,
    /// When the key was last presented and proven, or last used to call this authority.
    ///
    /// It is stored separately from the key and lags by up to a few seconds.
    #[serde(skip)]
    pub last_use: Option<LastUse>,
    /// The revision of the latest change of the key's own row. A bulk revocation does not change the row.
    ///
    /// The store keeps it beside these facts.
    #[serde(skip)]
    pub revision: Revision,
}

impl Key {
    /// Sets the expiry. A secret that a rotation replaces, and that is still accepted for a time, ends no later.
    pub fn set_expiry(&mut self, expiry: Expiry) {
        self.expires_at = expiry;
        if let Expiry::At(last) = expiry {
            let in_overlap = |secret: &&mut Secret| secret.expires_at != Expiry::Never;
            for secret in self.secrets.iter_mut().filter(in_overlap) {
                secret.expires_at = secret.expires_at.or_earlier(last);
            }
        }
    }

    /// Returns the time from which the realm's `max_lifetime` counts: the issue, or the latest rotation. A secret that a rotation
    /// made is as good as that of a new key.
    pub fn lifetime_start(&self) -> Timestamp {
        let secrets = self.secrets.iter().map(|secret| secret.created_at);
        secrets.max().unwrap_or(self.created_at)
    }
}

/// The part of its partner that a key reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<ProjectId>", into = "Option<ProjectId>")]
pub enum Level {
    /// The whole partner.
    Partner,
    /// One project. The key reaches nothing that is partner-wide.
    Project(ProjectId),
}

/// The beginning of the names of labels that only operators and managers set.
pub const OPERATOR_LABELS: &str = "operator/";

/// The maximum number of labels of a key.
pub const MAX_LABELS: usize = 16;

impl Level {
    /// Returns the project that the key is bound to.
    pub fn project(&self) -> Option<&ProjectId> {
        match self {
            Self::Partner => None,
            Self::Project(project) => Some(project),
        }
    }

    /// Returns the level without its project.
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

/// A level without its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelKind {
    /// A partner key.
    Partner,
    /// A project key.
    Project,
}

/// The revocation of a key, which cannot be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The time of the revocation.
    pub at: Timestamp,
    /// The reason, as the caller gave it.
    pub reason: String,
}

/// One secret of a key in its stored form: the digest that proves it, never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The digest that proves the secret.
    pub digest: Digest,
    /// The time at which the secret was created.
    pub created_at: Timestamp,
    /// The expiry, never later than that of the key.
    pub expires_at: Expiry,
    /// Whether the API key was imported. An imported API key does not contain the key's id and is found by its digest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
    /// The part of the old API key that may be shown, while [`Key::hint`] shows a part of the new one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// When the secret was last presented, with the limits of [`Key::last_use`].
    #[serde(skip)]
    pub last_use: Option<LastUse>,
}

/// A keyed digest of a secret.
///
/// For an issued secret it is `HMAC-SHA256(pepper[version], "verify" ‖ key id ‖ secret)`, for an imported API key
/// `HMAC-SHA256(pepper[version], "import" ‖ SHA-256(API key))`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// The version of the pepper.
    pub pepper: u32,
    /// The HMAC.
    #[serde(with = "hex")]
    pub mac: [u8; 32],
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest(pepper {})", self.pepper)
    }
}

/// The serialization of 32 bytes as hexadecimal digits.
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

    /// Reads the digits without a copy, because the load of a mirror of a million keys reads a million of them.
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

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// The key can be used.
    Active,
    /// The key is disabled and can be enabled again.
    Disabled,
    /// The expiry has passed.
    Expired,
    /// The key is revoked, which cannot be undone.
    Revoked,
}

impl Key {
    /// Returns what the event of the key's deletion tells, by which the key can be recognized.
    pub fn deletion_detail(&self) -> BTreeMap<String, String> {
        [
            ("name", self.name.as_str()),
            (
                "external_id",
                self.external_id.as_deref().unwrap_or_default(),
            ),
            ("hint", self.hint.as_str()),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    /// Returns the state of the key at `now`. If several apply, it is the first of revoked, disabled and expired.
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

/// Returns whether a key with these address ranges may be used from the client's address.
///
/// From an unknown address the key may be used only if it has no ranges.
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

    /// An active partner key of realm `demo` and partner `acme`.
    pub(crate) fn sample() -> Key {
        Key {
            id: KeyId::parse("0192f0c1-2345-7abc-8def-0123456789ab").unwrap(),
            realm: RealmId::parse("demo").unwrap(),
            partner: PartnerId::parse("acme").unwrap(),
            level: Level::Partner,
            environment: EnvironmentName::parse("production").unwrap(),
            name: "sample".to_owned(),
            external_id: None,
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
                last_use: None,
            }],
            last_use: None,
            revision: Revision::default(),
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

    /// The columns of the database read the member `external_id`.
    #[test]
    fn a_key_with_an_external_id_has_one_member_more() {
        let without = serde_json::to_string(&sample()).unwrap();
        let key = Key {
            external_id: Some("21fd1a8d-88d5-4295-b792-5b2113138057".to_owned()),
            ..sample()
        };
        let text = serde_json::to_string(&key).unwrap();
        let member = r#""external_id":"21fd1a8d-88d5-4295-b792-5b2113138057","#;
        assert_eq!(text.replacen(member, "", 1), without);
        assert_ne!(text, without);
        assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key);
        assert_eq!(serde_json::from_str::<Key>(&without).unwrap(), sample());
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
