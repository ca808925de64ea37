//! The usage of owners is the sum of that of their keys, of those that were deleted too.

use std::collections::{BTreeMap, BTreeSet};

use claviger::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId};
use claviger::domain::key::{Key, Level};
use claviger::domain::time::Hour;
use claviger::domain::verdict::Verdict;
use claviger::store::{
    HourCount, KeyCount, KeyOwner, MoreRows, OwnerCounts, RankBy, UsageFilter, UsageRanking,
    UsageReport, UsedKey,
};

use super::{DemoStore, key, partner_id, project_id, realm, realm_id};
use crate::fixtures::{Engine, Random, from_env, on_both_engines};

const PARTNERS: [&str; 3] = ["acme", "umbrella", "zeta"];
const PROJECTS: [&str; 2] = ["one", "two"];
const ENVIRONMENTS: [&str; 2] = ["production", "staging"];
const VERDICTS: [Verdict; 3] = [Verdict::Allowed, Verdict::Revoked, Verdict::ScopeMissing];

fn environment(name: &str) -> EnvironmentName {
    EnvironmentName::parse(name).unwrap()
}

/// Keys of each owner in each environment. A project has its partner's name in its own.
fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    for partner in PARTNERS {
        for name in ENVIRONMENTS {
            let projects = PROJECTS.map(|project| Some(format!("{partner}-{project}")));
            for project in projects.into_iter().chain([None]) {
                keys.push(Key {
                    partner: partner_id(partner),
                    level: project.map_or(Level::Partner, |project| {
                        Level::Project(project_id(&project))
                    }),
                    environment: environment(name),
                    ..key(keys.len() as u8 + 1)
                });
            }
        }
    }
    keys
}

/// What the store must say, from all counts that were added.
struct Model<'m> {
    keys: &'m BTreeMap<KeyId, Key>,
    counts: &'m [KeyCount],
}

impl Model<'_> {
    fn matching(&self, filter: &UsageFilter) -> impl Iterator<Item = (&Key, &KeyCount)> {
        let is_or_any =
            |wanted: Option<&str>, is: Option<&str>| wanted.is_none_or(|_| wanted == is);
        self.counts
            .iter()
            .map(|count| (&self.keys[&count.key], count))
            .filter(move |(key, count)| {
                filter.hours.contains(&count.hour)
                    && key.realm == filter.realm
                    && is_or_any(
                        filter.partner.as_ref().map(PartnerId::as_str),
                        Some(key.partner.as_str()),
                    )
                    && is_or_any(
                        filter.project.as_ref().map(ProjectId::as_str),
                        key.level.project().map(ProjectId::as_str),
                    )
                    && is_or_any(
                        filter.environment.as_ref().map(EnvironmentName::as_str),
                        Some(key.environment.as_str()),
                    )
            })
    }

    fn by_hour(&self, filter: &UsageFilter) -> Vec<HourCount> {
        let mut sums = BTreeMap::new();
        for (_, count) in self.matching(filter) {
            *sums.entry((count.hour, count.verdict)).or_insert(0) += count.count;
        }
        let count = |((hour, verdict), count)| HourCount {
            hour,
            verdict,
            count,
        };
        sums.into_iter().map(count).collect()
    }

    fn owners(&self, filter: &UsageFilter, ranking: UsageRanking) -> Vec<OwnerCounts> {
        let is_by_project = filter.partner.is_some() || filter.project.is_some();
        let mut sums: BTreeMap<KeyOwner, BTreeMap<Verdict, u64>> = BTreeMap::new();
        for (key, count) in self.matching(filter) {
            let owner = KeyOwner {
                partner: key.partner.clone(),
                project: key.level.project().cloned().filter(|_| is_by_project),
            };
            *sums
                .entry(owner)
                .or_default()
                .entry(count.verdict)
                .or_default() += count.count;
        }
        let mut owners: Vec<_> = sums
            .into_iter()
            .map(|(owner, counts)| OwnerCounts {
                owner,
                counts: counts.into_iter().collect(),
            })
            .collect();
        rank(&mut owners, |owner| &owner.counts, ranking);
        owners
    }

    /// The keys that exist.
    fn keys(
        &self,
        filter: &UsageFilter,
        ranking: UsageRanking,
        deleted: &BTreeSet<KeyId>,
    ) -> Vec<UsedKey> {
        let mut sums: BTreeMap<KeyId, BTreeMap<Verdict, u64>> = BTreeMap::new();
        let matching = self.matching(filter);
        for (key, count) in matching.filter(|(key, _)| !deleted.contains(&key.id)) {
            *sums
                .entry(key.id)
                .or_default()
                .entry(count.verdict)
                .or_default() += count.count;
        }
        let mut keys: Vec<_> = sums
            .into_iter()
            .map(|(id, counts)| UsedKey {
                id,
                key: Some(self.keys[&id].clone()),
                counts: counts.into_iter().collect(),
            })
            .collect();
        rank(&mut keys, |key| &key.counts, ranking);
        keys
    }
}

/// Sorts what has these counts, and leaves out what does not rank.
fn rank<T>(ranked: &mut Vec<T>, counts: fn(&T) -> &[(Verdict, u64)], ranking: UsageRanking) {
    let sum = |item: &T| {
        let counts = counts(item).iter();
        let counted = counts.filter(|(verdict, _)| {
            ranking.by == RankBy::Presentations || *verdict != Verdict::Allowed
        });
        counted.map(|(_, count)| count).sum::<u64>()
    };
    ranked.retain(|item| sum(item) > 0);
    // Stable, so that what has the same sum stays in the order of the names.
    ranked.sort_by_key(|item| std::cmp::Reverse(sum(item)));
    ranked.truncate(ranking.top as usize);
}

fn by(by: RankBy, top: u32) -> UsageRanking {
    UsageRanking {
        by,
        top,
        with_keys: true,
    }
}

fn filters() -> Vec<UsageFilter> {
    let none = || std::iter::once(None);
    let mut filters = Vec::new();
    for partner in none().chain(PARTNERS.map(Some)).chain([Some("nobody")]) {
        for project in none().chain([Some("acme-one"), Some("umbrella-two")]) {
            for name in none().chain(ENVIRONMENTS.map(Some)) {
                for hours in [5..7, 6..9, 0..4] {
                    filters.push(UsageFilter {
                        realm: realm_id("demo"),
                        partner: partner.map(partner_id),
                        project: project.map(project_id),
                        environment: name.map(environment),
                        hours: Hour::from_number(hours.start)..Hour::from_number(hours.end),
                    });
                }
            }
        }
    }
    filters
}

fn sorted(mut counts: Vec<HourCount>) -> Vec<HourCount> {
    counts.sort_by_key(|count| (count.hour, count.verdict));
    counts
}

fn sorted_verdicts(mut owners: Vec<OwnerCounts>) -> Vec<OwnerCounts> {
    for owner in &mut owners {
        owner.counts.sort_unstable();
    }
    owners
}

on_both_engines! {
    /// Seen red without the tombstones, with `count = excluded.count`, and with keys of every owner.
    async fn the_usage_of_owners_is_that_of_their_keys(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        let keys: BTreeMap<_, _> = keys().into_iter().map(|key| (key.id, key)).collect();
        demo.put(async |change| {
            change.put_realm(&realm("other")).await.unwrap();
            for key in keys.values() {
                change.insert_key(key).await.unwrap();
            }
        }).await;
        let seed = from_env("CLAVIGER_TEST_SEED", 16);
        let mut random = Random(seed as u64);
        let mut added: Vec<KeyCount> = Vec::new();
        let mut deleted = BTreeSet::new();
        for round in 0..6 {
            let rows: BTreeSet<_> = (0..60)
                .map(|_| {
                    let key = random.below(keys.len());
                    (key, 5 + random.below(3) as i64, random.below(VERDICTS.len()))
                })
                .collect();
            let counts: Vec<_> = rows
                .into_iter()
                .map(|(key, hour, verdict)| KeyCount {
                    key: *keys.keys().nth(key).unwrap(),
                    hour: Hour::from_number(hour),
                    verdict: VERDICTS[verdict],
                    count: 1 + random.below(99) as u64,
                })
                .collect();
            store.add_usage(&counts, &[]).await.unwrap();
            added.extend(counts);
            // The keys of later rounds are partly deleted.
            let gone = keys.keys().nth(round).unwrap();
            demo.put(async |change| change.delete_key(*gone).await.unwrap()).await;
            deleted.insert(*gone);
        }
        let model = Model { keys: &keys, counts: &added };
        let mut snapshot = demo.snapshot().await;
        for filter in filters() {
            for ranking in [
                by(RankBy::Presentations, 1),
                by(RankBy::Denials, 2),
                by(RankBy::Presentations, 100),
                by(RankBy::Denials, 100),
            ] {
                let usage = snapshot.ranked_usage(&filter, ranking).await.unwrap();
                let what = format!("{filter:?} {ranking:?} seed {seed}");
                assert_eq!(sorted(usage.counts), sorted(model.by_hour(&filter)), "{what}");
                let expected = sorted_verdicts(model.owners(&filter, ranking));
                assert_eq!(sorted_verdicts(usage.owners), expected, "{what}");
                let mut keys = usage.keys;
                for key in &mut keys {
                    key.counts.sort_unstable();
                }
                assert_eq!(keys, model.keys(&filter, ranking, &deleted), "{what}");
            }
        }
        let elsewhere = UsageFilter { realm: realm_id("other"), ..filters().remove(0) };
        let nothing = snapshot.ranked_usage(&elsewhere, by(RankBy::Presentations, 9)).await.unwrap();
        assert_eq!(nothing, UsageReport::default());
    }

    async fn the_usage_of_a_key_that_nobody_owns_is_that_of_no_owner(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let count = KeyCount {
            key: key(9).id,
            hour: Hour::from_number(5),
            verdict: Verdict::Allowed,
            count: 3,
        };
        demo.store().add_usage(&[count], &[]).await.unwrap();
        let filter = filters().remove(0);
        let usage = demo.snapshot().await.ranked_usage(&filter, by(RankBy::Presentations, 9)).await.unwrap();
        assert_eq!(usage, UsageReport::default());
    }

    /// Seen red without the statement for owners.
    async fn the_usage_of_owners_is_forgotten_with_that_of_keys(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        demo.put(async |change| change.insert_key(&key(1)).await.unwrap()).await;
        let count = |hour| KeyCount {
            key: key(1).id,
            hour: Hour::from_number(hour),
            verdict: Verdict::Allowed,
            count: 3,
        };
        store.add_usage(&[count(5), count(6)], &[]).await.unwrap();
        assert_eq!(store.forget_counts(Hour::from_number(6)).await.unwrap(), MoreRows(false));
        let ranking = UsageRanking { with_keys: false, ..by(RankBy::Presentations, 9) };
        let left = demo.snapshot().await.ranked_usage(&filters().remove(0), ranking).await.unwrap();
        assert_eq!(left.keys, [], "not wanted");
        let hours: Vec<_> = left.counts.iter().map(|count| count.hour).collect();
        assert_eq!(hours, [Hour::from_number(6)]);
    }
}
