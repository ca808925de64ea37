//! New secrets of keys.

use std::sync::Arc;

use super::{Authority, Refusal, not_found};
use crate::auth::CallerGroup;
use crate::domain::key::{Key, Secret};
use crate::domain::key_text::{PlainKey, SecretBytes};
use crate::domain::realm::Realm;
use crate::domain::time::Expiry;
use crate::hashing::{Peppers, Roots, random};
use crate::store::Change;

/// A random secret and its Argon2 root. The root is slow to compute, so this happens before a change starts.
pub(super) struct NewSecret {
    bytes: Arc<SecretBytes>,
    /// The Argon2 root of the secret.
    pub(super) root: String,
}

impl NewSecret {
    pub(super) async fn make(roots: &Roots) -> Self {
        let bytes = Arc::new(SecretBytes::new(random()));
        let root = roots.make(Arc::clone(&bytes)).await;
        Self { bytes, root }
    }

    /// Adds the secret to a key as its newest secret, and returns the API key.
    pub(super) fn add_to(
        &self,
        key: &mut Key,
        realm: &Realm,
        change: &Change,
        peppers: &Peppers,
    ) -> Result<PlainKey, Refusal> {
        let environment = realm
            .environment(key.environment.as_str())
            .ok_or(Refusal::NotFound(not_found::ENVIRONMENT_OF_KEY))?;
        let plain_key = PlainKey::new(&realm.prefix, &environment.tag, key.id, &self.bytes);
        let digest = peppers
            .digest(change.pepper(), key.id, &self.bytes)
            .ok_or_else(pepper_missing)?;
        key.hint = plain_key.hint();
        key.secrets.push(Secret {
            digest,
            created_at: change.time(),
            expires_at: Expiry::Never,
            imported: false,
            hint: String::new(),
            last_use: None,
        });
        Ok(plain_key)
    }
}

impl Authority {
    pub(super) async fn new_secret(&self, group: &CallerGroup) -> Result<NewSecret, Refusal> {
        let _permit = self.hash_permit(group).await?;
        Ok(NewSecret::make(&self.roots).await)
    }
}

pub(super) fn pepper_missing() -> Refusal {
    Refusal::Precondition {
        reason: "PEPPER_MISSING",
        message: "the server's pepper file lacks the version for new keys: put the right pepper file back and restart the server"
            .to_owned(),
    }
}
