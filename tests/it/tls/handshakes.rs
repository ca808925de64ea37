//! Clients that do not complete their handshakes, and clients that start many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{TLS_HANDSHAKE, TlsServer, connector, handshake};
use crate::fixtures::frames::{GOAWAY, PREFACE, Raw, SETTINGS, frame, next_frame};
use crate::fixtures::{DEADLINE, Engine, Program, TestStore, eventually};

/// The begin of a TLS handshake: a record of which all but its first bytes is missing.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Waits until the server has closed the connection, and returns how long that took.
async fn closed(Raw(mut stream): Raw) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    let _ = read.expect("it is closed");
    begun.elapsed()
}

/// Seen red without the deadline of the handshake, and without the one of the first bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incomplete_handshake_holds_a_place_for_five_seconds() {
    let server = TlsServer::start(&["--max-connections-per-address", "3"]);
    let address = &server.program.address;
    let silent = Raw::connect(address, 2).await.unwrap();
    let mut half = Raw::connect(address, 2).await.unwrap();
    half.send(HALF_A_HELLO).await.unwrap();
    // This one is silent after its handshake.
    let connector = connector(&server.certificates);
    let mut quiet = handshake(&connector, address, 2).await.unwrap();
    let refused = handshake(&connector, address, 2).await;
    assert!(refused.is_err(), "the address has no place left");
    let begun = Instant::now();
    let (silent, half) = tokio::join!(closed(silent), closed(half));
    for took in [silent, half] {
        let most = TLS_HANDSHAKE + Duration::from_secs(2);
        assert!(took < most, "{took:?}");
    }
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, quiet.read_to_end(&mut rest))
        .await
        .expect("it is closed");
    assert!(begun.elapsed() < TLS_HANDSHAKE + Duration::from_secs(2));
    eventually("there is a place again", async || {
        handshake(&connector, address, 2).await.ok()
    })
    .await;
    server
        .logs(&["WARN", "TLS handshakes failed", "within 5 seconds"])
        .await;
}

/// Seen red without the look at the first byte: rustls then answers with an alert, and the log speaks of the protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_text_at_the_addresses_of_tls_is_closed_at_once() {
    let server = TlsServer::start(&[]);
    for address in [&server.program.address, &server.program.http] {
        for text in [PREFACE, b"GET /readyz HTTP/1.1\r\n\r\n"] {
            let mut raw = Raw::connect(address, 1).await.unwrap();
            raw.send(text).await.unwrap();
            assert!(closed(raw).await < TLS_HANDSHAKE / 2);
        }
    }
    server
        .logs(&["WARN", "TLS handshakes failed", "does not speak TLS"])
        .await;
    assert!(!server.log().contains("PRI"), "no bytes of the peer");
}

/// Seen red without the check of the first bytes for HTTP/1.1: hyper then answers with 400.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_at_the_addresses_of_plain_text_is_closed_at_once() {
    for is_grpc in [true, false] {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, &[]);
        let address = if is_grpc {
            &program.address
        } else {
            &program.http
        };
        let mut raw = Raw::connect(address, 1).await.unwrap();
        raw.send(HALF_A_HELLO).await.unwrap();
        let mut answer = Vec::new();
        let begun = Instant::now();
        let _ = raw.0.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{answer:?}");
        assert!(begun.elapsed() < TLS_HANDSHAKE / 2);
        eventually("the log says why", async || {
            let log = String::from_utf8(program.log.lock().unwrap().clone()).unwrap();
            log.contains("speaks TLS, but this address serves plain text")
                .then_some(())
        })
        .await;
    }
}

/// Seen red without the limiter: no handshake then waits or is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_handshakes_from_one_address_fail_no_call_of_another() {
    let server = TlsServer::start(&["--max-connections-per-address", "1024"]);
    // This client comes from 127.0.0.1.
    let mut good = server.api();
    good.make_demo().await;
    let key = good.issue().await.plain_key;
    assert_eq!(good.verdict(&key).await, Verdict::Allowed);
    let over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&over);
    let calls = tokio::spawn(async move {
        let (mut calls, mut slowest) = (0, Duration::ZERO);
        while !until.load(Ordering::Relaxed) {
            let begun = Instant::now();
            assert_eq!(good.verdict(&key).await, Verdict::Allowed);
            slowest = slowest.max(begun.elapsed());
            calls += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (calls, slowest)
    });
    let connector = connector(&server.certificates);
    let begun = Instant::now();
    let mut attempts = JoinSet::new();
    for _ in 0..1_000 {
        let (connector, address) = (connector.clone(), server.program.address.clone());
        attempts.spawn(async move { handshake(&connector, &address, 2).await.ok() });
    }
    let mut done = Vec::new();
    while let Some(attempt) = attempts.join_next().await {
        done.extend(attempt.unwrap());
    }
    let took = begun.elapsed();
    // A new client of the good address is served meanwhile, too.
    let newcomer = handshake(&connector, &server.program.address, 1).await;
    assert!(newcomer.is_ok(), "{newcomer:?}");
    over.store(true, Ordering::Relaxed);
    let (calls, slowest) = calls.await.unwrap();
    println!(
        "{} handshakes, {calls} good calls, slowest {slowest:?}",
        done.len()
    );
    assert!(calls > 50, "{calls}");
    // A burst of 200, and 100 a second.
    let most = 201 + took.as_millis() as usize / 10;
    assert!(
        (200..most.min(1_000)).contains(&done.len()),
        "{}",
        done.len()
    );
    server
        .logs(&["WARN", "TLS handshakes failed", "too many handshakes"])
        .await;
}

/// The bytes below TLS are counted, so that a client cannot keep a thread busy with records that carry nothing. Seen red with
/// a socket that does not count them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_on_bytes_outside_of_calls_holds_over_tls() {
    let server = TlsServer::start(&[]);
    let connector = connector(&server.certificates);
    let mut stream = handshake(&connector, &server.program.address, 2)
        .await
        .unwrap();
    let settings = frame(SETTINGS, 0, 0, &[]);
    stream
        .write_all(&[PREFACE, &settings].concat())
        .await
        .unwrap();
    // The smallest frames of an unknown type, each in a record of its own.
    let nothing = frame(0xbb, 0, 0, &[]);
    let mut sent = 0;
    let sending = async {
        while stream.write_all(&nothing).await.is_ok() && stream.flush().await.is_ok() {
            sent += 1;
        }
    };
    timeout(DEADLINE, sending).await.expect("it is closed");
    // A record has 22 bytes besides its contents; 1 MiB may be sent, and the rest was in flight.
    println!("{sent} records");
    assert!(sent < 60_000, "{sent}");
}

/// Seen red with an age a thousand times as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_over_tls_is_told_to_go_at_its_age() {
    let server = TlsServer::start(&["--connection-age", "300ms"]);
    let connector = connector(&server.certificates);
    let mut stream = handshake(&connector, &server.program.address, 2)
        .await
        .unwrap();
    let settings = frame(SETTINGS, 0, 0, &[]);
    stream
        .write_all(&[PREFACE, &settings].concat())
        .await
        .unwrap();
    stream.flush().await.unwrap();
    let goes = async {
        while next_frame(&mut stream)
            .await
            .expect("a GOAWAY before the end")
            .kind
            != GOAWAY
        {}
    };
    timeout(TLS_HANDSHAKE * 2, goes)
        .await
        .expect("it is told to go");
    let mut rest = Vec::new();
    let end = timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    end.expect("it is closed").ok();
}
