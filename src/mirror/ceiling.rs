//! What a key has at most.

use std::sync::Arc;

use super::key_facts::PackedFacts;
use crate::domain::ids::ScopeName;

/// What a key has at most, whatever the store says, because more was taken from it in a history that is lost.
pub(super) enum Ceiling {
    /// The key was revoked or deleted.
    Revoked,
    /// What the key had.
    Facts {
        facts: PackedFacts,
        /// The scopes that followed from it by the hierarchy of that time.
        scopes: Arc<[ScopeName]>,
    },
}
