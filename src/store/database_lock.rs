//! The lock of a shared database: one claviger process at a time.
//!
//! It is PostgreSQL's own, held by the session of one connection, and ends with it. That connection is looked after: when it
//! is lost the lock is taken again, as soon as the database answers.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::Instant;

use super::OpenError;
use super::connections::within;
use super::postgres::{DatabaseUrl, unreachable, watched};

/// The lock's number: "claviger" in ASCII. It holds within one database.
const LOCK: i64 = 0x636c_6176_6967_6572;

/// The oldest PostgreSQL that is supported, as the server numbers itself.
const OLDEST: u32 = 140_000;

/// How long the lock of a process that has just ended may outlive it.
const SUCCESSION: Duration = Duration::from_secs(5);

/// How often to look whether the connection is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often to try to get the lock.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// The lock, and the connection that holds it.
pub struct DatabaseLock {
    options: PgConnectOptions,
    deadline: Duration,
    connection: PgConnection,
    holder: Holder,
}

/// Another process has the lock.
#[derive(Debug)]
pub struct Usurped;

/// A session of the database, told apart from every other one before and after it.
type Holder = (i32, String);

impl DatabaseLock {
    /// Connects and takes the lock. `deadline` is how long the database may take over any one answer.
    pub async fn take(url: &DatabaseUrl, deadline: Duration) -> Result<Self, OpenError> {
        let options = watched(url.options()?, deadline);
        let connection = within(deadline, options.connect())
            .await
            .map_err(|error| unreachable(&error))?;
        let version = connection.server_version_num().unwrap_or(0);
        if version < OLDEST {
            return Err(OpenError::Unfit(format!(
                "the database is PostgreSQL {}, and claviger needs {} or later",
                version / 10_000,
                OLDEST / 10_000
            )));
        }
        let mut lock = Self {
            options,
            deadline,
            connection,
            holder: Holder::default(),
        };
        if lock.try_take().await.map_err(|error| unreachable(&error))? {
            Ok(lock)
        } else {
            Err(OpenError::InUse)
        }
    }

    /// Whether there ever was a store in this database.
    pub async fn has_store(&mut self) -> Result<bool, OpenError> {
        let there = sqlx::query_scalar("SELECT to_regclass('authority') IS NOT NULL");
        within(self.deadline, there.fetch_one(&mut self.connection))
            .await
            .map_err(|error| unreachable(&error))
    }

    /// Holds the lock for as long as nobody else has it.
    pub async fn keep(mut self) -> Usurped {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Err(error) = within(self.deadline, self.connection.ping()).await else {
                continue;
            };
            tracing::error!(%error, "the connection that holds the database's lock is lost");
            loop {
                match self.take_again().await {
                    Ok(true) => break tracing::info!("the database's lock is held again"),
                    Ok(false) => return Usurped,
                    Err(_) => tokio::time::sleep(TRY_EVERY).await,
                }
            }
        }
    }

    async fn take_again(&mut self) -> Result<bool, sqlx::Error> {
        self.connection = within(self.deadline, self.options.connect()).await?;
        // The database may not have noticed yet that our own session is over, and would keep the lock for it.
        let end = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2",
        )
        .bind(self.holder.0)
        .bind(&self.holder.1);
        within(self.deadline, end.execute(&mut self.connection)).await?;
        self.try_take().await
    }

    /// Takes the lock if it is free, or becomes so soon enough to have been that of a process that has ended.
    async fn try_take(&mut self) -> Result<bool, sqlx::Error> {
        let patience = Instant::now() + SUCCESSION;
        loop {
            let taken: bool = within(
                self.deadline,
                sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                    .bind(LOCK)
                    .fetch_one(&mut self.connection),
            )
            .await?;
            if taken {
                break;
            }
            if Instant::now() >= patience {
                return Ok(false);
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
        let ourselves = sqlx::query_as(
            "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        );
        self.holder = within(self.deadline, ourselves.fetch_one(&mut self.connection)).await?;
        Ok(true)
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }
}
