//! Who was presented or denied most: owners, by their own counts, and keys, whose counts are added up for it.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::QueryBuilder;
use tokio::time::Instant;
use uuid::Uuid;

use super::owner_usage::{OwnerCounts, RankBy, UsageFilter, UsageRanking};
use super::usage::{HourCount, parse_verdict};
use super::{Error, SEARCH_TIME, Snapshot, on, search_error};
use crate::domain::ids::KeyId;
use crate::domain::key::Key;
use crate::domain::verdict::Verdict;
use crate::telemetry::limited;

/// The usage of the keys that a filter matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageReport {
    /// The counts by hour and verdict, in the order of the hours.
    pub counts: Vec<HourCount>,
    /// The owners with the highest counts.
    pub owners: Vec<OwnerCounts>,
    /// The keys with the highest counts, if they are wanted.
    pub keys: Vec<UsedKey>,
}

/// The usage of a key, by verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedKey {
    /// The id of the key.
    pub id: KeyId,
    /// The key, without the times of last use; `None` if it cannot be read.
    pub key: Option<Key>,
    /// How often the key got each verdict.
    pub counts: Vec<(Verdict, u64)>,
}

impl UsageFilter {
    /// Adds the ids of the keys that the filter matches, as a query. Deleted keys are not among them: who has an owner's id now may not
    /// be who had it then, and must not learn ids of that time.
    fn push_ids_to<DB>(&self, query: &mut QueryBuilder<DB>)
    where
        DB: sqlx::Database,
        for<'q> String: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    {
        query
            .push("SELECT id FROM keys WHERE realm = ")
            .push_bind(self.realm.to_string());
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

    /// Adds the condition on the hours of the table `usage`, which is `u` in the query.
    fn push_hours_to<DB>(&self, query: &mut QueryBuilder<DB>)
    where
        DB: sqlx::Database,
        for<'q> i64: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    {
        query
            .push(" AND u.hour >= ")
            .push_bind(self.hours.start.number())
            .push(" AND u.hour < ")
            .push_bind(self.hours.end.number());
    }
}

impl Snapshot {
    /// Returns the usage of the keys that the filter matches, and who has the most of it. The owners are the partners of the realm,
    /// or the projects if the filter names a partner or a project.
    ///
    /// # Errors
    /// [`Error::TooBroad`] if the database needs too long.
    pub async fn ranked_usage(
        &mut self,
        filter: &UsageFilter,
        ranking: UsageRanking,
    ) -> Result<UsageReport, Error> {
        let end = Instant::now() + SEARCH_TIME;
        // To PostgreSQL, zero is no limit.
        let left = || (end.saturating_duration_since(Instant::now())).max(Duration::from_millis(1));
        let counts = self.usage_by_hour(filter, SEARCH_TIME).await?;
        let owners = self.top_owners(filter, ranking, left()).await?;
        let keys = if ranking.with_keys {
            self.top_keys(filter, ranking, left()).await?
        } else {
            Vec::new()
        };
        Ok(UsageReport {
            counts,
            owners,
            keys,
        })
    }

    /// Returns the keys that the filter matches and that rank highest.
    async fn top_keys(
        &mut self,
        filter: &UsageFilter,
        ranking: UsageRanking,
        time: Duration,
    ) -> Result<Vec<UsedKey>, Error> {
        let limit = self.session.limit_search(time).await?;
        let rows: Result<Vec<(Uuid, String, i64)>, sqlx::Error> = on!(self.session, |conn| async {
            // The counts of each key are added up apart, so that only the primary key of `usage` can serve: SQLite then sorts no rows in a
            // temporary file, and PostgreSQL compares no hour of all keys with each of them.
            let mut query = QueryBuilder::new("WITH owned (id) AS (");
            filter.push_ids_to(&mut query);
            query.push(
                "), top (key_id, count) AS MATERIALIZED (
                     SELECT o.id, (SELECT sum(u.count) FROM usage AS u WHERE u.key_id = o.id",
            );
            filter.push_hours_to(&mut query);
            query
                .push(match ranking.by {
                    RankBy::Presentations => "",
                    RankBy::Denials => " AND u.verdict <> 'ALLOWED'",
                })
                .push(") AS count FROM owned AS o ORDER BY 2 DESC NULLS LAST, o.id LIMIT ")
                .push_bind(i64::from(ranking.top))
                .push(
                    ") SELECT u.key_id, u.verdict, CAST(sum(u.count) AS BIGINT)
                     FROM top AS t JOIN usage AS u ON u.key_id = t.key_id",
                );
            filter.push_hours_to(&mut query);
            query.push(
                " WHERE t.count IS NOT NULL
                 GROUP BY t.count, u.key_id, u.verdict ORDER BY t.count DESC, u.key_id, u.verdict",
            );
            // PostgreSQL would plan a statement that it keeps without the number of hours.
            query
                .build_query_as()
                .persistent(false)
                .fetch_all(&mut *conn)
                .await
        });
        let rows = rows.map_err(search_error)?;
        // The limit does not hold for the keys themselves, which are few.
        drop(limit);
        let mut used: Vec<UsedKey> = Vec::new();
        for (id, verdict, count) in rows {
            let Some(verdict) = parse_verdict(&verdict) else {
                continue;
            };
            let (id, count) = (KeyId::from(id), (verdict, count.cast_unsigned()));
            match used.last_mut() {
                Some(last) if last.id == id => last.counts.push(count),
                _ => used.push(UsedKey {
                    id,
                    key: None,
                    counts: vec![count],
                }),
            }
        }
        let ids: Vec<_> = used.iter().map(|used| used.id).collect();
        let mut keys = HashMap::with_capacity(ids.len());
        self.find_keys(&ids, |id, key| match key {
            Ok(key) => drop(keys.insert(id, key)),
            Err(error) => limited!(error, %error, "usage of a corrupt key without its name"),
        })
        .await?;
        for used in &mut used {
            used.key = keys.remove(&used.id);
        }
        Ok(used)
    }
}
