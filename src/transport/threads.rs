//! The threads that serve connections.
//!
//! Each thread has a runtime of its own. One thread serves a connection from its first byte to its last, so that no call wakes
//! another thread. New connections go to the thread with the least load; a connection that reaches its maximum age is opened
//! anew by its client, so that the load spreads again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::runtime::Handle;

use crate::threads::RuntimeThread;

/// The number of calls in two seconds that are not taken for load: about half a percent of a thread.
const NOISE: u64 = 1_000;

/// The threads that serve connections. Dropping them closes all connections.
pub struct Threads(Vec<Thread>);

struct Thread {
    thread: RuntimeThread,
    load: Arc<ThreadLoad>,
}

/// What one thread has to do. Only this thread writes it, except when a connection is accepted.
#[derive(Debug, Default)]
pub(super) struct ThreadLoad {
    calls: AtomicU64,
    connections: AtomicUsize,
}

impl ThreadLoad {
    /// Counts a call.
    pub(super) fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an open connection, until the result is dropped.
    pub(super) fn connection(self: &Arc<Self>) -> OpenConnection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(self))
    }
}

/// How many connections each thread has open.
#[derive(Debug)]
pub struct ThreadConnections(Vec<Arc<ThreadLoad>>);

impl ThreadConnections {
    /// The number of open connections of each thread.
    pub fn counts(&self) -> impl Iterator<Item = usize> {
        let open = |load: &Arc<ThreadLoad>| load.connections.load(Ordering::Relaxed);
        self.0.iter().map(open)
    }
}

/// An open connection, as one thread counts it.
pub(super) struct OpenConnection(Arc<ThreadLoad>);

impl OpenConnection {
    /// The load of the thread that serves the connection.
    pub(super) fn load(&self) -> Arc<ThreadLoad> {
        Arc::clone(&self.0)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Threads {
    /// Starts this number of threads.
    ///
    /// # Errors
    /// If the system refuses a thread, or what its runtime needs.
    pub fn start(number: usize) -> io::Result<Self> {
        let thread = |index| {
            Ok(Thread {
                thread: RuntimeThread::start(&format!("verify-{index}"))?,
                load: Arc::default(),
            })
        };
        (0..number).map(thread).collect::<io::Result<_>>().map(Self)
    }

    /// The number of threads.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &RuntimeThread> {
        self.0.iter().map(|thread| &thread.thread)
    }

    /// How many connections each thread has open. The result can be asked again and again.
    pub fn connections(&self) -> ThreadConnections {
        let load = |thread: &Thread| Arc::clone(&thread.load);
        ThreadConnections(self.0.iter().map(load).collect())
    }

    /// Closes all connections and ends the threads.
    pub async fn stop(self) {
        for Thread { thread, .. } in self.0 {
            thread.stop().await;
        }
    }

    pub(super) fn runtimes(&self) -> Vec<Handle> {
        let runtime = |thread: &Thread| thread.thread.runtime().clone();
        self.0.iter().map(runtime).collect()
    }

    pub(super) fn balancer(&self) -> LoadBalancer {
        LoadBalancer::new(self.0.iter().map(|thread| Arc::clone(&thread.load)))
    }
}

/// Decides which thread serves a new connection: the one with the fewest calls in the last seconds, then the one with the fewest
/// connections.
pub(super) struct LoadBalancer {
    threads: Vec<BalancedThread>,
}

struct BalancedThread {
    load: Arc<ThreadLoad>,
    /// The number of calls at the last tick.
    calls: u64,
    /// The number of calls in the last seconds, older ones counting less.
    recent: u64,
    /// The number of connections that the thread got in the last seconds, whose calls `recent` does not include yet.
    new: u64,
}

impl LoadBalancer {
    fn new(loads: impl Iterator<Item = Arc<ThreadLoad>>) -> Self {
        let thread = |load: Arc<ThreadLoad>| BalancedThread {
            calls: load.calls.load(Ordering::Relaxed),
            load,
            recent: 0,
            new: 0,
        };
        Self {
            threads: loads.map(thread).collect(),
        }
    }

    /// Takes note of the calls since the last tick. To be called once a second.
    pub(super) fn tick(&mut self) {
        for thread in &mut self.threads {
            let calls = thread.load.calls.load(Ordering::Relaxed);
            thread.recent = thread.recent / 2 + (calls - thread.calls);
            thread.calls = calls;
            thread.new /= 2;
        }
    }

    /// Chooses the thread for a new connection. Returns its index, and the connection as the thread counts it.
    pub(super) fn choose(&mut self) -> (usize, OpenConnection) {
        let recent: u64 = self.threads.iter().map(|thread| thread.recent).sum();
        let connections = |thread: &BalancedThread| thread.load.connections.load(Ordering::Relaxed);
        let open: usize = self.threads.iter().map(connections).sum();
        // A new connection is expected to bring as many calls as the others.
        let expected = (recent / (open.max(1) as u64 * NOISE)).max(1);
        let (index, thread) = self
            .threads
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, thread)| {
                let load = thread.recent / NOISE + thread.new * expected;
                (load, connections(thread))
            })
            .expect("there is at least one thread");
        thread.new += 1;
        (index, thread.load.connection())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(threads: usize) -> LoadBalancer {
        LoadBalancer::new((0..threads).map(|_| Arc::default()))
    }

    /// Each of these threads answers this number of calls within the next second.
    fn work(balancer: &mut LoadBalancer, calls: &[u64]) {
        for (thread, calls) in balancer.threads.iter().zip(calls) {
            thread.load.calls.fetch_add(*calls, Ordering::Relaxed);
        }
        balancer.tick();
    }

    fn choose(balancer: &mut LoadBalancer, connections: usize) -> Vec<(usize, OpenConnection)> {
        (0..connections).map(|_| balancer.choose()).collect()
    }

    fn of_thread(placed: &[(usize, OpenConnection)], index: usize) -> usize {
        placed.iter().filter(|(thread, _)| *thread == index).count()
    }

    #[test]
    fn connections_spread_evenly_over_idle_threads() {
        let mut balancer = balancer(3);
        // Probes are not load.
        work(&mut balancer, &[7, 0, 2]);
        let placed = choose(&mut balancer, 9);
        for thread in 0..3 {
            assert_eq!(of_thread(&placed, thread), 3);
        }
    }

    #[test]
    fn the_thread_with_the_fewest_calls_gets_the_connection_even_if_it_has_more_connections() {
        let mut balancer = balancer(2);
        let mut placed = choose(&mut balancer, 10);
        placed.retain(|(thread, _)| *thread == 1);
        work(&mut balancer, &[100_000, 0]);
        assert_eq!(balancer.choose().0, 1);
    }

    #[test]
    fn connections_that_come_together_do_not_all_go_to_the_idler_thread() {
        let mut balancer = balancer(2);
        let _open = choose(&mut balancer, 8);
        for _ in 0..5 {
            work(&mut balancer, &[60_000, 50_000]);
        }
        let placed = choose(&mut balancer, 8);
        assert!(of_thread(&placed, 0) >= 3, "{}", of_thread(&placed, 0));
        assert!(of_thread(&placed, 1) >= 4, "{}", of_thread(&placed, 1));
    }

    #[test]
    fn a_thread_that_became_idle_is_chosen_again() {
        let mut balancer = balancer(2);
        let _open = choose(&mut balancer, 2);
        work(&mut balancer, &[100_000, 50_000]);
        for _ in 0..20 {
            work(&mut balancer, &[0, 50_000]);
        }
        assert_eq!(balancer.choose().0, 0);
    }

    #[test]
    fn a_closed_connection_is_not_counted() {
        let mut balancer = balancer(1);
        let (_, open) = balancer.choose();
        let load = open.load();
        assert_eq!(load.connections.load(Ordering::Relaxed), 1);
        drop(open);
        assert_eq!(load.connections.load(Ordering::Relaxed), 0);
    }
}
