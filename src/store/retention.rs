//! The deletion of old rows, in small batches. It is not a change: it has no revision and no event. Of servers that share a database,
//! one deletes at a time.

use uuid::Uuid;

use super::database_lock::RETENTION_LOCK_KEY;
use super::{Engine, Error, Snapshot, Store, execute, on, stored};
use crate::domain::event::Revision;
use crate::domain::time::{Hour, Timestamp};

/// The maximum number of rows that one transaction deletes. A change waits for at most one such transaction.
const ROWS_AT_ONCE: i64 = 1_000;

/// The maximum number of addresses that one transaction deletes, each with a statement.
const ADDRESSES_AT_ONCE: usize = 100;

/// A place among the recorded addresses. The default is before the first one.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressCursor {
    key: Uuid,
    secret: i64,
}

/// Whether there may be more rows to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoreRows(pub bool);

/// Runs a statement that deletes rows, and returns their number.
macro_rules! delete {
    ($session:expr, $statement:expr) => {
        on!($session, |conn| async {
            let done = $statement.execute(&mut *conn).await?;
            Ok(done.rows_affected())
        })
    };
}

impl Store {
    /// Begins to delete, unless another server that shares the database is about to.
    async fn begin_to_forget(&self) -> Result<Option<Snapshot>, Error> {
        let mut write = self.write().await?;
        if let Engine::Sqlite { .. } = self.engine {
            return Ok(Some(write));
        }
        let is_alone: bool = on!(write.session, |conn| sqlx::query_scalar(
            "SELECT pg_try_advisory_xact_lock($1)"
        )
        .bind(RETENTION_LOCK_KEY)
        .fetch_one(&mut *conn))?;
        Ok(is_alone.then_some(write))
    }

    /// Deletes some of the oldest events.
    ///
    /// An event is deleted if its revision is lower than `known` and than what each server that shares the database has reported, and
    /// if the next event is older than `before` too. So the remaining events are always the end of the history, without a gap, and
    /// at least one event.
    ///
    /// A feed reads the last event that it has already seen, to check that the history is still the same. So this event must
    /// remain as long as a feed may be behind. A feed reads later events within moments, and they become old only long
    /// afterwards.
    pub async fn forget_events(
        &self,
        before: Timestamp,
        known: Revision,
    ) -> Result<MoreRows, Error> {
        let Some(mut write) = self.begin_to_forget().await? else {
            return Ok(MoreRows(false));
        };
        let reported: Option<i64> = on!(write.session, |conn| sqlx::query_scalar(
            "SELECT min(reported_revision) FROM replicas"
        )
        .fetch_one(&mut *conn))?;
        let known = stored(known).min(reported.unwrap_or(i64::MAX));
        let oldest: Vec<(i64, i64)> = on!(write.session, |conn| sqlx::query_as(
            "SELECT revision, time FROM events ORDER BY revision LIMIT $1"
        )
        .bind(ROWS_AT_ONCE + 1)
        .fetch_all(&mut *conn))?;
        // The times alone are not sufficient: if the clock was set back on purpose, there would be a gap.
        let to_delete = oldest
            .windows(2)
            .take_while(|pair| pair[1].1 < before.as_micros() && pair[0].0 < known)
            .last();
        let Some(&[(last, _), _]) = to_delete else {
            return Ok(MoreRows(false));
        };
        let deleted = delete!(
            write.session,
            sqlx::query("DELETE FROM events WHERE revision <= $1").bind(last)
        )?;
        write.commit().await?;
        Ok(MoreRows(deleted >= ROWS_AT_ONCE as u64))
    }

    /// Deletes some usage counts of keys and owners, of hours before `before`.
    pub async fn forget_counts(&self, before: Hour) -> Result<MoreRows, Error> {
        let Some(mut write) = self.begin_to_forget().await? else {
            return Ok(MoreRows(false));
        };
        let deleted = delete!(
            write.session,
            sqlx::query(
                "DELETE FROM usage WHERE (key_id, hour, verdict) IN (
                     SELECT key_id, hour, verdict FROM usage WHERE hour < $1 ORDER BY hour LIMIT $2)",
            )
            .bind(before.number())
            .bind(ROWS_AT_ONCE)
        )?;
        let deleted_of_owners = delete!(
            write.session,
            sqlx::query(
                "DELETE FROM owner_usage WHERE (hour, realm, partner, project, environment, verdict) IN (
                     SELECT hour, realm, partner, project, environment, verdict FROM owner_usage
                     WHERE hour < $1 ORDER BY hour LIMIT $2)",
            )
            .bind(before.number())
            .bind(ROWS_AT_ONCE)
        )?;
        write.commit().await?;
        Ok(MoreRows(
            deleted.max(deleted_of_owners) >= ROWS_AT_ONCE as u64,
        ))
    }

    /// Looks at the next recorded addresses after this place, and deletes those of keys that are gone or belong to a realm that does
    /// not record addresses. Returns the place up to which it looked; `None` after the last one.
    ///
    /// The addresses of realms that record stay, however many there are. So nobody waits for the search, which is not part of the
    /// transactions that delete.
    pub async fn forget_addresses(
        &self,
        after: AddressCursor,
        records: impl Fn(&str) -> bool,
    ) -> Result<Option<AddressCursor>, Error> {
        let mut snapshot = self.snapshot().await?;
        let found: Vec<(Uuid, i64, Option<String>)> = on!(snapshot.session, |conn| {
            sqlx::query_as(
                "SELECT u.key_id, u.secret, k.realm FROM uses AS u LEFT JOIN keys AS k ON k.id = u.key_id
                 WHERE u.address IS NOT NULL AND (u.key_id, u.secret) > ($1, $2)
                 ORDER BY u.key_id, u.secret LIMIT $3",
            )
            .bind(after.key)
            .bind(after.secret)
            .bind(ROWS_AT_ONCE)
            .fetch_all(&mut *conn)
        })?;
        drop(snapshot);
        let next = found
            .last()
            .map(|&(key, secret, _)| AddressCursor { key, secret });
        let is_over =
            |(_, _, realm): &(_, _, Option<String>)| !realm.as_deref().is_some_and(&records);
        let over: Vec<_> = found.into_iter().filter(is_over).collect();
        for rows in over.chunks(ADDRESSES_AT_ONCE) {
            let Some(mut write) = self.begin_to_forget().await? else {
                return Ok(None);
            };
            // One by one in this order, in which another server locks them when it writes usage.
            for (key, secret, _) in rows {
                execute!(
                    write.session,
                    sqlx::query("UPDATE uses SET address = NULL WHERE key_id = $1 AND secret = $2")
                        .bind(key)
                        .bind(secret)
                )?;
            }
            write.commit().await?;
        }
        Ok(next)
    }

    /// Deletes some tombstones of keys that were deleted before `before`.
    ///
    /// The times of last use and the import digests of these keys are deleted with them.
    pub async fn forget_tombstones(&self, before: Timestamp) -> Result<MoreRows, Error> {
        let Some(mut write) = self.begin_to_forget().await? else {
            return Ok(MoreRows(false));
        };
        // They are deleted together, so that there is never a last use of a key without a known owner.
        delete!(
            write.session,
            sqlx::query(
                "DELETE FROM uses WHERE key_id IN (
                     SELECT key_id FROM tombstones WHERE deleted_at < $1 ORDER BY deleted_at, key_id LIMIT $2)",
            )
            .bind(before.as_micros())
            .bind(ROWS_AT_ONCE)
        )?;
        delete!(
            write.session,
            sqlx::query(
                "DELETE FROM imports WHERE key_id IN (
                     SELECT key_id FROM tombstones WHERE deleted_at < $1 ORDER BY deleted_at, key_id LIMIT $2)",
            )
            .bind(before.as_micros())
            .bind(ROWS_AT_ONCE)
        )?;
        let deleted = delete!(
            write.session,
            sqlx::query(
                "DELETE FROM tombstones WHERE key_id IN (
                     SELECT key_id FROM tombstones WHERE deleted_at < $1 ORDER BY deleted_at, key_id LIMIT $2)",
            )
            .bind(before.as_micros())
            .bind(ROWS_AT_ONCE)
        )?;
        write.commit().await?;
        Ok(MoreRows(deleted >= ROWS_AT_ONCE as u64))
    }

    /// Deletes some answered requests from before `before`.
    pub async fn forget_requests(&self, before: Timestamp) -> Result<MoreRows, Error> {
        let Some(mut write) = self.begin_to_forget().await? else {
            return Ok(MoreRows(false));
        };
        let deleted = delete!(
            write.session,
            sqlx::query(
                "DELETE FROM requests WHERE (actor, id) IN (
                     SELECT actor, id FROM requests WHERE time < $1 ORDER BY time LIMIT $2)",
            )
            .bind(before.as_micros())
            .bind(ROWS_AT_ONCE)
        )?;
        write.commit().await?;
        Ok(MoreRows(deleted >= ROWS_AT_ONCE as u64))
    }
}
