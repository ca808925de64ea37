//! Bulk revocations.

use super::event::Revision;
use super::ids::{EnvironmentName, PartnerId, ProjectId, RealmId};
use super::time::Timestamp;

/// A rule that revokes all keys of an owner or environment that were issued before a revision. It cannot be undone.
///
/// It is a rule and not a list of keys, so that a revocation of many keys takes no longer than a revocation of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkRevocation {
    /// The realm of the keys.
    pub realm: RealmId,
    /// The partner of the keys. `None`: every partner.
    pub partner: Option<PartnerId>,
    /// The project of the keys. `None`: partner keys and the keys of every project.
    pub project: Option<ProjectId>,
    /// The environment of the keys. `None`: every environment.
    pub environment: Option<EnvironmentName>,
    /// The rule applies to keys that were issued before this revision.
    pub before: Revision,
    /// The time of the revocation.
    pub at: Timestamp,
    /// The reason, as the caller gave it.
    pub reason: String,
}
