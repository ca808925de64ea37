//! Keys that are revoked or deleted by a filter: repetitions, the caller's own key, imported API keys, and many at once.

use std::time::Duration;

use claviger::domain::ids::KeyId;
use claviger::pb::claviger::v1 as pb;
use claviger::retention::{Retention, Span};
use pb::{KeyState, Verdict};
use tokio::time::timeout;
use tonic::Code;
use uuid::Uuid;

use super::delegation::delegate;
use super::usage::record;
use crate::fixtures::{
    Api, DEADLINE, DemoService, Engine, authority_key_request, delegating_service, demo_realm,
    eventually, get, import, import_entry, issue, issue_request, issue_request_with,
    list_in_states, on_both_engines, proto_time, refused, refused_field, revoke_keys, update,
};

fn named(name: &str) -> pb::KeyFilter {
    pb::KeyFilter {
        realm: "demo".to_owned(),
        name: name.to_owned(),
        ..Default::default()
    }
}

fn deletion(name: &str) -> pb::DeleteKeysRequest {
    pb::DeleteKeysRequest {
        filter: Some(named(name)),
        ..Default::default()
    }
}

fn revocation(name: &str) -> pb::RevokeKeysRequest {
    pb::RevokeKeysRequest {
        filter: Some(named(name)),
        reason: "by its name".to_owned(),
        ..Default::default()
    }
}

async fn issue_named(api: &mut Api, name: &str) -> crate::fixtures::IssuedKey {
    issue(
        api,
        issue_request_with(|new| name.clone_into(&mut new.name)),
    )
    .await
}

on_both_engines! {
    /// Seen red without the record of the answer, and with keys that keep their revision.
    async fn a_repeated_call_spares_what_was_issued_since(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let request_id = Uuid::from_u128(1).to_string();
        let id = || request_id.clone();
        let first = issue_named(root, "robot").await;
        let request = pb::RevokeKeysRequest { request_id: id(), ..revocation("ROBOT") };
        let made = root.keys.revoke_keys(request.clone()).await.unwrap().into_inner();
        assert_eq!((made.revoked, made.replayed, made.more), (1, false, false));
        assert_eq!(get(root, &first.id).await.revision, Some(made.revision));
        let second = issue_named(root, "robot").await;
        let again = root.keys.revoke_keys(request.clone()).await.unwrap().into_inner();
        assert_eq!((again.revoked, again.replayed, again.revision), (1, true, made.revision));
        assert_eq!(root.verdict(&second.plain_key).await, Verdict::Allowed);
        let other = pb::RevokeKeysRequest { reason: "another".to_owned(), ..request };
        refused_field(root.keys.revoke_keys(other).await, "request_id");
        let as_deletion = pb::DeleteKeysRequest { request_id: id(), ..deletion("ROBOT") };
        refused_field(root.keys.delete_keys(as_deletion).await, "request_id");

        let request = pb::DeleteKeysRequest { request_id: Uuid::from_u128(2).to_string(), ..deletion("robot") };
        let made = root.keys.delete_keys(request.clone()).await.unwrap().into_inner();
        assert_eq!((made.deleted, made.replayed), (2, false));
        let third = issue_named(root, "robot").await;
        let again = root.keys.delete_keys(request).await.unwrap().into_inner();
        assert_eq!((again.deleted, again.replayed, again.revision), (2, true, made.revision));
        assert_eq!(root.verdict(&third.plain_key).await, Verdict::Allowed);
        // Without a key that matches, nothing changes.
        let none = root.keys.delete_keys(deletion("nobody")).await.unwrap().into_inner();
        assert_eq!((none.deleted, none.revision >= again.revision), (0, true));
        demo.service.stop().await;
    }

    /// An operator spares itself; the key of a partner may end itself, after all others. Seen red with the caller's key among the
    /// others.
    async fn the_key_of_the_caller_is_the_last_or_spared(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let of_authority = |name: &str| Some(pb::KeyFilter {
            realm: "claviger".to_owned(),
            name: name.to_owned(),
            ..Default::default()
        });
        let own = get_self_name(&mut root).await;
        let revoke = pb::RevokeKeysRequest { filter: of_authority(&own), ..Default::default() };
        assert_eq!(refused(root.keys.revoke_keys(revoke).await).reason, "LOCKS_OUT_CALLER");
        let delete = pb::DeleteKeysRequest { filter: of_authority(&own), ..Default::default() };
        assert_eq!(refused(root.keys.delete_keys(delete.clone()).await).reason, "LOCKS_OUT_CALLER");
        let dry_run = pb::DeleteKeysRequest { dry_run: true, ..delete };
        assert_eq!(refused(root.keys.delete_keys(dry_run).await).reason, "LOCKS_OUT_CALLER");

        // The newest of its keys, so that the search finds it first; more keys than one transaction ends.
        let mut entries = Vec::new();
        for number in 0..1_100 {
            entries.push(pb::ImportEntry { name: "old".to_owned(), ..import_entry(&old_text(number)) });
        }
        let rest = entries.split_off(1_000);
        for batch in [entries, rest] {
            assert!(import(&mut root, batch).await.iter().all(Result::is_ok));
        }
        let caller = issue(&mut root, delegate(|new| "old delegate".clone_into(&mut new.name))).await;
        let mut api = service.api_as(&caller.plain_key);
        let made = api.keys.delete_keys(deletion("old")).await.unwrap().into_inner();
        assert_eq!((made.deleted, made.more), (1_101, false));
        assert_eq!(root.verdict(&caller.plain_key).await, Verdict::Unknown);
        assert_eq!(api.keys.delete_keys(deletion("old")).await.unwrap_err().code(), Code::Unauthenticated);
        service.stop().await;
    }

    /// As with the deletion of one key. Seen red with no API key forgotten.
    async fn an_imported_api_key_can_come_back_unless_it_was_revoked(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let entries: Vec<_> = (0..2)
            .map(|number| pb::ImportEntry { name: "old".to_owned(), ..import_entry(&old_text(number)) })
            .collect();
        let ids: Vec<_> = import(root, entries.clone()).await.into_iter().map(Result::unwrap).collect();
        root.revoke(&ids[0]).await.unwrap();
        let made = root.keys.delete_keys(deletion("old")).await.unwrap().into_inner();
        assert_eq!(made.deleted, 2);
        let again = import(root, entries).await;
        let reasons: Vec<_> = again.iter().map(|outcome| outcome.as_ref().err().map(|refusal| refusal.reason.as_str())).collect();
        assert_eq!(reasons, [Some("ALREADY_IMPORTED"), None]);
        demo.service.stop().await;
    }

    /// The key gets another name between the search and the deletion. Seen red without the comparison in the change.
    async fn a_key_that_has_changed_since_the_search_is_spared(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let key = issue_named(&mut demo.root, "robot").await;
        let other = issue_named(&mut demo.root, "robot").await;
        let store = &demo.service.store;
        let mut change = store.change(demo.clock.read()).await.unwrap();
        let id = KeyId::parse(&key.id).unwrap();
        let mut stored = change.find_key(id).await.unwrap().unwrap();
        "person".clone_into(&mut stored.name);
        change.update_key(&mut stored).await.unwrap();
        let before = store.sessions();
        let mut api = demo.root.clone();
        let call = tokio::spawn(async move { api.keys.delete_keys(deletion("robot")).await });
        eventually("the search began", async || (store.sessions() > before).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!call.is_finished(), "it waits for the change");
        record(change, id).await;
        let made = call.await.unwrap().unwrap().into_inner();
        assert_eq!(made.deleted, 1);
        assert_eq!(demo.root.verdict(&key.plain_key).await, Verdict::Allowed);
        assert_eq!(demo.root.verdict(&other.plain_key).await, Verdict::Unknown);
        demo.service.stop().await;
    }

    /// Seen red, for the states, with `KEY_STATE_REVOKED` left in them.
    async fn a_filter_that_names_nothing_is_refused(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue_named(root, "robot").await;
        for (field, set) in [
            ("filter.environment", &(|f: &mut pb::KeyFilter| "nowhere".clone_into(&mut f.environment)) as &dyn Fn(&mut pb::KeyFilter)),
            ("filter.realm", &|f| f.realm.clear()),
            ("filter.hint", &|f| "abc".clone_into(&mut f.hint)),
        ] {
            let mut request = deletion("robot");
            set(request.filter.as_mut().unwrap());
            refused_field(root.keys.delete_keys(request.clone()).await, field);
            let request = pb::RevokeKeysRequest { filter: request.filter, ..Default::default() };
            refused_field(root.keys.revoke_keys(request).await, field);
        }
        for set in [
            &(|f: &mut pb::KeyFilter| "nobody".clone_into(&mut f.partner)) as &dyn Fn(&mut pb::KeyFilter),
            &|f| "nothing".clone_into(&mut f.project),
            &|f| "nowhere".clone_into(&mut f.realm),
        ] {
            let mut request = deletion("robot");
            set(request.filter.as_mut().unwrap());
            assert_eq!(refused(root.keys.delete_keys(request).await).code, Code::NotFound);
        }
        let only_revoked = pb::RevokeKeysRequest {
            filter: Some(pb::KeyFilter { states: vec![KeyState::Revoked.into()], ..named("robot") }),
            ..Default::default()
        };
        refused_field(root.keys.revoke_keys(only_revoked).await, "filter.states");
        refused_field(root.keys.delete_keys(pb::DeleteKeysRequest::default()).await, "filter.realm");
        assert_eq!(root.verdict(&key.plain_key).await, Verdict::Allowed);

        let gateway = issue(root, authority_key_request("verify", "demo")).await;
        let mut api = demo.service.api_as(&gateway.plain_key);
        let denied = api.keys.delete_keys(deletion("robot")).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        demo.service.stop().await;
    }

    /// Seen red with every key counted; and, for the living key, with none.
    async fn dead_keys_keep_nothing_from_being_deleted(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let now = demo.clock.now();
        let root = &mut demo.root;
        let gateway = issue(root, authority_key_request("verify", "demo")).await;
        let of = |partner: &str, project: &str| {
            let (partner, project) = (partner.to_owned(), project.to_owned());
            issue_request_with(move |new| {
                new.level = if project.is_empty() { pb::KeyLevel::Partner.into() } else { pb::KeyLevel::Project.into() };
                new.partner = partner;
                new.project = project;
                new.expire_time = Some(proto_time(now.saturating_add(Duration::from_hours(1))));
            })
        };
        let expiring = issue(root, of("acme", "")).await;
        let revoked = issue(root, of("acme", "one")).await;
        let by_rule = issue(root, of("acme", "one")).await;
        let disabled = issue(root, of("acme", "")).await;
        let request = pb::DisableKeyRequest { key_id: disabled.id.clone(), ..Default::default() };
        root.keys.disable_key(request).await.unwrap();
        let never = pb::UpdateKeyRequest {
            key_id: disabled.id.clone(),
            update_mask: Some(prost_types::FieldMask { paths: vec!["expire_time".to_owned()] }),
            ..Default::default()
        };
        root.keys.update_key(never).await.unwrap();
        root.revoke(&revoked.id).await.unwrap();

        let project = pb::DeleteProjectRequest { realm: "demo".to_owned(), project: "one".to_owned(), ..Default::default() };
        assert_eq!(refused(root.realms.delete_project(project.clone()).await).reason, "STILL_HAS_KEYS");
        assert_eq!(get(root, &revoked.id).await.state(), KeyState::Revoked, "nothing is deleted by halves");
        let rule = pb::RevokeKeysRequest {
            filter: Some(pb::KeyFilter { realm: "demo".to_owned(), project: "one".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        root.keys.revoke_keys(rule).await.unwrap();
        root.realms.delete_project(project).await.unwrap();
        for key in [&revoked, &by_rule] {
            assert_eq!(root.verdict(&key.plain_key).await, Verdict::Unknown);
        }

        demo.clock.set(now.saturating_add(Duration::from_hours(2)));
        let partner = pb::DeletePartnerRequest { realm: "demo".to_owned(), partner: "acme".to_owned(), ..Default::default() };
        let refusal = refused(root.realms.delete_partner(partner.clone()).await);
        assert_eq!(refusal.reason, "STILL_HAS_KEYS");
        assert_eq!(get(root, &expiring.id).await.state(), KeyState::Expired);
        let old = pb::DeletePartnerRequest { if_revision: Some(1), ..partner.clone() };
        root.revoke(&disabled.id).await.unwrap();
        assert_eq!(refused(root.realms.delete_partner(old).await).code, Code::Aborted);
        assert_eq!(get(root, &expiring.id).await.state(), KeyState::Expired, "not before the revision is compared");
        root.realms.delete_partner(partner).await.unwrap();
        for key in [&expiring, &disabled] {
            assert_eq!(root.verdict(&key.plain_key).await, Verdict::Unknown);
            let request = pb::ListEventsRequest { key_id: key.id.clone(), page_size: 1, ..Default::default() };
            let events = root.keys.list_events(request).await.unwrap().into_inner().events;
            assert_eq!(events[0].kind, "key.deleted");
        }

        // With the keys of its gateways and managers.
        let realm = pb::DeleteRealmRequest { realm_id: "demo".to_owned(), ..Default::default() };
        assert_eq!(refused(root.realms.delete_realm(realm.clone()).await).reason, "STILL_HAS_KEYS");
        root.revoke(&gateway.id).await.unwrap();
        root.realms.delete_realm(realm).await.unwrap();
        demo.service.stop().await;
    }

    /// Seen red without the end: the call then never ends.
    async fn an_unreadable_dead_key_keeps_its_owner(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let readable = issue(root, issue_request()).await;
        issue_named(root, "spoiled").await;
        // By rules, which say nothing of what can be read.
        revoke_keys(root, |request| "acme".clone_into(&mut request.filter.get_or_insert_default().partner)).await.unwrap();
        let spoil = "UPDATE keys SET facts = replace(facts, '\"secrets\"', '\"secret\"') WHERE name = 'spoiled'";
        demo.service.test_store.execute_sql(&[spoil]).await;
        let partner = pb::DeletePartnerRequest { realm: "demo".to_owned(), partner: "acme".to_owned(), ..Default::default() };
        let refusal = timeout(DEADLINE, root.realms.delete_partner(partner)).await.expect("it ends");
        let refusal = refusal.unwrap_err();
        assert!(refusal.message().contains("stored data cannot be read"), "{refusal}");
        eventually("the other key is deleted", async || {
            (root.verdict(&readable.plain_key).await == Verdict::Unknown).then_some(())
        })
        .await;
        demo.service.stop().await;
    }

    /// Seen red with every key counted, and with an expiry that brings the scope back.
    async fn a_scope_of_dead_keys_can_be_deleted_and_does_not_come_back(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let now = demo.clock.now();
        let root = &mut demo.root;
        let extra = |name: &str| {
            let mut realm = demo_realm();
            realm.scopes.push(pb::Scope { name: name.to_owned(), ..Default::default() });
            realm
        };
        root.put_realm(extra("extra")).await;
        let holding = |partner: &'static str, end: Duration| issue_request_with(move |new| {
            partner.clone_into(&mut new.partner);
            new.scopes = vec!["extra".to_owned()];
            new.expire_time = Some(proto_time(now.saturating_add(end)));
        });
        let soon = issue(root, holding("acme", Duration::from_hours(1))).await;
        let by_rule = issue(root, holding("umbrella", Duration::from_hours(99))).await;
        let without = pb::PutRealmRequest { realm: Some(demo_realm()), ..Default::default() };
        assert_eq!(refused(root.realms.put_realm(without.clone()).await).reason, "STILL_HAS_KEYS");
        demo.clock.set(now.saturating_add(Duration::from_hours(2)));
        assert_eq!(refused(root.realms.put_realm(without.clone()).await).reason, "STILL_HAS_KEYS");
        let kept = issue(root, issue_request()).await;
        revoke_keys(root, |request| "umbrella".clone_into(&mut request.filter.get_or_insert_default().partner)).await.unwrap();
        root.realms.put_realm(without).await.unwrap();
        assert_eq!(root.verdict(&soon.plain_key).await, Verdict::Expired);
        assert_eq!(root.verdict(&by_rule.plain_key).await, Verdict::Revoked);
        assert_eq!(root.verdict(&kept.plain_key).await, Verdict::Allowed);
        let later = Some(proto_time(now.saturating_add(Duration::from_hours(9))));
        let refusal = update(root, &soon.id, &["expire_time"], |request| request.expire_time = later).await;
        refused_field(refusal, "expire_time");
        update(root, &soon.id, &["expire_time", "scopes"], |request| request.expire_time = later).await.unwrap();
        assert_eq!(root.verdict(&soon.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }

    /// Seen red with the time of the key's issue in place of its end, and without the rules.
    async fn dead_keys_are_forgotten_after_their_time(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let now = demo.clock.now();
        let at = |hours: u64| now.saturating_add(Duration::from_hours(hours));
        let root = &mut demo.root;
        let until = |hours| issue_request_with(move |new| new.expire_time = Some(proto_time(at(hours))));
        let expires = issue(root, until(1)).await;
        let expires_later = issue(root, until(40)).await;
        let revoked = issue(root, issue_request()).await;
        let by_rule = issue(root, issue_request_with(|new| "umbrella".clone_into(&mut new.partner))).await;
        root.revoke(&revoked.id).await.unwrap();
        demo.clock.set(at(24));
        revoke_keys(root, |request| "umbrella".clone_into(&mut request.filter.get_or_insert_default().partner)).await.unwrap();
        let lives = issue(root, issue_request()).await;
        let retention = Retention { events: Span::Forever, usage: Span::Forever, tombstones: Span::Forever, keys: Span::For(Duration::from_hours(24)) };
        for (hours, left) in [
            (24, vec![&expires, &expires_later, &by_rule, &lives]),
            (26, vec![&expires_later, &by_rule, &lives]),
            (49, vec![&expires_later, &lives]),
            (99, vec![&lives]),
        ] {
            demo.clock.set(at(hours));
            // Without a change there was nothing that told the server of the time.
            if hours == 24 {
                demo.clock.set(at(24).saturating_add(Duration::from_secs(1)));
            }
            retention.forget(&demo.service.store, &demo.service.mirror, &demo.clock).await.unwrap();
            let mut ids = list_in_states(root, "demo", &[]).await;
            ids.reverse();
            let expected: Vec<_> = left.iter().map(|key| key.id.clone()).collect();
            assert_eq!(ids, expected, "after {hours} hours");
        }
        for key in [&expires, &revoked, &by_rule, &expires_later] {
            eventually("the server follows", async || (root.verdict(&key.plain_key).await == Verdict::Unknown).then_some(())).await;
            let request = pb::ListEventsRequest { key_id: key.id.clone(), page_size: 1, ..Default::default() };
            let event = root.keys.list_events(request).await.unwrap().into_inner().events.remove(0);
            assert_eq!((event.kind.as_str(), event.actor.as_str(), event.peer.as_str()), ("key.deleted", "", ""));
            assert_eq!(event.detail["reason"], "retention of dead keys");
        }
        assert_eq!(root.verdict(&lives.plain_key).await, Verdict::Allowed);
        demo.service.stop().await;
    }
}

/// The API key of this number in another system.
fn old_text(number: usize) -> String {
    format!("s3fzXw8Rk2VbN5yLm9Qp4TdH{number:08}")
}

/// The name of the operator's own key.
async fn get_self_name(root: &mut Api) -> String {
    let request = pb::ListKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "claviger".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let keys = root
        .keys
        .list_keys(request)
        .await
        .unwrap()
        .into_inner()
        .keys;
    keys.last().unwrap().name.clone()
}
