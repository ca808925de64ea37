//! `claviger.v1.KeyAdmin`.

use prost::Message;
use tonic::{Request, Response, Status};

use super::{Admin, callers, convert, fields, page, usage_fields};
use crate::authority::{Caller, NewKey, Refusal};
use crate::domain::clock::Clock;
use crate::domain::event::{EventKind, Revision};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::KeyState;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::pb::claviger::v1 as pb;
use crate::store::{EventFilter, KeyFilter};

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
        let new = new_key(request.into_inner(), &mut caller, self.clock.now())?;
        let done = self
            .admin
            .run(caller, |authority, caller| async move {
                authority.issue_key(&caller, new).await
            })
            .await?;
        let effective_everywhere_time = Some(convert::time(done.effective_at));
        let (key, plain) = done.value;
        Ok(Response::new(pb::IssueKeyResponse {
            key: Some(convert::key(key, self.clock.now())),
            plain_key: plain.expose().to_owned(),
            revision: done.revision.as_u64(),
            effective_everywhere_time,
            confirmed: true,
            replayed: false,
        }))
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
            .get_key(&caller, parse_key_id(&key_id)?)
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
            .key_scopes(&caller, parse_key_id(&key_id)?)
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
        let id = parse_change(&key_id, &mut caller, wait, &request_id)?;
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
        let id = parse_change(&key_id, &mut caller, wait, &request_id)?;
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
        fields::change(&mut bad, &mut caller, wait, &request_id);
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
        _request: Request<pb::UpdateKeyRequest>,
    ) -> Result<Response<pb::UpdateKeyResponse>, Status> {
        Err(Status::unimplemented("UpdateKey"))
    }

    async fn rotate_key(
        &self,
        _request: Request<pb::RotateKeyRequest>,
    ) -> Result<Response<pb::RotateKeyResponse>, Status> {
        Err(Status::unimplemented("RotateKey"))
    }

    async fn end_rotation(
        &self,
        _request: Request<pb::EndRotationRequest>,
    ) -> Result<Response<pb::EndRotationResponse>, Status> {
        Err(Status::unimplemented("EndRotation"))
    }

    async fn revoke_keys(
        &self,
        _request: Request<pb::RevokeKeysRequest>,
    ) -> Result<Response<pb::RevokeKeysResponse>, Status> {
        Err(Status::unimplemented("RevokeKeys"))
    }

    async fn revoke_self(
        &self,
        _request: Request<pb::RevokeSelfRequest>,
    ) -> Result<Response<pb::RevokeSelfResponse>, Status> {
        Err(Status::unimplemented("RevokeSelf"))
    }

    async fn import_keys(
        &self,
        _request: Request<pb::ImportKeysRequest>,
    ) -> Result<Response<pb::ImportKeysResponse>, Status> {
        Err(Status::unimplemented("ImportKeys"))
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
        let id = parse_change(&key_id, &mut caller, wait, &request_id)?;
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

fn parse_key_id(key_id: &str) -> Result<KeyId, Refusal> {
    let mut bad = Violations::default();
    let id = bad.check("key_id", KeyId::parse(key_id));
    bad.finish(id).map_err(Refusal::Invalid)
}

fn parse_change(
    key_id: &str,
    caller: &mut Caller,
    wait: i32,
    request_id: &str,
) -> Result<KeyId, Refusal> {
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, wait, request_id);
    let id = bad.check("key_id", KeyId::parse(key_id));
    bad.finish(id).map_err(Refusal::Invalid)
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

fn new_key(
    request: pb::IssueKeyRequest,
    caller: &mut Caller,
    now: Timestamp,
) -> Result<NewKey, Refusal> {
    let pb::IssueKeyRequest {
        realm,
        partner,
        project,
        level,
        environment,
        name,
        scopes,
        full_access,
        expire_time,
        labels,
        allowed_cidrs,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    fields::change(&mut bad, caller, wait, &request_id);
    let realm = bad.check("realm", RealmId::parse(&realm));
    let partner = fields::optional(&mut bad, "partner", &partner, PartnerId::parse);
    let project = fields::optional(&mut bad, "project", &project, ProjectId::parse);
    let level = fields::level(&mut bad, "level", level);
    let environment = fields::optional(
        &mut bad,
        "environment",
        &environment,
        EnvironmentName::parse,
    );
    let name = fields::name(&mut bad, "name", name);
    let scopes = fields::scopes(&mut bad, &scopes);
    let expires_at = fields::timestamp(&mut bad, "expire_time", expire_time);
    if expires_at.is_some_and(|end| end <= now) {
        bad.add("expire_time", "must be in the future");
    }
    let labels = fields::labels(&mut bad, labels);
    let allowed_cidrs = fields::cidrs(&mut bad, &allowed_cidrs);
    bad.finish(realm.map(|realm| NewKey {
        realm,
        partner,
        project,
        level,
        environment,
        name,
        scopes,
        full_access,
        expires_at,
        labels,
        allowed_cidrs,
    }))
    .map_err(Refusal::Invalid)
}
