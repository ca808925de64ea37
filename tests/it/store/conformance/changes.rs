//! Changes come one at a time, whole or not at all, and are numbered without gaps.

use std::collections::HashSet;
use std::time::Duration;

use claviger::domain::clock::ClockReading;
use claviger::domain::event::{EventKind, Revision, Subject};
use claviger::domain::ids::KeyId;
use claviger::domain::key::Key;
use claviger::store::{Error, EventFilter, Store};

use super::{
    DemoStore, about, all_keys, at, event, key, new_authority, partner, partner_id, realm,
    realm_id, record,
};
use crate::fixtures::{Engine, eventually, on_both_engines};

on_both_engines! {
    async fn a_store_is_founded_once(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        assert!(demo.store().create_authority(&new_authority()).await.unwrap().is_none());
        let head = demo.snapshot().await.head().await.unwrap().unwrap();
        assert_eq!((head.event.revision, head.clock), (Revision::from(1), at(2)));
        assert_eq!((head.seal, head.peppers), (vec![8; 32], vec![(1, vec![7; 32])]));
    }

    /// Seen red with the newest id taken in any case.
    async fn the_last_issue_before_a_time_is_told_also_after_the_clock_was_set_back(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let issued = async |time: i64, revision: u64| {
            let mut change = demo.change().await;
            let key = Key {
                id: KeyId::new(at(time), &[0; 10]),
                created_at: at(time),
                created_revision: Revision::from(revision),
                ..key(1)
            };
            change.insert_key(&key).await.unwrap();
            let subject = Subject { key: Some(key.id), ..about("demo") };
            record(change, EventKind::KeyIssued, subject).await;
        };
        let last_before = async |time: i64| {
            let mut snapshot = demo.snapshot().await;
            let last = snapshot.last_issue_before(at(time)).await.unwrap();
            last.map(Revision::as_u64)
        };
        demo.put(async |change| { change.put_realm(&realm("demo")).await.unwrap(); }).await;
        issued(1_000, 10).await;
        issued(9_000, 20).await;
        assert_eq!(last_before(1_000).await, None);
        assert_eq!(last_before(1_001).await, Some(10));
        assert_eq!(last_before(9_000).await, Some(10));
        assert_eq!(last_before(10_000).await, Some(20));

        // What was issued next has an earlier time.
        demo.store().mark_time(at(9_500)).await.unwrap();
        demo.store().reset_time(at(2_000)).await.unwrap();
        issued(3_000, 30).await;
        assert_eq!(last_before(2_000).await, Some(10));
        assert_eq!(last_before(4_000).await, Some(30));
        assert_eq!(last_before(10_000).await, Some(30), "not that of the newest id");
    }

    async fn a_founding_that_is_given_up_leaves_a_store_that_can_be_founded(engine: Engine) {
        let test_store = crate::fixtures::TestStore::on(engine);
        let opened = test_store.open().await;
        let store = &opened.store;
        drop(store.create_authority(&new_authority()).await.unwrap().unwrap());
        assert!(store.snapshot().await.unwrap().head().await.unwrap().is_none());
        assert!(store.create_authority(&new_authority()).await.unwrap().is_some());
    }

    async fn a_change_that_is_dropped_leaves_no_trace(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut change = demo.change().await;
        change.put_partner(&partner("acme")).await.unwrap();
        change.insert_key(&key(1)).await.unwrap();
        assert_eq!(change.revision(), Revision::from(2));
        drop(change);
        let next = demo.change().await;
        assert_eq!(next.revision(), Revision::from(2), "its number is the next one's");
        drop(next);
        let mut snapshot = demo.snapshot().await;
        assert_eq!(snapshot.revision().await.unwrap(), Revision::from(1));
        assert!(snapshot.all_partners().await.unwrap().is_empty());
        assert!(snapshot.list_keys(&all_keys(), Some).await.unwrap().items.is_empty());
    }

    async fn a_change_reads_what_it_has_written_and_nobody_else_does(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut change = demo.change().await;
        change.put_partner(&partner("acme")).await.unwrap();
        let (realm, acme) = (realm_id("demo"), partner_id("acme"));
        assert!(change.find_partner(&realm, &acme).await.unwrap().is_some());
        assert!(demo.snapshot().await.find_partner(&realm, &acme).await.unwrap().is_none());
        record(change, EventKind::PartnerPut, about("demo")).await;
        assert!(demo.snapshot().await.find_partner(&realm, &acme).await.unwrap().is_some());
    }

    async fn a_statement_that_fails_takes_its_change_along_and_nothing_else(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut change = demo.change().await;
        change.insert_key(&key(1)).await.unwrap();
        assert!(change.insert_key(&key(1)).await.is_err(), "an id is given once");
        drop(change);
        let mut change = demo.change().await;
        assert!(change.find_key(key(1).id).await.unwrap().is_none());
        assert!(change.put_realm(&realm("other")).await.is_ok());
        record(change, EventKind::RealmPut, about("other")).await;
        let mut change = demo.change().await;
        let mut same_prefix = realm("third");
        same_prefix.prefix = realm("other").prefix;
        assert!(change.put_realm(&same_prefix).await.is_err(), "a prefix is one realm's");
    }

    async fn there_is_one_change_at_a_time_and_each_begins_where_the_last_one_ended(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut first = demo.change().await;
        first.put_partner(&partner("acme")).await.unwrap();
        let before = demo.store().sessions();
        let store = demo.store().clone();
        let waiting = tokio::spawn(async move {
            let mut second = store.change(at(2)).await.unwrap();
            let seen = second.find_partner(&realm_id("demo"), &partner_id("acme")).await.unwrap();
            (second.revision(), seen.is_some())
        });
        eventually("the second has begun", async || (demo.store().sessions() > before).then_some(())).await;
        assert!(!waiting.is_finished());
        record(first, EventKind::PartnerPut, about("demo")).await;
        assert_eq!(waiting.await.unwrap(), (Revision::from(3), true));
    }

    async fn revisions_have_no_gaps_and_times_only_rise_under_many_writers(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let writers: Vec<_> = (0..16u8)
            .map(|writer| {
                let store = demo.store().clone();
                tokio::spawn(async move {
                    let mut made = Vec::new();
                    for step in 0..10 {
                        // The machine's clock runs wild.
                        let now = at(i64::from(writer) * 7 - step * 3);
                        let change = store.change(now).await.unwrap();
                        if (i64::from(writer) + step) % 4 == 0 {
                            continue;
                        }
                        let time = change.time();
                        made.push((record(change, EventKind::RealmPut, about("demo")).await, time));
                    }
                    made
                })
            })
            .collect();
        let mut made = Vec::new();
        for writer in writers {
            made.extend(writer.await.unwrap());
        }
        made.sort();
        let numbers: Vec<_> = made.iter().map(|(revision, _)| revision.as_u64()).collect();
        assert_eq!(numbers, (2..=made.len() as u64 + 1).collect::<Vec<_>>());
        assert!(made.is_sorted_by(|(_, early), (_, late)| early < late), "times rise with the numbers");
        let mut snapshot = demo.snapshot().await;
        let (events, first, last) = snapshot.history().await.unwrap();
        assert_eq!((first.as_u64(), last.as_u64()), (1, events));
        let entries = snapshot.feed(Revision::from(1), 1_000).await.unwrap();
        let stamps: HashSet<_> = entries.iter().map(|entry| entry.id.stamp).collect();
        assert_eq!(stamps.len() as u64, events, "each has a mark of its own");
    }

    /// Seen red with one stamp for all events of a statement, with `clock` left as it was in `advance_counter`, and without the
    /// assertion in `Change::commit`.
    async fn reserved_changes_are_changes_of_their_own_in_one_transaction(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        demo.store().mark_time(at(1_000)).await.unwrap();
        let mut change = demo.change().await;
        assert_eq!((change.revision(), change.time()), (Revision::from(2), at(1_001)));
        change.reserve(249).await.unwrap();
        for number in 0..249 {
            let expected = (Revision::from(2 + number), at(1_001 + number as i64));
            assert_eq!((change.revision(), change.time()), expected);
            let event = event(&change, EventKind::RealmPut, about("demo"));
            change.start_next(event).await.unwrap();
        }
        assert_eq!(demo.snapshot().await.revision().await.unwrap(), Revision::from(1));
        assert_eq!(record(change, EventKind::RealmPut, about("demo")).await, Revision::from(251));
        let next = demo.change().await;
        assert_eq!((next.revision(), next.time()), (Revision::from(252), at(1_251)));
        drop(next);

        let mut snapshot = demo.snapshot().await;
        let entries = snapshot.feed(Revision::from(1), 1_000).await.unwrap();
        let revisions: Vec<_> = entries.iter().map(|entry| entry.id.revision.as_u64()).collect();
        assert_eq!(revisions, (1..=251).collect::<Vec<_>>());
        let stamps: HashSet<_> = entries.iter().map(|entry| entry.id.stamp).collect();
        assert_eq!(stamps.len(), 251, "each has a mark of its own");
        let filter = EventFilter { limit: 250, ..Default::default() };
        let events = snapshot.list_events(&filter, Some).await.unwrap().items;
        let times: Vec<_> = events.iter().rev().map(|event| event.time).collect();
        assert_eq!(times, (1_001..=1_250).map(at).collect::<Vec<_>>());
        drop(snapshot);

        // A revision without an event would be a gap.
        let mut change = demo.change().await;
        change.reserve(1).await.unwrap();
        let committed = tokio::spawn(record(change, EventKind::RealmPut, about("demo")));
        assert!(committed.await.unwrap_err().is_panic());
        let next = demo.change().await;
        assert_eq!(next.revision(), Revision::from(252));
    }

    /// Seen red without the condition on tombstones in `Change::insert_keys`.
    async fn no_key_of_many_gets_the_id_of_a_deleted_one(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let keys: Vec<_> = (1..=150).map(key).collect();
        let deleted = key(120).id;
        demo.put(async |change| {
            change.insert_key(&key(120)).await.unwrap();
            change.delete_key(deleted).await.unwrap();
        }).await;
        let mut change = demo.change().await;
        let refused = change.insert_keys(&keys.iter().collect::<Vec<_>>()).await.unwrap_err();
        assert!(matches!(refused, Error::IdTaken(id) if id == deleted), "{refused}");
        drop(change);
        let others: Vec<_> = keys.iter().filter(|key| key.id != deleted).collect();
        demo.put(async |change| change.insert_keys(&others).await.unwrap()).await;
        assert_eq!(demo.snapshot().await.count_all_keys().await.unwrap(), 149);
    }

    /// Seen red on PostgreSQL with READ COMMITTED for snapshots.
    async fn a_snapshot_is_one_state_while_changes_commit(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        for mut snapshot in [demo.snapshot().await, demo.store().feed_snapshot().await.unwrap()] {
            let before = snapshot.revision().await.unwrap();
            for id in ["one", "two"] {
                demo.put(async |change| change.put_partner(&partner(id)).await.unwrap()).await;
            }
            assert_eq!(snapshot.revision().await.unwrap(), before);
            assert!(snapshot.find_partner(&realm_id("demo"), &partner_id("one")).await.unwrap().is_none());
            assert_eq!(snapshot.head().await.unwrap().unwrap().event.revision, before);
            drop(snapshot);
            assert_eq!(demo.snapshot().await.revision().await.unwrap().as_u64(), before.as_u64() + 2);
            demo.put(async |change| {
                for id in ["one", "two"] {
                    change.delete_partner(&realm_id("demo"), &partner_id(id)).await.unwrap();
                }
            }).await;
        }
    }

    /// Seen red with the feed's snapshots taken from where lists take theirs.
    async fn open_lists_keep_neither_the_feed_nor_a_change_waiting(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut lists = Vec::new();
        for _ in 0..Store::READERS {
            let mut list = demo.snapshot().await;
            list.revision().await.unwrap();
            lists.push(list);
        }
        let busy = tokio::time::timeout(Duration::from_millis(50), demo.store().snapshot());
        assert!(busy.await.is_err(), "no other list can begin");
        let revision = demo.put(async |change| change.put_partner(&partner("acme")).await.unwrap()).await;
        let mut feed = demo.store().feed_snapshot().await.unwrap();
        assert_eq!(feed.revision().await.unwrap(), revision);
    }

    /// A server that did not know it yet would raise the time again. Seen red with a counter and a mark that take every time.
    async fn a_time_from_before_the_time_was_set_does_not_count(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        let setting = store.reset_time(at(10)).await.unwrap();
        let reading = |micros, setting| ClockReading { time: at(micros), setting: Some(setting) };
        let old = reading(1_000, setting - 1);
        assert_eq!(store.change(old).await.unwrap().time(), at(11));
        store.mark_time(old).await.unwrap();
        assert_eq!(demo.snapshot().await.head().await.unwrap().unwrap().clock, at(10));
        assert_eq!(store.change(reading(500, setting)).await.unwrap().time(), at(500));
    }

    async fn the_time_is_marked_forwards_and_set_back_only_on_purpose(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let store = demo.store();
        store.mark_time(at(1_000)).await.unwrap();
        store.mark_time(at(500)).await.unwrap();
        assert_eq!(demo.snapshot().await.head().await.unwrap().unwrap().clock, at(1_000));
        assert_eq!(demo.change().await.time(), at(1_001), "later than the latest ever seen");
        store.reset_time(at(10)).await.unwrap();
        assert_eq!(demo.change().await.time(), at(11));
    }

    async fn what_was_committed_is_there_after_it_is_opened_again(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let revision = demo.put(async |change| change.insert_key(&key(1)).await.unwrap()).await;
        let DemoStore { test_store, opened } = demo;
        opened.store.close().await;
        drop(opened);
        let opened = test_store.open().await;
        assert_eq!(opened.store.schema().found, opened.store.schema().now, "no step is made twice");
        let mut snapshot = opened.store.snapshot().await.unwrap();
        assert_eq!(snapshot.revision().await.unwrap(), revision);
        assert_eq!(snapshot.find_key(key(1).id).await.unwrap(), Some(key(1)));
    }
}
