//! The facts of one key: only what decisions and answers need, because there may be millions of keys.

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

/// The entry of one key id.
#[derive(Clone)]
pub enum Entry {
    /// The facts of the key.
    Key(KeyFacts),
    /// A row that cannot be read, or that refers to an unknown realm, partner, project or environment.
    Corrupt,
}

/// The facts of a key that decisions and answers need. The struct is small, because there may be millions of keys: facts that
/// keys have in common are shared, and facts that few keys have are boxed.
#[derive(Clone)]
pub struct KeyFacts {
    /// The key's id.
    pub id: KeyId,
    pub(super) environment_facts: Arc<EnvironmentFacts>,
    /// The partner that owns the key.
    pub partner: Arc<MirroredPartner>,
    /// The project that the key is bound to; `None` for a partner key.
    pub project: Option<ProjectId>,
    /// The key's name and labels.
    pub name_and_labels: PackedLabels,
    /// The scopes that the key was granted by name.
    pub granted: ScopeSet,
    /// Whether the key holds every scope of its realm.
    pub full_access: bool,
    /// Whether the key is disabled.
    pub disabled: bool,
    /// Whether the key was revoked individually, as opposed to by a bulk revocation.
    pub(super) revoked: bool,
    created_revision: Revision,
    /// When the key expires.
    pub expires_at: Expiry,
    newest_secret: MirroredSecret,
    rare: Option<Box<RareFacts>>,
}

/// The facts that few keys have.
#[derive(Clone)]
struct RareFacts {
    /// The secrets that the newest secret replaces, oldest first.
    older_secrets: Box<[MirroredSecret]>,
    /// The client addresses from which the key may be used; empty means any address.
    allowed_cidrs: Box<[IpNet]>,
}

impl Entry {
    /// The digests of the imported API keys of this entry.
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
    /// Builds the facts of a key of this realm; equal ids are shared instead of copied. Returns `None` and logs an error if the
    /// key refers to an unknown partner, environment or project.
    pub(super) fn new(id: KeyId, realm: &MirroredRealm, key: &StoredKey<'_>) -> Option<Self> {
        let unknown = |what: &str| {
            tracing::error!(key_id = %id, "key cannot be used: unknown {what}");
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
            tracing::error!(key_id = %id, "key cannot be used: control characters in its name or labels");
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
                    tracing::error!(key_id = %id, "granted scope ignored: it is not defined in the key's realm");
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

    /// The key's realm.
    pub fn realm(&self) -> &RealmId {
        &self.environment_facts.realm
    }

    /// The key's environment.
    pub fn environment(&self) -> &EnvironmentName {
        &self.environment_facts.environment.name
    }

    /// Whether the API keys of this key start with this prefix and tag. A secret has exactly one valid API key.
    pub fn has_prefix_and_tag(&self, prefix: &str, tag: &str) -> bool {
        self.environment_facts.prefix.as_str() == prefix
            && self.environment_facts.environment.tag.as_str() == tag
    }

    /// Whether the key was revoked, individually or by a bulk revocation.
    pub fn is_revoked(&self) -> bool {
        let (created, project) = (self.created_revision, self.project.as_ref());
        let of_partner = &self.partner.watermarks;
        self.revoked
            || self.environment_facts.is_revoked(created)
            || of_partner.includes(created, project, self.environment())
    }

    /// The key's secrets, oldest first.
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

    /// The effective scopes of the key: the granted scopes and every scope that they imply in this hierarchy.
    pub fn effective(&self, hierarchy: &ScopeHierarchy) -> ScopeSet {
        if self.full_access {
            hierarchy.all()
        } else {
            hierarchy.effective(self.granted)
        }
    }

    /// Whether the key may be used from this client address. An unknown address is admitted only if any address is.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        admits(self.allowed_cidrs(), client)
    }

    /// Describes all facts of the key, for comparisons in tests. `is_indexed` returns whether the index of imported API keys
    /// maps a digest to this key.
    pub(super) fn describe(
        &self,
        hierarchy: Option<&ScopeHierarchy>,
        is_indexed: impl Fn(&[u8; 32]) -> bool,
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
        // Scope indexes depend on the order of changes, names do not.
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
                let is_found = !imported || is_indexed(&digest.mac);
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
