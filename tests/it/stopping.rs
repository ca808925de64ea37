//! SIGTERM under load: seen to go, calls in flight answered, exit code 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use claviger::domain::ids::RealmId;
use claviger::pb::claviger::v1::Verdict;
use claviger::store::Store;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::fixtures::{Program, eventually, verify_request};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// Seen red without `clear_service_status`: the open Watch then holds the process until the drain's time is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_is_seen_first_loses_no_call_and_ends_well_though_health_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::serve(
        dir.path(),
        &["--drain-delay", "500ms", "--drain-timeout", "45s"],
    );
    let mut api = program.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;

    let channel = Endpoint::from_shared(format!("http://{}", program.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: "claviger.v1.KeyVerify".to_owned(),
    };
    let mut watch = health.watch(request.clone()).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status, SERVING);

    let [answered, issued, failed] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let seen_going = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..16)
        .map(|i| {
            let (mut api, key) = (api.clone(), key.clone());
            let (answered, issued, failed) = (answered.clone(), issued.clone(), failed.clone());
            let seen_going = seen_going.clone();
            tokio::spawn(async move {
                loop {
                    // Some change things, which is where an answer could get lost.
                    let outcome = if i % 4 == 0 {
                        api.keys
                            .issue_key(super::fixtures::issue_request())
                            .await
                            .map(|_| {
                                issued.fetch_add(1, Ordering::Relaxed);
                            })
                    } else {
                        api.verify.verify(verify_request(&key)).await.map(|answer| {
                            assert_eq!(answer.into_inner().verdict(), Verdict::Allowed);
                        })
                    };
                    match outcome {
                        Ok(()) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(status) => {
                            // Only what came when the connection was gone may fail; tonic's client calls that one or the
                            // other. That no call was begun and not answered is counted below.
                            assert!(
                                [Code::Unavailable, Code::Cancelled].contains(&status.code()),
                                "{status:?}"
                            );
                            assert!(
                                seen_going.load(Ordering::SeqCst),
                                "a call failed before health said so"
                            );
                            failed.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                    };
                }
            })
        })
        .collect();
    eventually("the load is on", async || {
        (answered.load(Ordering::Relaxed) > 200).then_some(())
    })
    .await;

    program.signal("TERM");
    assert_eq!(watch.next().await.unwrap().unwrap().status, NOT_SERVING);
    seen_going.store(true, Ordering::SeqCst);
    // It still serves: load balancers need time to notice.
    assert_eq!(
        health.check(request).await.unwrap().into_inner().status,
        NOT_SERVING
    );
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);

    let status = tokio::task::spawn_blocking(move || program.wait())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(
        !matches!(watch.next().await, Some(Ok(_))),
        "the watch ends with the server"
    );
    for worker in load {
        worker.await.unwrap();
    }
    let store = Store::open_sqlite(&dir.path().join("data/claviger.db"))
        .await
        .unwrap();
    let demo = RealmId::parse("demo").unwrap();
    let stored = store
        .snapshot()
        .await
        .unwrap()
        .count_keys(&demo, None, None)
        .await
        .unwrap();
    assert_eq!(
        stored as usize,
        1 + issued.load(Ordering::Relaxed),
        "each key that was made was answered, and no other"
    );
    println!(
        "{} calls answered; each of {} workers went on until the listener was closed",
        answered.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed)
    );
}

#[tokio::test]
async fn a_second_signal_ends_the_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::serve(dir.path(), &["--drain-delay", "1h"]);
    program.signal("TERM");
    let url = format!("{}", program.http);
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
