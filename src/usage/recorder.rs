//! The recorder, which counts each answer about a proven key.
//!
//! Each thread that answers has a recorder of its own, so no two threads write the same memory. Only the writer takes counts from
//! another thread, and it takes a whole table at once. So counts are exact: each record is in exactly one table, and each table is
//! taken once.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::domain::ids::KeyId;
use crate::domain::last_use::{LastUse, RecordedAddress};
use crate::domain::time::{Hour, Timestamp};
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredSecret};
use crate::verify::{Decision, Question};

/// The number of entries of one table. A table of this size stays in the processor's cache, and no call has to wait until a larger
/// one has grown.
const TABLE_SIZE: usize = 8 * 1024;

/// The usage of keys since it was last taken, as one thread recorded it.
pub struct UsageRecorder {
    is_on: bool,
    /// Two, because the writer holds at most one of them at a time. So the thread that records never waits: if one is held, the
    /// other is free.
    tables: [Mutex<Tables>; 2],
}

/// Tables of usage, of which only the last one grows.
#[derive(Default)]
struct Tables {
    full: Vec<Table>,
    current: Table,
    /// Empty tables from the last time that all was taken.
    spare: Vec<Table>,
}

/// The keys' ids are made by this authority, so no client can choose entries that collide.
type Table = HashMap<Used, Use, RandomState>;

/// What was used, and how the use ended. In the order of the store's primary keys, so that one transaction writes adjacent rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Used {
    /// The key.
    pub(super) key: KeyId,
    /// The hour.
    pub(super) hour: Hour,
    /// The verdict on the key; `None` if a caller used its own key, which is not counted.
    pub(super) verdict: Option<Verdict>,
    /// When the secret was created, which identifies it among the secrets of the key.
    pub(super) secret: Timestamp,
}

/// How often and when something was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// How often.
    pub(super) count: u64,
    /// When last, and from where.
    pub(super) last: LastUse,
}

impl Use {
    /// Adds another use of the same. The time of the last use never goes back.
    pub(super) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.last = self.last.or_later(other.last);
    }
}

impl UsageRecorder {
    /// Creates a recorder. If `is_on` is false, it records nothing.
    pub fn new(is_on: bool) -> Self {
        Self {
            is_on,
            tables: Default::default(),
        }
    }

    /// Whether the recorder records usage.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Counts the decision on a question for the key that it proved, if it proved one.
    pub fn count(&self, question: &Question<'_>, decision: &Decision<'_>, now: Timestamp) {
        if let Some((key, secret)) = decision.proven {
            self.record(question, key, &secret, Some(decision.verdict), now);
        }
    }

    /// Records that a caller used its own key. `question` is whether the key may do this. The use is not counted.
    pub fn record_use(
        &self,
        question: &Question<'_>,
        key: KeyFacts<'_>,
        secret: &MirroredSecret,
        now: Timestamp,
    ) {
        self.record(question, key, secret, None, now);
    }

    /// Only a key of the question's realm is proven, so this realm says whether the address is recorded.
    fn record(
        &self,
        question: &Question<'_>,
        key: KeyFacts<'_>,
        secret: &MirroredSecret,
        verdict: Option<Verdict>,
        now: Timestamp,
    ) {
        if self.is_on {
            let used = Used {
                key: key.id(),
                secret: secret.created_at,
                hour: Hour::of(now),
                verdict,
            };
            let client = question.client;
            let client = client.filter(|_| question.realm.definition.record_addresses);
            let last = LastUse {
                at: now,
                address: client.and_then(RecordedAddress::of),
            };
            self.add(used, last);
        }
    }

    pub(super) fn add(&self, used: Used, last: LastUse) {
        let [first, second] = &self.tables;
        let mut tables = first.try_lock().unwrap_or_else(|_| lock(second));
        let once = Use { count: 1, last };
        tables
            .current
            .entry(used)
            .and_modify(|uses| uses.add(once))
            .or_insert(once);
        if tables.current.len() >= TABLE_SIZE {
            // So many keys are in use that the next table will be full too. It should not have to grow.
            let next = tables.spare.pop().unwrap_or_else(|| {
                Table::with_capacity_and_hasher(TABLE_SIZE, RandomState::default())
            });
            let full = mem::replace(&mut tables.current, next);
            tables.full.push(full);
        }
    }

    /// Takes all usage.
    pub(super) fn take(&self, mut receive: impl FnMut(Used, Use)) {
        for tables in &self.tables {
            // Held only for the exchange.
            let mut taken = mem::take(&mut *lock(tables));
            for (used, uses) in taken.current {
                receive(used, uses);
            }
            for table in &mut taken.full {
                for (used, uses) in table.drain() {
                    receive(used, uses);
                }
            }
            // As many as were needed in the last interval, because new memory costs more than to empty a table.
            lock(tables).spare = taken.full;
        }
    }
}

fn lock(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn at(micros: i64) -> LastUse {
        LastUse {
            at: Timestamp::from_micros(micros),
            address: None,
        }
    }

    fn used(number: u32, verdict: Option<Verdict>) -> Used {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Used {
            key: KeyId::from_bytes(id),
            secret: at(1).at,
            hour: Hour::from_number(7),
            verdict,
        }
    }

    fn take(recorder: &UsageRecorder) -> Vec<(Used, Use)> {
        let mut all = Vec::new();
        recorder.take(|used, uses| all.push((used, uses)));
        all.sort_by_key(|(used, _)| *used);
        all
    }

    #[test]
    fn each_record_is_taken_once() {
        let recorder = UsageRecorder::new(true);
        for (verdict, now) in [
            (Verdict::Allowed, 5),
            (Verdict::Revoked, 4),
            (Verdict::Allowed, 3),
        ] {
            recorder.add(used(1, Some(verdict)), at(now));
        }
        recorder.add(used(2, None), at(9));
        let uses = |count, last| Use {
            count,
            last: at(last),
        };
        let mut expected = [
            (used(1, Some(Verdict::Revoked)), uses(1, 4)),
            // The time of a use never goes back.
            (used(1, Some(Verdict::Allowed)), uses(2, 5)),
            (used(2, None), uses(1, 9)),
        ];
        expected.sort_by_key(|(used, _)| *used);
        assert_eq!(take(&recorder), expected);
        assert!(take(&recorder).is_empty());
    }

    /// Seen red with a full table that is dropped.
    #[test]
    fn nothing_is_lost_when_a_table_is_full() {
        let recorder = UsageRecorder::new(true);
        let many = 3 * TABLE_SIZE as u32 + 1;
        for number in 0..many {
            recorder.add(used(number, Some(Verdict::Allowed)), at(5));
        }
        assert_eq!(lock(&recorder.tables[0]).full.len(), 3);
        assert_eq!(take(&recorder).len(), many as usize);
    }

    /// Seen red with only one table: the test then waits for itself.
    #[test]
    fn a_record_does_not_wait_for_the_writer() {
        let recorder = UsageRecorder::new(true);
        for tables in &recorder.tables {
            let held = lock(tables);
            recorder.add(used(1, Some(Verdict::Allowed)), at(5));
            drop(held);
        }
        let counts = take(&recorder).into_iter().map(|(_, uses)| uses.count);
        assert_eq!(counts.sum::<u64>(), 2);
    }

    /// Seen red with a take that reads a table and then clears it, with the lock released between the two.
    #[test]
    fn no_record_is_lost_or_counted_twice_while_tables_are_taken() {
        const EACH: u64 = 300_000;
        let recorder = UsageRecorder::new(true);
        let is_over = AtomicBool::new(false);
        let mut sum = 0;
        let mut add = |_, uses: Use| sum += uses.count;
        std::thread::scope(|scope| {
            let recording = scope.spawn(|| {
                for number in 0..EACH as u32 {
                    recorder.add(used(number % 50, Some(Verdict::Allowed)), at(5));
                }
                is_over.store(true, Ordering::Release);
            });
            while !is_over.load(Ordering::Acquire) {
                recorder.take(&mut add);
            }
            recording.join().unwrap();
            recorder.take(&mut add);
        });
        assert_eq!(sum, EACH);
    }

    #[test]
    fn a_recorder_that_is_off_records_nothing() {
        assert!(!UsageRecorder::new(false).is_on());
    }
}
