//! Putting, listing and deleting projects.

use std::ops::ControlFlow;

use super::admission::Effect;
use super::audit::{AuditEntry, non_empty_detail};
use super::matching_keys::OwnerOfKeys;
use super::partners::{check_in_realm, get_partner};
use super::{
    Authority, ChangeRequest, ChangeResult, Page, Read, Refusal, check_revision, not_found,
};
use crate::auth::AuthorizedCaller;
use crate::domain::event::{EventKind, Subject};
use crate::domain::hold::Holdable;
use crate::domain::ids::{PartnerId, ProjectId, RealmId};
use crate::domain::partner::Project;
use crate::store::{ProjectRow, Snapshot};

const IF_BUILT_IN: &str = "the realm \"claviger\" has no projects";

impl Authority {
    /// Creates or replaces a project.
    pub async fn put_project(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        project: Project,
        if_revision: Option<u64>,
    ) -> Result<ChangeResult<ProjectRow>, Refusal> {
        caller.role.may_manage(&project.realm)?;
        let group = &caller.group();
        let mut state = self.begin_checks(group, Effect::MayGrant, false).await?;
        let mut change = loop {
            check_in_realm(&mut state, caller, &project.realm, IF_BUILT_IN).await?;
            get_partner(&mut state, &project.realm, &project.partner).await?;
            let known = state.find_project(&project.realm, &project.id).await?;
            let found = known
                .as_ref()
                .filter(|(_, deleted)| !deleted)
                .map(|(found, _)| found.clone());
            // Before the revision: no later attempt with another revision can succeed.
            if known.is_some_and(|(known, _)| known.value.partner != project.partner) {
                return Err(of_another_partner());
            }
            check_revision(found.as_ref().map(|found| found.revision), if_revision)?;
            let (realm, id) = (project.realm.clone(), project.id.clone());
            state
                .give_to(&self.mirror, Holdable::Project(realm, id))
                .await?;
            if let Some(found) = found
                && found.value == project
            {
                return self
                    .unchanged(&caller.principal, request, state, found)
                    .await;
            }
            match self.end_checks(state, group, Effect::MayGrant).await? {
                ControlFlow::Break(change) => break change,
                ControlFlow::Continue(change) => state = change,
            }
        };
        change.put_project(&project).await?;
        let put = get_project(&mut change, &project.realm, &project.id).await?;
        let entry = put_entry(&project);
        self.finish(&caller.principal, request, change, entry, put)
            .await
    }

    /// Returns a page of the projects of a realm or of one partner. `take` converts an item, or refuses it if the page is full.
    pub async fn list_projects<T>(
        &self,
        caller: &AuthorizedCaller,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        after: &str,
        limit: u32,
        take: impl FnMut(ProjectRow) -> Option<T>,
    ) -> Result<Read<Page<T>>, Refusal> {
        caller.role.may_read(realm)?;
        let mut snapshot = self.read(caller).await?;
        if snapshot.find_realm(realm).await?.is_none() {
            return Err(Refusal::NotFound(not_found::REALM));
        }
        let revision = snapshot.revision().await?;
        let value = snapshot
            .list_projects(realm, partner, after, limit, take)
            .await?;
        Ok(Read { value, revision })
    }

    /// Deletes a project with its revoked and expired keys.
    pub async fn delete_project(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        realm: &RealmId,
        id: &ProjectId,
        if_revision: Option<u64>,
    ) -> Result<ChangeResult<()>, Refusal> {
        caller.role.may_manage(realm)?;
        let group = &caller.group();
        let mut state = self.begin_checks(group, Effect::TakesAway, true).await?;
        let (mut change, found) = loop {
            check_in_realm(&mut state, caller, realm, IF_BUILT_IN).await?;
            let found = get_project(&mut state, realm, id).await?;
            check_revision(Some(found.revision), if_revision)?;
            let keys = state.count_keys(realm, None, Some(id)).await?;
            if keys > 0 {
                let owner = OwnerOfKeys::of_project("the project", realm, id);
                self.delete_dead_keys(caller, request, state, &[owner])
                    .await?;
                state = self.begin_checks(group, Effect::TakesAway, true).await?;
                continue;
            }
            match self.end_checks(state, group, Effect::TakesAway).await? {
                ControlFlow::Break(change) => break (change, found),
                ControlFlow::Continue(change) => state = change,
            }
        };
        change.delete_project(realm, id).await?;
        let entry = deletion_entry(&found.value);
        self.finish(&caller.principal, request, change, entry, ())
            .await
    }
}

async fn get_project(
    snapshot: &mut Snapshot,
    realm: &RealmId,
    id: &ProjectId,
) -> Result<ProjectRow, Refusal> {
    snapshot
        .find_project(realm, id)
        .await?
        .filter(|(_, deleted)| !deleted)
        .map(|(found, _)| found)
        .ok_or(Refusal::NotFound(not_found::PROJECT))
}

/// The refusal to give a project id to another partner.
fn of_another_partner() -> Refusal {
    Refusal::Precondition {
        reason: "PROJECT_OF_ANOTHER_PARTNER",
        message: format!("this project id {OF_ANOTHER_PARTNER}"),
    }
}

/// Why a project id cannot be given to another partner.
pub(super) const OF_ANOTHER_PARTNER: &str =
    "belongs to another partner, even after a deletion: choose another project id";

/// The entry of a project that is created or replaced.
pub(super) fn put_entry(project: &Project) -> AuditEntry {
    entry(EventKind::ProjectPut, project)
}

/// The entry of a project that is deleted.
pub(super) fn deletion_entry(project: &Project) -> AuditEntry {
    entry(EventKind::ProjectDeleted, project)
}

fn entry(kind: EventKind, project: &Project) -> AuditEntry {
    AuditEntry {
        kind,
        subject: subject(project),
        detail: non_empty_detail([("display_name", project.display_name.clone())]),
    }
}

fn subject(project: &Project) -> Subject {
    Subject {
        realm: project.realm.clone(),
        partner: Some(project.partner.clone()),
        project: Some(project.id.clone()),
        key: None,
    }
}
