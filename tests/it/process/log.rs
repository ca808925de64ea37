//! The log when it cannot be written, and when requests cause many lines: nothing waits for it, nothing ends because of it, and
//! what is lost is counted.

use std::fs::File;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use rustix::pty::OpenptFlags;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tonic::Code;

use crate::fixtures::frames::{PING, Raw, frame, next_frame};
use crate::fixtures::{
    Api, DEADLINE, Engine, Program, TestStore, claviger, demo_realm, envoy_check, eventually,
    forward_auth, header_source, verify_request,
};

const FLAGS: [&str; 2] = ["--drain-delay", "0s"];

/// Changes something, verifies a key and asks as a misconfigured gateway. All but the verification write to the log.
async fn serves(program: &Program) {
    let serving = async {
        program.api().make_demo().await;
        serves_on(program).await;
    };
    timeout(DEADLINE, serving).await.expect("it answers");
}

/// The same later on.
async fn serves_on(program: &Program) {
    let mut api = program.api();
    let key = api.issue().await.plain_key;
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);
    assert_misconfigured(program, "demo").await;
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);
}

async fn assert_misconfigured(program: &Program, realm: &str) {
    let answer = forward_auth(&program.http, "no-key", realm, "/", &[]).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 500"), "{answer}");
}

async fn assert_stops(mut program: Program) {
    program.signal("TERM");
    let stopped = tokio::task::spawn_blocking(move || program.wait());
    assert!(stopped.await.unwrap().success());
}

/// Seen red without the queue: the first line that could not be written aborted the process.
#[tokio::test]
async fn a_full_disk_stops_nothing() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve_with_stderr(&test_store, full.into(), &FLAGS);
    serves(&program).await;
    assert_stops(program).await;
}

/// Seen red without the queue, as above.
#[tokio::test]
async fn a_closed_pipe_stops_nothing() {
    let (reader, writer) = io::pipe().unwrap();
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve_with_stderr(&test_store, writer.into(), &FLAGS);
    drop(reader);
    serves(&program).await;
    assert_stops(program).await;
}

/// Seen red without the queue, as above.
#[tokio::test]
async fn a_closed_terminal_stops_nothing() {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&controller).unwrap();
    rustix::pty::unlockpt(&controller).unwrap();
    let terminal = rustix::pty::ioctl_tiocgptpeer(&controller, flags).unwrap();
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve_with_stderr(&test_store, terminal.into(), &FLAGS);
    drop(controller);
    serves(&program).await;
    assert_stops(program).await;
}

/// Sends so much that the log, with all its details, is far more than the queue and a pipe hold.
async fn fill_the_log(program: &Program) {
    let filling = async {
        serves(program).await;
        let mut api = program.api();
        for _ in 0..100 {
            let refused = api.verify.verify(verify_request("")).await.unwrap();
            assert_eq!(refused.into_inner().verdict(), Verdict::Malformed);
            assert_misconfigured(program, "demo").await;
        }
        ping(program, &frame(PING, 0, 0, b"anything").repeat(2_000)).await;
        serves_on(program).await;
    };
    timeout(DEADLINE, filling)
        .await
        .expect("every request is answered");
}

/// Sends frames, and waits until the server has read them.
async fn ping(program: &Program, frames: &[u8]) {
    let raw = Raw::http2(&program.address, 1, &[]).await;
    let (mut read, mut write) = raw.0.into_split();
    let last = frame(PING, 0, 0, b"the last");
    let sending = async {
        write.write_all(frames).await.unwrap();
        write.write_all(&last).await.unwrap();
    };
    let reading =
        async { while next_frame(&mut read).await.expect("it is open").payload != b"the last" {} };
    tokio::join!(sending, reading);
}

/// Seen red without the queue: not even the first change was answered, since a pipe holds 64 KiB. Also with a flush without a
/// limit: the process then never ends.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_exit() {
    let (mut reader, writer) = io::pipe().unwrap();
    let flags = [&FLAGS[..], &["--log", "trace,h2=trace"]].concat();
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve_with_stderr(&test_store, writer.into(), &flags);
    fill_the_log(&program).await;
    assert_stops(program).await;
    let mut log = Vec::new();
    reader.read_to_end(&mut log).unwrap();
    assert!(
        log.len() < 1024 * 1024,
        "the pipe was full, and the queue was given up: {}",
        log.len()
    );
}

/// Seen red without the report. That the last line is written needs the flush at the exit; without it, the tests of refused
/// starts are red.
#[tokio::test]
async fn after_a_blockage_the_log_tells_how_many_lines_are_missing_and_all_others_are_whole() {
    let (mut reader, writer) = io::pipe().unwrap();
    let flags = [&FLAGS[..], &["--log", "trace,h2=trace"]].concat();
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve_with_stderr(&test_store, writer.into(), &flags);
    fill_the_log(&program).await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let read = Arc::clone(&log);
    let reading = std::thread::spawn(move || {
        let mut part = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut part) {
            read.lock().unwrap().extend(&part[..length]);
        }
    });
    eventually("the log tells what is missing", async || {
        let log = log.lock().unwrap().clone();
        log.windows(14)
            .any(|part| part == b"log lines lost")
            .then_some(())
    })
    .await;
    assert_stops(program).await;
    reading.join().unwrap();

    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("torn: {line}")))
        .collect();
    let reports: Vec<_> = lines
        .iter()
        .filter(|line| line["dropped"].is_u64())
        .collect();
    let dropped: u64 = reports
        .iter()
        .filter_map(|line| line["dropped"].as_u64())
        .sum();
    assert!(dropped > 1_000, "{reports:?}");
    // While the queue is read, further lines may be dropped; there is no report for each.
    assert!(reports.len() < 10, "{reports:?}");
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}

/// The complete log of a server that is then stopped.
async fn log_until_the_stop(program: Program) -> String {
    let log = Arc::clone(&program.log);
    assert_stops(program).await;
    eventually("the last line is read", async || {
        let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        log.contains(r#""stopped""#).then_some(log)
    })
    .await
}

fn count(log: &str, message: &str) -> usize {
    log.matches(message).count()
}

/// Seen red with `tracing::error!` in place of `limited!`.
#[tokio::test]
async fn a_corrupt_key_is_one_line_and_not_one_for_each_verification() {
    const BROKEN: &str = "stored key, or its realm, partner or project, unreadable";
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &FLAGS);
    let mut api = program.api();
    api.make_demo().await;
    let mut realm = demo_realm();
    realm.credentials = Some(pb::Credentials {
        sources: vec![header_source("x-api-key", "")],
        ..Default::default()
    });
    api.put_realm(realm).await;
    let key = api.issue().await.plain_key;
    assert_stops(program).await;
    let statement =
        "UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"') WHERE realm = 'demo'";
    test_store.execute_sql(&[statement]).await;

    let flags = [&FLAGS[..], &["--gateway", "nginx"]].concat();
    let program = Program::serve(&test_store, &flags);
    let mut api = program.api();
    for _ in 0..20 {
        let error = api.verify.verify(verify_request(&key)).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        // As a caller's own key.
        let error = api.with_key(&key).verify.verify(verify_request(&key)).await;
        assert_eq!(error.unwrap_err().code(), Code::Internal);
        let headers = [("x-api-key", &*key)];
        let operator = program.operator();
        let answer = forward_auth(&program.http, &operator, "demo", "/", &headers).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    }
    let log = log_until_the_stop(program).await;
    // One for each of the two protocols.
    assert_eq!(count(&log, BROKEN), 2, "{log}");
    assert_eq!(
        count(&log, "key cannot be used"),
        1,
        "it names the key: {log}"
    );
}

/// Seen red with `tracing::warn!` in place of `limited!`, with one limiter for all reasons, and without the lines about Envoy.
#[tokio::test]
async fn a_misconfigured_gateway_is_one_line_for_each_reason() {
    let flags = [&FLAGS[..], &["--gateway", "nginx"]].concat();
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &flags);
    let operator = program.operator();
    for _ in 0..20 {
        assert_misconfigured(&program, "demo").await;
        assert_misconfigured(&program, "").await;
        for (key, realm) in [("no-key", "demo"), (&*operator, "unknown")] {
            let refused = envoy_check(&program.address, key, realm, "/", &[]).await;
            assert!(refused.is_err());
        }
    }
    let log = log_until_the_stop(program).await;
    assert_eq!(count(&log, "gateway misconfigured"), 4, "{log}");
    assert_eq!(count(&log, "the path must be"), 1, "{log}");
    assert_eq!(
        count(&log, "attributes.context_extensions.realm"),
        1,
        "{log}"
    );
    // What the gateway named is told, if it can be a name.
    assert_eq!(count(&log, r#""realm":"unknown""#), 1, "{log}");
}

/// Seen red without the limiter for libraries: one line for each of these frames, of 17 bytes.
#[tokio::test]
async fn frames_that_a_library_warns_about_are_one_line() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &FLAGS);
    ping(&program, &frame(PING, 1, 0, b"answered").repeat(1_000)).await;
    let log = log_until_the_stop(program).await;
    assert_eq!(count(&log, "recv PING ack"), 1, "{log}");
}

/// The lines of a log in JSON that have this message.
fn lines_with(log: &str, message: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["message"] == message)
        .collect()
}

/// The line of a denial has what an operator can look for, and no API key. Seen red without each line, with the whole target, and
/// with a filter for every library.
#[tokio::test]
async fn a_denial_leaves_a_line() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = [
        "--drain-delay",
        "0s",
        "--gateway",
        "nginx",
        "--log",
        "debug",
    ];
    let program = Program::serve(&test_store, &flags);
    let mut api = program.api();
    api.make_demo().await;
    let realm = pb::Realm {
        credentials: Some(pb::Credentials {
            sources: vec![header_source("x-api-key", "")],
            partner_header: String::new(),
        }),
        ..demo_realm()
    };
    api.put_realm(realm).await;
    let issued = api.issue().await;
    let (id, key) = (issued.key.unwrap().id, issued.plain_key);
    let question = pb::VerifyRequest {
        scopes: vec!["admin".to_owned()],
        client_ip: "198.51.100.7".to_owned(),
        ..verify_request(&key)
    };
    api.verify.verify(question).await.unwrap();
    let gateway = program.operator();
    let path = format!("/v1/{key}/a?key={key}");
    for headers in [
        &[][..],
        &[
            ("x-api-key", key.as_str()),
            ("x-forwarded-for", "203.0.113.9"),
        ],
    ] {
        forward_auth(&program.http, &gateway, "demo", &path, headers).await;
    }
    let log = log_until_the_stop(program).await;
    assert!(!log.contains(&key), "{log}");
    let [denied] = &lines_with(&log, "key denied")[..] else {
        panic!("{log}")
    };
    assert_eq!(denied["level"], "DEBUG");
    assert_eq!(denied["verdict"], "VERDICT_SCOPE_MISSING");
    assert_eq!(
        (&denied["key_id"], &denied["client"]),
        (&Value::from(id.clone()), &"198.51.100.7".into())
    );
    let [without, with] = &lines_with(&log, "request denied")[..] else {
        panic!("{log}")
    };
    assert_eq!(
        (&without["reason"], &without["key_id"]),
        (&Value::from("NO_KEY"), &Value::Null)
    );
    assert_eq!(
        (&with["reason"], &with["key_id"]),
        (&"NO_ROUTE".into(), &Value::from(id))
    );
    assert_eq!(
        (&with["realm"], &with["client"]),
        (&"demo".into(), &"203.0.113.9".into())
    );
    assert_eq!(
        (&with["method"], &with["path"]),
        (&"\"GET\"".into(), &"\"/v1/…/a\"".into())
    );
    for noisy in [r#""target":"h2"#, r#""target":"sqlx"#] {
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains(noisy) && line.contains("DEBUG"));
        assert_eq!(line, None, "{noisy}");
    }
}

/// Seen red without the line, and without the limiter.
#[tokio::test]
async fn a_refused_administrator_leaves_a_line_a_minute() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &FLAGS);
    let mut api = program.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    // A key of a partner administers nothing, and neither does somebody without a key.
    for caller in [key.as_str(), "no-key"] {
        let mut caller = Api::new(&program.address, caller);
        for _ in 0..3 {
            caller
                .keys
                .list_keys(pb::ListKeysRequest::default())
                .await
                .unwrap_err();
        }
    }
    let log = log_until_the_stop(program).await;
    let refused: Vec<_> = lines_with(&log, "administrator refused");
    let told: Vec<_> = refused
        .iter()
        .map(|line| (&line["method"], &line["code"], &line["level"]))
        .collect();
    let told_of = |code: &'static str| {
        (
            Value::from("ListKeys"),
            Value::from(code),
            Value::from("WARN"),
        )
    };
    let [denied, unknown] = [told_of("PermissionDenied"), told_of("Unauthenticated")];
    let expected = [&denied, &unknown].map(|(method, code, level)| (method, code, level));
    assert_eq!(told, expected, "{log}");
}

/// Seen red with `eprintln!` in `main`.
#[test]
fn no_command_panics_if_it_cannot_print() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", dir.path().join("data").display());
    let run = |line: &[&str]| {
        let mut command: Command = claviger(line);
        let command = command.stdin(Stdio::null()).stdout(full()).stderr(full());
        command.status().unwrap().code()
    };
    let key = "demo_live_4fzs3fzs3fzs3fzs3fzs3fz";
    for (line, code) in [
        (&[][..], 2),
        (&["--help"], 0),
        (&["serve", "--no-such-flag"], 2),
        (&["keys", "get", key, key], 2),
        (&["serve", "--log", "a=b=c"], 78),
        (&["serve", &data], 78),
        (&["migrate", &data], 78),
        (&["bootstrap", &data], 1),
        (
            &[
                "--endpoint",
                "http://127.0.0.1:1",
                "--key",
                key,
                "realm",
                "list",
            ],
            1,
        ),
    ] {
        assert_eq!(run(line), Some(code), "{line:?}");
    }
}
