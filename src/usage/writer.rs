//! The background task that writes usage to the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::backlog::{Backlog, rows};
use super::recorder::UsageRecorder;
use crate::store::{Error, Store};

/// The number of entries that one transaction writes, each with at most three rows. A change waits for at most one such transaction.
const ENTRIES_PER_TRANSACTION: usize = 500;

/// The number of entries that are written per second, at most, until the server stops: a few percent of one thread. If more keys
/// are in use, each is written less often, with more counts.
const ENTRIES_PER_SECOND: f64 = 12_500.0;

/// The number of entries in the backlog beyond which the counts of past hours are merged: about 280 megabytes. A million keys in
/// use make a million entries in each hour in which the store cannot be written.
const MAX_ENTRIES: usize = 2_000_000;

/// The number of entries in a writer's backlog. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct BacklogSize(Arc<AtomicUsize>);

impl BacklogSize {
    /// The number after the last write.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, entries: usize) {
        self.0.store(entries, Ordering::Relaxed);
    }
}

/// Takes the usage from the recorders at every interval and at the end, and writes it to the store. What cannot be written stays in
/// the backlog, and the next write includes it.
pub struct Writer {
    recorders: Vec<Arc<UsageRecorder>>,
    store: Store,
    interval: Duration,
    backlog: Backlog,
    backlog_size: BacklogSize,
    max_entries: usize,
    fails: bool,
    /// Whether hours were merged since the last write that succeeded.
    merged: bool,
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
            backlog_size: BacklogSize::default(),
            max_entries: MAX_ENTRIES,
            fails: false,
            merged: false,
        }
    }

    /// The number of entries in the backlog, while the writer runs.
    pub fn backlog_size(&self) -> BacklogSize {
        self.backlog_size.clone()
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

    /// Takes the usage from the recorders. If the backlog becomes too large, merges the counts of past hours.
    async fn take(&mut self) {
        let recorders = self.recorders.clone();
        let max_entries = self.max_entries;
        let mut backlog = std::mem::take(&mut self.backlog);
        // On a blocking thread: with a million keys in use this takes so long that calls would wait.
        let taking = tokio::task::spawn_blocking(move || {
            for recorder in recorders {
                recorder.take(|used, uses| backlog.add(used, uses));
            }
            let is_merged = backlog.merge_hours(max_entries);
            (backlog, is_merged)
        });
        let is_merged;
        (self.backlog, is_merged) = taking.await.expect("counting does not panic");
        // Logged once for each outage, like the outage itself.
        if is_merged && !self.merged {
            self.merged = true;
            let entries = self.backlog.len();
            tracing::warn!(
                entries,
                "usage of past hours merged; its counts are kept, in the first of these hours"
            );
        }
    }

    /// Writes this number of entries of the backlog, if there are so many.
    async fn write(&mut self, entries: usize) {
        let outcome = self.flush(entries).await;
        self.backlog_size.set(self.backlog.len());
        match outcome {
            Ok(()) => {
                self.merged = false;
                if std::mem::take(&mut self.fails) {
                    tracing::info!("usage written again");
                }
            }
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::domain::ids::KeyId;
    use crate::domain::last_use::LastUse;
    use crate::domain::time::{Hour, Timestamp};
    use crate::domain::verdict::Verdict;
    use crate::usage::recorder::Used;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn lines_with(&self, text: &str) -> usize {
            let log = self.0.lock().unwrap();
            String::from_utf8_lossy(&log).matches(text).count()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn store_in(dir: &tempfile::TempDir, name: &str) -> Store {
        Store::open_sqlite(&dir.path().join(name)).await.unwrap()
    }

    /// Seen red without `merge_hours`, with the latest hour merged too, with a warning at each merge, and with one warning for all
    /// outages.
    #[tokio::test]
    async fn an_outage_of_many_hours_takes_few_entries_and_loses_no_count() {
        const KEYS: u8 = 5;
        const HOURS: i64 = 24;
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());

        let dir = tempfile::tempdir().unwrap();
        let store = store_in(&dir, "store.db").await;
        let away = store_in(&dir, "away.db").await;
        away.close().await;
        let recorder = Arc::new(UsageRecorder::new(true));
        let interval = Duration::from_secs(5);
        let mut writer = Writer::new(vec![Arc::clone(&recorder)], away.clone(), interval);
        writer.max_entries = 12;
        let id = |key: u8| KeyId::from_bytes([key; 16]);
        let secret = Timestamp::from_micros(1);
        let count_in = |hour: i64| {
            for key in 0..KEYS {
                let now = Hour::from_number(hour).start();
                let used = Used {
                    key: id(key),
                    hour: Hour::of(now),
                    verdict: Some(Verdict::Allowed),
                    secret,
                };
                let last = LastUse {
                    at: now,
                    address: None,
                };
                recorder.add(used, last);
                // The use of the own key of a caller is not counted.
                let verdict = None;
                recorder.add(Used { verdict, ..used }, last);
            }
        };

        let merged = || log.lines_with("usage of past hours merged");
        for outage in [0, 1] {
            let begin = 100 + outage * 1_000;
            writer.store = away.clone();
            for hour in begin..begin + HOURS {
                // In the last hour twice, before and after a merge.
                let times = if hour == begin + HOURS - 1 { 2 } else { 1 };
                for _ in 0..times {
                    count_in(hour);
                    writer.take().await;
                    writer.write(usize::MAX).await;
                }
                let most = 2 * 2 * usize::from(KEYS);
                assert!(writer.backlog.len() <= most, "{}", writer.backlog.len());
            }
            assert_eq!(merged(), 1 + outage as usize, "once for each outage");

            writer.store = store.clone();
            writer.write(usize::MAX).await;
            assert_eq!(writer.backlog.len(), 0);
            let mut snapshot = store.snapshot().await.unwrap();
            for key in 0..KEYS {
                let hours = Hour::from_number(begin)..Hour::from_number(begin + HOURS);
                let counts = snapshot.key_counts(id(key), hours).await.unwrap();
                let counts: Vec<_> = counts
                    .into_iter()
                    .map(|row| (row.hour.number(), row.count))
                    .collect();
                // The first hour has the counts of all but the last one.
                let expected = [(begin, HOURS as u64 - 1), (begin + HOURS - 1, 2)];
                assert_eq!(counts, expected, "of key {key}");
                let last = snapshot.last_use(id(key)).await.unwrap();
                assert_eq!(last, Some(Hour::from_number(begin + HOURS - 1).start()));
            }
        }
        assert_eq!(log.lines_with("usage written again"), 2);
    }
}
