//! `claviger.v1.RealmAdmin`.

use std::collections::BTreeSet;

use prost::Message;
use tonic::{Request, Response, Status};

use super::{Admin, convert, fields, page};
use crate::authority::Refusal;
use crate::domain::ids::{EnvironmentName, PartnerId, Prefix, ProjectId, RealmId, ScopeName, Tag};
use crate::domain::key::LevelKind;
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::{Environment, Realm, Scope, UnscopedKeys};
use crate::domain::violation::Violations;
use crate::pb::claviger::v1 as pb;

/// The administration of realms, partners and projects.
pub struct RealmAdminService {
    admin: Admin,
}

impl RealmAdminService {
    /// Over the use cases of administration.
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
        let caller = self.admin.callers.caller(&request)?;
        let pb::PutRealmRequest {
            realm,
            if_revision,
            wait,
        } = request.into_inner();
        let realm = parse_realm(realm, wait)?;
        let done =
            self.admin
                .run(move |authority| async move {
                    authority.put_realm(&caller, realm, if_revision).await
                })
                .await?;
        let effective_everywhere_time = Some(convert::effective(&done));
        Ok(Response::new(pb::PutRealmResponse {
            realm: Some(convert::realm(done.value)),
            revision: done.revision.as_u64(),
            effective_everywhere_time,
            confirmed: true,
        }))
    }

    async fn get_realm(
        &self,
        request: Request<pb::GetRealmRequest>,
    ) -> Result<Response<pb::GetRealmResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let pb::GetRealmRequest { realm_id } = request.into_inner();
        let mut bad = Violations::default();
        let id = bad.check("realm_id", RealmId::parse(&realm_id));
        let id = bad.finish(id).map_err(Refusal::Invalid)?;
        let read = self.admin.authority.get_realm(&caller, &id).await?;
        Ok(Response::new(pb::GetRealmResponse {
            realm: Some(convert::realm(read.value)),
            revision: read.revision.as_u64(),
        }))
    }

    async fn list_realms(
        &self,
        request: Request<pb::ListRealmsRequest>,
    ) -> Result<Response<pb::ListRealmsResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
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
        let read = self
            .admin
            .authority
            .list_realms(&caller, &after, limit)
            .await?;
        Ok(Response::new(pb::ListRealmsResponse {
            realms: read.value.items.into_iter().map(convert::realm).collect(),
            next_page_token: self
                .admin
                .pages
                .token(&caller, "realms", &[], read.value.next),
            revision: read.revision.as_u64(),
        }))
    }

    async fn delete_realm(
        &self,
        request: Request<pb::DeleteRealmRequest>,
    ) -> Result<Response<pb::DeleteRealmResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let pb::DeleteRealmRequest {
            realm_id,
            if_revision,
            wait,
        } = request.into_inner();
        let mut bad = Violations::default();
        fields::wait(&mut bad, wait);
        let id = bad.check("realm_id", RealmId::parse(&realm_id));
        let id = bad.finish(id).map_err(Refusal::Invalid)?;
        let done =
            self.admin
                .run(move |authority| async move {
                    authority.delete_realm(&caller, &id, if_revision).await
                })
                .await?;
        Ok(Response::new(pb::DeleteRealmResponse {
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(convert::effective(&done)),
            confirmed: true,
        }))
    }

    async fn put_partner(
        &self,
        request: Request<pb::PutPartnerRequest>,
    ) -> Result<Response<pb::PutPartnerResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let pb::PutPartnerRequest {
            partner,
            if_revision,
            wait,
        } = request.into_inner();
        let partner = parse_partner(partner, wait)?;
        let done = self
            .admin
            .run(move |authority| async move {
                authority.put_partner(&caller, partner, if_revision).await
            })
            .await?;
        let effective_everywhere_time = Some(convert::effective(&done));
        Ok(Response::new(pb::PutPartnerResponse {
            partner: Some(convert::partner(done.value)),
            revision: done.revision.as_u64(),
            effective_everywhere_time,
            confirmed: true,
        }))
    }

    async fn get_partner(
        &self,
        request: Request<pb::GetPartnerRequest>,
    ) -> Result<Response<pb::GetPartnerResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let pb::GetPartnerRequest { realm, partner } = request.into_inner();
        let (realm, partner) = parse_in_realm(&realm, "partner", &partner, PartnerId::parse)?;
        let read = self
            .admin
            .authority
            .get_partner(&caller, &realm, &partner)
            .await?;
        Ok(Response::new(pb::GetPartnerResponse {
            partner: Some(convert::partner(read.value)),
            revision: read.revision.as_u64(),
        }))
    }

    async fn list_partners(
        &self,
        request: Request<pb::ListPartnersRequest>,
    ) -> Result<Response<pb::ListPartnersResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let mut asked = request.into_inner();
        let page_token = std::mem::take(&mut asked.page_token);
        let page_size = std::mem::take(&mut asked.page_size);
        let filters = asked.encode_to_vec();
        let pb::ListPartnersRequest {
            realm,
            page_size: _,
            page_token: _,
        } = asked;
        let mut bad = Violations::default();
        let limit = page::size(&mut bad, page_size);
        let after = self
            .admin
            .pages
            .cursor(&mut bad, &caller, "partners", &filters, &page_token);
        let realm = bad.check("realm", RealmId::parse(&realm));
        let realm = bad.finish(realm).map_err(Refusal::Invalid)?;
        let read = self
            .admin
            .authority
            .list_partners(&caller, &realm, &after, limit)
            .await?;
        Ok(Response::new(pb::ListPartnersResponse {
            partners: read.value.items.into_iter().map(convert::partner).collect(),
            next_page_token: self
                .admin
                .pages
                .token(&caller, "partners", &filters, read.value.next),
            revision: read.revision.as_u64(),
        }))
    }

    async fn delete_partner(
        &self,
        request: Request<pb::DeletePartnerRequest>,
    ) -> Result<Response<pb::DeletePartnerResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let pb::DeletePartnerRequest {
            realm,
            partner,
            if_revision,
            wait,
        } = request.into_inner();
        parse_wait(wait)?;
        let (realm, partner) = parse_in_realm(&realm, "partner", &partner, PartnerId::parse)?;
        let done = self
            .admin
            .run(move |authority| async move {
                authority
                    .delete_partner(&caller, &realm, &partner, if_revision)
                    .await
            })
            .await?;
        Ok(Response::new(pb::DeletePartnerResponse {
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(convert::effective(&done)),
            confirmed: true,
        }))
    }

    async fn put_project(
        &self,
        request: Request<pb::PutProjectRequest>,
    ) -> Result<Response<pb::PutProjectResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let pb::PutProjectRequest {
            project,
            if_revision,
            wait,
        } = request.into_inner();
        let project = parse_project(project, wait)?;
        let done = self
            .admin
            .run(move |authority| async move {
                authority.put_project(&caller, project, if_revision).await
            })
            .await?;
        let effective_everywhere_time = Some(convert::effective(&done));
        Ok(Response::new(pb::PutProjectResponse {
            project: Some(convert::project(done.value)),
            revision: done.revision.as_u64(),
            effective_everywhere_time,
            confirmed: true,
        }))
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> Result<Response<pb::ListProjectsResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let mut asked = request.into_inner();
        let page_token = std::mem::take(&mut asked.page_token);
        let page_size = std::mem::take(&mut asked.page_size);
        let filters = asked.encode_to_vec();
        let pb::ListProjectsRequest {
            realm,
            partner,
            page_size: _,
            page_token: _,
        } = asked;
        let mut bad = Violations::default();
        let limit = page::size(&mut bad, page_size);
        let after = self
            .admin
            .pages
            .cursor(&mut bad, &caller, "projects", &filters, &page_token);
        let partner = fields::optional(&mut bad, "partner", &partner, PartnerId::parse);
        let realm = bad.check("realm", RealmId::parse(&realm));
        let realm = bad.finish(realm).map_err(Refusal::Invalid)?;
        let read = self
            .admin
            .authority
            .list_projects(&caller, &realm, partner.as_ref(), &after, limit)
            .await?;
        Ok(Response::new(pb::ListProjectsResponse {
            projects: read.value.items.into_iter().map(convert::project).collect(),
            next_page_token: self
                .admin
                .pages
                .token(&caller, "projects", &filters, read.value.next),
            revision: read.revision.as_u64(),
        }))
    }

    async fn delete_project(
        &self,
        request: Request<pb::DeleteProjectRequest>,
    ) -> Result<Response<pb::DeleteProjectResponse>, Status> {
        let caller = self.admin.callers.caller(&request)?;
        let pb::DeleteProjectRequest {
            realm,
            project,
            if_revision,
            wait,
        } = request.into_inner();
        parse_wait(wait)?;
        let (realm, project) = parse_in_realm(&realm, "project", &project, ProjectId::parse)?;
        let done = self
            .admin
            .run(move |authority| async move {
                authority
                    .delete_project(&caller, &realm, &project, if_revision)
                    .await
            })
            .await?;
        Ok(Response::new(pb::DeleteProjectResponse {
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(convert::effective(&done)),
            confirmed: true,
        }))
    }
}

fn parse_wait(wait: i32) -> Result<(), Refusal> {
    let mut bad = Violations::default();
    fields::wait(&mut bad, wait);
    bad.finish(Some(())).map_err(Refusal::Invalid)
}

fn parse_in_realm<T>(
    realm: &str,
    field: &str,
    id: &str,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<(RealmId, T), Refusal> {
    let mut bad = Violations::default();
    let realm = bad.check("realm", RealmId::parse(realm));
    let id = bad.check(field, parse(id));
    bad.finish(realm.zip(id)).map_err(Refusal::Invalid)
}

fn parse_realm(realm: Option<pb::Realm>, wait: i32) -> Result<Realm, Refusal> {
    let mut bad = Violations::default();
    fields::wait(&mut bad, wait);
    let Some(realm) = bad.check("realm", realm.ok_or("is required")) else {
        return bad.finish(None).map_err(Refusal::Invalid);
    };
    let pb::Realm {
        id,
        prefix,
        environments,
        scopes,
        admin_scope,
        unscoped_keys,
        levels,
        max_cache,
        max_lifetime,
        revision: _,
        create_time: _,
    } = realm;
    let id = bad.check("realm.id", RealmId::parse(&id));
    let prefix = bad.check("realm.prefix", Prefix::parse(&prefix));
    let environments = parse_environments(&mut bad, environments);
    let scopes = parse_scopes(&mut bad, scopes);
    let admin_scope = fields::optional(
        &mut bad,
        "realm.admin_scope",
        &admin_scope,
        ScopeName::parse,
    );
    let unscoped_keys = bad.check("realm.unscoped_keys", parse_unscoped(unscoped_keys));
    let levels = parse_levels(&mut bad, levels);
    let max_cache = fields::span(&mut bad, "realm.max_cache", max_cache);
    let max_lifetime = fields::span(&mut bad, "realm.max_lifetime", max_lifetime);
    let realm = id
        .zip(prefix)
        .zip(unscoped_keys)
        .map(|((id, prefix), unscoped_keys)| Realm {
            id,
            prefix,
            environments,
            scopes,
            admin_scope,
            unscoped_keys,
            levels,
            max_cache,
            max_lifetime: Some(max_lifetime).filter(|span| !span.is_zero()),
        });
    // Only of a whole realm can it be said whether it holds together.
    if let Some(realm) = realm.as_ref().filter(|_| bad.is_empty()) {
        realm.check(&mut bad);
    }
    bad.finish(realm).map_err(Refusal::Invalid)
}

fn parse_environments(
    bad: &mut Violations,
    environments: Vec<pb::Environment>,
) -> Vec<Environment> {
    environments
        .into_iter()
        .enumerate()
        .filter_map(|(i, pb::Environment { name, tag })| {
            let name = bad.check(
                format!("realm.environments[{i}].name"),
                EnvironmentName::parse(&name),
            );
            let tag = bad.check(format!("realm.environments[{i}].tag"), Tag::parse(&tag));
            name.zip(tag).map(|(name, tag)| Environment { name, tag })
        })
        .collect()
}

fn parse_scopes(bad: &mut Violations, scopes: Vec<pb::Scope>) -> Vec<Scope> {
    scopes
        .into_iter()
        .enumerate()
        .filter_map(
            |(
                i,
                pb::Scope {
                    name,
                    implies,
                    description,
                },
            )| {
                let name = bad.check(format!("realm.scopes[{i}].name"), ScopeName::parse(&name));
                let implies = implies
                    .iter()
                    .enumerate()
                    .filter_map(|(j, word)| {
                        bad.check(
                            format!("realm.scopes[{i}].implies[{j}]"),
                            ScopeName::parse(word),
                        )
                    })
                    .collect();
                let description =
                    fields::reason(bad, &format!("realm.scopes[{i}].description"), description);
                name.map(|name| Scope {
                    name,
                    implies,
                    description,
                })
            },
        )
        .collect()
}

fn parse_unscoped(unscoped: i32) -> Result<UnscopedKeys, &'static str> {
    match pb::UnscopedKeys::try_from(unscoped) {
        Ok(pb::UnscopedKeys::Unspecified | pb::UnscopedKeys::NoAccess) => {
            Ok(UnscopedKeys::NoAccess)
        }
        Ok(pb::UnscopedKeys::FullAccess) => Ok(UnscopedKeys::FullAccess),
        Err(_) => Err("is not a value of UnscopedKeys"),
    }
}

fn parse_levels(bad: &mut Violations, levels: Vec<i32>) -> BTreeSet<LevelKind> {
    let levels: BTreeSet<_> = levels
        .into_iter()
        .enumerate()
        .filter_map(|(i, level)| fields::level(bad, &format!("realm.levels[{i}]"), level))
        .collect();
    if levels.is_empty() {
        BTreeSet::from([LevelKind::Partner, LevelKind::Project])
    } else {
        levels
    }
}

fn parse_partner(partner: Option<pb::Partner>, wait: i32) -> Result<Partner, Refusal> {
    let mut bad = Violations::default();
    fields::wait(&mut bad, wait);
    let Some(partner) = bad.check("partner", partner.ok_or("is required")) else {
        return bad.finish(None).map_err(Refusal::Invalid);
    };
    let pb::Partner {
        realm,
        id,
        display_name,
        suspended,
        revision: _,
        create_time: _,
    } = partner;
    let realm = bad.check("partner.realm", RealmId::parse(&realm));
    let id = bad.check("partner.id", PartnerId::parse(&id));
    let display_name = fields::name(&mut bad, "partner.display_name", display_name);
    bad.finish(realm.zip(id).map(|(realm, id)| Partner {
        realm,
        id,
        display_name,
        suspended,
    }))
    .map_err(Refusal::Invalid)
}

fn parse_project(project: Option<pb::Project>, wait: i32) -> Result<Project, Refusal> {
    let mut bad = Violations::default();
    fields::wait(&mut bad, wait);
    let Some(project) = bad.check("project", project.ok_or("is required")) else {
        return bad.finish(None).map_err(Refusal::Invalid);
    };
    let pb::Project {
        realm,
        id,
        partner,
        display_name,
        revision: _,
        create_time: _,
    } = project;
    let realm = bad.check("project.realm", RealmId::parse(&realm));
    let id = bad.check("project.id", ProjectId::parse(&id));
    let partner = bad.check("project.partner", PartnerId::parse(&partner));
    let display_name = fields::name(&mut bad, "project.display_name", display_name);
    bad.finish(
        realm
            .zip(id)
            .zip(partner)
            .map(|((realm, id), partner)| Project {
                realm,
                id,
                partner,
                display_name,
            }),
    )
    .map_err(Refusal::Invalid)
}
