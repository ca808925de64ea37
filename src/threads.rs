//! Threads with a runtime of their own, and the priority of threads.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The nice value of threads that may wait for others. At 10, such a thread gets about a tenth of a processor for which a thread
/// of normal priority competes.
const NICE: i32 = 10;

/// A thread that runs the tasks of its own runtime. Dropping it drops the tasks and ends the thread.
pub struct RuntimeThread {
    runtime: Handle,
    end: DropGuard,
    thread: thread::JoinHandle<()>,
}

impl RuntimeThread {
    /// Starts a thread with this name.
    ///
    /// # Errors
    /// If the system refuses the thread, or what its runtime needs.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name(name)
            .build()?;
        let handle = runtime.handle().clone();
        let end = CancellationToken::new();
        let ended = end.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(ended.cancelled()))?;
        Ok(Self {
            runtime: handle,
            end: end.drop_guard(),
            thread,
        })
    }

    /// The name of the thread.
    pub fn name(&self) -> &str {
        self.thread.thread().name().unwrap_or_default()
    }

    /// The runtime of the thread.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Drops the tasks of the thread, and waits until it has ended.
    pub async fn stop(self) {
        drop(self.end);
        // The panic hook has logged a panic.
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

/// Lowers the priority of this thread and of all threads that it starts from now on.
pub fn lower_priority() {
    // On Linux the priority belongs to the thread, although the call is named after the process.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "priority of administration not lowered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_runs_on_its_thread_until_the_thread_stops() {
        let thread = RuntimeThread::start("a-thread").unwrap();
        let name = async { thread::current().name().map(str::to_owned) };
        let name = thread.runtime().spawn(name).await.unwrap();
        assert_eq!(name.as_deref(), Some("a-thread"));
        let endless = thread.runtime().spawn(std::future::pending::<()>());
        thread.stop().await;
        assert!(endless.await.unwrap_err().is_cancelled());
    }

    #[test]
    fn a_lower_priority_is_inherited_and_leaves_other_threads_alone() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let lowered = thread::spawn(move || {
            lower_priority();
            (nice(), thread::spawn(nice).join().unwrap())
        });
        assert_eq!(lowered.join().unwrap(), (NICE, NICE));
        assert_eq!(nice(), before);
    }
}
