//! The usage of all keys of an owner, which is written together with the usage of each key.

use std::ops::Range;
use std::time::Duration;

use sqlx::QueryBuilder;

use super::usage::{
    HourCells, HourCount, KeyCount, hour_counts, parse_partner, parse_verdict, verdict_name,
};
use super::{Error, Snapshot, on, search_error};
use crate::domain::ids::{EnvironmentName, PartnerId, ProjectId, RealmId};
use crate::domain::time::Hour;
use crate::domain::verdict::Verdict;
use crate::telemetry::limited;

/// A filter for usage: that of the keys of a realm that meet all conditions, within these hours.
#[derive(Clone, Debug)]
pub struct UsageFilter {
    /// The realm.
    pub realm: RealmId,
    /// The partner that owns the keys.
    pub partner: Option<PartnerId>,
    /// The project that the keys are bound to.
    pub project: Option<ProjectId>,
    /// The environment of the keys.
    pub environment: Option<EnvironmentName>,
    /// The hours.
    pub hours: Range<Hour>,
}

/// The owner of keys: a partner or one of its projects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyOwner {
    /// The partner.
    pub partner: PartnerId,
    /// The project. `None`: the partner as a whole.
    pub project: Option<ProjectId>,
}

/// How owners and keys are ranked.
#[derive(Clone, Copy, Debug)]
pub struct UsageRanking {
    /// By which count.
    pub by: RankBy,
    /// The maximum number of owners, and that of keys.
    pub top: u32,
    /// Whether keys are ranked too, which takes much longer.
    pub with_keys: bool,
}

/// The count by which owners and keys are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankBy {
    /// How often keys were presented.
    Presentations,
    /// How often keys were denied. Who was never denied is left out.
    Denials,
}

/// The usage of an owner's keys, by verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerCounts {
    /// The owner.
    pub owner: KeyOwner,
    /// How often the keys got each verdict.
    pub counts: Vec<(Verdict, u64)>,
}

impl UsageFilter {
    /// Whether usage is told by project. Otherwise it is told by partner.
    fn is_by_project(&self) -> bool {
        self.partner.is_some() || self.project.is_some()
    }

    fn push_to<DB>(&self, query: &mut QueryBuilder<DB>)
    where
        DB: sqlx::Database,
        for<'q> String: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
        for<'q> i64: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    {
        // Without its calculation, SQLite reads all partners of the hours and not the index of partners.
        let realm = if self.partner.is_some() {
            "realm || ''"
        } else {
            "realm"
        };
        query
            .push(" WHERE ")
            .push(realm)
            .push(" = ")
            .push_bind(self.realm.to_string())
            .push(" AND hour >= ")
            .push_bind(self.hours.start.number())
            .push(" AND hour < ")
            .push_bind(self.hours.end.number());
        if let Some(partner) = &self.partner {
            query.push(" AND partner = ").push_bind(partner.to_string());
        }
        if let Some(project) = &self.project {
            query.push(" AND project = ").push_bind(project.to_string());
        }
        if let Some(environment) = &self.environment {
            query
                .push(" AND environment = ")
                .push_bind(environment.to_string());
        }
    }
}

impl Snapshot {
    /// Adds the counts of keys to those of their owners. `self` must be a transaction that writes.
    pub(super) async fn add_owner_counts(&mut self, counts: &[&KeyCount]) -> Result<(), Error> {
        on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("WITH counted (key_id, hour, verdict, count) AS (");
            query.push_values(counts, |mut row, each| {
                row.push_bind(each.key.as_uuid())
                    .push_bind(each.hour.number())
                    .push_bind(verdict_name(each.verdict))
                    .push_bind(i64::try_from(each.count).unwrap_or(i64::MAX));
            });
            // A key whose owner cannot be read has no owner here. Only the built-in realm has keys that belong to no partner.
            query.push(
                ")
                 INSERT INTO owner_usage (hour, realm, partner, project, environment, verdict, count)
                 SELECT c.hour, coalesce(k.realm, t.realm), coalesce(k.partner, t.partner),
                     coalesce(k.project, t.project, ''), coalesce(k.environment, t.environment), c.verdict,
                     CAST(sum(c.count) AS BIGINT)
                 FROM counted AS c
                 LEFT JOIN keys AS k ON k.id = c.key_id
                 LEFT JOIN tombstones AS t ON t.key_id = c.key_id
                 WHERE coalesce(k.realm, t.realm) <> '' AND coalesce(k.environment, t.environment) <> ''
                     AND (coalesce(k.partner, t.partner) <> ''
                         OR coalesce(k.partner, t.partner) = '' AND coalesce(k.realm, t.realm) = 'claviger')
                 GROUP BY 1, 2, 3, 4, 5, 6
                 ORDER BY 1, 2, 3, 4, 5, 6
                 ON CONFLICT (realm, hour, partner, project, environment, verdict)
                 DO UPDATE SET count = owner_usage.count + excluded.count",
            );
            // Each number of rows is a different statement, so caching it is of no use.
            let statement = query.build().persistent(false);
            statement.execute(&mut *conn).await.map(drop)
        })?;
        Ok(())
    }

    /// Returns the counts by hour and verdict, in the order of the hours.
    pub(super) async fn usage_by_hour(
        &mut self,
        filter: &UsageFilter,
        time: Duration,
    ) -> Result<Vec<HourCount>, Error> {
        let limit = self.session.limit_search(time).await?;
        let rows: Result<Vec<HourCells>, sqlx::Error> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new(
                "SELECT hour, verdict, CAST(sum(count) AS BIGINT) FROM owner_usage",
            );
            filter.push_to(&mut query);
            query.push(" GROUP BY hour, verdict ORDER BY hour, verdict");
            query.build_query_as().fetch_all(&mut *conn).await
        });
        let rows = rows.map_err(search_error)?;
        drop(limit);
        Ok(hour_counts(rows))
    }

    /// Returns the owners that rank highest. They are the partners of the realm, or the projects if the filter names a partner or a
    /// project.
    pub(super) async fn top_owners(
        &mut self,
        filter: &UsageFilter,
        ranking: UsageRanking,
        time: Duration,
    ) -> Result<Vec<OwnerCounts>, Error> {
        let limit = self.session.limit_search(time).await?;
        let project = if filter.is_by_project() {
            "project"
        } else {
            "''"
        };
        let rows: Result<Vec<(String, String, String, i64)>, sqlx::Error> =
            on!(self.session, |conn| async {
                // Summed up twice, by verdict and without, in one reading of the rows.
                let mut query = QueryBuilder::new(
                    "WITH by_verdict (partner, project, verdict, count) AS (SELECT partner, ",
                );
                query
                    .push(project)
                    .push(", verdict, CAST(sum(count) AS BIGINT) FROM owner_usage");
                filter.push_to(&mut query);
                query
                    .push(
                        " GROUP BY 1, 2, 3), top (partner, project, count) AS (
                             SELECT partner, project, sum(count) FROM by_verdict",
                    )
                    .push(match ranking.by {
                        RankBy::Presentations => "",
                        RankBy::Denials => " WHERE verdict <> 'ALLOWED'",
                    })
                    .push(" GROUP BY partner, project ORDER BY 3 DESC, partner, project LIMIT ")
                    .push_bind(i64::from(ranking.top))
                    .push(
                        ") SELECT v.partner, v.project, v.verdict, v.count FROM top AS t
                         JOIN by_verdict AS v ON v.partner = t.partner AND v.project = t.project
                         ORDER BY t.count DESC, v.partner, v.project, v.verdict",
                    );
                query.build_query_as().fetch_all(&mut *conn).await
            });
        let rows = rows.map_err(search_error)?;
        drop(limit);
        let mut owners: Vec<OwnerCounts> = Vec::new();
        for (partner, project, verdict, count) in rows {
            let Some(owner) = parse_owner(&partner, &project) else {
                limited!(
                    error,
                    partner,
                    project,
                    "usage of an owner with an invalid id left out"
                );
                continue;
            };
            let Some(verdict) = parse_verdict(&verdict) else {
                continue;
            };
            let count = (verdict, count.cast_unsigned());
            match owners.last_mut() {
                Some(last) if last.owner == owner => last.counts.push(count),
                _ => owners.push(OwnerCounts {
                    owner,
                    counts: vec![count],
                }),
            }
        }
        Ok(owners)
    }
}

fn parse_owner(partner: &str, project: &str) -> Option<KeyOwner> {
    let project = Some(project).filter(|project| !project.is_empty());
    Some(KeyOwner {
        partner: parse_partner(partner)?,
        project: project.map(ProjectId::parse).transpose().ok()?,
    })
}
