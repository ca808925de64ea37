//! What this server knows of lost history, until its mirror has it as stored holds.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::domain::event::EventId;
use crate::domain::hold::LostHistory;
use crate::store::{Error, Snapshot};

/// The lost histories that the mirror does not have as stored holds yet. The feed adds them, and one task stores them.
#[derive(Default)]
pub struct UnrecordedHistory {
    lost: Mutex<Vec<Entry>>,
    added: Notify,
}

struct Entry {
    lost: Arc<LostHistory>,
    /// The event of the change that stored it.
    recorded: Option<EventId>,
}

/// The lost histories while nobody else can read or change them.
pub struct LockedHistory<'u>(MutexGuard<'u, Vec<Entry>>);

impl UnrecordedHistory {
    /// Waits until there is a lost history that was not stored, and returns the oldest one.
    pub async fn next(&self) -> Arc<LostHistory> {
        loop {
            let unrecorded = |entry: &&Entry| entry.recorded.is_none();
            if let Some(first) = self.lost.lock().await.iter().find(unrecorded) {
                return Arc::clone(&first.lost);
            }
            self.added.notified().await;
        }
    }

    /// Keeps the feed from reading the lost histories. To be held while one is committed and marked.
    pub async fn lock(&self) -> LockedHistory<'_> {
        LockedHistory(self.lost.lock().await)
    }

    /// The lost histories that are not among the holds of this snapshot. Those that are have been accepted, or will be loaded with it,
    /// and are forgotten. A commit that was lost is to be made again.
    pub(super) async fn not_in(
        &self,
        snapshot: &mut Snapshot,
    ) -> Result<Vec<Arc<LostHistory>>, Error> {
        let mut all = self.lost.lock().await;
        let recorded: Vec<EventId> = all.iter().filter_map(|entry| entry.recorded).collect();
        let found = snapshot.find_events(&recorded).await?;
        all.retain_mut(|entry| {
            let is_stored = entry.recorded.is_some_and(|event| found.contains(&event));
            entry.recorded = None;
            !is_stored
        });
        if !all.is_empty() {
            self.added.notify_one();
        }
        Ok(all.iter().map(|entry| Arc::clone(&entry.lost)).collect())
    }

    pub(super) async fn add(&self, lost: LostHistory) {
        self.lost.lock().await.push(Entry {
            lost: Arc::new(lost),
            recorded: None,
        });
        self.added.notify_one();
    }
}

impl LockedHistory<'_> {
    /// Notes the change that stored this history as holds.
    pub fn set_recorded(&mut self, lost: &Arc<LostHistory>, event: EventId) {
        for entry in self.0.iter_mut() {
            if Arc::ptr_eq(&entry.lost, lost) {
                entry.recorded = Some(event);
            }
        }
    }

    /// Forgets a history of which the store has all holds already.
    pub fn remove(&mut self, lost: &Arc<LostHistory>) {
        self.0.retain(|entry| !Arc::ptr_eq(&entry.lost, lost));
    }
}
