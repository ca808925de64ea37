//! The servers that share a database.

use std::collections::BTreeMap;
use std::time::Duration;

use super::admission::Effect;
use super::audit::AuditEntry;
use super::{Authority, ChangeRequest, ChangeResult, Read, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::event::{EventKind, Subject};
use crate::store::Replicas;

impl Authority {
    /// Returns the servers that share the database; `None` if it is embedded.
    pub async fn replicas(
        &self,
        caller: &AuthorizedCaller,
    ) -> Result<Read<Option<Replicas>>, Refusal> {
        caller.role.may_operate()?;
        let mut snapshot = self.read(caller).await?;
        let revision = snapshot.revision().await?;
        let value = if self.store.is_shared() {
            Some(snapshot.replicas().await?)
        } else {
            None
        };
        Ok(Read { value, revision })
    }

    /// Sets the length of the leases of all servers that share the database.
    pub async fn set_lease(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        length: Duration,
    ) -> Result<ChangeResult<Duration>, Refusal> {
        caller.role.may_operate()?;
        if !self.store.is_shared() {
            return Err(Refusal::Precondition {
                reason: "EMBEDDED_DATABASE",
                message: "the database is embedded, so it has one server, which needs no lease: leases are for servers that share a \
                          PostgreSQL database"
                    .to_owned(),
            });
        }
        let (mut change, caller_state) = self.begin(caller, Effect::MayGrant).await?;
        caller_state.role.may_operate()?;
        let before = change.lease_terms().await?.length;
        if before == length {
            return self
                .unchanged(&caller.principal, request, change, length)
                .await;
        }
        change.set_lease(length).await?;
        let entry = AuditEntry {
            kind: EventKind::LeaseSet,
            subject: Subject::authority(),
            detail: BTreeMap::from([
                ("lease".to_owned(), text(length)),
                ("before".to_owned(), text(before)),
            ]),
        };
        self.finish(&caller.principal, request, change, entry, length)
            .await
    }
}

/// A time span as people write it.
fn text(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}
