//! SIGTERM under load: seen to go, calls in flight answered, exit code 0.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use claviger::domain::ids::RealmId;
use claviger::pb::claviger::v1::Verdict;
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::fixtures::{Api, Engine, Program, TestStore, eventually, issue_request, verify_request};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

/// Calls without end, and what came of them.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    issued: AtomicUsize,
    failed: AtomicUsize,
    /// Health has said that the server is going.
    seen_going: AtomicBool,
}

impl Load {
    /// One worker; some change things, which is where an answer could get lost.
    async fn work(self: Arc<Self>, mut api: Api, key: String, changes: bool) {
        loop {
            let outcome = if changes {
                let issued = api.keys.issue_key(issue_request()).await;
                issued.map(|_| self.issued.fetch_add(1, Ordering::Relaxed))
            } else {
                let answer = api.verify.verify(verify_request(&key)).await;
                answer.map(|answer| {
                    assert_eq!(answer.into_inner().verdict(), Verdict::Allowed);
                    0
                })
            };
            let Err(status) = outcome else {
                self.answered.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            // Only what came when the connection was going may fail, in the client's own transport: refused, cancelled before
            // it was sent, or beyond the server's GOAWAY. An error that the server sent has no source. That no change was
            // begun and not answered is counted by the test.
            assert!(status.source().is_some(), "{status:?}");
            assert!(
                self.seen_going.load(Ordering::SeqCst),
                "a call failed before health said so"
            );
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}

/// Seen red without `clear_service_status`: the open Watch then holds the process until the drain's time is up, which here is
/// longer than the test waits. Seen red too with the library's own health service, which ends a watch of an unknown service at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_is_seen_first_loses_no_call_and_ends_well_though_health_is_watched() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = ["--drain-delay", "500ms", "--drain-timeout", "1h"];
    let mut program = Program::serve(&test_store, &flags);
    let mut api = program.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;

    let channel = Endpoint::from_shared(format!("http://{}", program.address)).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    let request = HealthCheckRequest {
        service: "claviger.v1.KeyVerify".to_owned(),
    };
    let mut watch = health.watch(request.clone()).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status, SERVING);
    let unknown = HealthCheckRequest {
        service: "no.such.Service".to_owned(),
    };
    let mut unknown = health.watch(unknown).await.unwrap().into_inner();
    assert_eq!(
        unknown.next().await.unwrap().unwrap().status,
        SERVICE_UNKNOWN
    );
    let later = tokio::time::timeout(Duration::from_millis(200), unknown.next()).await;
    assert!(later.is_err(), "the stream stays open: {later:?}");

    let load = Arc::new(Load::default());
    let workers: Vec<_> = (0..16)
        .map(|i| tokio::spawn(Arc::clone(&load).work(api.clone(), key.clone(), i % 4 == 0)))
        .collect();
    eventually("the load is on", async || {
        (load.answered.load(Ordering::Relaxed) > 200).then_some(())
    })
    .await;

    program.signal("TERM");
    assert_eq!(watch.next().await.unwrap().unwrap().status, NOT_SERVING);
    load.seen_going.store(true, Ordering::SeqCst);
    // It still serves: load balancers need time to notice.
    let checked = health.check(request).await.unwrap().into_inner();
    assert_eq!(checked.status, NOT_SERVING);
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);

    let status = tokio::task::spawn_blocking(move || program.wait())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(
        !matches!(watch.next().await, Some(Ok(_))),
        "the watch ends with the server"
    );
    assert!(
        !matches!(unknown.next().await, Some(Ok(_))),
        "and so does that of an unknown service"
    );
    for worker in workers {
        worker.await.unwrap();
    }
    let store = test_store.open().await.store;
    let demo = RealmId::parse("demo").unwrap();
    let stored = store
        .snapshot()
        .await
        .unwrap()
        .count_keys(&demo, None, None)
        .await
        .unwrap();
    let issued = load.issued.load(Ordering::Relaxed);
    assert_eq!(
        stored as usize,
        1 + issued,
        "each key that was made was answered, and no other"
    );
    println!(
        "{} calls answered, {issued} of them new keys; each of {} workers went on until the connection was closed",
        load.answered.load(Ordering::Relaxed),
        load.failed.load(Ordering::Relaxed)
    );
}

#[tokio::test]
async fn a_second_signal_ends_the_waiting() {
    let test_store = TestStore::on(Engine::Sqlite);
    let mut program = Program::serve(&test_store, &["--drain-delay", "1h"]);
    program.signal("TERM");
    let url = program.http.clone();
    eventually("readiness is withdrawn", async || {
        get(&url, "/readyz")
            .await
            .filter(|answer| answer.contains("503"))
    })
    .await;
    assert!(
        get(&url, "/livez").await.unwrap().contains("200 OK"),
        "it is alive while it drains"
    );
    program.signal("INT");
    let status = tokio::task::spawn_blocking(move || program.wait())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
}

/// An HTTP/1.1 answer, whole.
async fn get(address: &str, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
