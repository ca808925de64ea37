//! A value for each thread, so that threads that count do not write the same memory.

use std::cell::Cell;
use std::iter;
use std::num::NonZero;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

/// The number of values: more threads than processors cannot run at once.
static SHARDS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, NonZero::get));

/// The number of threads that have a value so far.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The number of this thread among those that have a value.
    static THREAD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A value for each thread that asks for one. If there are more threads than processors, some share a value.
#[derive(Debug)]
pub struct Sharded<T>(Box<[Line<T>]>);

/// Two cache lines of its own, because processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

impl<T> Sharded<T> {
    /// The value of this thread.
    pub fn here(&self) -> &T {
        let thread = THREAD.get().unwrap_or_else(|| {
            let new = THREADS.fetch_add(1, Ordering::Relaxed);
            THREAD.set(Some(new));
            new
        });
        &self.0[thread % self.0.len()].0
    }

    /// The values of all threads.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|line| &line.0)
    }
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self(iter::repeat_with(Line::default).take(*SHARDS).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::metrics::Counter;

    /// Seen red with a load and a store in place of the addition, because threads may share a value.
    #[test]
    fn the_sum_of_what_many_threads_count_is_exact() {
        const EACH: u64 = 100_000;
        let counters = Sharded::<Counter>::default();
        let threads = 4 * counters.all().count() as u64;
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..EACH).for_each(|_| counters.here().count()));
            }
        });
        let sum: u64 = counters.all().map(Counter::get).sum();
        assert_eq!(sum, threads * EACH);
    }

    #[test]
    fn a_thread_keeps_its_value() {
        let values = Sharded::<Cell<u8>>::default();
        values.here().set(7);
        assert_eq!(values.here().get(), 7);
        assert_eq!(values.all().map(Cell::get).sum::<u8>(), 7);
    }
}
