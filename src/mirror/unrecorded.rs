//! What this server knows of lost history, until the store has it as holds.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::domain::hold::LostHistory;

/// The lost histories that are not stored as holds yet. The feed adds them, and one task stores them.
#[derive(Default)]
pub struct UnrecordedHistory {
    lost: Mutex<Vec<Arc<LostHistory>>>,
    added: Notify,
}

/// The lost histories while nobody else can add or remove one.
pub struct LockedHistory<'u>(MutexGuard<'u, Vec<Arc<LostHistory>>>);

impl UnrecordedHistory {
    /// Waits until there is a lost history, and returns the oldest one.
    pub async fn next(&self) -> Arc<LostHistory> {
        loop {
            if let Some(first) = self.lost.lock().await.first() {
                return Arc::clone(first);
            }
            self.added.notified().await;
        }
    }

    /// Keeps the feed from reading what is unrecorded. To be held while a lost history is committed and removed: the feed may see
    /// the commit, and an operator's acceptance of it, at once.
    pub async fn lock(&self) -> LockedHistory<'_> {
        LockedHistory(self.lost.lock().await)
    }

    /// All of them.
    pub(super) async fn all(&self) -> Vec<Arc<LostHistory>> {
        self.lost.lock().await.clone()
    }

    pub(super) async fn add(&self, lost: LostHistory) {
        self.lost.lock().await.push(Arc::new(lost));
        self.added.notify_one();
    }
}

impl LockedHistory<'_> {
    /// Notes that the store has this history as holds.
    pub fn remove(&mut self, recorded: &Arc<LostHistory>) {
        self.0.retain(|lost| !Arc::ptr_eq(lost, recorded));
    }
}
