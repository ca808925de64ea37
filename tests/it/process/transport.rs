//! What the transport promises to those who behave: deadlines, errors with reasons, connections that end well.

use std::time::{Duration, Instant};

use claviger::pb::claviger::v1::Verdict;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::{HeaderMap, Method, Request, Response};
use prost::bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::fixtures::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Raw, SETTINGS, call, frame, message,
};
use crate::fixtures::{DEADLINE, Engine, Program, TestStore, eventually, verify_request};

const VERIFY: &str = "/claviger.v1.KeyVerify/Verify";
const ISSUE: &str = "/claviger.v1.KeyAdmin/IssueKey";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The empty message.
const NOTHING: &[u8] = &[0; 5];

/// A client with the operator's key that sees the frames' contents as they are.
#[derive(Clone)]
struct Client {
    requests: SendRequest<Bytes>,
    bearer: String,
}

impl Client {
    async fn connect(program: &Program) -> Self {
        Self::connect_from(program, 1).await
    }

    /// From 127.0.0.x.
    async fn connect_from(program: &Program, from: u8) -> Self {
        let Raw(stream) = Raw::connect(&program.address, from).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let bearer = format!("Bearer {}", program.operator());
        Self { requests, bearer }
    }

    /// Begins a call whose body is still to come.
    async fn begin(
        &mut self,
        path: &str,
        more: &[(&'static str, &str)],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", &self.bearer);
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        self.requests = self.requests.clone().ready().await?;
        self.requests.send_request(request.body(()).unwrap(), false)
    }

    /// A call with a body, answered.
    async fn call(&mut self, path: &str, more: &[(&'static str, &str)], body: &[u8]) -> Status {
        let (answer, mut sending) = self.begin(path, more).await.unwrap();
        // The server may have answered before it has seen all of it.
        let _ = sending.send_data(Bytes::copy_from_slice(body), true);
        status(answer.await.unwrap()).await
    }
}

/// What a call was answered with, from its headers or its trailers.
async fn status(answer: Response<RecvStream>) -> Status {
    assert_eq!(answer.status(), 200);
    let (head, mut body) = answer.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return status;
    }
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers: HeaderMap = body.trailers().await.unwrap().expect("a status at the end");
    Status::from_header_map(&trailers).unwrap()
}

/// The reason in the one `ErrorInfo` that an error must have.
fn reason(status: &Status) -> String {
    let infos: Vec<_> = status
        .get_error_details_vec()
        .into_iter()
        .filter_map(|detail| match detail {
            tonic_types::ErrorDetail::ErrorInfo(info) => Some(info),
            _ => None,
        })
        .collect();
    let [info] = infos.as_slice() else {
        panic!("not one ErrorInfo: {status:?}");
    };
    assert_eq!(info.domain, "claviger");
    info.reason.clone()
}

/// Seen red without the timer: it is never answered.
#[tokio::test]
async fn a_call_whose_body_never_comes_ends_with_deadline_exceeded() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--call-timeout", "500ms"]);
    let mut client = Client::connect(&program).await;
    for (timeout, expected) in [("100m", "DEADLINE_EXCEEDED"), ("1H", "CALL_TOO_LONG")] {
        let (answer, _body) = client
            .begin(VERIFY, &[("grpc-timeout", timeout)])
            .await
            .unwrap();
        let status = status(answer.await.unwrap()).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(reason(&status), expected);
    }
}

/// Seen red without the bound.
#[tokio::test]
async fn a_full_server_says_when_to_come_back_and_health_is_answered_all_the_same() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--max-calls", "4"]);
    let mut client = Client::connect(&program).await;
    // Half of the places are for one address.
    let held = [
        client.begin(VERIFY, &[]).await.unwrap(),
        client.begin(ISSUE, &[]).await.unwrap(),
    ];
    // A call of KeyVerify takes its place when it has to wait, which is before a later call is answered.
    assert_eq!(client.call(HEALTH, &[], NOTHING).await.code(), Code::Ok);
    let unfinished = client.begin(VERIFY, &[]).await.unwrap();
    for refused in [
        client.call(ISSUE, &[], NOTHING).await,
        status(unfinished.0.await.unwrap()).await,
    ] {
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert_eq!(reason(&refused), "TOO_MANY_CALLS");
        let retry = refused.get_details_retry_info().unwrap();
        assert!(retry.retry_delay.unwrap() > Duration::ZERO);
    }
    assert_eq!(client.call(HEALTH, &[], NOTHING).await.code(), Code::Ok);
    let mut other = Client::connect_from(&program, 2).await;
    let admitted = other.call(ISSUE, &[], NOTHING).await;
    assert_eq!(admitted.code(), Code::InvalidArgument, "{admitted:?}");

    drop(held);
    eventually("the places are free again", async || {
        let status = client.call(ISSUE, &[], NOTHING).await;
        (status.code() == Code::InvalidArgument).then_some(())
    })
    .await;
}

/// Five bodies of which all but the last byte has come are more than one address may keep here.
#[tokio::test]
async fn too_many_unfinished_bodies_are_refused() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut client = Client::connect(&program).await;
    let mut most = vec![0, 0, 16, 0, 0];
    most.resize(5 + 1024 * 1024 - 1, 0);
    let most = Bytes::from(most);
    let mut held = Vec::new();
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (answer, mut body) = client.begin(ISSUE, &[]).await.unwrap();
        body.send_data(most.clone(), false).unwrap();
        held.push(body);
        answers.spawn(async { status(answer.await.unwrap()).await });
    }
    let first = answers.join_next().await.unwrap().unwrap();
    assert_eq!(first.code(), Code::ResourceExhausted, "{first:?}");
    assert_eq!(reason(&first), "TOO_MANY_BODIES");
    assert!(first.get_details_retry_info().is_some());
}

/// Seen red without the guard's look at what tonic answers.
#[tokio::test]
async fn every_error_says_why_also_those_that_no_handler_made() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut client = Client::connect(&program).await;
    let too_large = [&[0, 0, 1, 0, 1], [0; 1024].as_slice()].concat();
    let gzip = [("grpc-encoding", "gzip")];
    let none: [(&'static str, &str); 0] = [];
    for (path, more, body, code, expected) in [
        // A handler's own.
        (
            VERIFY,
            none.as_slice(),
            NOTHING,
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        // Field 1 claims more bytes than there are.
        (
            VERIFY,
            &none,
            &[0, 0, 0, 0, 2, 10, 99],
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
        ),
        (
            VERIFY,
            &none,
            &[],
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
        ),
        (
            VERIFY,
            &none,
            &[0, 0, 0, 0, 9, 10],
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
        ),
        (
            VERIFY,
            &none,
            &[7, 0, 0, 0, 0],
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
        ),
        (
            VERIFY,
            &none,
            &too_large,
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
        ),
        (VERIFY, &gzip, NOTHING, Code::Unimplemented, "UNIMPLEMENTED"),
        (
            "/claviger.v1.KeyVerify/Nothing",
            &none,
            NOTHING,
            Code::Unimplemented,
            "NO_SUCH_METHOD",
        ),
        (
            "/claviger.v1.Nothing/Verify",
            &none,
            NOTHING,
            Code::Unimplemented,
            "NO_SUCH_METHOD",
        ),
        (
            "/claviger.v1.KeyVerify/Verify?x",
            &none,
            NOTHING,
            Code::Unimplemented,
            "NO_SUCH_METHOD",
        ),
    ] {
        let status = client.call(path, more, body).await;
        assert_eq!(status.code(), code, "{path} {body:?} {status:?}");
        assert_eq!(reason(&status), expected, "{status:?}");
    }
    // Health keeps to its own standard.
    let mut unknown = vec![0, 0, 0, 0, 9, 10, 7];
    unknown.extend(b"nothing");
    let status = client.call(HEALTH, &[], &unknown).await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.details().is_empty());
}

#[tokio::test]
async fn a_connection_that_is_old_enough_is_told_to_go_and_its_calls_are_finished() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--connection-age", "300ms"]);
    let mut client = Client::connect(&program).await;
    let (answer, mut body) = client.begin(VERIFY, &[]).await.unwrap();
    eventually("no call can be begun any more", async || {
        match client.begin(HEALTH, &[]).await {
            Ok((answer, mut body)) => {
                let _ = body.send_data(Bytes::from_static(NOTHING), true);
                answer.await.err()
            }
            Err(error) => Some(error),
        }
        .filter(h2::Error::is_go_away)
    })
    .await;
    body.send_data(Bytes::from_static(NOTHING), true).unwrap();
    let status = status(answer.await.unwrap()).await;
    assert_eq!(status.code(), Code::InvalidArgument, "it is answered");
}

/// Over HTTP/1.1 nothing but an answer can announce the end. Seen red without the time in which an answer can: the connection
/// is closed between two requests.
#[tokio::test]
async fn a_connection_over_http1_ends_at_its_age_with_an_answer_that_says_so() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--connection-age", "300ms"]);
    let connections = (0..16).map(async |_| {
        let mut stream = BufStream::new(TcpStream::connect(&program.http).await.unwrap());
        for answered in 0.. {
            let request = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";
            stream.write_all(request).await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = String::new();
            while !answer.ends_with("\r\n\r\nok\n") {
                let read = stream.read_line(&mut answer).await;
                let read = read.unwrap_or_default();
                assert!(read > 0, "closed without a word after {answered} answers");
            }
            if answer.contains("connection: close\r\n") {
                break;
            }
        }
    });
    let mut idle = TcpStream::connect(&program.http).await.unwrap();
    futures_util::future::join_all(connections).await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    let mut answers = Vec::new();
    let end = tokio::time::timeout(DEADLINE, idle.read_to_end(&mut answers)).await;
    end.expect("a connection without requests ends too")
        .unwrap();
}

/// Streams have no end of their own, and answers may be refused by a window of zero for as long as the client likes. Seen
/// red without the bound after GOAWAY.
#[tokio::test]
async fn neither_an_open_stream_nor_unread_answers_hold_a_connection_beyond_its_age() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = ["--connection-age", "300ms", "--call-timeout", "500ms"];
    let program = Program::serve(&test_store, &flags);
    let mut api = program.api();
    api.make_demo().await;
    let question = message(&verify_request(&api.issue().await.plain_key));
    let bearer = format!("Bearer {}", program.operator());

    let mut unread = Raw::http2(&program.address, 2, &[(4, 0)]).await;
    let mut watching = Raw::http2(&program.address, 3, &[]).await;
    let head = call(VERIFY, &[("authorization", &bearer)]);
    for (raw, head, body) in [
        (&mut unread, head, question.as_slice()),
        (&mut watching, call(WATCH, &[]), NOTHING),
    ] {
        let frames = [
            frame(SETTINGS, 1, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &head),
            frame(DATA, END_STREAM, 1, body),
        ];
        raw.send(&frames.concat()).await.unwrap();
    }
    for mut raw in [unread, watching] {
        let mut kinds = Vec::new();
        let ending = async {
            while let Some(frame) = raw.next().await {
                kinds.push(frame.kind);
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ending)
            .await
            .expect("the connection is still open");
        assert!(
            kinds.contains(&HEADERS) && kinds.contains(&GOAWAY),
            "{kinds:?}"
        );
    }
}

/// Whether the server keeps a connection on which HTTP/1.1 is spoken.
async fn keeps(raw: &mut Raw) -> bool {
    let mut answer = [0; 12];
    let request = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";
    raw.send(request).await.is_ok()
        && raw.0.read_exact(&mut answer).await.is_ok()
        && answer == *b"HTTP/1.1 200"
}

/// Seen red without the cap by address.
#[tokio::test]
async fn connections_are_capped_in_all_and_by_address_and_the_log_stays_short() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = [
        "--max-connections",
        "3",
        "--max-connections-per-address",
        "2",
    ];
    let program = Program::serve(&test_store, &flags);
    let mut kept = Vec::new();
    for (from, expected) in [(2, true), (2, true), (2, false), (3, true), (4, false)] {
        let mut raw = Raw::connect(&program.http, from).await.unwrap();
        assert_eq!(keeps(&mut raw).await, expected, "from 127.0.0.{from}");
        kept.extend(expected.then_some(raw));
    }
    for _ in 0..100 {
        let mut raw = Raw::connect(&program.http, 4).await.unwrap();
        assert!(!keeps(&mut raw).await);
    }
    drop(kept);
    eventually("there is room again", async || {
        let mut raw = Raw::connect(&program.http, 4).await.unwrap();
        keeps(&mut raw).await.then_some(())
    })
    .await;
    let log = String::from_utf8(program.log.lock().unwrap().clone()).unwrap();
    // One for each of the two reasons.
    assert_eq!(log.matches("connections refused").count(), 2, "{log}");
}

/// Seen red with each of the three mechanisms off: a silent connection then takes the five seconds that its first bytes may
/// take, a deaf one and an open stream the thirty of a call.
#[tokio::test]
async fn whoever_is_silent_or_only_listens_does_not_hold_up_a_stop() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = ["--drain-delay", "0s", "--drain-timeout", "1h"];
    let mut program = Program::serve(&test_store, &flags);
    let _silent = Raw::connect(&program.address, 1).await.unwrap();
    let _silent_probe = Raw::connect(&program.http, 1).await.unwrap();
    let mut idle_probe = Raw::connect(&program.http, 1).await.unwrap();
    assert!(keeps(&mut idle_probe).await);
    // It never answers to GOAWAY, nor to the ping with it.
    let mut deaf = Raw::http2(&program.address, 1, &[]).await;
    assert_eq!(deaf.next().await.unwrap().kind, SETTINGS);
    let mut client = Client::connect(&program).await;
    let (answer, mut asking) = client.begin(REFLECTION, &[]).await.unwrap();
    // ServerReflectionRequest{list_services: ""}
    let list = Bytes::from_static(&[0, 0, 0, 0, 2, 58, 0]);
    asking.send_data(list, false).unwrap();
    let mut answers = answer.await.unwrap().into_body();
    assert!(!answers.data().await.unwrap().unwrap().is_empty());

    let began = Instant::now();
    program.signal("TERM");
    let stopped = tokio::task::spawn_blocking(move || program.wait());
    assert!(stopped.await.unwrap().success());
    // A second is what a deaf one gets.
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(answers.data().await.is_none(), "the stream ended well");
    let trailers = answers.trailers().await.unwrap().unwrap();
    assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn probes_speak_http_1_0_and_1_1_and_are_limited_too() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let ask = async |request: String| {
        let mut raw = Raw::connect(&program.http, 1).await.unwrap();
        raw.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = raw.0.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let answer = ask("GET /livez HTTP/1.0\r\n\r\n".to_owned()).await;
    assert!(
        answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("ok\n"),
        "{answer}"
    );
    for headers in [
        "x: y\r\n".repeat(300),
        format!("x: {}\r\n", "y".repeat(80_000)),
    ] {
        let answer = ask(format!(
            "GET /livez HTTP/1.1\r\nhost: test\r\n{headers}\r\n"
        ))
        .await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

/// Seen red without the pause: the loop then takes a whole core for as long as there is no descriptor.
#[tokio::test]
async fn without_file_descriptors_it_waits_and_goes_on() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;

    program.limit_descriptors(50);
    let crowd = crowd(&program).await;
    let before = program.processor_time();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = program.processor_time().saturating_sub(before);
    assert!(spent < Duration::from_millis(500), "it spun: {spent:?}");
    // Whoever is connected is served.
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);
    drop(crowd);
    eventually("there is room again", async || {
        let mut raw = Raw::connect(&program.http, 1).await.unwrap();
        keeps(&mut raw).await.then_some(())
    })
    .await;
}

/// Seen red without the reserve, by the number of descriptors; the store had most of its files open before.
#[tokio::test]
async fn a_crowd_leaves_descriptors_for_the_store() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve_with_descriptors(&test_store, 160);
    let mut api = program.api();
    api.make_demo().await;
    let crowd = crowd(&program).await;
    assert!(program.descriptors() < 100, "{}", program.descriptors());
    let key = api.issue().await.plain_key;
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);
    drop(crowd);
}

/// More connections than the server has descriptors for; it has noticed.
async fn crowd(program: &Program) -> Vec<Raw> {
    let mut crowd = Vec::new();
    for i in 0..200 {
        crowd.push(Raw::connect(&program.address, 2 + i / 50).await.unwrap());
    }
    eventually("it has noticed", async || {
        let log = program.log.lock().unwrap().clone();
        let log = String::from_utf8(log).unwrap();
        log.contains("connections refused").then_some(())
    })
    .await;
    crowd
}
