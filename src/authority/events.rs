//! Reading the audit trail.

use super::{Authority, Page, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::event::Event;
use crate::store::EventFilter;

impl Authority {
    /// Returns a page of the audit trail, newest first.
    pub async fn list_events(
        &self,
        caller: &AuthorizedCaller,
        filter: EventFilter,
    ) -> Result<Page<Event>, Refusal> {
        match &filter.realm {
            Some(realm) => caller.role.may_manage(realm)?,
            None => caller.role.may_operate()?,
        }
        let page = self.store.snapshot().await?.list_events(&filter).await?;
        Ok(Page {
            items: page.items,
            next: page.next.map(|revision| revision.to_string()),
        })
    }
}
