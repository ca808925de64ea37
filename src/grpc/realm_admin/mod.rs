//! The gRPC service `claviger.v1.RealmAdmin`.

mod gateway_rules;
pub(super) mod request;
pub(super) mod response;

use prost::Message;
use tonic::{Request, Response, Status};

use request::{
    parse_change, parse_in_realm, parse_partner, parse_project, parse_realm, parse_rename,
};

use super::{Admin, decode, encode, page};
use crate::authority::{Page, Read, Refusal, RenamedScope};
use crate::domain::ids::{PartnerId, ProjectId, RealmId};
use crate::domain::violation::Violations;
use crate::pb::claviger::v1 as pb;

/// The service that administers realms, partners and projects.
pub struct RealmAdminService {
    admin: Admin,
}

impl RealmAdminService {
    /// Creates the service.
    pub fn new(admin: Admin) -> Self {
        Self { admin }
    }
}

#[tonic::async_trait]
impl pb::realm_admin_server::RealmAdmin for RealmAdminService {
    async fn put_realm(
        &self,
        request: Request<pb::PutRealmRequest>,
    ) -> Result<Response<pb::PutRealmResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::PutRealmRequest {
            realm,
            if_revision,
            wait,
            request_id,
        } = request.into_inner();
        // Before the validation, which may take long, so that it runs only for realms that the caller may manage.
        let id = realm.as_ref().map_or("", |realm| &realm.id);
        match RealmId::parse(id) {
            Ok(id) => caller.role.may_manage(&id)?,
            Err(_) => caller.role.may_manage_something()?,
        }
        let (realm, change_request) = parse_realm(realm, wait, &request_id)?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .put_realm(&caller, &change_request, realm, if_revision)
                    .await
            })
            .await?;
        changed!(PutRealmResponse, result, realm: response::realm)
    }

    async fn rename_scope(
        &self,
        request: Request<pb::RenameScopeRequest>,
    ) -> Result<Response<pb::RenameScopeResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let fingerprint = fingerprint!("RenameScope", message);
        let is_dry_run = message.dry_run;
        let (work, change_request) = parse_rename(message)?;
        if is_dry_run {
            let found = self.admin.run(move |authority| async move {
                authority.dry_run_rename_scope(&caller, &work).await
            });
            let Read { value, revision } = found.await?;
            return Ok(Response::new(pb::RenameScopeResponse {
                realm: Some(response::realm(value.realm)),
                would_update_keys: value.keys.count,
                more: value.keys.more,
                revision: revision.as_u64(),
                ..pb::RenameScopeResponse::default()
            }));
        }
        let made = self.admin.run(move |authority| async move {
            authority
                .rename_scope(&caller, &change_request, &work, fingerprint)
                .await
        });
        let made = made.await?;
        let RenamedScope { keys, realm } = made.value;
        Ok(Response::new(pb::RenameScopeResponse {
            realm: Some(response::realm(realm)),
            updated_keys: keys.count,
            more: keys.more,
            revision: made.revision.as_u64(),
            effective_everywhere_time: Some(encode::time(made.effective_at)),
            confirmed: made.is_everywhere,
            replayed: keys.replayed,
            ..pb::RenameScopeResponse::default()
        }))
    }

    async fn get_realm(
        &self,
        request: Request<pb::GetRealmRequest>,
    ) -> Result<Response<pb::GetRealmResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::GetRealmRequest { realm_id } = request.into_inner();
        let mut bad = Violations::default();
        let id = bad.check("realm_id", RealmId::parse(&realm_id));
        let id = bad.finish(id).map_err(Refusal::Invalid)?;
        let read = self
            .admin
            .run(move |authority| async move { authority.get_realm(&caller, &id).await })
            .await?;
        Ok(Response::new(pb::GetRealmResponse {
            realm: Some(response::realm(read.value)),
            revision: read.revision.as_u64(),
        }))
    }

    async fn list_realms(
        &self,
        request: Request<pb::ListRealmsRequest>,
    ) -> Result<Response<pb::ListRealmsResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::ListRealmsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let mut bad = Violations::default();
        let limit = page::size(&mut bad, page_size);
        let after = self
            .admin
            .pages
            .cursor(&mut bad, &caller, "realms", &[], &page_token);
        bad.finish(Some(())).map_err(Refusal::Invalid)?;
        let take = page::fitting(response::realm);
        let allowed = caller.role.may_read_something();
        let (permit, read) = self
            .admin
            .list(&caller, allowed, |authority, caller| async move {
                authority.list_realms(&caller, &after, limit, take).await
            })
            .await?;
        let Page { items, next } = read.value;
        Ok(permit.answer(pb::ListRealmsResponse {
            realms: items,
            next_page_token: self.admin.pages.token(&caller, "realms", &[], next),
            revision: read.revision.as_u64(),
        }))
    }

    async fn delete_realm(
        &self,
        request: Request<pb::DeleteRealmRequest>,
    ) -> Result<Response<pb::DeleteRealmResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::DeleteRealmRequest {
            realm_id,
            if_revision,
            wait,
            request_id,
        } = request.into_inner();
        let mut bad = Violations::default();
        let change_request = decode::change(&mut bad, wait, &request_id);
        let id = bad.check("realm_id", RealmId::parse(&realm_id));
        let id = bad.finish(id).map_err(Refusal::Invalid)?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .delete_realm(&caller, &change_request, &id, if_revision)
                    .await
            })
            .await?;
        changed!(DeleteRealmResponse, result)
    }

    async fn put_partner(
        &self,
        request: Request<pb::PutPartnerRequest>,
    ) -> Result<Response<pb::PutPartnerResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::PutPartnerRequest {
            partner,
            if_revision,
            wait,
            request_id,
        } = request.into_inner();
        let (partner, change_request) = parse_partner(partner, wait, &request_id)?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .put_partner(&caller, &change_request, partner, if_revision)
                    .await
            })
            .await?;
        changed!(PutPartnerResponse, result, partner: response::partner)
    }

    async fn get_partner(
        &self,
        request: Request<pb::GetPartnerRequest>,
    ) -> Result<Response<pb::GetPartnerResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::GetPartnerRequest { realm, partner } = request.into_inner();
        let (realm, partner) = parse_in_realm(&realm, "partner", &partner, PartnerId::parse)?;
        let read =
            self.admin
                .run(move |authority| async move {
                    authority.get_partner(&caller, &realm, &partner).await
                })
                .await?;
        Ok(Response::new(pb::GetPartnerResponse {
            partner: Some(response::partner(read.value)),
            revision: read.revision.as_u64(),
        }))
    }

    async fn list_partners(
        &self,
        request: Request<pb::ListPartnersRequest>,
    ) -> Result<Response<pb::ListPartnersResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let page_token = std::mem::take(&mut message.page_token);
        let page_size = std::mem::take(&mut message.page_size);
        let filters = message.encode_to_vec();
        let pb::ListPartnersRequest {
            realm,
            page_size: _,
            page_token: _,
        } = message;
        let mut bad = Violations::default();
        let limit = page::size(&mut bad, page_size);
        let after = self
            .admin
            .pages
            .cursor(&mut bad, &caller, "partners", &filters, &page_token);
        let realm = bad.check("realm", RealmId::parse(&realm));
        let realm = bad.finish(realm).map_err(Refusal::Invalid)?;
        let take = page::fitting(response::partner);
        let allowed = caller.role.may_read(&realm);
        let (permit, read) = self
            .admin
            .list(&caller, allowed, |authority, caller| async move {
                authority
                    .list_partners(&caller, &realm, &after, limit, take)
                    .await
            })
            .await?;
        let Page { items, next } = read.value;
        Ok(permit.answer(pb::ListPartnersResponse {
            partners: items,
            next_page_token: self.admin.pages.token(&caller, "partners", &filters, next),
            revision: read.revision.as_u64(),
        }))
    }

    async fn delete_partner(
        &self,
        request: Request<pb::DeletePartnerRequest>,
    ) -> Result<Response<pb::DeletePartnerResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::DeletePartnerRequest {
            realm,
            partner,
            if_revision,
            wait,
            request_id,
        } = request.into_inner();
        let change_request = parse_change(wait, &request_id)?;
        let (realm, partner) = parse_in_realm(&realm, "partner", &partner, PartnerId::parse)?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .delete_partner(&caller, &change_request, &realm, &partner, if_revision)
                    .await
            })
            .await?;
        changed!(DeletePartnerResponse, result)
    }

    async fn put_project(
        &self,
        request: Request<pb::PutProjectRequest>,
    ) -> Result<Response<pb::PutProjectResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::PutProjectRequest {
            project,
            if_revision,
            wait,
            request_id,
        } = request.into_inner();
        let (project, change_request) = parse_project(project, wait, &request_id)?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .put_project(&caller, &change_request, project, if_revision)
                    .await
            })
            .await?;
        changed!(PutProjectResponse, result, project: response::project)
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> Result<Response<pb::ListProjectsResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let mut message = request.into_inner();
        let page_token = std::mem::take(&mut message.page_token);
        let page_size = std::mem::take(&mut message.page_size);
        let filters = message.encode_to_vec();
        let pb::ListProjectsRequest {
            realm,
            partner,
            page_size: _,
            page_token: _,
        } = message;
        let mut bad = Violations::default();
        let limit = page::size(&mut bad, page_size);
        let after = self
            .admin
            .pages
            .cursor(&mut bad, &caller, "projects", &filters, &page_token);
        let partner = decode::optional(&mut bad, "partner", &partner, PartnerId::parse);
        let realm = bad.check("realm", RealmId::parse(&realm));
        let realm = bad.finish(realm).map_err(Refusal::Invalid)?;
        let take = page::fitting(response::project);
        let allowed = caller.role.may_read(&realm);
        let (permit, read) = self
            .admin
            .list(&caller, allowed, |authority, caller| async move {
                authority
                    .list_projects(&caller, &realm, partner.as_ref(), &after, limit, take)
                    .await
            })
            .await?;
        let Page { items, next } = read.value;
        Ok(permit.answer(pb::ListProjectsResponse {
            projects: items,
            next_page_token: self.admin.pages.token(&caller, "projects", &filters, next),
            revision: read.revision.as_u64(),
        }))
    }

    async fn delete_project(
        &self,
        request: Request<pb::DeleteProjectRequest>,
    ) -> Result<Response<pb::DeleteProjectResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let pb::DeleteProjectRequest {
            realm,
            project,
            if_revision,
            wait,
            request_id,
        } = request.into_inner();
        let change_request = parse_change(wait, &request_id)?;
        let (realm, project) = parse_in_realm(&realm, "project", &project, ProjectId::parse)?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .delete_project(&caller, &change_request, &realm, &project, if_revision)
                    .await
            })
            .await?;
        changed!(DeleteProjectResponse, result)
    }
}
