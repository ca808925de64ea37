//! The backlog: usage that was taken from the recorders and is not yet in the store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::mem;

use foldhash::fast::RandomState;

use super::recorder::{Use, Used};
use crate::domain::time::Hour;
use crate::store::{KeyCount, SecretUse};

/// Counts and times of use that wait to be written.
#[derive(Default)]
pub(super) struct Backlog {
    /// What was taken lately.
    recent: HashMap<Used, Use, RandomState>,
    /// What is written first, backwards in the order of the tables' primary keys, so that one transaction writes adjacent rows.
    next: Vec<(Used, Use)>,
    /// The latest hour that was added.
    latest: Option<Hour>,
    /// The latest hour when hours were last merged. Until a later hour begins, another merge would find next to nothing.
    merged_in: Option<Hour>,
}

impl Backlog {
    /// Merges usage into the backlog.
    pub(super) fn add(&mut self, used: Used, more: Use) {
        self.latest = self.latest.max(Some(used.hour));
        self.recent
            .entry(used)
            .and_modify(|uses| uses.add(more))
            .or_insert(more);
    }

    /// The number of entries. What was used before and after a write began may have two.
    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.next.len()
    }

    /// The sum of all counts.
    pub(super) fn total(&self) -> u64 {
        let counted = |(used, uses): (&Used, &Use)| used.verdict.map_or(0, |_| uses.count);
        let next = self.next.iter().map(|(used, uses)| (used, uses));
        self.recent.iter().chain(next).map(counted).sum()
    }

    /// Merges the hours before the latest one, if there are more than `max_entries` entries: the counts of these hours become
    /// counts of the first of them. Returns whether counts moved to another hour.
    ///
    /// The sum of all counts and the times of the last uses do not change. Afterwards each key, verdict and secret has at most two
    /// entries. If that is still more than `max_entries`, nothing more can be merged until the next hour begins.
    ///
    /// A merge of millions of entries takes a good part of a second, so it must run on a thread that may block.
    pub(super) fn merge_hours(&mut self, max_entries: usize) -> bool {
        let Some(latest) = self.latest else {
            return false;
        };
        if self.len() <= max_entries || self.merged_in == Some(latest) {
            return false;
        }
        self.merged_in = Some(latest);
        let is_past = |used: &Used| used.hour < latest;
        // What is used in the latest hour will be used again, and finds its entry only in the map.
        let mut past = mem::take(&mut self.next);
        for (used, uses) in past.extract_if(.., |(used, _)| !is_past(used)) {
            self.recent
                .entry(used)
                .and_modify(|other| other.add(uses))
                .or_insert(uses);
        }
        past.extend(self.recent.extract_if(|used, _| is_past(used)));
        let first = past.iter().map(|(used, _)| used.hour).min();
        let mut is_moved = false;
        for (used, _) in &mut past {
            let hour = first.unwrap_or(used.hour);
            is_moved |= used.hour != hour;
            used.hour = hour;
        }
        past.sort_unstable_by_key(|(used, _)| Reverse(*used));
        past.dedup_by(|(used, uses), (kept, sum)| {
            let is_same = used == kept;
            if is_same {
                sum.add(*uses);
            }
            is_same
        });
        past.shrink_to_fit();
        self.next = past;
        is_moved
    }

    /// The entries to write next, at most `max`.
    pub(super) fn first(&mut self, max: usize) -> &[(Used, Use)] {
        if self.next.is_empty() {
            // As many keys will be used again, and a table that grows costs twice the memory.
            let recent =
                HashMap::with_capacity_and_hasher(self.recent.len(), RandomState::default());
            let taken = mem::replace(&mut self.recent, recent);
            self.next = taken.into_iter().collect();
            self.next.sort_unstable_by_key(|(used, _)| Reverse(*used));
        }
        &self.next[self.next.len().saturating_sub(max)..]
    }

    /// Removes this number of the entries to write next.
    pub(super) fn remove_first(&mut self, written: usize) {
        self.next.truncate(self.next.len() - written);
    }
}

/// The rows of usage: the counts for each key, hour and verdict, and the last use of each secret.
pub(super) fn rows(usage: &[(Used, Use)]) -> (Vec<KeyCount>, Vec<SecretUse>) {
    let (mut counts, mut last_uses) = (BTreeMap::new(), BTreeMap::new());
    for (used, uses) in usage {
        if let Some(verdict) = used.verdict {
            *counts.entry((used.key, used.hour, verdict)).or_default() += uses.count;
        }
        let last = last_uses
            .entry((used.key, used.secret))
            .or_insert(uses.last);
        *last = last.or_later(uses.last);
    }
    let count = |((key, hour, verdict), count)| KeyCount {
        key,
        hour,
        verdict,
        count,
    };
    let last_use = |((key, secret), last)| SecretUse { key, secret, last };
    (
        counts.into_iter().map(count).collect(),
        last_uses.into_iter().map(last_use).collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::KeyId;
    use crate::domain::last_use::LastUse;
    use crate::domain::time::{Hour, Timestamp};
    use crate::domain::verdict::Verdict;

    fn used(key: u8, secret: i64, verdict: Option<Verdict>) -> Used {
        Used {
            key: KeyId::from_bytes([key; 16]),
            hour: Hour::from_number(7),
            verdict,
            secret: Timestamp::from_micros(secret),
        }
    }

    fn uses(count: u64, last: i64) -> Use {
        Use {
            count,
            last: LastUse {
                at: Timestamp::from_micros(last),
                address: None,
            },
        }
    }

    #[test]
    fn usage_is_merged_and_taken_in_order() {
        let mut backlog = Backlog::default();
        let (allowed, own) = (used(1, 1, Some(Verdict::Allowed)), used(1, 1, None));
        let other = used(0, 1, Some(Verdict::Revoked));
        for (used, uses) in [
            (allowed, uses(2, 5)),
            (own, uses(4, 9)),
            (other, uses(1, 1)),
            (allowed, uses(3, 4)),
        ] {
            backlog.add(used, uses);
        }
        // What a caller does with its own key is not counted.
        assert_eq!(backlog.total(), 6);
        let mut expected = [
            (allowed, uses(5, 5)),
            (own, uses(4, 9)),
            (other, uses(1, 1)),
        ];
        expected.sort_by_key(|(used, _)| *used);
        expected.reverse();
        assert_eq!(backlog.len(), 3);
        assert_eq!(backlog.first(2), &expected[1..]);
        // What comes after a write began waits for the next one.
        backlog.add(other, uses(1, 8));
        assert_eq!(backlog.total(), 7);
        backlog.remove_first(1);
        assert_eq!(backlog.first(9), &expected[..2]);
        backlog.remove_first(2);
        assert_eq!(backlog.first(9), [(other, uses(1, 8))]);
        backlog.remove_first(1);
        assert_eq!((backlog.len(), backlog.first(9).len()), (0, 0));
    }

    fn in_hour(hour: i64, used: Used) -> Used {
        Used {
            hour: Hour::from_number(hour),
            ..used
        }
    }

    /// All entries that are left, sorted.
    fn all(backlog: &mut Backlog) -> Vec<(Used, Use)> {
        let mut all = Vec::new();
        while backlog.len() > 0 {
            let first = backlog.first(usize::MAX);
            let taken = first.len();
            all.extend_from_slice(first);
            backlog.remove_first(taken);
        }
        all.sort_by_key(|(used, _)| *used);
        all
    }

    /// Seen red with the entries of `next` left out, with the latest hour merged too, and with the last of the past hours in the
    /// place of the first.
    #[test]
    fn past_hours_are_merged_into_the_first_and_the_latest_stays() {
        let mut backlog = Backlog::default();
        let (allowed, own) = (used(1, 1, Some(Verdict::Allowed)), used(1, 1, None));
        for hour in [7, 8] {
            backlog.add(in_hour(hour, allowed), uses(2, hour));
        }
        // So that there are entries in both parts of the backlog.
        assert_eq!(backlog.first(1).len(), 1);
        for (hour, used) in [
            (8, allowed),
            (8, own),
            (9, allowed),
            (9, own),
            (10, allowed),
        ] {
            backlog.add(in_hour(hour, used), uses(1, hour));
        }
        assert_eq!((backlog.len(), backlog.total()), (7, 7));
        assert!(!backlog.merge_hours(7), "there are not too many entries");
        assert!(backlog.merge_hours(6));
        assert_eq!((backlog.len(), backlog.total()), (3, 7));

        // A later merge moves these counts no further.
        backlog.add(in_hour(11, allowed), uses(5, 11));
        assert!(backlog.merge_hours(3));
        let expected = [
            (in_hour(7, allowed), uses(7, 10)),
            (in_hour(7, own), uses(2, 9)),
            (in_hour(11, allowed), uses(5, 11)),
        ];
        let mut expected = expected.to_vec();
        expected.sort_by_key(|(used, _)| *used);
        assert_eq!(all(&mut backlog), expected);
    }

    /// Seen red without `merged_in`.
    #[test]
    fn nothing_is_merged_again_before_the_next_hour() {
        let mut backlog = Backlog::default();
        let of_key = |key: u8, hour: i64| in_hour(hour, used(key, 1, Some(Verdict::Allowed)));
        for key in 0..3 {
            backlog.add(of_key(key, 7), uses(1, 1));
        }
        assert!(!backlog.merge_hours(2), "one hour has too many entries");
        // The entries of one past hour are not moved, and the hour is not looked at again.
        backlog.add(of_key(0, 8), uses(1, 1));
        assert!(!backlog.merge_hours(2));
        assert_eq!(backlog.merged_in, Some(Hour::from_number(8)));
        // Counted late, by a thread whose call began in the hour before.
        backlog.add(of_key(0, 6), uses(1, 1));
        assert!(!backlog.merge_hours(2));
        assert_eq!(backlog.len(), 5);
        backlog.add(of_key(0, 9), uses(1, 1));
        assert!(backlog.merge_hours(2));
        assert_eq!(backlog.len(), 4);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add {
            key: u8,
            secret: i64,
            verdict: Option<Verdict>,
            count: u64,
            last: i64,
        },
        NextHour,
        Merge(usize),
        Write(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let verdict =
            prop::sample::select(vec![None, Some(Verdict::Allowed), Some(Verdict::Revoked)]);
        // Few, so that there are soon more entries than may stay.
        let add = (0..2_u8, 1..3_i64, verdict, 1..9_u64, 0..99_i64);
        prop_oneof![
            8 => add.prop_map(|(key, secret, verdict, count, last)| Step::Add {
                key,
                secret,
                verdict,
                count,
                last,
            }),
            2 => Just(Step::NextHour),
            2 => (0..20_usize).prop_map(Step::Merge),
            1 => (1..9_usize).prop_map(Step::Write),
        ]
    }

    proptest! {
        /// Seen red with the entries of `next` left out, with the later of two last uses dropped where two entries become one, with
        /// two entries that stay two, and with the latest hour merged too.
        #[test]
        fn merging_keeps_all_counts_and_last_uses_in_few_entries(
            steps in prop::collection::vec(step(), 0..200)
        ) {
            let mut backlog = Backlog::default();
            let mut hour = 7;
            // What was added, what was written, and the sum of what was added in the latest hour.
            let (mut added, mut written) = (Vec::new(), Vec::new());
            let mut in_latest = 0;
            for step in steps {
                match step {
                    Step::Add { key, secret, verdict, count, last } => {
                        let used = in_hour(hour, used(key, secret, verdict));
                        backlog.add(used, uses(count, last));
                        added.push((used, uses(count, last)));
                        in_latest += verdict.map_or(0, |_| count);
                    }
                    Step::NextHour => {
                        hour += 1;
                        in_latest = 0;
                    }
                    Step::Merge(max_entries) => {
                        backlog.merge_hours(max_entries);
                        let mut distinct: Vec<_> =
                            added.iter().map(|(used, _)| in_hour(0, *used)).collect();
                        distinct.sort_unstable();
                        distinct.dedup();
                        prop_assert!(backlog.len() <= max_entries.max(2 * distinct.len()));
                    }
                    Step::Write(max) => {
                        let first = backlog.first(max);
                        let taken = first.len();
                        written.extend_from_slice(first);
                        backlog.remove_first(taken);
                    }
                }
            }
            written.extend(all(&mut backlog));

            let by_verdict = |usage: &[(Used, Use)]| {
                let mut sums = BTreeMap::new();
                for count in rows(usage).0 {
                    *sums.entry((count.key, count.verdict)).or_insert(0) += count.count;
                }
                sums
            };
            prop_assert_eq!(by_verdict(&written), by_verdict(&added));
            prop_assert_eq!(rows(&written).1, rows(&added).1);
            let counts = rows(&written).0;
            let latest = counts.iter().filter(|row| row.hour == Hour::from_number(hour));
            prop_assert_eq!(latest.map(|row| row.count).sum::<u64>(), in_latest);
        }
    }

    /// A statement must not name a row twice: PostgreSQL refuses it.
    #[test]
    fn each_row_is_there_once() {
        let usage = [
            (used(1, 1, Some(Verdict::Allowed)), uses(2, 5)),
            (used(1, 2, Some(Verdict::Allowed)), uses(3, 6)),
            (used(1, 2, Some(Verdict::Revoked)), uses(1, 4)),
            (used(1, 1, None), uses(4, 9)),
        ];
        let (counts, last_uses) = rows(&usage);
        let counts: Vec<_> = counts.iter().map(|row| (row.verdict, row.count)).collect();
        let mut expected = [(Verdict::Allowed, 5), (Verdict::Revoked, 1)];
        expected.sort_unstable();
        assert_eq!(counts, expected);
        let last_uses: Vec<_> = last_uses
            .iter()
            .map(|row| (row.secret.as_micros(), row.last.at.as_micros()))
            .collect();
        assert_eq!(last_uses, [(1, 9), (2, 6)]);
    }
}
