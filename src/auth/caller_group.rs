//! Groups of callers, who share what is limited for each of them.

use super::AuthorizedCaller;
use super::role::{Delegate, Power, Role};
use crate::domain::ids::{KeyId, PartnerId, RealmId};

/// The callers who share limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CallerGroup {
    /// One operator key.
    Operator(KeyId),
    /// The managers of a realm.
    Managers(RealmId),
    /// The keys of a partner that administer keys. In the built-in realm these are the keys of readers and gateways, which
    /// change nothing; readers of all realms have no partner.
    Partner(RealmId, PartnerId),
    /// The keys of a partner that only read, rotate or revoke themselves. They need no role, so they must not use up what the
    /// partner's administrators need.
    Holders(RealmId, PartnerId),
}

impl CallerGroup {
    /// Returns the realm whose callers the group is part of; `None` for an operator.
    pub fn realm(&self) -> Option<&RealmId> {
        match self {
            Self::Operator(_) => None,
            Self::Managers(realm) | Self::Partner(realm, _) | Self::Holders(realm, _) => {
                Some(realm)
            }
        }
    }
}

impl AuthorizedCaller {
    /// Returns the group of this caller.
    pub fn group(&self) -> CallerGroup {
        match &self.role {
            Role::Operator => CallerGroup::Operator(self.principal.key),
            Role::Auditor => CallerGroup::Partner(RealmId::built_in(), PartnerId::nobody()),
            Role::Realm {
                realm,
                power: Power::Manage,
            } => CallerGroup::Managers(realm.clone()),
            Role::Realm {
                realm,
                power: Power::Nothing | Power::Read,
            } => CallerGroup::Partner(RealmId::built_in(), realm.as_partner()),
            Role::Delegate(Delegate { realm, partner, .. }) => {
                CallerGroup::Partner(realm.clone(), partner.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Principal;
    use crate::domain::key::Digest;

    /// Seen red with the gateway in the group of the managers.
    #[test]
    fn gateways_and_readers_share_no_limits_with_the_managers_of_their_realm() {
        let realm = RealmId::parse("demo").unwrap();
        let group = |power| {
            let caller = AuthorizedCaller {
                principal: Principal {
                    key: KeyId::from_bytes([1; 16]),
                    secret: Digest {
                        pepper: 1,
                        mac: [1; 32],
                    },
                    peer: None,
                    answer_by: None,
                },
                role: Role::Realm {
                    realm: realm.clone(),
                    power,
                },
            };
            caller.group()
        };
        assert_eq!(group(Power::Manage), CallerGroup::Managers(realm.clone()));
        for power in [Power::Nothing, Power::Read] {
            assert_eq!(
                group(power),
                CallerGroup::Partner(RealmId::built_in(), realm.as_partner())
            );
        }
    }
}
