//! Applying changes to the mirror, one poll's events at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::load::log_undecidable;
use crate::domain::access::ScopeHierarchy;
use crate::domain::event::{EventKind, Revision, Subject};
use crate::domain::hold::Fork;
use crate::domain::ids::{KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::realm::Realm;
use crate::domain::revocation::BulkRevocation;
use crate::mirror::index::Index;
use crate::mirror::{Mirror, PreparedRealm};
use crate::store::{Error, KeyRow, PartnerRow, ProjectRow, RealmRow, Snapshot};

/// How many changed keys are applied at most, each of which takes about a kilobyte until it is. A server that was away for longer loads
/// everything anew.
const MOST_KEYS: usize = 200_000;

/// The time after which the feed looks again whether realms that were replaced are still in use.
const REPLACED_AGAIN: Duration = Duration::from_millis(1);

/// The names of what was changed, each once.
#[derive(Default)]
pub(super) struct ChangedNames {
    realms: HashSet<RealmId>,
    partners: HashSet<(RealmId, PartnerId)>,
    projects: HashSet<(RealmId, ProjectId)>,
    keys: HashSet<KeyId>,
    /// The realms and partners that were deleted, and may exist again.
    deleted: Vec<Subject>,
    has_revocations: bool,
    has_forks: bool,
    /// Whether the clock of the authority was set.
    pub(super) has_clock: bool,
}

impl ChangedNames {
    /// Adds what an event changed.
    pub(super) fn add(&mut self, kind: EventKind, subject: Subject) {
        if matches!(kind, EventKind::RealmDeleted | EventKind::PartnerDeleted) {
            self.deleted.push(subject.clone());
        }
        match kind {
            // Heartbeats tell it.
            EventKind::LeaseSet => return,
            EventKind::ClockSet => {
                self.has_clock = true;
                return;
            }
            EventKind::EpochBegan => {
                self.has_forks = true;
                return;
            }
            _ => {}
        }
        self.has_revocations |= kind == EventKind::KeysRevoked;
        let Subject {
            realm,
            partner,
            project,
            key,
        } = subject;
        match (partner, project, key) {
            (_, _, Some(key)) => {
                self.keys.insert(key);
            }
            (_, Some(project), None) => {
                self.projects.insert((realm, project));
            }
            (Some(partner), None, None) => {
                self.partners.insert((realm, partner));
            }
            (None, None, None) => {
                // A realm is put or deleted together with the partner that represents it in the built-in realm.
                let represents = (RealmId::built_in(), realm.as_partner());
                self.partners.insert(represents);
                self.realms.insert(realm);
            }
        }
    }
}

/// The current rows of the realms, partners and projects that were changed, and the new bulk revocations.
struct Rows {
    realms: Vec<(RealmId, Current<RealmRow>)>,
    partners: Vec<((RealmId, PartnerId), Current<PartnerRow>)>,
    projects: Vec<((RealmId, ProjectId), Current<ProjectRow>)>,
    revocations: Vec<BulkRevocation>,
}

/// The keys that were changed.
struct Keys {
    rows: Vec<KeyRow>,
    /// Those that do not exist any more.
    deleted: HashSet<KeyId>,
}

/// A row as it is now.
enum Current<T> {
    Row(T),
    Deleted,
    Unreadable,
}

impl<T> Current<T> {
    /// A row that cannot be read says nothing about other rows, so the feed goes on without it.
    fn of(found: Result<Option<T>, Error>) -> Result<Self, Error> {
        match found {
            Ok(Some(row)) => Ok(Self::Row(row)),
            Ok(None) => Ok(Self::Deleted),
            Err(error @ Error::Corrupt(_)) => {
                tracing::error!(%error, "corrupt row: what depends on it cannot be decided");
                Ok(Self::Unreadable)
            }
            Err(error) => Err(error),
        }
    }
}

impl Rows {
    /// Reads the rows. Bulk revocations are read from the revision after `known`.
    async fn read(
        snapshot: &mut Snapshot,
        known: Revision,
        names: &ChangedNames,
    ) -> Result<Self, Error> {
        let mut revocations = Vec::new();
        if names.has_revocations {
            revocations = snapshot.bulk_revocations(known).await?;
        }
        let mut realms = Vec::new();
        for id in &names.realms {
            let row = Current::of(snapshot.find_realm(id).await)?;
            realms.push((id.clone(), row));
        }
        let mut partners = Vec::new();
        for name @ (realm, id) in &names.partners {
            let row = Current::of(snapshot.find_partner(realm, id).await)?;
            partners.push((name.clone(), row));
        }
        let mut projects = Vec::new();
        for name @ (realm, id) in &names.projects {
            let found = snapshot.find_project(realm, id).await;
            let kept = found.map(|found| {
                let kept = found.filter(|(_, deleted)| !deleted);
                kept.map(|(project, _)| project)
            });
            projects.push((name.clone(), Current::of(kept)?));
        }
        Ok(Self {
            realms,
            partners,
            projects,
            revocations,
        })
    }

    /// Whether something other than a key's own row may give the key more than before.
    fn may_give(&self) -> bool {
        !(self.realms.is_empty() && self.partners.is_empty() && self.projects.is_empty())
    }

    /// The scopes that the changed realms will have.
    fn hierarchies(&self, index: &Index) -> HashMap<RealmId, ScopeHierarchy> {
        let will_have = |(id, row): &(RealmId, Current<RealmRow>)| {
            let Current::Row(row) = row else { return None };
            if index.holds().realm(id).is_some() {
                return None;
            }
            let known = index.realm(id.as_str())?;
            let hierarchy = ScopeHierarchy::new(&row.value.scopes, Some(&known.hierarchy));
            Some((id.clone(), hierarchy))
        };
        self.realms.iter().filter_map(will_have).collect()
    }

    /// Applies what can only take away.
    fn take_away(&self, index: &Index) {
        for ((realm, id), row) in &self.partners {
            match row {
                Current::Row(partner) if partner.value.suspended => {
                    index.put_partner(&partner.value);
                }
                Current::Row(_) => {}
                Current::Deleted => index.remove_partner(realm, id),
                Current::Unreadable => index.put_unreadable_partner(realm, id),
            }
        }
        for ((realm, id), row) in &self.projects {
            match row {
                Current::Row(_) => {}
                Current::Deleted => index.remove_project(realm, id),
                Current::Unreadable => index.put_unreadable_project(realm, id),
            }
        }
        for revocation in &self.revocations {
            index.revoke_many(revocation);
        }
    }

    /// Applies everything. `deleted` are the realms that were deleted, and may exist again.
    async fn put(self, mirror: &Mirror, index: &Index, deleted: &[RealmId]) {
        let mut changes = Vec::new();
        for (id, row) in self.realms {
            changes.push(match row {
                Current::Row(realm) if index.holds().realm(&id).is_some() => {
                    let holds = index.holds();
                    let held = holds.realm(&id);
                    if held.is_none_or(|held| !held.conflicts_with(&realm)) {
                        continue;
                    }
                    log_undecidable(&realm);
                    RealmChange::PutUnreadable(id)
                }
                Current::Row(realm) => {
                    RealmChange::Put(take_or_prepare(mirror, realm.value).await.into())
                }
                Current::Deleted => RealmChange::Remove(id),
                Current::Unreadable => RealmChange::PutUnreadable(id),
            });
        }
        let mut replaced = index.change_realms(|realms| {
            for id in deleted {
                realms.remove(id, index);
            }
            for change in changes {
                match change {
                    RealmChange::Put(realm) => realms.put(*realm, index),
                    RealmChange::PutUnreadable(id) => realms.put_unreadable(&id),
                    RealmChange::Remove(id) => realms.remove(&id, index),
                }
            }
        });
        // A request that is being decided by what was before must not see what comes next. Each set of realms that is replaced is waited
        // for, so no request has an older one.
        while Arc::get_mut(&mut replaced).is_none() {
            sleep(REPLACED_AGAIN).await;
        }
        for ((realm, id), row) in self.partners {
            match row {
                Current::Row(partner) => index.put_partner(&partner.value),
                Current::Deleted => index.remove_partner(&realm, &id),
                Current::Unreadable => index.put_unreadable_partner(&realm, &id),
            }
        }
        for ((realm, id), row) in self.projects {
            match row {
                Current::Row(project) => index.put_project(&project.value),
                Current::Deleted => index.remove_project(&realm, &id),
                Current::Unreadable => index.put_unreadable_project(&realm, &id),
            }
        }
        // Again, for partners that the index has only now.
        for revocation in &self.revocations {
            index.revoke_many(revocation);
        }
    }
}

/// What becomes of a realm.
enum RealmChange {
    Put(Box<PreparedRealm>),
    PutUnreadable(RealmId),
    Remove(RealmId),
}

impl Keys {
    async fn read(snapshot: &mut Snapshot, names: HashSet<KeyId>) -> Result<Self, Error> {
        let ids: Vec<_> = names.iter().copied().collect();
        let rows = snapshot.find_key_rows(&ids).await?;
        let mut deleted = names;
        for row in &rows {
            deleted.remove(&row.id);
        }
        Ok(Self { rows, deleted })
    }

    /// Takes from the keys what they will not have.
    fn take_away(&self, index: &Index, to_be: &HashMap<RealmId, ScopeHierarchy>) {
        for id in &self.deleted {
            index.remove_key(*id);
        }
        for row in &self.rows {
            index.narrow_key(row.id, &row.facts(), to_be);
        }
    }

    /// Applies everything. Returns the keys that cannot be used.
    fn put(&self, index: &Index) -> Vec<KeyId> {
        for id in &self.deleted {
            index.remove_key(*id);
        }
        let unusable = self
            .rows
            .iter()
            .filter(|row| !index.put_key(row.id, row.facts()));
        unusable.map(|row| row.id).collect()
    }
}

/// What was changed, as it is now. All of it is read before anything is applied, so that a poll is applied whole or not at all.
pub(super) struct Changes {
    forks: Option<Vec<Fork>>,
    deleted: Vec<Subject>,
    rows: Rows,
    keys: Keys,
}

impl Changes {
    /// Reads what was changed after the revision `known`; `None` if more than [`MOST_KEYS`] keys have changed, so that everything must be
    /// loaded.
    pub(super) async fn read(
        snapshot: &mut Snapshot,
        known: Revision,
        names: ChangedNames,
    ) -> Result<Option<Self>, Error> {
        if names.keys.len() > MOST_KEYS {
            return Ok(None);
        }
        let forks = if names.has_forks {
            Some(snapshot.forks().await?)
        } else {
            None
        };
        let rows = Rows::read(snapshot, known, &names).await?;
        let keys = Keys::read(snapshot, names.keys).await?;
        Ok(Some(Self {
            forks,
            deleted: names.deleted,
            rows,
            keys,
        }))
    }

    /// Applies the current state of every changed resource to the index: first what was taken away, then realms, partners and
    /// projects, then the keys that refer to them. A resource that was deleted and created again under the same id is a new resource
    /// and inherits nothing. Returns the keys that cannot be used, whose digests must be put.
    ///
    /// Requests are decided meanwhile. Without this order, a key that had lost a scope before the scope came to imply others would
    /// have those others for a moment, which it never had.
    pub(super) async fn apply(self, mirror: &Mirror) -> Vec<KeyId> {
        let index = mirror.index.load_full();
        let Self {
            forks,
            deleted,
            rows,
            keys,
        } = self;
        if let Some(forks) = forks {
            index.set_forks(forks);
        }
        let mut deleted_realms = Vec::new();
        for Subject { realm, partner, .. } in deleted {
            match partner {
                Some(partner) => index.remove_partner(&realm, &partner),
                None => deleted_realms.push(realm),
            }
        }
        rows.take_away(&index);
        if rows.may_give() {
            keys.take_away(&index, &rows.hierarchies(&index));
            rows.put(mirror, &index, &deleted_realms).await;
        }
        keys.put(&index)
    }
}

/// The realm with its trie, which `Authority::put_realm` prepared, or which is built here if another process put the realm.
async fn take_or_prepare(mirror: &Mirror, realm: Realm) -> PreparedRealm {
    match mirror.take_prepared(&realm) {
        Some(realm) => realm,
        None => prepared(realm).await,
    }
}

/// Builds the trie of a realm on a blocking thread.
async fn prepared(realm: Realm) -> PreparedRealm {
    tokio::task::spawn_blocking(|| PreparedRealm::new(realm))
        .await
        .expect("no stored realm causes a panic")
}
