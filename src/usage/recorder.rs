//! The recorder on which each answer about a proven key leaves its record.
//!
//! Counts are exact: a record that was made is drained off once, whatever threads do meanwhile. A counter that was not used for a
//! while is removed first and closed then. Who found it before it was removed can still be about to record it; if the record comes
//! before the close, the close takes it along, and if it comes later, it meets a closed counter and is made again on a new one.
//! So nothing depends on how long a thread may be delayed.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::domain::ids::KeyId;
use crate::domain::time::{Hour, Timestamp};
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredSecret};
use crate::verify::Decision;

/// The bit of a count that says that it is closed: marks from then on do not count. Below it there is room for two thousand
/// million marks between two drains.
const CLOSED: u32 = 1 << 31;

/// A counter that was not used since it was last drained.
const NEVER: i64 = i64::MIN;

/// A counter whose time is closed.
const CLOSED_TIME: i64 = i64::MAX;

/// How much later than the time that is noted a use must be to be noted, in microseconds. A time that changed with each request
/// would be fought over by all threads.
const GRAIN: i64 = 1_000_000;

/// The marks since the last drain.
pub struct UsageRecorder {
    is_on: bool,
    counters: papaya::HashMap<CounterKey, UsageCounter>,
}

/// What has a counter of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CounterKey {
    key: KeyId,
    /// When the secret was made.
    secret: Timestamp,
    hour: Hour,
}

struct UsageCounter {
    /// One for each of [`Verdict::PROVEN`].
    counts: [AtomicU32; Verdict::PROVEN.len()],
    used_at: AtomicI64,
}

/// The counter was closed: the record is to be made on another one.
struct Closed;

/// What was on a counter.
pub(super) struct Drained {
    /// Of this key.
    pub(super) key: KeyId,
    /// Of the secret that was made then.
    pub(super) secret: Timestamp,
    /// Within this hour.
    pub(super) hour: Hour,
    /// One for each of [`Verdict::PROVEN`].
    pub(super) counts: [u32; Verdict::PROVEN.len()],
    /// When it was last used, if it was; exact to a second.
    pub(super) used_at: Option<Timestamp>,
}

impl UsageRecorder {
    /// A recorder, or one that takes no marks.
    pub fn new(is_on: bool) -> Self {
        Self {
            is_on,
            counters: papaya::HashMap::new(),
        }
    }

    /// Whether it takes marks.
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

    /// Notes that a key was used to call: when, not how often.
    pub fn note_use(&self, key: &KeyFacts, secret: &MirroredSecret, now: Timestamp) {
        self.record(key, secret, now, |counter| counter.note_use(now));
    }

    fn record(
        &self,
        key: &KeyFacts,
        secret: &MirroredSecret,
        now: Timestamp,
        record: impl Fn(&UsageCounter) -> Result<(), Closed>,
    ) {
        if self.is_on {
            let counter_key = CounterKey {
                key: key.id,
                secret: secret.created_at,
                hour: Hour::of(now),
            };
            self.record_in(counter_key, record);
        }
    }

    fn record_in(
        &self,
        counter_key: CounterKey,
        record: impl Fn(&UsageCounter) -> Result<(), Closed>,
    ) {
        let counters = self.counters.pin();
        loop {
            let counter = match counters.get(&counter_key) {
                Some(counter) => counter,
                None => counters.get_or_insert_with(counter_key, UsageCounter::default),
            };
            // A closed counter was removed before it was closed, so that this does not find it again.
            if record(counter).is_ok() {
                return;
            }
        }
    }

    /// Takes everything off. A counter on which there was nothing is removed.
    pub(super) fn drain(&self, mut take: impl FnMut(Drained)) {
        let counters = self.counters.pin();
        for (counter_key, counter) in &counters {
            if let Some(drained) = counter_key.drained(counter.drain()) {
                take(drained);
            } else if let Some(removed) = counters.remove(counter_key)
                && let Some(drained) = counter_key.drained(removed.close())
            {
                take(drained);
            }
        }
    }
}

impl CounterKey {
    /// Nothing if nothing was on the counter.
    fn drained(
        self,
        (counts, used_at): ([u32; Verdict::PROVEN.len()], Option<Timestamp>),
    ) -> Option<Drained> {
        let Self { key, secret, hour } = self;
        let is_used = used_at.is_some() || counts.iter().any(|count| *count > 0);
        is_used.then_some(Drained {
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
        // The time before the count, and drained after it: whoever takes the count finds the time too.
        self.note_use(now)?;
        self.add(index)
    }

    fn add(&self, index: usize) -> Result<(), Closed> {
        // What is closed stays closed: it would take as many late marks again to carry the bit away.
        if self.counts[index].fetch_add(1, Ordering::AcqRel) & CLOSED == 0 {
            Ok(())
        } else {
            Err(Closed)
        }
    }

    fn note_use(&self, now: Timestamp) -> Result<(), Closed> {
        let now = now.as_micros();
        let mut noted = self.used_at.load(Ordering::Acquire);
        loop {
            if noted == CLOSED_TIME {
                return Err(Closed);
            }
            if now < noted.saturating_add(GRAIN) {
                return Ok(());
            }
            match self.used_at.compare_exchange_weak(
                noted,
                now,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Ok(()),
                Err(seen) => noted = seen,
            }
        }
    }

    fn drain(&self) -> ([u32; Verdict::PROVEN.len()], Option<Timestamp>) {
        self.swap(0, NEVER)
    }

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

    fn drain(recorder: &UsageRecorder) -> Vec<Drained> {
        let mut all = Vec::new();
        recorder.drain(|drained| all.push(drained));
        all
    }

    #[test]
    fn what_is_marked_is_taken_off_once() {
        let recorder = UsageRecorder::new(true);
        for index in [ALLOWED, 0, ALLOWED] {
            count(&recorder, 1, index, at(5));
        }
        recorder.record_in(counter_key(2), |counter| counter.note_use(at(9)));
        let mut drained = drain(&recorder);
        drained.sort_by_key(|drained| drained.key);
        let [one, two] = &drained[..] else {
            panic!("two keys were used")
        };
        assert_eq!((one.counts[ALLOWED], one.counts[0]), (2, 1));
        assert_eq!(one.counts.iter().sum::<u32>(), 3);
        assert_eq!((one.hour, one.secret), (Hour::from_number(7), at(1)));
        assert_eq!((one.used_at, two.used_at), (Some(at(5)), Some(at(9))));
        assert_eq!(two.counts, [0; Verdict::PROVEN.len()]);
        assert!(drain(&recorder).is_empty());
    }

    #[test]
    fn a_time_is_noted_by_the_second_and_never_goes_back() {
        let recorder = UsageRecorder::new(true);
        for (now, noted) in [
            (5_000_000, 5_000_000),
            (5_999_999, 5_000_000),
            (6_000_000, 6_000_000),
            (1_000_000, 6_000_000),
        ] {
            recorder.record_in(counter_key(1), |counter| counter.note_use(at(now)));
            let counters = recorder.counters.pin();
            let counter = counters.get(&counter_key(1)).unwrap();
            assert_eq!(counter.used_at.load(Ordering::Relaxed), noted);
        }
    }

    #[test]
    fn a_tally_that_is_not_used_any_more_does_not_stay() {
        let recorder = UsageRecorder::new(true);
        count(&recorder, 1, ALLOWED, at(5));
        assert_eq!(drain(&recorder).len(), 1);
        assert_eq!(recorder.counters.len(), 1, "it may be used again soon");
        assert!(drain(&recorder).is_empty());
        assert!(recorder.counters.is_empty());
    }

    /// The one moment that matters, held still: a thread has found a counter, and before it marks it, it is removed and closed.
    /// Seen red with `CLOSED` left out of `UsageCounter::add`: the record is then made where nobody looks any more.
    #[test]
    fn a_mark_that_comes_after_the_close_is_made_on_a_new_tally() {
        let recorder = UsageRecorder::new(true);
        let is_first = AtomicBool::new(true);
        recorder.record_in(counter_key(1), |counter| {
            if is_first.swap(false, Ordering::Relaxed) {
                assert!(drain(&recorder).is_empty(), "it is new and empty");
                assert!(recorder.counters.is_empty(), "and therefore removed");
                // As a thread does that was stopped between the time and the count.
                return counter.add(ALLOWED);
            }
            counter.count(ALLOWED, at(5))
        });
        let drained = drain(&recorder);
        assert_eq!(drained.len(), 1);
        assert_eq!(drained[0].counts[ALLOWED], 1);
    }

    #[test]
    fn a_closed_tally_takes_neither_count_nor_time() {
        let counter = UsageCounter::default();
        assert!(counter.count(ALLOWED, at(5)).is_ok());
        let (counts, used_at) = counter.close();
        assert_eq!((counts[ALLOWED], used_at), (1, Some(at(5))));
        assert!(counter.count(ALLOWED, at(9_000_000)).is_err());
        assert!(counter.note_use(at(9_000_000)).is_err());
    }

    /// Each key is used now and then only, and whoever uses it dawdles between finding its counter and marking it, so that most
    /// counters are removed under somebody's hands. Seen red without the looks at what is closed in `UsageCounter::add` and
    /// `UsageCounter::note_use`.
    #[test]
    fn nothing_is_lost_or_counted_twice_though_tallies_come_and_go_under_many_threads() {
        const THREADS: u8 = 4;
        const EACH: u32 = 50_000;
        const KEYS: u32 = 50;
        let recorder = UsageRecorder::new(true);
        let is_over = AtomicBool::new(false);
        let mut sums: HashMap<(KeyId, usize), u64> = HashMap::new();
        let mut add = |drained: Drained| {
            for (index, count) in drained.counts.into_iter().enumerate() {
                *sums.entry((drained.key, index)).or_default() += u64::from(count);
            }
        };
        std::thread::scope(|scope| {
            let markers: Vec<_> = (0..THREADS)
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
            // Again and again, so that counters are removed under the hands of those who record them.
            let drainer = scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    recorder.drain(&mut add);
                }
                recorder.drain(&mut add);
            });
            for marker in markers {
                marker.join().unwrap();
            }
            is_over.store(true, Ordering::Release);
            drainer.join().unwrap();
        });
        let of_place = |index| -> u64 {
            let sums = sums.iter().filter(|((_, at), _)| *at == index);
            sums.map(|(_, count)| count).sum()
        };
        let expected = u64::from(THREADS / 2) * u64::from(EACH);
        assert_eq!((of_place(1), of_place(2)), (expected, expected));
        assert_eq!(sums.values().sum::<u64>(), 2 * expected);
    }

    #[test]
    fn a_board_that_is_off_takes_nothing() {
        assert!(!UsageRecorder::new(false).is_on());
    }
}
