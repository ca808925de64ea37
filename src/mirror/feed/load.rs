//! The load of the whole mirror from one snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::RECENT_EVENTS;
use crate::domain::clock::Clock;
use crate::domain::event::{EventId, EventKind, Revision};
use crate::domain::hold::{Fork, Hold};
use crate::domain::ids::KeyId;
use crate::mirror::holds::Holds;
use crate::mirror::index::Index;
use crate::mirror::{PreparedRealm, UnrecordedHistory};
use crate::store::{Error, KeyRows, RealmRow, Snapshot, Store};

/// What this process knows beside the store.
pub(super) struct Known<'m> {
    /// The state that is replaced, if there is one.
    pub(super) before: Option<Before<'m>>,
    /// What this process knows of lost histories, and the store may not.
    pub(super) unrecorded: &'m UnrecordedHistory,
}

/// The state that is replaced.
pub(super) struct Before<'m> {
    pub(super) index: Arc<Index>,
    /// The last events that it contains, the newest one last.
    pub(super) events: &'m VecDeque<EventId>,
}

/// What the state that is replaced says about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    /// Nothing. What was taken away by it may be given back, because an operator has accepted that since.
    Accepted,
    /// The store has the same history. What was revoked stays revoked.
    Same,
    /// The store has its history up to this revision. What was taken away stays away.
    LostAfter(Revision),
}

impl Before<'_> {
    /// Compares the state with the history that the snapshot has. A server that was away for longer than events are kept has lost its
    /// place, which says nothing about the history.
    async fn compare(&self, snapshot: &mut Snapshot) -> Result<History, Error> {
        let last = self.events.back().copied().unwrap_or_default();
        let is_known = snapshot.find_events(&[last]).await?.contains(&last);
        if !is_known && !snapshot.has_forgotten(last.revision).await? {
            return Ok(History::LostAfter(self.find_fork(snapshot).await?));
        }
        let accepted = EventKind::HistoryAccepted;
        Ok(
            if snapshot.has_event_after(last.revision, accepted).await? {
                History::Accepted
            } else {
                History::Same
            },
        )
    }

    /// Returns the last revision of the state that the store still has. If none of those is known any more, everything up to the last
    /// one may be common.
    async fn find_fork(&self, snapshot: &mut Snapshot) -> Result<Revision, Error> {
        let events: Vec<EventId> = self.events.iter().rev().copied().collect();
        for newest in events.chunks(500) {
            let common = snapshot.find_events(newest).await?;
            if let Some(last) = common.into_iter().map(|event| event.revision).max() {
                return Ok(last);
            }
        }
        Ok(self.events.back().copied().unwrap_or_default().revision)
    }
}

/// A state of the store.
pub(super) struct Loaded {
    pub(super) index: Arc<Index>,
    /// The last events, the newest one last.
    pub(super) events: Vec<EventId>,
    /// The forks of the history.
    pub(super) forks: Vec<Fork>,
    /// What the state before said about the store.
    pub(super) history: History,
    /// The holds of the index that neither the store nor an unrecorded history has.
    pub(super) new_holds: Vec<Hold>,
}

/// Loads all facts from one snapshot, and the ids of as many of the last events as the feed remembers.
pub(super) async fn load(store: &Store, clock: &Clock, known: Known<'_>) -> Result<Loaded, Error> {
    let Known { before, unrecorded } = known;
    let sent = clock.now();
    let mut snapshot = store.feed_snapshot().await?;
    let head = snapshot
        .head()
        .await?
        .ok_or_else(|| Error::Corrupt("the authority".to_owned()))?;
    clock.was_set(head.clock_setting);
    let mut events = snapshot.last_events(RECENT_EVENTS as u32).await?;
    events.reverse();
    let history = match &before {
        None => History::Accepted,
        Some(before) => before.compare(&mut snapshot).await?,
    };
    let last_event = before.as_ref().and_then(|before| before.events.back());
    let last_known = last_event.copied().unwrap_or_default().revision;
    let before = before.map(|before| before.index);
    let forks = snapshot.forks().await?;
    // After the snapshot was begun: what was recorded before that, it has.
    let unrecorded = unrecorded.not_in(&mut snapshot).await?;
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
    if let (Some(before), History::Same | History::LostAfter(_)) = (&before, history) {
        before.holds().all().for_each(|hold| holds.add(hold));
    }
    if let (Some(before), History::LostAfter(last)) = (&before, history) {
        let (realms, projects) = (realms.iter().flatten(), projects.iter().flatten());
        holds.add_definitions(before, last_known, last, realms, projects);
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
    let new_holds = match history {
        // What is held already stays held when the earlier loss is accepted, because what an operator took away again is lost too.
        History::LostAfter(_) => index.holds().all().collect(),
        History::Accepted | History::Same => index.holds_beside(known_holds.iter()),
    };
    Ok(Loaded {
        index,
        events,
        forks,
        history,
        new_holds,
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
            self.put_realm(PreparedRealm::new(row.value));
            return;
        };
        self.put_realm(PreparedRealm::new(held.definition.as_ref().clone()));
        if held.conflicts_with(&row) {
            log_undecidable(&row);
            self.put_unreadable_realm(&row.value.id);
        }
    }
}

/// Logs that nothing can be decided about a realm.
pub(super) fn log_undecidable(row: &RealmRow) {
    tracing::error!(
        realm = %row.value.id,
        "realm cannot be decided: it was changed by a server that did not know of a change that was lost; accept the history \
         (`claviger replicas accept-history`), then put the realm again"
    );
}
