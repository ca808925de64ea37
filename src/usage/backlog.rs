//! The backlog: usage that was taken from the recorders and is not yet in the store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::mem;

use foldhash::fast::RandomState;

use super::recorder::{Use, Used};
use crate::store::{KeyCount, SecretUse};

/// Counts and times of use that wait to be written.
#[derive(Default)]
pub(super) struct Backlog {
    /// What was taken lately.
    recent: HashMap<Used, Use, RandomState>,
    /// What is written first, backwards in the order of the tables' primary keys, so that one transaction writes adjacent rows.
    next: Vec<(Used, Use)>,
}

impl Backlog {
    /// Merges usage into the backlog.
    pub(super) fn add(&mut self, used: Used, more: Use) {
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
        *last = uses.last.max(*last);
    }
    let count = |((key, hour, verdict), count)| KeyCount {
        key,
        hour,
        verdict,
        count,
    };
    let last_use = |((key, secret), last_used_at)| SecretUse {
        key,
        secret,
        last_used_at,
    };
    (
        counts.into_iter().map(count).collect(),
        last_uses.into_iter().map(last_use).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::KeyId;
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
            last: Timestamp::from_micros(last),
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
            .map(|row| (row.secret.as_micros(), row.last_used_at.as_micros()))
            .collect();
        assert_eq!(last_uses, [(1, 9), (2, 6)]);
    }
}
