//! A realm as decisions need it, with what its keys have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::revocation_watermarks::RevocationWatermarks;
use crate::domain::access::ScopeHierarchy;
use crate::domain::event::Revision;
use crate::domain::ids::{PartnerId, Prefix, ProjectId, RealmId};
use crate::domain::realm::{Environment, Realm};
use crate::domain::route::{RouteTable, RouteTrie};

/// A realm, ready for decisions.
pub struct MirroredRealm {
    /// Its definition but for the routes, of which the table has all that is needed.
    pub definition: Realm,
    /// Its scopes.
    pub hierarchy: ScopeHierarchy,
    /// Its routes.
    pub routes: RouteTable,
    /// One for each environment.
    pub(super) environments: Vec<Arc<EnvironmentFacts>>,
    pub(super) members: Arc<Members>,
}

/// A realm's definition and the trie of its routes.
pub struct PreparedRealm {
    pub(super) definition: Realm,
    pub(super) trie: RouteTrie,
}

impl PreparedRealm {
    /// Makes the trie of a realm's routes: a few milliseconds for the largest.
    pub fn new(definition: Realm) -> Self {
        let trie = RouteTrie::new(&definition.routes, &definition.paths);
        Self { definition, trie }
    }

    /// The realm's definition.
    pub fn definition(&self) -> &Realm {
        &self.definition
    }
}

/// The partners and projects of a realm; they outlive a change of its definition.
#[derive(Default)]
pub(super) struct Members {
    pub(super) partners: papaya::HashMap<PartnerId, Arc<MirroredPartner>>,
    /// The owner of each project.
    pub(super) projects: papaya::HashMap<ProjectId, Arc<MirroredPartner>>,
}

/// A partner, shared by its keys and projects.
pub struct MirroredPartner {
    /// Its id.
    pub id: PartnerId,
    pub(super) suspended: AtomicBool,
    pub(super) watermarks: RevocationWatermarks,
}

impl MirroredPartner {
    /// Whether its keys are refused at present.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }
}

/// Where a key lives, shared by all the keys that live there. None of it changes while there are such keys, but that many may
/// be ended at once.
pub(super) struct EnvironmentFacts {
    pub(super) realm: RealmId,
    pub(super) prefix: Prefix,
    pub(super) environment: Environment,
    ended_before: AtomicU64,
}

impl EnvironmentFacts {
    /// Ends the keys that live here and were issued before this revision.
    pub(super) fn end_before(&self, revision: Revision) {
        self.ended_before
            .fetch_max(revision.as_u64(), Ordering::AcqRel);
    }

    /// Whether a key that was issued at this revision was ended so.
    pub(super) fn has_ended(&self, created: Revision) -> bool {
        created.as_u64() < self.ended_before.load(Ordering::Acquire)
    }
}

impl MirroredRealm {
    pub(super) fn environment_facts(&self, environment: &str) -> Option<&Arc<EnvironmentFacts>> {
        self.environments
            .iter()
            .find(|environment_facts| environment_facts.environment.name.as_str() == environment)
    }

    /// The id of a project, shared if the project is known. One that is deleted keeps its keys.
    pub(super) fn project(&self, id: &str) -> Option<ProjectId> {
        let projects = self.members.projects.pin();
        match projects.get_key_value(id) {
            Some((known, _)) => Some(known.clone()),
            None => ProjectId::parse(id).ok(),
        }
    }

    /// Whether there is such a project and it belongs to this partner.
    pub fn owns(&self, partner: &PartnerId, project: &str) -> bool {
        let projects = self.members.projects.pin();
        projects
            .get(project)
            .is_some_and(|owner| owner.id == *partner)
    }
}

/// The environments of a realm: those that there were, as their keys refer to them, and new ones.
pub(super) fn environments(
    realm: &Realm,
    before: Option<&MirroredRealm>,
) -> Vec<Arc<EnvironmentFacts>> {
    let environment_facts = |environment: &Environment| {
        let known = before.and_then(|before| before.environment_facts(environment.name.as_str()));
        let known = known.filter(|environment_facts| {
            environment_facts.prefix == realm.prefix
                && environment_facts.environment == *environment
        });
        known.cloned().unwrap_or_else(|| {
            Arc::new(EnvironmentFacts {
                realm: realm.id.clone(),
                prefix: realm.prefix.clone(),
                environment: environment.clone(),
                ended_before: AtomicU64::default(),
            })
        })
    };
    realm.environments.iter().map(environment_facts).collect()
}
