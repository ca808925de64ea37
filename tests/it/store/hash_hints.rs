//! Hints that show a part of the SHA-256 of an API key, as earlier versions made them, are replaced by a start.

use std::collections::BTreeMap;

use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use pb::{KeepSecret, KeyState, Verdict};
use sha2::{Digest, Sha256};

use crate::fixtures::{
    Api, DemoService, Engine, Service, end_rotation, hex_of, import, import_entry_of,
    on_both_engines, revoke_keys, rotate,
};

/// More keys than one transaction changes.
const MANY: usize = 501;

fn plain_key(n: usize) -> String {
    format!("sk_9Zr2LxW7bQn4TtYc0HdVfMgKp8Us3JeRa{n:03}")
}

/// Keys that were imported by the hashes of [`plain_key`].
async fn import_hashes(root: &mut Api, numbers: std::ops::Range<usize>) -> Vec<String> {
    let entry = |n: usize| {
        let hash = Sha256::digest(plain_key(n));
        let mut entry = import_entry_of(Secret::Sha256(hex_of(&hash)));
        // Looks like a hint of before, and is none.
        "sha256:ba7816bf…".clone_into(&mut entry.name);
        if n == 0 {
            "staging".clone_into(&mut entry.environment);
        }
        entry
    };
    let imported = import(root, numbers.map(entry).collect()).await;
    imported.into_iter().map(Result::unwrap).collect()
}

/// The name, state and hints of each key, by its id.
async fn keys(root: &mut Api) -> BTreeMap<String, (String, KeyState, String, Vec<String>)> {
    let request = pb::ListKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "demo".to_owned(),
            ..Default::default()
        }),
        page_size: 1_000,
        ..Default::default()
    };
    let listed = root.keys.list_keys(request).await.unwrap().into_inner();
    assert_eq!(listed.next_page_token, "");
    let describe = |key: pb::Key| {
        let state = key.state();
        let hints = key.secrets.into_iter().map(|secret| secret.hint).collect();
        (key.id, (key.name, state, key.hint, hints))
    };
    listed.keys.into_iter().map(describe).collect()
}

/// All events, the oldest first.
async fn events(root: &mut Api) -> Vec<pb::Event> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListEventsRequest {
            page_size: 1_000,
            page_token,
            ..Default::default()
        };
        let page = root.keys.list_events(request).await.unwrap().into_inner();
        all.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    all.reverse();
    all
}

on_both_engines! {
    /// Seen red without the part for keys, without the part for events, with only the first page of either, with the hints of secrets
    /// left, with `old_hint` left, with the hints of a deleted key left, without the mark that all is done, and with new hints taken
    /// for old ones.
    async fn each_hint_of_a_hash_is_replaced_once_and_nothing_else(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let ids = import_hashes(root, 0..MANY).await;
        // What may become of an imported key; a secret and an event then have the hint too.
        let in_staging = revoke_keys(root, |request| {
            "staging".clone_into(&mut request.filter.get_or_insert_default().environment);
        });
        in_staging.await.unwrap();
        rotate(root, &ids[1], 60).await.unwrap();
        rotate(root, &ids[2], 0).await.unwrap();
        rotate(root, &ids[3], 60).await.unwrap();
        end_rotation(root, &ids[3], KeepSecret::Old).await.unwrap();
        root.revoke(&ids[4]).await.unwrap();
        let deleted = import_hashes(root, MANY..MANY + 2).await;
        root.revoke(&deleted[0]).await.unwrap();
        for id in &deleted {
            root.delete(id).await.unwrap();
        }
        let (keys_before, events_before) = (keys(root).await, events(root).await);
        let hint = demo.service.test_store.digest_hint(&plain_key(1));
        assert_eq!(keys_before[&ids[1]].3[0], hint);

        // As version 0.1.0 has stored it.
        let operator = demo.service.operator.clone();
        let test_store = demo.service.stop().await;
        test_store
            .execute_sql(&[
                r#"UPDATE keys SET facts = replace(facts, '"hmac:', '"sha256:')"#,
                r#"UPDATE events SET detail = replace(detail, '"hmac:', '"sha256:')"#,
                "UPDATE authority SET hash_hints = 1",
            ])
            .await;
        let clock = demo.clock;
        let service = Service::start_with(test_store, clock.clone(), &operator, &[]).await;
        let mut snapshot = service.store.snapshot().await.unwrap();
        assert!(!snapshot.may_have_hash_hints().await.unwrap(), "the next start need not search");
        drop(snapshot);
        let root = &mut service.api();
        assert_eq!(keys(root).await, keys_before);
        assert_eq!(root.verdict(&plain_key(1)).await, Verdict::Allowed);
        assert_eq!(root.verdict(&plain_key(0)).await, Verdict::Revoked);
        let now = events(root).await;
        let (then, new) = now.split_at(events_before.len());
        for (then, before) in then.iter().zip(&events_before) {
            let mut before = before.clone();
            if before.key_id == deleted[1] {
                // Its digest was deleted with it.
                before.detail.remove("hint");
            }
            assert_eq!(*then, before);
        }
        // A change for each key that had such a hint. The third has only a secret of claviger's own.
        let changed: Vec<_> = new.iter().map(|event| event.key_id.clone()).collect();
        let expected: Vec<_> = ids.iter().filter(|id| **id != ids[2]).cloned().collect();
        assert_eq!(changed, expected);
        for event in new {
            assert_eq!((event.kind.as_str(), event.actor.as_str()), ("key.updated", ""));
            let what = if event.key_id == ids[1] { "secrets" } else { "hint" };
            assert_eq!(event.detail["changed"], what);
        }

        // A later start changes nothing, also after one that was interrupted before it could record that all is done.
        let test_store = service.stop().await;
        test_store.execute_sql(&["UPDATE authority SET hash_hints = 1"]).await;
        let service = Service::start_with(test_store, clock, &operator, &[]).await;
        assert_eq!(events(&mut service.api()).await, now);
        service.stop().await;
    }
}
