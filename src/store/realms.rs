//! The tables of realms, partners and projects.

use sqlx::QueryBuilder;

use super::{Change, Error, Page, Snapshot, execute, on, page_and_one, revision, stored};
use crate::domain::event::Revision;
use crate::domain::ids::{PartnerId, ProjectId, RealmId};
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::Realm;
use crate::domain::time::Timestamp;

/// Something that is put, with its dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated<T> {
    /// The thing itself.
    pub value: T,
    /// The revision at which it was last changed.
    pub revision: Revision,
    /// When it was first made.
    pub created_at: Timestamp,
}

/// A stored realm.
pub type RealmRow = Dated<Realm>;
/// A stored partner.
pub type PartnerRow = Dated<Partner>;
/// A stored project.
pub type ProjectRow = Dated<Project>;

type RealmCells = (String, String, i64, i64);
type PartnerCells = (String, String, String, bool, i64, i64);
type ProjectCells = (String, String, String, String, i64, i64);

impl Snapshot {
    /// The realm of this id.
    pub async fn find_realm(&mut self, id: &RealmId) -> Result<Option<RealmRow>, Error> {
        let row: Option<RealmCells> = on!(self.session, |conn| sqlx::query_as(
            "SELECT id, definition, revision, created_at FROM realms WHERE id = $1"
        )
        .bind(id.as_str())
        .fetch_optional(&mut *conn))?;
        row.map(read_realm).transpose()
    }

    /// The id of the realm whose keys begin so.
    pub async fn find_prefix(&mut self, prefix: &str) -> Result<Option<RealmId>, Error> {
        let row: Option<String> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT id FROM realms WHERE prefix = $1"
        )
        .bind(prefix)
        .fetch_optional(&mut *conn))?;
        row.map(|id| RealmId::parse(&id).map_err(|_| corrupt("realm", &id)))
            .transpose()
    }

    /// A page of the realms, in the order of their ids, after the one of this id.
    pub async fn list_realms(
        &mut self,
        after: &str,
        limit: u32,
    ) -> Result<Page<RealmRow, String>, Error> {
        let rows: Vec<RealmCells> = on!(self.session, |conn| {
            sqlx::query_as(
                "SELECT id, definition, revision, created_at FROM realms WHERE id > $1 ORDER BY id LIMIT $2",
            )
            .bind(after)
            .bind(page_and_one(limit))
            .fetch_all(&mut *conn)
        })?;
        Ok(Page::new(
            rows,
            limit,
            |cells| cells.0.clone(),
            |cells| logged(read_realm(cells)),
        ))
    }

    /// The partner of this id.
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

    /// A page of a realm's partners, in the order of their ids, after the one of this id.
    pub async fn list_partners(
        &mut self,
        realm: &RealmId,
        after: &str,
        limit: u32,
    ) -> Result<Page<PartnerRow, String>, Error> {
        let rows: Vec<PartnerCells> = on!(
            self.session,
            |conn| // The operators' partner has the empty id and is nobody's business.
            sqlx::query_as(
                "SELECT realm, id, display_name, suspended, revision, created_at
                 FROM partners WHERE realm = $1 AND id > $2 ORDER BY id LIMIT $3",
            )
            .bind(realm.as_str())
            .bind(after)
            .bind(page_and_one(limit))
            .fetch_all(&mut *conn)
        )?;
        Ok(Page::new(
            rows,
            limit,
            |cells| cells.1.clone(),
            |cells| logged(read_partner(cells)),
        ))
    }

    /// Every partner of every realm.
    pub async fn all_partners(&mut self) -> Result<Vec<PartnerRow>, Error> {
        let rows: Vec<PartnerCells> = on!(self.session, |conn| sqlx::query_as(
            "SELECT realm, id, display_name, suspended, revision, created_at FROM partners"
        )
        .fetch_all(&mut *conn))?;
        Ok(rows
            .into_iter()
            .filter_map(|cells| logged(read_partner(cells)))
            .collect())
    }

    /// The project of this id; also a deleted one, with `true`.
    pub async fn find_project(
        &mut self,
        realm: &RealmId,
        id: &ProjectId,
    ) -> Result<Option<(ProjectRow, bool)>, Error> {
        type Row = (String, String, String, String, bool, i64, i64);
        let row: Option<Row> = on!(self.session, |conn| sqlx::query_as(
            "SELECT realm, id, partner, display_name, deleted, revision, created_at
                 FROM projects WHERE realm = $1 AND id = $2",
        )
        .bind(realm.as_str())
        .bind(id.as_str())
        .fetch_optional(&mut *conn))?;
        row.map(
            |(realm, id, partner, display_name, deleted, revision, created_at)| {
                Ok((
                    read_project((realm, id, partner, display_name, revision, created_at))?,
                    deleted,
                ))
            },
        )
        .transpose()
    }

    /// A page of a realm's or of one partner's projects, in the order of their ids, after the one of this id.
    pub async fn list_projects(
        &mut self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        after: &str,
        limit: u32,
    ) -> Result<Page<ProjectRow, String>, Error> {
        let rows: Vec<ProjectCells> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new(
                "SELECT realm, id, partner, display_name, revision, created_at FROM projects WHERE NOT deleted AND realm = ",
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
            query.build_query_as().fetch_all(&mut *conn).await
        })?;
        Ok(Page::new(
            rows,
            limit,
            |cells| cells.1.clone(),
            |cells| logged(read_project(cells)),
        ))
    }

    /// Every project of every realm.
    pub async fn all_projects(&mut self) -> Result<Vec<ProjectRow>, Error> {
        let rows: Vec<ProjectCells> = on!(self.session, |conn| {
            sqlx::query_as(
                "SELECT realm, id, partner, display_name, revision, created_at FROM projects WHERE NOT deleted",
            )
            .fetch_all(&mut *conn)
        })?;
        Ok(rows
            .into_iter()
            .filter_map(|cells| logged(read_project(cells)))
            .collect())
    }

    /// Every realm.
    pub async fn all_realms(&mut self) -> Result<Vec<RealmRow>, Error> {
        let rows: Vec<RealmCells> = on!(self.session, |conn| sqlx::query_as(
            "SELECT id, definition, revision, created_at FROM realms"
        )
        .fetch_all(&mut *conn))?;
        Ok(rows
            .into_iter()
            .filter_map(|cells| logged(read_realm(cells)))
            .collect())
    }
}

impl Change {
    /// Stores a realm at this change's revision; one that is there keeps its first date.
    pub async fn put_realm(&mut self, realm: &Realm) -> Result<(), Error> {
        let definition = serde_json::to_string(realm).expect("a realm is JSON");
        let (revision, time) = (stored(self.revision), self.time.as_micros());
        execute!(self.snapshot.session, sqlx::query(
                "INSERT INTO realms (id, definition, revision, created_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET definition = excluded.definition, revision = excluded.revision",
            )
            .bind(realm.id.as_str())
            .bind(definition)
            .bind(revision)
            .bind(time))?;
        Ok(())
    }

    /// Deletes a realm with its partners and projects.
    pub async fn delete_realm(&mut self, id: &RealmId) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM realms WHERE id = $1").bind(id.as_str())
        )?;
        Ok(())
    }

    /// Stores a partner at this change's revision; one that is there keeps its first date.
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

    /// Deletes a partner. Its projects become deleted ones, which keep their ids.
    pub async fn delete_partner(&mut self, realm: &RealmId, id: &PartnerId) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("UPDATE projects SET deleted = TRUE WHERE realm = $1 AND partner = $2")
                .bind(realm.as_str())
                .bind(id.as_str())
        )?;
        // It has no keys that they could be about.
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

    /// Stores a project at this change's revision; one that is there, deleted or not, keeps its first date.
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
        .map(|value| Dated {
            value,
            revision: revision(number),
            created_at: Timestamp::from_micros(created_at),
        })
        .ok_or_else(|| corrupt("realm", &id))
}

fn read_partner(
    (realm, id, display_name, suspended, number, created_at): PartnerCells,
) -> Result<PartnerRow, Error> {
    let unread = |_| corrupt("partner", &id);
    Ok(Dated {
        value: Partner {
            realm: RealmId::parse(&realm).map_err(unread)?,
            id: if id.is_empty() {
                PartnerId::nobody()
            } else {
                PartnerId::parse(&id).map_err(unread)?
            },
            display_name,
            suspended,
        },
        revision: revision(number),
        created_at: Timestamp::from_micros(created_at),
    })
}

fn read_project(
    (realm, id, partner, display_name, number, created_at): ProjectCells,
) -> Result<ProjectRow, Error> {
    let unread = |_| corrupt("project", &id);
    Ok(Dated {
        value: Project {
            realm: RealmId::parse(&realm).map_err(unread)?,
            id: ProjectId::parse(&id).map_err(unread)?,
            partner: PartnerId::parse(&partner).map_err(unread)?,
            display_name,
        },
        revision: revision(number),
        created_at: Timestamp::from_micros(created_at),
    })
}

fn corrupt(what: &str, id: &str) -> Error {
    Error::Corrupt(format!("{what} {id:?}"))
}

fn logged<T>(read: Result<T, Error>) -> Option<T> {
    read.inspect_err(|error| tracing::error!(%error, "a row is left out"))
        .ok()
}
