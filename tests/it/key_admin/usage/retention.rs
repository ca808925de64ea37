//! What is told of deleted keys, and what is forgotten after the time to retain it.

use claviger::domain::clock::Clock;
use claviger::domain::ids::KeyId;
use claviger::pb::claviger::v1 as pb;
use claviger::readiness::Readiness;
use pb::Verdict;
use tonic::Code;

use super::{WRITE_OFTEN, await_allowed, counts, record, usage, usage_within};
use crate::fixtures::{
    DAY, Engine, NOW, SECOND, Service, TestStore, after, demo_realm, eventually, get, issue,
    issue_request, issue_request_with, on_both_engines, time,
};

on_both_engines! {
    /// Seen red with a tombstone that everybody may look at.
    async fn the_usage_of_a_deleted_key_is_told_to_those_who_reached_it(engine: Engine) {
        let service = Service::start_with(TestStore::on(engine), Clock::system(), "", &WRITE_OFTEN).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(pb::Realm { admin_scope: "admin".to_owned(), ..demo_realm() }).await;
        let admin = |new: &mut pb::IssueKeyRequest| new.scopes = vec!["admin".to_owned()];
        let (_, own) = issue(&mut root, issue_request_with(admin)).await.into_parts();
        let (_, staging) = issue(&mut root, issue_request_with(|new| {
            admin(new);
            "staging".clone_into(&mut new.environment);
        }))
        .await
        .into_parts();
        let (_, foreign) = issue(&mut root, issue_request_with(|new| {
            admin(new);
            "umbrella".clone_into(&mut new.partner);
        }))
        .await
        .into_parts();
        let (_, of_project) = issue(&mut root, issue_request_with(|new| {
            admin(new);
            new.level = pb::KeyLevel::Project.into();
            "one".clone_into(&mut new.project);
        }))
        .await
        .into_parts();
        let (id, plain_key) = issue(&mut root, issue_request()).await.into_parts();
        for _ in 0..3 {
            assert_eq!(root.verdict(&plain_key).await, Verdict::Allowed);
        }
        await_allowed(&mut root, &id, 3).await;
        let last = usage(&mut root, &id).await.last_used_time;
        root.delete(&id).await.unwrap();

        for caller in [&service.operator, &own] {
            let usage = usage(&mut service.api_as(caller), &id).await;
            assert_eq!(counts(&usage.totals)[&Verdict::Allowed], 3);
            assert_eq!((usage.last_used_time, last.is_some()), (last, true));
        }
        for caller in [staging, foreign, of_project] {
            let mut api = service.api_as(&caller);
            let gone = usage_within(&mut api, &id, None, None).await.unwrap_err();
            let never = KeyId::from_bytes([9; 16]).to_string();
            let unknown = usage_within(&mut api, &never, None, None).await.unwrap_err();
            assert_eq!((gone.code(), gone.message()), (Code::NotFound, unknown.message()));
        }
        service.stop().await;
    }

    /// The server looks for what is too old all the time. Seen red with `known` left out of `Store::forget_events`: the feed
    /// then misses the event that it knows, and the server calls the history rewritten.
    async fn what_is_too_old_is_forgotten_and_the_feed_goes_on(engine: Engine) {
        let clock = Clock::manual(NOW);
        let flags = [
            "--retain-events", "2d", "--retain-usage", "3d", "--retain-tombstones", "5d",
            "--retain-interval", "1ms", "--usage-interval", "10ms", "--poll-interval", "1h",
        ];
        let service = Service::start_with(TestStore::on(engine), clock.clone(), "", &flags).await;
        let mut api = service.api();
        api.make_demo().await;
        let (id, plain_key) = issue(&mut api, issue_request()).await.into_parts();
        // Not the very beginning, behind which the first changes are already.
        clock.set(after(SECOND));
        api.verdict(&plain_key).await;
        await_allowed(&mut api, &id, 1).await;
        let (gone, gone_key) = issue(&mut api, issue_request()).await.into_parts();
        api.verdict(&gone_key).await;
        await_allowed(&mut api, &gone, 1).await;
        api.delete(&gone).await.unwrap();
        let row = |number: u8, micros: i64| {
            let id = match engine {
                Engine::Sqlite => format!("x'{}'", format!("{number:02x}").repeat(16)),
                Engine::Postgres => format!("'{}'", KeyId::from_bytes([number; 16])),
            };
            let bytes = match engine {
                Engine::Sqlite => "x''",
                Engine::Postgres => "''",
            };
            format!(
                "INSERT INTO requests (actor, id, time, fingerprint, revision, result)
                 VALUES ({id}, {id}, {}, {bytes}, 1, '')",
                after(micros).as_micros()
            )
        };
        service.test_store.execute_sql(&[&row(1, 0), &row(2, 2 * DAY)]).await;
        let first = async || {
            let (count, first, last) = service.store.snapshot().await.unwrap().history().await.unwrap();
            assert_eq!(count, last.as_u64() - first.as_u64() + 1, "what is left has no gaps");
            (first.as_u64(), last.as_u64())
        };
        let (begin, last) = first().await;
        assert_eq!(begin, 1);

        // On the third day: the answers to old requests are gone, but nothing else is. The newest events follow each other and
        // all are old, so that only the last one stays.
        clock.set(after(3 * DAY));
        eventually("all events but the last are forgotten", async || {
            (first().await == (last, last)).then_some(())
        })
        .await;
        let whole = usage_within(&mut api, &id, time(-DAY), time(DAY)).await.unwrap();
        assert_eq!(counts(&whole.totals)[&Verdict::Allowed], 1, "three days are not over");

        clock.set(after(4 * DAY));
        eventually("the counts are forgotten", async || {
            let left = usage_within(&mut api, &id, time(-DAY), time(DAY)).await.unwrap();
            (left.totals.is_empty() && left.last_used_time == time(SECOND)).then_some(())
        })
        .await;
        let told = usage_within(&mut api, &gone, None, None).await.unwrap();
        assert_eq!(told.last_used_time, time(SECOND), "the tombstone stays for five days");

        clock.set(after(6 * DAY));
        eventually("the tombstone is forgotten", async || {
            let refused = usage_within(&mut api, &gone, None, None).await.err()?;
            (refused.code() == Code::NotFound).then_some(())
        })
        .await;
        let key_id = KeyId::parse(&gone).unwrap();
        let mut snapshot = service.store.snapshot().await.unwrap();
        assert_eq!(snapshot.last_use(key_id).await.unwrap(), None, "and with it its last use");
        drop(snapshot);
        // The feed has not heard of a change, when the event that it knows, and then also that of the change, grow old.
        for round in 1..=3 {
            clock.set(after((6 + 6 * round) * DAY));
            let change = service.store.change(clock.now()).await.unwrap();
            record(change, KeyId::parse(&id).unwrap()).await;
            sweep(&service).await;
            clock.set(after((9 + 6 * round) * DAY));
            sweep(&service).await;
            let (_, plain_key) = issue(&mut api, issue_request()).await.into_parts();
            assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed, "it came round");
            assert_eq!(*service.readiness.borrow(), Readiness::Ready);
        }
        assert_eq!(get(&mut api, &id).await.last_used_time, time(SECOND), "a key that is there is remembered");
        service.stop().await;
    }
}

/// Waits until all that is too old was looked for at least once more.
async fn sweep(service: &Service) {
    // Four accesses to the store each time; others come between them.
    let before = service.store.sessions();
    eventually("what is too old is looked for", async || {
        (service.store.sessions() > before + 40).then_some(())
    })
    .await;
}
