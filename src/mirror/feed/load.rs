//! The load of the whole mirror from one snapshot.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::RECENT_EVENTS;
use crate::domain::clock::Clock;
use crate::domain::event::{EventId, Revision};
use crate::domain::hold::{Fork, Hold, LostHistory};
use crate::domain::ids::KeyId;
use crate::mirror::PreparedRealm;
use crate::mirror::holds::Holds;
use crate::mirror::index::Index;
use crate::store::{Error, KeyRows, RealmRow, Snapshot, Store};

/// What this process knows beside the store.
pub(super) struct Known {
    /// The index that is replaced, if there is one.
    pub(super) before: Option<Arc<Index>>,
    pub(super) history: History,
    /// What this process knows of lost histories, and the store does not.
    pub(super) unrecorded: Vec<Arc<LostHistory>>,
}

/// What the index that is replaced says about the store.
#[derive(Clone, Copy)]
pub(super) enum History {
    /// Nothing. What was taken away by it may be given back, because an operator has accepted that.
    Accepted,
    /// The store has the same history. What was revoked stays revoked.
    Same,
    /// The store has its history up to this revision. What was taken away stays away.
    LostAfter(Revision),
}

/// A state of the store.
pub(super) struct Loaded {
    pub(super) index: Arc<Index>,
    /// The last events, the newest one last.
    pub(super) events: Vec<EventId>,
    /// The forks of the history.
    pub(super) forks: Vec<Fork>,
    /// The holds of the index that the store does not have.
    pub(super) new_holds: Vec<Hold>,
}

/// Loads all facts from one snapshot, and the ids of as many of the last events as the feed remembers.
pub(super) async fn load(store: &Store, clock: &Clock, known: Known) -> Result<Loaded, Error> {
    let Known {
        before,
        history,
        unrecorded,
    } = known;
    let sent = clock.now();
    let mut snapshot = store.feed_snapshot().await?;
    let head = snapshot
        .head()
        .await?
        .ok_or_else(|| Error::Corrupt("the authority".to_owned()))?;
    let mut events = snapshot.last_events(RECENT_EVENTS as u32).await?;
    events.reverse();
    let forks = snapshot.forks().await?;
    let stored_holds = snapshot
        .holds()
        .await?
        .into_iter()
        .map(|stored| stored.hold);
    let known_holds: Vec<Hold> = stored_holds
        .chain(unrecorded.iter().flat_map(|lost| lost.holds.clone()))
        .collect();
    let keys = snapshot.count_all_keys().await?;
    let index = Arc::new(Index::after(before.as_deref(), keys));
    let realms = snapshot.all_realms().await?;
    let partners = snapshot.all_partners().await?;
    let projects = snapshot.all_projects().await?;
    let revocations = snapshot.bulk_revocations(Revision::default()).await?;
    let mut holds: Holds = known_holds.iter().cloned().collect();
    if let (Some(before), History::LostAfter(last)) = (&before, history) {
        before.holds().all().for_each(|hold| holds.add(hold));
        let (realms, projects) = (realms.iter().flatten(), projects.iter().flatten());
        holds.add_definitions(before, last, realms, projects);
    }
    index.set_holds(holds);
    index.set_forks(forks.clone());
    // One thread reads rows from the store while another builds the facts of the rows before. It builds the tries of the realms
    // too: PostgreSQL would end a snapshot that is idle for as long as many large realms take.
    let (rows, mut read) = mpsc::channel::<KeyRows>(8);
    let target = Arc::clone(&index);
    let building = tokio::task::spawn_blocking(move || {
        for realm in realms {
            match realm {
                Ok(realm) => target.load_realm(realm),
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
                Ok(project) => target.put_project(&project.value),
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
    match (&before, history) {
        (Some(before), History::Same) => index.hold_back(before, None),
        (Some(before), History::LostAfter(last)) => index.hold_back(before, Some(last)),
        (_, History::Accepted) | (None, _) => {}
    }
    index.set_current(head.event.revision, sent);
    Ok(Loaded {
        new_holds: index.holds_beside(known_holds.iter()),
        index,
        events,
        forks,
    })
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

impl Index {
    /// Puts a stored realm into an index that is loaded, or the definition that it keeps.
    fn load_realm(&self, row: RealmRow) {
        let holds = self.holds();
        let Some(held) = holds.realm(&row.value.id) else {
            return self.put_realm(PreparedRealm::new(row.value));
        };
        self.put_realm(PreparedRealm::new(held.definition.as_ref().clone()));
        if held.conflicts_with(&row) {
            self.put_undecidable_realm(&row);
        }
    }

    /// Marks a realm as one about which nothing can be decided.
    pub(super) fn put_undecidable_realm(&self, row: &RealmRow) {
        let id = &row.value.id;
        tracing::error!(
            realm = %id,
            "realm cannot be decided: it was changed by a server that did not know of a change that was lost; accept the history \
             (`claviger replicas accept-history`), then put the realm again"
        );
        self.put_unreadable_realm(id);
    }
}
