//! Partners and their projects.

use super::ids::{PartnerId, ProjectId, RealmId};

/// An account in a realm. It owns keys and projects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// The realm.
    pub realm: RealmId,
    /// The partner's identifier, unique in the realm.
    pub id: PartnerId,
    /// The display name.
    pub display_name: String,
    /// Whether the partner is suspended, so that its keys are denied.
    pub suspended: bool,
}

/// Something of a partner that keys may be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The realm.
    pub realm: RealmId,
    /// The project's identifier, unique in the realm.
    pub id: ProjectId,
    /// The partner that owns the project. It never changes.
    pub partner: PartnerId,
    /// The display name.
    pub display_name: String,
}
