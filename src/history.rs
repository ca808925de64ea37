//! The record of lost history: what this server knew to be taken away is stored as holds, so that servers that start later know it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::domain::clock::Clock;
use crate::domain::event::{Actor, Event, EventKind, Subject};
use crate::domain::hold::{Fork, LostHistory};
use crate::mirror::Mirror;
use crate::store::{Change, Error, Store};

/// The time between two attempts.
const RETRY: Duration = Duration::from_secs(1);

/// Stores what this server knows of lost history, whenever there is some.
pub async fn record(store: Store, mirror: Arc<Mirror>, clock: Clock) {
    loop {
        let lost = mirror.unrecorded().next().await;
        match store_holds(&store, &mirror, &clock, &lost).await {
            Ok(fork) => tracing::warn!(
                epoch = fork.epoch,
                last = %fork.last,
                held = lost.holds.len(),
                "stored what lost changes took away"
            ),
            // A commit of unknown outcome is repeated, which changes nothing if it was made.
            Err(error) => {
                tracing::error!(%error, "what lost changes took away is not stored yet; this server keeps it away all the same");
                sleep(RETRY).await;
            }
        }
    }
}

async fn store_holds(
    store: &Store,
    mirror: &Mirror,
    clock: &Clock,
    lost: &Arc<LostHistory>,
) -> Result<Fork, Error> {
    let mut change = store.change(clock.read()).await?;
    let (fork, is_new) = fork_of(&mut change, lost).await?;
    let added = change.insert_holds(&fork, &lost.holds).await?;
    if !is_new && added == 0 {
        // Another server has stored all of it.
        drop(change);
        mirror.unrecorded().lock().await.remove(lost);
        return Ok(fork);
    }
    let detail = BTreeMap::from([
        ("epoch".to_owned(), fork.epoch.to_string()),
        ("known_revision".to_owned(), lost.known.to_string()),
        ("last_revision".to_owned(), lost.last.to_string()),
        ("held".to_owned(), lost.holds.len().to_string()),
    ]);
    let event = Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind: EventKind::HistoryRewritten,
        subject: Subject::authority(),
        detail,
    };
    let mut unrecorded = mirror.unrecorded().lock().await;
    let committed = change.commit(&event).await?;
    unrecorded.set_recorded(lost, committed);
    drop(unrecorded);
    mirror.notify();
    Ok(fork)
}

/// The fork at which the history was lost, and whether it is new: if none is known, as after a restore into the same database, an epoch
/// begins.
async fn fork_of(change: &mut Change, lost: &LostHistory) -> Result<(Fork, bool), Error> {
    let forks = change.forks().await?;
    match forks.into_iter().find(|fork| fork.has_lost(lost.known)) {
        Some(fork) => Ok((fork, false)),
        None => Ok((change.begin_epoch(lost.last, lost.known).await?, true)),
    }
}
