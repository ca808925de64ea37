//! The recorder, which counts each answer about a proven key.
//!
//! Counts are exact: each record is taken once, whatever other threads do meanwhile. A counter that was not used since it was
//! last taken is first removed from the map and then closed. A thread may have found the counter before the removal and record
//! after it. If it records before the close, the close takes its record. If it records after the close, it finds the counter
//! closed and records again in a new counter. So nothing depends on how long a thread is delayed.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::domain::ids::KeyId;
use crate::domain::time::{Hour, Timestamp};
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredSecret};
use crate::verify::Decision;

/// The bit that marks a count as closed. Below it a counter has room for about two billion records between two takes.
const CLOSED: u32 = 1 << 31;

/// The time in a counter that was not used since it was last taken.
const NEVER: i64 = i64::MIN;

/// The time in a closed counter.
const CLOSED_TIME: i64 = i64::MAX;

/// How much later than the recorded time of use a new use must be to be recorded, in microseconds. If every request wrote the
/// time, all threads would contend for it.
const TIME_RESOLUTION: i64 = 1_000_000;

/// The usage of keys since it was last taken.
pub struct UsageRecorder {
    is_on: bool,
    counters: papaya::HashMap<CounterKey, UsageCounter>,
}

/// The secret and the hour that a counter counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CounterKey {
    key: KeyId,
    /// When the secret was created, which identifies it among the secrets of the key.
    secret: Timestamp,
    hour: Hour,
}

/// The counts and the time of the last use of one secret in one hour.
struct UsageCounter {
    /// One count for each of [`Verdict::PROVEN`].
    counts: [AtomicU32; Verdict::PROVEN.len()],
    used_at: AtomicI64,
}

/// The error of a record in a closed counter: it must be repeated in a new one.
struct Closed;

/// The usage that was taken from one counter.
pub(super) struct TakenUsage {
    /// The key.
    pub(super) key: KeyId,
    /// When the secret was created.
    pub(super) secret: Timestamp,
    /// The hour.
    pub(super) hour: Hour,
    /// One count for each of [`Verdict::PROVEN`].
    pub(super) counts: [u32; Verdict::PROVEN.len()],
    /// When the secret was last used, exact to a second; `None` if it was not used.
    pub(super) used_at: Option<Timestamp>,
}

impl UsageRecorder {
    /// Creates a recorder. If `is_on` is false, it records nothing.
    pub fn new(is_on: bool) -> Self {
        Self {
            is_on,
            counters: papaya::HashMap::new(),
        }
    }

    /// Whether the recorder records usage.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Counts a decision for the key that it proved, if it proved one.
    pub fn count(&self, decision: &Decision<'_>, now: Timestamp) {
        if let (Some((key, secret)), Some(index)) =
            (decision.proven, decision.verdict.proven_index())
        {
            self.record(key, secret, now, |counter| counter.count(index, now));
        }
    }

    /// Records when a caller used its own key. The use is not counted.
    pub fn record_use(&self, key: &KeyFacts, secret: &MirroredSecret, now: Timestamp) {
        self.record(key, secret, now, |counter| counter.record_use(now));
    }

    fn record(
        &self,
        key: &KeyFacts,
        secret: &MirroredSecret,
        now: Timestamp,
        add: impl Fn(&UsageCounter) -> Result<(), Closed>,
    ) {
        if self.is_on {
            let counter_key = CounterKey {
                key: key.id,
                secret: secret.created_at,
                hour: Hour::of(now),
            };
            self.record_in(counter_key, add);
        }
    }

    fn record_in(
        &self,
        counter_key: CounterKey,
        add: impl Fn(&UsageCounter) -> Result<(), Closed>,
    ) {
        let counters = self.counters.pin();
        loop {
            let counter = match counters.get(&counter_key) {
                Some(counter) => counter,
                None => counters.get_or_insert_with(counter_key, UsageCounter::default),
            };
            // A counter is removed before it is closed, so the next turn of the loop does not find a closed counter again.
            if add(counter).is_ok() {
                return;
            }
        }
    }

    /// Takes the usage of every counter and resets the counter. A counter without usage is removed.
    pub(super) fn take(&self, mut receive: impl FnMut(TakenUsage)) {
        let counters = self.counters.pin();
        for (counter_key, counter) in &counters {
            if let Some(usage) = counter_key.usage(counter.take()) {
                receive(usage);
            } else if let Some(removed) = counters.remove(counter_key)
                && let Some(usage) = counter_key.usage(removed.close())
            {
                receive(usage);
            }
        }
    }
}

impl CounterKey {
    /// The usage with these values; `None` if there was none.
    fn usage(
        self,
        (counts, used_at): ([u32; Verdict::PROVEN.len()], Option<Timestamp>),
    ) -> Option<TakenUsage> {
        let Self { key, secret, hour } = self;
        let is_used = used_at.is_some() || counts.iter().any(|count| *count > 0);
        is_used.then_some(TakenUsage {
            key,
            secret,
            hour,
            counts,
            used_at,
        })
    }
}

impl Default for UsageCounter {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; Verdict::PROVEN.len()],
            used_at: AtomicI64::new(NEVER),
        }
    }
}

impl UsageCounter {
    fn count(&self, index: usize, now: Timestamp) -> Result<(), Closed> {
        // The time is written before the count and taken after it, so that a taken count always comes with its time.
        self.record_use(now)?;
        self.add(index)
    }

    fn add(&self, index: usize) -> Result<(), Closed> {
        // A closed count stays closed: only 2^31 late records would clear the bit.
        if self.counts[index].fetch_add(1, Ordering::AcqRel) & CLOSED == 0 {
            Ok(())
        } else {
            Err(Closed)
        }
    }

    fn record_use(&self, now: Timestamp) -> Result<(), Closed> {
        let now = now.as_micros();
        let mut recorded = self.used_at.load(Ordering::Acquire);
        loop {
            if recorded == CLOSED_TIME {
                return Err(Closed);
            }
            if now < recorded.saturating_add(TIME_RESOLUTION) {
                return Ok(());
            }
            match self.used_at.compare_exchange_weak(
                recorded,
                now,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Ok(()),
                Err(current) => recorded = current,
            }
        }
    }

    /// Takes the values and resets the counter.
    fn take(&self) -> ([u32; Verdict::PROVEN.len()], Option<Timestamp>) {
        self.swap(0, NEVER)
    }

    /// Takes the values and closes the counter.
    fn close(&self) -> ([u32; Verdict::PROVEN.len()], Option<Timestamp>) {
        self.swap(CLOSED, CLOSED_TIME)
    }

    fn swap(&self, count: u32, time: i64) -> ([u32; Verdict::PROVEN.len()], Option<Timestamp>) {
        let counts = self
            .counts
            .each_ref()
            .map(|each| each.swap(count, Ordering::AcqRel));
        let used_at = self.used_at.swap(time, Ordering::AcqRel);
        let used_at = (used_at != NEVER).then_some(Timestamp::from_micros(used_at));
        (counts, used_at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;

    use super::*;

    const ALLOWED: usize = Verdict::PROVEN.len() - 1;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn counter_key(number: u8) -> CounterKey {
        CounterKey {
            key: KeyId::from_bytes([number; 16]),
            secret: at(1),
            hour: Hour::from_number(7),
        }
    }

    fn count(recorder: &UsageRecorder, number: u8, index: usize, now: Timestamp) {
        recorder.record_in(counter_key(number), |counter| counter.count(index, now));
    }

    fn take(recorder: &UsageRecorder) -> Vec<TakenUsage> {
        let mut all = Vec::new();
        recorder.take(|usage| all.push(usage));
        all
    }

    #[test]
    fn each_record_is_taken_once() {
        let recorder = UsageRecorder::new(true);
        for index in [ALLOWED, 0, ALLOWED] {
            count(&recorder, 1, index, at(5));
        }
        recorder.record_in(counter_key(2), |counter| counter.record_use(at(9)));
        let mut taken = take(&recorder);
        taken.sort_by_key(|usage| usage.key);
        let [one, two] = &taken[..] else {
            panic!("two keys were used")
        };
        assert_eq!((one.counts[ALLOWED], one.counts[0]), (2, 1));
        assert_eq!(one.counts.iter().sum::<u32>(), 3);
        assert_eq!((one.hour, one.secret), (Hour::from_number(7), at(1)));
        assert_eq!((one.used_at, two.used_at), (Some(at(5)), Some(at(9))));
        assert_eq!(two.counts, [0; Verdict::PROVEN.len()]);
        assert!(take(&recorder).is_empty());
    }

    #[test]
    fn a_time_is_recorded_by_the_second_and_never_goes_back() {
        let recorder = UsageRecorder::new(true);
        for (now, recorded) in [
            (5_000_000, 5_000_000),
            (5_999_999, 5_000_000),
            (6_000_000, 6_000_000),
            (1_000_000, 6_000_000),
        ] {
            recorder.record_in(counter_key(1), |counter| counter.record_use(at(now)));
            let counters = recorder.counters.pin();
            let counter = counters.get(&counter_key(1)).unwrap();
            assert_eq!(counter.used_at.load(Ordering::Relaxed), recorded);
        }
    }

    #[test]
    fn a_counter_that_is_no_longer_used_is_removed() {
        let recorder = UsageRecorder::new(true);
        count(&recorder, 1, ALLOWED, at(5));
        assert_eq!(take(&recorder).len(), 1);
        assert_eq!(recorder.counters.len(), 1, "it may be used again soon");
        assert!(take(&recorder).is_empty());
        assert!(recorder.counters.is_empty());
    }

    /// A thread has found a counter, and the counter is removed and closed before the thread records.
    /// Seen red with `CLOSED` left out of `UsageCounter::add`: the record is then in a counter that nobody reads.
    #[test]
    fn a_record_after_the_close_is_made_in_a_new_counter() {
        let recorder = UsageRecorder::new(true);
        let is_first = AtomicBool::new(true);
        recorder.record_in(counter_key(1), |counter| {
            if is_first.swap(false, Ordering::Relaxed) {
                assert!(take(&recorder).is_empty(), "it is new and empty");
                assert!(recorder.counters.is_empty(), "and therefore removed");
                // A thread that was stopped between the time and the count does the same.
                return counter.add(ALLOWED);
            }
            counter.count(ALLOWED, at(5))
        });
        let taken = take(&recorder);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].counts[ALLOWED], 1);
    }

    #[test]
    fn a_closed_counter_accepts_neither_count_nor_time() {
        let counter = UsageCounter::default();
        assert!(counter.count(ALLOWED, at(5)).is_ok());
        let (counts, used_at) = counter.close();
        assert_eq!((counts[ALLOWED], used_at), (1, Some(at(5))));
        assert!(counter.count(ALLOWED, at(9_000_000)).is_err());
        assert!(counter.record_use(at(9_000_000)).is_err());
    }

    /// Each key is used rarely, and each thread waits between finding a counter and recording in it, so that most counters are
    /// removed while a thread holds them. Seen red without the checks for closed counters in `UsageCounter::add` and
    /// `UsageCounter::record_use`.
    #[test]
    fn no_record_is_lost_or_counted_twice_while_counters_are_removed_under_many_threads() {
        const THREADS: u8 = 4;
        const EACH: u32 = 50_000;
        const KEYS: u32 = 50;
        let recorder = UsageRecorder::new(true);
        let is_over = AtomicBool::new(false);
        let mut sums: HashMap<(KeyId, usize), u64> = HashMap::new();
        let mut add = |usage: TakenUsage| {
            for (index, count) in usage.counts.into_iter().enumerate() {
                *sums.entry((usage.key, index)).or_default() += u64::from(count);
            }
        };
        std::thread::scope(|scope| {
            let recording: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let recorder = &recorder;
                    scope.spawn(move || {
                        for i in 0..EACH {
                            let index = 1 + usize::from(thread) % 2;
                            recorder.record_in(counter_key((i % KEYS) as u8), |counter| {
                                for _ in 0..i % 100 {
                                    std::hint::spin_loop();
                                }
                                counter.count(index, at(5))
                            });
                        }
                    })
                })
                .collect();
            // Without a pause, so that counters are removed while other threads record in them.
            let taking = scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    recorder.take(&mut add);
                }
                recorder.take(&mut add);
            });
            for thread in recording {
                thread.join().unwrap();
            }
            is_over.store(true, Ordering::Release);
            taking.join().unwrap();
        });
        let sum_of = |index| -> u64 {
            let sums = sums.iter().filter(|((_, at), _)| *at == index);
            sums.map(|(_, count)| count).sum()
        };
        let expected = u64::from(THREADS / 2) * u64::from(EACH);
        assert_eq!((sum_of(1), sum_of(2)), (expected, expected));
        assert_eq!(sums.values().sum::<u64>(), 2 * expected);
    }

    #[test]
    fn a_recorder_that_is_off_records_nothing() {
        assert!(!UsageRecorder::new(false).is_on());
    }
}
