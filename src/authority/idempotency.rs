//! Idempotency: a repeated request gets the answer of the first one and changes nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::visible;
use super::secret::pepper_missing;
use super::two_pass::Pass;
use super::{Authority, ChangeRequest, Refusal};
use crate::auth::{Principal, Purpose};
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::key::Key;
use crate::domain::key_text::PlainKey;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::store::{AnsweredRequest, Change, Error, Snapshot};

/// The identity of a request that its caller may repeat. Each caller has its own.
#[derive(Clone, Debug)]
pub(super) struct IdempotencyKey {
    /// The id that the caller chose for the request.
    id: RequestId,
    /// The SHA-256 of the method and the request.
    fingerprint: [u8; 32],
}

impl ChangeRequest {
    /// Returns the key under which the answer is recorded, or `None` if the request has no id.
    pub(super) fn idempotency_key(&self, fingerprint: [u8; 32]) -> Option<IdempotencyKey> {
        let id = self.request_id?;
        Some(IdempotencyKey { id, fingerprint })
    }
}

/// A key and the API key that was issued for it.
pub struct IssuedKey {
    /// The key.
    pub key: Key,
    /// The API key. `None` in the answer to a repeated request, because the API key is not stored.
    pub plain_key: Option<PlainKey>,
}

impl IssuedKey {
    pub(super) fn new(key: Key, plain_key: PlainKey) -> Self {
        Self {
            key,
            plain_key: Some(plain_key),
        }
    }
}

/// Returns the answer to a repeated request that issued or rotated this key.
pub(super) async fn replayed_key(pass: Pass<'_>, id: KeyId) -> Result<IssuedKey, Refusal> {
    let role = &pass.caller_state.role;
    match visible(pass.snapshot, role, &id.into(), Purpose::Change).await {
        Ok(key) => Ok(IssuedKey {
            key,
            plain_key: None,
        }),
        Err(Refusal::NotFound(_)) => Err(Refusal::Precondition {
            reason: "KEY_DELETED",
            message: "the key of this repeated request was deleted after the first answer: issue another key with a new \
                      `request_id`"
                .to_owned(),
        }),
        Err(refusal) => Err(refusal),
    }
}

impl Authority {
    /// Returns the recorded answer to this request and its revision, or `None` if the request is new. The answer is good once
    /// [`in_force`](Self::in_force) returns.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] if the caller used the id for another request.
    pub(super) async fn replayed<T: DeserializeOwned>(
        &self,
        principal: &Principal,
        idempotency: Option<&IdempotencyKey>,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<Option<(T, Revision)>, Refusal> {
        let Some(idempotency) = idempotency else {
            return Ok(None);
        };
        let found = snapshot.find_request(principal.key, idempotency.id).await?;
        let Some(found) = found.filter(|found| now.since(found.at) < AnsweredRequest::LIFETIME)
        else {
            return Ok(None);
        };
        if !self
            .peppers
            .is_of_request(&found.fingerprint, &idempotency.fingerprint)
        {
            let mut bad = Violations::default();
            bad.add(
                "request_id",
                "was used within the last 24 hours for another request: choose a new UUID",
            );
            return bad.finish(None).map_err(Refusal::Invalid);
        }
        let result = serde_json::from_str(&found.result)
            .map_err(|_| Error::Corrupt("an answered request".to_owned()))?;
        Ok(Some((result, found.revision)))
    }

    /// Records the answer of this change, if the request has an id.
    pub(super) async fn record_answer<T: Serialize + Sync>(
        &self,
        principal: &Principal,
        idempotency: Option<IdempotencyKey>,
        change: &mut Change,
        result: &T,
    ) -> Result<(), Refusal> {
        let Some(IdempotencyKey { id, fingerprint }) = idempotency else {
            return Ok(());
        };
        let fingerprint = self
            .peppers
            .digest_request(change.pepper(), &fingerprint)
            .ok_or_else(pepper_missing)?;
        let answered = AnsweredRequest {
            at: change.time(),
            fingerprint: fingerprint.to_vec(),
            revision: change.revision(),
            result: serde_json::to_string(result).expect("an answer is JSON"),
        };
        change.insert_request(principal.key, id, &answered).await?;
        Ok(())
    }
}
