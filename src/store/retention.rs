//! What is forgotten when its time is over, a few rows at a time. None of it is a change.

use super::{Error, Store, on, stored};
use crate::domain::event::Revision;
use crate::domain::time::{Hour, Timestamp};

/// How many rows go in one transaction. A change waits for one such at the most.
const ROWS_AT_ONCE: i64 = 1_000;

/// Whether there may be more of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More(pub bool);

/// Runs one statement that deletes rows, and tells how many.
macro_rules! delete {
    ($session:expr, $statement:expr) => {
        on!($session, |conn| async {
            let done = $statement.execute(&mut *conn).await?;
            Ok(done.rows_affected())
        })
    };
}

impl Store {
    /// Forgets some of the oldest events: those before the revision `known`, as far as the event that follows is older than
    /// `before` too. What remains is always the end of the history, without a gap, and never nothing. A feed asks for the last
    /// event that it knows of, to see that the history is still the same; so that one must be there for as long as any feed may
    /// be behind. What followed it is told to a feed within moments, and old only long after that.
    pub async fn forget_events(&self, before: Timestamp, known: Revision) -> Result<More, Error> {
        let mut write = self.write().await?;
        let oldest: Vec<(i64, i64)> = on!(write.session, |conn| sqlx::query_as(
            "SELECT revision, time FROM events ORDER BY revision LIMIT $1"
        )
        .bind(ROWS_AT_ONCE + 1)
        .fetch_all(&mut *conn))?;
        // Not by their times alone: a clock that was set back on purpose would leave a gap.
        let going = oldest
            .windows(2)
            .take_while(|pair| pair[1].1 < before.as_micros() && pair[0].0 < stored(known))
            .last();
        let Some(&[(last, _), _]) = going else {
            return Ok(More(false));
        };
        let gone = delete!(
            write.session,
            sqlx::query("DELETE FROM events WHERE revision <= $1").bind(last)
        )?;
        write.commit().await?;
        Ok(More(gone >= ROWS_AT_ONCE as u64))
    }

    /// Forgets some of what was counted before this hour.
    pub async fn forget_counts(&self, before: Hour) -> Result<More, Error> {
        let mut write = self.write().await?;
        let gone = delete!(
            write.session,
            sqlx::query(
                "DELETE FROM usage WHERE (key_id, hour, verdict) IN (
                     SELECT key_id, hour, verdict FROM usage WHERE hour < $1 ORDER BY hour LIMIT $2)",
            )
            .bind(before.number())
            .bind(ROWS_AT_ONCE)
        )?;
        write.commit().await?;
        Ok(More(gone >= ROWS_AT_ONCE as u64))
    }

    /// Forgets some keys that were deleted before this time, when they were last used, and that their texts were revoked.
    pub async fn forget_tombstones(&self, before: Timestamp) -> Result<More, Error> {
        let mut write = self.write().await?;
        // They go together, so that no use is ever kept of which nobody knows whose it was.
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
        let gone = delete!(
            write.session,
            sqlx::query(
                "DELETE FROM tombstones WHERE key_id IN (
                     SELECT key_id FROM tombstones WHERE deleted_at < $1 ORDER BY deleted_at, key_id LIMIT $2)",
            )
            .bind(before.as_micros())
            .bind(ROWS_AT_ONCE)
        )?;
        write.commit().await?;
        Ok(More(gone >= ROWS_AT_ONCE as u64))
    }

    /// Forgets some of what was answered before this time to requests that must not be done twice.
    pub async fn forget_requests(&self, before: Timestamp) -> Result<More, Error> {
        let mut write = self.write().await?;
        let gone = delete!(
            write.session,
            sqlx::query(
                "DELETE FROM requests WHERE (actor, id) IN (
                     SELECT actor, id FROM requests WHERE time < $1 ORDER BY time LIMIT $2)",
            )
            .bind(before.as_micros())
            .bind(ROWS_AT_ONCE)
        )?;
        write.commit().await?;
        Ok(More(gone >= ROWS_AT_ONCE as u64))
    }
}
