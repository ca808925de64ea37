//! Many keys ended at once.

use super::event::Revision;
use super::ids::{EnvironmentName, PartnerId, ProjectId, RealmId};
use super::time::Timestamp;

/// Ends for ever all keys that it names and that were issued before a revision: a rule, not a list, so that it takes no longer
/// for many keys than for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkRevocation {
    /// Of this realm.
    pub realm: RealmId,
    /// Of this partner; none is all.
    pub partner: Option<PartnerId>,
    /// Of this project of the partner; none is all.
    pub project: Option<ProjectId>,
    /// Of this environment; none is all.
    pub environment: Option<EnvironmentName>,
    /// Those that were issued at an earlier revision than this.
    pub before: Revision,
    /// When it was done.
    pub at: Timestamp,
    /// Why, in the words of who did it.
    pub reason: String,
}
