//! How keys are used is added up, and what is too old is forgotten from its beginning on.

use claviger::domain::event::{EventKind, Revision};
use claviger::domain::ids::{KeyId, PartnerId};
use claviger::domain::key::Key;
use claviger::domain::last_use::{LastUse, RecordedAddress};
use claviger::domain::time::{Hour, Timestamp};
use claviger::domain::verdict::Verdict;
use claviger::store::{
    AddressCursor, Error, HourCount, KeyCount, KeyFilter, MoreRows, SecretUse, Tombstone,
};

use super::{DemoStore, about, all_keys, at, key, partner_id, project_id, realm_id, record};
use crate::fixtures::{Engine, on_both_engines};

const FOR_EVER: std::ops::Range<Hour> = Hour::from_number(0)..Hour::from_number(1_000_000);

fn counted(number: u8, hour: i64, verdict: Verdict, count: u64) -> KeyCount {
    KeyCount {
        key: key(number).id,
        hour: Hour::from_number(hour),
        verdict,
        count,
    }
}

fn hour_count(hour: i64, verdict: Verdict, count: u64) -> HourCount {
    HourCount {
        hour: Hour::from_number(hour),
        verdict,
        count,
    }
}

fn used(number: u8, secret: i64, last_used_at: i64) -> SecretUse {
    SecretUse {
        key: key(number).id,
        secret: at(secret),
        last: LastUse {
            at: at(last_used_at),
            address: None,
        },
    }
}

fn used_from(number: u8, secret: i64, last_used_at: i64, address: &str) -> SecretUse {
    let mut used = used(number, secret, last_used_at);
    used.last.address = RecordedAddress::of(address.parse().unwrap());
    used
}

/// An id that stands for a number too large for one byte.
fn id(number: u32) -> KeyId {
    let mut bytes = [1; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    KeyId::from_bytes(bytes)
}

impl DemoStore {
    async fn first_event(&self) -> Revision {
        let (count, first, last) = self.snapshot().await.history().await.unwrap();
        assert_eq!(count, last.as_u64() - first.as_u64() + 1, "there is no gap");
        first
    }

    async fn find(&self, number: u8) -> Key {
        let mut snapshot = self.snapshot().await;
        let mut found = snapshot.find_key(key(number).id).await.unwrap().unwrap();
        let found_alone = std::slice::from_mut(&mut found);
        snapshot.set_last_uses(found_alone).await.unwrap();
        found
    }
}

on_both_engines! {
    /// Seen red with `count = excluded.count`, and without the WHERE of the times.
    async fn counts_add_up_and_times_only_rise(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        store.add_usage(&[], &[]).await.unwrap();
        let each: Vec<_> = Verdict::PROVEN.iter().copied().zip(1..).collect();
        for _ in 0..3 {
            let counts: Vec<_> = each.iter().map(|(verdict, count)| counted(1, 5, *verdict, *count)).collect();
            store.add_usage(&counts, &[]).await.unwrap();
        }
        let later = [counted(1, 6, Verdict::Allowed, 7), counted(2, 5, Verdict::Allowed, 9)];
        store.add_usage(&later, &[used(1, 1, 50), used(1, 2, 70)]).await.unwrap();
        store.add_usage(&[], &[used(1, 1, 80), used(1, 2, 60)]).await.unwrap();
        let mut snapshot = demo.snapshot().await;
        let mut counts = snapshot.key_counts(key(1).id, FOR_EVER).await.unwrap();
        counts.sort_by_key(|count| (count.hour, count.verdict));
        let mut expected: Vec<_> =
            each.iter().map(|(verdict, count)| hour_count(5, *verdict, 3 * count)).collect();
        expected.push(hour_count(6, Verdict::Allowed, 7));
        assert_eq!(counts, expected);
        let one_hour = Hour::from_number(6)..Hour::from_number(7);
        assert_eq!(snapshot.key_counts(key(1).id, one_hour).await.unwrap(), expected[each.len()..]);
        assert_eq!(snapshot.last_use(key(1).id).await.unwrap(), Some(at(80)));
        drop(snapshot);
        store.add_usage(&[], &[used(1, 1, 79)]).await.unwrap();
        let mut snapshot = demo.snapshot().await;
        assert_eq!(snapshot.last_use(key(1).id).await.unwrap(), Some(at(80)));
        assert_eq!(snapshot.last_use(key(2).id).await.unwrap(), None);
        assert_eq!(snapshot.revision().await.unwrap(), Revision::from(1), "it is no change");
    }

    async fn a_thousand_rows_of_each_kind_are_written_at_once(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let counts: Vec<_> = (0..1_000)
            .map(|number| KeyCount { key: id(number), ..counted(0, 5, Verdict::Allowed, 2) })
            .collect();
        let uses: Vec<_> =
            (0..1_000).map(|number| SecretUse { key: id(number), ..used(0, 1, 9) }).collect();
        for _ in 0..2 {
            demo.store().add_usage(&counts, &uses).await.unwrap();
        }
        let mut snapshot = demo.snapshot().await;
        for number in [0, 999] {
            let counts = snapshot.key_counts(id(number), FOR_EVER).await.unwrap();
            assert_eq!(counts[0].count, 4);
            assert_eq!(snapshot.last_use(id(number)).await.unwrap(), Some(at(9)));
        }
    }

    /// Seen red without the address of the later use in the statement.
    async fn a_later_use_without_an_address_takes_the_address_away(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        demo.put(async |change| change.insert_key(&key(1)).await.unwrap()).await;
        for (use_, is_known) in [
            (used_from(1, 1, 30, "203.0.113.9"), true),
            (used(1, 1, 40), false),
            (used_from(1, 1, 50, "203.0.113.9"), true),
        ] {
            demo.store().add_usage(&[], &[use_]).await.unwrap();
            let last = demo.find(1).await.last_use.unwrap();
            assert_eq!(last.address.is_some(), is_known, "{last:?}");
        }
    }

    /// Seen red without the condition on the realm.
    async fn addresses_that_are_not_recorded_any_more_are_forgotten(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        demo.put(async |change| {
            for number in 1..=2 {
                change.insert_key(&key(number)).await.unwrap();
            }
        }).await;
        let many: Vec<_> = (0..1_500)
            .map(|number| SecretUse { key: id(number), ..used_from(1, 1, 30, "203.0.113.9") })
            .chain([used_from(1, 1, 30, "203.0.113.9"), used_from(1, 2, 40, "203.0.113.9"), used(2, 1, 30)])
            .collect();
        for some in many.chunks(1_000) {
            store.add_usage(&[], some).await.unwrap();
        }
        let forget = async |records: bool| {
            let (mut place, mut looks) = (AddressCursor::default(), 0);
            while let Some(next) = store.forget_addresses(place, |realm| records && realm == "demo").await.unwrap() {
                place = next;
                looks += 1;
            }
            looks
        };
        let addresses = async || {
            let key = demo.find(1).await;
            [key.last_use, key.secrets[0].last_use].map(|last| last.unwrap().address.is_some())
        };
        // Those of keys that are not there, and none of a key that is.
        assert_eq!(forget(true).await, 2);
        assert_eq!(addresses().await, [true, true]);
        assert_eq!(forget(true).await, 1, "only that of the key is left");
        assert_eq!(forget(false).await, 1);
        assert_eq!(addresses().await, [false, false]);
        assert_eq!(forget(false).await, 0);
        assert_eq!(demo.find(1).await.last_use.unwrap().at, at(40), "the time stays");
    }

    async fn keys_tell_their_own_last_use_and_that_of_each_secret(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut two = key(2);
        two.secrets.push(two.secrets[0].clone());
        two.secrets[1].created_at = at(5);
        demo.put(async |change| {
            for key in [&key(1), &two, &key(3)] {
                change.insert_key(key).await.unwrap();
            }
        }).await;
        // Of the second key also the use of a secret that is gone.
        let uses = [
            used_from(1, 1, 30, "203.0.113.9"),
            used_from(2, 5, 40, "203.0.113.10"),
            used_from(2, 3, 60, "2001:db8:1:2:3::4"),
            used(2, 1, 20),
        ];
        demo.store().add_usage(&[], &uses).await.unwrap();
        // Earlier uses change nothing.
        let earlier = [used(1, 1, 29), used_from(2, 5, 40, "198.51.100.1")];
        demo.store().add_usage(&[], &earlier).await.unwrap();
        let last = |last: Option<LastUse>| {
            last.map(|last| (last.at, last.address.map(|address| address.to_string())))
        };
        let told = |key: &Key| {
            let secrets = key.secrets.iter().map(|secret| last(secret.last_use));
            (last(key.last_use), secrets.collect::<Vec<_>>())
        };
        let from = |micros, address: &str| Some((at(micros), Some(address.to_owned())));
        let listed = demo.snapshot().await.list_keys(&all_keys(), Some).await.unwrap().items;
        for (number, listed, expected) in [
            (1, &listed[2], (from(30, "203.0.113.9"), vec![from(30, "203.0.113.9")])),
            (2, &listed[1], (
                from(60, "2001:db8:1:2::/64"),
                vec![Some((at(20), None)), from(40, "203.0.113.10")],
            )),
            (3, &listed[0], (None, vec![None])),
        ] {
            assert_eq!(told(listed), expected, "{number}");
            assert_eq!(told(&demo.find(number).await), expected, "{number}");
        }
        // It is no part of what is stored of a key.
        let mut found = demo.find(1).await;
        demo.put(async |change| change.update_key(&mut found).await.unwrap()).await;
        assert_eq!(told(&demo.find(1).await), told(&found));
    }

    async fn unused_keys_are_those_that_are_older_and_were_not_used_since(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let unused = |micros| KeyFilter {
            unused_for: Some(std::time::Duration::from_micros(micros)),
            now: at(100),
            ..all_keys()
        };
        demo.put(async |change| {
            for (number, made) in [(1, 10), (2, 10), (3, 90)] {
                change.insert_key(&Key { created_at: at(made), ..key(number) }).await.unwrap();
            }
        }).await;
        demo.store().add_usage(&[], &[used(1, 1, 20), used(1, 2, 50)]).await.unwrap();
        for (micros, expected) in [
            (1, vec![3, 2, 1]),
            (10, vec![2, 1]),
            (49, vec![2, 1]),
            (50, vec![2]),
            (89, vec![2]),
            (90, vec![]),
            (u64::MAX, vec![]),
        ] {
            let page = demo.snapshot().await.list_keys(&unused(micros), Some).await.unwrap();
            let found: Vec<_> = page.items.iter().map(|key| key.id.as_bytes()[0]).collect();
            assert_eq!(found, expected, "{micros}");
        }
    }

    /// Seen red with a plain INSERT in `Change::insert_keys`.
    async fn a_deleted_key_leaves_whose_it_was_and_its_id_to_nobody(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut bound = key(1);
        bound.level = claviger::domain::key::Level::Project(project_id("web"));
        let mut operators = key(2);
        operators.realm = claviger::domain::ids::RealmId::built_in();
        operators.partner = PartnerId::nobody();
        demo.put(async |change| {
            for key in [&bound, &operators] {
                change.insert_key(key).await.unwrap();
                change.delete_key(key.id).await.unwrap();
            }
        }).await;
        let mut snapshot = demo.snapshot().await;
        let left = snapshot.find_tombstone(bound.id).await.unwrap();
        assert_eq!(left, Some(Tombstone {
            realm: realm_id("demo"),
            partner: partner_id("acme"),
            project: Some(project_id("web")),
            environment: bound.environment.clone(),
        }));
        let left = snapshot.find_tombstone(operators.id).await.unwrap().unwrap();
        assert_eq!((left.partner, left.project), (PartnerId::nobody(), None));
        assert_eq!(snapshot.find_tombstone(key(3).id).await.unwrap(), None);
        drop(snapshot);

        let mut change = demo.change().await;
        let refused = change.insert_key(&bound).await.unwrap_err();
        assert!(matches!(refused, Error::IdTaken(id) if id == bound.id), "{refused}");
        drop(change);
        demo.put(async |change| change.insert_key(&key(3)).await.unwrap()).await;
    }

    async fn a_key_of_which_nothing_can_be_read_can_be_deleted(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        demo.put(async |change| change.insert_key(&key(1)).await.unwrap()).await;
        demo.test_store.execute_sql(&["UPDATE keys SET facts = '{}'"]).await;
        demo.put(async |change| change.delete_key(key(1).id).await.unwrap()).await;
        let mut snapshot = demo.snapshot().await;
        assert!(snapshot.find_key_row(key(1).id).await.unwrap().is_none());
        assert_eq!(snapshot.find_tombstone(key(1).id).await.unwrap(), None, "nobody knows whose it was");
    }

    /// Both bounds one by one. Seen red without either: `known` left out of the condition, and `pair[0]` for `pair[1]`.
    async fn events_are_forgotten_from_the_oldest_on_and_never_what_a_feed_may_ask_for(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        let newest = Revision::from(u64::MAX);
        // At the times 10, 20, …, 50, after the first one at 2.
        for time in 1..=5 {
            let change = store.change(at(time * 10)).await.unwrap();
            record(change, EventKind::RealmPut, about("demo")).await;
        }
        for (before, known, first) in [
            (at(0), newest, 1),
            (at(1_000), Revision::from(1), 1),
            // The second is at 10, which is not before 10; what follows it is not old either.
            (at(10), newest, 1),
            (at(11), newest, 2),
            (at(20), newest, 2),
            (at(1_000), Revision::from(4), 4),
            (at(40), newest, 4),
            (at(50), newest, 5),
            (at(1_000), newest, 6),
            (Timestamp::MAX, newest, 6),
        ] {
            assert_eq!(store.forget_events(before, known).await.unwrap(), MoreRows(false));
            assert_eq!(demo.first_event().await, Revision::from(first), "{before:?} {known}");
        }
        assert_eq!(demo.snapshot().await.head().await.unwrap().unwrap().event.revision, Revision::from(6));
    }

    async fn a_time_that_was_set_back_leaves_no_gap(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        for time in [1_000, 10, 20] {
            store.reset_time(at(time)).await.unwrap();
            let change = store.change(at(time)).await.unwrap();
            record(change, EventKind::RealmPut, about("demo")).await;
        }
        store.forget_events(at(500), Revision::from(u64::MAX)).await.unwrap();
        assert_eq!(demo.first_event().await, Revision::from(1), "what is old stands behind what is not");
    }

    async fn what_is_too_old_goes_a_thousand_rows_at_a_time(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        for some in 0..3 {
            let numbers = some * 500..(some + 1) * 500;
            let counts: Vec<_> = numbers
                .map(|number| KeyCount { key: id(number), ..counted(0, 5, Verdict::Allowed, 1) })
                .collect();
            store.add_usage(&counts, &[]).await.unwrap();
        }
        store.add_usage(&[counted(1, 6, Verdict::Allowed, 1)], &[]).await.unwrap();
        let before = Hour::from_number(6);
        assert_eq!(store.forget_counts(Hour::from_number(5)).await.unwrap(), MoreRows(false));
        assert_eq!(store.forget_counts(before).await.unwrap(), MoreRows(true));
        assert_eq!(store.forget_counts(before).await.unwrap(), MoreRows(false));
        let mut snapshot = demo.snapshot().await;
        for number in [0, 700, 1_499] {
            assert_eq!(snapshot.key_counts(id(number), FOR_EVER).await.unwrap(), []);
        }
        assert_eq!(snapshot.key_counts(key(1).id, FOR_EVER).await.unwrap().len(), 1);
    }

    async fn a_tombstone_takes_the_last_uses_along_and_only_those(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        demo.put(async |change| {
            for number in 1..=3 {
                change.insert_key(&key(number)).await.unwrap();
            }
        }).await;
        store.add_usage(&[], &[used(1, 1, 30), used(1, 2, 30), used(2, 1, 30), used(3, 1, 30)]).await.unwrap();
        for (number, time) in [(1, 40), (2, 50)] {
            let mut change = store.change(at(time)).await.unwrap();
            change.delete_key(key(number).id).await.unwrap();
            record(change, EventKind::RealmPut, about("demo")).await;
        }
        assert_eq!(store.forget_tombstones(at(50)).await.unwrap(), MoreRows(false));
        let mut snapshot = demo.snapshot().await;
        for (number, is_there, use_is_there) in [(1, false, false), (2, true, true), (3, false, true)] {
            let id = key(number).id;
            assert_eq!(snapshot.find_tombstone(id).await.unwrap().is_some(), is_there, "{number}");
            assert_eq!(snapshot.last_use(id).await.unwrap().is_some(), use_is_there, "{number}");
        }
    }
}
