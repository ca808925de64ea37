//! The tables of forks of the history, and of holds: what lost changes took away.

use sha2::{Digest, Sha256};
use sqlx::QueryBuilder;

use super::{
    Change, EngineTransaction, Error, Event, INSERTS_AT_ONCE, Snapshot, execute, keeps_insert, on,
    revision, stored,
};
use crate::domain::event::{Actor, EventKind, Revision, Subject};
use crate::domain::hold::{Fork, Hold, Holdable};

/// The database itself: another one may lack changes that this one has. A promotion changes the timeline, and a copy of the files or a
/// restore by statements one of the others.
macro_rules! identity {
    () => {
        "(SELECT concat_ws('/', system_identifier,
             (SELECT oid FROM pg_database WHERE datname = current_database()),
             substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)) FROM pg_control_system())"
    };
}
pub(super) use identity;

/// A stored hold, and the fork at which the change was lost that took away what it keeps.
#[derive(Clone, Debug)]
pub struct StoredHold {
    /// The epoch of the fork.
    pub epoch: u64,
    /// The hold.
    pub hold: Hold,
}

impl Snapshot {
    /// Returns the forks of the history, the first one first.
    pub async fn forks(&mut self) -> Result<Vec<Fork>, Error> {
        let rows: Vec<(i64, i64)> = on!(self.session, |conn| sqlx::query_as(
            "SELECT epoch, last_revision FROM forks ORDER BY epoch"
        )
        .fetch_all(&mut *conn))?;
        let forks = rows.into_iter().map(|(epoch, last)| Fork {
            epoch: revision(epoch).as_u64(),
            last: revision(last),
        });
        Ok(forks.collect())
    }

    /// Returns all holds, those of the first fork first.
    ///
    /// # Errors
    /// Also if one cannot be read: without it, something would be given back.
    pub async fn holds(&mut self) -> Result<Vec<StoredHold>, Error> {
        let rows: Vec<(i64, String)> = on!(self.session, |conn| sqlx::query_as(
            "SELECT epoch, hold FROM holds ORDER BY epoch, held"
        )
        .fetch_all(&mut *conn))?;
        let read = |(epoch, text): (i64, String)| {
            let hold = serde_json::from_str(&text);
            Ok(StoredHold {
                epoch: revision(epoch).as_u64(),
                hold: hold.map_err(|_| Error::Corrupt("a hold".to_owned()))?,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Returns whether there are any holds.
    pub async fn has_holds(&mut self) -> Result<bool, Error> {
        on!(self.session, |conn| sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM holds)"
        )
        .fetch_one(&mut *conn))
        .map_err(Error::from)
    }

    /// Returns whether there is a hold of this.
    pub async fn is_held(&mut self, what: &Holdable) -> Result<bool, Error> {
        on!(self.session, |conn| sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM holds WHERE held = $1)"
        )
        .bind(what.to_string())
        .fetch_one(&mut *conn))
        .map_err(Error::from)
    }

    /// Returns what is held because of this fork, and how many holds there are: at most `limit`, in alphabetical order.
    pub async fn held_since(
        &mut self,
        fork: &Fork,
        limit: u32,
    ) -> Result<(Vec<String>, u64), Error> {
        let epoch = fork.epoch as i64;
        let names: Vec<String> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT DISTINCT held FROM holds WHERE epoch = $1 ORDER BY held LIMIT $2"
        )
        .bind(epoch)
        .bind(i64::from(limit))
        .fetch_all(&mut *conn))?;
        let count: i64 = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT count(DISTINCT held) FROM holds WHERE epoch = $1"
        )
        .bind(epoch)
        .fetch_one(&mut *conn))?;
        Ok((names, count as u64))
    }

    /// Records in a new authority which database it is in. Not a change.
    pub(super) async fn set_identity(&mut self) -> Result<(), Error> {
        if let EngineTransaction::Sqlite(_) = &self.session.transaction {
            return Ok(());
        }
        execute!(
            self.session,
            sqlx::query(concat!(
                "UPDATE authority SET database_identity = ",
                identity!()
            ))
        )?;
        Ok(())
    }
}

impl Change {
    /// Begins an epoch as a change of its own before this one: the changes after `last`, up to at least `known`, may be lost. The
    /// new epoch is later than that of `known`.
    pub async fn begin_epoch(&mut self, last: Revision, known: Revision) -> Result<Fork, Error> {
        let first = self.revision.in_next_epoch(known);
        let fork = Fork {
            epoch: first.epoch(),
            last,
        };
        self.snapshot.set_identity().await?;
        execute!(
            self.snapshot.session,
            sqlx::query("UPDATE authority SET revision = $1").bind(stored(first))
        )?;
        execute!(
            self.snapshot.session,
            sqlx::query("INSERT INTO forks (epoch, last_revision) VALUES ($1, $2)")
                .bind(fork.epoch as i64)
                .bind(stored(last))
        )?;
        self.revision = first;
        let event = Event {
            revision: first,
            time: self.time,
            actor: Actor::command_line(),
            kind: EventKind::EpochBegan,
            subject: Subject::authority(),
            detail: [
                ("epoch".to_owned(), fork.epoch.to_string()),
                ("last_revision".to_owned(), last.to_string()),
            ]
            .into(),
        };
        self.reserve(1).await?;
        self.start_next(event).await?;
        Ok(fork)
    }

    /// Stores holds of what changes took away that were lost at this fork. Those that are stored already stay as they are. Returns how
    /// many were not.
    pub async fn insert_holds(&mut self, fork: &Fork, holds: &[Hold]) -> Result<u64, Error> {
        let mut added = 0;
        for chunk in holds.chunks(INSERTS_AT_ONCE) {
            let texts = chunk.iter().map(|hold| {
                let text = serde_json::to_string(hold).expect("a hold can be serialized");
                (hold.held().to_string(), text)
            });
            let texts: Vec<_> = texts.collect();
            added += on!(self.snapshot.session, |conn| async {
                let mut query = QueryBuilder::new("INSERT INTO holds (epoch, held, sha256, hold) ");
                query.push_values(&texts, |mut row, (held, text)| {
                    row.push_bind(fork.epoch as i64)
                        .push_bind(held)
                        .push_bind(Sha256::digest(text).to_vec())
                        .push_bind(text);
                });
                query.push(" ON CONFLICT DO NOTHING");
                let statement = query.build().persistent(keeps_insert(chunk.len()));
                let outcome = statement.execute(&mut *conn).await;
                outcome.map(|outcome| outcome.rows_affected())
            })?;
        }
        Ok(added)
    }

    /// Deletes the holds of what changes took away that were lost at this fork.
    pub async fn delete_holds(&mut self, fork: &Fork) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM holds WHERE epoch = $1").bind(fork.epoch as i64)
        )?;
        Ok(())
    }
}
