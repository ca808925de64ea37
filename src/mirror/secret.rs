//! A secret as the mirror holds it.

use crate::domain::key::Digest;
use crate::domain::time::{Expiry, Timestamp};
use crate::store::StoredSecret;

/// What decides about a secret of a key.
#[derive(Clone)]
pub struct MirroredSecret {
    /// The keyed digest that proves it.
    pub digest: Digest,
    /// When it was made. No two secrets of a key share this time.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Expiry,
    /// Whether it came with an imported key, which is found by its digest.
    pub imported: bool,
}

impl From<&StoredSecret> for MirroredSecret {
    fn from(stored: &StoredSecret) -> Self {
        let StoredSecret {
            digest,
            created_at,
            expires_at,
            imported,
        } = *stored;
        Self {
            digest,
            created_at,
            expires_at,
            imported,
        }
    }
}
