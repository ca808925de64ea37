//! Lost history: what it took away is held, until an operator accepts the loss.

use std::collections::BTreeMap;

use super::admission::Effect;
use super::audit::AuditEntry;
use super::{Authority, ChangeRequest, ChangeResult, Read, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::event::{EventKind, Subject};
use crate::domain::hold::Fork;

/// How many names of what is held are told.
const NAMES: u32 = 100;

/// A fork of the history, and what is held because of it.
#[derive(Clone, Debug)]
pub struct ForkWithHolds {
    /// The fork.
    pub fork: Fork,
    /// How many keys, partners, projects and realms are held.
    pub held: u64,
    /// The names of the first of them.
    pub names: Vec<String>,
}

impl Authority {
    /// Returns the forks of the history, and what is held because of each.
    pub async fn forks(
        &self,
        caller: &AuthorizedCaller,
    ) -> Result<Read<Vec<ForkWithHolds>>, Refusal> {
        caller.role.may_read_everything()?;
        let mut snapshot = self.read(caller).await?;
        let mut value = Vec::new();
        for fork in snapshot.forks().await? {
            let (names, held) = snapshot.held_since(&fork, NAMES).await?;
            value.push(ForkWithHolds { fork, held, names });
        }
        let revision = snapshot.revision().await?;
        Ok(Read { value, revision })
    }

    /// Accepts the loss of changes at the fork of this epoch: nothing is held because of it any more. Returns how many things were held.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if no such epoch began.
    pub async fn accept_history(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        epoch: u64,
    ) -> Result<ChangeResult<u64>, Refusal> {
        caller.role.may_operate()?;
        let (mut change, caller_state) = self.begin(caller, Effect::MayGrant).await?;
        caller_state.role.may_operate()?;
        let forks = change.forks().await?;
        let fork = forks.into_iter().find(|fork| fork.epoch == epoch);
        let fork = fork.ok_or(Refusal::NotFound(
            "no epoch of this number began: `claviger events --kind epoch.began` lists those that did",
        ))?;
        let (_, held) = change.held_since(&fork, 0).await?;
        if held == 0 {
            return self
                .unchanged(&caller.principal, request, change, held)
                .await;
        }
        change.delete_holds(&fork).await?;
        let entry = AuditEntry {
            kind: EventKind::HistoryAccepted,
            subject: Subject::authority(),
            detail: BTreeMap::from([
                ("epoch".to_owned(), epoch.to_string()),
                ("held".to_owned(), held.to_string()),
            ]),
        };
        self.finish(&caller.principal, request, change, entry, held)
            .await
    }
}
