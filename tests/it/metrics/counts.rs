//! Each verdict, answer and refusal is counted where it belongs, and exactly.

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use tonic::Code;

use super::Scrape;
use crate::fixtures::{
    Api, Engine, Program, TestStore, authority_key_request, demo_realm, envoy_check, eventually,
    forward_auth, from_env, header_source, verify_request,
};

/// `demo` at gateways: keys come in `x-api-key`, `/v1/open` is public, and `/v1/data` needs the scope `write`.
pub(super) fn realm_at_gateways() -> pb::Realm {
    use pb::route::Target;
    pb::Realm {
        credentials: Some(pb::Credentials {
            sources: vec![header_source("x-api-key", "")],
            ..Default::default()
        }),
        routes: vec![
            pb::Route {
                path: "/v1/open".to_owned(),
                target: Some(Target::Public(true)),
                ..Default::default()
            },
            pb::Route {
                path: "/v1/data".to_owned(),
                scopes: vec!["write".to_owned()],
                ..Default::default()
            },
        ],
        ..demo_realm()
    }
}

/// What the scrape after something has more of than the one before, apart from what grows by itself.
async fn counted(program: &Program, work: impl Future<Output = ()>) -> Vec<String> {
    let before = Scrape::of(&program.http).await;
    work.await;
    let after = Scrape::of(&program.http).await;
    let of_interest = [
        "claviger_verdicts",
        "claviger_gateway_",
        "claviger_refusals",
        "grpc_server_handled",
    ];
    let grown = after.grown_since(&before);
    let grown = grown.into_iter().filter(|(series, _)| {
        of_interest.iter().any(|name| series.starts_with(name)) && !series.contains("duration")
    });
    grown.map(|(series, by)| format!("{series} {by}")).collect()
}

fn handled(service: &str, method: &str, code: &str, count: usize) -> String {
    format!(
        "grpc_server_handled_total{{grpc_type=\"unary\",grpc_service=\"{service}\",grpc_method=\"{method}\",\
         grpc_code=\"{code}\"}} {count}"
    )
}

fn verdict(name: &str) -> String {
    format!("claviger_verdicts_total{{realm=\"demo\",verdict=\"{name}\"}} 1")
}

fn decision(reason: &str) -> String {
    format!("claviger_gateway_decisions_total{{realm=\"demo\",reason=\"{reason}\"}} 1")
}

const AUTHORIZATION: &str = "envoy.service.auth.v3.Authorization";

/// Seen red with the verdict of a gateway's question left out, with no reason of its own for a request without a key, and with
/// the code of a refused call left out.
#[tokio::test]
async fn whatever_goes_wrong_is_in_the_next_scrape() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--gateway", "nginx"]);
    let mut api = program.api();
    api.make_demo().await;
    api.put_realm(realm_at_gateways()).await;
    let key = api.issue().await;
    let plain_key = key.plain_key.as_str();
    let operator = program.operator();
    let check = async |path: &str, headers: &[(&str, &str)]| {
        let answer = envoy_check(&program.address, &operator, "demo", path, headers).await;
        answer.unwrap();
    };
    let checked = handled(AUTHORIZATION, "Check", "OK", 1);

    // A good key, a bad key, a missing key, a wrong route and a public one at Envoy.
    for (path, presented, expected) in [
        (
            "/v1/data",
            Some(plain_key),
            vec![decision("allowed"), verdict("allowed")],
        ),
        (
            "/v1/data",
            Some("demo_live_x"),
            vec![decision("malformed"), verdict("malformed")],
        ),
        ("/v1/data", None, vec![decision("no_key")]),
        (
            "/v1/else",
            Some(plain_key),
            vec![decision("no_route"), verdict("no_route")],
        ),
        ("/v1/open", None, vec![decision("public")]),
    ] {
        let headers: Vec<_> = presented
            .map(|key| ("x-api-key", key))
            .into_iter()
            .collect();
        let found = counted(&program, check(path, &headers)).await;
        let mut expected = expected;
        expected.push(checked.clone());
        assert_eq!(found, expected, "{path} {}", presented.is_some());
    }

    // A suspended partner, over Verify and over nginx.
    api.put_partner("acme", true).await;
    let found = counted(&program, async {
        assert_eq!(api.verdict(plain_key).await, Verdict::PartnerSuspended);
    });
    let verified = handled("claviger.v1.KeyVerify", "Verify", "OK", 1);
    assert_eq!(found.await, [verdict("partner_suspended"), verified]);
    let found = counted(&program, async {
        let headers = [("x-api-key", plain_key)];
        forward_auth(&program.http, &operator, "demo", "/v1/data", &headers).await;
    });
    let answered = |code: u16| {
        format!("claviger_gateway_http_requests_total{{gateway=\"nginx\",code=\"{code}\"}} 1")
    };
    let expected = [
        decision("partner_suspended"),
        answered(403),
        verdict("partner_suspended"),
    ];
    assert_eq!(found.await, expected);

    // A gateway that is set up wrongly.
    let found = counted(&program, async {
        forward_auth(&program.http, "no-key", "demo", "/v1/data", &[]).await;
    });
    assert_eq!(found.await, [answered(500)]);
    let found = counted(&program, async {
        let refused = envoy_check(&program.address, &operator, "no-realm", "/", &[]).await;
        assert_eq!(refused.err().unwrap().code(), Code::InvalidArgument);
    });
    assert_eq!(
        found.await,
        [handled(AUTHORIZATION, "Check", "InvalidArgument", 1)]
    );

    // Administrators who are refused: one without a key of the authority, one whose key may only verify.
    let gateway = api
        .keys
        .issue_key(authority_key_request("verify", "demo"))
        .await;
    let gateway = gateway.unwrap().into_inner().plain_key;
    for (caller, code) in [
        ("claviger_main_nonsense", "Unauthenticated"),
        (gateway.as_str(), "PermissionDenied"),
    ] {
        let mut refused = program.api().with_key(caller);
        let found = counted(&program, async {
            let realm_id = "demo".to_owned();
            let request = pb::GetRealmRequest { realm_id };
            refused.realms.get_realm(request).await.unwrap_err();
        });
        assert_eq!(
            found.await,
            [handled("claviger.v1.RealmAdmin", "GetRealm", code, 1)]
        );
    }
}

/// The counts of a realm outlive a change of its definition, and end with the realm. Seen red with a realm that begins anew.
#[tokio::test]
async fn a_realm_keeps_its_counts_when_it_is_put_again() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let verify = async |api: &mut Api| api.verdict("demo_live_x").await;
    verify(&mut api).await;
    api.put_realm(realm_at_gateways()).await;
    verify(&mut api).await;
    let scrape = Scrape::of(&program.http).await;
    let counted = scrape.count("claviger_verdicts_total{realm=\"demo\",verdict=\"malformed\"}");
    assert_eq!(counted, 2);
}

/// Verifications over all threads, in every way, and scrapes meanwhile: no count is lost and none is doubled. Seen red with a
/// load and a store in place of the addition, with one thread more than values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_of_all_verifications_is_exact() {
    const BATCH: usize = 100;
    let all = from_env("CLAVIGER_TEST_VERIFICATIONS", 100_000);
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--verify-threads", "5"]);
    let mut api = program.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    let clients = 10;
    let batches = all / clients / BATCH;
    let asking = (0..clients).map(|client| {
        let (mut api, key) = (program.api(), key.clone());
        tokio::spawn(async move {
            for batch in 0..batches {
                // One question by itself, the others at once. Half of the keys are wrong.
                let key = if (client + batch) % 2 == 0 {
                    &key
                } else {
                    "demo_live_x"
                };
                let question = verify_request(key);
                api.verify.verify(question.clone()).await.unwrap();
                let requests = vec![question; BATCH - 1];
                let request = pb::VerifyBatchRequest { requests };
                let answers = api.verify.verify_batch(request).await.unwrap().into_inner();
                assert_eq!(answers.results.len(), BATCH - 1);
            }
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut last = 0;
    while !asking.iter().all(tokio::task::JoinHandle::is_finished) {
        let now = Scrape::of(&program.http)
            .await
            .sum("claviger_verdicts_total", &["demo"]);
        assert!(now >= last, "it never sinks: {last} {now}");
        last = now;
    }
    for client in asking {
        client.await.unwrap();
    }
    let scrape = Scrape::of(&program.http).await;
    let batches = (clients * batches) as u64;
    for (name, labels, expected) in [
        ("claviger_verdicts_total", ["demo", "allowed"], batches * 50),
        (
            "claviger_verdicts_total",
            ["demo", "malformed"],
            batches * 50,
        ),
        ("grpc_server_handled_total", ["\"Verify\"", "OK"], batches),
        (
            "grpc_server_handled_total",
            ["\"VerifyBatch\"", "OK"],
            batches,
        ),
        (
            "grpc_server_handling_seconds_count",
            ["\"Verify\"", ""],
            batches,
        ),
    ] {
        let found = scrape.sum(name, &labels);
        assert_eq!(found, expected, "{name} {labels:?}");
    }
}

/// Seen red with a stream that is over when it begins.
#[tokio::test]
async fn a_stream_is_counted_when_it_ends_and_as_cancelled_if_its_client_is_gone() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let begun = Scrape::of(&program.http).await;
    let (sender, questions) = tokio::sync::mpsc::channel(1);
    let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
    let mut answers = api
        .verify
        .verify_stream(questions)
        .await
        .unwrap()
        .into_inner();
    let question = pb::VerifyStreamRequest {
        request: Some(verify_request("demo_live_x")),
    };
    sender.send(question).await.unwrap();
    answers.message().await.unwrap().unwrap();
    let streams = "grpc_server_handled_total{grpc_type=\"bidi_stream\",grpc_service=\"claviger.v1.KeyVerify\",\
                   grpc_method=\"VerifyStream\",grpc_code=";
    let scrape = Scrape::of(&program.http).await;
    let ended = scrape.grown_since(&begun);
    assert!(
        !ended.keys().any(|series| series.starts_with(streams)),
        "{ended:?}"
    );
    // The client goes away in the middle of the stream.
    drop((sender, answers, api));
    let cancelled = format!("{streams}\"Canceled\"}}");
    eventually("the stream is counted", async || {
        let scrape = Scrape::of(&program.http).await;
        (scrape.count(&cancelled) == 1).then_some(())
    })
    .await;
}
