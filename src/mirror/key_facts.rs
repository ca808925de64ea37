//! What is known of a key: as little as decides and answers, since there may be millions.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::packed_labels::PackedLabels;
use super::realm::{EnvironmentFacts, MirroredPartner, MirroredRealm};
use super::secret::MirroredSecret;
use crate::domain::access::{ScopeHierarchy, ScopeSet};
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, KeyId, ProjectId, RealmId};
use crate::domain::key::{LevelKind, admits};
use crate::domain::time::Expiry;
use crate::store::StoredKey;

/// What is known under a key's id.
#[derive(Clone)]
pub enum Entry {
    /// A key.
    Key(KeyFacts),
    /// A row that cannot be read, or that belongs to nothing that is known.
    Corrupt,
}

/// What is needed of a key to decide and to answer. Small: there may be millions, so what they have in common is shared and
/// what few of them have is set apart.
#[derive(Clone)]
pub struct KeyFacts {
    /// Its id.
    pub id: KeyId,
    pub(super) environment_facts: Arc<EnvironmentFacts>,
    /// Its owner.
    pub partner: Arc<MirroredPartner>,
    /// The project that it is bound to; none for a partner key.
    pub project: Option<ProjectId>,
    /// Its name and labels.
    pub name_and_labels: PackedLabels,
    /// The scopes that it was granted by name.
    pub granted: ScopeSet,
    /// Whether it holds every scope.
    pub full_access: bool,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether it was ended by itself.
    pub(super) revoked: bool,
    created_revision: Revision,
    /// When it expires.
    pub expires_at: Expiry,
    newest_secret: MirroredSecret,
    rare: Option<Box<RareFacts>>,
}

/// What few keys have.
#[derive(Clone)]
struct RareFacts {
    /// Secrets that the newest one replaces, the oldest first.
    older_secrets: Box<[MirroredSecret]>,
    /// Where it may be used from; empty is anywhere.
    allowed_cidrs: Box<[IpNet]>,
}

impl Entry {
    /// The digests of its texts of another system.
    pub(super) fn imports(&self) -> impl Iterator<Item = &[u8; 32]> {
        let key = match self {
            Self::Key(key) => Some(key),
            Self::Corrupt => None,
        };
        let secrets = key.into_iter().flat_map(KeyFacts::secrets);
        secrets
            .filter(|secret| secret.imported)
            .map(|secret| &secret.digest.mac)
    }
}

impl KeyFacts {
    /// The facts of a key of this realm, with shared words in place of its own copies. None if it belongs to something that is
    /// not known, which is logged.
    pub(super) fn new(id: KeyId, realm: &MirroredRealm, key: &StoredKey<'_>) -> Option<Self> {
        let unknown = |what: &str| {
            tracing::error!(key_id = %id, "a key cannot be used: its {what} is not known");
        };
        let Some(partner) = realm.members.partners.pin().get(key.partner()).cloned() else {
            unknown("partner");
            return None;
        };
        let Some(environment_facts) = realm.environment_facts(key.environment()) else {
            unknown("environment");
            return None;
        };
        let Some((newest_secret, older_secrets)) = key.secrets.split_last() else {
            unknown("secret");
            return None;
        };
        let Some(name_and_labels) = PackedLabels::pack(key.name(), key.labels()) else {
            tracing::error!(key_id = %id, "a key cannot be used: there are control characters in its name or labels");
            return None;
        };
        let project = match key.project().map(|project| realm.project(project)) {
            Some(None) => {
                unknown("project");
                return None;
            }
            project => project.flatten(),
        };
        let mut granted = ScopeSet::default();
        for scope in key.granted() {
            match realm.hierarchy.index_of(scope) {
                Some(index) => granted.insert(index),
                None => {
                    tracing::error!(key_id = %id, "a key was granted a scope that its realm does not know; it gives nothing");
                }
            }
        }
        let is_rare = !older_secrets.is_empty() || !key.allowed_cidrs.is_empty();
        Some(KeyFacts {
            id,
            environment_facts: Arc::clone(environment_facts),
            partner,
            project,
            name_and_labels,
            granted,
            full_access: key.has_full_access(),
            disabled: key.disabled,
            revoked: key.is_revoked(),
            created_revision: key.created_revision,
            expires_at: key.expires_at,
            newest_secret: newest_secret.into(),
            rare: is_rare.then(|| {
                Box::new(RareFacts {
                    older_secrets: older_secrets.iter().map(MirroredSecret::from).collect(),
                    allowed_cidrs: key.allowed_cidrs.as_slice().into(),
                })
            }),
        })
    }

    /// Its realm.
    pub fn realm(&self) -> &RealmId {
        &self.environment_facts.realm
    }

    /// Its environment.
    pub fn environment(&self) -> &EnvironmentName {
        &self.environment_facts.environment.name
    }

    /// Whether a text that begins so is written as the key's own are: each has one text only.
    pub fn is_written(&self, prefix: &str, tag: &str) -> bool {
        self.environment_facts.prefix.as_str() == prefix
            && self.environment_facts.environment.tag.as_str() == tag
    }

    /// Whether it was ended, by itself or among many.
    pub fn is_revoked(&self) -> bool {
        let (created, project) = (self.created_revision, self.project.as_ref());
        let of_partner = &self.partner.watermarks;
        self.revoked
            || self.environment_facts.has_ended(created)
            || of_partner.includes(created, project, self.environment())
    }

    /// Its secrets, the oldest first.
    pub fn secrets(&self) -> impl Iterator<Item = &MirroredSecret> {
        let older = self.rare.iter().flat_map(|rare| &rare.older_secrets);
        older.chain([&self.newest_secret])
    }

    fn allowed_cidrs(&self) -> &[IpNet] {
        self.rare.as_ref().map_or(&[], |rare| &rare.allowed_cidrs)
    }

    /// The key's level.
    pub fn level(&self) -> LevelKind {
        match self.project {
            None => LevelKind::Partner,
            Some(_) => LevelKind::Project,
        }
    }

    /// Everything that the key may do by this hierarchy.
    pub fn effective(&self, hierarchy: &ScopeHierarchy) -> ScopeSet {
        if self.full_access {
            hierarchy.all()
        } else {
            hierarchy.effective(self.granted)
        }
    }

    /// Whether it may be used from this address; from none only if it may be used from anywhere.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        admits(self.allowed_cidrs(), client)
    }

    /// All that is known of it, in words. Whether its imported texts lead to it is asked of whoever knows.
    pub(super) fn describe(
        &self,
        hierarchy: Option<&ScopeHierarchy>,
        leads_here: impl Fn(&[u8; 32]) -> bool,
    ) -> String {
        let KeyFacts {
            id,
            environment_facts,
            partner,
            project,
            name_and_labels,
            granted,
            full_access,
            disabled,
            revoked: _,
            created_revision,
            expires_at,
            newest_secret: _,
            rare: _,
        } = self;
        let (realm, environment) = (
            &environment_facts.realm,
            &environment_facts.environment.name,
        );
        let revoked = self.is_revoked();
        // Indexes are an accident of history, names are not.
        let granted: Vec<String> = hierarchy
            .map(|hierarchy| hierarchy.names(*granted).map(ToString::to_string).collect())
            .unwrap_or_default();
        let secrets: Vec<_> = self
            .secrets()
            .map(|secret| {
                let MirroredSecret {
                    digest,
                    created_at,
                    expires_at,
                    imported,
                } = secret;
                let is_found = !imported || leads_here(&digest.mac);
                (digest.pepper, digest.mac, created_at, expires_at, is_found)
            })
            .collect();
        let (name, labels) = (
            name_and_labels.name(),
            name_and_labels.labels().collect::<Vec<_>>(),
        );
        let allowed_cidrs = self.allowed_cidrs();
        format!(
            "{id} {realm} {} {project:?} {environment} {name:?} {labels:?} {allowed_cidrs:?} {granted:?} \
             full={full_access} disabled={disabled} revoked={revoked} @{created_revision} {expires_at:?} {secrets:?}",
            partner.id
        )
    }
}
