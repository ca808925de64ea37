//! Who calls, and what that allows.

use super::Refusal;
use crate::domain::access::{Access, Ladder};
use crate::domain::event::Actor;
use crate::domain::ids::{KeyId, PartnerId, RealmId};
use crate::domain::key::{Key, KeyState};
use crate::domain::realm::{Realm, scopes};
use crate::store::Change;

/// Somebody who proved a key of the built-in realm.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The proven key.
    pub key: KeyId,
    /// What it allowed when it was proven.
    pub role: Role,
    /// The network address that the call comes from.
    pub peer: String,
}

/// What a key of the built-in realm allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, in every realm.
    Operator,
    /// Something in one realm.
    Realm {
        /// The realm that the key serves.
        realm: RealmId,
        /// Whether that is its administration.
        manage: bool,
    },
}

impl Caller {
    pub(super) fn actor(&self) -> Actor {
        Actor {
            key: Some(self.key),
            peer: self.peer.clone(),
        }
    }
}

impl Role {
    /// The role of a key with this owner, which holds the scopes for which `holds` is true.
    pub fn new(partner: &PartnerId, holds: impl Fn(&str) -> bool) -> Option<Self> {
        if partner.is_nobody() {
            return holds(scopes::OPERATOR).then_some(Self::Operator);
        }
        Some(Self::Realm {
            realm: RealmId::parse(partner.as_str()).ok()?,
            manage: holds(scopes::MANAGE),
        })
    }

    /// What the caller's key allows now, within the change, and the key.
    pub(super) async fn reread(
        change: &mut Change,
        caller: &Caller,
    ) -> Result<(Self, Key), Refusal> {
        let key = change
            .find_key(caller.key)
            .await?
            .ok_or(Refusal::CallerGone)?;
        let partner = change.find_partner(&key.realm, &key.partner).await?;
        let suspended = partner.is_none_or(|partner| partner.value.suspended);
        if !key.realm.is_built_in() || key.state(change.time()) != KeyState::Active || suspended {
            return Err(Refusal::CallerGone);
        }
        let role = Self::of(&key.partner, &key.access).ok_or(Refusal::CallerGone)?;
        Ok((role, key))
    }

    fn of(partner: &PartnerId, access: &Access) -> Option<Self> {
        let ladder = Ladder::new(&Realm::built_in().scopes, None);
        let held = ladder.effective_access(access);
        Self::new(partner, |scope| {
            ladder.rank(scope).is_some_and(|rank| held.contains(rank))
        })
    }

    /// Whether it may administer this realm.
    ///
    /// # Errors
    /// The same whether or not there is such a realm.
    pub fn may_manage(&self, wanted: &RealmId) -> Result<(), Refusal> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm {
                realm,
                manage: true,
            } if realm == wanted => Ok(()),
            Self::Realm { .. } => Err(Refusal::Forbidden(format!(
                "this takes an operator key, or a key that holds \"{}\" for the realm in question",
                scopes::MANAGE
            ))),
        }
    }

    /// Whether it may administer anything, of which what it may not know of stays hidden.
    pub fn may_manage_something(&self) -> Result<(), Refusal> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm { realm, .. } => self.may_manage(realm),
        }
    }

    /// Whether it may do what only operators may.
    pub fn may_operate(&self) -> Result<(), Refusal> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm { .. } => Err(Refusal::Forbidden("this takes an operator key".to_owned())),
        }
    }
}

/// Whether a key of the built-in realm with this owner, which holds the scopes for which `holds` is true, may ask about the
/// keys of the realm `wanted`. Asked on every request, so it makes no [`Role`].
pub fn may_verify(partner: &PartnerId, holds: impl Fn(&str) -> bool, wanted: &str) -> bool {
    if partner.is_nobody() {
        holds(scopes::OPERATOR)
    } else {
        partner.as_str() == wanted && holds(scopes::VERIFY)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::ids::ScopeName;

    fn role(partner: &str, granted: &[&str]) -> Option<Role> {
        let partner = match partner {
            "" => PartnerId::nobody(),
            partner => PartnerId::parse(partner).unwrap(),
        };
        let granted = granted.iter().map(|scope| ScopeName::parse(scope).unwrap());
        Role::of(&partner, &Access::Scopes(granted.collect::<BTreeSet<_>>()))
    }

    fn realm(id: &str) -> RealmId {
        RealmId::parse(id).unwrap()
    }

    #[test]
    fn an_operator_may_do_everything_everywhere() {
        let operator = role("", &["operator"]).unwrap();
        assert!(operator.may_manage(&realm("demo")).is_ok());
        assert!(operator.may_operate().is_ok());
    }

    #[test]
    fn each_other_role_is_held_to_its_realm_and_its_scope() {
        let gateway = role("demo", &["verify"]).unwrap();
        assert!(gateway.may_manage(&realm("demo")).is_err());
        assert!(gateway.may_manage_something().is_err());

        let manager = role("demo", &["manage"]).unwrap();
        assert!(manager.may_manage(&realm("demo")).is_ok());
        assert!(manager.may_manage(&realm("other")).is_err());
        assert!(manager.may_operate().is_err());
    }

    #[test]
    fn asking_takes_the_scope_and_the_realm() {
        let demo = PartnerId::parse("demo").unwrap();
        assert!(may_verify(&demo, |scope| scope == "verify", "demo"));
        assert!(!may_verify(&demo, |scope| scope == "verify", "other"));
        assert!(!may_verify(&demo, |scope| scope == "manage", "demo"));
        assert!(!may_verify(&demo, |scope| scope == "operator", "other"));
        assert!(may_verify(
            &PartnerId::nobody(),
            |scope| scope == "operator",
            "other"
        ));
        assert!(!may_verify(
            &PartnerId::nobody(),
            |scope| scope == "verify",
            "other"
        ));
    }

    #[test]
    fn a_key_without_a_realm_is_an_operators_or_nothing() {
        assert_eq!(role("", &["manage", "verify"]), None);
        assert_eq!(role("", &[]), None);
    }

    #[test]
    fn the_word_operator_gives_nothing_beyond_the_realm_that_the_key_serves() {
        let role = role("demo", &["operator"]).unwrap();
        assert!(role.may_operate().is_err());
        assert!(role.may_manage(&realm("other")).is_err());
    }
}
