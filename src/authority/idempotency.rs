//! Idempotency: a repeated request is answered and not done twice.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::visible;
use super::secret::pepper_missing;
use super::two_pass::Pass;
use super::{APPLY_TIMEOUT, Authority, AuthorizedCaller, ChangeRequest, Refusal};
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::key::Key;
use crate::domain::key_text::PlainKey;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::store::{AnsweredRequest, Change, Error, Snapshot};

/// For how long an answer is kept.
const RETENTION: Duration = Duration::from_hours(24);

/// What identifies a request that may be sent again, besides its caller.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The caller's own id of the request.
    pub id: RequestId,
    /// The SHA-256 of the method and the request.
    pub fingerprint: [u8; 32],
}

impl ChangeRequest {
    /// The key under which the answer is kept, if the request has an id.
    pub fn idempotency_key(&self, fingerprint: [u8; 32]) -> Option<IdempotencyKey> {
        let id = self.request_id?;
        Some(IdempotencyKey { id, fingerprint })
    }
}

/// A key together with the API key that was just made for it.
pub struct IssuedKey {
    /// The key.
    pub key: Key,
    /// The API key. `None` when a repeated request is answered, because it is kept nowhere.
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

/// The answer to a repeated request that issued or rotated this key.
pub(super) async fn replayed_key(pass: Pass<'_>, id: KeyId) -> Result<IssuedKey, Refusal> {
    match visible(pass.snapshot, &pass.caller_state.role, id).await {
        Ok(key) => Ok(IssuedKey {
            key,
            plain_key: None,
        }),
        Err(Refusal::NotFound(_)) => Err(Refusal::Precondition {
            reason: "KEY_DELETED",
            message: "this request was answered before, and its key was deleted since: send a new request_id to make another key"
                .to_owned(),
        }),
        Err(refusal) => Err(refusal),
    }
}

impl Authority {
    /// What was kept of the answer to this request, and the revision of that answer.
    pub(super) async fn replayed<T: DeserializeOwned>(
        &self,
        caller: &AuthorizedCaller,
        idempotency: Option<&IdempotencyKey>,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<Option<(T, Revision)>, Refusal> {
        let Some(idempotency) = idempotency else {
            return Ok(None);
        };
        let found = snapshot
            .find_request(caller.principal.key, idempotency.id)
            .await?;
        let Some(found) = found.filter(|found| now.since(found.at) < RETENTION) else {
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
        // What was answered then holds here: also where another server answered it.
        self.mirror
            .wait_for(found.revision, APPLY_TIMEOUT)
            .await
            .map_err(|_| Refusal::Behind)?;
        Ok(Some((result, found.revision)))
    }

    /// Keeps what this change answers to the request, if it may be sent again.
    pub(super) async fn record_answer<T: Serialize + Sync>(
        &self,
        caller: &AuthorizedCaller,
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
            result: serde_json::to_string(result).expect("what is answered is JSON"),
        };
        change
            .insert_request(caller.principal.key, id, &answered)
            .await?;
        Ok(())
    }
}
