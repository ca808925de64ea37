//! What the service manager (systemd) is told, as `sd_notify(3)` describes: when the server is ready, when it stops, and that it is
//! alive. Without a service manager nothing is told.

use std::time::Duration;

use futures_util::future::join_all;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::readiness::Readiness;

/// How many pings the watchdog gets in the time in which it expects one.
const PINGS: u32 = 4;

/// A thread that must run its tasks.
pub(super) struct WatchedThread {
    pub(super) name: String,
    pub(super) runtime: Handle,
}

/// Starts to tell the service manager about this server, until the result is dropped. These threads and the current runtime must run
/// their tasks for the watchdog to be pinged.
pub(super) fn start(
    readiness: watch::Receiver<Readiness>,
    threads: Vec<WatchedThread>,
) -> JoinSet<()> {
    let mut telling = JoinSet::new();
    telling.spawn(report(readiness));
    if let Some(limit) = sd_notify::watchdog_enabled() {
        telling.spawn(ping(threads, limit / PINGS, || {
            tell(&[NotifyState::Watchdog]);
        }));
    }
    telling
}

/// Tells whether the server should get requests, until it stops.
async fn report(mut readiness: watch::Receiver<Readiness>) {
    loop {
        let current = readiness.borrow_and_update().clone();
        let status = current.to_string();
        let status = NotifyState::Status(&status);
        match current {
            Readiness::Starting | Readiness::LeaseLapsed => tell(&[status]),
            Readiness::Ready => tell(&[NotifyState::Ready, status]),
            Readiness::Draining => return tell(&[NotifyState::Stopping, status]),
        }
        if readiness.changed().await.is_err() {
            return;
        }
    }
}

/// Pings again and again, but only after each of the threads has run a task.
///
/// A thread that does not is blocked for good, or so busy that it serves nobody: a restart helps. A store that does not answer is no
/// reason: the server decides from memory, which it would lose.
async fn ping(threads: Vec<WatchedThread>, interval: Duration, ping: impl Fn()) {
    loop {
        join_all(threads.iter().map(|thread| run_task(thread, interval))).await;
        ping();
        sleep(interval).await;
    }
}

/// Waits until a thread has run a task, or has ended.
async fn run_task(thread: &WatchedThread, usual: Duration) {
    // The result is an error if the thread has ended, as threads do at a stop.
    let mut task = thread.runtime.spawn(async {});
    if timeout(usual, &mut task).await.is_err() {
        tracing::error!(
            thread = thread.name,
            waited = ?usual,
            "thread runs no tasks: if that lasts, the service manager restarts this server"
        );
        let _ = task.await;
    }
}

/// Tells the service manager, if there is one.
fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "service manager not notified: check NOTIFY_SOCKET");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::threads::RuntimeThread;

    /// Seen red with a loop that does not wait for the threads, and with one that never goes on after a thread has ended.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_watchdog_is_pinged_only_while_every_thread_runs_tasks() {
        let threads = ["a", "b"].map(|name| RuntimeThread::start(name).unwrap());
        let watched = threads.iter().map(|thread| WatchedThread {
            name: String::new(),
            runtime: thread.runtime().clone(),
        });
        let pings = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pings);
        let interval = Duration::from_millis(5);
        let _pinging = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(ping(
            watched.collect(),
            interval,
            move || {
                counted.fetch_add(1, Ordering::SeqCst);
            },
        )));
        let next = async || {
            let before = pings.load(Ordering::SeqCst);
            let pinged = async {
                while pings.load(Ordering::SeqCst) == before {
                    sleep(interval).await;
                }
            };
            timeout(Duration::from_mins(1), pinged)
                .await
                .expect("a ping comes");
        };
        next().await;

        let (go_on, blocked) = mpsc::channel::<()>();
        let (is_blocked, until_blocked) = mpsc::channel();
        threads[1].runtime().spawn(async move {
            is_blocked.send(()).unwrap();
            let _ = blocked.recv();
        });
        until_blocked.recv().unwrap();
        // One round may have asked the thread before it was blocked.
        sleep(10 * interval).await;
        let before = pings.load(Ordering::SeqCst);
        sleep(50 * interval).await;
        assert_eq!(pings.load(Ordering::SeqCst), before);
        drop(go_on);
        next().await;

        let [_first, second] = threads;
        second.stop().await;
        next().await;
        next().await;
    }
}
