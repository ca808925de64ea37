//! The task that writes down how keys were used.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::backlog::Backlog;
use super::recorder::UsageRecorder;
use crate::store::{Error, Store};

/// How many rows are written in one transaction. A change waits for one such at the most.
const ROWS_AT_ONCE: usize = 1_000;

/// Takes the marks off a recorder, every interval and at the end, and writes them down. What cannot be written is kept and tried
/// again with what came since.
pub struct Writer {
    recorder: Arc<UsageRecorder>,
    store: Store,
    interval: Duration,
    backlog: Backlog,
    fails: bool,
}

/// A writer at work.
pub struct Writing {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Writing {
    /// Has everything written down that was marked until now, and ends; but not later than in `patience`.
    pub async fn stop(mut self, patience: Duration) {
        self.stop.send_replace(true);
        if tokio::time::timeout(patience, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
            tracing::error!("the last counts of how keys were used were not written down in time");
        }
    }
}

impl Writer {
    /// A writer of what is marked on this recorder, which must have no other.
    pub fn new(recorder: Arc<UsageRecorder>, store: Store, interval: Duration) -> Self {
        Self {
            recorder,
            store,
            interval,
            backlog: Backlog::default(),
            fails: false,
        }
    }

    /// Sets it to work.
    pub fn start(self) -> Writing {
        let (stop, stops) = watch::channel(false);
        Writing {
            task: tokio::spawn(self.run(stops)),
            stop,
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        if !self.recorder.is_on() {
            return;
        }
        loop {
            let is_last = tokio::select! {
                () = tokio::time::sleep(self.interval) => false,
                // Whoever is gone does not tell it any more.
                _ = stop.wait_for(|stop| *stop) => true,
            };
            self.write_down().await;
            if is_last {
                break;
            }
        }
        if !self.backlog.is_empty() {
            let lost = self.backlog.total();
            tracing::error!(
                lost,
                "the last counts of how keys were used could not be written down"
            );
        }
    }

    async fn write_down(&mut self) {
        let recorder = Arc::clone(&self.recorder);
        let mut backlog = std::mem::take(&mut self.backlog);
        // With a million keys in use it takes a while, in which calls should not wait for this thread.
        let draining = tokio::task::spawn_blocking(move || {
            recorder.drain(|drained| backlog.add(&drained));
            backlog
        });
        self.backlog = draining.await.expect("counting does not panic");
        match self.flush().await {
            Ok(()) if self.fails => {
                self.fails = false;
                tracing::info!("how keys are used is written down again");
            }
            Ok(()) => {}
            Err(error) => {
                // Once for each outage, not every few seconds.
                if !self.fails {
                    tracing::warn!(%error, "how keys are used cannot be written down; it is kept and tried again");
                }
                self.fails = true;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        while !self.backlog.is_empty() {
            let (counts, uses) = self.backlog.first(ROWS_AT_ONCE);
            let outcome = self.store.add_usage(&counts, &uses).await;
            // What may or may not have been written is not written again: better a count lost than one doubled.
            if matches!(outcome, Ok(()) | Err(Error::CommitUnknown(_))) {
                self.backlog.remove(&counts, &uses);
            }
            outcome?;
        }
        Ok(())
    }
}
