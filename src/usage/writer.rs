//! The background task that writes usage to the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::backlog::{Backlog, rows};
use super::recorder::UsageRecorder;
use crate::store::{Error, Store};

/// The number of entries that one transaction writes, each with at most two rows. A change waits for at most one such transaction.
const ENTRIES_PER_TRANSACTION: usize = 500;

/// The number of entries that are written per second, at most, until the server stops: a few percent of one thread. If more keys
/// are in use, each is written less often, with more counts.
const ENTRIES_PER_SECOND: f64 = 12_500.0;

/// Takes the usage from the recorders at every interval and at the end, and writes it to the store. What cannot be written stays in
/// the backlog, and the next write includes it.
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
        let most = (self.interval.as_secs_f64() * ENTRIES_PER_SECOND).ceil() as usize;
        loop {
            let is_last = tokio::select! {
                () = tokio::time::sleep(self.interval) => false,
                // A dropped sender is an error, which also ends the wait.
                _ = stop.wait_for(|stop| *stop) => true,
            };
            self.take().await;
            if is_last {
                self.write(usize::MAX).await;
                break;
            }
            self.write(most).await;
        }
        if self.backlog.len() > 0 {
            let lost = self.backlog.total();
            tracing::error!(lost, "usage lost: the last counts could not be written");
        }
    }

    /// Takes the usage from the recorders.
    async fn take(&mut self) {
        let recorders = self.recorders.clone();
        let mut backlog = std::mem::take(&mut self.backlog);
        // On a blocking thread: with a million keys in use this takes so long that calls would wait.
        let taking = tokio::task::spawn_blocking(move || {
            for recorder in recorders {
                recorder.take(|used, uses| backlog.add(used, uses));
            }
            backlog
        });
        self.backlog = taking.await.expect("counting does not panic");
    }

    /// Writes this number of entries of the backlog, if there are so many.
    async fn write(&mut self, entries: usize) {
        match self.flush(entries).await {
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

    async fn flush(&mut self, mut entries: usize) -> Result<(), Error> {
        while entries > 0 {
            let first = self.backlog.first(entries.min(ENTRIES_PER_TRANSACTION));
            if first.is_empty() {
                break;
            }
            let (counts, last_uses) = rows(first);
            let written = first.len();
            let outcome = self.store.add_usage(&counts, &last_uses).await;
            // Rows of which it is unknown whether they were written are not written again: a lost count is better than a
            // doubled one.
            if matches!(outcome, Ok(()) | Err(Error::CommitUnknown(_))) {
                self.backlog.remove_first(written);
            }
            outcome?;
            entries -= written;
        }
        Ok(())
    }
}
