//! The background task that writes usage to the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::backlog::Backlog;
use super::recorder::UsageRecorder;
use crate::store::{Error, Store};

/// The number of rows that one transaction writes. A change waits for at most one such transaction.
const ROWS_PER_TRANSACTION: usize = 1_000;

/// Takes the usage from the recorders at every interval and at the end, and writes it to the store. Rows that cannot be written
/// stay in the backlog, and the next write includes them.
pub struct Writer {
    recorders: Vec<Arc<UsageRecorder>>,
    store: Store,
    interval: Duration,
    backlog: Backlog,
    fails: bool,
}

/// A handle to a running writer.
pub struct WriterHandle {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl WriterHandle {
    /// Writes all usage that was recorded until now, and stops the writer. Gives up after `timeout`.
    pub async fn stop(mut self, timeout: Duration) {
        self.stop.send_replace(true);
        if tokio::time::timeout(timeout, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::error!("usage lost: the last counts were not written in time");
        }
    }
}

impl Writer {
    /// Creates the writer of these recorders. A recorder must have only one writer.
    pub fn new(recorders: Vec<Arc<UsageRecorder>>, store: Store, interval: Duration) -> Self {
        Self {
            recorders,
            store,
            interval,
            backlog: Backlog::default(),
            fails: false,
        }
    }

    /// Starts the writer as a task.
    pub fn start(self) -> WriterHandle {
        let (stop, stops) = watch::channel(false);
        WriterHandle {
            task: tokio::spawn(self.run(stops)),
            stop,
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        if !self.recorders.iter().any(|recorder| recorder.is_on()) {
            return;
        }
        loop {
            let is_last = tokio::select! {
                () = tokio::time::sleep(self.interval) => false,
                // A dropped sender is an error, which also ends the wait.
                _ = stop.wait_for(|stop| *stop) => true,
            };
            self.write().await;
            if is_last {
                break;
            }
        }
        if !self.backlog.is_empty() {
            let lost = self.backlog.total();
            tracing::error!(lost, "usage lost: the last counts could not be written");
        }
    }

    async fn write(&mut self) {
        let recorders = self.recorders.clone();
        let mut backlog = std::mem::take(&mut self.backlog);
        // On a blocking thread: with a million keys in use this takes so long that calls would wait.
        let taking = tokio::task::spawn_blocking(move || {
            for recorder in recorders {
                recorder.take(|usage| backlog.add(&usage));
            }
            backlog
        });
        self.backlog = taking.await.expect("counting does not panic");
        match self.flush().await {
            Ok(()) if self.fails => {
                self.fails = false;
                tracing::info!("usage written again");
            }
            Ok(()) => {}
            Err(error) => {
                // Logged once for each outage, not every few seconds.
                if !self.fails {
                    tracing::warn!(%error, "usage not written; it is kept and tried again");
                }
                self.fails = true;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        while !self.backlog.is_empty() {
            let (counts, uses) = self.backlog.first(ROWS_PER_TRANSACTION);
            let outcome = self.store.add_usage(&counts, &uses).await;
            // Rows of which it is unknown whether they were written are not written again: a lost count is better than a
            // doubled one.
            if matches!(outcome, Ok(()) | Err(Error::CommitUnknown(_))) {
                self.backlog.remove(&counts, &uses);
            }
            outcome?;
        }
        Ok(())
    }
}
