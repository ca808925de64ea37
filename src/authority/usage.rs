//! Reading the usage of keys and of their owners.

use std::ops::Range;

use super::key_reference::KeyReference;
use super::keys::{narrow_owner, visible};
use super::{Authority, Refusal, not_found};
use crate::auth::{AuthorizedCaller, Purpose, Role};
use crate::domain::time::{Hour, Timestamp};
use crate::store::{
    HourCount, OwnerCounts, Tombstone, UsageFilter, UsageRanking, UsageReport, UsedKey,
};

/// The usage of a key within a range of hours.
#[derive(Debug)]
pub struct KeyUsage {
    /// The counts by hour and verdict, in the order of the hours.
    pub counts: Vec<HourCount>,
    /// The time of the last use, independent of the range.
    pub last_used_at: Option<Timestamp>,
}

/// The usage of the keys of a realm or of some of its owners, within a range of hours.
#[derive(Debug)]
pub struct OwnerUsage {
    /// The counts of all keys, by hour and verdict, in the order of the hours.
    pub counts: Vec<HourCount>,
    /// The owners that rank highest.
    pub owners: Vec<OwnerCounts>,
    /// Whether there are more owners that rank.
    pub more_owners: bool,
    /// The keys that rank highest, if they were wanted.
    pub keys: Vec<UsedKey>,
    /// Whether there are more keys that rank.
    pub more_keys: bool,
}

impl Authority {
    /// Returns the usage of the keys that the filter matches, and the shares of the owners and keys that rank highest. Keys that are
    /// deleted now, also together with their owner, are included. A partner sees nothing from before it was created.
    pub async fn owner_usage(
        &self,
        caller: &AuthorizedCaller,
        mut filter: UsageFilter,
        ranking: UsageRanking,
    ) -> Result<OwnerUsage, Refusal> {
        let UsageFilter {
            realm,
            partner,
            project,
            environment,
            hours: _,
        } = &mut filter;
        narrow_owner(
            &caller.role,
            realm,
            partner,
            project,
            environment,
            Purpose::Read,
        )?;
        let mut snapshot = self.read(caller).await?;
        let found = snapshot.find_realm(&filter.realm).await?;
        let mut begin = found.ok_or(Refusal::NotFound(not_found::REALM))?.created_at;
        if let (Role::Delegate(_), Some(partner)) = (&caller.role, &filter.partner)
            && let Some(found) = snapshot.find_partner(&filter.realm, partner).await?
        {
            begin = begin.max(found.created_at);
        }
        // What an earlier realm or partner with the same id did is not for the people of this one.
        filter.hours.start = filter.hours.start.max(Hour::of(begin));
        let one_more = UsageRanking {
            top: ranking.top + 1,
            ..ranking
        };
        let UsageReport {
            counts,
            mut owners,
            mut keys,
        } = snapshot.ranked_usage(&filter, one_more).await?;
        let top = ranking.top as usize;
        let (more_owners, more_keys) = (owners.len() > top, keys.len() > top);
        owners.truncate(top);
        keys.truncate(top);
        Ok(OwnerUsage {
            counts,
            owners,
            more_owners,
            keys,
            more_keys,
        })
    }

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
