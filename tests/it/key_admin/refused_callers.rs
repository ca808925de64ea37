//! What a caller learns of its own key that is refused. Nobody else learns anything of a key.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use tonic::{Code, Status};

use crate::fixtures::{
    Api, DemoService, Engine, HOUR, IssuedKey, Proxy, Refusal, SECOND, Service, TestStore, Traffic,
    after, authority_key_request, eventually, get, get_self, issue, issue_request_with,
    on_both_engines, refused, revoke_keys, rotate, strings, time, verify_request,
};

/// The longest name: 128 characters of four bytes each, of which one reverses the writing direction.
fn longest_name() -> String {
    format!("\u{202e}{}", "𝔫".repeat(127))
}

fn facts(of: &[(&str, &str)]) -> HashMap<String, String> {
    let facts = of
        .iter()
        .map(|(name, fact)| ((*name).to_owned(), (*fact).to_owned()));
    facts.collect()
}

/// What every refusal tells of a key of `demo`.
fn of_key(issued: &IssuedKey, verdict: Verdict) -> HashMap<String, String> {
    let pb::Key {
        id,
        name,
        hint,
        partner,
        ..
    } = &issued.key;
    let mut facts = facts(&[
        ("verdict", verdict.as_str_name()),
        ("key_id", id),
        ("hint", hint),
        ("realm", "demo"),
        ("partner", partner),
    ]);
    if !name.is_empty() {
        facts.insert("name".to_owned(), name.clone());
    }
    facts
}

/// The refusal of a caller, which every service gives, and whether the reason of a revocation is in it.
async fn refusal(caller: &mut Api) -> (Refusal, Status) {
    let status = get_self(caller).await.unwrap_err();
    let realms = caller
        .realms
        .list_realms(pb::ListRealmsRequest::default())
        .await;
    let replicas = caller
        .authority
        .list_replicas(pb::ListReplicasRequest::default())
        .await;
    let refusal = Refusal::of(&status);
    for other in [refused(realms), refused(replicas)] {
        assert_eq!(other.metadata, refusal.metadata);
    }
    (refusal, status)
}

on_both_engines! {
    /// Seen red without `not_accepted` (no hint, no time of the revocation), with the hint of the key for an old
    /// secret, and with the reason of the revocation among the facts.
    async fn the_holder_of_a_refused_key_learns_which_key_it_is_and_since_when(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        root.put_partner("initech", false).await;
        let of = |partner: &str| {
            let partner = partner.to_owned();
            issue_request_with(|key| key.partner = partner)
        };
        let expired = issue(root, issue_request_with(|key| {
            key.name = longest_name();
            key.expire_time = time(HOUR);
        })).await;
        let rotated = issue(root, of("acme")).await;
        let disabled = issue(root, of("acme")).await;
        let revoked = issue(root, of("acme")).await;
        let by_rule = issue(root, of("umbrella")).await;
        let suspended = issue(root, of("initech")).await;
        let elsewhere = issue(root, issue_request_with(|key| {
            key.allowed_cidrs = strings(&["192.0.2.0/24"]);
        })).await;
        let living = issue(root, of("acme")).await;
        rotate(root, &rotated.id, 3600).await.unwrap();
        assert_ne!(get(root, &rotated.id).await.hint, rotated.key.hint);
        root.keys.disable_key(pb::DisableKeyRequest {
            key_id: disabled.id.clone(),
            ..Default::default()
        }).await.unwrap();
        root.put_partner("initech", true).await;
        demo.clock.advance(after(10 * SECOND));
        root.revoke(&revoked.id).await.unwrap();
        revoke_keys(root, |request| {
            "umbrella".clone_into(&mut request.filter.as_mut().unwrap().partner);
        }).await.unwrap();
        demo.clock.advance(after(2 * HOUR));

        let at_ten = ("revoke_time", "2030-01-01T00:00:10Z");
        let at_one = |name| (name, "2030-01-01T01:00:00Z");
        for (key, verdict, fact, code) in [
            (&expired, Verdict::Expired, Some(at_one("expire_time")), Code::Unauthenticated),
            (&rotated, Verdict::Expired, Some(at_one("old_expire_time")), Code::Unauthenticated),
            (&disabled, Verdict::Disabled, None, Code::Unauthenticated),
            (&revoked, Verdict::Revoked, Some(at_ten), Code::Unauthenticated),
            (&by_rule, Verdict::Revoked, Some(at_ten), Code::Unauthenticated),
            (&suspended, Verdict::PartnerSuspended, None, Code::PermissionDenied),
            (&elsewhere, Verdict::AddressDenied, None, Code::PermissionDenied),
        ] {
            let (refusal, status) = refusal(&mut demo.service.api_as(&key.plain_key)).await;
            let mut expected = of_key(key, verdict);
            if verdict == Verdict::AddressDenied {
                expected.retain(|name, _| ["verdict", "key_id"].contains(&&**name));
            }
            expected.extend(facts(fact.as_slice()));
            assert_eq!(refusal.metadata, expected);
            let reason = if code == Code::Unauthenticated { "NOT_AUTHENTICATED" } else { "NOT_ALLOWED" };
            assert_eq!((refusal.code, &*refusal.reason), (code, reason));
            // gRPC's C core accepts at most 8 KiB in all headers together. Details are sent as base64.
            assert!(status.message().len() + status.details().len() * 4 / 3 < 2 * 1024);
            let details = String::from_utf8_lossy(status.details()).into_owned();
            assert!(!details.contains("a test") && !details.contains("many at once"), "{details}");
            // A question about the key is answered as before.
            let answer = demo.root.ask(&key.plain_key).await;
            let asked = if key.id == elsewhere.id { Verdict::AddressDenied } else { verdict };
            assert_eq!(answer.verdict(), asked);
        }
        // A key that is not refused but may not do something tells no facts.
        let realms = demo.service.api_as(&living.plain_key).realms
            .list_realms(pb::ListRealmsRequest::default()).await;
        assert_eq!(refused(realms).metadata, HashMap::new());
        demo.service.stop().await;
    }

    /// Seen red with the facts of the key of which only the id is proven.
    async fn who_did_not_prove_the_key_learns_nothing(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let revoked = issue(root, issue_request_with(|key| "secret name".clone_into(&mut key.name))).await;
        // The old API key has the right id, but its secret is gone.
        rotate(root, &revoked.id, 0).await.unwrap();
        root.revoke(&revoked.id).await.unwrap();
        let deleted = root.issue().await;
        root.delete(&deleted.key.unwrap().id).await.unwrap();
        let mut errors = Vec::new();
        for key in [&*revoked.plain_key, &*deleted.plain_key, "demo_live_nothing"] {
            let status = get_self(&mut demo.service.api_as(key)).await.unwrap_err();
            assert_eq!(Refusal::of(&status).metadata, HashMap::new());
            errors.push((status.code(), status.message().to_owned(), status.details().to_vec()));
        }
        errors.dedup();
        assert_eq!(errors.len(), 1, "all are refused alike");
        demo.service.stop().await;
    }

    /// A gateway's own key is a caller's key as any other, but what only the store knows is not told. Seen red without the facts in
    /// the conversion of `AuthError`.
    async fn a_gateway_learns_of_its_own_key_and_of_the_verified_key_what_it_learned_before(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let gateway = issue(&mut demo.root, pb::IssueKeyRequest {
            name: "front door".to_owned(),
            expire_time: time(HOUR),
            ..authority_key_request("verify", "demo")
        }).await;
        let verified = demo.root.issue().await;
        demo.root.revoke(&verified.key.unwrap().id).await.unwrap();
        let mut api = demo.service.api_as(&gateway.plain_key);
        let answer = api.ask(&verified.plain_key).await;
        assert_eq!(answer.verdict(), Verdict::Revoked);
        demo.clock.advance(after(2 * HOUR));
        let status = api.verify.verify(verify_request(&verified.plain_key)).await.unwrap_err();
        assert_eq!(Refusal::of(&status).metadata, facts(&[
            ("verdict", "VERDICT_EXPIRED"),
            ("key_id", &gateway.id),
            ("name", "front door"),
            ("realm", "claviger"),
            ("partner", "demo"),
            ("expire_time", "2030-01-01T01:00:00Z"),
        ]));
        demo.service.stop().await;
    }
}

/// Seen red without the limit of time: the refusal comes with the answer of the database.
#[tokio::test]
async fn a_database_that_does_not_answer_delays_no_refusal() {
    let direct = TestStore::on(Engine::Postgres);
    let proxy = Proxy::to(direct.database().cluster.socket()).await;
    let service = Service::start_with(direct.through(&proxy), Clock::system(), "", &[]).await;
    let mut root = service.api();
    root.make_demo().await;
    let disabled = issue(
        &mut root,
        issue_request_with(|key| "ci".clone_into(&mut key.name)),
    )
    .await;
    let mut holder = service.api_as(&disabled.plain_key);
    get_self(&mut holder).await.unwrap();
    let request = pb::DisableKeyRequest {
        key_id: disabled.id.clone(),
        ..Default::default()
    };
    root.keys.disable_key(request).await.unwrap();
    let hint = |status: &Status| Refusal::of(status).metadata.remove("hint");
    assert!(hint(&get_self(&mut holder).await.unwrap_err()).is_some());
    proxy.set(Traffic::Held);
    for _ in 0..4 {
        let began = Instant::now();
        let status = get_self(&mut holder).await.unwrap_err();
        let refusal = Refusal::of(&status);
        assert_eq!(refusal.metadata["verdict"], "VERDICT_DISABLED", "{status}");
        assert_eq!(refusal.metadata["name"], "ci");
        assert!(hint(&status).is_none());
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }
    // Who looked meanwhile keeps nobody from looking later.
    proxy.set(Traffic::Flows);
    eventually("the store is asked again", async || {
        hint(&get_self(&mut holder).await.unwrap_err())
    })
    .await;
    service.stop().await;
}
