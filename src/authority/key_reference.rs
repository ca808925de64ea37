//! How a request names a key.

use crate::domain::ids::{KeyId, PartnerId};

/// The key that a request is about.
#[derive(Clone, Debug)]
pub struct KeyReference {
    /// The id of the key.
    pub id: KeyId,
    /// The partner that must own the key; `None` if any partner may.
    pub partner: Option<PartnerId>,
}

impl KeyReference {
    /// Whether this partner may own the key.
    pub(super) fn allows(&self, owner: &PartnerId) -> bool {
        self.partner.as_ref().is_none_or(|partner| partner == owner)
    }
}

impl From<KeyId> for KeyReference {
    fn from(id: KeyId) -> Self {
        Self { id, partner: None }
    }
}
