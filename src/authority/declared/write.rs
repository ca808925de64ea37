//! The changes of a plan, written one after the other in the same transaction.

use std::collections::HashMap;

use super::plan::PlannedChange;
use super::{DeclaredState, needs_another_try};
use crate::authority::audit::{AuditEntry, audit_detail, non_empty_detail, realm_detail};
use crate::authority::import::{imported_key, insert_imported};
use crate::authority::update::changed_detail;
use crate::authority::{Refusal, partners, projects, realms};
use crate::domain::event::{Event, EventKind};
use crate::domain::ids::RealmId;
use crate::domain::key::Key;
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::Realm;
use crate::hashing::Peppers;
use crate::store::Change;

/// Writes plans.
pub(super) struct Writer<'w> {
    pub(super) state: &'w DeclaredState,
    pub(super) peppers: &'w Peppers,
    /// The roots of new keys, by their index in the state.
    pub(super) roots: HashMap<usize, String>,
}

impl Writer<'_> {
    /// Writes the changes, each with a revision and an event of its own, and returns the entry of the last one, for its commit. A new
    /// key gets its id.
    pub(super) async fn write(
        mut self,
        change: &mut Change,
        planned: &mut [PlannedChange],
        event: impl Fn(AuditEntry, &Change) -> Event,
    ) -> Result<AuditEntry, Refusal> {
        change.reserve(planned.len() - 1).await?;
        let mut last: Option<AuditEntry> = None;
        for planned in planned {
            if let Some(entry) = last.take() {
                let before = event(entry, change);
                change.start_next(before).await?;
            }
            last = Some(self.write_one(change, planned).await?);
        }
        Ok(last.expect("a plan without changes is not written"))
    }

    async fn write_one(
        &mut self,
        change: &mut Change,
        planned: &mut PlannedChange,
    ) -> Result<AuditEntry, Refusal> {
        match planned {
            PlannedChange::Realm { before, after } => {
                write_realm(change, before.as_deref(), after.as_deref()).await
            }
            PlannedChange::Partner { before, after } => {
                write_partner(change, before.as_ref(), after.as_ref()).await
            }
            PlannedChange::Project { before, after } => {
                write_project(change, before.as_ref(), after.as_ref()).await
            }
            PlannedChange::Key {
                before,
                after,
                index,
            } => match (before, after) {
                (None, Some(key)) => self.create(change, key, *index).await,
                (Some(before), Some(after)) => {
                    change.update_key(after).await?;
                    let detail = changed_detail(before, after);
                    Ok(AuditEntry::of_key(EventKind::KeyUpdated, after, detail))
                }
                (Some(key), None) => {
                    change
                        .delete_keys_and_imports(std::slice::from_ref(&**key))
                        .await?;
                    let detail = key.deletion_detail();
                    Ok(AuditEntry::of_key(EventKind::KeyDeleted, key, detail))
                }
                (None, None) => unreachable!("a change has a state before it or after it"),
            },
        }
    }

    async fn create(
        &mut self,
        change: &mut Change,
        key: &mut Key,
        index: usize,
    ) -> Result<AuditEntry, Refusal> {
        // The first pass saw the key, which was deleted meanwhile.
        let root = self.roots.remove(&index).ok_or_else(needs_another_try)?;
        let declared = &self.state.keys[index];
        *key = imported_key(self.peppers, key.clone(), declared, change)?;
        insert_imported(change, &[(key.clone(), root)]).await?;
        Ok(AuditEntry::of_key(
            EventKind::KeyImported,
            key,
            audit_detail(key),
        ))
    }
}

async fn write_realm(
    change: &mut Change,
    before: Option<&Realm>,
    after: Option<&Realm>,
) -> Result<AuditEntry, Refusal> {
    let id = &before.or(after).expect("a change has a realm").id;
    let subject = realms::subject(id);
    let Some(after) = after else {
        change.delete_realm(id).await?;
        change
            .delete_partner(&RealmId::built_in(), &id.as_partner())
            .await?;
        let prefix = before.map(|before| before.prefix.to_string());
        return Ok(AuditEntry {
            kind: EventKind::RealmDeleted,
            subject,
            detail: non_empty_detail([("prefix", prefix.unwrap_or_default())]),
        });
    };
    if before.is_none() {
        change.put_partner(&realms::served_realm(id)).await?;
    }
    let sha256 = change.put_realm(after).await?;
    Ok(AuditEntry {
        kind: EventKind::RealmPut,
        subject,
        detail: realm_detail(before, after, sha256, String::new()),
    })
}

async fn write_partner(
    change: &mut Change,
    before: Option<&Partner>,
    after: Option<&Partner>,
) -> Result<AuditEntry, Refusal> {
    if let Some(partner) = after {
        change.put_partner(partner).await?;
        return Ok(partners::put_entry(before, partner));
    }
    let partner = before.expect("a change has a partner");
    change.delete_partner(&partner.realm, &partner.id).await?;
    Ok(partners::deletion_entry(partner))
}

async fn write_project(
    change: &mut Change,
    before: Option<&Project>,
    after: Option<&Project>,
) -> Result<AuditEntry, Refusal> {
    if let Some(project) = after {
        change.put_project(project).await?;
        return Ok(projects::put_entry(project));
    }
    let project = before.expect("a change has a project");
    change.delete_project(&project.realm, &project.id).await?;
    Ok(projects::deletion_entry(project))
}
