//! Stores of both engines: the conformance suite, and servers whose store is shared, broken or away.

mod concurrent_writers;
mod conformance;
mod faults;
mod hash_hints;
mod long_feeds;
mod postgres;
mod rewritten_history;
mod unreadable;
mod upgrade;

use crate::fixtures::{Service, eventually};

/// Waits until the server has found out that changes were lost, and has stored what they took away.
async fn holds_are_stored(service: &Service) {
    eventually("the server stores holds", async || {
        let mut snapshot = service.store.snapshot().await.unwrap();
        let forks = snapshot.forks().await.unwrap();
        (!forks.is_empty()).then_some(())
    })
    .await;
}
