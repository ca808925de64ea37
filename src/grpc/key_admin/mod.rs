//! The gRPC service `claviger.v1.KeyAdmin`.

mod bulk;
mod filters;
pub(super) mod request;
mod response;
mod usage;

use prost::Message;
use tonic::{Request, Response, Status};

use request::Sought;

use super::{Admin, encode, page, status};
use crate::auth::{AuthError, Purpose};
use crate::authority::{EntryRefusal, ImportOutcomes, Page, Read};
use crate::domain::clock::Clock;
use crate::domain::ids::KeyId;
use crate::domain::key::Key;
use crate::domain::violation::Violations;
use crate::pb::claviger::v1 as pb;
use crate::verify::VerifyError;

/// The maximum number of keys that `FindKey` returns. They fit into an answer, however large they are.
const MAX_FOUND: u32 = 20;

/// The service that administers keys and reads the audit trail.
pub struct KeyAdminService {
    admin: Admin,
    clock: Clock,
}

impl KeyAdminService {
    /// Creates the service. The state of a key in an answer depends on `clock`.
    pub fn new(admin: Admin, clock: Clock) -> Self {
        Self { admin, clock }
    }

    fn key(&self, key: Key) -> pb::Key {
        let suspended = self.admin.authority.is_suspended(&key.realm, &key.partner);
        response::key(key, self.clock.now(), suspended)
    }

    fn keys(&self, keys: Vec<Key>) -> Vec<pb::Key> {
        keys.into_iter().map(|key| self.key(key)).collect()
    }
}

#[tonic::async_trait]
impl pb::key_admin_server::KeyAdmin for KeyAdminService {
    async fn issue_key(
        &self,
        request: Request<pb::IssueKeyRequest>,
    ) -> Result<Response<pb::IssueKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let fingerprint = fingerprint!("IssueKey", message);
        let (new, change_request) = request::new_key(message, self.clock.now())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .issue_key(&caller, &change_request, new, fingerprint)
                    .await
            })
            .await?;
        issued!(IssueKeyResponse, result, key: |key| self.key(key))
    }

    async fn get_key(
        &self,
        request: Request<pb::GetKeyRequest>,
    ) -> Result<Response<pb::GetKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let key = request::get(request.into_inner())?;
        let read = self
            .admin
            .run(move |authority| async move { authority.get_key(&caller, &key).await })
            .await?;
        Ok(Response::new(pb::GetKeyResponse {
            key: Some(self.key(read.value)),
            revision: read.revision.as_u64(),
        }))
    }

    async fn list_keys(
        &self,
        request: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let page_token = std::mem::take(&mut message.page_token);
        let page_size = std::mem::take(&mut message.page_size);
        let with_total = std::mem::take(&mut message.with_total);
        let filters = message.encode_to_vec();
        let mut bad = Violations::default();
        let cursor = self
            .admin
            .pages
            .cursor(&mut bad, &caller, "keys", &filters, &page_token);
        let filter = filters::page_filter(bad, message, page_size, &cursor, self.clock.now())?;
        let now = filter.now;
        // The times of last use are read after the keys. They are a small part of a key's message, for which there is room.
        let mut fit = page::fitting(move |key| response::key(key, now, true));
        let take = move |key: Key| fit(key.clone()).map(|_| key);
        let allowed = caller.role.may_use_keys(Purpose::Read);
        let (permit, read) = self
            .admin
            .list(&caller, allowed, |authority, caller| async move {
                authority.list_keys(&caller, filter, with_total, take).await
            })
            .await?;
        let (Page { items, next }, total) = read.value;
        Ok(permit.answer(pb::ListKeysResponse {
            keys: self.keys(items),
            next_page_token: self.admin.pages.token(&caller, "keys", &filters, next),
            revision: read.revision.as_u64(),
            total: total.map(|total| total.count),
            more_than_total: total.is_some_and(|total| total.is_more),
        }))
    }

    async fn find_key(
        &self,
        request: Request<pb::FindKeyRequest>,
    ) -> Result<Response<pb::FindKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        caller.role.may_use_keys(Purpose::Read)?;
        let (keys, more) = match request::find(request.into_inner())? {
            Sought::PlainKey(plain_key) => {
                let reads_everything = caller.role.may_read_everything().is_ok();
                let proven =
                    match self.admin.authenticator.prove(&plain_key, None) {
                        Ok(proven) => Some(proven.key),
                        Err(AuthError::Unauthenticated(_)) => None,
                        // A text with the id of any key leads here, also without its secret.
                        Err(AuthError::Verify(
                            VerifyError::Corrupt | VerifyError::PepperMissing,
                        )) if !reads_everything => None,
                        Err(other) => return Err(other.into()),
                    };
                let found = self.admin.run(move |authority| async move {
                    authority.find_proven(&caller, proven).await
                });
                (vec![found.await?.value], false)
            }
            Sought::Hint(hint) => {
                let found = self.admin.run(move |authority| async move {
                    authority.find_hint(&caller, &hint, MAX_FOUND).await
                });
                found.await?
            }
        };
        Ok(Response::new(pb::FindKeyResponse {
            keys: self.keys(keys),
            more,
        }))
    }

    async fn get_key_scopes(
        &self,
        request: Request<pb::GetKeyScopesRequest>,
    ) -> Result<Response<pb::GetKeyScopesResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let key = request::get_scopes(request.into_inner())?;
        let read = self
            .admin
            .run(move |authority| async move { authority.key_scopes(&caller, &key).await })
            .await?;
        Ok(Response::new(pb::GetKeyScopesResponse {
            granted: encode::scope_names(&read.value.granted),
            effective: encode::scope_names(&read.value.effective),
            full_access: read.value.full_access,
            revision: read.revision.as_u64(),
        }))
    }

    async fn disable_key(
        &self,
        request: Request<pb::DisableKeyRequest>,
    ) -> Result<Response<pb::DisableKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (key, change_request, if_revision) = request::disable(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .disable_key(&caller, &change_request, &key, if_revision)
                    .await
            })
            .await?;
        changed!(DisableKeyResponse, result, key: |key| self.key(key))
    }

    async fn enable_key(
        &self,
        request: Request<pb::EnableKeyRequest>,
    ) -> Result<Response<pb::EnableKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (key, change_request, if_revision) = request::enable(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .enable_key(&caller, &change_request, &key, if_revision)
                    .await
            })
            .await?;
        changed!(EnableKeyResponse, result, key: |key| self.key(key))
    }

    async fn revoke_key(
        &self,
        request: Request<pb::RevokeKeyRequest>,
    ) -> Result<Response<pb::RevokeKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (key, change_request, reason) = request::revocation(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .revoke_key(&caller, &change_request, &key, reason)
                    .await
            })
            .await?;
        changed!(RevokeKeyResponse, result, key: |key| self.key(key))
    }

    async fn update_key(
        &self,
        request: Request<pb::UpdateKeyRequest>,
    ) -> Result<Response<pb::UpdateKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (key, change_request, if_revision, update) = request::update(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .update_key(&caller, &change_request, &key, if_revision, update)
                    .await
            })
            .await?;
        changed!(UpdateKeyResponse, result, key: |key| self.key(key))
    }

    async fn rotate_key(
        &self,
        request: Request<pb::RotateKeyRequest>,
    ) -> Result<Response<pb::RotateKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let fingerprint = fingerprint!("RotateKey", message);
        let (key, change_request, if_revision, rotation) = request::rotation(message)?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .rotate_key(
                        &caller,
                        &change_request,
                        key,
                        if_revision,
                        rotation,
                        fingerprint,
                    )
                    .await
            })
            .await?;
        issued!(RotateKeyResponse, result, key: |key| self.key(key))
    }

    async fn end_rotation(
        &self,
        request: Request<pb::EndRotationRequest>,
    ) -> Result<Response<pb::EndRotationResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (key, change_request, if_revision, keep) =
            request::end_of_rotation(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .end_rotation(&caller, &change_request, &key, if_revision, keep)
                    .await
            })
            .await?;
        changed!(EndRotationResponse, result, key: |key| self.key(key))
    }

    async fn revoke_keys(
        &self,
        request: Request<pb::RevokeKeysRequest>,
    ) -> Result<Response<pb::RevokeKeysResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let fingerprint = fingerprint!("RevokeKeys", message);
        let answer = self.revoke_all(caller, message, fingerprint).await?;
        Ok(Response::new(answer))
    }

    async fn get_self(
        &self,
        request: Request<pb::GetSelfRequest>,
    ) -> Result<Response<pb::GetSelfResponse>, Status> {
        let holder = self.admin.holder(&request).await?;
        let pb::GetSelfRequest {} = request.into_inner();
        let read = self
            .admin
            .run(move |authority| async move { authority.get_self(&holder).await })
            .await?;
        Ok(Response::new(pb::GetSelfResponse {
            key: Some(response::own_key(self.key(read.value))),
            revision: read.revision.as_u64(),
        }))
    }

    async fn rotate_self(
        &self,
        request: Request<pb::RotateSelfRequest>,
    ) -> Result<Response<pb::RotateSelfResponse>, Status> {
        let holder = self.admin.holder(&request).await?;
        let mut message = request.into_inner();
        let fingerprint = fingerprint!("RotateSelf", message);
        let (change_request, overlap) = request::self_rotation(message)?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .rotate_self(&holder, &change_request, overlap, fingerprint)
                    .await
            })
            .await?;
        issued!(RotateSelfResponse, result, key: |key| response::own_key(self.key(key)))
    }

    async fn revoke_self(
        &self,
        request: Request<pb::RevokeSelfRequest>,
    ) -> Result<Response<pb::RevokeSelfResponse>, Status> {
        let holder = self.admin.holder_of_any_key(&request)?;
        let (change_request, reason) = request::self_revocation(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .revoke_self(&holder, &change_request, reason)
                    .await
            })
            .await?;
        changed!(RevokeSelfResponse, result, key: |key| response::self_revoked_key(self.key(key)))
    }

    async fn import_keys(
        &self,
        request: Request<pb::ImportKeysRequest>,
    ) -> Result<Response<pb::ImportKeysResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let fingerprint = fingerprint!("ImportKeys", message);
        let is_dry_run = message.dry_run;
        let (realm, change_request, entries) = request::import(message, self.clock.now())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .import_keys(
                        &caller,
                        &change_request,
                        realm,
                        entries,
                        is_dry_run,
                        fingerprint,
                    )
                    .await
            })
            .await?;
        let ImportOutcomes { outcomes, replayed } = result.value;
        Ok(Response::new(pb::ImportKeysResponse {
            results: outcomes.into_iter().map(import_result).collect(),
            revision: result.revision.as_u64(),
            effective_everywhere_time: (!is_dry_run).then(|| encode::time(result.effective_at)),
            confirmed: !is_dry_run && result.is_everywhere,
            replayed,
        }))
    }

    async fn get_key_usage(
        &self,
        request: Request<pb::GetKeyUsageRequest>,
    ) -> Result<Response<pb::GetKeyUsageResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (key, hours) = usage::key_and_hours(request.into_inner(), self.clock.now())?;
        let usage = self
            .admin
            .run(move |authority| async move { authority.key_usage(&caller, &key, hours).await })
            .await?;
        Ok(Response::new(usage::of_key(usage)))
    }

    async fn get_usage(
        &self,
        request: Request<pb::GetUsageRequest>,
    ) -> Result<Response<pb::GetUsageResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (filter, ranking) = usage::filter_and_ranking(request.into_inner(), self.clock.now())?;
        // An answer of many hours is as large as a page.
        let allowed = caller.role.may_use_keys(Purpose::Read);
        let (permit, usage) = self
            .admin
            .list(&caller, allowed, |authority, caller| async move {
                authority.owner_usage(&caller, filter, ranking).await
            })
            .await?;
        Ok(permit.answer(usage::of_owners(usage, ranking.by)))
    }

    async fn delete_key(
        &self,
        request: Request<pb::DeleteKeyRequest>,
    ) -> Result<Response<pb::DeleteKeyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (key, change_request) = request::delete(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority.delete_key(&caller, &change_request, &key).await
            })
            .await?;
        Ok(Response::new(pb::DeleteKeyResponse {
            key: result.value.map(|key| self.key(key)),
            revision: result.revision.as_u64(),
            effective_everywhere_time: Some(encode::time(result.effective_at)),
            confirmed: result.is_everywhere,
        }))
    }

    async fn delete_keys(
        &self,
        request: Request<pb::DeleteKeysRequest>,
    ) -> Result<Response<pb::DeleteKeysResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let fingerprint = fingerprint!("DeleteKeys", message);
        let answer = self.delete_all(caller, message, fingerprint).await?;
        Ok(Response::new(answer))
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let page_token = std::mem::take(&mut message.page_token);
        let page_size = std::mem::take(&mut message.page_size);
        let filters = message.encode_to_vec();
        let mut bad = Violations::default();
        let cursor = self
            .admin
            .pages
            .cursor(&mut bad, &caller, "events", &filters, &page_token);
        let filter = filters::event_filter(bad, message, page_size, &cursor)?;
        let take = page::fitting(response::event);
        let allowed = caller.role.may_read_events(filter.realm.as_ref());
        if let Some(after) = filter.after {
            allowed?;
            self.admin.wait_for_change(&caller, after).await;
        }
        let (permit, page) = self
            .admin
            .list(&caller, allowed, |authority, caller| async move {
                authority.list_events(&caller, filter, take).await
            })
            .await?;
        let Read { value, revision } = page;
        let Page { items, next } = value;
        Ok(permit.answer(pb::ListEventsResponse {
            events: items,
            next_page_token: self.admin.pages.token(&caller, "events", &filters, next),
            revision: revision.as_u64(),
        }))
    }
}

fn import_result(outcome: Result<Option<KeyId>, EntryRefusal>) -> pb::ImportResult {
    use pb::import_result::Result::{Error, KeyId};
    pb::ImportResult {
        result: Some(match outcome {
            Ok(id) => KeyId(id.as_ref().map(ToString::to_string).unwrap_or_default()),
            Err(refusal) => Error(status::as_message(&status::not_imported(refusal))),
        }),
    }
}
