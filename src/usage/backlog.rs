//! The backlog: usage that was taken from the recorder and is not yet in the store.

use std::collections::BTreeMap;

use super::recorder::TakenUsage;
use crate::domain::ids::KeyId;
use crate::domain::time::{Hour, Timestamp};
use crate::domain::verdict::Verdict;
use crate::store::{KeyCount, SecretUse};

/// Counts and times of use that wait to be written, one entry for each row of the tables.
#[derive(Default)]
pub(super) struct Backlog {
    // Ordered as the tables' primary keys, so that one transaction writes adjacent rows.
    counts: BTreeMap<(KeyId, Hour, Verdict), u64>,
    uses: BTreeMap<(KeyId, Timestamp), Timestamp>,
}

impl Backlog {
    /// Merges usage into the backlog.
    pub(super) fn add(&mut self, usage: &TakenUsage) {
        let TakenUsage {
            key,
            secret,
            hour,
            counted,
            used_at,
        } = usage;
        if let Some((verdict, count)) = counted {
            *self.counts.entry((*key, *hour, *verdict)).or_default() += count;
        }
        let latest = self.uses.entry((*key, *secret)).or_insert(*used_at);
        *latest = (*used_at).max(*latest);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.uses.is_empty()
    }

    /// The sum of all counts.
    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The first rows, at most `max` of both tables together.
    pub(super) fn first(&self, max: usize) -> (Vec<KeyCount>, Vec<SecretUse>) {
        let counts = self.counts.iter().take(max);
        let counts: Vec<_> = counts
            .map(|((key, hour, verdict), count)| KeyCount {
                key: *key,
                hour: *hour,
                verdict: *verdict,
                count: *count,
            })
            .collect();
        let uses = self.uses.iter().take(max - counts.len());
        let uses = uses.map(|((key, secret), last_used_at)| SecretUse {
            key: *key,
            secret: *secret,
            last_used_at: *last_used_at,
        });
        (counts, uses.collect())
    }

    /// Removes rows that were written.
    pub(super) fn remove(&mut self, counts: &[KeyCount], uses: &[SecretUse]) {
        for row in counts {
            self.counts.remove(&(row.key, row.hour, row.verdict));
        }
        for row in uses {
            self.uses.remove(&(row.key, row.secret));
        }
    }
}
