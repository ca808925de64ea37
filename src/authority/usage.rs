//! How keys were used.

use std::ops::Range;

use super::keys::visible;
use super::{Authority, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::ids::KeyId;
use crate::domain::time::{Hour, Timestamp};
use crate::store::{KeyCount, Tombstone};

/// How a key was used within some hours.
#[derive(Debug)]
pub struct KeyUsage {
    /// How often in each hour with each verdict, in the order of the hours.
    pub counts: Vec<KeyCount>,
    /// When it was last used, whatever the hours.
    pub last_used_at: Option<Timestamp>,
}

impl Authority {
    /// How a key was used, also one that was deleted, to whoever reaches it or did.
    pub async fn key_usage(
        &self,
        caller: &AuthorizedCaller,
        id: KeyId,
        hours: Range<Hour>,
    ) -> Result<KeyUsage, Refusal> {
        caller.role.may_administer_keys()?;
        let mut snapshot = self.store.snapshot().await?;
        match visible(&mut snapshot, &caller.role, id).await {
            Err(Refusal::NotFound(what)) => snapshot
                .find_tombstone(id)
                .await?
                .filter(|deleted| {
                    let Tombstone {
                        realm,
                        partner,
                        project,
                        environment,
                    } = deleted;
                    caller
                        .role
                        .reaches_keys_of(realm, partner, project.as_ref(), environment)
                })
                .map(drop)
                .ok_or(Refusal::NotFound(what))?,
            found => found.map(drop)?,
        }
        Ok(KeyUsage {
            counts: snapshot.key_counts(id, hours).await?,
            last_used_at: snapshot.last_use(id).await?,
        })
    }
}
