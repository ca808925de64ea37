//! The background task that writes usage to the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::backlog::{Backlog, rows};
use super::recorder::UsageRecorder;
use crate::store::{Error, Store};

/// The number of entries that one transaction writes, each with at most two rows. A change waits for at most one such transaction.
const ENTRIES_PER_TRANSACTION: usize = 500;

/// The number of entries per second that are written at most, on average: what they cost is then a few percent of one thread. If
/// more keys are in use, each is written less often, and with more counts.
const ENTRIES_PER_SECOND: u32 = 12_500;

/// Takes the usage from the recorders at every interval and at the end, and writes it to the store. What cannot be written stays in
/// the backlog, and the next write includes it.
pub struct Writer {
    recorders: Vec<Arc<UsageRecorder>>,
    store: Store,
    interval: Duration,
    backlog: Backlog,
    /// The earliest time of the next write.
    next: Instant,
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
            next: Instant::now(),
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
            self.take().await;
            if is_last {
                self.write().await;
                break;
            }
            if Instant::now() >= self.next {
                self.write().await;
            }
        }
        if !self.backlog.is_empty() {
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

    /// Writes the backlog.
    async fn write(&mut self) {
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
        let mut usage = self.backlog.take();
        let all = usage.len();
        let mut outcome = Ok(());
        while !usage.is_empty() && outcome.is_ok() {
            let first = usage.len().saturating_sub(ENTRIES_PER_TRANSACTION);
            let (counts, last_uses) = rows(&usage[first..]);
            outcome = self.store.add_usage(&counts, &last_uses).await;
            // Rows of which it is unknown whether they were written are not written again: a lost count is better than a
            // doubled one.
            if matches!(outcome, Ok(()) | Err(Error::CommitUnknown(_))) {
                usage.truncate(first);
            }
        }
        let written = (all - usage.len()) as u32;
        self.next = Instant::now() + Duration::from_secs(1) / ENTRIES_PER_SECOND * written;
        for (used, uses) in usage {
            self.backlog.add(used, uses);
        }
        outcome
    }
}
