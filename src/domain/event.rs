//! Events: each change once, as audit trail, change feed and consistency token in one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{KeyId, PartnerId, ProjectId, RealmId};
use super::time::Timestamp;

/// The number of a change: one sequence for the whole authority, in the order of the commits, without gaps.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// Its number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl From<u64> for Revision {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One change: who did what, when and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub revision: Revision,
    /// When it was made.
    pub time: Timestamp,
    /// Who made it and from where.
    pub actor: Actor,
    /// What was done.
    pub kind: EventKind,
    /// What it was done to.
    pub subject: Subject,
    /// What else is worth knowing. Never a secret.
    pub detail: BTreeMap<String, String>,
}

/// Who makes a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The key that it is made with; none on the command line of the server.
    pub key: Option<KeyId>,
    /// The network address that it comes from; empty on the command line of the server.
    pub peer: String,
}

impl Actor {
    /// Whoever sits at the command line of the server.
    pub const fn command_line() -> Self {
        Self {
            key: None,
            peer: String::new(),
        }
    }
}

/// What a change is about: a realm, or the partner, project or key in it that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The realm.
    pub realm: RealmId,
    /// The partner, or the owner of what is named below.
    pub partner: Option<PartnerId>,
    /// The project.
    pub project: Option<ProjectId>,
    /// The key.
    pub key: Option<KeyId>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The authority was made, with its first operator key.
    AuthorityCreated,
    /// A key was issued.
    KeyIssued,
    /// A key of another system was taken over.
    KeyImported,
    /// A key was changed.
    KeyUpdated,
    /// A key was switched off.
    KeyDisabled,
    /// A key was switched on again.
    KeyEnabled,
    /// A key was given a new secret.
    KeyRotated,
    /// One of a key's two secrets was taken away.
    RotationEnded,
    /// A key was ended.
    KeyRevoked,
    /// A key was removed.
    KeyDeleted,
    /// Many keys were ended at once.
    KeysRevoked,
    /// A realm was made or changed.
    RealmPut,
    /// A realm was deleted.
    RealmDeleted,
    /// A partner was made or changed.
    PartnerPut,
    /// A partner was deleted.
    PartnerDeleted,
    /// A project was made or changed.
    ProjectPut,
    /// A project was deleted.
    ProjectDeleted,
}

impl EventKind {
    /// Every kind there is.
    pub const ALL: [Self; 17] = [
        Self::AuthorityCreated,
        Self::KeyIssued,
        Self::KeyImported,
        Self::KeyUpdated,
        Self::KeyDisabled,
        Self::KeyEnabled,
        Self::KeyRotated,
        Self::RotationEnded,
        Self::KeyRevoked,
        Self::KeyDeleted,
        Self::KeysRevoked,
        Self::RealmPut,
        Self::RealmDeleted,
        Self::PartnerPut,
        Self::PartnerDeleted,
        Self::ProjectPut,
        Self::ProjectDeleted,
    ];

    /// Its name on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorityCreated => "authority.created",
            Self::KeyIssued => "key.issued",
            Self::KeyImported => "key.imported",
            Self::KeyUpdated => "key.updated",
            Self::KeyDisabled => "key.disabled",
            Self::KeyEnabled => "key.enabled",
            Self::KeyRotated => "key.rotated",
            Self::RotationEnded => "key.rotation_ended",
            Self::KeyRevoked => "key.revoked",
            Self::KeyDeleted => "key.deleted",
            Self::KeysRevoked => "keys.revoked",
            Self::RealmPut => "realm.put",
            Self::RealmDeleted => "realm.deleted",
            Self::PartnerPut => "partner.put",
            Self::PartnerDeleted => "partner.deleted",
            Self::ProjectPut => "project.put",
            Self::ProjectDeleted => "project.deleted",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
