//! Applying changes to the mirror, one poll's events at a time.

use std::collections::HashSet;

use super::load::put_imports;
use crate::domain::event::{EventKind, Revision, Subject};
use crate::domain::ids::{KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::realm::Realm;
use crate::domain::revocation::BulkRevocation;
use crate::mirror::{Mirror, PreparedRealm};
use crate::store::{Error, KeyRow, PartnerRow, ProjectRow, RealmRow, Snapshot};

/// The names of what was changed, each once.
#[derive(Default)]
struct ChangedNames {
    realms: HashSet<RealmId>,
    partners: HashSet<(RealmId, PartnerId)>,
    projects: HashSet<(RealmId, ProjectId)>,
    keys: HashSet<KeyId>,
    /// The realms and partners that were deleted, and may exist again.
    deleted: Vec<Subject>,
    has_revocations: bool,
    has_forks: bool,
}

impl ChangedNames {
    fn new(changes: Vec<(EventKind, Subject)>) -> Self {
        let mut names = Self::default();
        for (kind, subject) in changes {
            if matches!(kind, EventKind::RealmDeleted | EventKind::PartnerDeleted) {
                names.deleted.push(subject.clone());
            }
            match kind {
                // Heartbeats tell it, and the clock of an embedded database was told.
                EventKind::LeaseSet | EventKind::ClockSet => continue,
                EventKind::EpochBegan => {
                    names.has_forks = true;
                    continue;
                }
                _ => {}
            }
            names.has_revocations |= kind == EventKind::KeysRevoked;
            let Subject {
                realm,
                partner,
                project,
                key,
            } = subject;
            match (partner, project, key) {
                (_, _, Some(key)) => {
                    names.keys.insert(key);
                }
                (_, Some(project), None) => {
                    names.projects.insert((realm, project));
                }
                (Some(partner), None, None) => {
                    names.partners.insert((realm, partner));
                }
                (None, None, None) => {
                    // A realm is put or deleted together with the partner that represents it in the built-in realm.
                    let represents = (RealmId::built_in(), realm.as_partner());
                    names.partners.insert(represents);
                    names.realms.insert(realm);
                }
            }
        }
        names
    }
}

/// The current rows of what was changed. All are read before any is applied, so that related changes become visible together.
struct Rows {
    realms: Vec<(RealmId, Current<RealmRow>)>,
    partners: Vec<((RealmId, PartnerId), Current<PartnerRow>)>,
    projects: Vec<((RealmId, ProjectId), Current<ProjectRow>)>,
    revocations: Vec<BulkRevocation>,
    keys: Vec<KeyRow>,
    /// The keys that do not exist any more.
    deleted_keys: HashSet<KeyId>,
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
        names: ChangedNames,
    ) -> Result<Self, Error> {
        let mut revocations = Vec::new();
        if names.has_revocations {
            revocations = snapshot.bulk_revocations(known).await?;
        }
        let mut realms = Vec::new();
        for id in names.realms {
            let row = Current::of(snapshot.find_realm(&id).await)?;
            realms.push((id, row));
        }
        let mut partners = Vec::new();
        for (realm, id) in names.partners {
            let row = Current::of(snapshot.find_partner(&realm, &id).await)?;
            partners.push(((realm, id), row));
        }
        let mut projects = Vec::new();
        for (realm, id) in names.projects {
            let found = snapshot.find_project(&realm, &id).await;
            let kept = found.map(|found| {
                let kept = found.filter(|(_, deleted)| !deleted);
                kept.map(|(project, _)| project)
            });
            projects.push(((realm, id), Current::of(kept)?));
        }
        let mut deleted_keys = names.keys;
        let ids: Vec<_> = deleted_keys.iter().copied().collect();
        let keys = snapshot.find_key_rows(&ids).await?;
        for row in &keys {
            deleted_keys.remove(&row.id);
        }
        Ok(Self {
            realms,
            partners,
            projects,
            revocations,
            keys,
            deleted_keys,
        })
    }
}

/// Applies the current state of every changed resource to the index: first the deletions, then realms, partners, projects and
/// bulk revocations, then the keys that refer to them. A resource that was deleted and created again under the same id is a new
/// resource and inherits nothing. A realm whose change concerns only gateways comes last, so that no other change waits for the
/// build of its trie.
pub(super) async fn apply(
    snapshot: &mut Snapshot,
    mirror: &Mirror,
    known: Revision,
    changes: Vec<(EventKind, Subject)>,
) -> Result<(), Error> {
    let index = mirror.index.load_full();
    let mut names = ChangedNames::new(changes);
    let deleted = std::mem::take(&mut names.deleted);
    if names.has_forks {
        index.set_forks(snapshot.forks().await?);
    }
    let rows = Rows::read(snapshot, known, names).await?;
    for id in rows.deleted_keys {
        index.remove_key(id);
    }
    for Subject { realm, partner, .. } in deleted {
        match partner {
            Some(partner) => index.remove_partner(&realm, &partner),
            None => index.remove_realm(&realm),
        }
    }
    let mut gateway_changes = Vec::new();
    for (id, row) in rows.realms {
        match row {
            Current::Row(realm) if index.holds().realm(&id).is_some() => {
                let holds = index.holds();
                let held = holds.realm(&realm.value.id);
                if held.is_some_and(|held| held.conflicts_with(&realm)) {
                    index.put_undecidable_realm(&realm);
                }
            }
            Current::Row(realm) if index.changes_gateways_only(&realm.value) => {
                gateway_changes.push(realm.value);
            }
            Current::Row(realm) => index.put_realm(take_or_prepare(mirror, realm.value).await),
            Current::Deleted => index.remove_realm(&id),
            Current::Unreadable => index.put_unreadable_realm(&id),
        }
    }
    for ((realm, id), row) in rows.partners {
        match row {
            Current::Row(partner) => index.put_partner(&partner.value),
            Current::Deleted => index.remove_partner(&realm, &id),
            Current::Unreadable => index.put_unreadable_partner(&realm, &id),
        }
    }
    for ((realm, id), row) in rows.projects {
        match row {
            Current::Row(project) => index.put_project(&project.value),
            Current::Deleted => index.remove_project(&realm, &id),
            Current::Unreadable => index.put_unreadable_project(&realm, &id),
        }
    }
    for revocation in rows.revocations {
        index.revoke_many(&revocation);
    }
    let unusable = rows
        .keys
        .iter()
        .filter(|row| !index.put_key(row.id, row.facts()));
    let unusable: Vec<_> = unusable.map(|row| row.id).collect();
    put_imports(snapshot, &index, &unusable).await?;
    for realm in gateway_changes {
        index.put_realm(take_or_prepare(mirror, realm).await);
    }
    Ok(())
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
