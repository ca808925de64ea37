//! The tables of usage: counts, and times of last use. A write to them is not a change: it has no revision and no event.

use std::collections::HashMap;
use std::ops::Range;

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{Error, Snapshot, Store, on};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::Key;
use crate::domain::last_use::{LastUse, RecordedAddress};
use crate::domain::time::{Hour, Timestamp};
use crate::domain::verdict::Verdict;
use crate::telemetry::limited;

/// The number of times that a key got a verdict within an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCount {
    /// The key.
    pub key: KeyId,
    /// The hour.
    pub hour: Hour,
    /// The verdict.
    pub verdict: Verdict,
    /// The number of times.
    pub count: u64,
}

/// The number of times that one or more keys got a verdict within an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourCount {
    /// The hour.
    pub hour: Hour,
    /// The verdict.
    pub verdict: Verdict,
    /// The number of times.
    pub count: u64,
}

/// The last use of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The key of the secret.
    pub key: KeyId,
    /// The time at which the secret was created, which identifies it.
    pub secret: Timestamp,
    /// The last use.
    pub last: LastUse,
}

/// The owner of a deleted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The realm of the key.
    pub realm: RealmId,
    /// The partner that owned the key.
    pub partner: PartnerId,
    /// The project that the key was bound to.
    pub project: Option<ProjectId>,
    /// The environment that the key belonged to.
    pub environment: EnvironmentName,
}

impl Store {
    /// Adds usage to the stored usage: counts are added, to those of the key and those of its owner, and a time of last use only
    /// becomes later.
    ///
    /// `counts` must have at most one entry for each key, hour and verdict, and `uses` at most one for each secret.
    ///
    /// # Errors
    /// [`Error::CommitUnknown`] if the usage may have been stored, and another error if it was not.
    pub async fn add_usage(&self, counts: &[KeyCount], uses: &[SecretUse]) -> Result<(), Error> {
        self.check_room()?;
        // Servers that share a database lock the rows of each table in the same order, so that none of them waits for another in a
        // circle.
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort_by_key(|each| (each.key.as_uuid(), each.hour, verdict_name(each.verdict)));
        let mut uses: Vec<_> = uses.iter().collect();
        uses.sort_by_key(|each| (each.key.as_uuid(), each.secret));
        let mut write = self.write().await?;
        if !counts.is_empty() {
            on!(write.session, |conn| async {
                let mut query =
                    QueryBuilder::new("INSERT INTO usage (key_id, hour, verdict, count) ");
                query.push_values(&counts, |mut row, each| {
                    row.push_bind(each.key.as_uuid())
                        .push_bind(each.hour.number())
                        .push_bind(verdict_name(each.verdict))
                        .push_bind(i64::try_from(each.count).unwrap_or(i64::MAX));
                });
                query.push(
                    " ON CONFLICT (key_id, hour, verdict) DO UPDATE SET count = usage.count + excluded.count",
                );
                // Each number of rows is a different statement, so caching it is of no use.
                let statement = query.build().persistent(false);
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        if !uses.is_empty() {
            on!(write.session, |conn| async {
                let mut query =
                    QueryBuilder::new("INSERT INTO uses (key_id, secret, last_used_at, address) ");
                query.push_values(uses, |mut row, each| {
                    row.push_bind(each.key.as_uuid())
                        .push_bind(each.secret.as_micros())
                        .push_bind(each.last.at.as_micros())
                        .push_bind(each.last.address.map(RecordedAddress::as_number));
                });
                query.push(
                    " ON CONFLICT (key_id, secret) DO UPDATE
                      SET last_used_at = excluded.last_used_at, address = excluded.address
                      WHERE uses.last_used_at < excluded.last_used_at",
                );
                let statement = query.build().persistent(false);
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        // Last, because the servers share few rows of keys and many of owners.
        if !counts.is_empty() {
            write.add_owner_counts(&counts).await?;
        }
        write.commit().await
    }
}

impl Snapshot {
    /// Returns the usage counts of a key within these hours, in the order of the hours.
    pub async fn key_counts(
        &mut self,
        key: KeyId,
        hours: Range<Hour>,
    ) -> Result<Vec<HourCount>, Error> {
        let rows: Vec<HourCells> = on!(self.session, |conn| {
            sqlx::query_as(
            "SELECT hour, verdict, count FROM usage WHERE key_id = $1 AND hour >= $2 AND hour < $3 ORDER BY hour",
        )
        .bind(key.as_uuid())
        .bind(hours.start.number())
        .bind(hours.end.number())
        .fetch_all(&mut *conn)
        })?;
        Ok(hour_counts(rows))
    }

    /// Returns the time at which a key was last used, with any of its secrets.
    pub async fn last_use(&mut self, key: KeyId) -> Result<Option<Timestamp>, Error> {
        let last: Option<i64> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT max(last_used_at) FROM uses WHERE key_id = $1"
        )
        .bind(key.as_uuid())
        .fetch_one(&mut *conn))?;
        Ok(last.map(Timestamp::from_micros))
    }

    /// Sets the last uses of these keys and their secrets.
    ///
    /// A use of a removed secret counts as a use of its key. There may be many removed secrets, so only the latest use of each
    /// key is read.
    pub async fn set_last_uses(&mut self, keys: &mut [Key]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let rows: Vec<(Uuid, Option<i64>, i64, Option<i64>)> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new(
                "SELECT l.key_id, CAST(NULL AS BIGINT), l.at, (
                     SELECT u.address FROM uses AS u WHERE u.key_id = l.key_id AND u.last_used_at = l.at
                     ORDER BY u.secret DESC LIMIT 1)
                 FROM (SELECT key_id, max(last_used_at) AS at FROM uses WHERE key_id IN (",
            );
            let mut ids = query.separated(", ");
            for key in &*keys {
                ids.push_bind(key.id.as_uuid());
            }
            query.push(
                ") GROUP BY key_id) AS l
                 UNION ALL
                 SELECT key_id, secret, last_used_at, address FROM uses WHERE (key_id, secret) IN (VALUES ",
            );
            let mut pairs = query.separated(", ");
            for key in &*keys {
                for secret in &key.secrets {
                    pairs.push("(");
                    pairs.push_bind_unseparated(key.id.as_uuid());
                    pairs.push_unseparated(", ");
                    pairs.push_bind_unseparated(secret.created_at.as_micros());
                    pairs.push_unseparated(")");
                }
            }
            query.push(")");
            // Each number of keys is a different statement.
            let statement = query.build_query_as().persistent(false);
            statement.fetch_all(&mut *conn).await
        })?;
        let uses: HashMap<_, _> = rows
            .into_iter()
            .map(|(key, secret, at, address)| {
                let secret = secret.map(Timestamp::from_micros);
                let last = LastUse {
                    at: Timestamp::from_micros(at),
                    address: address.and_then(RecordedAddress::from_number),
                };
                ((KeyId::from(key), secret), last)
            })
            .collect();
        for key in keys {
            key.last_use = uses.get(&(key.id, None)).copied();
            for secret in &mut key.secrets {
                secret.last_use = uses.get(&(key.id, Some(secret.created_at))).copied();
            }
        }
        Ok(())
    }

    /// Returns the tombstone of a deleted key; `None` also if the owner of the key was not readable.
    pub async fn find_tombstone(&mut self, id: KeyId) -> Result<Option<Tombstone>, Error> {
        let row: Option<(String, String, Option<String>, String)> =
            on!(self.session, |conn| sqlx::query_as(
                "SELECT realm, partner, project, environment FROM tombstones WHERE key_id = $1"
            )
            .bind(id.as_uuid())
            .fetch_optional(&mut *conn))?;
        Ok(row.and_then(|(realm, partner, project, environment)| {
            Some(Tombstone {
                realm: RealmId::parse(&realm).ok()?,
                partner: parse_partner(&partner)?,
                project: project.as_deref().map(ProjectId::parse).transpose().ok()?,
                environment: EnvironmentName::parse(&environment).ok()?,
            })
        }))
    }
}

/// Returns a partner as the tables of usage and tombstones store it: an empty id is that of nobody.
pub(super) fn parse_partner(id: &str) -> Option<PartnerId> {
    if id.is_empty() {
        return Some(PartnerId::nobody());
    }
    PartnerId::parse(id).ok()
}

/// Returns a verdict as the table stores it: its name in the proto files without the prefix `VERDICT_`.
pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    let name = verdict.as_str();
    name.strip_prefix("VERDICT_").unwrap_or(name)
}

/// The columns `hour`, `verdict` and `count`.
pub(super) type HourCells = (i64, String, i64);

/// Reads counts. Those with an unknown verdict are left out and logged.
pub(super) fn hour_counts(rows: Vec<HourCells>) -> Vec<HourCount> {
    let count = |(hour, verdict, count): HourCells| {
        Some(HourCount {
            hour: Hour::from_number(hour),
            verdict: parse_verdict(&verdict)?,
            count: count.cast_unsigned(),
        })
    };
    rows.into_iter().filter_map(count).collect()
}

/// Returns the verdict with this name in the table. An unknown one is logged.
pub(super) fn parse_verdict(text: &str) -> Option<Verdict> {
    let mut verdicts = Verdict::PROVEN.iter().copied();
    let verdict = verdicts.find(|verdict| verdict_name(*verdict) == text);
    if verdict.is_none() {
        limited!(
            error,
            verdict = text,
            "usage count with unknown verdict left out"
        );
    }
    verdict
}
