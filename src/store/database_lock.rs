//! The lock of a PostgreSQL database: any number of servers share it, and whoever must be alone has it for itself.
//!
//! It is an advisory lock of PostgreSQL. The session of one connection holds it, and it ends with the session. The connection is
//! checked regularly. If it is lost, or another server of the database has become the primary, the lock is taken again as soon as the
//! database is reachable. Meanwhile the server writes nothing that contradicts the lock: each of its writes shares it for its own
//! length.
//!
//! A second lock makes servers that start at the same time open the store one after the other.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use super::connector::Connector;
use super::driver::{unreachable, within};
use super::servers::Servers;
use super::{DatabaseUrls, OpenError, replicas};
use crate::domain::clock::ElapsedClock;
use crate::domain::lease::LeaseTerms;

/// The key of the advisory lock: "claviger" in ASCII. It applies to one database.
const LOCK_KEY: i64 = 0x636c_6176_6967_6572;

/// The key of the lock that a server holds while it opens the store.
const OPEN_LOCK_KEY: i64 = LOCK_KEY + 1;

/// The key of the lock that a server holds while it deletes old rows.
pub(super) const RETENTION_LOCK_KEY: i64 = LOCK_KEY + 2;

/// How long to wait for a server that opens the store, which may migrate the schema.
const OPEN_TIMEOUT: Duration = Duration::from_mins(1);

/// The statements with which the write of a server begins: [`LOCK_KEY`] is shared until its end. READ COMMITTED: when the transaction
/// has locked the counter's row, it reads the state after the previous change.
const BEGIN_SHARED_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
                                  SELECT pg_advisory_xact_lock_shared(7164208268442035570)";

/// The statement with which a write begins in a process that has the database for itself.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// Who else may use the database at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Others that share it: servers.
    Shared,
    /// Nobody.
    Exclusive,
}

/// The time to wait for the lock, because the lock of a process that has just ended may outlive the process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval between two checks of the connection.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between two attempts to take the lock.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The lock, and the connection whose session holds it.
pub struct DatabaseLock {
    connector: Connector,
    deadline: Duration,
    mode: LockMode,
    connection: PgConnection,
    /// The generation of the connection.
    generation: u64,
    backend: BackendId,
}

/// The error that another process has taken the lock for itself.
#[derive(Debug)]
pub struct LockLost;

/// The process id and the start time of a PostgreSQL backend. Together they identify one session, also after its end.
type BackendId = (i32, String);

impl DatabaseLock {
    /// Connects to the primary among these servers and takes the lock. `deadline` is the time in which the database must answer each
    /// statement.
    ///
    /// # Errors
    /// If a URL is not valid, no server can be used, or another process holds the lock in a way that excludes this one.
    pub async fn take(
        urls: &DatabaseUrls,
        deadline: Duration,
        mode: LockMode,
    ) -> Result<Self, OpenError> {
        let connector = Connector::new(Servers::new(urls, deadline)?);
        connector.choose(deadline * Servers::STEPS).await?;
        let (connection, generation) = connector
            .connect(deadline)
            .await
            .map_err(|error| unreachable(&error))?;
        let mut lock = Self {
            connector,
            deadline,
            mode,
            connection,
            generation,
            backend: BackendId::default(),
        };
        if lock.try_take().await.map_err(|error| unreachable(&error))? {
            Ok(lock)
        } else {
            Err(match mode {
                LockMode::Shared => OpenError::Reserved,
                LockMode::Exclusive => OpenError::InUse,
            })
        }
    }

    /// Waits until no other server opens the store, and keeps others from opening it until [`DatabaseLock::opened`].
    ///
    /// # Errors
    /// If the database cannot be reached, or another server takes too long.
    pub async fn begin_open(&mut self) -> Result<(), OpenError> {
        let give_up_at = Instant::now() + OPEN_TIMEOUT;
        let lock = "SELECT pg_try_advisory_lock($1)";
        while !self
            .try_lock(lock, OPEN_LOCK_KEY)
            .await
            .map_err(|error| unreachable(&error))?
        {
            if Instant::now() >= give_up_at {
                return Err(OpenError::Unreachable(format!(
                    "another server has been opening this database for {OPEN_TIMEOUT:?}: see its log, then try again"
                )));
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        Ok(())
    }

    /// Lets the next server open the store.
    pub async fn opened(&mut self) -> Result<(), OpenError> {
        self.try_lock("SELECT pg_advisory_unlock($1)", OPEN_LOCK_KEY)
            .await
            .map(drop)
            .map_err(|error| unreachable(&error))
    }

    /// The statements with which a write of this process begins.
    pub(super) fn begin_write(&self) -> &'static str {
        match self.mode {
            LockMode::Shared => BEGIN_SHARED_WRITE,
            LockMode::Exclusive => BEGIN_WRITE,
        }
    }

    /// Runs a statement about a lock, which returns whether it was successful.
    async fn try_lock(&mut self, statement: &'static str, key: i64) -> Result<bool, sqlx::Error> {
        within(
            self.deadline,
            sqlx::query_scalar(statement)
                .bind(key)
                .fetch_one(&mut self.connection),
        )
        .await
    }

    /// Returns whether a store was ever opened in this database.
    pub async fn has_store(&mut self) -> Result<bool, OpenError> {
        let exists = sqlx::query_scalar("SELECT to_regclass('authority') IS NOT NULL");
        within(self.deadline, exists.fetch_one(&mut self.connection))
            .await
            .map_err(|error| unreachable(&error))
    }

    /// Waits until no server can say "allowed" any more, for a process that has the database for itself.
    ///
    /// A server that has lost the connection of its lock goes on by its other connections until it notices. So each registered one
    /// must have been silent for longer than its lease. Those that have stopped are not registered.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn outlast_servers(&mut self) -> Result<(), OpenError> {
        let is_shared = "SELECT to_regclass('replicas') IS NOT NULL";
        let is_shared: bool = within(
            self.deadline,
            sqlx::query_scalar(is_shared).fetch_one(&mut self.connection),
        )
        .await
        .map_err(|error| unreachable(&error))?;
        if !is_shared {
            return Ok(());
        }
        let mut seen = None;
        loop {
            let (beats, terms) = self
                .registered()
                .await
                .map_err(|error| unreachable(&error))?;
            let Some(terms) = terms.filter(|_| !beats.is_empty()) else {
                return Ok(());
            };
            let now = ElapsedClock::system().read();
            let unchanged = seen.take().filter(|(before, _)| *before == beats);
            if unchanged.is_none() {
                tracing::info!(
                    servers = beats.len(),
                    at_most = ?terms.outlasting(),
                    "waiting until servers that did not stop in order have no lease"
                );
            }
            let (_, since) = seen.insert(unchanged.unwrap_or((beats, now)));
            if now.since(*since) >= terms.outlasting() {
                return Ok(());
            }
            tokio::time::sleep(PING_INTERVAL).await;
        }
    }

    /// The registered servers with the numbers of their last heartbeats, and the terms of their leases.
    async fn registered(
        &mut self,
    ) -> Result<(Vec<(String, i64)>, Option<LeaseTerms>), sqlx::Error> {
        let beats = sqlx::query_as("SELECT id, beat FROM replicas ORDER BY id");
        let beats = within(self.deadline, beats.fetch_all(&mut self.connection)).await?;
        let terms = sqlx::query_as("SELECT lease, longest_lease FROM authority");
        let terms: Option<(i64, i64)> =
            within(self.deadline, terms.fetch_optional(&mut self.connection)).await?;
        Ok((
            beats,
            terms.map(|(length, longest)| replicas::terms(length, longest)),
        ))
    }

    /// Holds the lock, and returns when another process has taken it for itself.
    pub async fn keep(mut self) -> LockLost {
        loop {
            self.lost().await;
            loop {
                match self.take_again().await {
                    Ok(true) => break tracing::info!("database lock taken again"),
                    Ok(false) => return LockLost,
                    Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
                }
            }
        }
    }

    /// Returns when the connection is lost, or leads to a server that is not used any more.
    async fn lost(&mut self) {
        let Self {
            connector,
            connection,
            generation,
            deadline,
            ..
        } = self;
        let lost = async {
            loop {
                tokio::time::sleep(PING_INTERVAL).await;
                if let Err(error) = within(*deadline, connection.ping()).await {
                    return tracing::error!(%error, "database lock connection lost");
                }
            }
        };
        tokio::select! {
            () = lost => {}
            () = connector.moved(*generation) => {}
        }
    }

    async fn take_again(&mut self) -> Result<bool, sqlx::Error> {
        (self.connection, self.generation) = self.connector.connect(self.deadline).await?;
        // The database may not have noticed the end of the previous session of this process, which then still holds the lock.
        let end = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2",
        )
        .bind(self.backend.0)
        .bind(&self.backend.1);
        within(self.deadline, end.execute(&mut self.connection)).await?;
        self.try_take().await
    }

    /// Takes the lock if it is free or becomes free within [`LOCK_TIMEOUT`]. Returns whether the lock was taken.
    async fn try_take(&mut self) -> Result<bool, sqlx::Error> {
        let give_up_at = Instant::now() + LOCK_TIMEOUT;
        let statement = match self.mode {
            LockMode::Shared => "SELECT pg_try_advisory_lock_shared($1)",
            LockMode::Exclusive => "SELECT pg_try_advisory_lock($1)",
        };
        while !self.try_lock(statement, LOCK_KEY).await? {
            if Instant::now() >= give_up_at {
                return Ok(false);
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        let own_backend = sqlx::query_as(
            "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        );
        self.backend = within(self.deadline, own_backend.fetch_one(&mut self.connection)).await?;
        Ok(true)
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }
}
