//! The facts by which requests are decided.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use papaya::{HashMapRef, LocalGuard};

use super::key_facts::{Entry, KeyFacts};
use super::realm::{EnvironmentFacts, MirroredPartner, MirroredRealm, PreparedRealm, environments};
use super::revocation_watermarks::RevocationWatermarks;
use crate::domain::access::ScopeHierarchy;
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, PartnerId, Prefix, ProjectId, RealmId};
use crate::domain::key::Digest;
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::Realm;
use crate::domain::revocation::BulkRevocation;
use crate::domain::route::RouteTable;
use crate::domain::time::Timestamp;
use crate::store::{self, StoredKey};

/// One state of the facts, kept up to date in place by the feed.
#[derive(Default)]
pub struct Index {
    realms: ArcSwap<Realms>,
    keys: papaya::HashMap<KeyId, Entry>,
    /// The keys of imported texts, which do not name their key, by the digests of the texts.
    imports: papaya::HashMap<[u8; 32], KeyId>,
    revision: AtomicU64,
    as_of: AtomicI64,
}

#[derive(Clone, Default)]
struct Realms {
    by_id: HashMap<RealmId, Arc<MirroredRealm>>,
    prefixes: HashSet<Prefix>,
}

/// An index held still while a request is decided.
pub struct View<'index> {
    realms: Guard<Arc<Realms>>,
    keys: HashMapRef<'index, KeyId, Entry, RandomState, LocalGuard<'index>>,
    imports: &'index papaya::HashMap<[u8; 32], KeyId>,
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

    /// Whether the keys of some realm begin so.
    pub fn knows_prefix(&self, prefix: &str) -> bool {
        self.realms.prefixes.contains(prefix)
    }

    /// What is known under this id.
    pub fn key(&self, id: KeyId) -> Option<&Entry> {
        self.keys.get(&id)
    }

    /// Whether any key has a text of another system.
    pub fn has_imports(&self) -> bool {
        !self.imports.is_empty()
    }

    /// What is known of the key whose text of another system has this digest.
    pub fn key_of_import(&self, digest: &Digest) -> Option<&Entry> {
        let id = self.imports.pin().get(&digest.mac).copied()?;
        self.key(id)
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
            imports: &self.imports,
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

    /// Whether a definition differs from the known one only in what gateways go by, which no key's facts depend on.
    pub(super) fn changes_gateways_only(&self, definition: &Realm) -> bool {
        self.realm(definition.id.as_str()).is_some_and(|known| {
            let Realm {
                id,
                prefix,
                environments,
                scopes,
                admin_scope,
                unscoped_keys,
                levels,
                max_cache,
                max_lifetime,
                credentials: _,
                routes: _,
                paths: _,
                denials: _,
            } = &known.definition;
            *id == definition.id
                && *prefix == definition.prefix
                && *environments == definition.environments
                && *scopes == definition.scopes
                && *admin_scope == definition.admin_scope
                && *unscoped_keys == definition.unscoped_keys
                && *levels == definition.levels
                && *max_cache == definition.max_cache
                && *max_lifetime == definition.max_lifetime
        })
    }

    pub(crate) fn put_realm(&self, realm: PreparedRealm) {
        let PreparedRealm {
            mut definition,
            trie,
        } = realm;
        let mut realms = self.realms().as_ref().clone();
        let before = realms.by_id.get(&definition.id);
        let hierarchy =
            ScopeHierarchy::new(&definition.scopes, before.map(|realm| &realm.hierarchy));
        let routes = std::mem::take(&mut definition.routes);
        let realm = MirroredRealm {
            routes: RouteTable::new(trie, &routes, &hierarchy),
            hierarchy,
            environments: environments(&definition, before.map(AsRef::as_ref)),
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
                watermarks: RevocationWatermarks::default(),
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

    pub(crate) fn revoke_many(&self, revocation: &BulkRevocation) {
        let BulkRevocation {
            realm,
            partner,
            project,
            environment,
            before,
            at: _,
            reason: _,
        } = revocation;
        let Some(realm) = self.realm(realm.as_str()) else {
            return;
        };
        let Some(partner) = partner else {
            let is_meant = |environment_facts: &&Arc<EnvironmentFacts>| {
                let name = &environment_facts.environment.name;
                environment.as_ref().is_none_or(|meant| meant == name)
            };
            for environment_facts in realm.environments.iter().filter(is_meant) {
                environment_facts.end_before(*before);
            }
            return;
        };
        // One that was deleted has no keys.
        if let Some(partner) = realm.members.partners.pin().get(partner) {
            let (project, environment) = (project.as_ref(), environment.as_ref());
            partner.watermarks.add(project, environment, *before);
        }
    }

    pub(crate) fn put_key(&self, id: KeyId, key: Result<StoredKey<'_>, store::Error>) {
        let entry = match key {
            Ok(key) => self.facts(id, &key).map_or(Entry::Corrupt, Entry::Key),
            Err(error) => {
                tracing::error!(key_id = %id, %error, "a key cannot be used");
                Entry::Corrupt
            }
        };
        let keys = self.keys.pin();
        let before = keys.get(&id);
        let was_revoked = matches!(before, Some(Entry::Key(before)) if before.is_revoked());
        // Denied for ever is for ever, whatever a store says that runs backwards, or can no longer say.
        let entry = match entry {
            Entry::Corrupt if was_revoked => return,
            Entry::Corrupt => Entry::Corrupt,
            Entry::Key(mut key) => {
                key.revoked |= was_revoked;
                Entry::Key(key)
            }
        };
        let stays = |mac: &[u8; 32]| entry.imports().any(|stays| stays == mac);
        // What leads to a key that can no longer be read goes on leading there: that it cannot be told is not that it is unknown.
        let forgotten: Vec<_> = match (before, &entry) {
            (Some(before), Entry::Key(_)) => before
                .imports()
                .filter(|mac| !stays(mac))
                .copied()
                .collect(),
            _ => Vec::new(),
        };
        let found: Vec<_> = entry.imports().copied().collect();
        keys.insert(id, entry);
        // A text that stays leads here at every moment: somebody may be presenting it.
        let imports = self.imports.pin();
        for mac in found {
            imports.insert(mac, id);
        }
        for mac in forgotten {
            imports.remove(&mac);
        }
    }

    pub(crate) fn remove_key(&self, id: KeyId) {
        let keys = self.keys.pin();
        let Some(before) = keys.remove(&id) else {
            return;
        };
        let imports = self.imports.pin();
        for mac in before.imports() {
            imports.remove(mac);
        }
    }

    fn facts(&self, id: KeyId, key: &StoredKey<'_>) -> Option<KeyFacts> {
        let realms = self.realms();
        let Some(realm) = realms.by_id.get(key.realm()) else {
            tracing::error!(key_id = %id, "a key cannot be used: its realm is not known");
            return None;
        };
        KeyFacts::new(id, realm, key)
    }

    /// Keeps denied what `before` denied for ever. Returns how many keys had to be denied against the store's word.
    pub(crate) fn keep_revoked(&self, before: &Self) -> usize {
        let keys = self.keys.pin();
        let mut kept = 0;
        for (id, entry) in &before.keys.pin() {
            if let (Entry::Key(old), Some(Entry::Key(new))) = (entry, keys.get(id))
                && old.is_revoked()
                && !new.is_revoked()
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
            let routes: Vec<_> = realm.routes.texts().collect();
            all.insert(
                format!("realm {id}"),
                format!("{:?} {routes:?}", realm.definition),
            );
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
                    Entry::Key(key) => {
                        let realm = self.realm(key.realm().as_str());
                        let imports = self.imports.pin();
                        key.describe(realm.as_ref().map(|realm| &realm.hierarchy), |mac| {
                            imports.get(mac) == Some(id)
                        })
                    }
                },
            );
        }
        all.insert("revision".to_owned(), self.revision().to_string());
        all
    }
}
