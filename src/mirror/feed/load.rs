//! The load of the whole mirror from one snapshot.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::RECENT_EVENTS;
use crate::domain::clock::Clock;
use crate::domain::event::{EventId, Revision};
use crate::domain::ids::KeyId;
use crate::domain::partner::Project;
use crate::mirror::PreparedRealm;
use crate::mirror::index::Index;
use crate::store::{Error, KeyRows, Snapshot, Store};

/// What this process knew before.
pub(super) struct Known {
    pub(super) index: Arc<Index>,
    /// Whether the store has lost a history that this process knew.
    pub(super) is_lost: bool,
}

/// A state of the store.
pub(super) struct Loaded {
    pub(super) index: Arc<Index>,
    /// The last events, the newest one last.
    pub(super) events: Vec<EventId>,
}

/// Loads all facts from one snapshot, and the ids of as many of the last events as the feed remembers.
///
/// After the loss of a history, realms that this process knew stay as they were, and projects that it did not have are left out.
pub(super) async fn load(
    store: &Store,
    clock: &Clock,
    known: Option<Known>,
) -> Result<Loaded, Error> {
    let sent = clock.now();
    let mut snapshot = store.feed_snapshot().await?;
    let head = snapshot
        .head()
        .await?
        .ok_or_else(|| Error::Corrupt("the authority".to_owned()))?;
    let mut events = snapshot.last_events(RECENT_EVENTS as u32).await?;
    events.reverse();
    let keys = snapshot.count_all_keys().await?;
    let index = Arc::new(match &known {
        Some(known) => Index::after(&known.index, keys),
        None => Index::with_capacity(keys),
    });
    let lost = known.filter(|known| known.is_lost).map(|known| known.index);
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
                    let realm = realm.value;
                    let is_known = lost
                        .as_ref()
                        .is_some_and(|lost| target.put_realm_as_before(&realm.id, lost));
                    if !is_known {
                        target.put_realm(PreparedRealm::new(realm));
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
                    // A realm that is new has new projects.
                    let was_deleted = lost.as_ref().is_some_and(|lost| {
                        lost.realm(realm.as_str()).is_some() && !lost.has_project(realm, id)
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
    // PostgreSQL may have ended the first snapshot while tries were built. If a digest changes until the next one is taken, the
    // event of that change comes with the next poll.
    drop(snapshot);
    put_imports(&mut store.feed_snapshot().await?, &index, &unusable).await?;
    index.set_current(head.event.revision, sent);
    Ok(Loaded { index, events })
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
