//! The store: the persistent state, with the same behaviour in two SQL databases.
//!
//! A [`Snapshot`] reads one consistent state. A [`Change`] is a snapshot that may also write. At most one change is open, and
//! it locks the counter of revisions from its first statement to its commit. Each statement is written once for both engines.
//! Rows and drivers are private to this module.

mod authority;
mod connections;
mod connector;
mod database_lock;
mod database_urls;
mod dead_keys;
mod driver;
mod events;
mod examination;
mod facts_text;
mod hash_hints;
mod holds;
mod imports;
mod key_filter;
mod keys;
mod masked_url;
mod metrics;
mod migrations;
mod owner_usage;
mod postgres;
mod realms;
mod replicas;
mod requests;
mod retention;
mod revocations;
mod servers;
mod sqlite;
mod stored_key;
mod usage;
mod used_keys;

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use sqlx::postgres::PgDatabaseError;
use sqlx::{Sqlite, SqlitePool, Transaction};

use authority::Counter;
pub use authority::{Head, NewAuthority};
pub use database_lock::{DatabaseLock, LockLost, LockMode};
pub use database_urls::DatabaseUrls;
pub use events::{EventFilter, FeedEntry};
pub use examination::{DatabaseLimits, Durability, IntegrityCheck, has_write_ahead_log};
pub use hash_hints::EventDetail;
pub use holds::StoredHold;
pub use key_filter::KeyFilter;
pub use keys::{KeyRow, KeyRows, Total};
pub use metrics::{ErrorKind, SessionKind, StoreMetrics};
pub use migrations::{Schema, SchemaState};
pub use owner_usage::{KeyOwner, OwnerCounts, RankBy, UsageFilter, UsageRanking};
pub use postgres::DatabaseUrl;
pub use realms::{PartnerRow, ProjectRow, RealmRow, Versioned};
pub use replicas::{Beat, HeartbeatConnection, Replica, ReplicaState, Replicas, Report};
pub use requests::AnsweredRequest;
pub use retention::{AddressCursor, MoreRows};
pub use stored_key::{StoredKey, StoredSecret};
pub use usage::{HourCount, KeyCount, SecretUse, Tombstone};
pub use used_keys::{UsageReport, UsedKey};

use crate::domain::clock::ClockReading;
use crate::domain::event::{Event, EventId, Revision};
use crate::domain::ids::KeyId;
use crate::domain::time::Timestamp;
use connections::{Connections, PgTransaction};
use connector::Connector;
use metrics::SessionTimer;

/// An open database.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    schema: Schema,
    metrics: Arc<StoreMetrics>,
    /// How many bytes of the disk only changes that take access away may use.
    disk_reserve: u64,
}

/// The engine of a store. In both engines one connection writes, several read, and the feed has its own connection.
#[derive(Clone)]
enum Engine {
    /// The embedded database.
    Sqlite {
        read: SqlitePool,
        feed: SqlitePool,
        write: SqlitePool,
        directory: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres {
        read: Arc<Connections>,
        feed: Arc<Connections>,
        write: Arc<Connections>,
        /// The statements with which a write begins.
        begin_write: &'static str,
        /// Makes connections for other purposes.
        connector: Connector,
    },
}

/// A transaction, and the timer that ends with it.
struct Session {
    // Dropped in this order.
    transaction: EngineTransaction,
    timer: SessionTimer,
}

/// A transaction of one of the engines.
enum EngineTransaction {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(PgTransaction),
}

/// Runs a statement on the connection of either engine. In PostgreSQL the statement has a deadline.
///
/// The compiler checks the statement once for each engine.
macro_rules! on {
    ($session:expr, |$conn:ident| $statement:expr) => {{
        let outcome = match &mut $session.transaction {
            $crate::store::EngineTransaction::Sqlite(transaction) => {
                let $conn = &mut **transaction;
                $statement.await
            }
            $crate::store::EngineTransaction::Postgres(transaction) => {
                let ($conn, statement) = transaction.begin_statement();
                let outcome = statement.within($statement).await;
                transaction.end_statement(&statement, outcome)
            }
        };
        $session.timer.check(outcome)
    }};
}
use on;

/// Runs a statement without a result on the connection of either engine.
macro_rules! execute {
    ($session:expr, $statement:expr) => {
        on!($session, |conn| async {
            $statement.execute(&mut *conn).await.map(drop)
        })
    };
}
use execute;

/// Runs a query on the connection of either engine and handles its rows as they arrive. The query may need a builder.
///
/// In PostgreSQL each item of the stream has the deadline of a statement.
macro_rules! for_each {
    (
        $session:expr,
        $(let $query:ident = $builder:expr;)?
        |$conn:ident| $rows:expr,
        |$row:ident| $each:expr
    ) => {{
        let outcome = match &mut $session.transaction {
            $crate::store::EngineTransaction::Sqlite(transaction) => {
                let $conn = &mut **transaction;
                $(let mut $query = $builder;)?
                let mut rows = $rows;
                loop {
                    match futures_util::TryStreamExt::try_next(&mut rows).await {
                        Ok(Some($row)) => $each,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
            }
            $crate::store::EngineTransaction::Postgres(transaction) => {
                let ($conn, statement) = transaction.begin_statement();
                $(let mut $query = $builder;)?
                let mut rows = $rows;
                let outcome = loop {
                    match statement
                        .within(futures_util::TryStreamExt::try_next(&mut rows))
                        .await
                    {
                        Ok(Some($row)) => $each,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                };
                drop(rows);
                transaction.end_statement(&statement, outcome)
            }
        };
        $session.timer.check(outcome)
    }};
}
use for_each;

/// The maximum number of rows in a batch.
const ROWS_AT_ONCE: usize = 1_024;

/// The maximum number of rows that one statement inserts.
const INSERTS_AT_ONCE: usize = 100;

/// Whether the driver should keep the text of a statement that inserts so many rows. The texts for one row and for the maximum
/// are used again and again; each other number of rows is a different statement.
fn keeps_insert(rows: usize) -> bool {
    rows == 1 || rows == INSERTS_AT_ONCE
}

/// Returns the rows in batches. A batch consists of the rows that are ready.
fn batches<T>(
    rows: impl Stream<Item = Result<T, sqlx::Error>> + Unpin,
) -> impl Stream<Item = Result<Vec<T>, sqlx::Error>> + Unpin {
    rows.ready_chunks(ROWS_AT_ONCE)
        .map(|rows| rows.into_iter().collect())
}

/// How long a list may look for rows that match its filter. Less than the deadline of a statement in PostgreSQL.
const SEARCH_TIME: Duration = Duration::from_millis(4_500);

/// How many instructions SQLite executes between two looks at the time.
const INSTRUCTIONS: i32 = 10_000;

/// While it exists, statements end when their time is over.
struct SearchLimit(#[expect(dead_code, reason = "only its life counts")] Arc<()>);

impl Session {
    /// Limits how long the next statements may take. In PostgreSQL the limit holds until the end of the transaction.
    async fn limit_search(&mut self, time: Duration) -> Result<SearchLimit, Error> {
        let limit = Arc::new(());
        match &mut self.transaction {
            EngineTransaction::Sqlite(transaction) => {
                // The handler stays with the connection, and does nothing once the limit is dropped.
                let (alive, end) = (Arc::downgrade(&limit), Instant::now() + time);
                let mut handle = transaction.lock_handle().await?;
                handle.set_progress_handler(INSTRUCTIONS, move || {
                    alive.strong_count() == 0 || Instant::now() < end
                });
            }
            EngineTransaction::Postgres(_) => {
                let millis = time.as_millis();
                let set = format!("SET LOCAL statement_timeout = {millis}");
                execute!(self, sqlx::query(sqlx::AssertSqlSafe(set)))?;
            }
        }
        Ok(SearchLimit(limit))
    }

    /// Gives up the rows that a query has not returned yet, and with them the connection.
    ///
    /// PostgreSQL would send all of them before it could answer the next statement.
    fn abandon_rows(&mut self) {
        match &mut self.transaction {
            // The driver's thread has read one row more.
            EngineTransaction::Sqlite(_) => {}
            EngineTransaction::Postgres(transaction) => transaction.abandon(),
        }
    }
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached, or it failed. Nothing was changed.
    #[error("the store is unavailable: {0}")]
    Unavailable(sqlx::Error),
    /// The database does not take a value, which is a fault of this program and no outage. Nothing was changed.
    #[error("the store refuses a value: {0}")]
    Refused(sqlx::Error),
    /// The database failed during a commit. It is unknown whether the change was committed.
    #[error("the store failed during a commit, and it is unknown whether the change was made: {0}")]
    CommitUnknown(sqlx::Error),
    /// A stored row is corrupt.
    #[error("the stored data of {0} cannot be read")]
    Corrupt(String),
    /// All connections of a kind are in use. Nothing was changed.
    #[error("all connections to the store are in use")]
    Busy,
    /// The disk of an embedded database has less room than is reserved for changes that take access away. Nothing was changed.
    #[error(
        "the disk of the data directory has only {free} bytes left, and {reserve} are reserved"
    )]
    NoRoom {
        /// What is left, in bytes.
        free: u64,
        /// What is reserved, in bytes.
        reserve: u64,
    },
    /// A search did not end in time. Nothing was changed.
    #[error("the search takes too long")]
    TooBroad,
    /// The id belonged to a deleted key.
    #[error("the id {0} belonged to a deleted key and cannot be reused")]
    IdTaken(KeyId),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::ColumnDecode { index, .. } => Self::Corrupt(format!("column {index}")),
            error if refuses_value(&error) => Self::Refused(error),
            error => Self::Unavailable(error),
        }
    }
}

/// Whether a database reports a value that it cannot store, or that breaks a rule of the schema: the classes 22 and 23 of SQL's
/// codes, and SQLite's `SQLITE_TOOBIG`, `SQLITE_CONSTRAINT` and `SQLITE_MISMATCH` (the low byte of its codes).
fn refuses_value(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        return error.code().starts_with("22") || error.code().starts_with("23");
    }
    let code: Option<u32> = error.code().and_then(|code| code.parse().ok());
    matches!(code.map(|code| code & 0xff), Some(18..=20))
}

/// The error of a statement with a [`SearchLimit`].
fn search_error(error: sqlx::Error) -> Error {
    if was_ended(&error) {
        Error::TooBroad
    } else {
        error.into()
    }
}

/// Whether a statement was ended because its time was over.
fn was_ended(error: &sqlx::Error) -> bool {
    let code = match error {
        sqlx::Error::Database(error) => error.code(),
        _ => None,
    };
    // `query_canceled`, and `SQLITE_INTERRUPT`.
    matches!(code.as_deref(), Some("57014" | "9"))
}

/// The reason why a store could not be opened. The message contains what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be used in its present state.
    #[error("{0}")]
    Unfit(String),
    /// The database cannot be reached. A later attempt may succeed.
    #[error("{0}")]
    Unreachable(String),
    /// Another process uses the database.
    #[error(
        "servers use this database, and this needs it for itself: stop all of them first (a claviger 0.1 needs it for itself \
         too, so stop that before newer ones start)"
    )]
    InUse,
    /// A command has reserved the database.
    #[error(
        "another claviger process needs this database for itself: a migration, `bootstrap`, or a server of claviger 0.1. Wait \
         until it has ended, or stop it"
    )]
    Reserved,
}

impl Store {
    /// How many snapshots can be open at the same time, besides that of the feed.
    pub const READERS: usize = 8;

    fn new(engine: Engine, schema: Schema) -> Self {
        Self {
            engine,
            schema,
            metrics: Arc::default(),
            disk_reserve: 0,
        }
    }

    /// Returns the store with so many bytes of the disk reserved for changes that take access away. Has no effect on PostgreSQL.
    #[must_use]
    pub fn with_disk_reserve(self, bytes: u64) -> Self {
        Self {
            disk_reserve: bytes,
            ..self
        }
    }

    /// The same store, whose accesses are not counted: for a task that looks at it all the time.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self {
            metrics: Arc::default(),
            ..self.clone()
        }
    }

    /// Checks that the disk has room for more than changes that take access away.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub fn check_room(&self) -> Result<(), Error> {
        let Engine::Sqlite { directory, .. } = &self.engine else {
            return Ok(());
        };
        let reserve = self.disk_reserve;
        // A file system that does not tell may have room.
        let free = rustix::fs::statvfs(directory)
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free < reserve {
            return Err(Error::NoRoom { free, reserve });
        }
        Ok(())
    }

    /// Returns the schema versions before and after the store was opened.
    pub fn schema(&self) -> Schema {
        self.schema
    }

    /// Begins a snapshot.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let timer = self.metrics.begin(SessionKind::Read);
        match &self.engine {
            Engine::Sqlite { read, .. } => read_sqlite(read, timer).await,
            Engine::Postgres { read, .. } => read_postgres(read, timer).await,
        }
    }

    /// Begins a snapshot on the connection of the feed, which must not wait for other readers.
    pub async fn feed_snapshot(&self) -> Result<Snapshot, Error> {
        let timer = self.metrics.begin(SessionKind::Feed);
        match &self.engine {
            Engine::Sqlite { feed, .. } => read_sqlite(feed, timer).await,
            Engine::Postgres { feed, .. } => read_postgres(feed, timer).await,
        }
    }

    /// Begins a change, when no other change is open.
    pub async fn change(&self, now: impl Into<ClockReading>) -> Result<Change, Error> {
        Change::open(self.write().await?, now.into()).await
    }

    async fn write(&self) -> Result<Snapshot, Error> {
        let timer = self.metrics.begin(SessionKind::Write);
        match &self.engine {
            Engine::Sqlite { write, .. } => begin_sqlite(write, "BEGIN IMMEDIATE", timer).await,
            Engine::Postgres {
                write, begin_write, ..
            } => begin_postgres(write, begin_write, timer).await,
        }
    }

    /// Returns how many snapshots and changes were begun. Every access to the store is one of them, except heartbeats and those of
    /// [`Store::uncounted`].
    pub fn sessions(&self) -> u64 {
        self.metrics.begun()
    }

    /// What is counted about the snapshots and changes.
    pub fn metrics(&self) -> Arc<StoreMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Waits for the open snapshots and changes, and closes the store.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite {
                read, feed, write, ..
            } => {
                read.close().await;
                feed.close().await;
                write.close().await;
            }
            Engine::Postgres {
                read, feed, write, ..
            } => {
                read.close().await;
                feed.close().await;
                write.close().await;
            }
        }
    }
}

async fn read_sqlite(pool: &SqlitePool, timer: SessionTimer) -> Result<Snapshot, Error> {
    begin_sqlite(pool, "BEGIN", timer).await
}

async fn begin_sqlite(
    pool: &SqlitePool,
    begin: &'static str,
    timer: SessionTimer,
) -> Result<Snapshot, Error> {
    let transaction = EngineTransaction::Sqlite(timer.check(pool.begin_with(begin).await)?);
    let session = Session { transaction, timer };
    Ok(Snapshot { session })
}

async fn read_postgres(
    connections: &Arc<Connections>,
    timer: SessionTimer,
) -> Result<Snapshot, Error> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    begin_postgres(connections, begin, timer).await
}

async fn begin_postgres(
    connections: &Arc<Connections>,
    begin: &'static str,
    timer: SessionTimer,
) -> Result<Snapshot, Error> {
    let transaction = EngineTransaction::Postgres(timer.check(connections.begin(begin).await)?);
    let session = Session { transaction, timer };
    Ok(Snapshot { session })
}

/// One consistent state of the store, for reading.
pub struct Snapshot {
    session: Session,
}

/// The only open change. If it is dropped without a commit, it is rolled back.
///
/// It may consist of several changes in one transaction, each with its own revision, time and event: see [`Change::reserve`].
pub struct Change {
    snapshot: Snapshot,
    revision: Revision,
    time: Timestamp,
    pepper: u32,
    has_holds: bool,
    /// How many changes of the transaction come after the current one.
    reserved: usize,
    /// Events of earlier changes of the transaction that are not written yet.
    unwritten: Vec<Event>,
}

impl Change {
    /// The maximum number of rows that one statement inserts.
    pub const INSERTS_AT_ONCE: usize = INSERTS_AT_ONCE;

    async fn open(mut snapshot: Snapshot, now: ClockReading) -> Result<Self, Error> {
        let Counter {
            revision,
            time,
            pepper,
            is_same_database,
            has_holds,
        } = snapshot.take_counter(now).await?;
        let mut change = Self {
            snapshot,
            revision,
            time,
            pepper,
            has_holds,
            reserved: 0,
            unwritten: Vec::new(),
        };
        if !is_same_database {
            // Rare, so its state should not be part of every change's.
            let last = revision.previous();
            Box::pin(change.begin_epoch(last, last)).await?;
        }
        Ok(change)
    }

    /// Returns the revision that this change will have.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the time of this change, at least one microsecond after the time of every earlier change.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Returns the version of the pepper for new digests.
    pub fn pepper(&self) -> u32 {
        self.pepper
    }

    /// Returns whether anything was held when the change began.
    pub fn has_holds(&self) -> bool {
        self.has_holds
    }

    /// Takes the next `changes` revisions, and as many microseconds, for changes that follow in the same transaction. Each of
    /// them must be started with [`Change::start_next`] before the commit.
    pub async fn reserve(&mut self, changes: usize) -> Result<(), Error> {
        if changes > 0 {
            self.snapshot.advance_counter(changes).await?;
            self.reserved += changes;
        }
        Ok(())
    }

    /// Records the event of this change and begins the next reserved change, with the next revision and a later time.
    ///
    /// # Panics
    /// If no change is reserved.
    pub async fn start_next(&mut self, event: Event) -> Result<(), Error> {
        assert!(self.reserved > 0, "the next change is not reserved");
        self.reserved -= 1;
        self.unwritten.push(event);
        if self.unwritten.len() == INSERTS_AT_ONCE {
            let events = std::mem::take(&mut self.unwritten);
            self.append(&events).await?;
        }
        self.revision = self.revision.next();
        self.time = Timestamp::from_micros(self.time.as_micros() + 1);
        Ok(())
    }

    /// Records the event of this change and commits the transaction, which makes it durable.
    ///
    /// # Panics
    /// If a reserved change was not started, because its revision would have no event.
    pub async fn commit(mut self, event: &Event) -> Result<EventId, Error> {
        assert_eq!(self.reserved, 0, "a reserved change was not started");
        let mut events = std::mem::take(&mut self.unwritten);
        events.push(event.clone());
        let id = self.append(&events).await?;
        self.snapshot.commit().await?;
        Ok(id)
    }
}

impl Snapshot {
    async fn commit(self) -> Result<(), Error> {
        let Session { transaction, timer } = self.session;
        let outcome = match transaction {
            EngineTransaction::Sqlite(transaction) => transaction.commit().await,
            EngineTransaction::Postgres(transaction) => transaction.commit().await,
        };
        timer.check_commit(outcome).map_err(Error::CommitUnknown)
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
    /// The items of the page.
    pub items: Vec<T>,
    /// The position of the next page, if there is one.
    pub next: Option<Cursor>,
}

/// A page that is filled with the rows of a query, one by one. The query has the limit [`page_and_one`].
struct PageBuilder<T, Cursor> {
    items: Vec<T>,
    limit: u32,
    /// The number of rows on the page, including those that could not be read.
    rows: u32,
    /// The position of the last of these rows.
    last: Option<Cursor>,
    /// Whether there is a row after the page.
    is_full: bool,
}

impl<T, Cursor> PageBuilder<T, Cursor> {
    fn new(limit: u32) -> Self {
        Self {
            items: Vec::new(),
            limit,
            rows: 0,
            last: None,
            is_full: false,
        }
    }

    /// Adds the next row, or ends the page before this row. Returns whether the page has ended.
    ///
    /// The page has at most `limit` rows, and ends before the first item that `take` refuses. `take` must not refuse the first
    /// item of a page, because the list would end there. A row that cannot be read is left out and does not end the list.
    fn add<Item>(
        &mut self,
        position: Cursor,
        read: impl FnOnce() -> Option<Item>,
        take: &mut impl FnMut(Item) -> Option<T>,
    ) -> bool {
        self.is_full = self.rows == self.limit
            || read().is_some_and(|item| match take(item) {
                Some(item) => {
                    self.items.push(item);
                    false
                }
                None => true,
            });
        if !self.is_full {
            self.rows += 1;
            self.last = Some(position);
        }
        self.is_full
    }

    /// Returns whether the query has rows that were not read.
    fn leaves_rows(&self) -> bool {
        self.is_full && self.rows < self.limit
    }

    fn finish(self) -> Page<T, Cursor> {
        Page {
            next: self.last.filter(|_| self.is_full),
            items: self.items,
        }
    }
}

/// Returns the limit for a query: one row more than the page has, to find out whether there is another page.
fn page_and_one(limit: u32) -> i64 {
    i64::from(limit) + 1
}

/// Returns a revision as the databases store it.
fn stored(revision: Revision) -> i64 {
    i64::try_from(revision.as_u64()).unwrap_or(i64::MAX)
}

fn revision(stored: i64) -> Revision {
    Revision::from(u64::try_from(stored).unwrap_or(0))
}
