//! Events: one record for each change. The events are the audit trail, the change feed and the consistency token in one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{KeyId, PartnerId, ProjectId, RealmId};
use super::time::Timestamp;

/// The number of a change.
///
/// The authority has one sequence of revisions, in the order of the commits. The high 15 bits are the epoch. It rises when the
/// history may have been rewritten, so that no two changes have the same revision; the other 48 bits go on counting without gaps.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(u64);

/// How many bits of a revision count changes. The bits above them are the epoch.
const COUNTER_BITS: u32 = 48;

const COUNTER: u64 = (1 << COUNTER_BITS) - 1;

impl Revision {
    /// Returns the number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the next revision.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns the revision before; the first one has itself.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Returns the epoch, which rises when the history may have been rewritten.
    pub const fn epoch(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Returns the same count of changes in the first epoch after this one and that of `known`.
    #[must_use]
    pub const fn in_next_epoch(self, known: Self) -> Self {
        let (own, known) = (self.epoch(), known.epoch());
        let epoch = if own < known { known } else { own };
        Self(((epoch + 1) << COUNTER_BITS) | (self.0 & COUNTER))
    }

    /// Returns how many changes there were after `earlier`, also in other epochs; 0 if `earlier` is later.
    pub const fn changes_since(self, earlier: Self) -> u64 {
        (self.0 & COUNTER).saturating_sub(earlier.0 & COUNTER)
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

/// The identity of an event: its revision, and a random stamp.
///
/// A revision alone is not sufficient. After a failover that lost commits, the next change has the revision of a lost one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The revision.
    pub revision: Revision,
    /// The stamp.
    pub stamp: i64,
}

/// The record of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    /// The time of the change.
    pub time: Timestamp,
    /// The key that made the change, and the address that it came from.
    pub actor: Actor,
    /// The kind of the change.
    pub kind: EventKind,
    /// The realm, partner, project or key that was changed.
    pub subject: Subject,
    /// More facts about the change. Never a secret.
    pub detail: BTreeMap<String, String>,
}

/// The origin of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The key of the caller. `None`: the command line of the server.
    pub key: Option<KeyId>,
    /// The network address of the caller. Empty: the command line of the server.
    pub peer: String,
}

impl Actor {
    /// Returns the actor for changes on the command line of the server.
    pub const fn command_line() -> Self {
        Self {
            key: None,
            peer: String::new(),
        }
    }
}

/// The subject of a change: a realm, or a partner, project or key in the realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The realm.
    pub realm: RealmId,
    /// The partner, or the owner of the project or key.
    pub partner: Option<PartnerId>,
    /// The project.
    pub project: Option<ProjectId>,
    /// The key.
    pub key: Option<KeyId>,
}

impl Subject {
    /// Returns the subject of a change of the authority itself: its built-in realm.
    pub fn authority() -> Self {
        Self {
            realm: RealmId::built_in(),
            partner: None,
            project: None,
            key: None,
        }
    }
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The authority was created, with its first operator key.
    AuthorityCreated,
    /// A key was issued.
    KeyIssued,
    /// A key of another system was imported.
    KeyImported,
    /// A key was updated.
    KeyUpdated,
    /// A key was disabled.
    KeyDisabled,
    /// A key was enabled.
    KeyEnabled,
    /// A key got a new secret.
    KeyRotated,
    /// One of a key's two secrets was removed.
    RotationEnded,
    /// A key was revoked.
    KeyRevoked,
    /// A key was deleted.
    KeyDeleted,
    /// Many keys were revoked at once.
    KeysRevoked,
    /// A realm was created or changed.
    RealmPut,
    /// A realm was deleted.
    RealmDeleted,
    /// A partner was created or changed.
    PartnerPut,
    /// A partner was deleted.
    PartnerDeleted,
    /// A project was created or changed.
    ProjectPut,
    /// A project was deleted.
    ProjectDeleted,
    /// The length of the leases of servers was set.
    LeaseSet,
    /// The time of the authority was set to that of a clock.
    ClockSet,
    /// A change was the first one in another database, so that earlier changes may be lost.
    EpochBegan,
    /// A server found that changes were lost, and recorded what it knew to be taken away.
    HistoryRewritten,
    /// An operator accepted the loss of changes.
    HistoryAccepted,
}

impl EventKind {
    /// Whether a key came into being, which bulk revocations of the time before do not apply to.
    pub const fn creates_key(self) -> bool {
        match self {
            Self::AuthorityCreated | Self::KeyIssued | Self::KeyImported => true,
            Self::KeyUpdated
            | Self::KeyDisabled
            | Self::KeyEnabled
            | Self::KeyRotated
            | Self::RotationEnded
            | Self::KeyRevoked
            | Self::KeyDeleted
            | Self::KeysRevoked
            | Self::RealmPut
            | Self::RealmDeleted
            | Self::PartnerPut
            | Self::PartnerDeleted
            | Self::ProjectPut
            | Self::ProjectDeleted
            | Self::LeaseSet
            | Self::ClockSet
            | Self::EpochBegan
            | Self::HistoryRewritten
            | Self::HistoryAccepted => false,
        }
    }

    /// All kinds.
    pub const ALL: [Self; 22] = [
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
        Self::LeaseSet,
        Self::ClockSet,
        Self::EpochBegan,
        Self::HistoryRewritten,
        Self::HistoryAccepted,
    ];

    /// Returns the name on the wire and in the store.
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
            Self::LeaseSet => "lease.set",
            Self::ClockSet => "clock.set",
            Self::EpochBegan => "epoch.began",
            Self::HistoryRewritten => "history.rewritten",
            Self::HistoryAccepted => "history.accepted",
        }
    }

    /// Returns the kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The detail of an event [`EventKind::PartnerPut`] that says what the change did to the suspension of the partner;
/// absent if it left the suspension as it was.
pub const SUSPENSION: &str = "suspension";

/// What a change does to the suspension of a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspension {
    /// The partner is suspended from then on.
    Began,
    /// The partner is no longer suspended.
    Ended,
}

impl Suspension {
    /// Returns the value of the detail [`SUSPENSION`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Ended => "ended",
        }
    }
}

/// A kind of events as people look for it: a kind of change, or a part of the changes of one kind.
///
/// The parts are not stored as kinds of their own, because a server of an earlier version that shares the database
/// would not be able to read such an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoughtKind {
    /// All changes of a kind.
    Every(EventKind),
    /// The changes of partners that began or ended a suspension.
    Suspension(Suspension),
}

impl SoughtKind {
    /// The number of kinds.
    pub const COUNT: usize = EventKind::ALL.len() + 2;

    /// All kinds; a part of a kind follows the kind.
    pub fn all() -> impl Iterator<Item = Self> {
        EventKind::ALL.into_iter().flat_map(|kind| {
            let parts: &[Suspension] = match kind {
                EventKind::PartnerPut => &[Suspension::Began, Suspension::Ended],
                _ => &[],
            };
            let parts = parts.iter().copied().map(Self::Suspension);
            std::iter::once(Self::Every(kind)).chain(parts)
        })
    }

    /// Returns the name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Every(kind) => kind.as_str(),
            Self::Suspension(Suspension::Began) => "partner.suspended",
            Self::Suspension(Suspension::Ended) => "partner.restored",
        }
    }

    /// Returns the kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.as_str() == name)
    }

    /// Returns the narrowest kind of an event with this kind and these details.
    pub fn narrowest<'k>(kind: &'k str, suspension: Option<&str>) -> &'k str {
        let mut parts = [Suspension::Began, Suspension::Ended].into_iter();
        let part = parts.find(|part| suspension == Some(part.as_str()));
        match part {
            Some(part) if kind == EventKind::PartnerPut.as_str() => Self::Suspension(part).as_str(),
            _ => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_that_is_sought_has_a_name_of_its_own() {
        let kinds: Vec<_> = SoughtKind::all().collect();
        assert_eq!(kinds.len(), SoughtKind::COUNT);
        for kind in kinds {
            assert_eq!(SoughtKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(SoughtKind::parse("partner.ended"), None);
        // An earlier version that shares the database reads only these.
        assert_eq!(EventKind::parse("partner.suspended"), None);
    }

    #[test]
    fn only_a_put_of_a_partner_is_a_suspension() {
        for (kind, suspension, narrowest) in [
            ("partner.put", Some("began"), "partner.suspended"),
            ("partner.put", Some("ended"), "partner.restored"),
            ("partner.put", Some("other"), "partner.put"),
            ("partner.put", None, "partner.put"),
            ("realm.put", Some("began"), "realm.put"),
        ] {
            assert_eq!(SoughtKind::narrowest(kind, suspension), narrowest);
        }
    }
}
