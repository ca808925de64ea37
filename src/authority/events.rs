//! Reading the audit trail.

use super::{Authority, Page, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::event::Event;
use crate::store::EventFilter;

impl Authority {
    /// Returns a page of the audit trail, newest first. `take` converts an item, or refuses it if the page is full.
    pub async fn list_events<T>(
        &self,
        caller: &AuthorizedCaller,
        filter: EventFilter,
        take: impl FnMut(Event) -> Option<T>,
    ) -> Result<Page<T>, Refusal> {
        caller.role.may_read_events(filter.realm.as_ref())?;
        let mut snapshot = self.read(caller).await?;
        let page = snapshot.list_events(&filter, take).await?;
        Ok(Page {
            items: page.items,
            next: page.next.map(|revision| revision.to_string()),
        })
    }
}
