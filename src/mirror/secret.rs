//! A secret in the mirror.

use crate::domain::key::Digest;
use crate::domain::time::{Expiry, Timestamp};
use crate::store::StoredSecret;

/// The facts of a key's secret that decisions need.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MirroredSecret {
    /// The keyed digest that proves the secret.
    pub digest: Digest,
    /// When the secret was created. It identifies the secret: no two secrets of a key have the same time.
    pub created_at: Timestamp,
    /// When the secret stops working.
    pub expires_at: Expiry,
    /// Whether the secret belongs to an imported key, which is found by its digest.
    pub imported: bool,
}

impl From<&StoredSecret> for MirroredSecret {
    fn from(stored: &StoredSecret) -> Self {
        let StoredSecret {
            digest,
            created_at,
            expires_at,
            imported,
            ..
        } = *stored;
        Self {
            digest,
            created_at,
            expires_at,
            imported,
        }
    }
}
