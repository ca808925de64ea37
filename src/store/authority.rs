//! The row of the authority: the counter of revisions, the latest time and the current version of the pepper.

use super::holds::identity;
use super::replicas::now;
use super::{Change, EngineTransaction, Error, Snapshot, Store, execute, on, revision};
use crate::domain::clock::{ClockReading, TimeSample};
use crate::domain::event::{EventId, Revision};
use crate::domain::time::Timestamp;

/// The initial values of a new authority.
pub struct NewAuthority {
    /// The version of the pepper for new digests.
    pub pepper: u32,
    /// The canary of this version of the pepper.
    pub canary: [u8; 32],
    /// The key that authenticates page tokens.
    pub seal: [u8; 32],
    /// The time of the creation.
    pub time: Timestamp,
}

/// The state of the authority after the last change.
#[derive(Clone, Debug)]
pub struct Head {
    /// The event of the last change.
    pub event: EventId,
    /// The latest time that was ever recorded.
    pub clock: Timestamp,
    /// How often an operator has set the time.
    pub clock_setting: i64,
    /// The key that authenticates page tokens.
    pub seal: Vec<u8>,
    /// Each version of the pepper that was ever in use, with its canary.
    pub peppers: Vec<(u32, Vec<u8>)>,
}

/// The counter of revisions after it was taken for a change.
pub(super) struct Counter {
    /// The revision of the change.
    pub(super) revision: Revision,
    /// The time of the change, which is later than that of every earlier change.
    pub(super) time: Timestamp,
    /// The version of the pepper for new digests.
    pub(super) pepper: u32,
    /// Whether the change before was made in this database. An embedded database cannot tell, and says so.
    pub(super) is_same_database: bool,
    /// Whether anything is held.
    pub(super) has_holds: bool,
}

/// Takes the next revision; the argument is whether the change before was made in this database. A time from before the time was set
/// does not count.
macro_rules! take_counter {
    ($($is_same_database:expr),+) => {
        concat!(
            "UPDATE authority
             SET revision = revision + 1, clock = CASE
                 WHEN clock < $1 AND clock_setting = COALESCE($2, clock_setting) THEN $1
                 ELSE clock + 1
             END
             RETURNING revision, clock, pepper, EXISTS (SELECT 1 FROM holds), ",
            $($is_same_database),+
        )
    };
}

/// Raises the stored time; the argument is how far it is ahead of the database's clock.
macro_rules! mark_time {
    ($($clock_ahead:expr),+) => {
        concat!(
            "UPDATE authority SET clock = $1, clock_ahead = ",
            $($clock_ahead),+,
            " WHERE clock < $1 AND clock_setting = COALESCE($2, clock_setting)"
        )
    };
}

impl Store {
    /// Creates the authority and begins its first change; `None` if the store has an authority already.
    pub async fn create_authority(
        &self,
        new_authority: &NewAuthority,
    ) -> Result<Option<Change>, Error> {
        let mut write = self.write().await?;
        let created: Option<i64> = on!(write.session, |conn| {
            sqlx::query_scalar(
            "INSERT INTO authority (one, revision, clock, pepper, seal) VALUES (1, 0, $1, $2, $3)
                 ON CONFLICT (one) DO NOTHING RETURNING one",
        )
        .bind(new_authority.time.as_micros())
        .bind(i64::from(new_authority.pepper))
        .bind(new_authority.seal.to_vec())
        .fetch_optional(&mut *conn)
        })?;
        if created.is_none() {
            return Ok(None);
        }
        Self::settle_new_authority(&mut write).await?;
        write.set_identity().await?;
        execute!(
            write.session,
            sqlx::query("INSERT INTO peppers (version, canary) VALUES ($1, $2)")
                .bind(i64::from(new_authority.pepper))
                .bind(new_authority.canary.to_vec())
        )?;
        Ok(Some(Change::open(write, new_authority.time.into()).await?))
    }

    /// Raises the stored time to `now` if it is earlier, so that a later start does not begin before it. The time of a shared database
    /// goes on from there, also if the clock of its machine was set back. Not a change.
    pub async fn mark_time(&self, now: impl Into<ClockReading>) -> Result<(), Error> {
        let now: ClockReading = now.into();
        let mut write = self.write().await?;
        let statement = match &write.session.transaction {
            EngineTransaction::Sqlite(_) => mark_time!("clock_ahead"),
            // A difference of less than a second is the time that this took.
            EngineTransaction::Postgres(_) => mark_time!(
                "CASE WHEN abs(",
                now!(),
                " + clock_ahead - $1) < 1000000 THEN clock_ahead ELSE greatest(0, $1 - ",
                now!(),
                ") END"
            ),
        };
        execute!(
            write.session,
            sqlx::query(statement)
                .bind(now.time.as_micros())
                .bind(now.setting)
        )?;
        write.commit().await
    }

    /// Sets the stored time, also to an earlier one. Returns how often the time was set. This is not a change.
    pub async fn reset_time(&self, time: Timestamp) -> Result<i64, Error> {
        let mut write = self.write().await?;
        let setting = write.set_time(time).await?;
        write.commit().await?;
        Ok(setting)
    }
}

impl Change {
    /// Sets the stored time, also to an earlier one.
    pub async fn set_time(&mut self, time: Timestamp) -> Result<(), Error> {
        self.snapshot.set_time(time).await?;
        Ok(())
    }
}

impl Snapshot {
    /// Returns the state after the last change; `None` if there was no change.
    pub async fn head(&mut self) -> Result<Option<Head>, Error> {
        let row: Option<(i64, i64, i64, i64, Vec<u8>)> = on!(self.session, |conn| sqlx::query_as(
            "SELECT a.revision, e.stamp, a.clock, a.clock_setting, a.seal
                 FROM authority AS a JOIN events AS e ON e.revision = a.revision",
        )
        .fetch_optional(&mut *conn))?;
        let Some((last, stamp, clock, clock_setting, seal)) = row else {
            return Ok(None);
        };
        let peppers: Vec<(i64, Vec<u8>)> = on!(self.session, |conn| sqlx::query_as(
            "SELECT version, canary FROM peppers"
        )
        .fetch_all(&mut *conn))?;
        Ok(Some(Head {
            event: EventId {
                revision: revision(last),
                stamp,
            },
            clock: Timestamp::from_micros(clock),
            clock_setting,
            seal,
            peppers: peppers
                .into_iter()
                .map(|(version, canary)| (version as u32, canary))
                .collect(),
        }))
    }

    /// Returns the revision of the last change.
    pub async fn revision(&mut self) -> Result<Revision, Error> {
        let last: i64 = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT revision FROM authority"
        )
        .fetch_one(&mut *conn))?;
        Ok(revision(last))
    }

    /// Returns the revision and the time that the next change would have, if it began now.
    pub async fn next_change(&mut self, now: Timestamp) -> Result<(Revision, Timestamp), Error> {
        let (last, clock): (i64, i64) = on!(self.session, |conn| sqlx::query_as(
            "SELECT revision, clock FROM authority"
        )
        .fetch_one(&mut *conn))?;
        let time = now.max(Timestamp::from_micros(clock + 1));
        Ok((revision(last).next(), time))
    }

    /// Returns the time of the authority by the clock of a shared database, which has one also without an authority; `None` if the database
    /// is embedded.
    pub async fn time(&mut self) -> Result<Option<TimeSample>, Error> {
        if let EngineTransaction::Sqlite(_) = &self.session.transaction {
            return Ok(None);
        }
        let row: (i64, i64) = on!(self.session, |conn| sqlx::query_as(concat!(
            "SELECT COALESCE(max(greatest(clock, clock_ahead + ",
            now!(),
            ")), ",
            now!(),
            "), COALESCE(max(clock_setting), 0) FROM authority"
        ))
        .fetch_one(&mut *conn))?;
        Ok(Some(TimeSample {
            time: Timestamp::from_micros(row.0),
            setting: row.1,
        }))
    }

    /// Returns the clock of a shared database; `None` if the database is embedded.
    pub async fn database_clock(&mut self) -> Result<Option<Timestamp>, Error> {
        if let EngineTransaction::Sqlite(_) = &self.session.transaction {
            return Ok(None);
        }
        let now: i64 = on!(self.session, |conn| sqlx::query_scalar(concat!(
            "SELECT ",
            now!()
        ))
        .fetch_one(&mut *conn))?;
        Ok(Some(Timestamp::from_micros(now)))
    }

    /// Returns how often the time was set.
    pub async fn clock_setting(&mut self) -> Result<i64, Error> {
        let setting = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT clock_setting FROM authority"
        )
        .fetch_one(&mut *conn))?;
        Ok(setting)
    }

    /// Sets the stored time, and returns how often it was set.
    async fn set_time(&mut self, time: Timestamp) -> Result<i64, Error> {
        let setting = on!(self.session, |conn| sqlx::query_scalar(
            "UPDATE authority
             SET clock = $1, clock_ahead = 0, clock_setting = clock_setting + 1, set_back_to = CASE
                 WHEN clock > $1 AND (set_back_to IS NULL OR set_back_to > $1) THEN $1
                 ELSE set_back_to
             END
             RETURNING clock_setting"
        )
        .bind(time.as_micros())
        .fetch_one(&mut *conn))?;
        Ok(setting)
    }

    /// Takes the next revision and locks the counter until the end of the transaction, so that no other change can be open.
    pub(super) async fn take_counter(&mut self, now: ClockReading) -> Result<Counter, Error> {
        let statement = match &self.session.transaction {
            EngineTransaction::Sqlite(_) => take_counter!("TRUE"),
            EngineTransaction::Postgres(_) => {
                take_counter!("database_identity = ", identity!())
            }
        };
        let (next, time, pepper, has_holds, is_same_database): (i64, i64, i64, bool, bool) =
            on!(self.session, |conn| sqlx::query_as(statement)
                .bind(now.time.as_micros())
                .bind(now.setting)
                .fetch_one(&mut *conn))?;
        Ok(Counter {
            revision: revision(next),
            time: Timestamp::from_micros(time),
            pepper: pepper as u32,
            is_same_database,
            has_holds,
        })
    }

    /// Takes so many more revisions, and a microsecond for each, in the transaction that has locked the counter.
    pub(super) async fn advance_counter(&mut self, changes: usize) -> Result<(), Error> {
        execute!(
            self.session,
            sqlx::query("UPDATE authority SET revision = revision + $1, clock = clock + $1")
                .bind(changes as i64)
        )?;
        Ok(())
    }

    /// Returns the number of events, the first revision and the last revision. If there are no gaps, each of the three values
    /// follows from the other two.
    pub async fn history(&mut self) -> Result<(u64, Revision, Revision), Error> {
        let (count, first, last): (i64, Option<i64>, Option<i64>) =
            on!(self.session, |conn| sqlx::query_as(
                "SELECT count(*), min(revision), max(revision) FROM events"
            )
            .fetch_one(&mut *conn))?;
        Ok((
            count as u64,
            revision(first.unwrap_or(0)),
            revision(last.unwrap_or(0)),
        ))
    }
}
