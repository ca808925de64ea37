//! The facts by which requests are decided.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use ipnet::IpNet;
use papaya::{HashMapRef, LocalGuard};

use crate::domain::access::{Access, Ladder, ScopeSet};
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, Prefix, ProjectId, RealmId};
use crate::domain::key::{Digest, Key, LevelKind, admits};
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::Realm;
use crate::domain::route::RouteTable;
use crate::domain::time::{Expiry, Timestamp};
use crate::store;

/// One state of the facts, kept up to date in place by the feed.
#[derive(Default)]
pub struct Index {
    realms: ArcSwap<Realms>,
    keys: papaya::HashMap<KeyId, Entry>,
    revision: AtomicU64,
    as_of: AtomicI64,
}

#[derive(Clone, Default)]
struct Realms {
    by_id: HashMap<RealmId, Arc<MirroredRealm>>,
    prefixes: HashSet<Prefix>,
}

/// A realm, ready for decisions.
pub struct MirroredRealm {
    /// Its definition.
    pub definition: Realm,
    /// Its scopes.
    pub ladder: Ladder,
    /// Its routes.
    pub routes: RouteTable,
    members: Arc<Members>,
}

/// The partners and projects of a realm; they outlive a change of its definition.
#[derive(Default)]
struct Members {
    partners: papaya::HashMap<PartnerId, Arc<MirroredPartner>>,
    /// The owner of each project.
    projects: papaya::HashMap<ProjectId, Arc<MirroredPartner>>,
}

/// A partner, shared by its keys and projects.
pub struct MirroredPartner {
    /// Its id.
    pub id: PartnerId,
    suspended: AtomicBool,
}

impl MirroredPartner {
    /// Whether its keys are refused at present.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }
}

/// What is known under a key's id.
#[derive(Clone)]
pub enum Entry {
    /// A key.
    Key(KeyFacts),
    /// A row that cannot be read, or that belongs to nothing that is known.
    Corrupt,
}

/// What is needed of a key to decide and to answer. Small: there may be millions.
#[derive(Clone)]
pub struct KeyFacts {
    /// Its id.
    pub id: KeyId,
    /// Its realm.
    pub realm: RealmId,
    /// Its owner.
    pub partner: Arc<MirroredPartner>,
    /// The project that it is bound to; none for a partner key.
    pub project: Option<ProjectId>,
    /// Its environment.
    pub environment: EnvironmentName,
    /// For people.
    pub name: Box<str>,
    /// Free words of its issuer.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Where it may be used from; empty is anywhere.
    pub allowed_cidrs: Box<[IpNet]>,
    /// The scopes that it was granted by name.
    pub granted: ScopeSet,
    /// Whether it holds every scope.
    pub full_access: bool,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether it was ended.
    pub revoked: bool,
    /// When it expires.
    pub expires_at: Expiry,
    /// Its secrets.
    pub secrets: Box<[SecretFacts]>,
}

/// What is needed of a secret.
#[derive(Clone)]
pub struct SecretFacts {
    /// What proves it.
    pub digest: Digest,
    /// When it stops.
    pub expires_at: Expiry,
}

/// An index held still while a request is decided.
pub struct View<'index> {
    realms: Guard<Arc<Realms>>,
    keys: HashMapRef<'index, KeyId, Entry, RandomState, LocalGuard<'index>>,
    revision: Revision,
    as_of: Timestamp,
}

impl View<'_> {
    /// Whether anything is in view: before the first load nothing is.
    pub fn is_loaded(&self) -> bool {
        self.revision > Revision::default()
    }

    /// Every change up to this one is in view.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// When that was last known to be all.
    pub fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// The realm of this id.
    pub fn realm(&self, id: &str) -> Option<&MirroredRealm> {
        self.realms.by_id.get(id).map(AsRef::as_ref)
    }

    /// The realm whose keys begin so.
    pub fn realm_of_prefix(&self, prefix: &str) -> Option<&MirroredRealm> {
        self.realms
            .by_id
            .values()
            .find(|realm| realm.definition.prefix.as_str() == prefix)
            .map(AsRef::as_ref)
    }

    /// Whether the keys of some realm begin so.
    pub fn knows_prefix(&self, prefix: &str) -> bool {
        self.realms.prefixes.contains(prefix)
    }

    /// What is known under this id.
    pub fn key(&self, id: KeyId) -> Option<&Entry> {
        self.keys.get(&id)
    }
}

impl KeyFacts {
    /// The key's level.
    pub fn level(&self) -> LevelKind {
        match self.project {
            None => LevelKind::Partner,
            Some(_) => LevelKind::Project,
        }
    }

    /// Everything that the key may do by this ladder.
    pub fn effective(&self, ladder: &Ladder) -> ScopeSet {
        if self.full_access {
            ladder.all()
        } else {
            ladder.effective(self.granted)
        }
    }

    /// Whether it may be used from this address; from none only if it may be used from anywhere.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        admits(&self.allowed_cidrs, client)
    }
}

impl MirroredRealm {
    /// Whether there is such a project and it belongs to this partner.
    pub fn owns(&self, partner: &PartnerId, project: &str) -> bool {
        let projects = self.members.projects.pin();
        projects
            .get(project)
            .is_some_and(|owner| owner.id == *partner)
    }
}

impl Index {
    /// Holds the facts still.
    pub fn view(&self) -> View<'_> {
        // Read before the facts, so that they are at least as new.
        let (revision, as_of) = (self.revision(), self.as_of.load(Ordering::Acquire));
        View {
            realms: self.realms.load(),
            keys: self.keys.pin(),
            revision,
            as_of: Timestamp::from_micros(as_of),
        }
    }

    /// It knows of every change up to this one.
    pub fn revision(&self) -> Revision {
        Revision::from(self.revision.load(Ordering::Acquire))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn realm(&self, id: &str) -> Option<Arc<MirroredRealm>> {
        self.realms.load().by_id.get(id).cloned()
    }

    // What follows is the feed's alone.

    pub(crate) fn set_current(&self, revision: Revision, as_of: Timestamp) {
        self.as_of.store(as_of.as_micros(), Ordering::Release);
        self.revision.store(revision.as_u64(), Ordering::Release);
    }

    pub(crate) fn put_realm(&self, definition: Realm) {
        let mut realms = self.realms().as_ref().clone();
        let before = realms.by_id.get(&definition.id);
        let ladder = Ladder::new(&definition.scopes, before.map(|realm| &realm.ladder));
        let realm = MirroredRealm {
            routes: RouteTable::new(&definition.routes, &ladder),
            ladder,
            members: before.map_or_else(Arc::default, |realm| Arc::clone(&realm.members)),
            definition,
        };
        realms
            .by_id
            .insert(realm.definition.id.clone(), Arc::new(realm));
        self.set_realms(realms);
    }

    pub(crate) fn remove_realm(&self, id: &RealmId) {
        let mut realms = self.realms().as_ref().clone();
        realms.by_id.remove(id);
        self.set_realms(realms);
    }

    fn realms(&self) -> Guard<Arc<Realms>> {
        self.realms.load()
    }

    fn set_realms(&self, mut realms: Realms) {
        realms.prefixes = realms
            .by_id
            .values()
            .map(|realm| realm.definition.prefix.clone())
            .collect();
        self.realms.store(Arc::new(realms));
    }

    pub(crate) fn put_partner(&self, partner: &Partner) {
        let Some(realm) = self.realm(partner.realm.as_str()) else {
            return;
        };
        let partners = realm.members.partners.pin();
        if let Some(known) = partners.get(&partner.id) {
            known.suspended.store(partner.suspended, Ordering::Release);
        } else {
            let new = MirroredPartner {
                id: partner.id.clone(),
                suspended: AtomicBool::new(partner.suspended),
            };
            partners.insert(partner.id.clone(), Arc::new(new));
        }
    }

    pub(crate) fn remove_partner(&self, realm: &RealmId, id: &PartnerId) {
        let Some(realm) = self.realm(realm.as_str()) else {
            return;
        };
        realm
            .members
            .projects
            .pin()
            .retain(|_, owner| owner.id != *id);
        realm.members.partners.pin().remove(id);
    }

    pub(crate) fn put_project(&self, project: &Project) {
        let Some(realm) = self.realm(project.realm.as_str()) else {
            return;
        };
        if let Some(owner) = realm.members.partners.pin().get(&project.partner) {
            realm
                .members
                .projects
                .pin()
                .insert(project.id.clone(), Arc::clone(owner));
        } else {
            tracing::error!(realm = %project.realm, project = %project.id, "a project belongs to no partner");
        }
    }

    pub(crate) fn remove_project(&self, realm: &RealmId, id: &ProjectId) {
        if let Some(realm) = self.realm(realm.as_str()) {
            realm.members.projects.pin().remove(id);
        }
    }

    pub(crate) fn put_key(&self, id: KeyId, key: Result<Key, store::Error>) {
        let entry = match key {
            Ok(key) => self.facts(key).map_or(Entry::Corrupt, Entry::Key),
            Err(error) => {
                tracing::error!(key_id = %id, %error, "a key cannot be used");
                Entry::Corrupt
            }
        };
        let keys = self.keys.pin();
        let was_revoked = matches!(keys.get(&id), Some(Entry::Key(before)) if before.revoked);
        // Denied for ever is for ever, whatever a store says that runs backwards, or can no longer say.
        let entry = match entry {
            Entry::Corrupt if was_revoked => return,
            Entry::Corrupt => Entry::Corrupt,
            Entry::Key(key) => Entry::Key(KeyFacts {
                revoked: key.revoked || was_revoked,
                ..key
            }),
        };
        keys.insert(id, entry);
    }

    pub(crate) fn remove_key(&self, id: KeyId) {
        self.keys.pin().remove(&id);
    }

    /// The facts of a key, with shared words in place of its own copies.
    fn facts(&self, key: Key) -> Option<KeyFacts> {
        let unknown = |what: &str| {
            tracing::error!(key_id = %key.id, "a key cannot be used: its {what} is not known");
        };
        let Some(realm) = self.realm(key.realm.as_str()) else {
            unknown("realm");
            return None;
        };
        let Some(partner) = realm.members.partners.pin().get(&key.partner).cloned() else {
            unknown("partner");
            return None;
        };
        let Some(environment) = realm.definition.environment(key.environment.as_str()) else {
            unknown("environment");
            return None;
        };
        let granted = realm.ladder.granted(&key.access);
        if key
            .access
            .granted()
            .any(|scope| realm.ladder.rank(scope.as_str()).is_none())
        {
            tracing::error!(key_id = %key.id, "a key was granted a scope that its realm does not know; it gives nothing");
        }
        Some(KeyFacts {
            id: key.id,
            realm: realm.definition.id.clone(),
            partner,
            project: key.level.project().map(|project| {
                let projects = realm.members.projects.pin();
                projects
                    .get_key_value(project)
                    .map_or_else(|| project.clone(), |(known, _)| known.clone())
            }),
            environment: environment.name.clone(),
            name: key.name.into(),
            labels: key
                .labels
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            allowed_cidrs: key.allowed_cidrs.into(),
            granted,
            full_access: matches!(key.access, Access::Full),
            disabled: key.disabled,
            revoked: key.revocation.is_some(),
            expires_at: key.expires_at,
            secrets: key
                .secrets
                .into_iter()
                .map(|secret| SecretFacts {
                    digest: secret.digest,
                    expires_at: secret.expires_at,
                })
                .collect(),
        })
    }

    /// Keeps denied what `before` denied for ever. Returns how many keys had to be denied against the store's word.
    pub(crate) fn keep_revoked(&self, before: &Self) -> usize {
        let keys = self.keys.pin();
        let mut kept = 0;
        for (id, entry) in &before.keys.pin() {
            if let (Entry::Key(old), Some(Entry::Key(new))) = (entry, keys.get(id))
                && old.revoked
                && !new.revoked
            {
                let mut denied = new.clone();
                denied.revoked = true;
                keys.insert(*id, Entry::Key(denied));
                kept += 1;
            }
        }
        kept
    }

    /// Everything that it knows, in words, so that two can be compared whole.
    pub fn describe(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (id, realm) in &self.realms.load().by_id {
            all.insert(format!("realm {id}"), format!("{:?}", realm.definition));
            for (partner, known) in &realm.members.partners.pin() {
                all.insert(
                    format!("partner {id} {partner}"),
                    format!("{} suspended={}", known.id, known.is_suspended()),
                );
            }
            for (project, owner) in &realm.members.projects.pin() {
                all.insert(
                    format!("project {id} {project}"),
                    format!("of {}", owner.id),
                );
            }
        }
        for (id, entry) in &self.keys.pin() {
            all.insert(
                format!("key {id}"),
                match entry {
                    Entry::Corrupt => "corrupt".to_owned(),
                    Entry::Key(key) => self.describe_key(key),
                },
            );
        }
        all.insert("revision".to_owned(), self.revision().to_string());
        all
    }

    fn describe_key(&self, key: &KeyFacts) -> String {
        let KeyFacts {
            id,
            realm,
            partner,
            project,
            environment,
            name,
            labels,
            allowed_cidrs,
            granted,
            full_access,
            disabled,
            revoked,
            expires_at,
            secrets,
        } = key;
        // Ranks are an accident of history, names are not.
        let granted: Vec<String> = self
            .realm(realm.as_str())
            .map(|realm| {
                realm
                    .ladder
                    .names(*granted)
                    .map(ToString::to_string)
                    .collect()
            })
            .unwrap_or_default();
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| (secret.digest.pepper, secret.digest.mac, secret.expires_at))
            .collect();
        format!(
            "{id} {realm} {} {project:?} {environment} {name:?} {labels:?} {allowed_cidrs:?} {granted:?} \
             full={full_access} disabled={disabled} revoked={revoked} {expires_at:?} {secrets:?}",
            partner.id
        )
    }
}
