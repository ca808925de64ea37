//! Partners, and what belongs to them.

use super::ids::{PartnerId, ProjectId, RealmId};

/// An account that owns keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// The realm that it is in.
    pub realm: RealmId,
    /// Its name there.
    pub id: PartnerId,
    /// For people.
    pub display_name: String,
    /// Whether its keys are refused at present.
    pub suspended: bool,
}

/// Something of a partner that keys may be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The realm that it is in.
    pub realm: RealmId,
    /// Its name there, unique in the realm.
    pub id: ProjectId,
    /// The partner that it belongs to, for ever.
    pub partner: PartnerId,
    /// For people.
    pub display_name: String,
}
