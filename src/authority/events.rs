//! The audit trail.

use super::{Authority, Caller, Page, Refusal};
use crate::domain::event::{Event, EventKind, Revision};
use crate::domain::ids::{KeyId, PartnerId, RealmId};
use crate::domain::time::Timestamp;
use crate::store::EventFilter;

/// Which events to list, and from where on.
#[derive(Debug)]
pub struct EventQuery {
    /// Of this realm.
    pub realm: Option<RealmId>,
    /// Of this partner.
    pub partner: Option<PartnerId>,
    /// Of this key.
    pub key: Option<KeyId>,
    /// Of this kind.
    pub kind: Option<EventKind>,
    /// At or after this time.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Where the page before ended.
    pub before: Option<Revision>,
    /// How many at the most.
    pub limit: u32,
}

impl Authority {
    /// A page of the audit trail, newest first.
    pub async fn list_events(
        &self,
        caller: &Caller,
        query: EventQuery,
    ) -> Result<Page<Event>, Refusal> {
        match &query.realm {
            Some(realm) => caller.role.may_manage(realm)?,
            None => caller.role.may_operate()?,
        }
        let EventQuery {
            realm,
            partner,
            key,
            kind,
            from,
            until,
            before,
            limit,
        } = query;
        let filter = EventFilter {
            realm,
            partner,
            key,
            kind,
            from,
            until,
            before,
            limit,
        };
        let page = self.store.snapshot().await?.list_events(&filter).await?;
        Ok(Page {
            items: page.items,
            next: page.next.map(|revision| revision.to_string()),
        })
    }
}
