//! The part of a key's row that verification needs, borrowed from the row.
//!
//! The row is not copied, because the load of a mirror of a million keys reads a million rows.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Error;
use crate::domain::event::Revision;
use crate::domain::ids::KeyId;
use crate::domain::key::Digest;
use crate::domain::time::{Expiry, Timestamp};

/// The part of a [`Key`](crate::domain::key::Key) that verification needs, borrowed from its row.
///
/// A field that this version does not know may restrict the key, so it makes the row unreadable.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey<'row> {
    id: KeyId,
    #[serde(borrow)]
    realm: Text<'row>,
    #[serde(borrow)]
    partner: Text<'row>,
    #[serde(borrow)]
    project: Option<Text<'row>>,
    #[serde(borrow)]
    environment: Text<'row>,
    #[serde(borrow)]
    name: Text<'row>,
    #[serde(borrow)]
    access: StoredAccess<'row>,
    #[serde(borrow)]
    labels: Labels<'row>,
    /// The address ranges from which the key may be used. Empty: every address.
    pub allowed_cidrs: Vec<IpNet>,
    /// The revision at which the key was issued.
    pub created_revision: Revision,
    /// The expiry.
    pub expires_at: Expiry,
    /// Whether the key is disabled.
    pub disabled: bool,
    revocation: Option<IgnoredAny>,
    /// The secrets, oldest first.
    pub secrets: Vec<StoredSecret>,
    #[serde(default, rename = "external_id")]
    _external_id: IgnoredAny,
    #[serde(default, rename = "hint")]
    _hint: IgnoredAny,
    #[serde(default, rename = "created_at")]
    _created_at: IgnoredAny,
    #[serde(default, rename = "created_by")]
    _created_by: IgnoredAny,
    #[serde(default, rename = "withheld")]
    _withheld: IgnoredAny,
}

/// The part of a [`Secret`](crate::domain::key::Secret) that verification needs.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSecret {
    /// The digest that proves the secret.
    pub digest: Digest,
    /// The time at which the secret was created. It identifies the secret among those of its key.
    pub created_at: Timestamp,
    /// The expiry.
    pub expires_at: Expiry,
    /// Whether the API key was imported, so that it is found by its digest.
    #[serde(default)]
    pub imported: bool,
    #[serde(default, rename = "hint")]
    _hint: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredAccess<'row> {
    Full,
    #[serde(borrow)]
    Scopes(Vec<Text<'row>>),
}

/// A text of the row. Serde borrows a plain `Cow` only in a field, and not in a list or map.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'row>(#[serde(borrow)] Cow<'row, str>);

/// The labels in the order of the row. A list, because a map of them takes longer to build than all the rest to parse.
struct Labels<'row>(Vec<(Text<'row>, Text<'row>)>);

impl<'de: 'row, 'row> Deserialize<'de> for Labels<'row> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<'row>(PhantomData<&'row str>);

        impl<'de: 'row, 'row> Visitor<'de> for Pairs<'row> {
            type Value = Labels<'row>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut labels = Vec::new();
                while let Some(label) = map.next_entry()? {
                    labels.push(label);
                }
                Ok(Labels(labels))
            }
        }

        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

impl<'row> StoredKey<'row> {
    /// Parses the row of the key with this id.
    pub(super) fn read(id: KeyId, facts: &'row str) -> Result<Self, Error> {
        serde_json::from_str::<Self>(facts)
            .ok()
            .filter(|key| key.id == id)
            .ok_or_else(|| Error::Corrupt(format!("key {id}")))
    }

    /// Returns the realm.
    pub fn realm(&self) -> &str {
        &self.realm.0
    }

    /// Returns the partner that owns the key.
    pub fn partner(&self) -> &str {
        &self.partner.0
    }

    /// Returns the project that the key is bound to; `None` for a partner key.
    pub fn project(&self) -> Option<&str> {
        self.project.as_ref().map(|project| &*project.0)
    }

    /// Returns the environment.
    pub fn environment(&self) -> &str {
        &self.environment.0
    }

    /// Returns the display name.
    pub fn name(&self) -> &str {
        &self.name.0
    }

    /// Returns the labels, as names and values.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let Labels(labels) = &self.labels;
        labels.iter().map(|(name, value)| (&*name.0, &*value.0))
    }

    /// Returns whether the key was granted every scope.
    pub fn has_full_access(&self) -> bool {
        matches!(self.access, StoredAccess::Full)
    }

    /// Returns the scopes that the key was granted by name.
    pub fn granted(&self) -> impl Iterator<Item = &str> {
        match &self.access {
            StoredAccess::Full => [].as_slice(),
            StoredAccess::Scopes(scopes) => scopes,
        }
        .iter()
        .map(|scope| &*scope.0)
    }

    /// Returns whether the key was revoked individually. Bulk revocations are stored separately.
    pub fn is_revoked(&self) -> bool {
        self.revocation.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::Access;
    use crate::domain::ids::ProjectId;
    use crate::domain::key::tests::sample;
    use crate::domain::key::{Key, Level, Revocation};

    #[test]
    fn the_row_of_a_key_is_parsed_into_its_parts() {
        let mut key = sample();
        key.level = Level::Project(ProjectId::parse("mtKDhe1U").unwrap());
        "quo\"ted \\ ключ".clone_into(&mut key.name);
        // Left out, as everything that verification does not need.
        key.external_id = Some("of \"another\" system".to_owned());
        key.labels = [("a\n", "1"), ("b", "\u{7f}")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        key.allowed_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
        key.expires_at = Expiry::At(Timestamp::from_micros(7));
        key.revocation = Some(Revocation {
            at: Timestamp::from_micros(5),
            reason: String::new(),
        });
        let row = serde_json::to_string(&key).unwrap();
        let read = StoredKey::read(key.id, &row).unwrap_or_else(|error| panic!("{error}"));

        assert_eq!(read.realm(), key.realm.as_str());
        assert_eq!(read.partner(), key.partner.as_str());
        assert_eq!(read.project(), Some("mtKDhe1U"));
        assert_eq!(read.environment(), key.environment.as_str());
        assert_eq!(read.name(), key.name);
        let labels = key
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        assert!(read.labels().eq(labels));
        assert_eq!(read.granted().collect::<Vec<_>>(), ["read"]);
        assert!(!read.has_full_access() && read.is_revoked() && !read.disabled);
        assert_eq!(read.allowed_cidrs, key.allowed_cidrs);
        assert_eq!(read.expires_at, key.expires_at);
        assert!(read.secrets[0].digest == key.secrets[0].digest);
        assert_eq!(read.secrets[0].created_at, key.secrets[0].created_at);
    }

    #[test]
    fn a_partner_key_with_full_access_and_without_a_revocation_is_parsed() {
        let mut key = sample();
        key.access = Access::Full;
        let row = serde_json::to_string(&key).unwrap();
        let read = StoredKey::read(key.id, &row).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.project(), None);
        assert!(read.has_full_access() && !read.is_revoked());
    }

    /// Seen red without `deny_unknown_fields`, for the key and for the secret.
    #[test]
    fn a_row_of_a_later_version_is_refused() {
        let row = serde_json::to_string(&sample()).unwrap();
        for (known, later) in [
            (r#""disabled":"#, r#""later":true,"disabled":"#),
            (r#""digest":"#, r#""later":true,"digest":"#),
            (r#""mac":"#, r#""later":true,"mac":"#),
        ] {
            assert!(row.contains(known));
            let row = row.replace(known, later);
            assert!(StoredKey::read(sample().id, &row).is_err(), "{row}");
            assert!(serde_json::from_str::<Key>(&row).is_err(), "{row}");
        }
    }

    #[test]
    fn a_row_of_another_key_is_refused() {
        let row = serde_json::to_string(&sample()).unwrap();
        assert!(StoredKey::read(KeyId::from_bytes([9; 16]), &row).is_err());
        assert!(StoredKey::read(sample().id, &row[1..]).is_err());
    }
}
