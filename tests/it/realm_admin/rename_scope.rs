//! `RenameScope`: what it does to the realm and to keys, at which moments, and who may interfere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger::domain::access::Access;
use claviger::domain::event::{Actor, Event, EventKind, Subject};
use claviger::domain::ids::{KeyId, RealmId, ScopeName};
use claviger::domain::key::Key;
use claviger::pb::claviger::v1 as pb;
use claviger::store::Change;
use pb::Verdict;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::fixtures::{
    Api, DEADLINE, DemoService, Engine, IssuedKey, delegating_service, demo_realm, eventually, get,
    issue, issue_request, issue_request_with, on_both_engines, proto_time, refused, refused_field,
    request_id, rotate, strings, update, verify_request,
};

fn rename_request(scope: &str, new_name: &str) -> pb::RenameScopeRequest {
    pb::RenameScopeRequest {
        realm: "demo".to_owned(),
        scope: scope.to_owned(),
        new_name: new_name.to_owned(),
        ..Default::default()
    }
}

async fn send(
    api: &mut Api,
    request: pb::RenameScopeRequest,
) -> Result<pb::RenameScopeResponse, Status> {
    let answer = api.realms.rename_scope(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Renames a scope of `demo`, in as many calls as it takes. Returns the number of keys that each of them changed.
async fn rename(api: &mut Api, scope: &str, new_name: &str) -> Vec<u64> {
    let mut counts = Vec::new();
    loop {
        let made = send(api, rename_request(scope, new_name)).await.unwrap();
        counts.push(made.updated_keys);
        if !made.more {
            return counts;
        }
    }
}

/// Renames a scope of `demo` on all keys, and leaves both scopes.
async fn rename_on_keys(api: &mut Api, scope: &str, new_name: &str) -> pb::RenameScopeResponse {
    let request = pb::RenameScopeRequest {
        keep_old_scope: true,
        ..rename_request(scope, new_name)
    };
    send(api, request).await.unwrap()
}

/// What the scopes of a realm imply, in their order.
fn scopes(realm: &pb::Realm) -> Vec<String> {
    let scopes = realm.scopes.iter();
    scopes
        .map(|scope| format!("{}: {}", scope.name, scope.implies.join(" ")))
        .collect()
}

async fn get_demo(api: &mut Api) -> pb::Realm {
    let request = pb::GetRealmRequest {
        realm_id: "demo".to_owned(),
    };
    let got = api.realms.get_realm(request).await.unwrap().into_inner();
    got.realm.unwrap()
}

async fn issue_with(api: &mut Api, scopes: &[&str]) -> IssuedKey {
    issue(api, issue_request_with(|new| new.scopes = strings(scopes))).await
}

/// What becomes of a demand for this scope. An unknown scope is an error.
async fn demand(api: &mut Api, key: &IssuedKey, scope: &str) -> Result<Verdict, Code> {
    let request = pb::VerifyRequest {
        scopes: strings(&[scope]),
        ..verify_request(&key.plain_key)
    };
    let answer = api.verify.verify(request).await;
    answer
        .map(|answer| answer.into_inner().verdict())
        .map_err(|status| status.code())
}

/// Demands this scope of each key, one after the other, until `over` is set. Fails if one is denied. Returns the number of demands.
fn demand_until(
    mut api: Api,
    keys: Vec<IssuedKey>,
    scope: &'static str,
    over: &Arc<AtomicBool>,
) -> JoinHandle<u64> {
    let over = Arc::clone(over);
    tokio::spawn(async move {
        let mut demands = 0;
        while !over.load(Ordering::Relaxed) {
            for key in &keys {
                let verdict = demand(&mut api, key, scope).await;
                assert_eq!(verdict, Ok(Verdict::Allowed), "{:?}", key.key.scopes);
                demands += 1;
            }
        }
        demands
    })
}

fn event(change: &Change, kind: EventKind, key: Option<KeyId>) -> Event {
    Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind,
        subject: Subject {
            realm: RealmId::parse("demo").unwrap(),
            partner: None,
            project: None,
            key,
        },
        detail: BTreeMap::new(),
    }
}

fn access(scopes: &[&str]) -> Access {
    let names = scopes.iter().map(|name| ScopeName::parse(name).unwrap());
    Access::Scopes(names.collect())
}

/// Stores many keys like this one, with these scopes.
async fn store_many(demo: &DemoService, like: &IssuedKey, scopes: &[&str], count: u32) {
    let mut change = demo.service.store.change(demo.clock.read()).await.unwrap();
    let like = KeyId::parse(&like.id).unwrap();
    let like = change.find_key(like).await.unwrap().unwrap();
    change.reserve(count as usize - 1).await.unwrap();
    let mut keys: Vec<Key> = Vec::new();
    for number in 0..count {
        if let Some(last) = keys.last() {
            let issued = event(&change, EventKind::KeyIssued, Some(last.id));
            change.start_next(issued).await.unwrap();
        }
        let mut id = [9; 16];
        id[12..].copy_from_slice(&number.to_be_bytes());
        keys.push(Key {
            id: KeyId::from_bytes(id),
            access: access(scopes),
            created_revision: change.revision(),
            revision: change.revision(),
            ..like.clone()
        });
    }
    let all: Vec<_> = keys.iter().collect();
    change.insert_keys(&all).await.unwrap();
    let last = event(&change, EventKind::KeyIssued, keys.last().map(|key| key.id));
    let last = change.commit(&last).await.unwrap();
    demo.service.mirror.notify();
    demo.service.mirror.wait_for(last, DEADLINE).await.unwrap();
}

/// Starts the call while the change is open, and returns it when it has looked what is to do and waits for the change.
async fn send_while_open(
    demo: &DemoService,
    request: pb::RenameScopeRequest,
) -> JoinHandle<Result<pb::RenameScopeResponse, Status>> {
    let before = demo.service.store.sessions();
    let mut api = demo.root.clone();
    let call = tokio::spawn(async move { send(&mut api, request).await });
    eventually("the call looks", async || {
        (demo.service.store.sessions() > before).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!call.is_finished(), "it waits for the change");
    call
}

/// Gives a key these scopes, as another caller would, and records it.
async fn regrant(mut change: Change, key: &IssuedKey, scopes: &[&str]) {
    let id = KeyId::parse(&key.id).unwrap();
    let mut stored = change.find_key(id).await.unwrap().unwrap();
    stored.access = access(scopes);
    change.update_key(&mut stored).await.unwrap();
    let event = event(&change, EventKind::KeyUpdated, Some(id));
    change.commit(&event).await.unwrap();
}

/// The events of this kind in `demo`, newest first.
async fn events(api: &mut Api, kind: &str) -> Vec<pb::Event> {
    let mut events = Vec::new();
    let mut request = pb::ListEventsRequest {
        realm: "demo".to_owned(),
        kind: kind.to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    loop {
        let page = api.keys.list_events(request.clone()).await.unwrap();
        let page = page.into_inner();
        events.extend(page.events);
        if page.next_page_token.is_empty() {
            return events;
        }
        request.page_token = page.next_page_token;
    }
}

/// `write` is demanded by a route, and administers.
fn realm() -> pb::Realm {
    pb::Realm {
        admin_scope: "write".to_owned(),
        routes: vec![pb::Route {
            path: "/v1/**".to_owned(),
            scopes: strings(&["read", "write"]),
            any_scopes: strings(&["admin", "write"]),
            ..Default::default()
        }],
        ..demo_realm()
    }
}

on_both_engines! {
    /// Seen red with the last step before the keys, with keys that get the new name before the realm has it, and with a first step that
    /// leaves `admin` as it is.
    async fn no_key_loses_access_at_any_moment(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        demo.root.put_realm(realm()).await;
        let mut keys = Vec::new();
        for scopes in [&["write"][..], &["admin"], &["read", "write"], &["admin", "write"]] {
            keys.push(issue_with(&mut demo.root, scopes).await);
        }
        let full = issue_request_with(|new| {
            new.scopes.clear();
            new.full_access = true;
        });
        keys.push(issue(&mut demo.root, full).await);
        store_many(&demo, &keys[0], &["write"], 2_500).await;

        let over = Arc::new(AtomicBool::new(false));
        let by_old_name = demand_until(demo.root.clone(), keys.clone(), "write", &over);
        let made = rename_on_keys(&mut demo.root, "write", "edit").await;
        over.store(true, Ordering::Relaxed);
        assert!(by_old_name.await.unwrap() > 50);
        assert_eq!((made.updated_keys, made.more), (2_503, false));
        let unfinished = made.realm.unwrap();
        assert_eq!(scopes(&unfinished), ["read: ", "write: read", "edit: write", "admin: write"]);
        assert_eq!(unfinished.scopes[2].replaces, "write");

        let over = Arc::new(AtomicBool::new(false));
        let by_new_name = demand_until(demo.root.clone(), keys.clone(), "edit", &over);
        let by_implication = demand_until(demo.root.clone(), keys.clone(), "read", &over);
        assert_eq!(rename(&mut demo.root, "write", "edit").await, [0]);
        over.store(true, Ordering::Relaxed);
        assert!(by_new_name.await.unwrap() + by_implication.await.unwrap() > 0);
        assert_eq!(demand(&mut demo.root, &keys[0], "write").await, Err(Code::InvalidArgument));
        for key in &keys {
            assert_eq!(demand(&mut demo.root, key, "edit").await, Ok(Verdict::Allowed));
        }
        demo.service.stop().await;
    }

    /// Seen red without the change of the routes, and with the new scope at the end.
    async fn the_new_name_stands_wherever_the_realm_had_the_old_one(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        root.put_realm(realm()).await;
        let delegate = issue(root, issue_request()).await;
        let mut api = demo.service.api_as(&delegate.plain_key);
        issue_with(&mut api, &["read"]).await;
        rename_on_keys(root, "write", "edit").await;
        issue_with(&mut api, &["write"]).await;
        issue_with(&mut api, &["edit"]).await;
        assert_eq!(rename(root, "write", "edit").await, [1]);
        issue_with(&mut api, &["edit"]).await;

        let after = get_demo(root).await;
        assert_eq!(scopes(&after), ["read: ", "edit: read", "admin: edit"]);
        assert_eq!(after.scopes[1].replaces, "");
        assert_eq!(after.admin_scope, "edit");
        assert_eq!(after.routes[0].scopes, ["edit", "read"]);
        assert_eq!(after.routes[0].any_scopes, ["admin", "edit"]);
        let put: Vec<_> = events(root, "realm.put").await.into_iter().map(|event| event.detail["changed"].clone()).take(2).collect();
        assert_eq!(put, ["scopes admin_scope routes", "scopes"]);
        demo.service.stop().await;
    }

    /// So that no dead key comes back with the old name. Seen red with a search for living keys only, and with keys that keep their
    /// revision.
    async fn each_key_is_changed_by_itself_dead_keys_too(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let end = demo.clock.now().saturating_add(Duration::from_hours(1));
        let root = &mut demo.root;
        let living = issue_with(root, &["read", "write"]).await;
        let expired = issue(root, issue_request_with(|new| new.expire_time = Some(proto_time(end)))).await;
        let revoked = issue(root, issue_request()).await;
        let both = issue_with(root, &["read"]).await;
        let other = issue_with(root, &["admin"]).await;
        root.revoke(&revoked.id).await.unwrap();
        demo.clock.set(end.saturating_add(Duration::from_secs(1)));
        rename_on_keys(root, "write", "edit").await;
        update(root, &both.id, &["scopes"], |request| request.scopes = strings(&["edit", "write"])).await.unwrap();
        let made = send(root, rename_request("write", "edit")).await.unwrap();
        assert_eq!((made.updated_keys, made.more), (1, false));
        for (key, expected) in [(&living, &["edit", "read"][..]), (&expired, &["edit"]), (&revoked, &["edit"]), (&both, &["edit"])] {
            let now = get(root, &key.id).await;
            assert_eq!(now.scopes, expected);
            let request = pb::ListEventsRequest { key_id: key.id.clone(), page_size: 1, ..Default::default() };
            let event = root.keys.list_events(request).await.unwrap().into_inner().events.remove(0);
            assert_eq!((event.kind.as_str(), Some(event.revision)), ("key.updated", now.revision));
            assert_eq!(event.detail["changed"], "scopes");
            assert_eq!(event.detail["scopes"], expected.join(" "));
        }
        assert_eq!(get(root, &revoked.id).await.state(), pb::KeyState::Revoked);
        assert_eq!(get(root, &other.id).await.revision, other.key.revision, "it holds the scope by implication");
        demo.service.stop().await;
    }

    /// Seen red with a limit of 20,000 keys.
    async fn a_call_changes_ten_thousand_keys_each_with_an_event(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let key = issue(&mut demo.root, issue_request()).await;
        store_many(&demo, &key, &["write"], 10_500).await;
        let request = pb::RenameScopeRequest { request_id: request_id(), ..rename_request("write", "edit") };
        let made = send(&mut demo.root, request.clone()).await.unwrap();
        assert_eq!((made.updated_keys, made.more, made.replayed), (10_000, true, false));
        let again = send(&mut demo.root, request).await.unwrap();
        assert_eq!((again.updated_keys, again.more, again.replayed, again.revision), (10_000, true, true, made.revision));
        assert_eq!(rename(&mut demo.root, "write", "edit").await, [501]);
        let updates = events(&mut demo.root, "key.updated").await;
        let revisions: BTreeSet<_> = updates.iter().map(|event| event.revision).collect();
        let ids: BTreeSet<_> = updates.iter().map(|event| event.key_id.clone()).collect();
        assert_eq!((updates.len(), revisions.len(), ids.len()), (10_501, 10_501, 10_501));
        assert_eq!(demand(&mut demo.root, &key, "edit").await, Ok(Verdict::Allowed));
        demo.service.stop().await;
    }

    /// Seen red with the scope of an unfinished renaming taken for another one.
    async fn an_unfinished_renaming_goes_on(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let old = issue_with(root, &["write"]).await;
        let mut unfinished = demo_realm();
        unfinished.scopes.push(pb::Scope {
            name: "edit".to_owned(),
            implies: strings(&["write"]),
            replaces: "write".to_owned(),
            description: "changes".to_owned(),
        });
        root.put_realm(unfinished).await;
        let new = issue_with(root, &["edit"]).await;
        // It has begun, so this revision does not count.
        let request = pb::RenameScopeRequest { if_revision: Some(1), ..rename_request("write", "edit") };
        assert_eq!(send(root, request).await.unwrap().updated_keys, 1);
        let after = get_demo(root).await;
        assert_eq!(scopes(&after), ["read: ", "edit: read", "admin: edit"]);
        assert_eq!(after.scopes[1].description, "changes");
        for key in [&old, &new] {
            assert_eq!(demand(root, key, "edit").await, Ok(Verdict::Allowed));
        }
        demo.service.stop().await;
    }

    /// A scope that implies the other one is not half of a renaming: who may read would come to write. Seen red with every scope that
    /// implies only the old one taken for the new one.
    async fn another_scope_is_never_taken_for_the_new_one(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue_with(root, &["read"]).await;
        let before = get_demo(root).await;
        assert_eq!(refused(send(root, rename_request("read", "write")).await).code, Code::AlreadyExists);
        assert_eq!(get_demo(root).await, before);
        assert_eq!(demand(root, &key, "write").await, Ok(Verdict::ScopeMissing));

        // Somebody puts the realm without what tells that the renaming is unfinished.
        let made = rename_on_keys(root, "read", "see").await;
        let marked = made.realm.unwrap();
        let mut unmarked = marked.clone();
        unmarked.scopes[1].replaces.clear();
        root.put_realm(unmarked).await;
        let refusal = send(root, rename_request("read", "see")).await.unwrap_err();
        assert!(refusal.message().contains("`replaces`"), "{refusal}");
        root.put_realm(marked).await;
        assert_eq!(rename(root, "read", "see").await, [0]);
        demo.service.stop().await;
    }

    /// Until the renaming is finished, a key with one name holds the other too. Seen red without the equality of both names in
    /// `ScopeHierarchy::new`.
    async fn between_the_steps_both_names_are_one_scope(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let delegate = issue_with(&mut root, &["write", "keys"]).await;
        let old = issue_with(&mut root, &["write"]).await;
        rename_on_keys(&mut root, "write", "edit").await;
        // Somebody who does not know the new name.
        update(&mut root, &delegate.id, &["scopes"], |request| {
            request.scopes = strings(&["write", "keys"]);
        }).await.unwrap();
        let mut partner = service.api_as(&delegate.plain_key);
        let issued = [issue_with(&mut partner, &["write"]).await, issue_with(&mut partner, &["edit"]).await];
        for key in issued.iter().chain([&old]) {
            for scope in ["write", "edit", "read"] {
                assert_eq!(demand(&mut root, key, scope).await, Ok(Verdict::Allowed), "{scope}");
            }
        }
        let rotated = rotate(&mut partner, &old.id, 0).await;
        assert!(rotated.is_ok(), "the partner's own key has the old name");
        assert_eq!(rename(&mut root, "write", "edit").await, [2]);
        assert_eq!(demand(&mut root, &issued[0], "edit").await, Ok(Verdict::Allowed));
        assert_eq!(demand(&mut root, &issued[0], "billing").await, Ok(Verdict::ScopeMissing));
        service.stop().await;
    }

    async fn the_audit_trail_names_both_scopes(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        issue(root, issue_request()).await;
        rename(root, "write", "edit").await;
        let steps = events(root, "realm.put").await;
        let renamed: Vec<_> = steps.iter().filter_map(|step| step.detail.get("renamed_scope")).collect();
        assert_eq!(renamed, ["write edit", "write edit"]);
        demo.service.stop().await;
    }

    /// What is held has the scopes of the time before by their names. Seen red without the look for holds.
    async fn nothing_is_renamed_while_anything_is_held(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        issue(root, issue_request()).await;
        let sha256 = match engine {
            Engine::Sqlite => "x'00'",
            Engine::Postgres => "'\\x00'",
        };
        let hold = format!("INSERT INTO holds (epoch, held, sha256, hold) VALUES (1, 'x', {sha256}, '{{}}')");
        demo.service.test_store.execute_sql(&[&hold]).await;
        let before = get_demo(root).await;
        for dry_run in [true, false] {
            let request = pb::RenameScopeRequest { dry_run, ..rename_request("write", "edit") };
            assert_eq!(refused(send(root, request).await).reason, "HISTORY_REWRITTEN");
        }
        assert_eq!(get_demo(root).await, before);
        demo.service.test_store.execute_sql(&["DELETE FROM holds"]).await;
        assert_eq!(rename(root, "write", "edit").await, [1]);
        demo.service.stop().await;
    }

    /// Seen red without the search for the scope in the change that removes it.
    async fn a_key_that_is_given_the_old_scope_meanwhile_is_changed_too(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let key = issue_with(&mut demo.root, &["read"]).await;
        rename_on_keys(&mut demo.root, "write", "edit").await;
        let change = demo.service.store.change(demo.clock.read()).await.unwrap();
        let call = send_while_open(&demo, rename_request("write", "edit")).await;
        regrant(change, &key, &["write"]).await;
        let made = call.await.unwrap().unwrap();
        assert_eq!((made.updated_keys, made.more), (1, false));
        assert_eq!(get(&mut demo.root, &key.id).await.scopes, ["edit"]);
        assert_eq!(demand(&mut demo.root, &key, "edit").await, Ok(Verdict::Allowed));
        demo.service.stop().await;
    }

    /// Seen red without the filter in the change.
    async fn a_key_that_has_lost_the_old_scope_since_the_search_gets_none(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let lost = issue_with(&mut demo.root, &["write"]).await;
        let kept = issue_with(&mut demo.root, &["write"]).await;
        rename_on_keys(&mut demo.root, "write", "edit").await;
        for key in [&lost, &kept] {
            update(&mut demo.root, &key.id, &["scopes"], |request| request.scopes = strings(&["write"])).await.unwrap();
        }
        let change = demo.service.store.change(demo.clock.read()).await.unwrap();
        let call = send_while_open(&demo, rename_request("write", "edit")).await;
        regrant(change, &lost, &["read"]).await;
        assert_eq!(call.await.unwrap().unwrap().updated_keys, 1);
        assert_eq!(get(&mut demo.root, &lost.id).await.scopes, ["read"]);
        assert_eq!(get(&mut demo.root, &kept.id).await.scopes, ["edit"]);
        demo.service.stop().await;
    }

    /// Seen red without the comparison of the realm's revision in the change.
    async fn what_others_put_meanwhile_stays(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        issue_with(&mut demo.root, &["write"]).await;
        let put = async |mut change: Change, edit: &dyn Fn(&mut claviger::domain::realm::Realm)| {
            let id = RealmId::parse("demo").unwrap();
            let mut realm = change.find_realm(&id).await.unwrap().unwrap().value;
            edit(&mut realm);
            change.put_realm(&realm).await.unwrap();
            let event = event(&change, EventKind::RealmPut, None);
            change.commit(&event).await.unwrap();
        };
        // Before the first step, before the keys, and before the last step.
        for (number, keep_old_scope) in [(1, true), (2, true), (3, false)] {
            let change = demo.service.store.change(demo.clock.read()).await.unwrap();
            let request = pb::RenameScopeRequest { keep_old_scope, ..rename_request("write", "edit") };
            let call = send_while_open(&demo, request).await;
            put(change, &|realm| realm.max_cache = Duration::from_secs(number)).await;
            call.await.unwrap().unwrap();
            let seconds = get_demo(&mut demo.root).await.max_cache.unwrap().seconds;
            assert_eq!(seconds, number as i64, "put {number}");
            if number == 1 {
                issue_with(&mut demo.root, &["write"]).await;
            }
        }
        assert_eq!(scopes(&get_demo(&mut demo.root).await), ["read: ", "edit: read", "admin: edit"]);

        // With a revision, the renaming does not begin in another state.
        let revision = get_demo(&mut demo.root).await.revision;
        let change = demo.service.store.change(demo.clock.read()).await.unwrap();
        let request = pb::RenameScopeRequest { if_revision: Some(revision), ..rename_request("edit", "write") };
        let call = send_while_open(&demo, request).await;
        put(change, &|realm| realm.max_cache = Duration::ZERO).await;
        assert_eq!(refused(call.await.unwrap()).code, Code::Aborted);
        demo.service.stop().await;
    }

    /// Seen red with an error for the caller that finds nothing left to do.
    async fn two_callers_rename_at_once(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let key = issue(&mut demo.root, issue_request()).await;
        store_many(&demo, &key, &["write"], 2_500).await;
        let (mut one, mut other) = (demo.root.clone(), demo.root.clone());
        let request = || rename_request("write", "edit");
        let (one, other) = tokio::join!(send(&mut one, request()), send(&mut other, request()));
        let count = |answer: Result<pb::RenameScopeResponse, Status>| match answer {
            Ok(made) => {
                assert!(!made.more);
                made.updated_keys
            }
            // It began after the other one had ended.
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound);
                0
            }
        };
        assert_eq!(count(one) + count(other), 2_501);
        assert_eq!(scopes(&get_demo(&mut demo.root).await), ["read: ", "edit: read", "admin: edit"]);
        demo.service.stop().await;
    }

    /// Seen red without the record of the answer.
    async fn a_repeated_call_returns_the_first_answer(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        issue(root, issue_request()).await;
        let request = pb::RenameScopeRequest { request_id: request_id(), ..rename_request("write", "edit") };
        let made = send(root, request.clone()).await.unwrap();
        assert_eq!((made.updated_keys, made.replayed), (1, false));
        let again = send(root, request.clone()).await.unwrap();
        assert_eq!((again.updated_keys, again.replayed, again.revision), (1, true, made.revision));
        let everywhere = pb::RenameScopeRequest { wait: pb::Wait::Everywhere.into(), ..request.clone() };
        assert!(send(root, everywhere).await.unwrap().replayed);
        let other = pb::RenameScopeRequest { new_name: "change".to_owned(), ..request };
        refused_field(send(root, other).await, "request_id");
        assert_eq!(refused(send(root, rename_request("write", "edit")).await).code, Code::NotFound);
        demo.service.stop().await;
    }

    /// Seen red with the steps made in a dry run.
    async fn a_dry_run_changes_nothing(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        issue(root, issue_request()).await;
        let before = get_demo(root).await;
        let dry_run = pb::RenameScopeRequest { dry_run: true, ..rename_request("write", "edit") };
        let found = send(root, dry_run.clone()).await.unwrap();
        assert_eq!((found.would_update_keys, found.updated_keys, found.more, found.confirmed), (1, 0, false, false));
        assert_eq!(scopes(&found.realm.unwrap()), ["read: ", "edit: read", "admin: edit"]);
        assert_eq!(get_demo(root).await, before);
        assert!(events(root, "key.updated").await.is_empty());
        let stale = pb::RenameScopeRequest { if_revision: Some(1), ..dry_run.clone() };
        assert_eq!(refused(send(root, stale).await).code, Code::Aborted);
        rename(root, "write", "edit").await;
        assert_eq!(refused(send(root, dry_run).await).code, Code::NotFound);
        demo.service.stop().await;
    }

    async fn a_renaming_that_cannot_be_made_is_refused(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let before = get_demo(root).await;
        for (field, scope, new_name) in [("new_name", "write", "write"), ("new_name", "write", "Edit"), ("scope", "", "edit")] {
            refused_field(send(root, rename_request(scope, new_name)).await, field);
        }
        for (scope, new_name) in [("ghost", "edit"), ("ghost", "write")] {
            assert_eq!(refused(send(root, rename_request(scope, new_name)).await).code, Code::NotFound);
        }
        for (realm, reason) in [("claviger", "BUILT_IN_REALM"), ("nowhere", "NOT_FOUND")] {
            let request = pb::RenameScopeRequest { realm: realm.to_owned(), ..rename_request("verify", "edit") };
            assert_eq!(refused(send(root, request).await).reason, reason);
        }
        let stale = pb::RenameScopeRequest { if_revision: Some(before.revision - 1), ..rename_request("write", "edit") };
        assert_eq!(refused(send(root, stale).await).code, Code::Aborted);
        assert_eq!(get_demo(root).await, before);

        rename_on_keys(root, "write", "edit").await;
        for (scope, new_name) in [("write", "change"), ("edit", "change"), ("edit", "write")] {
            assert_eq!(refused(send(root, rename_request(scope, new_name)).await).reason, "RENAMING_UNFINISHED");
        }
        let mut realm = get_demo(root).await;
        realm.scopes[2].implies.push("read".to_owned());
        let put = pb::PutRealmRequest { realm: Some(realm), ..Default::default() };
        refused_field(root.realms.put_realm(put).await, "realm.scopes[2].replaces");
        demo.service.stop().await;
    }

    /// Seen red without the check of the number.
    async fn a_full_realm_has_no_room_for_a_renaming_on_keys(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let mut realm = demo_realm();
        realm.scopes.extend((3..256).map(|number| pb::Scope { name: format!("s{number}"), ..Default::default() }));
        root.put_realm(realm).await;
        let key = issue(root, issue_request()).await;
        assert_eq!(refused(send(root, rename_request("write", "edit")).await).reason, "TOO_MANY_SCOPES");
        // Nobody holds it by name.
        assert_eq!(rename(root, "admin", "all").await, [0]);
        root.delete(&key.id).await.unwrap();
        assert_eq!(rename(root, "write", "edit").await, [0]);
        assert_eq!(get_demo(root).await.scopes.len(), 256);
        demo.service.stop().await;
    }

    /// Seen red without the refusal: the call then says again and again that keys are left.
    async fn an_unreadable_key_keeps_the_renaming_unfinished(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let readable = issue(root, issue_request()).await;
        let spoiled = issue(root, issue_request_with(|new| "spoiled".clone_into(&mut new.name))).await;
        let spoil = "UPDATE keys SET facts = replace(facts, '\"secrets\"', '\"secret\"') WHERE name = 'spoiled'";
        demo.service.test_store.execute_sql(&[spoil]).await;
        let refusal = send(root, rename_request("write", "edit")).await.unwrap_err();
        assert!(refusal.message().contains(&spoiled.id), "{refusal}");
        assert_eq!(refused::<()>(Err(refusal)).reason, "STILL_HAS_KEYS");
        assert_eq!(get(root, &readable.id).await.scopes, ["edit"]);
        root.delete(&spoiled.id).await.unwrap();
        assert_eq!(rename(root, "write", "edit").await, [0]);
        demo.service.stop().await;
    }
}
