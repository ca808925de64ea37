//! `claviger.v1.KeyAdmin`.

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{Admin, callers, convert, fields, key_fields, page, status, usage_fields};
use crate::authority::{Caller, EntryRefusal, Imported, Refusal};
use crate::domain::clock::Clock;
use crate::domain::event::{EventKind, Revision};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::KeyState;
use crate::domain::violation::Violations;
use crate::pb::claviger::v1 as pb;
use crate::store::{EventFilter, KeyFilter};

/// What a request asks, its name included: the same for the same request. When to answer is not part of it.
macro_rules! fingerprint {
    ($method:literal, $asked:ident) => {{
        let wait = std::mem::take(&mut $asked.wait);
        let fingerprint = hash($method, &$asked);
        $asked.wait = wait;
        fingerprint
    }};
}

/// The administration of keys and the audit trail.
pub struct KeyAdminService {
    admin: Admin,
    clock: Clock,
}

impl KeyAdminService {
    /// The clock tells in which state a key is shown.
    pub fn new(admin: Admin, clock: Clock) -> Self {
        Self { admin, clock }
    }
}

#[tonic::async_trait]
impl pb::key_admin_server::KeyAdmin for KeyAdminService {
    async fn issue_key(
        &self,
        request: Request<pb::IssueKeyRequest>,
    ) -> Result<Response<pb::IssueKeyResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let mut asked = request.into_inner();
        let fingerprint = fingerprint!("IssueKey", asked);
        let new = key_fields::new_key(asked, &mut caller.holder, self.clock.now())?;
        let once = caller.holder.once(fingerprint);
        let done = self
            .admin
            .run(caller, |authority, caller| async move {
                authority.issue_key(&caller, new, once).await
            })
            .await?;
        made!(IssueKeyResponse, done, self.clock.now())
    }

    async fn get_key(
        &self,
        request: Request<pb::GetKeyRequest>,
    ) -> Result<Response<pb::GetKeyResponse>, Status> {
        let caller = callers::caller(&self.admin.callers, &request)?;
        let pb::GetKeyRequest { key_id } = request.into_inner();
        let read = self
            .admin
            .authority
            .get_key(&caller, key_fields::key_id(&key_id)?)
            .await?;
        Ok(Response::new(pb::GetKeyResponse {
            key: Some(convert::key(read.value, self.clock.now())),
            revision: read.revision.as_u64(),
        }))
    }

    async fn list_keys(
        &self,
        request: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        let caller = callers::caller(&self.admin.callers, &request)?;
        let mut asked = request.into_inner();
        let page_token = std::mem::take(&mut asked.page_token);
        let page_size = std::mem::take(&mut asked.page_size);
        let filters = asked.encode_to_vec();
        let query = self.key_query(&caller, asked, &filters, page_size, &page_token)?;
        let read = self.admin.authority.list_keys(&caller, query).await?;
        let now = self.clock.now();
        let key = |key| convert::key(key, now);
        let (keys, next) = page::fitting(read.value, key, |key| key.id.clone());
        Ok(Response::new(pb::ListKeysResponse {
            keys,
            next_page_token: self.admin.pages.token(&caller, "keys", &filters, next),
            revision: read.revision.as_u64(),
        }))
    }

    async fn get_key_scopes(
        &self,
        request: Request<pb::GetKeyScopesRequest>,
    ) -> Result<Response<pb::GetKeyScopesResponse>, Status> {
        let caller = callers::caller(&self.admin.callers, &request)?;
        let pb::GetKeyScopesRequest { key_id } = request.into_inner();
        let read = self
            .admin
            .authority
            .key_scopes(&caller, key_fields::key_id(&key_id)?)
            .await?;
        Ok(Response::new(pb::GetKeyScopesResponse {
            granted: convert::words(&read.value.granted),
            effective: convert::words(&read.value.effective),
            full_access: read.value.full_access,
            revision: read.revision.as_u64(),
        }))
    }

    async fn disable_key(
        &self,
        request: Request<pb::DisableKeyRequest>,
    ) -> Result<Response<pb::DisableKeyResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let pb::DisableKeyRequest {
            key_id,
            wait,
            request_id,
        } = request.into_inner();
        let id = key_fields::change_of_key(&key_id, &mut caller.holder, wait, &request_id)?;
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority.disable_key(&caller, id).await
            })
            .await?;
        changed!(DisableKeyResponse, done, key: |key| convert::key(key, self.clock.now()))
    }

    async fn enable_key(
        &self,
        request: Request<pb::EnableKeyRequest>,
    ) -> Result<Response<pb::EnableKeyResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let pb::EnableKeyRequest {
            key_id,
            wait,
            request_id,
        } = request.into_inner();
        let id = key_fields::change_of_key(&key_id, &mut caller.holder, wait, &request_id)?;
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority.enable_key(&caller, id).await
            })
            .await?;
        changed!(EnableKeyResponse, done, key: |key| convert::key(key, self.clock.now()))
    }

    async fn revoke_key(
        &self,
        request: Request<pb::RevokeKeyRequest>,
    ) -> Result<Response<pb::RevokeKeyResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let pb::RevokeKeyRequest {
            key_id,
            reason,
            wait,
            request_id,
        } = request.into_inner();
        let mut bad = Violations::default();
        fields::change(&mut bad, &mut caller.holder, wait, &request_id);
        let reason = fields::reason(&mut bad, "reason", reason);
        let id = bad.check("key_id", KeyId::parse(&key_id));
        let id = bad.finish(id).map_err(Refusal::Invalid)?;
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority.revoke_key(&caller, id, reason).await
            })
            .await?;
        changed!(RevokeKeyResponse, done, key: |key| convert::key(key, self.clock.now()))
    }

    async fn update_key(
        &self,
        request: Request<pb::UpdateKeyRequest>,
    ) -> Result<Response<pb::UpdateKeyResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let (id, update) = key_fields::update(request.into_inner(), &mut caller.holder)?;
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority.update_key(&caller, id, update).await
            })
            .await?;
        changed!(UpdateKeyResponse, done, key: |key| convert::key(key, self.clock.now()))
    }

    async fn rotate_key(
        &self,
        request: Request<pb::RotateKeyRequest>,
    ) -> Result<Response<pb::RotateKeyResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let mut asked = request.into_inner();
        let fingerprint = fingerprint!("RotateKey", asked);
        let (id, overlap) = key_fields::rotation(asked, &mut caller.holder)?;
        let once = caller.holder.once(fingerprint);
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority.rotate_key(&caller, id, overlap, once).await
            })
            .await?;
        made!(RotateKeyResponse, done, self.clock.now())
    }

    async fn end_rotation(
        &self,
        request: Request<pb::EndRotationRequest>,
    ) -> Result<Response<pb::EndRotationResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let (id, survivor) = key_fields::end_of_rotation(request.into_inner(), &mut caller.holder)?;
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority.end_rotation(&caller, id, survivor).await
            })
            .await?;
        changed!(EndRotationResponse, done, key: |key| convert::key(key, self.clock.now()))
    }

    async fn revoke_keys(
        &self,
        request: Request<pb::RevokeKeysRequest>,
    ) -> Result<Response<pb::RevokeKeysResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let mut asked = request.into_inner();
        let fingerprint = fingerprint!("RevokeKeys", asked);
        let is_trial = asked.dry_run;
        let (many, reason) = key_fields::many_keys(asked, &mut caller.holder)?;
        if is_trial {
            let read = self.admin.authority.try_revoke_keys(&caller, many).await?;
            let now = self.clock.now();
            let examples = read.value.examples.into_iter();
            return Ok(Response::new(pb::RevokeKeysResponse {
                would_revoke: read.value.count,
                examples: examples.map(|key| convert::key(key, now)).collect(),
                revision: read.revision.as_u64(),
                effective_everywhere_time: None,
                confirmed: false,
                replayed: false,
            }));
        }
        let once = caller.holder.once(fingerprint);
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority.revoke_keys(&caller, many, reason, once).await
            })
            .await?;
        Ok(Response::new(pb::RevokeKeysResponse {
            would_revoke: 0,
            examples: Vec::new(),
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(convert::time(done.effective_at)),
            confirmed: true,
            replayed: done.value,
        }))
    }

    async fn revoke_self(
        &self,
        request: Request<pb::RevokeSelfRequest>,
    ) -> Result<Response<pb::RevokeSelfResponse>, Status> {
        let (mut holder, owner) = callers::holder(&self.admin.callers, &request)?;
        let reason = key_fields::own_revocation(request.into_inner(), &mut holder)?;
        let done = self
            .admin
            .run_for(owner, move |authority| async move {
                authority.revoke_self(&holder, reason).await
            })
            .await?;
        let now = self.clock.now();
        changed!(RevokeSelfResponse, done, key: |key| convert::found_key(key, now))
    }

    async fn import_keys(
        &self,
        request: Request<pb::ImportKeysRequest>,
    ) -> Result<Response<pb::ImportKeysResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let mut asked = request.into_inner();
        let fingerprint = fingerprint!("ImportKeys", asked);
        let is_trial = asked.dry_run;
        let (realm, entries) = key_fields::import(asked, &mut caller.holder, self.clock.now())?;
        let once = caller.holder.once(fingerprint);
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority
                    .import_keys(&caller, realm, entries, is_trial, once)
                    .await
            })
            .await?;
        let Imported { outcomes, replayed } = done.value;
        Ok(Response::new(pb::ImportKeysResponse {
            results: outcomes.into_iter().map(import_result).collect(),
            revision: done.revision.as_u64(),
            effective_everywhere_time: (!is_trial).then(|| convert::time(done.effective_at)),
            confirmed: !is_trial,
            replayed,
        }))
    }

    async fn get_key_usage(
        &self,
        request: Request<pb::GetKeyUsageRequest>,
    ) -> Result<Response<pb::GetKeyUsageResponse>, Status> {
        let caller = callers::caller(&self.admin.callers, &request)?;
        let (id, hours) = usage_fields::asked(request.into_inner(), self.clock.now())?;
        let usage = self.admin.authority.key_usage(&caller, id, hours).await?;
        Ok(Response::new(usage_fields::usage(&usage)))
    }

    async fn delete_key(
        &self,
        request: Request<pb::DeleteKeyRequest>,
    ) -> Result<Response<pb::DeleteKeyResponse>, Status> {
        let mut caller = callers::caller(&self.admin.callers, &request)?;
        let pb::DeleteKeyRequest {
            key_id,
            wait,
            request_id,
        } = request.into_inner();
        let id = key_fields::change_of_key(&key_id, &mut caller.holder, wait, &request_id)?;
        let done = self
            .admin
            .run(caller, move |authority, caller| async move {
                authority.delete_key(&caller, id).await
            })
            .await?;
        let now = self.clock.now();
        Ok(Response::new(pb::DeleteKeyResponse {
            key: done.value.map(|key| convert::key(key, now)),
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(convert::time(done.effective_at)),
            confirmed: true,
        }))
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let caller = callers::caller(&self.admin.callers, &request)?;
        let mut asked = request.into_inner();
        let page_token = std::mem::take(&mut asked.page_token);
        let page_size = std::mem::take(&mut asked.page_size);
        let filters = asked.encode_to_vec();
        let query = self.event_query(&caller, asked, &filters, page_size, &page_token)?;
        let page = self.admin.authority.list_events(&caller, query).await?;
        let (events, next) =
            page::fitting(page, convert::event, |event| event.revision.to_string());
        Ok(Response::new(pb::ListEventsResponse {
            events,
            next_page_token: self.admin.pages.token(&caller, "events", &filters, next),
        }))
    }
}

impl KeyAdminService {
    fn key_query(
        &self,
        caller: &Caller,
        asked: pb::ListKeysRequest,
        filters: &[u8],
        page_size: i32,
        page_token: &str,
    ) -> Result<KeyFilter, Refusal> {
        let pb::ListKeysRequest {
            realm,
            partner,
            project,
            environment,
            states,
            unused_for,
            never_expires,
            expires_within,
            page_size: _,
            page_token: _,
        } = asked;
        let mut bad = Violations::default();
        let limit = page::size(&mut bad, page_size);
        let cursor = self
            .admin
            .pages
            .cursor(&mut bad, caller, "keys", filters, page_token);
        let partner = fields::optional(&mut bad, "partner", &partner, PartnerId::parse);
        let project = fields::optional(&mut bad, "project", &project, ProjectId::parse);
        let environment = fields::optional(
            &mut bad,
            "environment",
            &environment,
            EnvironmentName::parse,
        );
        let states = states
            .into_iter()
            .enumerate()
            .filter_map(|(i, state)| bad.check(format!("states[{i}]"), parse_state(state)))
            .collect();
        let before = fields::optional(&mut bad, "page_token", &cursor, KeyId::parse);
        let unused_for = fields::span_or_none(&mut bad, "unused_for", unused_for);
        let expires_within = fields::span_or_none(&mut bad, "expires_within", expires_within);
        if never_expires && expires_within.is_some() {
            bad.add(
                "expires_within",
                "must be left out with never_expires: no key does both",
            );
        }
        let realm = bad.check("realm", RealmId::parse(&realm));
        bad.finish(realm.map(|realm| KeyFilter {
            realm,
            partner,
            project,
            environment,
            issued_before: None,
            states,
            unused_for,
            never_expires,
            expires_within,
            now: self.clock.now(),
            before,
            limit,
        }))
        .map_err(Refusal::Invalid)
    }

    fn event_query(
        &self,
        caller: &Caller,
        asked: pb::ListEventsRequest,
        filters: &[u8],
        page_size: i32,
        page_token: &str,
    ) -> Result<EventFilter, Refusal> {
        let pb::ListEventsRequest {
            realm,
            partner,
            key_id,
            kind,
            start_time,
            end_time,
            page_size: _,
            page_token: _,
        } = asked;
        let mut bad = Violations::default();
        let limit = page::size(&mut bad, page_size);
        let cursor = self
            .admin
            .pages
            .cursor(&mut bad, caller, "events", filters, page_token);
        let query = EventFilter {
            realm: fields::optional(&mut bad, "realm", &realm, RealmId::parse),
            partner: fields::optional(&mut bad, "partner", &partner, PartnerId::parse),
            key: fields::optional(&mut bad, "key_id", &key_id, KeyId::parse),
            kind: fields::optional(&mut bad, "kind", &kind, |kind| {
                EventKind::parse(kind).ok_or("is not a kind of event, such as key.revoked")
            }),
            from: fields::timestamp(&mut bad, "start_time", start_time),
            until: fields::timestamp(&mut bad, "end_time", end_time),
            before: fields::optional(&mut bad, "page_token", &cursor, |cursor| {
                cursor
                    .parse::<u64>()
                    .map(Revision::from)
                    .map_err(|_| "does not lead on here")
            }),
            limit,
        };
        bad.finish(Some(query)).map_err(Refusal::Invalid)
    }
}

fn parse_state(state: i32) -> Result<KeyState, &'static str> {
    match pb::KeyState::try_from(state) {
        Ok(pb::KeyState::Active) => Ok(KeyState::Active),
        Ok(pb::KeyState::Disabled) => Ok(KeyState::Disabled),
        Ok(pb::KeyState::Expired) => Ok(KeyState::Expired),
        Ok(pb::KeyState::Revoked) => Ok(KeyState::Revoked),
        Ok(pb::KeyState::Unspecified) | Err(_) => Err("is not a state that a key can be in"),
    }
}

fn hash(method: &str, request: &impl Message) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(method);
    hash.update(Zeroizing::new(request.encode_to_vec()));
    hash.finalize().into()
}

fn import_result(outcome: Result<Option<KeyId>, EntryRefusal>) -> pb::ImportResult {
    use pb::import_result::Result::{Error, KeyId};
    pb::ImportResult {
        result: Some(match outcome {
            Ok(id) => KeyId(id.as_ref().map(ToString::to_string).unwrap_or_default()),
            Err(why) => Error(status::as_message(&status::not_imported(why))),
        }),
    }
}
