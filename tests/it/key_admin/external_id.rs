//! External ids: the ids that another system has for keys. No two keys of a realm have the same one, and only operators and
//! managers choose them.

use std::collections::BTreeSet;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use pb::explain_request::Question;
use tonic::{Code, Response, Status};

use super::delegation::delegate;
use crate::fixtures::{
    Api, DemoService, Engine, HOUR, Refusal, after, authority_key_request, delegating_service,
    demo_realm, get, import, import_entry, import_outcome, issue, issue_request,
    issue_request_with, list_keys, on_both_engines, refused, refused_field, request_id, rotate,
    strings, time, update, verify_request,
};

/// The form of Peaka's `apiKeyId`.
const ID: &str = "21fd1a8d-88d5-4295-b792-5b2113138057";
const TEXT: &str = "TtgGcQFq.s3fzROFoop8uHG4pS2LYhoqn1rLb6oW6";
const OTHER_TEXT: &str = "TtgGcQFq.Zx8Rk2VbN5yLm9Qp4TdHj7CgE1aUw0Ki";

fn request(external_id: &str) -> pb::IssueKeyRequest {
    issue_request_with(|request| external_id.clone_into(&mut request.external_id))
}

fn entry(text: &str, external_id: &str) -> pb::ImportEntry {
    pb::ImportEntry {
        external_id: external_id.to_owned(),
        ..import_entry(text)
    }
}

async fn set(
    api: &mut Api,
    key_id: &str,
    external_id: &str,
) -> Result<pb::UpdateKeyResponse, Status> {
    update(api, key_id, &["external_id"], |request| {
        external_id.clone_into(&mut request.external_id);
    })
    .await
}

/// The keys of `demo` that have this external id.
async fn find(api: &mut Api, external_id: &str) -> Vec<String> {
    let listed = list_keys(api, |request| {
        let filter = request.filter.get_or_insert_default();
        external_id.clone_into(&mut filter.external_id);
    });
    listed.await.unwrap()
}

/// Checks that the refusal says that this key has the external id; an earlier entry of an import if there is no key.
#[track_caller]
fn is_taken(refusal: &Refusal, by: Option<&str>) {
    assert_eq!(refusal.code, Code::AlreadyExists, "{refusal:?}");
    assert_eq!(refusal.reason, "EXTERNAL_ID_TAKEN");
    assert_eq!(refusal.fields, ["external_id"]);
    assert_eq!(refusal.metadata.get("key_id").map(String::as_str), by);
}

on_both_engines! {
    /// Seen red with a rotation that drops it, without the condition of the list, and without the field in the event.
    async fn a_key_keeps_it_and_is_found_by_it(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, request(ID)).await;
        assert_eq!(key.key.external_id, ID);
        let without = issue(root, issue_request()).await;
        assert_eq!(without.key.external_id, "");
        let longest = issue(root, request(&"é".repeat(128))).await;
        let entry = entry(TEXT, "of the other system");
        let imported = import(root, vec![entry]).await.remove(0).unwrap();
        assert_eq!(find(root, ID).await, [key.id.as_str()]);
        assert_eq!(find(root, &"é".repeat(128)).await, [longest.id.as_str()]);
        assert_eq!(find(root, "of the other system").await, [imported.as_str()]);
        // Byte by byte: not by another case, a space more or another form of the same letters.
        for other in [&ID.to_uppercase(), &format!("{ID} "), &ID[..35], &"e\u{301}".repeat(64)] {
            assert_eq!(find(root, other).await, [""; 0], "{other}");
        }
        assert_eq!(find(root, "").await.len(), 4, "an empty filter lets every key through");

        for id in [&key.id, &imported] {
            let before = get(root, id).await.external_id;
            rotate(root, id, 60).await.unwrap();
            assert_eq!(get(root, id).await.external_id, before);
        }
        let moved = set(root, &key.id, "another").await.unwrap().key.unwrap();
        assert_eq!(moved.external_id, "another");
        assert_eq!((find(root, ID).await.len(), find(root, "another").await.len()), (0, 1));
        let same = set(root, &key.id, "another").await.unwrap();
        assert_eq!(same.key.unwrap().revision, moved.revision, "nothing changes");
        let named = update(root, &key.id, &["name"], |request| "named".clone_into(&mut request.name));
        assert_eq!(named.await.unwrap().key.unwrap().external_id, "another");
        let removed = set(root, &key.id, "").await.unwrap().key.unwrap();
        assert_eq!(removed.external_id, "");
        assert_eq!(find(root, "another").await, [""; 0]);

        // The audit trail shows it like the name, newest first.
        let events = pb::ListEventsRequest { key_id: key.id.clone(), ..Default::default() };
        let events = root.keys.list_events(events).await.unwrap().into_inner().events;
        let told: Vec<_> = events
            .iter()
            .map(|event| {
                let told = |name: &str| event.detail.get(name).map(String::as_str);
                (event.kind.as_str(), told("changed"), told("external_id"))
            })
            .collect();
        assert_eq!(told, [
            ("key.updated", Some("external_id"), None),
            ("key.updated", Some("name"), None),
            ("key.updated", Some("external_id"), Some("another")),
            ("key.rotated", None, None),
            ("key.issued", None, Some(ID)),
        ]);
        demo.service.stop().await;
    }

    /// Seen red without the look-up in `IssueKey`, in `UpdateKey` and in `ImportKeys`, and with one that also finds the key itself.
    async fn no_two_keys_of_a_realm_have_the_same_one(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let other_realm = pb::Realm { id: "other".to_owned(), prefix: "other".to_owned(), ..demo_realm() };
        root.put_realm(other_realm).await;
        let partner = pb::Partner { realm: "other".to_owned(), id: "acme".to_owned(), ..Default::default() };
        let put = pb::PutPartnerRequest { partner: Some(partner), ..Default::default() };
        root.realms.put_partner(put).await.unwrap();
        let holder = issue(root, request(ID)).await;
        let other = issue(root, request("other")).await;
        issue(root, pb::IssueKeyRequest { realm: "other".to_owned(), ..request(ID) }).await;

        let manager = issue(root, authority_key_request("manage", "demo")).await;
        let mut manager = root.with_key(&manager.plain_key);
        for end in ["", "disabled", "expired", "revoked"] {
            match end {
                "" => {}
                "disabled" => {
                    let request = pb::DisableKeyRequest { key_id: holder.id.clone(), ..Default::default() };
                    root.keys.disable_key(request).await.unwrap();
                }
                "expired" => {
                    let soon = time(HOUR);
                    update(root, &holder.id, &["expire_time"], |request| request.expire_time = soon).await.unwrap();
                    demo.clock.advance(after(2 * HOUR));
                }
                _ => drop(root.revoke(&holder.id).await.unwrap()),
            }
            let by = Some(holder.id.as_str());
            for api in [&mut *root, &mut manager] {
                let umbrella = pb::IssueKeyRequest { partner: "umbrella".to_owned(), ..request(ID) };
                is_taken(&refused(api.keys.issue_key(umbrella).await), by);
                is_taken(&refused(set(api, &other.id, ID).await), by);
                let imported = import(api, vec![entry(TEXT, ID), entry(OTHER_TEXT, ID)]).await;
                for outcome in imported {
                    is_taken(&outcome.unwrap_err(), by);
                }
            }
        }
        let left = list_keys(root, |_| ()).await.unwrap();
        assert_eq!(BTreeSet::from_iter(&left), BTreeSet::from([&holder.id, &other.id]), "nothing was made");
        assert_eq!(get(root, &other.id).await.external_id, "other");

        root.delete(&holder.id).await.unwrap();
        let next = issue(root, request(ID)).await;
        assert_eq!(find(root, ID).await, [next.id.as_str()]);
        demo.service.stop().await;
    }

    /// Seen red without the check in the second pass: the index then refuses the others, as a fault of the server.
    async fn of_requests_at_once_one_gets_it(engine: Engine) {
        let demo = DemoService::on(engine).await;
        let calls: Vec<_> = (0..12)
            .map(|_| {
                let mut api = demo.service.api();
                tokio::spawn(async move {
                    loop {
                        match api.keys.issue_key(request(ID)).await {
                            Err(status) if status.code() == Code::ResourceExhausted => {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                            answer => return answer.map(Response::into_inner),
                        }
                    }
                })
            })
            .collect();
        let (mut made, mut refusals) = (Vec::new(), Vec::new());
        for call in calls {
            match call.await.unwrap() {
                Ok(issued) => made.push(issued.key.unwrap().id),
                Err(status) => refusals.push(Refusal::of(&status)),
            }
        }
        assert_eq!(made.len(), 1);
        for refusal in &refusals {
            is_taken(refusal, Some(&made[0]));
        }
        assert_eq!(find(&mut demo.service.api(), ID).await, made);
        demo.service.stop().await;
    }

    /// Seen red without the ids of the entries so far, with those of refused entries, and with the id looked at before the API key.
    async fn an_import_refuses_only_the_entries_whose_id_is_not_free(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let holder = issue(root, request("taken")).await;
        let text = |number: u8| format!("TtgGcQFq.s3fzROFoop8uHG4pS2LYhoqn1rLb{number:04}");
        let no_partner = pb::ImportEntry { partner: "nobody".to_owned(), ..entry(&text(0), ID) };
        let entries = vec![
            no_partner,
            entry(&text(1), ID),
            entry(&text(2), ID),
            entry(&text(3), "taken"),
            entry(&text(4), ""),
            entry(&text(5), ""),
            entry(&text(6), "a\u{1}"),
            entry(&text(1), "free"),
        ];
        let mut made = Vec::new();
        for dry_run in [true, false, false] {
            let request = pb::ImportKeysRequest {
                realm: "demo".to_owned(),
                entries: entries.clone(),
                dry_run,
                ..Default::default()
            };
            let answer = root.keys.import_keys(request).await.unwrap().into_inner();
            let outcomes: Vec<_> = answer.results.into_iter().map(import_outcome).collect();
            assert_eq!(outcomes[0].as_ref().unwrap_err().code, Code::NotFound);
            is_taken(outcomes[3].as_ref().unwrap_err(), Some(&holder.id));
            assert_eq!(outcomes[6].as_ref().unwrap_err().fields, ["external_id"]);
            assert_eq!(outcomes[7].as_ref().unwrap_err().reason, "ALREADY_IMPORTED");
            if made.is_empty() {
                is_taken(outcomes[2].as_ref().unwrap_err(), None);
                let accepted = [1, 4, 5].map(|index| outcomes[index].as_ref().unwrap().clone());
                if !dry_run {
                    made.extend(accepted);
                }
            } else {
                // Sent again: the API key tells first that the entry was imported.
                for index in [1, 4, 5] {
                    assert_eq!(outcomes[index].as_ref().unwrap_err().reason, "ALREADY_IMPORTED");
                }
                is_taken(outcomes[2].as_ref().unwrap_err(), Some(&made[0]));
            }
        }
        assert_eq!(find(root, ID).await, [made[0].as_str()]);
        assert_eq!(find(root, "free").await, [""; 0]);
        demo.service.stop().await;
    }

    /// Seen red with the role not asked in `NewKey::check_reach` and in `update_key`.
    async fn a_partners_own_key_sees_it_and_does_not_choose_it(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let own = issue(&mut root, delegate(|_| ())).await;
        let mut partner = service.api_as(&own.plain_key);
        let write = |external_id: &'static str| {
            delegate(move |request| {
                request.scopes = strings(&["write"]);
                external_id.clone_into(&mut request.external_id);
            })
        };
        let known = issue(&mut root, write("known")).await;
        let plain = issue(&mut partner, write("")).await;
        let foreign = |request: &mut pb::IssueKeyRequest| {
            "umbrella".clone_into(&mut request.partner);
            "foreign".clone_into(&mut request.external_id);
        };
        let foreign = issue(&mut root, delegate(foreign)).await;

        // The same refusal whether the id is free, one's own or another partner's, and whatever the key is.
        let expected = refused(partner.keys.issue_key(write("free")).await);
        assert_eq!((expected.code, expected.reason.as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        for id in ["free", "known", "foreign", ""] {
            let mut refusals = Vec::new();
            if !id.is_empty() {
                refusals.push(partner.keys.issue_key(write(id)).await.err().unwrap());
            }
            for key in [&known.id, &plain.id, &foreign.id, &own.id] {
                refusals.push(set(&mut partner, key, id).await.unwrap_err());
            }
            for refusal in refusals {
                assert_eq!(refusal.code(), Code::PermissionDenied, "{id}");
                assert!(refusal.message().starts_with("external_id: only operators"), "{refusal:?}");
            }
        }
        let imported = pb::ImportKeysRequest {
            realm: "demo".to_owned(),
            entries: vec![entry(TEXT, "free")],
            ..Default::default()
        };
        assert_eq!(refused(partner.keys.import_keys(imported).await).code, Code::PermissionDenied);

        // It sees the ids of the keys that it administers, and no others.
        assert_eq!(get(&mut partner, &known.id).await.external_id, "known");
        assert_eq!(find(&mut partner, "known").await, [known.id.as_str()]);
        assert_eq!(find(&mut partner, "foreign").await, [""; 0]);
        // All other changes keep the id, and a deletion frees it.
        let named = update(&mut partner, &known.id, &["name"], |request| "named".clone_into(&mut request.name));
        assert_eq!(named.await.unwrap().key.unwrap().external_id, "known");
        let rotated = rotate(&mut partner, &known.id, 0).await.unwrap();
        assert_eq!(rotated.key.unwrap().external_id, "known");
        partner.delete(&known.id).await.unwrap();
        set(&mut root, &plain.id, "known").await.unwrap();
        service.stop().await;
    }

    /// Seen red with a fingerprint without the field.
    async fn a_repeated_request_gets_the_first_answer(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let once = pb::IssueKeyRequest { request_id: request_id(), ..request(ID) };
        let first = root.keys.issue_key(once.clone()).await.unwrap().into_inner();
        let again = root.keys.issue_key(once.clone()).await.unwrap().into_inner();
        assert!(again.replayed);
        assert_eq!((&again.key, again.revision), (&first.key, first.revision));
        let differently = pb::IssueKeyRequest { external_id: "another".to_owned(), ..once };
        refused_field(root.keys.issue_key(differently).await, "request_id");

        let once = pb::ImportKeysRequest {
            realm: "demo".to_owned(),
            entries: vec![entry(TEXT, "imported"), entry(OTHER_TEXT, ID)],
            request_id: request_id(),
            ..Default::default()
        };
        let first = root.keys.import_keys(once.clone()).await.unwrap().into_inner();
        // The id is free by now, but the answer stays the same.
        let holder = again.key.unwrap().id;
        root.delete(&holder).await.unwrap();
        let again = root.keys.import_keys(once.clone()).await.unwrap().into_inner();
        assert!(again.replayed);
        assert_eq!(again.results, first.results);
        is_taken(&import_outcome(again.results[1].clone()).unwrap_err(), Some(&holder));
        let mut differently = once;
        "another".clone_into(&mut differently.entries[0].external_id);
        refused_field(root.keys.import_keys(differently).await, "request_id");
        demo.service.stop().await;
    }

    /// Seen red with the external id as the name of the key in the mirror.
    async fn verification_works_and_does_not_tell_it(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let issued = issue(&mut demo.root, request("external-one")).await;
        import(&mut demo.root, vec![entry(TEXT, "external-two")]).await.remove(0).unwrap();
        // Applied one by one, and then loaded.
        for _ in 0..2 {
            for text in [issued.plain_key.as_str(), TEXT] {
                let question = verify_request(text);
                let answer = demo.root.verify.verify(question.clone()).await.unwrap().into_inner();
                assert_eq!(answer.verdict(), Verdict::Allowed);
                let batch = pb::VerifyBatchRequest { requests: vec![question.clone()] };
                let batch = demo.root.verify.verify_batch(batch).await.unwrap().into_inner();
                let explain = pb::ExplainRequest { question: Some(Question::Verify(question)) };
                let explained = demo.root.verify.explain(explain).await.unwrap().into_inner();
                let told = format!("{answer:?} {batch:?} {explained:?}");
                assert!(told.contains(&answer.key.unwrap().id) && !told.contains("external-"), "{told}");
            }
            demo = demo.restarted().await;
        }
        demo.service.stop().await;
    }

    /// Seen red without the check of the filter.
    async fn an_id_that_cannot_be_one_is_refused(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request()).await;
        for bad in ["é".repeat(129), "a\u{0}".to_owned(), "a\nb".to_owned(), "\u{85}".to_owned()] {
            refused_field(root.keys.issue_key(request(&bad)).await, "external_id");
            refused_field(set(root, &key.id, &bad).await, "external_id");
            let listed = list_keys(root, |request| bad.clone_into(&mut request.filter.get_or_insert_default().external_id));
            refused_field(listed.await, "filter.external_id");
            let imported = import(root, vec![entry(TEXT, &bad)]).await.remove(0).unwrap_err();
            assert_eq!((imported.code, imported.fields), (Code::InvalidArgument, strings(&["external_id"])));
        }
        // Not named in the mask.
        let unnamed = update(root, &key.id, &["name"], |request| ID.clone_into(&mut request.external_id));
        refused_field(unnamed.await, "external_id");
        assert_eq!(get(root, &key.id).await, key.key);
        demo.service.stop().await;
    }
}
