//! The plan: the changes between what is stored and what is declared.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::{AppliedState, DeclaredState, MAX_CHANGES};
use crate::authority::caller_state::CallerState;
use crate::authority::grants::{self, Grant};
use crate::authority::realms::check_frozen;
use crate::authority::resolve::LookupCache;
use crate::authority::{ImportedKey, Refusal, in_use, projects};
use crate::domain::access::Access;
use crate::domain::ids::{KeyId, PartnerId, RealmId};
use crate::domain::key::{Key, KeyState, admits};
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::{Realm, scopes};
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::hashing::Peppers;
use crate::store::{KeyFilter, Snapshot};

/// How many rows are read at a time.
const ROWS: u32 = 1_000;

/// How many realms are read at a time. One may have a megabyte.
const REALMS: u32 = 8;

/// How many bytes the realms that change or go may have together. They are in the answer.
const MAX_BYTES: usize = 4 << 20;

const NO_REALM: &str = "does not exist: declare the realm too, or check its id";
const NO_PARTNER: &str = "does not exist: declare the partner too, or check its id";
const REPEATED: &str = "is declared twice: remove one of the two";

/// A change of one resource. Without a state before it, the resource is created, and without one after it, deleted.
#[derive(Clone, Debug)]
pub enum PlannedChange {
    /// Of a realm.
    Realm {
        /// As it is.
        before: Option<Box<Realm>>,
        /// As it becomes.
        after: Option<Box<Realm>>,
    },
    /// Of a partner.
    Partner {
        /// As it is.
        before: Option<Partner>,
        /// As it becomes.
        after: Option<Partner>,
    },
    /// Of a project.
    Project {
        /// As it is.
        before: Option<Project>,
        /// As it becomes.
        after: Option<Project>,
    },
    /// Of a key of the built-in realm.
    Key {
        /// As it is.
        before: Option<Box<Key>>,
        /// As it becomes. A key that is created has no id before that.
        after: Option<Box<Key>>,
        /// Which key of the declared state this is; 0 for a key that is deleted.
        index: usize,
    },
}

/// The changes that make a declared state true, in the order in which they can be made.
pub(super) struct Plan {
    pub(super) changes: Vec<PlannedChange>,
    /// Identifies the changes, independent of the caller and of the time.
    pub(super) id: String,
}

impl Plan {
    fn new(changes: Vec<PlannedChange>, state: &DeclaredState) -> Self {
        let mut hash = Sha256::new();
        for change in &changes {
            let text = match change {
                PlannedChange::Key {
                    before,
                    after,
                    index,
                } => {
                    if before.is_none() {
                        hash.update(state.keys[*index].hash.secret().expose());
                    }
                    let [before, after] = [before, after].map(|key| key.as_deref().map(identity));
                    format!("{before:?}{after:?}")
                }
                other => format!("{other:?}"),
            };
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        let digest = hash.finalize();
        let id = digest[..16].iter().fold(String::new(), |mut digits, byte| {
            write!(digits, "{byte:02x}").expect("a string takes everything");
            digits
        });
        Self { changes, id }
    }

    pub(super) fn into_applied(self) -> AppliedState {
        AppliedState {
            plan: self.id,
            changes: self.changes,
        }
    }

    /// The realms that are created or changed.
    pub(super) fn realms_to_put(&self) -> impl Iterator<Item = &Realm> {
        self.changes.iter().filter_map(|change| match change {
            PlannedChange::Realm { after, .. } => after.as_deref(),
            _ => None,
        })
    }

    /// The keys that are created, by their index in the declared state.
    pub(super) fn new_keys(&self) -> impl Iterator<Item = usize> {
        self.changes.iter().filter_map(|change| match change {
            PlannedChange::Key {
                before: None,
                index,
                ..
            } => Some(*index),
            _ => None,
        })
    }

    /// Whether a key of an operator is created.
    pub(super) fn creates_operator(&self) -> bool {
        self.changes.iter().any(|change| match change {
            PlannedChange::Key {
                before: None,
                after: Some(key),
                ..
            } => is_operator(&key.access),
            _ => false,
        })
    }

    /// Checks that the caller is still an operator afterwards, at its address.
    pub(super) fn check_not_locked_out(
        &self,
        own: &Key,
        peer: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let stays = |key: &Key| is_operator(&key.access) && admits(&key.allowed_cidrs, peer);
        let loses_role = self.changes.iter().any(|change| match change {
            PlannedChange::Key {
                before: Some(before),
                after,
                ..
            } => before.id == own.id && !after.as_deref().is_some_and(stays),
            _ => false,
        });
        if loses_role {
            return Err(Refusal::Precondition {
                reason: "LOCKS_OUT_CALLER",
                message: "the caller's own key would be deleted, be an operator key no more, or not be accepted from the caller's \
                          address: declare it so that it is, or call with another operator key"
                    .to_owned(),
            });
        }
        Ok(())
    }
}

/// What a plan says of a key. A key that is created has no lasting id yet.
fn identity(key: &Key) -> impl std::fmt::Debug + '_ {
    (
        &key.partner,
        &key.name,
        &key.access,
        &key.labels,
        &key.allowed_cidrs,
        key.expires_at,
        (!key.secrets.is_empty()).then_some(key.id),
    )
}

fn is_operator(access: &Access) -> bool {
    access.is_full()
        || access
            .granted()
            .any(|scope| scope.as_str() == scopes::OPERATOR)
}

/// Makes the plan of a declared state.
pub(super) struct Planner<'p> {
    state: &'p DeclaredState,
    peppers: &'p Peppers,
    /// Whose rights bound the keys; `None` on the server's command line, and for a reader, who changes nothing.
    by: Option<&'p CallerState>,
    now: Timestamp,
    bad: Violations,
    changes: Vec<PlannedChange>,
    /// The size of the definitions of realms that change or go.
    bytes: usize,
    /// The realms that are declared.
    declared_realms: HashSet<&'p RealmId>,
    /// Whether realms that are not declared will exist.
    other_realms: HashMap<RealmId, bool>,
    /// Whether partners that are not declared exist.
    other_partners: HashMap<(RealmId, PartnerId), bool>,
    /// How many changes there may be.
    max_changes: usize,
}

impl<'p> Planner<'p> {
    pub(super) fn new(
        state: &'p DeclaredState,
        peppers: &'p Peppers,
        by: Option<&'p CallerState>,
        now: Timestamp,
    ) -> Self {
        Self {
            state,
            peppers,
            by,
            now,
            bad: Violations::default(),
            changes: Vec::new(),
            bytes: 0,
            declared_realms: state.realms.iter().map(|realm| &realm.id).collect(),
            other_realms: HashMap::new(),
            other_partners: HashMap::new(),
            max_changes: MAX_CHANGES,
        }
    }

    /// A plan for a new authority, whose changes nobody waits for.
    pub(super) fn of_new_authority(
        state: &'p DeclaredState,
        peppers: &'p Peppers,
        now: Timestamp,
    ) -> Self {
        Self {
            max_changes: usize::MAX,
            ..Self::new(state, peppers, None, now)
        }
    }

    /// Compares the declared state with what is stored.
    pub(super) async fn plan(mut self, snapshot: &mut Snapshot) -> Result<Plan, Refusal> {
        self.check_repetitions();
        self.plan_realms(snapshot).await?;
        self.plan_partners(snapshot).await?;
        self.plan_projects(snapshot).await?;
        let declared_keys = self.plan_keys(snapshot).await?;
        // What refers to something goes before it.
        if self.state.prune.keys {
            self.prune_keys(snapshot, &declared_keys).await?;
        }
        if self.state.prune.projects || self.state.prune.partners {
            self.prune_projects(snapshot).await?;
        }
        if self.state.prune.partners {
            self.prune_partners(snapshot).await?;
        }
        if self.state.prune.realms {
            self.prune_realms(snapshot).await?;
        }
        let Self {
            bad,
            changes,
            state,
            ..
        } = self;
        bad.finish(Some(Plan::new(changes, state)))
            .map_err(Refusal::Invalid)
    }

    fn add(&mut self, change: PlannedChange) -> Result<(), Refusal> {
        if let PlannedChange::Realm {
            before: Some(realm),
            ..
        } = &change
        {
            self.bytes += serde_json::to_string(realm).map_or(0, |text| text.len());
        }
        if self.changes.len() == self.max_changes || self.bytes > MAX_BYTES {
            return Err(Refusal::Precondition {
                reason: "TOO_MANY_DIFFERENCES",
                message: format!(
                    "the declared state differs from the authority in more than one call changes, {MAX_CHANGES} resources and \
                     {MAX_BYTES} bytes of realms: apply a part of it first"
                ),
            });
        }
        self.changes.push(change);
        Ok(())
    }

    /// Nothing may be declared twice.
    fn check_repetitions(&mut self) {
        let DeclaredState {
            realms,
            partners,
            projects,
            keys,
            prune: _,
        } = self.state;
        let realms = realms.iter().map(|realm| &realm.id);
        let partners = partners.iter().map(|partner| (&partner.realm, &partner.id));
        let projects = projects.iter().map(|project| (&project.realm, &project.id));
        let keys = keys.iter().map(|key| key.hash.secret().expose());
        repetitions(&mut self.bad, realms, |i| format!("realms[{i}].id"));
        repetitions(&mut self.bad, partners, |i| format!("partners[{i}].id"));
        repetitions(&mut self.bad, projects, |i| format!("projects[{i}].id"));
        repetitions(&mut self.bad, keys, |i| format!("keys[{i}].sha256"));
    }

    async fn plan_realms(&mut self, snapshot: &mut Snapshot) -> Result<(), Refusal> {
        let mut prefixes = HashMap::new();
        for (i, realm) in self.state.realms.iter().enumerate() {
            if realm.id.is_built_in() {
                let field = format!("realms[{i}].id");
                self.bad.add(field, "is built in and cannot be changed");
                continue;
            }
            let other = prefixes.insert(&realm.prefix, &realm.id);
            let other = match other {
                Some(other) => Some(other.clone()),
                None => snapshot.find_prefix(realm.prefix.as_str()).await?,
            };
            if other.is_some_and(|other| other != realm.id) {
                let field = format!("realms[{i}].prefix");
                self.bad
                    .add(field, "belongs to another realm: choose another prefix");
            }
            let before = snapshot.find_realm(&realm.id).await?.map(|row| row.value);
            if let Some(before) = &before {
                if before == realm {
                    continue;
                }
                let checked = check_frozen(snapshot, before, realm, self.now).await;
                checked
                    .map_err(|refusal| in_resource(refusal, &format!("realm \"{}\"", realm.id)))?;
            }
            self.add(PlannedChange::Realm {
                before: before.map(Box::new),
                after: Some(Box::new(realm.clone())),
            })?;
        }
        Ok(())
    }

    /// Whether the realm is declared, or exists and is not about to be deleted.
    async fn will_exist(&mut self, snapshot: &mut Snapshot, id: &RealmId) -> Result<bool, Refusal> {
        if self.declares_realm(id) {
            return Ok(true);
        }
        if let Some(known) = self.other_realms.get(id) {
            return Ok(*known);
        }
        let exists = !self.state.prune.realms
            && !id.is_built_in()
            && snapshot.find_realm(id).await?.is_some();
        self.other_realms.insert(id.clone(), exists);
        Ok(exists)
    }

    /// Whether a partner that is not declared exists and is not about to be deleted.
    async fn stays(
        &mut self,
        snapshot: &mut Snapshot,
        realm: &RealmId,
        partner: &PartnerId,
    ) -> Result<bool, Refusal> {
        if self.state.prune.partners && self.declares_realm(realm)
            || !self.will_exist(snapshot, realm).await?
        {
            return Ok(false);
        }
        let id = (realm.clone(), partner.clone());
        if let Some(known) = self.other_partners.get(&id) {
            return Ok(*known);
        }
        let exists = snapshot.find_partner(realm, partner).await?.is_some();
        self.other_partners.insert(id, exists);
        Ok(exists)
    }

    fn declares_realm(&self, id: &RealmId) -> bool {
        self.declared_realms.contains(id)
    }

    fn declared_partners(&self) -> HashSet<(&'p RealmId, &'p PartnerId)> {
        let partners = self.state.partners.iter();
        partners
            .map(|partner| (&partner.realm, &partner.id))
            .collect()
    }

    async fn plan_partners(&mut self, snapshot: &mut Snapshot) -> Result<(), Refusal> {
        for (i, declared) in self.state.partners.iter().enumerate() {
            let exists = self.will_exist(snapshot, &declared.realm).await?;
            if !exists {
                self.bad.add(format!("partners[{i}].realm"), NO_REALM);
                continue;
            }
            let before = snapshot.find_partner(&declared.realm, &declared.id).await?;
            let before = before.map(|row| row.value);
            let after = declared.resolve(before.as_ref());
            if before.as_ref() != Some(&after) {
                self.add(PlannedChange::Partner {
                    before,
                    after: Some(after),
                })?;
            }
        }
        Ok(())
    }

    async fn plan_projects(&mut self, snapshot: &mut Snapshot) -> Result<(), Refusal> {
        let declared_partners = self.declared_partners();
        for (i, project) in self.state.projects.iter().enumerate() {
            let (realm, partner) = (&project.realm, &project.partner);
            let has_partner = declared_partners.contains(&(realm, partner))
                || self.stays(snapshot, realm, partner).await?;
            if !has_partner {
                self.bad.add(format!("projects[{i}].partner"), NO_PARTNER);
                continue;
            }
            let known = snapshot.find_project(realm, &project.id).await?;
            if known
                .as_ref()
                .is_some_and(|(known, _)| known.value.partner != *partner)
            {
                self.bad
                    .add(format!("projects[{i}].id"), projects::OF_ANOTHER_PARTNER);
                continue;
            }
            let before = known
                .filter(|(_, deleted)| !deleted)
                .map(|(row, _)| row.value);
            if before.as_ref() != Some(project) {
                self.add(PlannedChange::Project {
                    before,
                    after: Some(project.clone()),
                })?;
            }
        }
        Ok(())
    }

    /// Plans the declared keys, and returns the ids of those that exist.
    async fn plan_keys(&mut self, snapshot: &mut Snapshot) -> Result<HashSet<KeyId>, Refusal> {
        let digests: Vec<_> = self
            .state
            .keys
            .iter()
            .flat_map(|key| self.peppers.digests_of_import(&key.hash))
            .collect();
        let imports = snapshot.find_imports(&digests).await?;
        let ids: Vec<_> = imports.values().copied().collect();
        let mut known = HashMap::new();
        snapshot
            .find_keys(&ids, |id, key| {
                known.insert(id, key);
            })
            .await?;
        let lookups = &mut LookupCache::default();
        for realm in &self.state.realms {
            lookups.assume_partner(&RealmId::built_in(), &realm.id.as_partner());
        }
        let mut declared = HashSet::new();
        for (i, key) in self.state.keys.iter().enumerate() {
            let mut digests = self.peppers.digests_of_import(&key.hash);
            let before = match digests.find_map(|digest| Some((digest, *imports.get(&digest.mac)?)))
            {
                None => None,
                Some((digest, id)) => {
                    declared.insert(id);
                    let found = known.remove(&id).transpose()?;
                    let Some(found) = self.reachable(i, found, &digest) else {
                        continue;
                    };
                    Some(found)
                }
            };
            self.plan_key(snapshot, lookups, i, key, before).await?;
        }
        Ok(declared)
    }

    /// The key that a declared API key has, if that can still be what is declared.
    fn reachable(
        &mut self,
        i: usize,
        found: Option<Key>,
        digest: &crate::domain::key::Digest,
    ) -> Option<Key> {
        let why = match &found {
            None => "belongs to a key that was revoked and deleted: make a new API key",
            Some(key) if !key.realm.is_built_in() => {
                "belongs to a key of another realm: make a new API key"
            }
            Some(key) if key.state(self.now) == KeyState::Revoked => {
                "belongs to a revoked key, which stays revoked: remove it here, or make a new API key"
            }
            Some(key) if !key.secrets.iter().any(|secret| secret.digest == *digest) => {
                "was replaced by a rotation of its key: remove it here, or make a new API key"
            }
            Some(_) => return found,
        };
        self.bad.add(format!("keys[{i}].sha256"), why);
        None
    }

    async fn plan_key(
        &mut self,
        snapshot: &mut Snapshot,
        lookups: &mut LookupCache,
        i: usize,
        declared: &ImportedKey,
        before: Option<Key>,
    ) -> Result<(), Refusal> {
        if let Some(served) = &declared.new.partner
            && self.state.prune.realms
            && RealmId::parse(served.as_str()).is_ok_and(|realm| !self.declares_realm(&realm))
        {
            self.bad.add(format!("keys[{i}].partner"), NO_REALM);
            return Ok(());
        }
        // An end that has passed is what the key has already.
        let is_its_end = |key: &Key| Option::from(key.expires_at) == declared.new.expires_at;
        let at = match &before {
            Some(key) if is_its_end(key) => key.created_at,
            _ => self.now,
        };
        // What the caller may give a key that exists is judged by what changes.
        let by = self.by.filter(|_| before.is_none());
        let resolved = match declared.new.resolve(by, snapshot, lookups, at).await {
            Ok(resolved) => resolved.key,
            Err(refusal) => return self.refuse_key(i, refusal),
        };
        let Some(before) = before else {
            return self.add(PlannedChange::Key {
                before: None,
                after: Some(Box::new(resolved)),
                index: i,
            });
        };
        if resolved.partner != before.partner {
            self.bad.add(
                format!("keys[{i}].partner"),
                "cannot change: make a new API key for another realm",
            );
            return Ok(());
        }
        let mut after = Key {
            name: resolved.name,
            access: resolved.access,
            labels: resolved.labels,
            allowed_cidrs: resolved.allowed_cidrs,
            ..before.clone()
        };
        after.set_expiry(resolved.expires_at);
        if after == before {
            return Ok(());
        }
        let realm = lookups.realm(snapshot, &after.realm).await?;
        if let Some(caller_state) = self.by
            && !grants::only_takes_away(&realm, &before, &after)
            && let Err(refusal) = grants::check(caller_state, &realm, &after, Grant::Fields)
        {
            return self.refuse_key(i, refusal);
        }
        self.add(PlannedChange::Key {
            before: Some(Box::new(before)),
            after: Some(Box::new(after)),
            index: i,
        })
    }

    /// Names the key in a refusal, as far as it is about fields.
    fn refuse_key(&mut self, i: usize, refusal: Refusal) -> Result<(), Refusal> {
        match refusal {
            Refusal::Invalid(violations) => {
                self.bad.add_within(&format!("keys[{i}]"), "", violations);
                Ok(())
            }
            Refusal::NotFound(why) => {
                self.bad.add(format!("keys[{i}].partner"), why);
                Ok(())
            }
            Refusal::Exceeds(violations) => {
                let mut within = Violations::default();
                within.add_within(&format!("keys[{i}]"), "", violations);
                Err(Refusal::Exceeds(within))
            }
            other => Err(other),
        }
    }

    async fn prune_keys(
        &mut self,
        snapshot: &mut Snapshot,
        declared: &HashSet<KeyId>,
    ) -> Result<(), Refusal> {
        let mut filter = KeyFilter::new(RealmId::built_in(), self.now, ROWS);
        loop {
            let page = snapshot.list_keys(&filter, Some).await?;
            for key in page.items {
                let is_imported = key.secrets.iter().any(|secret| secret.imported);
                if is_imported && !declared.contains(&key.id) {
                    self.add(PlannedChange::Key {
                        before: Some(Box::new(key)),
                        after: None,
                        index: 0,
                    })?;
                }
            }
            match page.next {
                Some(next) => filter.before = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn prune_projects(&mut self, snapshot: &mut Snapshot) -> Result<(), Refusal> {
        let projects = self.state.projects.iter();
        let declared: HashSet<_> = projects
            .map(|project| (&project.realm, &project.id))
            .collect();
        let declared_partners = self.declared_partners();
        for realm in &self.state.realms {
            let mut after = String::new();
            loop {
                let page = snapshot
                    .list_projects(&realm.id, None, &after, ROWS, Some)
                    .await?;
                for row in page.items {
                    let project = row.value;
                    // A partner that goes takes its projects with it, each as a change that is seen.
                    let goes_with_partner = self.state.prune.partners
                        && !declared_partners.contains(&(&realm.id, &project.partner));
                    let goes = self.state.prune.projects || goes_with_partner;
                    if declared.contains(&(&realm.id, &project.id)) || !goes {
                        continue;
                    }
                    let keys = snapshot
                        .count_keys(&realm.id, None, Some(&project.id))
                        .await?;
                    check_unused(keys, || {
                        format!("project \"{}\" of realm \"{}\"", project.id, realm.id)
                    })?;
                    self.add(PlannedChange::Project {
                        before: Some(project),
                        after: None,
                    })?;
                }
                match page.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn prune_partners(&mut self, snapshot: &mut Snapshot) -> Result<(), Refusal> {
        let declared = self.declared_partners();
        for realm in &self.state.realms {
            let mut after = String::new();
            loop {
                let page = snapshot
                    .list_partners(&realm.id, &after, ROWS, Some)
                    .await?;
                for row in page.items {
                    let partner = row.value;
                    if declared.contains(&(&realm.id, &partner.id)) {
                        continue;
                    }
                    let keys = snapshot
                        .count_keys(&realm.id, Some(&partner.id), None)
                        .await?;
                    check_unused(keys, || {
                        format!("partner \"{}\" of realm \"{}\"", partner.id, realm.id)
                    })?;
                    self.add(PlannedChange::Partner {
                        before: Some(partner),
                        after: None,
                    })?;
                }
                match page.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn prune_realms(&mut self, snapshot: &mut Snapshot) -> Result<(), Refusal> {
        let mut after = String::new();
        loop {
            let page = snapshot.list_realms(&after, REALMS, Some).await?;
            for row in page.items {
                let realm = row.value;
                if realm.id.is_built_in() || self.declares_realm(&realm.id) {
                    continue;
                }
                let served = realm.id.as_partner();
                let of_gateways = snapshot
                    .count_keys(&RealmId::built_in(), Some(&served), None)
                    .await?;
                let pruned = self.changes.iter().filter(|change| match change {
                    PlannedChange::Key {
                        before: Some(key),
                        after: None,
                        ..
                    } => key.partner == served,
                    _ => false,
                });
                let of_gateways = of_gateways.saturating_sub(pruned.count() as u64);
                let keys = snapshot.count_keys(&realm.id, None, None).await?;
                check_unused(keys + of_gateways, || format!("realm \"{}\"", realm.id))?;
                self.add(PlannedChange::Realm {
                    before: Some(Box::new(realm)),
                    after: None,
                })?;
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }
}

/// Adds a violation for each item that is not the first of its kind.
fn repetitions<T: std::hash::Hash + Eq>(
    bad: &mut Violations,
    items: impl Iterator<Item = T>,
    field: impl Fn(usize) -> String,
) {
    let mut seen = HashSet::new();
    for (i, item) in items.enumerate() {
        if !seen.insert(item) {
            bad.add(field(i), REPEATED);
        }
    }
}

/// Checks that nothing is deleted that still has keys. Dead ones count: the calls that delete a resource delete its dead keys first,
/// in transactions of their own.
fn check_unused(keys: u64, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    if keys == 0 {
        return Ok(());
    }
    Err(in_use(format!(
        "the {} would be deleted, but has keys ({keys}): declare it, or revoke its keys and delete it with a separate call first",
        what()
    )))
}

/// Names the resource in a refusal.
fn in_resource(refusal: Refusal, what: &str) -> Refusal {
    match refusal {
        Refusal::Precondition { reason, message } => Refusal::Precondition {
            reason,
            message: format!("{what}: {message}"),
        },
        other => other,
    }
}
