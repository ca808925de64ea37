//! When a change is in force on every server: by their reports, or because every lease from before has lapsed.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{Authority, Wait};
use crate::auth::Principal;
use crate::domain::clock::{ElapsedClock, ElapsedReading};
use crate::domain::event::EventId;
use crate::domain::lease::LeaseTerms;
use crate::domain::time::Timestamp;
use crate::store::{Error, ReplicaState, Replicas, Store};

/// The time between two looks at the reports.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long before the caller's deadline a change is answered without a confirmation. A change that was made never fails because of the
/// wait.
const ANSWER_BEFORE: Duration = Duration::from_millis(200);

/// What waits for other servers share.
pub(super) struct Everywhere {
    clock: ElapsedClock,
    /// Held by the wait that looks at the reports, so that all of them together use one connection.
    look: Mutex<()>,
}

/// The moment after a change, or after the state was read that made a change unnecessary.
pub(super) struct Made {
    event: EventId,
    at: ElapsedReading,
}

impl Everywhere {
    pub(super) fn new() -> Self {
        Self {
            clock: ElapsedClock::system(),
            look: Mutex::default(),
        }
    }

    /// The moment now, right after the change with this event was committed or read.
    pub(super) fn made(&self, event: EventId) -> Made {
        Made {
            event,
            at: self.clock.read(),
        }
    }
}

impl Authority {
    /// Waits as the request demands until the change is in force on every server. Returns whether it is.
    pub(super) async fn wait(&self, wait: Wait, made: &Made, principal: &Principal) -> bool {
        if !self.store.is_shared() {
            return true;
        }
        if wait == Wait::Committed {
            return false;
        }
        let everywhere = self.wait_everywhere(made);
        match principal.answer_by {
            None => {
                everywhere.await;
                true
            }
            Some(deadline) => {
                let until = deadline.checked_sub(ANSWER_BEFORE).unwrap_or(deadline);
                tokio::time::timeout_at(until.max(Instant::now()), everywhere)
                    .await
                    .is_ok()
            }
        }
    }

    /// Returns when no server says "allowed" any more to a question that is asked from now on and that the change denies.
    ///
    /// Either each server that answers has reported the change. Or so much time has passed since it was made that every lease has
    /// lapsed that was renewed without it. Only the clock of this process is asked, and no time of the database or of another server.
    async fn wait_everywhere(&self, made: &Made) {
        let mut terms = None;
        loop {
            match self.look(made.event).await {
                Ok((true, _)) => return,
                Ok((false, current)) => terms = Some(longer(terms, current)),
                // The reports cannot be read. The leases lapse all the same.
                Err(_) => {}
            }
            let waited = self.everywhere.clock.read().since(made.at);
            if terms.is_some_and(|terms| waited >= terms.outlasting()) {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether each server that answers has reported the event or a later one, and the terms of the leases.
    async fn look(&self, event: EventId) -> Result<(bool, LeaseTerms), Error> {
        let _alone = self.everywhere.look.lock().await;
        look(&self.store, event).await
    }

    /// The time from which on a change is in force on every server and in the caches of their answers.
    pub(super) fn in_force_from(&self, is_everywhere: bool) -> Timestamp {
        let leases = if is_everywhere {
            Duration::ZERO
        } else {
            self.mirror.lease().terms().outlasting()
        };
        let cached = self.mirror.index().longest_max_cache();
        self.clock.now().saturating_add(leases + cached)
    }
}

async fn look(store: &Store, event: EventId) -> Result<(bool, LeaseTerms), Error> {
    let mut snapshot = store.snapshot().await?;
    let Replicas {
        replicas,
        terms,
        timeline: _,
        is_settled,
    } = snapshot.replicas().await?;
    let serving = replicas
        .iter()
        .filter(|replica| replica.state == ReplicaState::Serving);
    let mut reported: Vec<_> = serving.map(|replica| replica.reported).collect();
    let are_late = reported
        .iter()
        .any(|reported| reported.revision < event.revision);
    // After a failover that lost reports, only time tells.
    if !is_settled || are_late {
        return Ok((false, terms));
    }
    reported.sort_by_key(|event| (event.revision, event.stamp));
    reported.dedup();
    // A revision alone may be that of a change in a history that is lost.
    let known = snapshot.find_events(&reported).await?;
    let are_known = reported.iter().all(|event| known.contains(event));
    Ok((are_known, terms))
}

/// The terms by which any lease may have been renewed.
fn longer(before: Option<LeaseTerms>, now: LeaseTerms) -> LeaseTerms {
    match before {
        Some(before) if before.outlasting() > now.outlasting() => before,
        _ => now,
    }
}
