//! The facts by which requests are decided.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use ipnet::IpNet;
use papaya::{HashMapRef, LocalGuard};

use super::ended::Ended;
use super::words::Words;
use crate::domain::access::{Ladder, ScopeSet};
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, Prefix, ProjectId, RealmId};
use crate::domain::key::{Digest, LevelKind, admits};
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::{Environment, Realm};
use crate::domain::revocation::BulkRevocation;
use crate::domain::route::RouteTable;
use crate::domain::time::{Expiry, Timestamp};
use crate::store::{self, StoredKey, StoredSecret};

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

/// A realm, ready for decisions.
pub struct MirroredRealm {
    /// Its definition.
    pub definition: Realm,
    /// Its scopes.
    pub ladder: Ladder,
    /// Its routes.
    pub routes: RouteTable,
    /// One for each environment.
    homes: Vec<Arc<Home>>,
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
    ended: Ended,
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

/// Where a key lives, shared by all the keys that live there. None of it changes while there are such keys, but that many may
/// be ended at once.
struct Home {
    realm: RealmId,
    prefix: Prefix,
    environment: Environment,
    ended: Ended,
}

/// What is needed of a key to decide and to answer. Small: there may be millions, so what they have in common is shared and
/// what few of them have is set apart.
#[derive(Clone)]
pub struct KeyFacts {
    /// Its id.
    pub id: KeyId,
    home: Arc<Home>,
    /// Its owner.
    pub partner: Arc<MirroredPartner>,
    /// The project that it is bound to; none for a partner key.
    pub project: Option<ProjectId>,
    /// Its name and labels.
    pub words: Words,
    /// The scopes that it was granted by name.
    pub granted: ScopeSet,
    /// Whether it holds every scope.
    pub full_access: bool,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether it was ended by itself.
    revoked: bool,
    created_revision: Revision,
    /// When it expires.
    pub expires_at: Expiry,
    newest_secret: StoredSecret,
    rare: Option<Box<RareFacts>>,
}

/// What few keys have.
#[derive(Clone)]
struct RareFacts {
    /// Secrets that the newest one replaces, the oldest first.
    older_secrets: Box<[StoredSecret]>,
    /// Where it may be used from; empty is anywhere.
    allowed_cidrs: Box<[IpNet]>,
}

impl Entry {
    /// The digests of its texts of another system.
    fn imports(&self) -> impl Iterator<Item = &[u8; 32]> {
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

impl KeyFacts {
    /// Its realm.
    pub fn realm(&self) -> &RealmId {
        &self.home.realm
    }

    /// Its environment.
    pub fn environment(&self) -> &EnvironmentName {
        &self.home.environment.name
    }

    /// Whether a text that begins so is written as the key's own are: each has one text only.
    pub fn is_written(&self, prefix: &str, tag: &str) -> bool {
        self.home.prefix.as_str() == prefix && self.home.environment.tag.as_str() == tag
    }

    /// The revision at which it was issued.
    pub(super) fn created_revision(&self) -> Revision {
        self.created_revision
    }

    /// Whether it was ended, by itself or among many.
    pub fn is_revoked(&self) -> bool {
        self.revoked || self.home.ended.includes(self) || self.partner.ended.includes(self)
    }

    /// Its secrets, the oldest first.
    pub fn secrets(&self) -> impl Iterator<Item = &StoredSecret> {
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
        admits(self.allowed_cidrs(), client)
    }
}

impl MirroredRealm {
    fn home(&self, environment: &str) -> Option<&Arc<Home>> {
        self.homes
            .iter()
            .find(|home| home.environment.name.as_str() == environment)
    }

    /// The id of a project, shared if the project is known. One that is deleted keeps its keys.
    fn project(&self, id: &str) -> Option<ProjectId> {
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

/// The homes of a realm: those that there were, as their keys refer to them, and new ones.
fn homes(realm: &Realm, before: Option<&MirroredRealm>) -> Vec<Arc<Home>> {
    let home = |environment: &Environment| {
        let known = before.and_then(|before| before.home(environment.name.as_str()));
        let known =
            known.filter(|home| home.prefix == realm.prefix && home.environment == *environment);
        known.cloned().unwrap_or_else(|| {
            Arc::new(Home {
                realm: realm.id.clone(),
                prefix: realm.prefix.clone(),
                environment: environment.clone(),
                ended: Ended::default(),
            })
        })
    };
    realm.environments.iter().map(home).collect()
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

    pub(crate) fn put_realm(&self, definition: Realm) {
        let mut realms = self.realms().as_ref().clone();
        let before = realms.by_id.get(&definition.id);
        let ladder = Ladder::new(&definition.scopes, before.map(|realm| &realm.ladder));
        let realm = MirroredRealm {
            routes: RouteTable::new(&definition.routes, &ladder),
            ladder,
            homes: homes(&definition, before.map(AsRef::as_ref)),
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
                ended: Ended::default(),
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
            let is_meant = |home: &&Arc<Home>| {
                let name = &home.environment.name;
                environment.as_ref().is_none_or(|meant| meant == name)
            };
            for home in realm.homes.iter().filter(is_meant) {
                home.ended.add(None, None, *before);
            }
            return;
        };
        // One that was deleted has no keys.
        if let Some(partner) = realm.members.partners.pin().get(partner) {
            let (project, environment) = (project.as_ref(), environment.as_ref());
            partner.ended.add(project, environment, *before);
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
        let was_revoked = matches!(before, Some(Entry::Key(before)) if before.revoked);
        // Denied for ever is for ever, whatever a store says that runs backwards, or can no longer say.
        let entry = match entry {
            Entry::Corrupt if was_revoked => return,
            Entry::Corrupt => Entry::Corrupt,
            Entry::Key(key) => Entry::Key(KeyFacts {
                revoked: key.revoked || was_revoked,
                ..key
            }),
        };
        let imports = self.imports.pin();
        // What leads to a key that can no longer be read goes on leading there: that it cannot be told is not that it is unknown.
        if let (Some(before), Entry::Key(_)) = (before, &entry) {
            for mac in before.imports() {
                imports.remove(mac);
            }
        }
        for mac in entry.imports() {
            imports.insert(*mac, id);
        }
        keys.insert(id, entry);
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

    /// The facts of a key, with shared words in place of its own copies.
    fn facts(&self, id: KeyId, key: &StoredKey<'_>) -> Option<KeyFacts> {
        let unknown = |what: &str| {
            tracing::error!(key_id = %id, "a key cannot be used: its {what} is not known");
        };
        let realms = self.realms();
        let Some(realm) = realms.by_id.get(key.realm()) else {
            unknown("realm");
            return None;
        };
        let Some(partner) = realm.members.partners.pin().get(key.partner()).cloned() else {
            unknown("partner");
            return None;
        };
        let Some(home) = realm.home(key.environment()) else {
            unknown("environment");
            return None;
        };
        let Some((newest_secret, older_secrets)) = key.secrets.split_last() else {
            unknown("secret");
            return None;
        };
        let Some(words) = Words::pack(key.name(), key.labels()) else {
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
            match realm.ladder.rank(scope) {
                Some(rank) => granted.insert(rank),
                None => {
                    tracing::error!(key_id = %id, "a key was granted a scope that its realm does not know; it gives nothing");
                }
            }
        }
        let is_rare = !older_secrets.is_empty() || !key.allowed_cidrs.is_empty();
        Some(KeyFacts {
            id,
            home: Arc::clone(home),
            partner,
            project,
            words,
            granted,
            full_access: key.has_full_access(),
            disabled: key.disabled,
            revoked: key.is_revoked(),
            created_revision: key.created_revision,
            expires_at: key.expires_at,
            newest_secret: newest_secret.clone(),
            rare: is_rare.then(|| {
                Box::new(RareFacts {
                    older_secrets: older_secrets.into(),
                    allowed_cidrs: key.allowed_cidrs.as_slice().into(),
                })
            }),
        })
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
            home,
            partner,
            project,
            words,
            granted,
            full_access,
            disabled,
            revoked: _,
            created_revision,
            expires_at,
            newest_secret: _,
            rare: _,
        } = key;
        let Home {
            realm,
            prefix: _,
            environment:
                Environment {
                    name: environment,
                    tag: _,
                },
            ended: _,
        } = &**home;
        let revoked = key.is_revoked();
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
        let secrets: Vec<_> = key
            .secrets()
            .map(|secret| {
                let StoredSecret {
                    digest,
                    created_at,
                    expires_at,
                    imported,
                } = secret;
                let is_found = !imported || self.imports.pin().get(&digest.mac) == Some(id);
                (digest.pepper, digest.mac, created_at, expires_at, is_found)
            })
            .collect();
        let (name, labels) = (words.name(), words.labels().collect::<Vec<_>>());
        let allowed_cidrs = key.allowed_cidrs();
        format!(
            "{id} {realm} {} {project:?} {environment} {name:?} {labels:?} {allowed_cidrs:?} {granted:?} \
             full={full_access} disabled={disabled} revoked={revoked} @{created_revision} {expires_at:?} {secrets:?}",
            partner.id
        )
    }
}
