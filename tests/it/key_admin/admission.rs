//! Who waits for the store, for how long, and who need not: over the queues, the budgets and the permits of pages.

use std::time::Duration;

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use claviger::store::{Snapshot, Store};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pb::{KeepSecret, Verdict};
use tokio::task::JoinHandle;
use tonic::{Code, Response, Status};

use crate::fixtures::{
    Api, DemoService, Engine, NOW, Refusal, SECOND, Service, TestStore, after,
    authority_key_request, delegating_realm, delegating_service, delegating_service_with,
    end_rotation, eventually, get, issue, issue_request, issue_request_with, on_both_engines,
    refused, request_id, revoke_keys, revoke_self, rotate, settled, strings, update,
};

/// How many changes the keys of a partner may have in progress.
const CHANGES_OF_PARTNER: usize = 16;

/// The feed waits to be notified and no usage is written, so that each access to the store is one of the test's calls.
const QUIET: [&str; 4] = ["--poll-interval", "1h", "--usage-interval", "0s"];

/// Asks for a key of the partner that administers keys.
fn admin_of(partner: &str) -> pb::IssueKeyRequest {
    issue_request_with(|key| {
        partner.clone_into(&mut key.partner);
        key.scopes = strings(&["owner"]);
    })
}

/// All the connections that read.
async fn all_readers(store: &Store) -> Vec<Snapshot> {
    let mut readers = Vec::new();
    for _ in 0..Store::READERS {
        readers.push(store.snapshot().await.unwrap());
    }
    readers
}

/// Makes the server answer often enough that it has heard of what was sent before on this connection.
async fn wait_for_the_server(api: &mut Api, plain_key: &str) {
    for _ in 0..20 {
        assert_eq!(api.verdict(plain_key).await, Verdict::Allowed);
    }
}

/// Waits until the store was asked so many times.
async fn until_sessions(service: &Service, sessions: u64) {
    eventually("the store is asked", async || {
        (service.store.sessions() >= sessions).then_some(())
    })
    .await;
}

fn disable(key_id: &str, if_revision: Option<u64>) -> pb::DisableKeyRequest {
    pb::DisableKeyRequest {
        key_id: key_id.to_owned(),
        if_revision,
        ..Default::default()
    }
}

fn put_partner(id: &str, display_name: &str) -> pb::PutPartnerRequest {
    pb::PutPartnerRequest {
        partner: Some(pb::Partner {
            realm: "demo".to_owned(),
            id: id.to_owned(),
            display_name: display_name.to_owned(),
            suspended: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn list_keys(mut api: Api, realm: &'static str) -> JoinHandle<Result<(), Status>> {
    let request = pb::ListKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: realm.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    tokio::spawn(async move { api.keys.list_keys(request).await.map(drop) })
}

on_both_engines! {
    /// Seen red with a group for each key that revokes itself.
    async fn the_keys_of_a_partner_share_their_requests(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let mut keys = Vec::new();
        for _ in 0..=CHANGES_OF_PARTNER {
            keys.push(issue(&mut root, issue_request()).await.plain_key);
        }
        let writer = service.store.change(NOW).await.unwrap();
        let mut calls: FuturesUnordered<_> = keys
            .iter()
            .map(|key| {
                let mut holder = service.api_as(key);
                tokio::spawn(async move { revoke_self(&mut holder, "").await.map(drop) })
            })
            .collect();
        let refusal = refused(calls.next().await.unwrap().unwrap());
        assert_eq!(refusal.reason, "TOO_MANY_CHANGES");
        drop(writer);
        while let Some(call) = calls.next().await {
            call.unwrap().unwrap();
        }
        service.stop().await;
    }

    /// Seen red with the budget checked before the wait only, and with no check before the root.
    async fn a_budget_that_is_spent_meanwhile_refuses_who_waited_and_makes_no_root(engine: Engine) {
        let flags = ["--delegated-changes-per-hour", "10"];
        let (service, mut root) = delegating_service_with(engine, &flags).await;
        let admin = issue(&mut root, admin_of("acme")).await;
        let key = issue(&mut root, issue_request()).await;
        let mut acme = service.api_as(&admin.plain_key);
        let before = service.store.sessions();
        let writer = service.store.change(NOW).await.unwrap();
        let calls = ["one", "other"].map(|name| {
            let (mut acme, id) = (acme.clone(), key.id.clone());
            tokio::spawn(async move {
                update(&mut acme, &id, &["name"], |key| name.clone_into(&mut key.name)).await
            })
        });
        until_sessions(&service, before + 2).await;
        get(&mut acme, &key.id).await;
        drop(writer);
        let mut refusals = Vec::new();
        for call in calls {
            refusals.extend(call.await.unwrap().err());
        }
        assert_eq!(refusals.len(), 1, "there is one change an hour");
        assert_eq!(Refusal::of(&refusals[0]).reason, "CHANGE_BUDGET_SPENT");

        let made = service.roots.made();
        for refusal in [
            refused(acme.keys.issue_key(issue_request()).await),
            refused(rotate(&mut acme, &key.id, 0).await),
        ] {
            assert_eq!(refusal.reason, "CHANGE_BUDGET_SPENT");
        }
        assert_eq!(service.roots.made(), made);
        service.stop().await;
    }

    /// Seen red without the check of the role at the start of each of the two.
    async fn a_key_that_administers_nothing_does_not_reach_the_store(engine: Engine) {
        let service = Service::start_with(TestStore::on(engine), Clock::system(), "", &QUIET).await;
        let mut root = service.api();
        root.make_demo().await;
        let gateway = issue(&mut root, authority_key_request("verify", "demo")).await;
        let key = issue(&mut root, issue_request()).await;
        let mut gateway = service.api_as(&gateway.plain_key);
        let gone = issue(&mut root, issue_request()).await;
        root.delete(&gone.id).await.unwrap();
        let before = settled(&service).await;
        for id in [&key.id, &gone.id] {
            let enable = pb::EnableKeyRequest { key_id: id.clone(), ..Default::default() };
            for refusal in [
                refused(gateway.keys.disable_key(disable(id, None)).await),
                refused(gateway.keys.enable_key(enable).await),
                refused(end_rotation(&mut gateway, id, KeepSecret::New).await),
                refused(end_rotation(&mut gateway, id, KeepSecret::Old).await),
                refused(gateway.revoke(id).await),
                refused(gateway.delete(id).await),
            ] {
                assert_eq!(refusal.code, Code::PermissionDenied);
            }
        }
        assert_eq!(service.store.sessions(), before);
        service.stop().await;
    }

    /// Seen red with each list that takes a permit before the role is checked.
    async fn who_may_not_list_does_not_wait_for_a_page(engine: Engine) {
        let service = Service::start_with(TestStore::on(engine), Clock::system(), "", &QUIET).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(delegating_realm()).await;
        for id in ["other", "third"] {
            let realm = pb::Realm { id: id.to_owned(), prefix: id.to_owned(), ..delegating_realm() };
            root.put_realm(realm).await;
        }
        let gateway = issue(&mut root, authority_key_request("verify", "demo")).await;
        let admin = issue(&mut root, admin_of("acme")).await;
        let acme = root.with_key(&admin.plain_key);
        let mut listing = vec![(acme.clone(), "demo")];
        for realm in ["demo", "other", "third"] {
            let manager = issue(&mut root, authority_key_request("manage", realm)).await;
            listing.push((root.with_key(&manager.plain_key), realm));
        }
        let before = settled(&service).await;
        let readers = all_readers(&service.store).await;
        let mut pages = Vec::new();
        for (api, realm) in listing {
            for _ in 0..2 {
                pages.push(list_keys(api.clone(), realm));
            }
        }
        // Six of the eight read, which is as many as callers without operators may.
        until_sessions(&service, before + 8 + 6).await;
        wait_for_the_server(&mut root, &admin.plain_key).await;
        let in_demo = "demo".to_owned();
        let events = |realm: &str| pb::ListEventsRequest { realm: realm.to_owned(), ..Default::default() };
        let keys = pb::ListKeysRequest {
            filter: Some(pb::KeyFilter { realm: in_demo.clone(), ..Default::default() }),
            ..Default::default()
        };
        let partners = pb::ListPartnersRequest { realm: in_demo.clone(), ..Default::default() };
        let projects = pb::ListProjectsRequest { realm: in_demo, ..Default::default() };
        let at_once = async {
            let mut gateway = service.api_as(&gateway.plain_key);
            assert_denied(gateway.keys.list_keys(keys).await);
            for mut api in [gateway, acme] {
                assert_denied(api.keys.list_events(events("demo")).await);
                assert_denied(api.keys.list_events(events("")).await);
                assert_denied(api.realms.list_realms(pb::ListRealmsRequest::default()).await);
                assert_denied(api.realms.list_partners(partners.clone()).await);
                assert_denied(api.realms.list_projects(projects.clone()).await);
            }
        };
        let at_once = tokio::time::timeout(Duration::from_secs(4), at_once).await;
        at_once.expect("nobody waits");
        drop(readers);
        for page in pages {
            page.await.unwrap().unwrap();
        }
        service.stop().await;
    }

    /// Seen red with reads that end with their call: then the second one is begun, and so is the third list.
    async fn a_read_that_nobody_waits_for_keeps_its_permits_to_its_end(engine: Engine) {
        let service = Service::start_with(TestStore::on(engine), Clock::system(), "", &QUIET).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(delegating_realm()).await;
        let admin = issue(&mut root, admin_of("acme")).await;
        let manager = issue(&mut root, authority_key_request("manage", "demo")).await;
        let acme = root.with_key(&admin.plain_key);
        let before = settled(&service).await + 8;
        let readers = all_readers(&service.store).await;
        let request = pb::GetKeyRequest { key_id: admin.id.clone(), ..Default::default() };
        let get_key = |mut api: Api| {
            let request = request.clone();
            tokio::spawn(async move { api.keys.get_key(request).await.map(drop) })
        };
        // One partner has one reader, and the managers of a realm have two pages.
        cancel(get_key(acme.clone()), &service, before + 1).await;
        let manager = root.with_key(&manager.plain_key);
        for n in 2..=3 {
            cancel(list_keys(manager.clone(), "demo"), &service, before + n).await;
        }
        wait_for_the_server(&mut root, &admin.plain_key).await;
        let second = get_key(acme.clone());
        let third = list_keys(manager, "demo");
        wait_for_the_server(&mut root, &admin.plain_key).await;
        assert_eq!(service.store.sessions(), before + 3, "neither was begun");
        drop(readers);
        second.await.unwrap().unwrap();
        third.await.unwrap().unwrap();
        service.stop().await;
    }

    /// Nobody else can open the change meanwhile, so what needs it waits and is late. Seen red with each kind of change checked
    /// inside the change only, and with a mirror that also shows keys beyond the caller's reach, revoked keys, and a key whose
    /// revision may be another one.
    async fn what_takes_nothing_away_is_answered_without_the_open_change(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        demo.root.put_realm(delegating_realm()).await;
        let root = &mut demo.root;
        let admin = issue(root, admin_of("acme")).await;
        let of_umbrella = |key: &mut pb::IssueKeyRequest| "umbrella".clone_into(&mut key.partner);
        let [active, disabled, revoked, rotated] = [
            issue(root, issue_request()).await,
            issue(root, issue_request()).await,
            issue(root, issue_request()).await,
            issue(root, issue_request()).await,
        ];
        let foreign = issue(root, issue_request_with(of_umbrella)).await;
        root.keys.disable_key(disable(&disabled.id, None)).await.unwrap();
        rotate(root, &revoked.id, 600).await.unwrap();
        root.revoke(&revoked.id).await.unwrap();
        rotate(root, &rotated.id, 1).await.unwrap();
        demo.clock.set(after(2 * SECOND));
        let unknown = issue(root, issue_request()).await;
        root.delete(&unknown.id).await.unwrap();
        root.realms.put_partner(put_partner("idle", "Idle")).await.unwrap();
        let revision = root.realms.put_partner(put_partner("idle", "Idle")).await.unwrap();
        let revision = revision.into_inner().revision;

        let writer = demo.service.store.change(after(2 * SECOND)).await.unwrap();
        let mut acme = demo.service.api_as(&admin.plain_key);
        let answers = async {
            // Of keys: by their state, their revision and their owner.
            for if_revision in [None, get(root, &disabled.id).await.revision] {
                root.keys.disable_key(disable(&disabled.id, if_revision)).await.unwrap();
            }
            root.revoke(&revoked.id).await.unwrap();
            assert_refused(root.keys.disable_key(disable(&active.id, Some(1))).await, Code::Aborted);
            assert_refused(root.keys.disable_key(disable(&revoked.id, None)).await, Code::FailedPrecondition);
            assert_refused(end_rotation(root, &revoked.id, KeepSecret::New).await, Code::FailedPrecondition);
            assert_refused(end_rotation(root, &active.id, KeepSecret::New).await, Code::FailedPrecondition);
            for id in [&foreign.id, &unknown.id] {
                assert_refused(acme.keys.disable_key(disable(id, None)).await, Code::NotFound);
                assert_refused(acme.revoke(id).await, Code::NotFound);
                assert_refused(acme.delete(id).await, Code::NotFound);
                assert_refused(end_rotation(&mut acme, id, KeepSecret::New).await, Code::NotFound);
            }
            // The old secret has expired.
            let mut holder = demo.service.api_as(&rotated.plain_key);
            assert_refused(revoke_self(&mut holder, "").await, Code::Unauthenticated);
            // Of what contains keys.
            for (partner, if_revision, code) in [
                ("acme", None, Code::FailedPrecondition),
                ("idle", Some(1), Code::Aborted),
                ("ghost", None, Code::NotFound),
            ] {
                let delete = pb::DeletePartnerRequest {
                    realm: "demo".to_owned(),
                    partner: partner.to_owned(),
                    if_revision,
                    ..Default::default()
                };
                assert_refused(root.realms.delete_partner(delete).await, code);
            }
            for (project, if_revision, code) in [("one", Some(1), Code::Aborted), ("ghost", None, Code::NotFound)] {
                let delete = pb::DeleteProjectRequest {
                    realm: "demo".to_owned(),
                    project: project.to_owned(),
                    if_revision,
                    ..Default::default()
                };
                assert_refused(root.realms.delete_project(delete).await, code);
            }
            for (realm, code) in [
                ("demo", Code::FailedPrecondition),
                ("claviger", Code::FailedPrecondition),
                ("ghost", Code::NotFound),
            ] {
                let delete = pb::DeleteRealmRequest { realm_id: realm.to_owned(), ..Default::default() };
                assert_refused(root.realms.delete_realm(delete).await, code);
            }
            let put = root.realms.put_partner(put_partner("idle", "Idle")).await.unwrap();
            assert_eq!(put.into_inner().revision, revision);
        };
        let answered = tokio::time::timeout(Duration::from_secs(8), answers).await;
        answered.expect("nothing waits for the change");
        drop(writer);
        demo.service.stop().await;
    }
}

/// A disk without room refuses all changes but those that take access away. Seen red with every suspension taken for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_suspension_of_an_active_partner_takes_something_away() {
    let demo = DemoService::on(Engine::Sqlite).await;
    let mut root = demo.root;
    for idle in ["idle", "asleep"] {
        root.realms
            .put_partner(put_partner(idle, idle))
            .await
            .unwrap();
    }
    let operator = demo.service.operator.clone();
    let test_store = demo.service.stop().await;
    let flags = ["--disk-reserve", "1000000GiB"];
    let service = Service::start_with(test_store, demo.clock, &operator, &flags).await;
    let mut root = service.api();
    for (id, name) in [("new", ""), ("idle", "renamed")] {
        let refusal = refused(root.realms.put_partner(put_partner(id, name)).await);
        assert_eq!(refusal.reason, "DISK_NEARLY_FULL", "{id}");
    }
    let unchanged = root.realms.put_partner(put_partner("idle", "idle")).await;
    let unchanged = unchanged.unwrap().into_inner().revision;
    let put = root.realms.put_partner(put_partner("acme", "")).await;
    assert_eq!(put.unwrap().into_inner().revision, unchanged + 1);

    // A revocation without keys is a change only because it has an id, and the refusal says so.
    let refusal = revoke_keys(&mut root, |keys| keys.request_id = request_id()).await;
    let refusal = refusal.unwrap_err();
    assert_eq!(Refusal::of(&refusal).reason, "DISK_NEARLY_FULL");
    let message = refusal.message();
    assert!(message.starts_with("no key is left to revoke"), "{message}");
    revoke_keys(&mut root, |_| ()).await.unwrap();
    service.stop().await;
}

/// Waits until the call has asked the store, and cancels it.
async fn cancel(call: JoinHandle<Result<(), Status>>, service: &Service, sessions: u64) {
    until_sessions(service, sessions).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
}

#[track_caller]
fn assert_refused<T>(answer: Result<T, Status>, code: Code) {
    assert_eq!(refused(answer).code, code);
}

#[track_caller]
fn assert_denied<T>(answer: Result<Response<T>, Status>) {
    assert_refused(answer, Code::PermissionDenied);
}
