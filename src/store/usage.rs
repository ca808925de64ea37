//! The tables of how keys were used. What is written here is no change: it has no revision and no event.

use std::collections::HashMap;
use std::ops::Range;

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{Error, Snapshot, Store, on};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::Key;
use crate::domain::time::{Hour, Timestamp};
use crate::domain::verdict::Verdict;

/// How often a verdict was given on a key within an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCount {
    /// The key.
    pub key: KeyId,
    /// The hour.
    pub hour: Hour,
    /// The verdict.
    pub verdict: Verdict,
    /// How often.
    pub count: u64,
}

/// When a secret was last used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// Its key.
    pub key: KeyId,
    /// When it was made.
    pub secret: Timestamp,
    /// When it was last used.
    pub last_used_at: Timestamp,
}

/// Whose a deleted key was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its realm.
    pub realm: RealmId,
    /// Its owner.
    pub partner: PartnerId,
    /// The project that it was bound to.
    pub project: Option<ProjectId>,
    /// The environment that it lived in.
    pub environment: EnvironmentName,
}

impl Store {
    /// Adds to what is written down of the keys' use: counts are added, times only rise. Neither list names anything twice.
    ///
    /// # Errors
    /// [`Error::CommitUnknown`] if it may have been written all the same.
    pub async fn add_usage(&self, counts: &[KeyCount], uses: &[SecretUse]) -> Result<(), Error> {
        let mut write = self.write().await?;
        if !counts.is_empty() {
            on!(write.session, |conn| async {
                let mut query =
                    QueryBuilder::new("INSERT INTO usage (key_id, hour, verdict, count) ");
                query.push_values(counts, |mut row, each| {
                    row.push_bind(each.key.as_uuid())
                        .push_bind(each.hour.number())
                        .push_bind(word(each.verdict))
                        .push_bind(i64::try_from(each.count).unwrap_or(i64::MAX));
                });
                query.push(
                    " ON CONFLICT (key_id, hour, verdict) DO UPDATE SET count = usage.count + excluded.count",
                );
                // Each number of rows is a statement of its own, and not worth to be kept.
                let statement = query.build().persistent(false);
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        if !uses.is_empty() {
            on!(write.session, |conn| async {
                let mut query =
                    QueryBuilder::new("INSERT INTO uses (key_id, secret, last_used_at) ");
                query.push_values(uses, |mut row, each| {
                    row.push_bind(each.key.as_uuid())
                        .push_bind(each.secret.as_micros())
                        .push_bind(each.last_used_at.as_micros());
                });
                query.push(
                    " ON CONFLICT (key_id, secret) DO UPDATE SET last_used_at = excluded.last_used_at
                      WHERE uses.last_used_at < excluded.last_used_at",
                );
                let statement = query.build().persistent(false);
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        write.commit().await
    }
}

impl Snapshot {
    /// How a key was used within these hours, in their order.
    pub async fn key_counts(
        &mut self,
        key: KeyId,
        hours: Range<Hour>,
    ) -> Result<Vec<KeyCount>, Error> {
        let rows: Vec<(i64, String, i64)> = on!(self.session, |conn| {
            sqlx::query_as(
            "SELECT hour, verdict, count FROM usage WHERE key_id = $1 AND hour >= $2 AND hour < $3 ORDER BY hour",
        )
        .bind(key.as_uuid())
        .bind(hours.start.number())
        .bind(hours.end.number())
        .fetch_all(&mut *conn)
        })?;
        let count = |(hour, verdict, count): (i64, String, i64)| {
            let verdict = parse(&verdict).or_else(|| {
                tracing::error!(key_id = %key, verdict, "a count is left out: its verdict is not known");
                None
            })?;
            Some(KeyCount {
                key,
                hour: Hour::from_number(hour),
                verdict,
                count: count as u64,
            })
        };
        Ok(rows.into_iter().filter_map(count).collect())
    }

    /// When a key was last used, with whichever secret.
    pub async fn last_use(&mut self, key: KeyId) -> Result<Option<Timestamp>, Error> {
        let last: Option<i64> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT max(last_used_at) FROM uses WHERE key_id = $1"
        )
        .bind(key.as_uuid())
        .fetch_one(&mut *conn))?;
        Ok(last.map(Timestamp::from_micros))
    }

    /// Fills in when keys and their secrets were last used. Also a use of a secret that is gone is one of its key; there may be
    /// many of those, so that only the latest is read.
    pub async fn tell_last_uses(&mut self, keys: &mut [Key]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let rows: Vec<(Uuid, Option<i64>, i64)> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new(
                "SELECT key_id, CAST(NULL AS BIGINT), max(last_used_at) FROM uses WHERE key_id IN (",
            );
            let mut ids = query.separated(", ");
            for key in &*keys {
                ids.push_bind(key.id.as_uuid());
            }
            query.push(
                ") GROUP BY key_id UNION ALL SELECT key_id, secret, last_used_at FROM uses WHERE (key_id, secret) IN (VALUES ",
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
            query.build_query_as().fetch_all(&mut *conn).await
        })?;
        let uses: HashMap<_, _> = rows
            .into_iter()
            .map(|(key, secret, at)| {
                let secret = secret.map(Timestamp::from_micros);
                ((KeyId::from(key), secret), Timestamp::from_micros(at))
            })
            .collect();
        for key in keys {
            key.last_used_at = uses.get(&(key.id, None)).copied();
            for secret in &mut key.secrets {
                secret.last_used_at = uses.get(&(key.id, Some(secret.created_at))).copied();
            }
        }
        Ok(())
    }

    /// What is kept of a deleted key. Nothing, if it could not be told whose it was.
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
                partner: if partner.is_empty() {
                    PartnerId::nobody()
                } else {
                    PartnerId::parse(&partner).ok()?
                },
                project: project.as_deref().map(ProjectId::parse).transpose().ok()?,
                environment: EnvironmentName::parse(&environment).ok()?,
            })
        }))
    }
}

/// A verdict as the table keeps it: its name in the contract, without what all have in common.
fn word(verdict: Verdict) -> &'static str {
    let name = verdict.as_str();
    name.strip_prefix("VERDICT_").unwrap_or(name)
}

fn parse(text: &str) -> Option<Verdict> {
    Verdict::PROVEN
        .into_iter()
        .find(|verdict| word(*verdict) == text)
}
