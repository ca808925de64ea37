//! The limits of gRPC hold for JSON too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::{JsonServer, assert_refused, issue};
use crate::fixtures::{DEADLINE, eventually, verify_request};

const KIB: usize = 1024;

/// Seen red with each limit doubled.
#[test]
fn a_body_that_is_too_large_is_refused() {
    let server = JsonServer::start(&[]);
    let mut client = server.client_with_demo();
    let of = |length: usize| {
        let request = r#"{"realm": ""}"#;
        format!("{{\"realm\": \"{}\"}}", "x".repeat(length - request.len()))
    };
    for (method, most) in [
        ("KeyVerify/Verify", 64 * KIB),
        ("KeyVerify/VerifyBatch", 64 * KIB),
        ("KeyVerify/Explain", 64 * KIB),
        ("KeyAdmin/IssueKey", 1024 * KIB),
        ("RealmAdmin/GetPartner", 1024 * KIB),
        ("AuthorityAdmin/SetLease", 1024 * KIB),
    ] {
        let fits = client.post(method, of(most).as_bytes());
        assert_eq!(fits.status, 400, "{method}: {fits:?}");
        assert_eq!(fits.reason(), "INVALID_FIELD", "{method}: {fits:?}");
        let refused = client.post(method, of(most + 1).as_bytes());
        assert_refused(
            &refused,
            429,
            "resource_exhausted",
            "MESSAGE_TOO_LARGE",
            method,
        );
        assert_eq!(refused.header("retry-after"), None);
        // Nobody says how long it is.
        let path = format!("POST /claviger.v1.{method}");
        let chunked = [
            "content-type: application/json",
            "transfer-encoding: chunked",
        ];
        let head = client.head(&path, &chunked);
        let body = of(most + 1);
        let chunk = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let refused = client.exchange(chunk.as_bytes());
        assert_refused(
            &refused,
            429,
            "resource_exhausted",
            "MESSAGE_TOO_LARGE",
            method,
        );
    }
    let values = format!("{{\"entries\": [{}{{}}]}}", "{},".repeat(70_000));
    let refused = client.post("KeyAdmin/ImportKeys", values.as_bytes());
    assert_refused(
        &refused,
        429,
        "resource_exhausted",
        "MESSAGE_TOO_LARGE",
        "many values",
    );
    let fields = format!("{{\"entries\": [{}{{}}]}}", "{},".repeat(20_000));
    let refused = client.post("KeyAdmin/ImportKeys", fields.as_bytes());
    assert_refused(
        &refused,
        429,
        "resource_exhausted",
        "MESSAGE_TOO_LARGE",
        "the limit of gRPC",
    );
}

/// Sends the begin of a body and nothing more.
fn begin(server: &JsonServer, method: &str, headers: &[&str], begin: &[u8]) -> TcpStream {
    let length = format!("content-length: {}", begin.len() + 1);
    let headers = [&["content-type: application/json", &length], headers].concat();
    let head = server
        .client()
        .head(&format!("POST /claviger.v1.{method}"), &headers);
    let mut stream = TcpStream::connect(&server.program.http).unwrap();
    stream
        .write_all(&[head.as_bytes(), begin].concat())
        .unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_body_that_does_not_come_ends_with_the_time_of_the_call() {
    let server = JsonServer::start(&["--call-timeout", "1s"]);
    for method in ["KeyVerify/Verify", "KeyAdmin/IssueKey"] {
        for (headers, reason) in [
            (&[][..], "CALL_TOO_LONG"),
            (&["connect-timeout-ms: 50"], "DEADLINE_EXCEEDED"),
            (&["connect-timeout-ms: 50000"], "CALL_TOO_LONG"),
        ] {
            let answer = answer(begin(&server, method, headers, b"{"));
            assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
            assert!(answer.contains(reason), "{reason}: {answer}");
        }
    }
}

/// Seen red with a body that is not `Metered`.
#[tokio::test]
async fn incomplete_bodies_hold_no_more_memory_than_one_address_may() {
    let server = JsonServer::start(&["--call-timeout", "10min"]);
    let body = vec![b' '; 1024 * KIB - 1];
    let mut held: Vec<_> = (0..4)
        .map(|_| begin(&server, "KeyAdmin/IssueKey", &[], &body))
        .collect();
    // Until the server has read the four, a fifth one fits.
    let refused = eventually("the address has used up its part", async || {
        let stream = begin(&server, "KeyAdmin/IssueKey", &[], &body);
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut answer = Vec::new();
        let mut kept = stream.try_clone().unwrap();
        let _ = kept.read_to_end(&mut answer);
        if answer.is_empty() {
            held.push(stream);
            return None;
        }
        Some(String::from_utf8(answer).unwrap())
    })
    .await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains("TOO_MANY_BODIES"), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    drop(held);
    let mut client = server.client();
    eventually("the bodies are given back", async || {
        let reply = client.post("KeyAdmin/IssueKey", &body);
        (reply.status == 400).then_some(())
    })
    .await;
}

/// Seen red with the address of gateways that serves everything.
#[test]
fn administration_is_not_at_the_address_of_gateways_if_it_has_its_own() {
    let server = JsonServer::start(&["--admin-listen", "127.0.0.1:0"]);
    let mut client = server.client();
    let verify = json!({"realm": "claviger", "key": server.operator});
    let answer = client.call("KeyVerify/Verify", &verify);
    assert_eq!(answer["verdict"], "VERDICT_ALLOWED");
    let batch = client.call("KeyVerify/VerifyBatch", &json!({"requests": [verify]}));
    assert_eq!(
        batch["results"][0]["response"]["verdict"],
        "VERDICT_ALLOWED"
    );
    for method in [
        "KeyVerify/Explain",
        "KeyAdmin/ListKeys",
        "RealmAdmin/ListRealms",
        "AuthorityAdmin/ListReplicas",
    ] {
        let reply = client.post(method, b"no JSON");
        assert_refused(
            &reply,
            501,
            "unimplemented",
            "ADMINISTRATION_ELSEWHERE",
            method,
        );
        let message = super::text(&reply.json()["message"]);
        assert!(message.contains("--admin-listen"), "{message}");
    }
}

/// The one Verify thread passes the bytes on and answers its questions, while administration reads a megabyte of JSON after the
/// other. Seen red with JSON read on the thread of its connection: a question then waits for whole bodies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_delay_no_verification() {
    const BODIES: usize = 30;
    let server = JsonServer::start(&["--verify-threads", "1"]);
    let mut client = server.client_with_demo();
    let (_, key) = issue(&mut client);
    let label = format!("\"{}\":\"\",", "a".repeat(16));
    // Read to the end, and then refused, because it has the same name twice at the end.
    let labels = (0..30_000).map(|i| format!("\"{i:020}\":\"\","));
    let labels = labels.collect::<Vec<_>>().concat();
    let body = format!("{{\"realm\":\"demo\",\"labels\":{{{labels}{label}{label}\"\":\"\"}}}}");
    assert!(body.len() < 1024 * KIB && body.len() > 700 * KIB);
    let loading = std::thread::spawn(move || {
        let times = (0..BODIES).map(|_| {
            let begun = Instant::now();
            let reply = client.post("KeyAdmin/IssueKey", body.as_bytes());
            assert_eq!(reply.fields(), ["labels"], "{reply:?}");
            begun.elapsed()
        });
        times.min().unwrap()
    });
    let mut api = server.program.api();
    let mut took = Vec::new();
    while !loading.is_finished() {
        let begun = Instant::now();
        api.verify.verify(verify_request(&key)).await.unwrap();
        took.push(begun.elapsed());
    }
    // Who waits for a body on the same thread waits for most of its time, however fast the machine is.
    let shortest = loading.join().unwrap();
    let late = took.iter().filter(|took| **took > shortest / 2).count();
    println!(
        "{BODIES} bodies of {shortest:?} or more, {} questions, {late} of them late",
        took.len()
    );
    assert!(took.len() > BODIES, "{} questions", took.len());
    assert!(
        late < BODIES / 2,
        "{late} questions waited for one of {BODIES} bodies of {shortest:?} or more"
    );
}

/// The server reads at most 2,000 calls without a key in a second, of a connection. Seen red without the price of a call whose form
/// is wrong, and with a guard that has the pace of another connection.
#[test]
fn calls_without_a_key_are_read_at_a_pace() {
    const CALLS: usize = 3_000;
    let server = JsonServer::start(&[]);
    let nobody = Client::new(&server.program.http, None);
    for line in ["GET", "POST"] {
        let headers = ["content-type: application/json", "content-length: 2"];
        let head = nobody.head(&format!("{line} /claviger.v1.KeyAdmin/GetKey"), &headers);
        let calls = format!("{head}{{}}").repeat(CALLS);
        let mut stream = TcpStream::connect(&server.program.http).unwrap();
        let reading = stream.try_clone().unwrap();
        let begun = Instant::now();
        let sending = std::thread::spawn(move || stream.write_all(calls.as_bytes()));
        let mut answers = BufReader::new(reading).lines();
        let codes = ["\"code\":\"unimplemented\"", "\"code\":\"unauthenticated\""];
        let is_answer = |line: &String| codes.iter().any(|code| line.contains(code));
        for _ in 0..CALLS {
            let answer = answers.find(|line| line.as_ref().is_ok_and(is_answer));
            answer.expect("an answer to each call").unwrap();
        }
        sending.join().unwrap().unwrap();
        let took = begun.elapsed();
        println!("{CALLS} calls with {line} in {took:?}");
        assert!(took > Duration::from_millis(1_400), "{line}: {took:?}");
    }
}

/// An operator has at most four pages in memory, also those that it does not read. Seen red with a permit that ends when the page is
/// written as JSON.
#[test]
fn a_page_holds_its_permit_until_it_is_sent() {
    let server = JsonServer::start(&[]);
    let mut client = server.client_with_demo();
    let labels = (0..16).map(|i| (format!("label-{i}"), "x".repeat(256)));
    let labels: serde_json::Map<_, _> = labels.map(|(name, value)| (name, value.into())).collect();
    for batch in 0..3 {
        let entry = |i: usize| {
            json!({
                "sha256": format!("{:064x}", 1 + 1_000 * batch + i),
                "partner": "acme", "level": "KEY_LEVEL_PARTNER", "labels": labels, "name": "n".repeat(128),
            })
        };
        let entries: Vec<_> = (0..200).map(entry).collect();
        client.call(
            "KeyAdmin/ImportKeys",
            &json!({"realm": "demo", "entries": entries}),
        );
    }
    let list = |client: &Client| {
        let body = r#"{"filter": {"realm": "demo"}, "pageSize": 1000}"#;
        let length = format!("content-length: {}", body.len());
        let headers = ["content-type: application/json", &length];
        let request = client.head("POST /claviger.v1.KeyAdmin/ListKeys", &headers) + body;
        let mut stream = TcpStream::connect(&server.program.http).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let begins = |stream: &TcpStream, within: Duration| {
        stream.set_read_timeout(Some(within)).unwrap();
        (&mut &*stream).read_exact(&mut [0]).is_ok()
    };
    let mut unread: Vec<_> = (0..4).map(|_| list(&client)).collect();
    for page in &unread {
        assert!(begins(page, DEADLINE), "a page of the first four");
    }
    let waiting = list(&client);
    assert!(!begins(&waiting, Duration::from_secs(1)), "the fifth page");
    drop(unread.pop());
    assert!(begins(&waiting, DEADLINE), "the page after another one");
}
