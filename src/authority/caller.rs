//! Who calls, and what that allows.

use std::net::IpAddr;

use super::{Once, Refusal};
use crate::domain::access::Ladder;
use crate::domain::event::Actor;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId, RequestId};
use crate::domain::key::{Digest, Key, KeyState, admits};
use crate::domain::realm::{Realm, scopes};
use crate::domain::time::Timestamp;
use crate::store::{KeyFilter, Snapshot, Tombstone};

/// What is said to somebody whose key is good, but for nothing here.
pub const ALLOWS_NOTHING: &str = "the caller's key allows nothing here: it takes one of the built-in realm, or one that holds its own realm's admin_scope";

/// Somebody who proved a key, and what it asks for by it.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The proven key.
    pub key: KeyId,
    /// What proves the secret that it was proven with.
    pub secret: Digest,
    /// The network address that the call comes from.
    pub peer: Option<IpAddr>,
    /// What it names this call by, if it does.
    pub request_id: Option<RequestId>,
}

/// Somebody whose key allows to administer something.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub holder: Holder,
    /// What its key allowed when it was proven.
    pub role: Role,
}

/// What a key allows its holder to administer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, in every realm.
    Operator,
    /// Something in one realm, by a key of the built-in one.
    Realm {
        /// The realm that the key serves.
        realm: RealmId,
        /// Whether that is its administration.
        manage: bool,
    },
    /// The keys beside its own, by a partner's key that holds its realm's `admin_scope`.
    Delegate(Delegate),
}

/// The keys that a partner's own key may administer: those of the same owner in the same environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// Their realm.
    pub realm: RealmId,
    /// Their owner.
    pub partner: PartnerId,
    /// The project that they are bound to; for a partner key any, or none.
    pub project: Option<ProjectId>,
    /// The environment that they live in.
    pub environment: EnvironmentName,
}

impl Holder {
    pub(super) fn actor(&self) -> Actor {
        Actor {
            key: Some(self.key),
            peer: self.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        }
    }

    /// The request that it names, if it does.
    pub fn once(&self, fingerprint: [u8; 32]) -> Option<Once> {
        let id = self.request_id?;
        Some(Once { id, fingerprint })
    }

    /// Whether what it proved is still a secret of its key, which may have been rotated since.
    pub(super) fn still_holds(&self, key: &Key, now: Timestamp) -> bool {
        key.secrets
            .iter()
            .any(|secret| secret.digest == self.secret && !secret.expires_at.is_over(now))
    }
}

impl Role {
    /// The role of a key of this realm that is so bound and holds the scopes for which `holds` is true.
    pub fn new(
        realm: &Realm,
        partner: &PartnerId,
        project: Option<&ProjectId>,
        environment: &EnvironmentName,
        holds: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        if !realm.id.is_built_in() {
            let admin = realm.admin_scope.as_ref()?;
            return holds(admin.as_str()).then(|| {
                Self::Delegate(Delegate {
                    realm: realm.id.clone(),
                    partner: partner.clone(),
                    project: project.cloned(),
                    environment: environment.clone(),
                })
            });
        }
        if partner.is_nobody() {
            return holds(scopes::OPERATOR).then_some(Self::Operator);
        }
        Some(Self::Realm {
            realm: RealmId::parse(partner.as_str()).ok()?,
            manage: holds(scopes::MANAGE),
        })
    }

    fn of(key: &Key, realm: &Realm) -> Option<Self> {
        let ladder = Ladder::new(&realm.scopes, None);
        let held = ladder.effective_access(&key.access);
        Self::new(
            realm,
            &key.partner,
            key.level.project(),
            &key.environment,
            |scope| ladder.rank(scope).is_some_and(|rank| held.contains(rank)),
        )
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
            Self::Realm { .. } | Self::Delegate(_) => Err(Refusal::Forbidden(format!(
                "this takes an operator key, or a key that holds \"{}\" for the realm in question",
                scopes::MANAGE
            ))),
        }
    }

    /// Whether it may read something of some realm, of which what it may not know of stays hidden.
    pub fn may_manage_something(&self) -> Result<(), Refusal> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm { realm, .. } | Self::Delegate(Delegate { realm, .. }) => {
                self.may_manage(realm)
            }
        }
    }

    /// Whether it may administer any keys, of which those it does not reach stay hidden.
    pub fn may_administer_keys(&self) -> Result<(), Refusal> {
        match self {
            Self::Delegate(_) => Ok(()),
            Self::Operator | Self::Realm { .. } => self.may_manage_something(),
        }
    }

    /// Whether it may do what only operators may.
    pub fn may_operate(&self) -> Result<(), Refusal> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm { .. } | Self::Delegate(_) => {
                Err(Refusal::Forbidden("this takes an operator key".to_owned()))
            }
        }
    }

    /// Whether it may administer keys that are bound like this one: look at them, and take from them. What it may give is
    /// bounded further, by `authority::giving`.
    pub fn reaches(&self, key: &Key) -> bool {
        self.reaches_keys_of(
            &key.realm,
            &key.partner,
            key.level.project(),
            &key.environment,
        )
    }

    /// The same for a key that is gone, by what is kept of it.
    pub fn reached(&self, gone: &Tombstone) -> bool {
        let Tombstone {
            realm,
            partner,
            project,
            environment,
        } = gone;
        self.reaches_keys_of(realm, partner, project.as_ref(), environment)
    }

    fn reaches_keys_of(
        &self,
        realm: &RealmId,
        partner: &PartnerId,
        project: Option<&ProjectId>,
        environment: &EnvironmentName,
    ) -> bool {
        match self {
            Self::Delegate(delegate) => {
                delegate.reaches(realm, Some(partner), project, Some(environment))
            }
            Self::Operator | Self::Realm { .. } => self.may_manage(realm).is_ok(),
        }
    }

    /// Whether it reaches a key that is still to be made. An environment that is not named is looked at when it is known.
    ///
    /// # Errors
    /// The same whether or not there are such a realm, partner and project.
    pub fn may_issue(
        &self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        project: Option<&ProjectId>,
        environment: Option<&EnvironmentName>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Delegate(delegate) if delegate.reaches(realm, partner, project, environment) => {
                Ok(())
            }
            Self::Delegate(delegate) => Err(delegate.beyond()),
            Self::Operator | Self::Realm { .. } => self.may_manage(realm),
        }
    }

    /// The filter, narrowed to what the role may see.
    ///
    /// # Errors
    /// If it asks for what lies beyond, whether or not there is such a thing.
    pub fn narrow(&self, mut filter: KeyFilter) -> Result<KeyFilter, Refusal> {
        let Self::Delegate(delegate) = self else {
            self.may_manage(&filter.realm)?;
            return Ok(filter);
        };
        filter.partner.get_or_insert(delegate.partner.clone());
        filter
            .environment
            .get_or_insert(delegate.environment.clone());
        if filter.project.is_none() {
            filter.project.clone_from(&delegate.project);
        }
        if delegate.reaches(
            &filter.realm,
            filter.partner.as_ref(),
            filter.project.as_ref(),
            filter.environment.as_ref(),
        ) {
            Ok(filter)
        } else {
            Err(delegate.beyond())
        }
    }
}

impl Delegate {
    fn reaches(
        &self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        project: Option<&ProjectId>,
        environment: Option<&EnvironmentName>,
    ) -> bool {
        *realm == self.realm
            && partner == Some(&self.partner)
            && (self.project.is_none() || project == self.project.as_ref())
            && environment.is_none_or(|environment| *environment == self.environment)
    }

    fn beyond(&self) -> Refusal {
        let whose = if self.project.is_some() {
            "project"
        } else {
            "partner"
        };
        Refusal::Forbidden(format!(
            "the caller's key may administer keys of its own {whose} and environment only, and must name them so"
        ))
    }
}

/// A caller as a change finds it: its key, read anew, and what that allows.
pub(super) struct Standing {
    /// What it may administer.
    pub(super) role: Role,
    /// Its key.
    pub(super) key: Key,
}

impl Standing {
    /// Reads the caller's key anew: within a change for good, before one to see whether it is worth beginning.
    pub(super) async fn reread(
        snapshot: &mut Snapshot,
        caller: &Holder,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let key = snapshot
            .find_key(caller.key)
            .await?
            .ok_or(Refusal::CallerGone)?;
        let partner = snapshot.find_partner(&key.realm, &key.partner).await?;
        let suspended = partner.is_none_or(|partner| partner.value.suspended);
        if key.state(now) != KeyState::Active
            || suspended
            || !caller.still_holds(&key, now)
            || !admits(&key.allowed_cidrs, caller.peer)
        {
            return Err(Refusal::CallerGone);
        }
        let realm = if key.realm.is_built_in() {
            Realm::built_in()
        } else {
            let realm = snapshot.find_realm(&key.realm).await?;
            realm.ok_or(Refusal::CallerGone)?.value
        };
        let role =
            Role::of(&key, &realm).ok_or_else(|| Refusal::Forbidden(ALLOWS_NOTHING.to_owned()))?;
        Ok(Self { role, key })
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
    use crate::domain::access::Access;
    use crate::domain::ids::ScopeName;
    use crate::domain::key::tests::sample;

    fn role(partner: &str, granted: &[&str]) -> Option<Role> {
        let partner = match partner {
            "" => PartnerId::nobody(),
            partner => PartnerId::parse(partner).unwrap(),
        };
        let granted = granted.iter().map(|scope| ScopeName::parse(scope).unwrap());
        let key = Key {
            realm: RealmId::built_in(),
            partner,
            access: Access::Scopes(granted.collect::<BTreeSet<_>>()),
            ..sample()
        };
        Role::of(&key, &Realm::built_in())
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
