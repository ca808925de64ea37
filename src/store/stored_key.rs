//! A key's row, read without copying it: a mirror of a million keys is loaded from a million of these.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;
use crate::domain::event::Revision;
use crate::domain::ids::KeyId;
use crate::domain::key::Digest;
use crate::domain::time::{Expiry, Timestamp};

/// What decides about a key, as its row tells it: a part of [`Key`](crate::domain::key::Key), borrowed from the row.
#[derive(Deserialize)]
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
    labels: BTreeMap<Text<'row>, Text<'row>>,
    /// Where it may be used from; empty is anywhere.
    pub allowed_cidrs: Vec<IpNet>,
    /// The revision at which it was issued.
    pub created_revision: Revision,
    /// When it expires.
    pub expires_at: Expiry,
    /// Whether it is switched off.
    pub disabled: bool,
    revocation: Option<IgnoredAny>,
    /// The oldest first.
    pub secrets: Vec<StoredSecret>,
}

/// What decides about a secret.
#[derive(Clone, Deserialize)]
pub struct StoredSecret {
    /// What proves it.
    pub digest: Digest,
    /// When it was made, by which it is told from the key's others.
    pub created_at: Timestamp,
    /// When it stops.
    pub expires_at: Expiry,
    /// Whether it is a text of another system, found by its digest.
    #[serde(default)]
    pub imported: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredAccess<'row> {
    Full,
    #[serde(borrow)]
    Scopes(Vec<Text<'row>>),
}

/// A text of the row. (A `Cow` by itself is borrowed only where it is a field, and not within a list or a map.)
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
struct Text<'row>(#[serde(borrow)] Cow<'row, str>);

impl<'row> StoredKey<'row> {
    /// Reads the row of this key.
    pub(super) fn read(id: KeyId, facts: &'row str) -> Result<Self, Error> {
        serde_json::from_str::<Self>(facts)
            .ok()
            .filter(|key| key.id == id)
            .ok_or_else(|| Error::Corrupt(format!("key {id}")))
    }

    /// Its realm.
    pub fn realm(&self) -> &str {
        &self.realm.0
    }

    /// Its owner.
    pub fn partner(&self) -> &str {
        &self.partner.0
    }

    /// The project that it is bound to; none for a partner key.
    pub fn project(&self) -> Option<&str> {
        self.project.as_ref().map(|project| &*project.0)
    }

    /// Its environment.
    pub fn environment(&self) -> &str {
        &self.environment.0
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.name.0
    }

    /// Free words of its issuer.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.labels
            .iter()
            .map(|(name, value)| (&*name.0, &*value.0))
    }

    /// Whether it was granted every scope.
    pub fn has_full_access(&self) -> bool {
        matches!(self.access, StoredAccess::Full)
    }

    /// The scopes that it was granted by name.
    pub fn granted(&self) -> impl Iterator<Item = &str> {
        match &self.access {
            StoredAccess::Full => [].as_slice(),
            StoredAccess::Scopes(scopes) => scopes,
        }
        .iter()
        .map(|scope| &*scope.0)
    }

    /// Whether it was ended for ever.
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
    use crate::domain::key::{Level, Revocation};

    #[test]
    fn what_a_key_writes_is_read_as_it_was_meant() {
        let mut key = sample();
        key.level = Level::Project(ProjectId::parse("mtKDhe1U").unwrap());
        "quo\"ted \\ ключ".clone_into(&mut key.name);
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
    fn a_partner_key_that_was_never_ended_and_holds_everything_says_so() {
        let mut key = sample();
        key.access = Access::Full;
        let row = serde_json::to_string(&key).unwrap();
        let read = StoredKey::read(key.id, &row).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.project(), None);
        assert!(read.has_full_access() && !read.is_revoked());
    }

    #[test]
    fn a_row_that_tells_of_another_key_is_refused() {
        let row = serde_json::to_string(&sample()).unwrap();
        assert!(StoredKey::read(KeyId::from_bytes([9; 16]), &row).is_err());
        assert!(StoredKey::read(sample().id, &row[1..]).is_err());
    }
}
