//! A realm in the mirror, with the facts that its keys share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::map::Map;
use super::revocation_watermarks::RevocationWatermarks;
use crate::domain::access::ScopeHierarchy;
use crate::domain::event::Revision;
use crate::domain::ids::{PartnerId, Prefix, ProjectId, RealmId};
use crate::domain::realm::{Environment, Realm};
use crate::domain::route::{RouteTable, RouteTrie};
use crate::metrics::Decisions;

/// A realm as decisions need it.
pub struct MirroredRealm {
    /// The realm's definition without its routes, because `routes` holds them.
    pub definition: Realm,
    /// The realm's scopes.
    pub hierarchy: ScopeHierarchy,
    /// The realm's routes.
    pub routes: Arc<RouteTable>,
    /// The routes as JSON. `routes` does not have all of it.
    pub(super) routes_text: Arc<str>,
    /// The decisions on the requests of the realm, which its later definitions go on counting.
    pub decisions: Arc<Decisions>,
    /// The facts of each environment.
    pub(super) environments: Vec<Arc<EnvironmentFacts>>,
    pub(super) members: Arc<Members>,
}

/// A realm's definition and the trie of its routes.
pub struct PreparedRealm {
    pub(super) definition: Realm,
    pub(super) trie: RouteTrie,
    pub(super) routes_text: Arc<str>,
}

impl PreparedRealm {
    /// Builds the trie of a realm's routes, which takes a few milliseconds for the largest realms.
    pub fn new(definition: Realm) -> Self {
        let trie = RouteTrie::new(&definition.routes, &definition.paths);
        let routes_text = serde_json::to_string(&definition.routes);
        let routes_text = routes_text.expect("routes can be serialized").into();
        Self {
            definition,
            trie,
            routes_text,
        }
    }

    /// The realm's definition.
    pub fn definition(&self) -> &Realm {
        &self.definition
    }
}

/// The partners and projects of a realm; a change of the realm's definition keeps them.
#[derive(Default)]
pub(super) struct Members {
    pub(super) partners: Map<PartnerId, Arc<MirroredPartner>>,
    /// The partner that owns each project.
    pub(super) projects: Map<ProjectId, Arc<MirroredPartner>>,
    /// The projects whose rows cannot be read.
    pub(super) unreadable_projects: Map<ProjectId, ()>,
}

/// A partner, shared by its keys and projects.
pub struct MirroredPartner {
    /// The partner's id.
    pub id: PartnerId,
    pub(super) suspended: AtomicBool,
    pub(super) unreadable: AtomicBool,
    pub(super) watermarks: RevocationWatermarks,
}

impl MirroredPartner {
    /// Whether the partner is suspended, so that its keys are denied.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    /// Whether the stored partner cannot be read, so that nothing can be decided about its keys.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Acquire)
    }
}

/// The facts that all keys of an environment share. While there are such keys, only the watermark changes.
pub(super) struct EnvironmentFacts {
    pub(super) realm: RealmId,
    pub(super) prefix: Prefix,
    pub(super) environment: Environment,
    revoked_before: AtomicU64,
}

impl EnvironmentFacts {
    /// Revokes the keys of the environment that were issued before this revision.
    pub(super) fn revoke_before(&self, revision: Revision) {
        self.revoked_before
            .fetch_max(revision.as_u64(), Ordering::AcqRel);
    }

    /// Whether a key of the environment that was issued at this revision is revoked.
    pub(super) fn is_revoked(&self, created: Revision) -> bool {
        created.as_u64() < self.revoked_before.load(Ordering::Acquire)
    }
}

impl MirroredRealm {
    /// The realm's definition with its routes.
    pub(super) fn whole_definition(&self) -> Realm {
        Realm {
            routes: serde_json::from_str(&self.routes_text).expect("serialized routes"),
            ..self.definition.clone()
        }
    }

    pub(super) fn environment_facts(&self, environment: &str) -> Option<&Arc<EnvironmentFacts>> {
        self.environments
            .iter()
            .find(|facts| facts.environment.name.as_str() == environment)
    }

    /// The id of a project, shared if the project is known. A deleted project keeps its keys, so an unknown id is accepted.
    pub(super) fn project(&self, id: &str) -> Option<ProjectId> {
        let projects = self.members.projects.pin();
        match projects.get_key_value(id) {
            Some((known, _)) => Some(known.clone()),
            None => ProjectId::parse(id).ok(),
        }
    }

    /// Whether the stored project cannot be read, so that nothing can be decided about its keys, or keys for it.
    pub fn has_unreadable_project(&self, project: &str) -> bool {
        let unreadable = &self.members.unreadable_projects;
        !unreadable.is_empty() && unreadable.pin().contains_key(project)
    }

    /// Whether this partner exists and is suspended, so that its keys are denied.
    pub fn is_suspended(&self, partner: &PartnerId) -> bool {
        let partners = self.members.partners.pin();
        partners
            .get(partner)
            .is_some_and(|partner| partner.is_suspended())
    }

    /// Whether this project exists and belongs to this partner.
    pub fn owns(&self, partner: &PartnerId, project: &str) -> bool {
        let projects = self.members.projects.pin();
        projects
            .get(project)
            .is_some_and(|owner| owner.id == *partner)
    }
}

/// The environments of a realm. Unchanged environments keep their facts, because their keys refer to them.
pub(super) fn environments(
    realm: &Realm,
    before: Option<&MirroredRealm>,
) -> Vec<Arc<EnvironmentFacts>> {
    let known_or_new = |environment: &Environment| {
        let known = before.and_then(|before| before.environment_facts(environment.name.as_str()));
        let known =
            known.filter(|facts| facts.prefix == realm.prefix && facts.environment == *environment);
        known.cloned().unwrap_or_else(|| {
            Arc::new(EnvironmentFacts {
                realm: realm.id.clone(),
                prefix: realm.prefix.clone(),
                environment: environment.clone(),
                revoked_before: AtomicU64::default(),
            })
        })
    };
    realm.environments.iter().map(known_or_new).collect()
}
