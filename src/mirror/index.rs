//! The index: the facts from which requests are decided.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use papaya::{HashMapRef, LocalGuard};

use super::MissingRevision;
use super::holds::Holds;
use super::key_facts::{Entry, PackedEntry, PackedFacts, access_of};
use super::map::{Map, MapHasher};
use super::realm::{EnvironmentFacts, MirroredPartner, MirroredRealm, PreparedRealm, environments};
use super::revocation_watermarks::RevocationWatermarks;
use super::shared_facts::Interner;
use crate::domain::access::ScopeHierarchy;
use crate::domain::event::Revision;
use crate::domain::hold::Fork;
use crate::domain::ids::{KeyId, PartnerId, Prefix, ProjectId, RealmId};
use crate::domain::key::Digest;
use crate::domain::partner::{Partner, Project};
use crate::domain::revocation::BulkRevocation;
use crate::domain::route::RouteTable;
use crate::domain::time::Timestamp;
use crate::metrics::Decisions;
use crate::store::{self, StoredKey};

/// The facts of the store at one revision. The feed updates the index in place.
#[derive(Default)]
pub struct Index {
    realms: ArcSwap<Realms>,
    pub(super) keys: Map<KeyId, PackedEntry>,
    /// The facts that keys have in common. Readers reach them only through the keys.
    pub(super) interner: Interner,
    /// The key ids of imported API keys, by digest, because an imported API key does not contain its key id.
    imports: Map<[u8; 32], KeyId>,
    /// What has less than the store says, because a lost change took more from it.
    holds: ArcSwap<Holds>,
    /// Where epochs begin.
    forks: ArcSwap<Vec<Fork>>,
    /// The decisions on the requests of each realm. The index after this one goes on counting.
    decisions: Arc<Map<RealmId, Arc<Decisions>>>,
    revision: AtomicU64,
    as_of: AtomicI64,
}

/// All realms.
#[derive(Clone, Default)]
pub(crate) struct Realms {
    pub(super) by_id: HashMap<RealmId, Arc<MirroredRealm>>,
    prefixes: HashSet<Prefix>,
    /// The realms whose rows cannot be read. `by_id` may have what they were before.
    unreadable: HashSet<RealmId>,
}

impl Realms {
    /// Puts a realm of this index.
    pub(super) fn put(&mut self, realm: PreparedRealm, index: &Index) {
        let PreparedRealm {
            mut definition,
            trie,
            routes_text,
        } = realm;
        let before = self.by_id.get(&definition.id);
        let hierarchy =
            ScopeHierarchy::new(&definition.scopes, before.map(|realm| &realm.hierarchy));
        let routes = std::mem::take(&mut definition.routes);
        let realm = MirroredRealm {
            routes: Arc::new(RouteTable::new(trie, &routes, &hierarchy)),
            routes_text,
            hierarchy,
            environments: environments(&definition, before.map(AsRef::as_ref)),
            members: before.map_or_else(Arc::default, |realm| Arc::clone(&realm.members)),
            decisions: index.decisions_of(&definition.id),
            definition,
        };
        self.unreadable.remove(&realm.definition.id);
        self.by_id
            .insert(realm.definition.id.clone(), Arc::new(realm));
    }

    /// Marks a realm as one that cannot be read.
    pub(super) fn put_unreadable(&mut self, id: &RealmId) {
        self.unreadable.insert(id.clone());
    }

    /// Removes a realm of this index.
    pub(super) fn remove(&mut self, id: &RealmId, index: &Index) {
        self.by_id.remove(id);
        self.unreadable.remove(id);
        index.decisions.pin().remove(id);
    }
}

/// A consistent view of an index for the decision of one request.
pub struct View<'index> {
    realms: Guard<Arc<Realms>>,
    keys: HashMapRef<'index, KeyId, PackedEntry, MapHasher, LocalGuard<'index>>,
    imports: &'index Map<[u8; 32], KeyId>,
    forks: &'index ArcSwap<Vec<Fork>>,
    revision: Revision,
    as_of: Timestamp,
}

impl View<'_> {
    /// Whether the index has been loaded.
    pub fn is_loaded(&self) -> bool {
        self.revision > Revision::default()
    }

    /// The revision of the view: it contains every change up to this one.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Checks that the view contains the change of this revision.
    ///
    /// # Errors
    /// If it does not contain the change yet, or never will.
    pub fn check_revision(&self, revision: Revision) -> Result<(), MissingRevision> {
        let is_lost = || self.forks.load().iter().any(|fork| fork.has_lost(revision));
        // Without an epoch in between, no fork can have lost it.
        if self.revision.epoch() != revision.epoch() && revision != Revision::default() && is_lost()
        {
            return Err(MissingRevision::Lost);
        }
        if self.revision < revision {
            return Err(MissingRevision::Behind);
        }
        Ok(())
    }

    /// The latest time at which this revision was known to be the store's newest.
    pub fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// The realm with this id, if it can be read.
    pub fn realm(&self, id: &str) -> Option<&MirroredRealm> {
        if self.is_unreadable(id) {
            return None;
        }
        self.realms.by_id.get(id).map(AsRef::as_ref)
    }

    /// Whether there is a realm with this id that cannot be read, so that nothing can be decided about its keys.
    pub fn is_unreadable(&self, id: &str) -> bool {
        let unreadable = &self.realms.unreadable;
        !unreadable.is_empty() && unreadable.contains(id)
    }

    /// Whether a realm has this prefix. A realm that cannot be read may have any prefix.
    pub fn knows_prefix(&self, prefix: &str) -> bool {
        self.realms.prefixes.contains(prefix) || !self.realms.unreadable.is_empty()
    }

    /// The entry of the key with this id.
    pub fn key(&self, id: KeyId) -> Option<Entry<'_>> {
        self.keys.get(&id).map(|entry| entry.unpack(id))
    }

    /// Whether any key was imported.
    pub fn has_imports(&self) -> bool {
        !self.imports.is_empty()
    }

    /// The entry of the imported key whose API key has this digest.
    pub fn key_of_import(&self, digest: &Digest) -> Option<Entry<'_>> {
        let id = self.imports.pin().get(&digest.mac).copied()?;
        self.key(id)
    }
}

impl Index {
    /// Creates an empty index with room for this many keys.
    ///
    /// A map that grows keeps its old tables until later changes free them, and moves its entries several times.
    pub(super) fn with_capacity(keys: usize) -> Self {
        Self {
            keys: Map::with_capacity_and_hasher(keys, MapHasher::default()),
            ..Self::default()
        }
    }

    /// Creates an empty index that replaces `before`.
    pub(super) fn after(before: Option<&Self>, keys: usize) -> Self {
        Self {
            decisions: before.map_or_else(Arc::default, |before| Arc::clone(&before.decisions)),
            ..Self::with_capacity(keys)
        }
    }

    /// Takes a view of the current facts.
    pub fn view(&self) -> View<'_> {
        // Read before the facts, so that the facts are at least as new as the revision.
        let (revision, as_of) = (self.revision(), self.as_of.load(Ordering::Acquire));
        View {
            realms: self.realms.load(),
            keys: self.keys.pin(),
            imports: &self.imports,
            forks: &self.forks,
            revision,
            as_of: Timestamp::from_micros(as_of),
        }
    }

    /// The revision of the index: it contains every change up to this one.
    pub fn revision(&self) -> Revision {
        Revision::from(self.revision.load(Ordering::Acquire))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The longest time for which a gateway may cache an answer about any realm.
    pub fn longest_max_cache(&self) -> Duration {
        let realms = self.realms();
        let times = realms
            .by_id
            .values()
            .map(|realm| realm.definition.max_cache);
        times.max().unwrap_or_default()
    }

    /// The decisions on the requests of each realm since this process has read it.
    pub fn decisions(&self) -> BTreeMap<RealmId, Arc<Decisions>> {
        let decisions = self.decisions.pin();
        let copy = |(id, of): (&RealmId, &Arc<Decisions>)| (id.clone(), Arc::clone(of));
        decisions.iter().map(copy).collect()
    }

    /// The decisions on the requests of a realm, which its later definitions go on counting.
    pub(super) fn decisions_of(&self, id: &RealmId) -> Arc<Decisions> {
        let decisions = self.decisions.pin();
        Arc::clone(decisions.get_or_insert_with(id.clone(), Arc::default))
    }

    #[cfg(test)]
    pub(super) fn interner(&self) -> &Interner {
        &self.interner
    }

    pub(super) fn realm(&self, id: &str) -> Option<Arc<MirroredRealm>> {
        self.realms.load().by_id.get(id).cloned()
    }

    pub(super) fn holds(&self) -> Guard<Arc<Holds>> {
        self.holds.load()
    }

    // Only the feed calls the methods below.

    pub(super) fn set_holds(&self, holds: Holds) {
        self.holds.store(Arc::new(holds));
    }

    pub(super) fn set_forks(&self, forks: Vec<Fork>) {
        self.forks.store(Arc::new(forks));
    }

    pub(crate) fn set_current(&self, revision: Revision, as_of: Timestamp) {
        self.as_of.store(as_of.as_micros(), Ordering::Release);
        self.revision.store(revision.as_u64(), Ordering::Release);
    }

    pub(crate) fn put_realm(&self, realm: PreparedRealm) {
        self.change_realms(|realms| realms.put(realm, self));
    }

    /// Marks a realm as one that cannot be read.
    pub(crate) fn put_unreadable_realm(&self, id: &RealmId) {
        self.change_realms(|realms| realms.put_unreadable(id));
    }

    /// Changes realms, all at once. Returns them as they were, which is referred to by each view that was taken before.
    pub(super) fn change_realms(&self, change: impl FnOnce(&mut Realms)) -> Arc<Realms> {
        let mut realms = self.realms().as_ref().clone();
        change(&mut realms);
        realms.prefixes = realms
            .by_id
            .values()
            .map(|realm| realm.definition.prefix.clone())
            .collect();
        self.realms.swap(Arc::new(realms))
    }

    /// Whether a realm could not be read. Its keys, partners and projects may be missing.
    pub(super) fn has_unreadable_realm(&self, id: &RealmId) -> bool {
        self.realms().unreadable.contains(id)
    }

    pub(super) fn realms(&self) -> Guard<Arc<Realms>> {
        self.realms.load()
    }

    pub(crate) fn put_partner(&self, partner: &Partner) {
        let Partner {
            realm,
            id,
            display_name: _,
            suspended,
        } = partner;
        self.with_partner(realm, id, |known| {
            let suspended = *suspended || self.holds().has_partner(realm, id);
            known.suspended.store(suspended, Ordering::Release);
            known.unreadable.store(false, Ordering::Release);
        });
    }

    /// Marks a partner as one that cannot be read.
    pub(crate) fn put_unreadable_partner(&self, realm: &RealmId, id: &PartnerId) {
        self.with_partner(realm, id, |known| {
            known.unreadable.store(true, Ordering::Release);
        });
    }

    /// Changes a partner of a known realm, which may be new.
    fn with_partner(&self, realm: &RealmId, id: &PartnerId, change: impl Fn(&MirroredPartner)) {
        let Some(realm) = self.realm(realm.as_str()) else {
            return;
        };
        let partners = realm.members.partners.pin();
        if let Some(known) = partners.get(id) {
            change(known);
            return;
        }
        let new = MirroredPartner {
            id: id.clone(),
            suspended: AtomicBool::default(),
            unreadable: AtomicBool::default(),
            watermarks: RevocationWatermarks::default(),
        };
        change(&new);
        partners.insert(id.clone(), Arc::new(new));
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
        realm.members.unreadable_projects.pin().remove(&project.id);
        if self.holds().has_project(&project.realm, &project.id) {
            return;
        }
        if let Some(owner) = realm.members.partners.pin().get(&project.partner) {
            realm
                .members
                .projects
                .pin()
                .insert(project.id.clone(), Arc::clone(owner));
        } else {
            tracing::error!(realm = %project.realm, project = %project.id, "project cannot be used: unknown partner");
        }
    }

    /// Marks a project as one that cannot be read.
    pub(crate) fn put_unreadable_project(&self, realm: &RealmId, id: &ProjectId) {
        if let Some(realm) = self.realm(realm.as_str()) {
            let unreadable = realm.members.unreadable_projects.pin();
            unreadable.insert(id.clone(), ());
        }
    }

    pub(crate) fn remove_project(&self, realm: &RealmId, id: &ProjectId) {
        if let Some(realm) = self.realm(realm.as_str()) {
            realm.members.projects.pin().remove(id);
            realm.members.unreadable_projects.pin().remove(id);
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
            let is_included = |facts: &&Arc<EnvironmentFacts>| {
                let name = &facts.environment.name;
                environment.as_ref().is_none_or(|only| only == name)
            };
            for facts in realm.environments.iter().filter(is_included) {
                facts.revoke_before(*before);
            }
            return;
        };
        // A deleted partner has no keys.
        if let Some(partner) = realm.members.partners.pin().get(partner) {
            let (project, environment) = (project.as_ref(), environment.as_ref());
            partner.watermarks.add(project, environment, *before);
        }
    }

    /// Returns whether the key can be used. The digests of a key that cannot be read must be put with
    /// [`put_import`](Self::put_import).
    pub(crate) fn put_key(&self, id: KeyId, key: Result<StoredKey<'_>, store::Error>) -> bool {
        let keys = self.keys.pin();
        let before = keys.get(&id);
        // A revocation is permanent, even if the store was rolled back or the row can no longer be read.
        let was_revoked = matches!(before, Some(PackedEntry::Key(before)) if before.is_revoked());
        let facts = match key {
            Ok(key) => {
                let facts = self.facts(id, &key, was_revoked);
                facts.map(|facts| self.below_ceiling(id, facts))
            }
            Err(error) => {
                tracing::error!(key_id = %id, %error, "key cannot be used");
                None
            }
        };
        let entry = match facts {
            Some(facts) => PackedEntry::Key(facts),
            None if was_revoked => return false,
            None => PackedEntry::Corrupt,
        };
        let remains = |mac: &[u8; 32]| entry.imports().any(|other| other == *mac);
        // The digests of a key that can no longer be read stay: the answer must be an error, not VERDICT_UNKNOWN.
        let removed: Vec<_> = match (before, &entry) {
            (Some(before), PackedEntry::Key(_)) => {
                before.imports().filter(|mac| !remains(mac)).collect()
            }
            _ => Vec::new(),
        };
        let added: Vec<_> = entry.imports().collect();
        let is_usable = matches!(entry, PackedEntry::Key(_));
        keys.insert(id, entry);
        // A digest that remains is never absent, because a client may present the API key at any moment.
        let imports = self.imports.pin();
        for mac in added {
            imports.insert(mac, id);
        }
        for mac in removed {
            self.forget_import(mac, id);
        }
        is_usable
    }

    /// Takes from a known key what its row does not give it, by the scopes that the realms of `to_be` will have. What the row gives it
    /// comes with [`put_key`](Self::put_key).
    pub(super) fn narrow_key(
        &self,
        id: KeyId,
        row: &Result<StoredKey<'_>, store::Error>,
        to_be: &HashMap<RealmId, ScopeHierarchy>,
    ) {
        let keys = self.keys.pin();
        let Some(entry @ PackedEntry::Key(known)) = keys.get(&id) else {
            return;
        };
        let Ok(row) = row else {
            if !known.is_revoked() {
                keys.insert(id, PackedEntry::Corrupt);
            }
            return;
        };
        let Some(realm) = self.realm(row.realm()) else {
            return;
        };
        let narrowed = if row.is_revoked() {
            Some(known.revoked(&self.interner))
        } else {
            let hierarchy = to_be.get(&realm.definition.id).unwrap_or(&realm.hierarchy);
            known.narrowed_to(&access_of(row, hierarchy), &realm.hierarchy, &self.interner)
        };
        let Some(narrowed) = narrowed else { return };
        let narrowed = PackedEntry::Key(narrowed);
        let remains = |mac: &[u8; 32]| narrowed.imports().any(|other| other == *mac);
        let removed: Vec<_> = entry.imports().filter(|mac| !remains(mac)).collect();
        keys.insert(id, narrowed);
        for mac in removed {
            self.forget_import(mac, id);
        }
    }

    /// Puts the digest of an imported key whose row cannot be read: the answer must be an error, not `VERDICT_UNKNOWN`.
    pub(crate) fn put_import(&self, mac: [u8; 32], id: KeyId) {
        self.imports.pin().insert(mac, id);
    }

    pub(crate) fn remove_key(&self, id: KeyId) {
        let keys = self.keys.pin();
        let Some(before) = keys.remove(&id) else {
            return;
        };
        for mac in before.imports() {
            self.forget_import(mac, id);
        }
    }

    /// Removes the digest of an imported key, unless another key has it now.
    fn forget_import(&self, mac: [u8; 32], id: KeyId) {
        let _ = self.imports.pin().remove_if(&mac, |_, owner| *owner == id);
    }

    fn facts(&self, id: KeyId, key: &StoredKey<'_>, was_revoked: bool) -> Option<PackedFacts> {
        let realms = self.realms();
        let Some(realm) = realms.by_id.get(key.realm()) else {
            // The log has one line for a realm that cannot be read, and not one for each of its keys.
            if !realms.unreadable.contains(key.realm()) {
                tracing::error!(key_id = %id, "key cannot be used: unknown realm");
            }
            return None;
        };
        PackedFacts::new(id, realm, key, was_revoked, &self.interner)
    }

    /// Describes every fact of the index, so that tests can compare two whole indexes.
    pub fn describe(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for id in &self.realms.load().unreadable {
            all.insert(format!("unreadable realm {id}"), String::new());
        }
        for (id, realm) in &self.realms.load().by_id {
            let routes: Vec<_> = realm.routes.texts().collect();
            all.insert(
                format!("realm {id}"),
                format!("{:?} {routes:?}", realm.definition),
            );
            for (partner, known) in &realm.members.partners.pin() {
                let (suspended, unreadable) = (known.is_suspended(), known.is_unreadable());
                all.insert(
                    format!("partner {id} {partner}"),
                    format!("{} suspended={suspended} unreadable={unreadable}", known.id),
                );
            }
            for (project, ()) in &realm.members.unreadable_projects.pin() {
                let name = format!("unreadable project {id} {project}");
                all.insert(name, String::new());
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
                match entry.unpack(*id) {
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
