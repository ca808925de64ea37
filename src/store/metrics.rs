//! What is counted about the store.

use std::sync::Arc;
use std::time::Instant;

use crate::metrics::{Counter, Latency};

/// What a snapshot or change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// An answer, or the checks before a change.
    Read,
    /// The feed.
    Feed,
    /// A change, usage, or the deletion of history.
    Write,
}

impl SessionKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Read, Self::Feed, Self::Write];
}

/// How an access to the database can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The database does not answer, or refuses the statement.
    Unavailable,
    /// All connections are in use.
    Busy,
    /// The database does not store a value, or a row cannot be read.
    Data,
    /// It is unknown whether a change was committed.
    CommitUnknown,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::Unavailable,
        Self::Busy,
        Self::Data,
        Self::CommitUnknown,
    ];

    fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::ColumnDecode { .. } => Self::Data,
            error if super::refuses_value(error) => Self::Data,
            _ => Self::Unavailable,
        }
    }
}

/// How long snapshots and changes took, and how often the database failed.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    begun: Counter,
    took: [Latency; SessionKind::ALL.len()],
    failed: [Counter; ErrorKind::ALL.len()],
}

impl StoreMetrics {
    /// How many snapshots and changes were begun.
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// How long snapshots or changes took: from the wait for a connection to the end of the transaction.
    pub fn took(&self, kind: SessionKind) -> &Latency {
        &self.took[kind as usize]
    }

    /// How often the database failed in this way.
    pub fn failed(&self, kind: ErrorKind) -> u64 {
        self.failed[kind as usize].get()
    }

    /// Begins to measure a snapshot or change.
    pub(super) fn begin(self: &Arc<Self>, kind: SessionKind) -> SessionTimer {
        self.begun.count();
        SessionTimer {
            metrics: Arc::clone(self),
            kind,
            begun: Instant::now(),
        }
    }
}

/// Measures one snapshot or change, until it is dropped.
pub(super) struct SessionTimer {
    metrics: Arc<StoreMetrics>,
    kind: SessionKind,
    begun: Instant,
}

impl SessionTimer {
    /// Counts the error of a statement.
    pub(super) fn check<T>(&self, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        // A search that took too long is no failure of the database.
        outcome.inspect_err(|error| {
            if !super::was_ended(error) {
                self.count(ErrorKind::of(error));
            }
        })
    }

    /// Counts the error of a commit.
    pub(super) fn check_commit<T>(
        &self,
        outcome: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        outcome.inspect_err(|_| self.count(ErrorKind::CommitUnknown))
    }

    fn count(&self, kind: ErrorKind) {
        self.metrics.failed[kind as usize].count();
    }
}

impl Drop for SessionTimer {
    fn drop(&mut self) {
        self.metrics.took[self.kind as usize].observe(self.begun.elapsed());
    }
}
