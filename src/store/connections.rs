//! A connection pool for PostgreSQL, and a transaction on one of its connections.
//!
//! The driver's pool tests each returned connection without a deadline. If a network drops packets silently, these tests would
//! block the connections one after the other, until the operating system gives them up a quarter of an hour later. In this pool
//! each operation has a deadline. A connection with a late or failed operation is dropped and never reused.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connector::Connector;
use super::driver::within;

/// A pool with a maximum number of connections.
pub(super) struct Connections {
    connector: Connector,
    deadline: Duration,
    max: u32,
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// The connections that nobody uses.
#[derive(Default)]
struct Idle {
    connections: Vec<PgConnection>,
    /// The generation of all of them. When another server is used, it is another one, and they are not used again.
    generation: u64,
}

impl Connections {
    pub(super) fn new(connector: Connector, max: u32) -> Arc<Self> {
        Arc::new(Self {
            deadline: connector.deadline(),
            connector,
            max,
            free: Arc::new(Semaphore::new(max as usize)),
            idle: Mutex::default(),
        })
    }

    /// Begins a transaction on an idle connection, or on a new connection if no idle connection works.
    pub(super) async fn begin(
        self: &Arc<Self>,
        statement: &'static str,
    ) -> Result<PgTransaction, sqlx::Error> {
        // The wait for others has a deadline of its own: it says nothing about the database.
        let permit = tokio::time::timeout(self.deadline, Arc::clone(&self.free).acquire_owned());
        let permit = permit
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        let begun = within(self.deadline, async {
            if let Some((mut idle, generation)) = self.take_idle()
                && sqlx::raw_sql(statement).execute(&mut idle).await.is_ok()
            {
                return Ok((idle, generation));
            }
            // If one idle connection was lost, so were the others. They are dropped, so that no request fails because of them.
            self.drop_idle();
            let (mut new, generation) = self.connector.connect(self.deadline).await?;
            sqlx::raw_sql(statement).execute(&mut new).await?;
            Ok((new, generation))
        })
        .await;
        let (connection, generation) = begun.inspect_err(|_| self.drop_idle())?;
        Ok(PgTransaction {
            connection: Some(connection),
            is_intact: true,
            generation,
            connections: Arc::clone(self),
            permit: Some(permit),
        })
    }

    /// An idle connection to the server that is used, and its generation.
    fn take_idle(&self) -> Option<(PgConnection, u64)> {
        let mut idle = self.lock_idle();
        let connection = idle.connections.pop()?;
        Some((connection, idle.generation))
    }

    fn drop_idle(&self) {
        self.lock_idle().connections.clear();
    }

    /// Keeps a connection for the next transaction, unless another server is used since it was made.
    fn keep(&self, connection: PgConnection, generation: u64) {
        let mut idle = self.lock_idle();
        if idle.generation == generation {
            idle.connections.push(connection);
        }
    }

    /// The idle connections, all of which lead to the server that is used.
    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.connector.generation();
        if idle.generation != generation {
            idle.generation = generation;
            idle.connections.clear();
        }
        idle
    }

    /// Waits for the open transactions, and closes the connections.
    pub(super) async fn close(&self) {
        let all = self.free.acquire_many(self.max).await;
        self.free.close();
        drop(all);
        let idle = std::mem::take(&mut self.lock_idle().connections);
        for connection in idle {
            let _ = within(self.deadline, connection.close()).await;
        }
    }
}

/// A transaction. If it is dropped without a commit, it is rolled back.
pub(super) struct PgTransaction {
    /// The connection; `None` after it was returned to the pool.
    connection: Option<PgConnection>,
    /// Whether every statement so far was answered and none failed.
    is_intact: bool,
    generation: u64,
    connections: Arc<Connections>,
    permit: Option<OwnedSemaphorePermit>,
}

impl PgTransaction {
    /// Begins a statement. Returns the connection, and the statement to wait for.
    ///
    /// The connection is not used again unless [`Self::end_statement`] reports a success. So it is dropped if the statement
    /// fails, is late or is cancelled.
    pub(super) fn begin_statement(&mut self) -> (&mut PgConnection, Statement) {
        let statement = Statement {
            deadline: self.connections.deadline,
            was_intact: std::mem::replace(&mut self.is_intact, false),
        };
        let connection = self.connection.as_mut().expect("not returned yet");
        (connection, statement)
    }

    /// Records the outcome of a statement and returns it.
    pub(super) fn end_statement<T>(
        &mut self,
        statement: &Statement,
        outcome: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        self.is_intact = statement.was_intact && outcome.is_ok();
        outcome
    }

    /// Gives up the connection: it is closed when the transaction ends, and never reused.
    pub(super) fn abandon(&mut self) {
        self.is_intact = false;
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        // The database would roll back and report a success.
        if !self.is_intact {
            return Err(sqlx::Error::Protocol(
                "an earlier statement of the transaction failed".to_owned(),
            ));
        }
        let (connection, statement) = self.begin_statement();
        let outcome = statement
            .within(async {
                sqlx::raw_sql("COMMIT").execute(connection).await?;
                Ok(())
            })
            .await;
        self.end_statement(&statement, outcome)?;
        let connection = self.connection.take().expect("not returned yet");
        self.connections.keep(connection, self.generation);
        Ok(())
    }
}

impl Drop for PgTransaction {
    fn drop(&mut self) {
        let (Some(mut connection), true) = (self.connection.take(), self.is_intact) else {
            return;
        };
        let connections = Arc::clone(&self.connections);
        let generation = self.generation;
        let permit = self.permit.take();
        tokio::spawn(async move {
            let rollback = async {
                sqlx::raw_sql("ROLLBACK").execute(&mut connection).await?;
                Ok(())
            };
            if within(connections.deadline, rollback).await.is_ok() {
                connections.keep(connection, generation);
            }
            drop(permit);
        });
    }
}

/// A running statement.
pub(super) struct Statement {
    deadline: Duration,
    was_intact: bool,
}

impl Statement {
    /// Waits for the answer, or for the next part of it, for at most the deadline.
    pub(super) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        within(self.deadline, answer).await
    }
}
