//! The mirror: all that verification needs to know, in memory, read without a lock.
//!
//! It holds facts, never verdicts. Only the [`Feed`] writes it; whoever changes the store pokes the feed and waits until the
//! change has come round.

mod feed;
mod index;
mod key_facts;
mod packed_labels;
mod realm;
mod revocation_watermarks;
mod secret;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, watch};

pub use feed::Feed;
pub use index::{Index, View};
pub use key_facts::{Entry, KeyFacts};
pub use packed_labels::PackedLabels;
pub use realm::{MirroredPartner, MirroredRealm, PreparedRealm};
pub use secret::MirroredSecret;

use crate::domain::event::Revision;
use crate::domain::ids::RealmId;
use crate::domain::realm::Realm;

/// The copy of the store's facts that this process decides by.
pub struct Mirror {
    index: ArcSwap<Index>,
    notify: Notify,
    applied: watch::Sender<Revision>,
    distrust: watch::Sender<Option<String>>,
    /// Realms that were put, until the feed takes them up, so that it need not make their tries. Only `Authority::put_realm`
    /// and the feed lock it.
    prepared: Mutex<HashMap<RealmId, PreparedRealm>>,
}

/// The feed did not come so far in time.
#[derive(Debug)]
pub struct Behind;

impl Mirror {
    /// A mirror that knows nothing yet, and says so by its revision 0.
    fn empty() -> Self {
        Self {
            index: ArcSwap::default(),
            notify: Notify::new(),
            applied: watch::Sender::default(),
            distrust: watch::Sender::default(),
            prepared: Mutex::default(),
        }
    }

    /// What is known now.
    pub fn index(&self) -> Guard<Arc<Index>> {
        self.index.load()
    }

    /// Tells the feed that there is something new.
    pub fn notify(&self) {
        self.notify.notify_one();
    }

    /// Hands the feed a realm that is about to be put. It is taken up when the store tells of the very same definition.
    pub fn prepare(&self, realm: PreparedRealm) {
        let id = realm.definition().id.clone();
        self.prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, realm);
    }

    /// Drops what was handed over: a load has all of it.
    fn forget_prepared(&self) {
        self.prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// What was handed over for this definition.
    fn take_prepared(&self, definition: &Realm) -> Option<PreparedRealm> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let found = prepared.remove(&definition.id)?;
        (found.definition() == definition).then_some(found)
    }

    /// Waits until the mirror knows of this change.
    ///
    /// # Errors
    /// If it does not within `patience`: the feed cannot read the store.
    pub async fn wait_for(&self, revision: Revision, patience: Duration) -> Result<(), Behind> {
        let mut applied = self.applied.subscribe();
        let arrived = applied.wait_for(|applied| *applied >= revision);
        match tokio::time::timeout(patience, arrived).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Behind),
        }
    }

    /// Tells when, and why, this mirror came to contradict what the store once said; `None` while it does not. It then goes
    /// on denying what it ever denied, but should get no more requests.
    pub fn distrust(&self) -> watch::Receiver<Option<String>> {
        self.distrust.subscribe()
    }
}
