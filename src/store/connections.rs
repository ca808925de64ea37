//! Connections to the shared store that are kept open, and a transaction on one of them.
//!
//! The driver's own pool tests each connection as it is given back, without a deadline, so that a network that swallows
//! packets would take its places one after the other until the system gives the connections up, a quarter of an hour later.
//! Here everything has its deadline, and a connection on which anything was late or went wrong is dropped, never kept.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Waits, but not for longer than the database may take.
pub(super) async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(deadline, answer)
        .await
        .unwrap_or_else(|_| {
            let late = format!("no answer within {deadline:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
        })
}

/// As many connections as there may be at once.
pub(super) struct Connections {
    options: PgConnectOptions,
    deadline: Duration,
    most: u32,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<PgConnection>>,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, deadline: Duration, most: u32) -> Arc<Self> {
        Arc::new(Self {
            options,
            deadline,
            most,
            free: Arc::new(Semaphore::new(most as usize)),
            idle: Mutex::default(),
        })
    }

    /// Begins a transaction, on a connection that waited or else on a new one.
    pub(super) async fn begin(
        self: &Arc<Self>,
        statement: &'static str,
    ) -> Result<PgTransaction, sqlx::Error> {
        let begun = within(self.deadline, async {
            let place = Arc::clone(&self.free)
                .acquire_owned()
                .await
                .map_err(|_| sqlx::Error::PoolClosed)?;
            if let Some(mut waited) = self.take_idle()
                && sqlx::raw_sql(statement).execute(&mut waited).await.is_ok()
            {
                return Ok((waited, place));
            }
            // It died while it waited, and so have the others: that costs nobody an answer.
            self.drop_idle();
            let mut new = self.options.connect().await?;
            sqlx::raw_sql(statement).execute(&mut new).await?;
            Ok((new, place))
        })
        .await;
        let (connection, place) = begun.inspect_err(|_| self.drop_idle())?;
        Ok(PgTransaction {
            connection: Some(connection),
            whole: true,
            connections: Arc::clone(self),
            place: Some(place),
        })
    }

    fn take_idle(&self) -> Option<PgConnection> {
        self.lock_idle().pop()
    }

    fn drop_idle(&self) {
        self.lock_idle().clear();
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what is under way, and says goodbye.
    pub(super) async fn close(&self) {
        let all = self.free.acquire_many(self.most).await;
        self.free.close();
        drop(all);
        let idle = std::mem::take(&mut *self.lock_idle());
        for connection in idle {
            let _ = within(self.deadline, connection.close()).await;
        }
    }
}

/// A transaction. Dropped without a commit it leaves no trace.
pub(super) struct PgTransaction {
    /// Until it is given back.
    connection: Option<PgConnection>,
    /// Every statement so far was answered, and none failed.
    whole: bool,
    connections: Arc<Connections>,
    place: Option<OwnedSemaphorePermit>,
}

impl PgTransaction {
    /// The connection, for one statement and what it takes to wait for it. If that is not told by [`Self::ended`] to have gone
    /// well, because it failed, was late or was given up, the connection is not used again.
    pub(super) fn begin_statement(&mut self) -> (&mut PgConnection, Statement) {
        let statement = Statement {
            deadline: self.connections.deadline,
            was_whole: std::mem::replace(&mut self.whole, false),
        };
        let connection = self.connection.as_mut().expect("not given back yet");
        (connection, statement)
    }

    /// Notes how a statement ended.
    pub(super) fn ended<T>(
        &mut self,
        statement: &Statement,
        outcome: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        self.whole = statement.was_whole && outcome.is_ok();
        outcome
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        // The database would roll back, and call that a success.
        if !self.whole {
            return Err(sqlx::Error::Protocol(
                "a statement before it failed".to_owned(),
            ));
        }
        let (connection, statement) = self.begin_statement();
        let outcome = statement
            .within(async {
                sqlx::raw_sql("COMMIT").execute(connection).await?;
                Ok(())
            })
            .await;
        self.ended(&statement, outcome)?;
        let connection = self.connection.take().expect("not given back yet");
        self.connections.lock_idle().push(connection);
        Ok(())
    }
}

impl Drop for PgTransaction {
    fn drop(&mut self) {
        let (Some(mut connection), true) = (self.connection.take(), self.whole) else {
            return;
        };
        let connections = Arc::clone(&self.connections);
        let place = self.place.take();
        tokio::spawn(async move {
            let rollback = async {
                sqlx::raw_sql("ROLLBACK").execute(&mut connection).await?;
                Ok(())
            };
            if within(connections.deadline, rollback).await.is_ok() {
                connections.lock_idle().push(connection);
            }
            drop(place);
        });
    }
}

/// A statement that is under way.
pub(super) struct Statement {
    deadline: Duration,
    was_whole: bool,
}

impl Statement {
    /// Waits for its answer, or for the next part of it.
    pub(super) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        within(self.deadline, answer).await
    }
}
