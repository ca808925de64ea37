//! Forks of the history, and holds: what stays taken away although the change that took it is lost.
//!
//! A failover to a standby that lacks the last commits loses changes that servers have applied. Those servers still know what the lost
//! changes took away. They store it as holds, until an operator accepts the loss.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::event::Revision;
use super::ids::{KeyId, PartnerId, ProjectId, RealmId, ScopeName};
use super::key::Digest;
use super::realm::Realm;
use super::time::Expiry;

/// The beginning of an epoch: what came after a revision of an earlier epoch is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The epoch that began. It identifies the fork.
    pub epoch: u64,
    /// The last revision of the earlier epochs that the history still has.
    pub last: Revision,
}

impl Fork {
    /// Whether the change of this revision was lost at the fork.
    pub fn has_lost(&self, revision: Revision) -> bool {
        revision.epoch() < self.epoch && revision > self.last
    }
}

/// What a server knew of a history of which a part is lost.
#[derive(Clone, Debug)]
pub struct LostHistory {
    /// The last revision that the server had applied.
    pub known: Revision,
    /// The last of these that the history still has.
    pub last: Revision,
    /// What the lost part took away.
    pub holds: Vec<Hold>,
}

/// What something that exists has at most, because a lost change took more from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Hold {
    /// A key has at most this.
    Key {
        /// The key.
        id: KeyId,
        /// What it has at most.
        at_most: Ceiling,
    },
    /// A partner is suspended.
    Partner {
        /// The realm.
        realm: RealmId,
        /// The partner.
        id: PartnerId,
    },
    /// A project is deleted.
    Project {
        /// The realm.
        realm: RealmId,
        /// The project.
        id: ProjectId,
    },
    /// A realm has this definition.
    Realm {
        /// The revision up to which the server had applied changes.
        known: Revision,
        /// The last revision that both histories have.
        last: Revision,
        /// The definition.
        definition: Box<Realm>,
    },
}

/// What a key has at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ceiling {
    /// The key was revoked or deleted.
    Revoked,
    /// What the key had.
    Had(Box<HadAccess>),
}

/// What a key had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HadAccess {
    /// The scopes that followed from those that the key was granted, by the hierarchy of that time.
    pub scopes: BTreeSet<ScopeName>,
    /// Whether the key held every scope, also those that the realm would get.
    pub full_access: bool,
    /// Whether the key was disabled.
    pub disabled: bool,
    /// When it expired.
    pub expires_at: Expiry,
    /// The client addresses from which it could be used; empty means any address.
    pub allowed_cidrs: Vec<IpNet>,
    /// Its secrets, and when each of them expired.
    pub secrets: Vec<(Digest, Expiry)>,
}

/// What can be held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holdable {
    /// A key.
    Key(KeyId),
    /// A partner.
    Partner(RealmId, PartnerId),
    /// A project.
    Project(RealmId, ProjectId),
    /// A realm.
    Realm(RealmId),
}

/// The text by which the store finds holds and people recognize them.
impl fmt::Display for Holdable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key {id}"),
            Self::Partner(realm, id) => write!(f, "partner {realm}/{id}"),
            Self::Project(realm, id) => write!(f, "project {realm}/{id}"),
            Self::Realm(id) => write!(f, "realm {id}"),
        }
    }
}

impl Hold {
    /// Returns what is held.
    pub fn held(&self) -> Holdable {
        match self {
            Self::Key { id, .. } => Holdable::Key(*id),
            Self::Partner { realm, id } => Holdable::Partner(realm.clone(), id.clone()),
            Self::Project { realm, id } => Holdable::Project(realm.clone(), id.clone()),
            Self::Realm { definition, .. } => Holdable::Realm(definition.id.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_has_lost_what_came_after_its_last_common_revision_in_earlier_epochs() {
        let epoch_1 = Revision::from(13).in_next_epoch(Revision::default());
        let fork = Fork {
            epoch: 1,
            last: Revision::from(13),
        };
        for (revision, is_lost) in [
            (Revision::from(13), false),
            (Revision::from(14), true),
            (epoch_1, false),
            (epoch_1.next(), false),
        ] {
            assert_eq!(fork.has_lost(revision), is_lost, "{revision}");
        }
        assert_eq!(epoch_1.next().changes_since(Revision::from(12)), 2);
        let epoch_2 = Revision::from(7).in_next_epoch(epoch_1);
        assert_eq!((epoch_2.epoch(), epoch_2.changes_since(epoch_1)), (2, 0));
    }

    #[test]
    fn a_hold_with_a_field_that_this_version_does_not_know_is_refused() {
        let hold = Hold::Key {
            id: KeyId::from_bytes([7; 16]),
            at_most: Ceiling::Had(Box::new(HadAccess {
                scopes: BTreeSet::new(),
                full_access: false,
                disabled: true,
                expires_at: Expiry::Never,
                allowed_cidrs: Vec::new(),
                secrets: Vec::new(),
            })),
        };
        let text = serde_json::to_string(&hold).unwrap();
        assert_eq!(serde_json::from_str::<Hold>(&text).unwrap(), hold);
        let newer = text.replace("\"disabled\"", "\"weekdays\":[1],\"disabled\"");
        assert!(serde_json::from_str::<Hold>(&newer).is_err());
    }
}
