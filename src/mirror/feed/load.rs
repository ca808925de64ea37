//! The load of the whole mirror from one snapshot.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::domain::clock::Clock;
use crate::domain::event::{EventId, Revision};
use crate::domain::ids::KeyId;
use crate::domain::partner::Project;
use crate::mirror::PreparedRealm;
use crate::mirror::index::Index;
use crate::store::{Error, KeyRows, Snapshot, Store};

/// What this process knew before the store's history was rewritten.
pub(super) struct Rewrite {
    pub(super) before: Arc<Index>,
    /// The last revision that the histories have in common.
    pub(super) fork: Revision,
}

/// Loads all facts from one snapshot. Returns the index and its last event.
///
/// After a rewrite, realms that the lost history had changed stay as they were in it, and projects that it had deleted are left out.
pub(super) async fn load(
    store: &Store,
    clock: &Clock,
    rewrite: Option<Rewrite>,
) -> Result<(Arc<Index>, EventId), Error> {
    let sent = clock.now();
    let mut snapshot = store.feed_snapshot().await?;
    let head = snapshot
        .head()
        .await?
        .ok_or_else(|| Error::Corrupt("the authority".to_owned()))?;
    let index = Arc::new(Index::with_capacity(snapshot.count_all_keys().await?));
    let realms = snapshot.all_realms().await?;
    let partners = snapshot.all_partners().await?;
    let projects = snapshot.all_projects().await?;
    let revocations = snapshot.bulk_revocations(Revision::default()).await?;
    // One thread reads rows from the store while another builds the facts of the rows before. It builds the tries of the realms
    // too: PostgreSQL would end a snapshot that is idle for as long as many large realms take.
    let (rows, mut read) = mpsc::channel::<KeyRows>(8);
    let target = Arc::clone(&index);
    let building = tokio::task::spawn_blocking(move || {
        for realm in realms {
            match realm {
                Ok(realm) => {
                    let id = realm.value.id.clone();
                    target.put_realm(PreparedRealm::new(realm.value));
                    if let Some(Rewrite { before, fork }) = &rewrite
                        && realm.revision <= *fork
                    {
                        target.put_realm_as_before(&id, before);
                    }
                }
                Err(id) => target.put_unreadable_realm(&id),
            }
        }
        for partner in partners {
            match partner {
                Ok(partner) => target.put_partner(&partner.value),
                Err((realm, id)) => target.put_unreadable_partner(&realm, &id),
            }
        }
        for project in projects {
            match project {
                Ok(project) => {
                    let Project { realm, id, .. } = &project.value;
                    let was_deleted = rewrite.as_ref().is_some_and(|Rewrite { before, fork }| {
                        project.revision <= *fork && !before.has_project(realm, id)
                    });
                    if !was_deleted {
                        target.put_project(&project.value);
                    }
                }
                Err((realm, id)) => target.put_unreadable_project(&realm, &id),
            }
        }
        for revocation in revocations {
            target.revoke_many(&revocation);
        }
        let mut unusable = Vec::new();
        while let Some(rows) = read.blocking_recv() {
            rows.for_each(|id, facts| {
                if !target.put_key(id, facts) {
                    unusable.push(id);
                }
            });
        }
        unusable
    });
    snapshot.send_key_rows(rows).await?;
    let unusable = building.await.expect("no stored row causes a panic");
    put_imports(&mut snapshot, &index, &unusable).await?;
    index.set_current(head.event.revision, sent);
    Ok((index, head.event))
}

/// Puts the digests of imported keys that cannot be used.
pub(super) async fn put_imports(
    snapshot: &mut Snapshot,
    index: &Index,
    unusable: &[KeyId],
) -> Result<(), Error> {
    for (mac, id) in snapshot.imports_of(unusable).await? {
        index.put_import(mac, id);
    }
    Ok(())
}
