//! Groups of callers, who share what is limited for each of them.

use super::role::{Delegate, Role};
use super::{AuthorizedCaller, Principal};
use crate::domain::ids::{KeyId, PartnerId, RealmId};

/// The callers who share limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CallerGroup {
    /// One operator key.
    Operator(KeyId),
    /// The managers of a realm.
    Managers(RealmId),
    /// The keys of a partner that administer keys.
    Partner(RealmId, PartnerId),
    /// Whoever has one key of the realm, and uses it for itself only.
    Holder(RealmId, KeyId),
}

impl CallerGroup {
    /// Returns the group of whoever uses this key of the realm for itself only.
    pub fn of_holder(realm: RealmId, principal: &Principal) -> Self {
        Self::Holder(realm, principal.key)
    }

    /// Returns the realm whose callers the group is part of; `None` for an operator.
    pub fn realm(&self) -> Option<&RealmId> {
        match self {
            Self::Operator(_) => None,
            Self::Managers(realm) | Self::Partner(realm, _) | Self::Holder(realm, _) => Some(realm),
        }
    }
}

impl AuthorizedCaller {
    /// Returns the group of this caller.
    pub fn group(&self) -> CallerGroup {
        match &self.role {
            Role::Operator => CallerGroup::Operator(self.principal.key),
            Role::Realm { realm, .. } => CallerGroup::Managers(realm.clone()),
            Role::Delegate(Delegate { realm, partner, .. }) => {
                CallerGroup::Partner(realm.clone(), partner.clone())
            }
        }
    }
}
