//! Groups of callers, who share what is limited for each of them.

use super::AuthorizedCaller;
use super::role::{Delegate, Role};
use crate::domain::ids::{KeyId, PartnerId, RealmId};

/// The callers who share limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CallerGroup {
    /// One operator key.
    Operator(KeyId),
    /// The managers of a realm.
    Managers(RealmId),
    /// The keys of a partner, whether they administer keys or only revoke themselves. In the built-in realm these are the keys of
    /// gateways, which administer nothing, and every key that only revokes itself.
    Partner(RealmId, PartnerId),
}

impl CallerGroup {
    /// Returns the realm whose callers the group is part of; `None` for an operator.
    pub fn realm(&self) -> Option<&RealmId> {
        match self {
            Self::Operator(_) => None,
            Self::Managers(realm) | Self::Partner(realm, _) => Some(realm),
        }
    }
}

impl AuthorizedCaller {
    /// Returns the group of this caller.
    pub fn group(&self) -> CallerGroup {
        match &self.role {
            Role::Operator => CallerGroup::Operator(self.principal.key),
            Role::Realm {
                realm,
                manage: true,
            } => CallerGroup::Managers(realm.clone()),
            Role::Realm {
                realm,
                manage: false,
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
    fn a_gateway_shares_no_limits_with_the_managers_of_its_realm() {
        let realm = RealmId::parse("demo").unwrap();
        let group = |manage| {
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
                    manage,
                },
            };
            caller.group()
        };
        assert_eq!(group(true), CallerGroup::Managers(realm.clone()));
        let built_in = RealmId::built_in();
        assert_eq!(
            group(false),
            CallerGroup::Partner(built_in, realm.as_partner())
        );
    }
}
