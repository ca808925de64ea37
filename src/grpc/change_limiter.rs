//! The limit on the changes that the keys of one partner may have in progress.
//!
//! Changes are serial, and a new key needs a slow hash. Partners share both with the operators, who must be able to revoke a key
//! even while its holder sends as many changes as it can.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Status;

use super::status;
use crate::auth::{Delegate, Role};
use crate::domain::ids::{PartnerId, RealmId};

/// How many changes a partner may have in progress. Enough to administer a few keys, and a small part of what others wait for.
const MAX_CHANGES: usize = 4;

/// A partner of a realm.
pub(super) type Owner = (RealmId, PartnerId);

/// The number of changes in progress, by partner.
#[derive(Clone, Default)]
pub(super) struct ChangeLimiter(Arc<Mutex<HashMap<Owner, usize>>>);

/// The permit for one change. Drop returns the permit.
pub(super) struct ChangePermit {
    change_limiter: ChangeLimiter,
    partner: Option<Owner>,
}

impl ChangeLimiter {
    /// Takes a permit for a caller with this role.
    ///
    /// # Errors
    /// A delegate's partner has too many changes in progress. Other roles have no limit.
    pub(super) fn take(&self, role: &Role) -> Result<ChangePermit, Status> {
        match role {
            Role::Delegate(Delegate { realm, partner, .. }) => {
                self.take_for((realm.clone(), partner.clone()))
            }
            Role::Operator | Role::Realm { .. } => Ok(ChangePermit {
                change_limiter: self.clone(),
                partner: None,
            }),
        }
    }

    /// Takes a permit for this partner.
    ///
    /// # Errors
    /// The partner has too many changes in progress.
    pub(super) fn take_for(&self, partner: Owner) -> Result<ChangePermit, Status> {
        let mut all = self.lock();
        let taken = all.entry(partner.clone()).or_default();
        if *taken >= MAX_CHANGES {
            return Err(status::too_many_changes());
        }
        *taken += 1;
        Ok(ChangePermit {
            change_limiter: self.clone(),
            partner: Some(partner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChangePermit {
    fn drop(&mut self) {
        let Some(partner) = self.partner.take() else {
            return;
        };
        let mut taken = self.change_limiter.lock();
        if let Some(count) = taken.get_mut(&partner) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&partner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::EnvironmentName;

    fn delegate(partner: &str) -> Role {
        Role::Delegate(Delegate {
            realm: RealmId::parse("demo").unwrap(),
            partner: PartnerId::parse(partner).unwrap(),
            project: None,
            environment: EnvironmentName::parse("production").unwrap(),
        })
    }

    #[test]
    fn a_partner_has_a_limited_number_of_permits_and_gets_them_back() {
        let change_limiter = ChangeLimiter::default();
        let held: Vec<_> = (0..MAX_CHANGES)
            .map(|_| change_limiter.take(&delegate("acme")).ok().unwrap())
            .collect();
        assert!(change_limiter.take(&delegate("acme")).is_err());
        assert!(change_limiter.take(&delegate("umbrella")).is_ok());
        assert!(change_limiter.take(&Role::Operator).is_ok());
        drop(held);
        assert!(change_limiter.take(&delegate("acme")).is_ok());
        assert!(
            change_limiter.lock().is_empty(),
            "a partner without permits has no entry"
        );
    }
}
