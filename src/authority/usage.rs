//! Reading the usage of keys.

use std::ops::Range;

use super::key_reference::KeyReference;
use super::keys::visible;
use super::{Authority, Refusal};
use crate::auth::{AuthorizedCaller, Purpose};
use crate::domain::time::{Hour, Timestamp};
use crate::store::{KeyCount, Tombstone};

/// The usage of a key within a range of hours.
#[derive(Debug)]
pub struct KeyUsage {
    /// The counts by hour and verdict, in the order of the hours.
    pub counts: Vec<KeyCount>,
    /// The time of the last use, independent of the range.
    pub last_used_at: Option<Timestamp>,
}

impl Authority {
    /// Returns the usage of a key. The key may be deleted: a caller that would reach it can still read its usage.
    pub async fn key_usage(
        &self,
        caller: &AuthorizedCaller,
        reference: &KeyReference,
        hours: Range<Hour>,
    ) -> Result<KeyUsage, Refusal> {
        caller.role.may_use_keys(Purpose::Read)?;
        let mut snapshot = self.read(caller).await?;
        let id = reference.id;
        match visible(&mut snapshot, &caller.role, reference, Purpose::Read).await {
            Err(Refusal::NotFound(message)) => snapshot
                .find_tombstone(id)
                .await?
                .filter(|deleted| {
                    let Tombstone {
                        realm,
                        partner,
                        project,
                        environment,
                    } = deleted;
                    let role = &caller.role;
                    let project = project.as_ref();
                    role.reaches_keys_of(Purpose::Read, realm, partner, project, environment)
                        && reference.allows(partner)
                })
                .map(drop)
                .ok_or(Refusal::NotFound(message))?,
            found => found.map(drop)?,
        }
        Ok(KeyUsage {
            counts: snapshot.key_counts(id, hours).await?,
            last_used_at: snapshot.last_use(id).await?,
        })
    }
}
