//! The tables of realms, partners and projects.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use sqlx::QueryBuilder;

use super::{
    Change, Error, Page, PageBuilder, Snapshot, execute, for_each, on, page_and_one, revision,
    stored,
};
use crate::domain::event::Revision;
use crate::domain::ids::{PartnerId, ProjectId, RealmId};
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::Realm;
use crate::domain::time::Timestamp;
use crate::telemetry::limited;

/// The maximum number of ids that one statement looks for.
const IDS_AT_ONCE: usize = 500;

/// A stored value with its revision and its time of creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The revision of the last change of the value.
    pub revision: Revision,
    /// The time at which the value was first stored.
    pub created_at: Timestamp,
}

/// A stored realm.
pub type RealmRow = Versioned<Realm>;
/// A stored partner.
pub type PartnerRow = Versioned<Partner>;
/// A stored project.
pub type ProjectRow = Versioned<Project>;

type RealmCells = (String, String, i64, i64);
type PartnerCells = (String, String, String, bool, i64, i64);
type ProjectCells = (String, String, String, String, i64, i64);
/// The cells of a project, and whether it is deleted.
type AnyProjectCells = (String, String, String, String, bool, i64, i64);

impl Snapshot {
    /// Returns the realm with this id.
    pub async fn find_realm(&mut self, id: &RealmId) -> Result<Option<RealmRow>, Error> {
        let row: Option<RealmCells> = on!(self.session, |conn| sqlx::query_as(
            "SELECT id, definition, revision, created_at FROM realms WHERE id = $1"
        )
        .bind(id.as_str())
        .fetch_optional(&mut *conn))?;
        row.map(read_realm).transpose()
    }

    /// Returns the id of the realm with this prefix.
    pub async fn find_prefix(&mut self, prefix: &str) -> Result<Option<RealmId>, Error> {
        let row: Option<String> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT id FROM realms WHERE prefix = $1"
        )
        .bind(prefix)
        .fetch_optional(&mut *conn))?;
        row.map(|id| RealmId::parse(&id).map_err(|_| corrupt("realm", &id)))
            .transpose()
    }

    /// Returns a page of the realms with an id after `after`, in the order of their ids.
    ///
    /// `take` converts a realm, or refuses it if the page is full. It must not refuse the first realm of a page. At most one
    /// realm is read that is not on the page.
    pub async fn list_realms<T>(
        &mut self,
        after: &str,
        limit: u32,
        mut take: impl FnMut(RealmRow) -> Option<T>,
    ) -> Result<Page<T, String>, Error> {
        let mut page = PageBuilder::new(limit);
        for_each!(
            self.session,
            |conn| {
                sqlx::query_as::<_, RealmCells>(
                "SELECT id, definition, revision, created_at FROM realms WHERE id > $1 ORDER BY id LIMIT $2",
            )
            .bind(after)
            .bind(page_and_one(limit))
            .fetch(&mut *conn)
            },
            |cells| {
                let read = |cells| listed(read_realm(cells));
                if page.add(cells.0.clone(), || read(cells), &mut take) {
                    break Ok(());
                }
            }
        )?;
        if page.leaves_rows() {
            self.session.abandon_rows();
        }
        Ok(page.finish())
    }

    /// Returns the partner with this id.
    pub async fn find_partner(
        &mut self,
        realm: &RealmId,
        id: &PartnerId,
    ) -> Result<Option<PartnerRow>, Error> {
        let row: Option<PartnerCells> = on!(self.session, |conn| sqlx::query_as(
            "SELECT realm, id, display_name, suspended, revision, created_at
                 FROM partners WHERE realm = $1 AND id = $2",
        )
        .bind(realm.as_str())
        .bind(id.as_str())
        .fetch_optional(&mut *conn))?;
        row.map(read_partner).transpose()
    }

    /// Returns those of these partners that exist in the realm.
    pub async fn find_partners<'i>(
        &mut self,
        realm: &RealmId,
        ids: &[&'i PartnerId],
    ) -> Result<HashSet<&'i PartnerId>, Error> {
        let mut found = HashSet::new();
        for chunk in ids.chunks(IDS_AT_ONCE) {
            let rows: Vec<String> = on!(self.session, |conn| async {
                let mut query = QueryBuilder::new("SELECT id FROM partners WHERE realm = ");
                query.push_bind(realm.as_str()).push(" AND id IN (");
                let mut ids = query.separated(", ");
                for id in chunk {
                    ids.push_bind(id.as_str());
                }
                query.push(")");
                // Each number of partners is a different statement.
                let statement = query.build_query_scalar().persistent(false);
                statement.fetch_all(&mut *conn).await
            })?;
            let rows: HashSet<String> = rows.into_iter().collect();
            found.extend(chunk.iter().filter(|id| rows.contains(id.as_str())));
        }
        Ok(found)
    }

    /// Returns a page of a realm's partners with an id after `after`, in the order of their ids. `take` is as in
    /// [`Self::list_realms`].
    pub async fn list_partners<T>(
        &mut self,
        realm: &RealmId,
        after: &str,
        limit: u32,
        mut take: impl FnMut(PartnerRow) -> Option<T>,
    ) -> Result<Page<T, String>, Error> {
        let mut page = PageBuilder::new(limit);
        for_each!(
            self.session,
            |conn| // The operators' partner has the empty id, so no list contains it.
            sqlx::query_as::<_, PartnerCells>(
                "SELECT realm, id, display_name, suspended, revision, created_at
                 FROM partners WHERE realm = $1 AND id > $2 ORDER BY id LIMIT $3",
            )
            .bind(realm.as_str())
            .bind(after)
            .bind(page_and_one(limit))
            .fetch(&mut *conn),
            |cells| {
                let id = cells.1.clone();
                if page.add(id, || listed(read_partner(cells)), &mut take) {
                    break Ok(());
                }
            }
        )?;
        Ok(page.finish())
    }

    /// Returns all partners of all realms, or the names of those that cannot be read.
    pub async fn all_partners(
        &mut self,
    ) -> Result<Vec<Result<PartnerRow, (RealmId, PartnerId)>>, Error> {
        let rows: Result<Vec<PartnerCells>, _> = on!(self.session, |conn| sqlx::query_as(
            "SELECT realm, id, display_name, suspended, revision, created_at FROM partners"
        )
        .fetch_all(&mut *conn));
        let rows = match rows.map_err(Error::from) {
            Ok(rows) => rows,
            // One row cannot be decoded, so each is read by itself.
            Err(Error::Corrupt(_)) => {
                let mut partners = Vec::new();
                for (realm, id) in self.names_in("partners", partner_id).await? {
                    let found = self.find_partner(&realm, &id).await;
                    partners.extend(alone(found, (realm, id))?);
                }
                return Ok(partners);
            }
            Err(error) => return Err(error),
        };
        Ok(rows
            .into_iter()
            .filter_map(|cells| {
                let names = parse_pair(&cells.0, &cells.1, partner_id);
                logged(read_partner(cells), names)
            })
            .collect())
    }

    /// Returns the project with this id, and whether it is deleted.
    pub async fn find_project(
        &mut self,
        realm: &RealmId,
        id: &ProjectId,
    ) -> Result<Option<(ProjectRow, bool)>, Error> {
        let row: Option<AnyProjectCells> = on!(self.session, |conn| sqlx::query_as(
            "SELECT realm, id, partner, display_name, deleted, revision, created_at
                 FROM projects WHERE realm = $1 AND id = $2",
        )
        .bind(realm.as_str())
        .bind(id.as_str())
        .fetch_optional(&mut *conn))?;
        row.map(read_any_project).transpose()
    }

    /// Returns those of these projects that exist, as [`Snapshot::find_project`] returns them.
    pub async fn find_projects<'i>(
        &mut self,
        realm: &RealmId,
        ids: &[&'i ProjectId],
    ) -> Result<HashMap<&'i ProjectId, Result<(ProjectRow, bool), Error>>, Error> {
        let mut found = HashMap::new();
        for chunk in ids.chunks(IDS_AT_ONCE) {
            let rows: Vec<AnyProjectCells> = on!(self.session, |conn| async {
                let mut query = QueryBuilder::new(
                    "SELECT realm, id, partner, display_name, deleted, revision, created_at
                     FROM projects WHERE realm = ",
                );
                query.push_bind(realm.as_str()).push(" AND id IN (");
                let mut ids = query.separated(", ");
                for id in chunk {
                    ids.push_bind(id.as_str());
                }
                query.push(")");
                // Each number of projects is a different statement.
                let statement = query.build_query_as().persistent(false);
                statement.fetch_all(&mut *conn).await
            })?;
            let mut rows: HashMap<String, AnyProjectCells> =
                rows.into_iter().map(|row| (row.1.clone(), row)).collect();
            found.extend(chunk.iter().filter_map(|id| {
                let row = rows.remove(id.as_str())?;
                Some((*id, read_any_project(row)))
            }));
        }
        Ok(found)
    }

    /// Returns a page of the projects of a realm or of one partner with an id after `after`, in the order of their ids. `take`
    /// is as in [`Self::list_realms`].
    pub async fn list_projects<T>(
        &mut self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        after: &str,
        limit: u32,
        mut take: impl FnMut(ProjectRow) -> Option<T>,
    ) -> Result<Page<T, String>, Error> {
        let mut page = PageBuilder::new(limit);
        for_each!(
            self.session,
            let query = {
                let mut query = QueryBuilder::new(
                    "SELECT realm, id, partner, display_name, revision, created_at
                     FROM projects WHERE NOT deleted AND realm = ",
                );
                query.push_bind(realm.as_str());
                if let Some(partner) = partner {
                    query.push(" AND partner = ").push_bind(partner.as_str());
                }
                query
                    .push(" AND id > ")
                    .push_bind(after)
                    .push(" ORDER BY id LIMIT ")
                    .push_bind(page_and_one(limit));
                query
            };
            |conn| query.build_query_as::<ProjectCells>().fetch(&mut *conn),
            |cells| {
                let id = cells.1.clone();
                if page.add(id, || listed(read_project(cells)), &mut take) {
                    break Ok(());
                }
            }
        )?;
        Ok(page.finish())
    }

    /// Returns all projects of all realms, without deleted ones, or the names of those that cannot be read.
    pub async fn all_projects(
        &mut self,
    ) -> Result<Vec<Result<ProjectRow, (RealmId, ProjectId)>>, Error> {
        let rows: Result<Vec<ProjectCells>, _> = on!(self.session, |conn| {
            sqlx::query_as(
                "SELECT realm, id, partner, display_name, revision, created_at FROM projects WHERE NOT deleted",
            )
            .fetch_all(&mut *conn)
        });
        let rows = match rows.map_err(Error::from) {
            Ok(rows) => rows,
            Err(Error::Corrupt(_)) => {
                let mut projects = Vec::new();
                for (realm, id) in self.names_in("projects", ProjectId::parse).await? {
                    let found = self.find_project(&realm, &id).await.map(|found| {
                        let kept = found.filter(|(_, deleted)| !deleted);
                        kept.map(|(project, _)| project)
                    });
                    projects.extend(alone(found, (realm, id))?);
                }
                return Ok(projects);
            }
            Err(error) => return Err(error),
        };
        Ok(rows
            .into_iter()
            .filter_map(|cells| {
                let names = parse_pair(&cells.0, &cells.1, ProjectId::parse);
                logged(read_project(cells), names)
            })
            .collect())
    }

    /// Returns the ids of all realms, in their order.
    pub async fn realm_ids(&mut self) -> Result<Vec<RealmId>, Error> {
        let ids: Vec<String> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT id FROM realms ORDER BY id"
        )
        .fetch_all(&mut *conn))?;
        Ok(ids
            .iter()
            .filter_map(|id| RealmId::parse(id).ok())
            .collect())
    }

    /// Returns all realms, or the ids of those that cannot be read.
    pub async fn all_realms(&mut self) -> Result<Vec<Result<RealmRow, RealmId>>, Error> {
        let rows: Result<Vec<RealmCells>, _> = on!(self.session, |conn| sqlx::query_as(
            "SELECT id, definition, revision, created_at FROM realms"
        )
        .fetch_all(&mut *conn));
        let rows = match rows.map_err(Error::from) {
            Ok(rows) => rows,
            Err(Error::Corrupt(_)) => {
                let ids: Vec<String> = on!(self.session, |conn| sqlx::query_scalar(
                    "SELECT id FROM realms"
                )
                .fetch_all(&mut *conn))?;
                let mut realms = Vec::new();
                for id in ids.iter().filter_map(|id| RealmId::parse(id).ok()) {
                    let found = self.find_realm(&id).await;
                    realms.extend(alone(found, id)?);
                }
                return Ok(realms);
            }
            Err(error) => return Err(error),
        };
        Ok(rows
            .into_iter()
            .filter_map(|cells| {
                let id = RealmId::parse(&cells.0).ok();
                logged(read_realm(cells), id)
            })
            .collect())
    }

    /// Returns the names of all partners or projects.
    async fn names_in<Id>(
        &mut self,
        table: &'static str,
        parse: impl Fn(&str) -> Result<Id, &'static str>,
    ) -> Result<Vec<(RealmId, Id)>, Error> {
        let rows: Vec<(String, String)> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("SELECT realm, id FROM ");
            query.push(table);
            query.build_query_as().fetch_all(&mut *conn).await
        })?;
        let pairs = rows.iter();
        Ok(pairs
            .filter_map(|(realm, id)| parse_pair(realm, id, &parse))
            .collect())
    }
}

impl Change {
    /// Stores a realm with the revision of this change, and returns the SHA-256 of the stored definition. An existing realm
    /// keeps its time of creation.
    pub async fn put_realm(&mut self, realm: &Realm) -> Result<[u8; 32], Error> {
        let definition = serde_json::to_string(realm).expect("a realm can be serialized");
        let sha256 = Sha256::digest(&definition).into();
        let (revision, time) = (stored(self.revision), self.time.as_micros());
        execute!(self.snapshot.session, sqlx::query(
                "INSERT INTO realms (id, definition, revision, created_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET definition = excluded.definition, revision = excluded.revision",
            )
            .bind(realm.id.as_str())
            .bind(definition)
            .bind(revision)
            .bind(time))?;
        Ok(sha256)
    }

    /// Deletes a realm with its partners and projects.
    pub async fn delete_realm(&mut self, id: &RealmId) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM realms WHERE id = $1").bind(id.as_str())
        )?;
        Ok(())
    }

    /// Stores a partner with the revision of this change. An existing partner keeps its time of creation.
    pub async fn put_partner(&mut self, partner: &Partner) -> Result<(), Error> {
        let (revision, time) = (stored(self.revision), self.time.as_micros());
        execute!(
            self.snapshot.session,
            sqlx::query(
                "INSERT INTO partners (realm, id, display_name, suspended, revision, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (realm, id) DO UPDATE SET display_name = excluded.display_name,
                     suspended = excluded.suspended, revision = excluded.revision",
            )
            .bind(partner.realm.as_str())
            .bind(partner.id.as_str())
            .bind(&partner.display_name)
            .bind(partner.suspended)
            .bind(revision)
            .bind(time)
        )?;
        Ok(())
    }

    /// Deletes a partner and marks its projects as deleted. Their ids remain reserved.
    pub async fn delete_partner(&mut self, realm: &RealmId, id: &PartnerId) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("UPDATE projects SET deleted = TRUE WHERE realm = $1 AND partner = $2")
                .bind(realm.as_str())
                .bind(id.as_str())
        )?;
        // The partner has no keys to which its bulk revocations could apply.
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM revocations WHERE realm = $1 AND partner = $2")
                .bind(realm.as_str())
                .bind(id.as_str())
        )?;
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM partners WHERE realm = $1 AND id = $2")
                .bind(realm.as_str())
                .bind(id.as_str())
        )?;
        Ok(())
    }

    /// Stores a project with the revision of this change. An existing project, also a deleted one, keeps its time of creation.
    pub async fn put_project(&mut self, project: &Project) -> Result<(), Error> {
        let (revision, time) = (stored(self.revision), self.time.as_micros());
        execute!(self.snapshot.session, sqlx::query(
                "INSERT INTO projects (realm, id, partner, display_name, deleted, revision, created_at)
                 VALUES ($1, $2, $3, $4, FALSE, $5, $6)
                 ON CONFLICT (realm, id) DO UPDATE SET display_name = excluded.display_name, deleted = FALSE,
                     revision = excluded.revision",
            )
            .bind(project.realm.as_str())
            .bind(project.id.as_str())
            .bind(project.partner.as_str())
            .bind(&project.display_name)
            .bind(revision)
            .bind(time))?;
        Ok(())
    }

    /// Marks a project as deleted.
    pub async fn delete_project(&mut self, realm: &RealmId, id: &ProjectId) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("UPDATE projects SET deleted = TRUE WHERE realm = $1 AND id = $2")
                .bind(realm.as_str())
                .bind(id.as_str())
        )?;
        Ok(())
    }
}

fn read_realm((id, definition, number, created_at): RealmCells) -> Result<RealmRow, Error> {
    serde_json::from_str::<Realm>(&definition)
        .ok()
        .filter(|realm| realm.id.as_str() == id)
        .map(|value| Versioned {
            value,
            revision: revision(number),
            created_at: Timestamp::from_micros(created_at),
        })
        .ok_or_else(|| corrupt("realm", &id))
}

fn read_partner(
    (realm, id, display_name, suspended, number, created_at): PartnerCells,
) -> Result<PartnerRow, Error> {
    let corrupt_row = |_| corrupt("partner", &id);
    Ok(Versioned {
        value: Partner {
            realm: RealmId::parse(&realm).map_err(corrupt_row)?,
            id: partner_id(&id).map_err(corrupt_row)?,
            display_name,
            suspended,
        },
        revision: revision(number),
        created_at: Timestamp::from_micros(created_at),
    })
}

/// The operators' partner has the empty id.
fn partner_id(id: &str) -> Result<PartnerId, &'static str> {
    if id.is_empty() {
        Ok(PartnerId::nobody())
    } else {
        PartnerId::parse(id)
    }
}

fn read_project(
    (realm, id, partner, display_name, number, created_at): ProjectCells,
) -> Result<ProjectRow, Error> {
    let corrupt_row = |_| corrupt("project", &id);
    Ok(Versioned {
        value: Project {
            realm: RealmId::parse(&realm).map_err(corrupt_row)?,
            id: ProjectId::parse(&id).map_err(corrupt_row)?,
            partner: PartnerId::parse(&partner).map_err(corrupt_row)?,
            display_name,
        },
        revision: revision(number),
        created_at: Timestamp::from_micros(created_at),
    })
}

fn read_any_project(cells: AnyProjectCells) -> Result<(ProjectRow, bool), Error> {
    let (realm, id, partner, display_name, deleted, revision, created_at) = cells;
    let project = read_project((realm, id, partner, display_name, revision, created_at))?;
    Ok((project, deleted))
}

fn corrupt(what: &str, id: &str) -> Error {
    Error::Corrupt(format!("{what} {id:?}"))
}

/// For a list that a client asks for.
fn listed<T>(read: Result<T, Error>) -> Option<T> {
    read.inspect_err(|error| limited!(error, %error, "corrupt row left out"))
        .ok()
}

/// For the mirror, which reads each row once. A row that cannot be read is told by its name, unless nothing can have that name.
fn logged<T, Name>(read: Result<T, Error>, name: Option<Name>) -> Option<Result<T, Name>> {
    match read {
        Ok(value) => Some(Ok(value)),
        Err(error) => {
            tracing::error!(%error, "corrupt row: what depends on it cannot be decided");
            name.map(Err)
        }
    }
}

fn parse_pair<Id>(
    realm: &str,
    id: &str,
    parse: impl Fn(&str) -> Result<Id, &'static str>,
) -> Option<(RealmId, Id)> {
    RealmId::parse(realm).ok().zip(parse(id).ok())
}

/// A row that was read by itself, or its name if it cannot be read.
fn alone<T, Name>(
    found: Result<Option<T>, Error>,
    name: Name,
) -> Result<Option<Result<T, Name>>, Error> {
    match found {
        Ok(row) => Ok(row.map(Ok)),
        Err(error @ Error::Corrupt(_)) => Ok(logged(Err(error), Some(name))),
        Err(error) => Err(error),
    }
}
