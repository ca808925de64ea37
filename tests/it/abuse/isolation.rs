//! Administration that is as expensive as it can be, beside a gateway that verifies. Errors and bytes count here, and not times:
//! `cargo bench --bench verify -- isolation` measures those.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1 as pb;
use futures_util::future::join_all;
use pb::Verdict;
use pb::import_entry::Secret;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Code;

use super::connection::Connection;
use crate::fixtures::realm_definitions::largest_definitions;
use crate::fixtures::{
    Api, Engine, Program, Refusal, TestStore, from_env, hex_of, import_entry_of, issue,
    issue_request, on_both_engines,
};

/// How much the memory of the program may grow, in KiB.
const MAX_GROWTH: u64 = 256 * 1024;

/// The largest message that the admin services accept, in bytes.
const LARGEST_MESSAGE: usize = 1024 * 1024;

/// The most entries that an import may have, and the most events on a page.
const MOST: u32 = 1_000;

/// The number of calls with a key that are made at the same time, if they are refused.
const REFUSED_CALLS: usize = 4;

/// The number of calls without a key that are made at the same time.
const CALLS_WITHOUT_A_KEY: usize = 8;

on_both_engines! {
    /// Seen red without the limit on the fields of a message, by memory.
    async fn no_administration_fails_a_verify_or_makes_the_program_large(engine: Engine) {
        let rounds = from_env("CLAVIGER_TEST_ADMIN_ROUNDS", 1) as u32;
        let test_store = TestStore::on(engine);
        let program = Program::serve(&test_store, &[]);
        let mut api = program.api();
        api.make_demo().await;
        let gateway = Gateway::new(&program, &mut api).await;
        let administrator = Connection::to(&program, Some(program.operator()));
        let stranger = Connection::to(&program, None);
        let requests = requests();
        let before = program.peak_memory();

        let over = Arc::new(AtomicBool::new(false));
        let verifying = tokio::spawn(gateway.verify_until(Arc::clone(&over)));
        let mut refused = 0;
        for round in 0..rounds {
            let import = ("claviger.v1.KeyAdmin/ImportKeys", import(round), true);
            for (method, request, is_accepted) in iter::once(&import).chain(&requests) {
                let strangers = iter::repeat_n(&stranger, CALLS_WITHOUT_A_KEY);
                let calls = if *is_accepted { 1 } else { REFUSED_CALLS };
                let administrators = iter::repeat_n(&administrator, calls);
                let (outcomes, refusals) = tokio::join!(
                    join_all(administrators.map(|caller| caller.call(method, request))),
                    join_all(strangers.map(|stranger| stranger.is_refused(method, request)))
                );
                for outcome in outcomes {
                    let refusal = outcome.err().map(|status| Refusal::of(&status).code);
                    let is_expected = match refusal {
                        None => *is_accepted,
                        Some(Code::InvalidArgument | Code::ResourceExhausted) => !is_accepted,
                        Some(_) => false,
                    };
                    assert!(is_expected, "{method}: {refusal:?}");
                }
                refused += refusals.into_iter().filter(|refused| *refused).count();
            }
        }
        over.store(true, Ordering::Relaxed);
        let verified = verifying.await.unwrap();
        let growth = program.peak_memory() - before;
        println!(
            "{engine:?}: {verified} calls of the gateway, {refused} calls refused without a key; {before} + {growth} KiB"
        );
        assert!(refused > 0);
        assert!(growth <= MAX_GROWTH, "the program grew by {growth} KiB");
    }
}

/// The least time that a number of calls on one connection takes does not depend on the machine. Seen red without each price.
#[tokio::test]
async fn refused_calls_and_long_bodies_are_read_at_a_pace() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let burst = Duration::from_millis(10);

    let began = Instant::now();
    for _ in 0..40 {
        // A refusal may reset its stream before the body has come, and a connection with a hundred such streams is closed.
        let stranger = Connection::to(&program, None);
        // One after the other: what the server reads at once, it only pays for before it reads again.
        for _ in 0..50 {
            assert!(
                stranger
                    .is_refused("claviger.v1.KeyAdmin/GetKey", &[])
                    .await
            );
        }
    }
    let took = began.elapsed();
    assert!(
        took + 40 * burst >= Duration::from_millis(950),
        "2,000 calls without a key in {took:?}"
    );

    let administrator = Connection::to(&program, Some(program.operator()));
    let malformed = vec![0; LARGEST_MESSAGE];
    let began = Instant::now();
    for _ in 0..8 {
        let calls = iter::repeat_n(&administrator, REFUSED_CALLS)
            .map(|administrator| administrator.call("claviger.v1.KeyAdmin/ImportKeys", &malformed));
        for outcome in join_all(calls).await {
            assert_eq!(outcome.unwrap_err().code(), Code::InvalidArgument);
        }
    }
    let took = began.elapsed();
    assert!(
        took + burst >= Duration::from_millis(500),
        "32 MiB in {took:?}"
    );
}

/// A gateway that verifies on two connections of its own.
struct Gateway {
    connections: [Api; 2],
    /// API keys and their verdicts.
    expected: Vec<(String, Verdict)>,
}

impl Gateway {
    async fn new(program: &Program, api: &mut Api) -> Self {
        let [allowed, disabled, revoked] = [
            issue(api, issue_request()).await,
            issue(api, issue_request()).await,
            issue(api, issue_request()).await,
        ];
        let disable = pb::DisableKeyRequest {
            key_id: disabled.id,
            ..Default::default()
        };
        api.keys.disable_key(disable).await.unwrap();
        api.revoke(&revoked.id).await.unwrap();
        Self {
            connections: [program.api(), program.api()],
            expected: vec![
                (allowed.plain_key, Verdict::Allowed),
                (disabled.plain_key, Verdict::Disabled),
                (revoked.plain_key, Verdict::Revoked),
                ("not-a-key".to_owned(), Verdict::Unknown),
            ],
        }
    }

    /// Verifies without a pause, and returns the number of calls. A failed call and a wrong verdict panic.
    async fn verify_until(mut self, over: Arc<AtomicBool>) -> usize {
        let mut calls = 0;
        while !over.load(Ordering::Relaxed) {
            let connection = &mut self.connections[calls % 2];
            let (key, verdict) = &self.expected[calls / 2 % self.expected.len()];
            assert_eq!(connection.verdict(key).await, *verdict, "call {calls}");
            calls += 1;
        }
        calls
    }
}

/// The most expensive requests in their encoded form, each with its method and whether an operator may make it.
fn requests() -> Vec<(&'static str, Vec<u8>, bool)> {
    let mut requests: Vec<_> = largest_definitions("demo")
        .map(|realm| ("claviger.v1.RealmAdmin/PutRealm", put(realm), true))
        .into();
    let page = pb::ListEventsRequest {
        page_size: MOST as i32,
        ..Default::default()
    };
    requests.push((
        "claviger.v1.KeyAdmin/ListEvents",
        page.encode_to_vec(),
        true,
    ));
    // An empty entry is two bytes, and what is around the routes is at most eight.
    let empty_routes = put(pb::Realm {
        routes: vec![pb::Route::default(); LARGEST_MESSAGE / 2 - 4],
        ..Default::default()
    });
    let empty_entries = pb::ImportKeysRequest {
        entries: vec![pb::ImportEntry::default(); LARGEST_MESSAGE / 2],
        ..Default::default()
    };
    for (method, request) in [
        ("claviger.v1.RealmAdmin/PutRealm", empty_routes),
        (
            "claviger.v1.KeyAdmin/ImportKeys",
            empty_entries.encode_to_vec(),
        ),
        // No message has a field with the number 0.
        ("claviger.v1.KeyAdmin/ImportKeys", vec![0; LARGEST_MESSAGE]),
    ] {
        assert!((LARGEST_MESSAGE - 8..=LARGEST_MESSAGE).contains(&request.len()));
        requests.push((method, request, false));
    }
    requests
}

pub(super) fn put(realm: pb::Realm) -> Vec<u8> {
    let request = pb::PutRealmRequest {
        realm: Some(realm),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// An import of as many keys as one may have, different ones for each number.
pub(super) fn import(number: u32) -> Vec<u8> {
    let hash =
        |entry: u32| Sha256::digest((u64::from(number) << 32 | u64::from(entry)).to_be_bytes());
    let request = pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries: (0..MOST)
            .map(|entry| import_entry_of(Secret::Sha256(hex_of(&hash(entry)))))
            .collect(),
        ..Default::default()
    };
    request.encode_to_vec()
}
