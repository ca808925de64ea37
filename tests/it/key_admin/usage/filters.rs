//! Lists of keys by their last use and their expiry.

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use tonic::Code;

use super::{WRITE_OFTEN, await_allowed, await_uses};
use crate::fixtures::{
    Api, DAY, DemoService, Engine, HOUR, MINUTE, NOW, Service, TestStore, after, issue,
    issue_request, issue_request_with, list_keys, on_both_engines, refused_field, seconds, time,
};

on_both_engines! {
    async fn keys_are_found_by_what_they_were_not_used_for_and_when_they_end(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(TestStore::on(engine), clock.clone(), "", &WRITE_OFTEN).await;
        let mut api = service.api();
        api.make_demo().await;
        let (never, _) = issue(&mut api, issue_request_with(|new| new.expire_time = time(40 * DAY))).await.into_parts();
        let (long_ago, old_key) = issue(&mut api, issue_request()).await.into_parts();
        let (lately, new_key) = issue(&mut api, issue_request_with(|new| new.expire_time = time(13 * DAY))).await.into_parts();
        let (over, _) = issue(&mut api, issue_request_with(|new| new.expire_time = time(5 * DAY))).await.into_parts();
        clock.set(after(DAY));
        api.verdict(&old_key).await;
        await_allowed(&mut api, &long_ago, 1).await;
        clock.set(after(8 * DAY));
        api.verdict(&new_key).await;
        await_allowed(&mut api, &lately, 1).await;
        let (young, _) = issue(&mut api, issue_request()).await.into_parts();
        clock.set(after(10 * DAY));

        for (unused_for, expected) in [
            (seconds(86_400), vec![&young, &over, &lately, &long_ago, &never]),
            (seconds(7 * 86_400), vec![&over, &long_ago, &never]),
            (seconds(9 * 86_400 - 1), vec![&over, &long_ago, &never]),
            // It was used at that very instant.
            (seconds(9 * 86_400), vec![&over, &never]),
            (seconds(11 * 86_400), vec![]),
        ] {
            let found = list_keys(&mut api, |asked| asked.filter.get_or_insert_default().unused_for = unused_for).await.unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{unused_for:?}");
        }
        let found = list_keys(&mut api, |asked| asked.filter.get_or_insert_default().never_expires = true).await.unwrap();
        assert_eq!(found, [young.clone(), long_ago.clone()]);
        for (within, expected) in [
            (seconds(2 * 86_400), vec![]),
            (seconds(3 * 86_400), vec![&lately]),
            (seconds(30 * 86_400), vec![&lately, &never]),
            (seconds(315_576_000_000), vec![&lately, &never]),
        ] {
            let found = list_keys(&mut api, |asked| asked.filter.get_or_insert_default().expires_within = within).await.unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{within:?}");
        }
        for wrong in [seconds(-1), seconds(0), seconds(315_576_000_001), seconds(i64::MAX), seconds(i64::MIN)] {
            for refused in [
                list_keys(&mut api, |asked| asked.filter.get_or_insert_default().unused_for = wrong).await,
                list_keys(&mut api, |asked| asked.filter.get_or_insert_default().expires_within = wrong).await,
            ] {
                assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument, "{wrong:?}");
            }
        }
        let both = list_keys(&mut api, |asked| {
            asked.filter.get_or_insert_default().never_expires = true;
            asked.filter.get_or_insert_default().expires_within = seconds(1);
        })
        .await;
        assert_eq!(both.unwrap_err().code(), Code::InvalidArgument);
        service.stop().await;
    }

    async fn keys_are_listed_by_their_use_and_their_end(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let ending = |micros| pb::IssueKeyRequest {
            expire_time: time(micros),
            ..issue_request()
        };
        let idle = issue(root, issue_request()).await;
        let used = issue(root, issue_request()).await;
        let soon = issue(root, ending(4 * HOUR)).await;
        let late = issue(root, ending(100 * HOUR)).await;
        let over = issue(root, ending(30 * MINUTE)).await;
        demo.clock.set(after(HOUR));
        root.ask(&used.plain_key).await;
        await_uses(root, &used.id, 1).await;
        demo.clock.set(after(2 * HOUR));
        let young = issue(root, ending(3 * HOUR)).await;

        // Newest first, as ever.
        let never = list_keys(root, |list| list.filter.get_or_insert_default().never_expires = true).await.unwrap();
        assert_eq!(never, [&used.id, &idle.id].map(Clone::clone));
        let within = async |root: &mut Api, minutes: i64| {
            list_keys(root, |list| list.filter.get_or_insert_default().expires_within = seconds(minutes * 60)).await.unwrap()
        };
        assert!(within(root, 30).await.is_empty());
        assert_eq!(within(root, 180).await, [&young.id, &soon.id].map(Clone::clone));
        assert_eq!(
            within(root, 60_000).await,
            [&young.id, &late.id, &soon.id].map(Clone::clone)
        );
        let unused = async |root: &mut Api, minutes: i64| {
            list_keys(root, |list| list.filter.get_or_insert_default().unused_for = seconds(minutes * 60)).await.unwrap()
        };
        // The youngest is not old enough to be called unused.
        assert_eq!(
            unused(root, 90).await,
            [&over.id, &late.id, &soon.id, &idle.id].map(Clone::clone)
        );
        assert_eq!(
            unused(root, 30).await,
            [&over.id, &late.id, &soon.id, &used.id, &idle.id].map(Clone::clone)
        );
        assert!(unused(root, 180).await.is_empty());
        let both = list_keys(root, |list| {
            list.filter.get_or_insert_default().unused_for = seconds(5_400);
            list.filter.get_or_insert_default().never_expires = true;
        })
        .await
        .unwrap();
        assert_eq!(both, [idle.id.as_str()]);

        // The filters go with the page.
        let mut request = pb::ListKeysRequest {
            filter: Some(pb::KeyFilter { realm: "demo".to_owned(), unused_for: seconds(5_400), ..Default::default() }),
            page_size: 3,
            ..Default::default()
        };
        let page = root.keys.list_keys(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.keys.len(), 3);
        request.page_token = page.next_page_token;
        let rest = root.keys.list_keys(request.clone()).await.unwrap().into_inner();
        let rest: Vec<_> = rest.keys.into_iter().map(|key| key.id).collect();
        assert_eq!(rest, [idle.id.as_str()]);
        for change in [
            (|list| list.filter.get_or_insert_default().never_expires = true) as fn(&mut pb::ListKeysRequest),
            |list| list.filter.get_or_insert_default().unused_for = None,
            |list| list.filter.get_or_insert_default().unused_for = seconds(5_401),
            |list| list.filter.get_or_insert_default().expires_within = seconds(1),
        ] {
            let mut other = request.clone();
            change(&mut other);
            refused_field(root.keys.list_keys(other).await, "page_token");
        }
        demo.service.stop().await;
    }
}
