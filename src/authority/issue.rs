//! Issuing a key with its first secret.

use super::audit::{AuditEntry, audit_detail};
use super::idempotency::replayed_key;
use super::resolve::{LookupCache, ResolvedKey, check_external_id};
use super::secret::NewSecret;
use super::two_pass::{Applied, ChangeContext, Pass, Preparation, TwoPassChange};
use super::{Authority, ChangeRequest, ChangeResult, IssuedKey, NewKey, Refusal};
use crate::auth::AuthorizedCaller;
use crate::domain::event::EventKind;
use crate::domain::ids::KeyId;
use crate::store::Change;

impl Authority {
    /// Issues a key. Only the answer contains the API key; it is not stored.
    pub async fn issue_key(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        new: NewKey,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<IssuedKey>, Refusal> {
        new.check_reach(&caller.role)?;
        Box::pin(self.run_two_pass(caller, request, fingerprint, &Issue(new))).await
    }
}

struct Issue(NewKey);

impl TwoPassChange for Issue {
    type Caller = AuthorizedCaller;
    type Record = KeyId;
    type Checked = ResolvedKey;
    type Prepared = NewSecret;
    type Answer = IssuedKey;

    async fn replay(&self, pass: Pass<'_>, id: KeyId) -> Result<IssuedKey, Refusal> {
        replayed_key(pass, id).await
    }

    async fn check(&self, pass: Pass<'_>) -> Result<ResolvedKey, Refusal> {
        let Pass {
            snapshot,
            principal: _,
            caller_state,
            now,
        } = pass;
        let resolved = self
            .0
            .resolve(
                Some(caller_state),
                snapshot,
                &mut LookupCache::default(),
                now,
            )
            .await?;
        check_external_id(snapshot, &resolved.key).await?;
        Ok(resolved)
    }

    async fn prepare(
        &self,
        authority: &Authority,
        caller: &AuthorizedCaller,
        _: ResolvedKey,
    ) -> Result<Preparation<NewSecret, IssuedKey>, Refusal> {
        let secret = authority.new_secret(&caller.group()).await?;
        Ok(Preparation::Ready(secret))
    }

    async fn apply(
        &self,
        authority: &Authority,
        change: &mut Change,
        _: &ChangeContext<'_>,
        resolved: ResolvedKey,
        secret: NewSecret,
    ) -> Result<Applied<Self>, Refusal> {
        let (key, plain_key) = resolved.with_secret(change, &authority.peppers, &secret)?;
        change.insert_key(&key).await?;
        change
            .insert_root(key.id, &key.secrets[0], &secret.root)
            .await?;
        Ok(Applied::Changed {
            record: key.id,
            entry: AuditEntry::of_key(EventKind::KeyIssued, &key, audit_detail(&key)),
            answer: IssuedKey::new(key, plain_key),
        })
    }
}
