//! Requests that may be sent again: what was done for them is answered, not done twice.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::issue::pepper_missing;
use super::keys::visible;
use super::{Authority, Caller, Done, PATIENCE, Refusal, Standing};
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::key::Key;
use crate::domain::key_text::PlainKey;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::store::{AnsweredRequest, Change, Error, Snapshot};

/// For how long an answer is kept.
pub(super) const KEPT: Duration = Duration::from_hours(24);

/// Which request this is, so that it is known again.
#[derive(Clone, Debug)]
pub struct Once {
    /// Its name.
    pub id: RequestId,
    /// The SHA-256 of what it asks.
    pub fingerprint: [u8; 32],
}

/// A key and its new text, or if the request was answered before, the key as it is now.
pub struct Made {
    /// The key.
    pub key: Key,
    /// Its text; none if it was told before, since it is kept nowhere.
    pub plain: Option<PlainKey>,
}

impl Made {
    pub(super) fn now(key: Key, plain: PlainKey) -> Self {
        Self {
            key,
            plain: Some(plain),
        }
    }
}

impl Authority {
    /// What was done for this request before, and at which revision.
    pub(super) async fn done_before<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        once: Option<&Once>,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<Option<(T, Revision)>, Refusal> {
        let Some(once) = once else {
            return Ok(None);
        };
        let found = snapshot.find_request(caller.holder.key, once.id).await?;
        let Some(found) = found.filter(|found| now.since(found.at) < KEPT) else {
            return Ok(None);
        };
        if !self
            .peppers
            .is_of_request(&found.fingerprint, &once.fingerprint)
        {
            let mut bad = Violations::default();
            bad.add(
                "request_id",
                "was used within the last 24 hours for another request: each needs one of its own",
            );
            return bad.finish(None).map_err(Refusal::Invalid);
        }
        let result = serde_json::from_str(&found.result)
            .map_err(|_| Error::Corrupt("an answered request".to_owned()))?;
        // What was answered then holds here: also where another server answered it.
        self.mirror
            .wait_for(found.revision, PATIENCE)
            .await
            .map_err(|_| Refusal::Behind)?;
        Ok(Some((result, found.revision)))
    }

    /// The same for a request that made something of a key.
    pub(super) async fn made_before(
        &self,
        caller: &Caller,
        standing: &Standing,
        once: Option<&Once>,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<Option<Done<Made>>, Refusal> {
        let before = self.done_before(caller, once, snapshot, now).await?;
        let Some((id, revision)): Option<(KeyId, _)> = before else {
            return Ok(None);
        };
        let key = match visible(snapshot, &standing.role, id).await {
            Err(Refusal::NotFound(_)) => {
                return Err(Refusal::Precondition {
                    reason: "KEY_DELETED",
                    message: "this request was done before, and its key has been deleted since"
                        .to_owned(),
                });
            }
            found => found?,
        };
        let made = Made { key, plain: None };
        Ok(Some(self.done(made, revision)))
    }

    /// Keeps what this change answers to the request, if it may be sent again.
    pub(super) async fn remember<T: Serialize + Sync>(
        &self,
        caller: &Caller,
        once: Option<Once>,
        change: &mut Change,
        result: &T,
    ) -> Result<(), Refusal> {
        let Some(Once { id, fingerprint }) = once else {
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
            .insert_request(caller.holder.key, id, &answered)
            .await?;
        Ok(())
    }
}
