//! What outlives the process: one behaviour over two SQL databases.
//!
//! A [`Snapshot`] reads one consistent state. A [`Change`] is a snapshot that may also write; there is one at a time, and it
//! holds the counter of revisions from its first statement to its commit. Each statement is written once, for both engines;
//! rows and drivers do not leave this module.

mod authority;
mod connections;
mod database_lock;
mod events;
mod imports;
mod keys;
mod migrations;
mod postgres;
mod realms;
mod requests;
mod retention;
mod revocations;
mod sqlite;
mod stored_key;
mod usage;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, StreamExt};
use sqlx::{Sqlite, SqlitePool, Transaction};

pub use authority::{Genesis, Head};
pub use database_lock::{DatabaseLock, Usurped};
pub use events::{EventFilter, FeedEntry};
pub use keys::{KeyFilter, KeyRow};
pub use migrations::Schema;
pub use postgres::DatabaseUrl;
pub use realms::{PartnerRow, ProjectRow, RealmRow};
pub use requests::AnsweredRequest;
pub use retention::More;
pub use stored_key::{StoredKey, StoredSecret};
pub use usage::{KeyCount, SecretUse, Tombstone};

use crate::domain::event::{Event, Revision};
use crate::domain::ids::KeyId;
use crate::domain::time::Timestamp;
use connections::{Connections, PgTransaction};

/// Where everything is kept.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    schema: Schema,
    sessions: Arc<AtomicU64>,
}

/// One of the two databases. In either, one connection writes, several read, and the feed has one of its own.
#[derive(Clone)]
enum Engine {
    /// The embedded one.
    Sqlite {
        read: SqlitePool,
        feed: SqlitePool,
        write: SqlitePool,
    },
    /// A shared one.
    Postgres {
        read: Arc<Connections>,
        feed: Arc<Connections>,
        write: Arc<Connections>,
    },
}

/// A transaction of either engine.
enum Session {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(PgTransaction),
}

/// Waits for a statement on the connection of either engine; on the shared one, not for longer than it may take. The compiler
/// checks the statement once for each.
macro_rules! on {
    ($session:expr, |$conn:ident| $statement:expr) => {
        match &mut $session {
            $crate::store::Session::Sqlite(transaction) => {
                let $conn = &mut **transaction;
                $statement.await
            }
            $crate::store::Session::Postgres(transaction) => {
                let ($conn, statement) = transaction.begin_statement();
                let outcome = statement.within($statement).await;
                transaction.ended(&statement, outcome)
            }
        }
    };
}
use on;

/// The same for a statement that answers with nothing.
macro_rules! execute {
    ($session:expr, $statement:expr) => {
        on!($session, |conn| async {
            $statement.execute(&mut *conn).await.map(drop)
        })
    };
}
use execute;

/// How many rows are taken from the driver at once when all are read.
const ROWS_AT_ONCE: usize = 1_024;

/// The same for a stream of rows, in batches of as many as have come; each batch has the time that a statement may take.
macro_rules! for_each_batch {
    ($session:expr, |$conn:ident| $rows:expr, |$batch:ident| $each:expr) => {
        match &mut $session {
            $crate::store::Session::Sqlite(transaction) => {
                let $conn = &mut **transaction;
                let mut batches = $crate::store::batches($rows);
                loop {
                    match futures_util::TryStreamExt::try_next(&mut batches).await {
                        Ok(Some($batch)) => $each,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
            }
            $crate::store::Session::Postgres(transaction) => {
                let ($conn, statement) = transaction.begin_statement();
                let mut batches = $crate::store::batches($rows);
                let outcome = loop {
                    match statement
                        .within(futures_util::TryStreamExt::try_next(&mut batches))
                        .await
                    {
                        Ok(Some($batch)) => $each,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                };
                drop(batches);
                transaction.ended(&statement, outcome)
            }
        }
    };
}
use for_each_batch;

fn batches<T>(
    rows: impl Stream<Item = Result<T, sqlx::Error>> + Unpin,
) -> impl Stream<Item = Result<Vec<T>, sqlx::Error>> + Unpin {
    rows.ready_chunks(ROWS_AT_ONCE)
        .map(|rows| rows.into_iter().collect())
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or it failed. Nothing was changed.
    #[error("the store does not answer: {0}")]
    Unavailable(#[from] sqlx::Error),
    /// It failed while a change was committed: it is open whether the change was made.
    #[error("the store failed in the middle of a commit: {0}")]
    CommitUnknown(sqlx::Error),
    /// What is stored cannot be understood.
    #[error("what is stored of {0} cannot be read")]
    Corrupt(String),
    /// A deleted key had this id.
    #[error("the id {0} was a deleted key's and is not given again")]
    IdTaken(KeyId),
}

/// Why a store could not be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be used as it is.
    #[error("{0}")]
    Unfit(String),
    /// It does not answer; later it may.
    #[error("{0}")]
    Unreachable(String),
    /// Another process has it.
    #[error(
        "another claviger process uses this database, which has one at a time: replicas are not supported yet. Stop it first, \
         or name another --database-url"
    )]
    InUse,
}

impl Store {
    fn new(engine: Engine, schema: Schema) -> Self {
        Self {
            engine,
            schema,
            sessions: Arc::default(),
        }
    }

    /// What opening did to the schema.
    pub fn schema(&self) -> Schema {
        self.schema
    }

    /// Begins to read one consistent state.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        match &self.engine {
            Engine::Sqlite { read, .. } => self.read_sqlite(read).await,
            Engine::Postgres { read, .. } => self.read_postgres(read).await,
        }
    }

    /// Begins to read one consistent state for the feed, which must not queue behind others.
    pub async fn feed_snapshot(&self) -> Result<Snapshot, Error> {
        match &self.engine {
            Engine::Sqlite { feed, .. } => self.read_sqlite(feed).await,
            Engine::Postgres { feed, .. } => self.read_postgres(feed).await,
        }
    }

    async fn read_sqlite(&self, pool: &SqlitePool) -> Result<Snapshot, Error> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let session = Session::Sqlite(pool.begin_with("BEGIN").await?);
        Ok(Snapshot { session })
    }

    async fn read_postgres(&self, connections: &Arc<Connections>) -> Result<Snapshot, Error> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let session = Session::Postgres(connections.begin(begin).await?);
        Ok(Snapshot { session })
    }

    /// Begins a change, which waits until no other is open.
    pub async fn change(&self, now: Timestamp) -> Result<Change, Error> {
        Change::open(self.write().await?, now).await
    }

    async fn write(&self) -> Result<Snapshot, Error> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let session = match &self.engine {
            Engine::Sqlite { write, .. } => {
                Session::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?)
            }
            // READ COMMITTED: once it has the counter's row, it reads what the change before it wrote.
            Engine::Postgres { write, .. } => {
                let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
                Session::Postgres(write.begin(begin).await?)
            }
        };
        Ok(Snapshot { session })
    }

    /// How many snapshots and changes were begun: every access to the store is one.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Waits for what is under way and closes the store.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite { read, feed, write } => {
                read.close().await;
                feed.close().await;
                write.close().await;
            }
            Engine::Postgres { read, feed, write } => {
                read.close().await;
                feed.close().await;
                write.close().await;
            }
        }
    }
}

/// One consistent state, for reading.
pub struct Snapshot {
    session: Session,
}

/// The one change that is open. Dropped without a commit it leaves no trace.
pub struct Change {
    snapshot: Snapshot,
    revision: Revision,
    time: Timestamp,
    pepper: u32,
}

impl Change {
    async fn open(mut snapshot: Snapshot, now: Timestamp) -> Result<Self, Error> {
        let (revision, time, pepper) = snapshot.take_counter(now).await?;
        Ok(Self {
            snapshot,
            revision,
            time,
            pepper,
        })
    }

    /// The revision that this change will have.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// When this change is made: later than every one before it, if only by a microsecond.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The version of the pepper under which new digests are made.
    pub fn pepper(&self) -> u32 {
        self.pepper
    }

    /// Records the change so far and goes on with another one, of the next revision, in the same transaction.
    pub async fn and_another(&mut self, event: &Event) -> Result<(), Error> {
        self.append(event).await?;
        (self.revision, self.time, self.pepper) = self.snapshot.take_counter(self.time).await?;
        Ok(())
    }

    /// Records the change and makes it durable.
    pub async fn commit(mut self, event: &Event) -> Result<Revision, Error> {
        self.append(event).await?;
        self.snapshot.commit().await?;
        Ok(self.revision)
    }
}

impl Snapshot {
    async fn commit(self) -> Result<(), Error> {
        match self.session {
            Session::Sqlite(transaction) => transaction.commit().await,
            Session::Postgres(transaction) => transaction.commit().await,
        }
        .map_err(Error::CommitUnknown)
    }
}

impl Deref for Change {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl DerefMut for Change {
    fn deref_mut(&mut self) -> &mut Snapshot {
        &mut self.snapshot
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<T, Cursor> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

impl<T, Cursor> Page<T, Cursor> {
    /// A page of at most `limit` rows from rows asked for with [`page_and_one`]. Rows that cannot be read are missing from
    /// the page but do not end the list.
    fn new<Row>(
        mut rows: Vec<Row>,
        limit: u32,
        cursor: impl Fn(&Row) -> Cursor,
        read: impl Fn(Row) -> Option<T>,
    ) -> Self {
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Self {
            next: rows.last().filter(|_| more).map(cursor),
            items: rows.into_iter().filter_map(read).collect(),
        }
    }
}

/// One row more than the page has, to learn whether there is another page.
fn page_and_one(limit: u32) -> i64 {
    i64::from(limit) + 1
}

/// A number as the databases keep it.
fn stored(revision: Revision) -> i64 {
    i64::try_from(revision.as_u64()).unwrap_or(i64::MAX)
}

fn revision(stored: i64) -> Revision {
    Revision::from(u64::try_from(stored).unwrap_or(0))
}
