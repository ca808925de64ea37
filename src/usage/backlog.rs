//! What was drained off the recorder and is not written down yet.

use std::collections::BTreeMap;

use super::recorder::Drained;
use crate::domain::ids::KeyId;
use crate::domain::time::{Hour, Timestamp};
use crate::domain::verdict::Verdict;
use crate::store::{KeyCount, SecretUse};

/// Counts and times, each once: what comes later is merged into what waits.
#[derive(Default)]
pub(super) struct Backlog {
    // In the order of the tables' keys, so that rows that are written together lie together.
    counts: BTreeMap<(KeyId, Hour, Verdict), u64>,
    uses: BTreeMap<(KeyId, Timestamp), Timestamp>,
}

impl Backlog {
    pub(super) fn add(&mut self, drained: &Drained) {
        let Drained {
            key,
            secret,
            hour,
            counts,
            used_at,
        } = drained;
        for (verdict, count) in Verdict::PROVEN.into_iter().zip(counts) {
            if *count > 0 {
                *self.counts.entry((*key, *hour, verdict)).or_default() += u64::from(*count);
            }
        }
        if let Some(used_at) = used_at {
            let latest = self.uses.entry((*key, *secret)).or_insert(*used_at);
            *latest = (*used_at).max(*latest);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.uses.is_empty()
    }

    /// How often keys were presented, all in all.
    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The first rows, at most so many.
    pub(super) fn first(&self, most: usize) -> (Vec<KeyCount>, Vec<SecretUse>) {
        let counts = self.counts.iter().take(most);
        let counts: Vec<_> = counts
            .map(|((key, hour, verdict), count)| KeyCount {
                key: *key,
                hour: *hour,
                verdict: *verdict,
                count: *count,
            })
            .collect();
        let uses = self.uses.iter().take(most - counts.len());
        let uses = uses.map(|((key, secret), last_used_at)| SecretUse {
            key: *key,
            secret: *secret,
            last_used_at: *last_used_at,
        });
        (counts, uses.collect())
    }

    /// Forgets rows that were written down.
    pub(super) fn remove(&mut self, counts: &[KeyCount], uses: &[SecretUse]) {
        for row in counts {
            self.counts.remove(&(row.key, row.hour, row.verdict));
        }
        for row in uses {
            self.uses.remove(&(row.key, row.secret));
        }
    }
}
