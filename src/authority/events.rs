//! Reading the audit trail.

use std::time::Duration;

use super::{Authority, Page, Read, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::event::{Event, Revision};
use crate::store::EventFilter;

impl Authority {
    /// Waits until this server knows of a change after this revision, for `timeout` at most.
    pub async fn wait_for_change(&self, after: Revision, timeout: Duration) {
        let mut applied = self.mirror.applied();
        let changed = applied.wait_for(|last| last.revision > after);
        // Too late, or the server ends: the caller looks all the same.
        let _ = tokio::time::timeout(timeout, changed).await;
    }

    /// Returns a page of the audit trail, newest first, or after a revision, oldest first. `take` converts an item, or refuses it if
    /// the page is full.
    pub async fn list_events<T>(
        &self,
        caller: &AuthorizedCaller,
        filter: EventFilter,
        take: impl FnMut(Event) -> Option<T>,
    ) -> Result<Read<Page<T>>, Refusal> {
        caller.role.may_read_events(filter.realm.as_ref())?;
        let mut snapshot = self.read(caller).await?;
        let mut revision = snapshot.revision().await?;
        let page = snapshot.list_events(&filter, take).await?;
        let mut next = page.next;
        if filter.after.is_some() {
            // More events follow the last one of the page.
            revision = next.take().unwrap_or(revision);
        }
        let value = Page {
            items: page.items,
            next: next.map(|revision| revision.to_string()),
        };
        Ok(Read { value, revision })
    }
}
