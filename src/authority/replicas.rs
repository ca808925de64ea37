//! The servers that share a database.

use std::collections::BTreeMap;
use std::time::Duration;

use super::admission::Effect;
use super::audit::{AuditEntry, rfc3339};
use super::{Authority, ChangeRequest, ChangeResult, Read, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::event::{EventKind, Subject};
use crate::domain::span;
use crate::domain::time::Timestamp;
use crate::store::Replicas;

/// How far a caller's clock and the clock may be apart to which the time is set.
const LARGEST_DISAGREEMENT: Duration = Duration::from_mins(1);

/// Less than this is no error of the time.
const SMALLEST_CORRECTION: Duration = Duration::from_secs(1);

/// What was done to the time of the authority.
#[derive(Clone, Copy, Debug)]
pub struct ClockCorrection {
    /// The time before.
    pub before: Timestamp,
    /// The time that it was then: that of the clock.
    pub time: Timestamp,
}

impl Authority {
    /// Returns the servers that share the database; `None` if it is embedded.
    pub async fn replicas(
        &self,
        caller: &AuthorizedCaller,
    ) -> Result<Read<Option<Replicas>>, Refusal> {
        caller.role.may_read_everything()?;
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
                ("lease".to_owned(), span::format(length)),
                ("before".to_owned(), span::format(before)),
            ]),
        };
        self.finish(&caller.principal, request, change, entry, length)
            .await
    }

    /// Sets the authority's time to that of the database's clock, or of this machine if the database is embedded. It may be earlier than
    /// the time was.
    ///
    /// # Errors
    /// A precondition, if the clock differs by more than a minute from `expected`, the time as the caller knows it: with a clock that is
    /// behind, expired keys would be valid again.
    pub async fn set_clock(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        expected: Timestamp,
    ) -> Result<ChangeResult<ClockCorrection>, Refusal> {
        caller.role.may_operate()?;
        let (mut change, caller_state) = self.begin(caller, Effect::MayGrant).await?;
        caller_state.role.may_operate()?;
        let clock = change.database_clock().await?;
        let time = clock.unwrap_or_else(|| self.clock.source_time());
        let off = apart(time, expected);
        if off > LARGEST_DISAGREEMENT {
            return Err(Refusal::Precondition {
                reason: "CLOCK_DISAGREES",
                message: format!(
                    "the clock of the machine of {} says {}, and the request says {}: correct the one that is wrong, then repeat",
                    if clock.is_some() {
                        "the database"
                    } else {
                        "claviger"
                    },
                    rfc3339(time),
                    rfc3339(expected),
                ),
            });
        }
        let before = change.time();
        let correction = ClockCorrection { before, time };
        if apart(before, time) < SMALLEST_CORRECTION {
            return self
                .unchanged(&caller.principal, request, change, correction)
                .await;
        }
        change.set_time(time).await?;
        let entry = AuditEntry {
            kind: EventKind::ClockSet,
            subject: Subject::authority(),
            detail: BTreeMap::from([
                ("time".to_owned(), rfc3339(time)),
                ("before".to_owned(), rfc3339(before)),
            ]),
        };
        self.finish(&caller.principal, request, change, entry, correction)
            .await
    }
}

/// The time between two times, of which either may be the later one.
fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}
