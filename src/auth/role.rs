//! Roles: what the key of a caller may administer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tokio::time::Instant;

use crate::domain::access::ScopeHierarchy;
use crate::domain::event::Actor;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::{Digest, Key, OPERATOR_LABELS};
use crate::domain::realm::{Realm, scopes};
use crate::domain::time::Timestamp;

/// The refusal of an authenticated caller. The message says what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden(pub &'static str);

/// The refusal of a valid key that administers nothing.
pub const NO_ROLE: Forbidden = Forbidden(
    "the caller's key may not administer anything: use a key of the realm \"claviger\", or a key that holds the `admin_scope` \
     of its realm",
);

/// The refusal of an action that only operators may do.
pub(super) const OPERATORS_ONLY: Forbidden =
    Forbidden("the caller's key may not do this: use an operator key");

const MANAGERS_ONLY: Forbidden = Forbidden(
    "the caller's key may not do this: use an operator key, or a key with the scope \"manage\" for this realm",
);

/// The refusal of a change by a key that may read the realm.
const READS_ONLY: Forbidden = Forbidden(
    "the caller's key only reads: use an operator key, or a key with the scope \"manage\" for this realm",
);

const READERS_ONLY: Forbidden = Forbidden(
    "the caller's key may not read this: use an operator key, or a key with the scope \"manage\" or \"read\" for this realm",
);

/// The refusal to read what belongs to no single realm, or to the built-in one.
const READERS_OF_ALL_ONLY: Forbidden = Forbidden(
    "the caller's key may not read this: use an operator key, or a key with the scope \"read\" that has no partner",
);

const BEYOND_PARTNER: Forbidden = Forbidden(
    "the caller's key administers only the keys of its own partner and environment: set `partner` and \
     `environment` to these, or use another key",
);

const BEYOND_PROJECT: Forbidden = Forbidden(
    "the caller's key administers only the keys of its own project and environment: set `partner`, `project` \
     and `environment` to these, or use another key",
);

const NO_EXTERNAL_ID: Forbidden = Forbidden(
    "external_id: only operators and managers may set, change or remove it: leave this field unset, or ask an operator",
);

const NO_OPERATOR_LABELS: Forbidden = Forbidden(
    "labels: only operators and managers may set or change labels that begin with operator/: leave these labels out, and they \
     stay as they are",
);

/// A caller that proved a secret.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The proven key.
    pub key: KeyId,
    /// The digest of the secret that was presented.
    pub secret: Digest,
    /// The network address at the other end of the connection.
    pub peer: Option<IpAddr>,
    /// When the call ends, if it has a time limit. An answer after that reaches nobody.
    pub answer_by: Option<Instant>,
}

/// A principal whose key has a role.
#[derive(Clone, Debug)]
pub struct AuthorizedCaller {
    /// The principal.
    pub principal: Principal,
    /// The role of the key at the time of the proof.
    pub role: Role,
}

/// What a key allows its principal to administer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, in every realm.
    Operator,
    /// Nothing, but it reads everything in every realm.
    Auditor,
    /// One realm, by a key of the built-in realm.
    Realm {
        /// The realm that the key serves.
        realm: RealmId,
        /// What the key may do there.
        power: Power,
    },
    /// Keys of the same partner, by a partner's key that holds its realm's `admin_scope`.
    Delegate(Delegate),
}

/// What a key of the built-in realm may do in the realm that it serves. Each power includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// The key neither reads nor administers anything. It may still verify.
    Nothing,
    /// The key reads everything, and changes nothing.
    Read,
    /// The key administers the realm.
    Manage,
}

/// What a caller does with what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It reads.
    Read,
    /// It makes a change, or asks what a change would do.
    Change,
}

/// The keys that a partner's own key may administer: keys of the same owner in the same environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// The realm of the keys.
    pub realm: RealmId,
    /// The owner of the keys.
    pub partner: PartnerId,
    /// The project of the keys. `None` means keys of every project and partner keys.
    pub project: Option<ProjectId>,
    /// The environment of the keys.
    pub environment: EnvironmentName,
}

impl Principal {
    /// Returns the principal as an actor of the audit trail.
    pub fn actor(&self) -> Actor {
        Actor {
            key: Some(self.key),
            peer: self.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        }
    }

    /// Whether the key still has the proven secret. A rotation may have replaced the secret since the proof.
    pub fn still_holds(&self, key: &Key, now: Timestamp) -> bool {
        key.secrets
            .iter()
            .any(|secret| secret.digest == self.secret && !secret.expires_at.is_over(now))
    }
}

impl Role {
    /// Returns the role of a key of this realm with this owner and environment. `holds` tells whether the key has a scope. `None`
    /// if the key neither administers nor reads anything, unless it is a gateway's.
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
            return if holds(scopes::OPERATOR) {
                Some(Self::Operator)
            } else {
                holds(scopes::READ).then_some(Self::Auditor)
            };
        }
        Some(Self::Realm {
            realm: RealmId::parse(partner.as_str()).ok()?,
            power: if holds(scopes::MANAGE) {
                Power::Manage
            } else if holds(scopes::READ) {
                Power::Read
            } else {
                Power::Nothing
            },
        })
    }

    /// Returns the role of a stored key of this realm.
    pub fn of(key: &Key, realm: &Realm) -> Option<Self> {
        let hierarchy = ScopeHierarchy::new(&realm.scopes, None);
        let held = hierarchy.effective_access(&key.access);
        Self::new(
            realm,
            &key.partner,
            key.level.project(),
            &key.environment,
            |scope| {
                hierarchy
                    .index_of(scope)
                    .is_some_and(|index| held.contains(index))
            },
        )
    }

    /// Checks that the role may change this realm and what belongs to it.
    ///
    /// # Errors
    /// The same whether or not the realm exists.
    pub fn may_manage(&self, wanted: &RealmId) -> Result<(), Forbidden> {
        match self {
            Self::Operator => Ok(()),
            Self::Realm {
                realm,
                power: Power::Manage,
            } if realm == wanted => Ok(()),
            // No key with the scope `manage` serves the built-in realm.
            _ if wanted.is_built_in() => Err(OPERATORS_ONLY),
            Self::Auditor => Err(READS_ONLY),
            Self::Realm {
                realm,
                power: Power::Read,
            } if realm == wanted => Err(READS_ONLY),
            Self::Realm { .. } | Self::Delegate(_) => Err(MANAGERS_ONLY),
        }
    }

    /// Checks that the role may change at least one realm.
    ///
    /// # Errors
    /// The role administers no realm.
    pub fn may_manage_something(&self) -> Result<(), Forbidden> {
        match self {
            Self::Operator => Ok(()),
            Self::Auditor => Err(READS_ONLY),
            Self::Realm { realm, .. } | Self::Delegate(Delegate { realm, .. }) => {
                self.may_manage(realm)
            }
        }
    }

    /// Checks that the role may read this realm and what belongs to it, beyond the keys of one partner.
    ///
    /// # Errors
    /// The same whether or not the realm exists.
    pub fn may_read(&self, wanted: &RealmId) -> Result<(), Forbidden> {
        match self {
            Self::Operator | Self::Auditor => Ok(()),
            Self::Realm { realm, power } if realm == wanted && *power >= Power::Read => Ok(()),
            Self::Realm { .. } | Self::Delegate(_) if wanted.is_built_in() => {
                Err(READERS_OF_ALL_ONLY)
            }
            Self::Realm { .. } | Self::Delegate(_) => Err(READERS_ONLY),
        }
    }

    /// Checks that the role may read at least one realm.
    ///
    /// # Errors
    /// The role reads no realm.
    pub fn may_read_something(&self) -> Result<(), Forbidden> {
        match self {
            Self::Operator | Self::Auditor => Ok(()),
            Self::Realm { realm, .. } | Self::Delegate(Delegate { realm, .. }) => {
                self.may_read(realm)
            }
        }
    }

    /// Checks that the role may read what belongs to no single realm.
    ///
    /// # Errors
    /// The role does not read every realm.
    pub fn may_read_everything(&self) -> Result<(), Forbidden> {
        match self {
            Self::Operator | Self::Auditor => Ok(()),
            Self::Realm { .. } | Self::Delegate(_) => Err(READERS_OF_ALL_ONLY),
        }
    }

    /// Checks that the role may do this with at least some keys. Keys beyond its reach stay hidden.
    ///
    /// # Errors
    /// The role reaches no keys for this purpose.
    pub fn may_use_keys(&self, purpose: Purpose) -> Result<(), Forbidden> {
        match (self, purpose) {
            (Self::Delegate(_), _) => Ok(()),
            (_, Purpose::Read) => self.may_read_something(),
            (_, Purpose::Change) => self.may_manage_something(),
        }
    }

    /// Checks that the role may do this with every key of a realm.
    ///
    /// # Errors
    /// The same whether or not the realm exists.
    pub fn may_use_keys_of(&self, realm: &RealmId, purpose: Purpose) -> Result<(), Forbidden> {
        match purpose {
            Purpose::Read => self.may_read(realm),
            Purpose::Change => self.may_manage(realm),
        }
    }

    /// Checks that the role may read the events of this realm, or of all realms.
    ///
    /// # Errors
    /// The same whether or not the realm exists.
    pub fn may_read_events(&self, realm: Option<&RealmId>) -> Result<(), Forbidden> {
        match realm {
            Some(realm) => self.may_read(realm),
            None => self.may_read_everything(),
        }
    }

    /// Checks that the role is that of an operator.
    ///
    /// # Errors
    /// The role is another one.
    pub fn may_operate(&self) -> Result<(), Forbidden> {
        match self {
            Self::Operator => Ok(()),
            Self::Auditor | Self::Realm { .. } | Self::Delegate(_) => Err(OPERATORS_ONLY),
        }
    }

    /// Checks that the role may choose the external ids of keys. They are unique in the realm, so a partner could take those that
    /// other partners' keys will need, or find out which are in use.
    ///
    /// # Errors
    /// The role is that of a partner's own key.
    pub fn may_set_external_ids(&self) -> Result<(), Forbidden> {
        match self {
            Self::Operator | Self::Auditor | Self::Realm { .. } => Ok(()),
            Self::Delegate(_) => Err(NO_EXTERNAL_ID),
        }
    }

    /// Checks that the role may give these labels to a key that has the labels `present` until now.
    ///
    /// # Errors
    /// The role is that of a partner's own key, and sets or changes a label of the operator.
    pub fn may_label(
        &self,
        labels: &BTreeMap<String, String>,
        present: &BTreeMap<String, String>,
    ) -> Result<(), Forbidden> {
        let mut chosen = labels
            .iter()
            .filter(|(name, _)| name.starts_with(OPERATOR_LABELS));
        match self {
            Self::Delegate(_) if chosen.any(|(name, value)| present.get(name) != Some(value)) => {
                Err(NO_OPERATOR_LABELS)
            }
            Self::Operator | Self::Auditor | Self::Realm { .. } | Self::Delegate(_) => Ok(()),
        }
    }

    /// Returns what a key with the labels `present` keeps when the role replaces its labels.
    pub fn kept_labels<'l>(
        &self,
        present: &'l BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'l String, &'l String)> {
        let keeps = matches!(self, Self::Delegate(_));
        present
            .iter()
            .filter(move |(name, _)| keeps && name.starts_with(OPERATOR_LABELS))
    }

    /// Whether the role reaches this key for this purpose: it may read the key, or remove access from it. The
    /// privilege-escalation check of `authority::grants` limits what the role may grant.
    pub fn reaches(&self, key: &Key, purpose: Purpose) -> bool {
        self.reaches_keys_of(
            purpose,
            &key.realm,
            &key.partner,
            key.level.project(),
            &key.environment,
        )
    }

    /// Like [`Role::reaches`], for a key that is described by its owner. This works for deleted keys too.
    pub fn reaches_keys_of(
        &self,
        purpose: Purpose,
        realm: &RealmId,
        partner: &PartnerId,
        project: Option<&ProjectId>,
        environment: &EnvironmentName,
    ) -> bool {
        match self {
            Self::Delegate(delegate) => {
                delegate.reaches(realm, Some(partner), project, Some(environment))
            }
            Self::Operator | Self::Auditor | Self::Realm { .. } => {
                self.may_use_keys_of(realm, purpose).is_ok()
            }
        }
    }

    /// Checks that the role reaches a key that is not issued yet. An environment of `None` is not compared;
    /// [`Role::reaches`] compares the resolved environment later.
    ///
    /// # Errors
    /// The same whether or not the realm, the partner and the project exist.
    pub fn may_issue(
        &self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        project: Option<&ProjectId>,
        environment: Option<&EnvironmentName>,
    ) -> Result<(), Forbidden> {
        match self {
            Self::Delegate(delegate) if delegate.reaches(realm, partner, project, environment) => {
                Ok(())
            }
            Self::Delegate(delegate) => Err(delegate.beyond_reach()),
            Self::Operator | Self::Auditor | Self::Realm { .. } => self.may_manage(realm),
        }
    }
}

impl Delegate {
    /// Whether the delegate administers keys with this owner and environment. An environment of `None` is not compared.
    pub fn reaches(
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

    /// Returns the refusal of a request beyond the delegate's reach. It is the same whether or not the named resource exists.
    pub fn beyond_reach(&self) -> Forbidden {
        if self.project.is_some() {
            BEYOND_PROJECT
        } else {
            BEYOND_PARTNER
        }
    }
}

/// Whether a key of the built-in realm with this owner may verify keys of the realm `wanted`. `holds` tells whether the key has
/// a scope. Every Verify calls this function, so it builds no [`Role`].
pub(super) fn may_verify(partner: &PartnerId, holds: impl Fn(&str) -> bool, wanted: &str) -> bool {
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
        assert_eq!(manager.may_manage(&realm("other")), Err(MANAGERS_ONLY));
        assert_eq!(
            manager.may_manage(&RealmId::built_in()),
            Err(OPERATORS_ONLY)
        );
        assert!(manager.may_operate().is_err());
        assert!(manager.may_read(&realm("demo")).is_ok());
        assert_eq!(manager.may_read(&realm("other")), Err(READERS_ONLY));
        assert_eq!(
            manager.may_read(&RealmId::built_in()),
            Err(READERS_OF_ALL_ONLY)
        );
    }

    /// Seen red with `Power::Read` in `may_manage`.
    #[test]
    fn a_reader_changes_nothing() {
        let (demo, other, built_in) = (realm("demo"), realm("other"), RealmId::built_in());
        let reader = role("demo", &["read", "verify"]).unwrap();
        assert!(reader.may_read(&demo).is_ok());
        assert!(reader.may_read_something().is_ok());
        assert!(reader.may_read(&other).is_err());
        assert!(reader.may_read_everything().is_err());
        assert_eq!(reader.may_manage(&demo), Err(READS_ONLY));
        assert_eq!(reader.may_manage(&other), Err(MANAGERS_ONLY));

        let auditor = role("", &["read"]).unwrap();
        assert_eq!(auditor, Role::Auditor);
        for realm in [&demo, &other, &built_in] {
            assert!(auditor.may_read(realm).is_ok());
            assert!(auditor.may_manage(realm).is_err());
        }
        assert!(auditor.may_read_everything().is_ok());
        assert!(auditor.may_operate().is_err());

        let key = sample();
        for role in [
            auditor,
            Role::Realm {
                realm: key.realm.clone(),
                power: Power::Read,
            },
        ] {
            assert!(role.reaches(&key, Purpose::Read));
            assert!(!role.reaches(&key, Purpose::Change));
            assert_eq!(role.may_use_keys(Purpose::Change), Err(READS_ONLY));
        }
    }

    #[test]
    fn verification_needs_the_scope_and_the_realm() {
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
    fn the_scope_operator_gives_nothing_beyond_the_realm_that_the_key_serves() {
        let role = role("demo", &["operator"]).unwrap();
        assert!(role.may_operate().is_err());
        assert!(role.may_manage(&realm("other")).is_err());
    }
}
