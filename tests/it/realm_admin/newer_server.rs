//! The command line on servers that no test can start: one of a newer version, and one whose realm others change all the
//! time.

use std::sync::{Arc, Mutex};

use claviger::pb::claviger::v1 as pb;
use h2::server::SendResponse;
use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::bytes;
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::codegen::http::{HeaderMap, Request, Response};

use crate::fixtures::{claviger, demo_realm, outcome};

/// The calls that a server got: the method and the message of each.
type Calls = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Fields with these numbers are in no version of the proto.
const FUTURE_FIELD: u32 = 9_000;
const REALM: u32 = 1;
const SCOPES: u32 = 4;
const ROUTES: u32 = 11;

/// A message with a field that this version does not know.
fn with_future_field(message: &impl Message, value: &str) -> Vec<u8> {
    let mut encoded = message.encode_to_vec();
    bytes::encode(FUTURE_FIELD, &value.as_bytes().to_vec(), &mut encoded);
    encoded
}

/// The response of `GetRealm` with fields of the future in the realm, in a scope and in a route.
fn realm_of_the_future() -> Vec<u8> {
    let [read, write, _] = &demo_realm().scopes[..] else {
        unreachable!("the realm has three scopes")
    };
    let route = pb::Route {
        path: "/v1/**".to_owned(),
        ..Default::default()
    };
    let realm = pb::Realm {
        scopes: Vec::new(),
        revision: 7,
        ..demo_realm()
    };
    let mut realm = with_future_field(&realm, "future of the realm");
    for (number, entry) in [
        (SCOPES, with_future_field(read, "future of a scope")),
        (SCOPES, with_future_field(write, "future of another scope")),
        (ROUTES, with_future_field(&route, "future of a route")),
    ] {
        bytes::encode(number, &entry, &mut realm);
    }
    let mut response = Vec::new();
    bytes::encode(REALM, &realm, &mut response);
    response
}

/// Serves `GetRealm` with this response, and `PutRealm` with this code.
async fn serve(listener: TcpListener, got: Vec<u8>, put: Code, calls: Calls) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(serve_connection(
            socket,
            got.clone(),
            put,
            Arc::clone(&calls),
        ));
    }
}

async fn serve_connection(socket: TcpStream, got: Vec<u8>, put: Code, calls: Calls) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (got, calls) = (got.clone(), Arc::clone(&calls));
        tokio::spawn(async move {
            let (method, message) = read_call(request).await;
            let (code, answer) = match &*method {
                "GetRealm" => (Code::Ok, got),
                _ => (put, Vec::new()),
            };
            calls.lock().unwrap().push((method, message));
            send_answer(respond, code, &answer);
        });
    }
}

/// The method of a call, and its message without the prefix of five bytes.
async fn read_call(request: Request<h2::RecvStream>) -> (String, Vec<u8>) {
    let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend(data.unwrap());
    }
    (method, message.split_off(5))
}

fn send_answer(mut respond: SendResponse<Bytes>, code: Code, answer: &[u8]) {
    let response = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond
        .send_response(response.body(()).unwrap(), false)
        .unwrap();
    let mut message = vec![0];
    message.extend((answer.len() as u32).to_be_bytes());
    message.extend(answer);
    if code == Code::Ok {
        stream.send_data(message.into(), false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", i32::from(code).into());
    stream.send_trailers(trailers).unwrap();
}

/// A command on such a server.
struct Outcome {
    code: Option<i32>,
    complaint: String,
    calls: Vec<(String, Vec<u8>)>,
}

async fn run(line: &'static str, got: Vec<u8>, put: Code) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let calls = Calls::default();
    let serving = tokio::spawn(serve(listener, got, put, Arc::clone(&calls)));
    let command = move || {
        let args: Vec<_> = line.split(' ').collect();
        outcome(
            claviger(&args)
                .env("CLAVIGER_ENDPOINT", address)
                .env("CLAVIGER_KEY", "a-key"),
        )
    };
    let output = tokio::task::spawn_blocking(command).await.unwrap();
    serving.abort();
    let calls = std::mem::take(&mut *calls.lock().unwrap());
    Outcome {
        code: output.status.code(),
        complaint: String::from_utf8(output.stderr).unwrap(),
        calls,
    }
}

/// Seen red with the realm converted to the generated message before the put; with new scopes that take nothing from the old
/// ones; and without `if_revision` in the put.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_only_a_newer_server_knows_stay() {
    let line = "realm put demo --scope read --scope extra --max-cache 9s";
    let done = run(line, realm_of_the_future(), Code::Ok).await;
    assert_eq!(done.code, Some(0), "{}", done.complaint);
    let calls = done.calls;
    let [(get, _), (put, message)] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!((&**get, &**put), ("GetRealm", "PutRealm"));
    let request = pb::PutRealmRequest::decode(&**message).unwrap();
    assert_eq!(request.if_revision, Some(7));
    let realm = request.realm.unwrap();
    let names: Vec<_> = realm.scopes.iter().map(|scope| &*scope.name).collect();
    assert_eq!(names, ["read", "extra"]);
    let has = |value: &str| {
        message
            .windows(value.len())
            .any(|part| part == value.as_bytes())
    };
    assert!(has("future of the realm"));
    assert!(has("future of a scope"), "the scope stays");
    assert!(!has("future of another scope"), "the scope does not stay");
    assert!(has("future of a route"));
}

/// Seen red without a second attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_others_overtake_each_time_is_given_up() {
    let done = run(
        "realm put demo --max-cache 9s",
        realm_of_the_future(),
        Code::Aborted,
    )
    .await;
    let complaint = done.complaint;
    assert_eq!(done.code, Some(1));
    assert!(
        complaint.contains("other callers changed the realm during each of 10 attempts"),
        "{complaint}"
    );
    assert!(
        complaint.contains("\nhint: repeat the command"),
        "{complaint}"
    );
    let puts = done.calls.iter().filter(|(method, _)| method == "PutRealm");
    assert_eq!((puts.count(), done.calls.len()), (10, 20));

    // With a revision, the command says which state it is for, so it is not repeated.
    let line = "realm put demo --max-cache 9s --if-revision 7";
    let done = run(line, realm_of_the_future(), Code::Aborted).await;
    assert_eq!(
        (done.code, done.calls.len()),
        (Some(1), 2),
        "{}",
        done.complaint
    );
}

/// Seen red without the look for unknown fields, and with a look at the realm's own fields only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_is_written_of_a_realm_with_settings_that_only_a_newer_server_knows() {
    let done = run("realm get demo --toml", realm_of_the_future(), Code::Ok).await;
    assert_eq!(done.code, Some(1));
    assert!(
        done.complaint
            .contains("settings that this program does not know"),
        "{}",
        done.complaint
    );
    // In an entry of a list, and nowhere else.
    let route = with_future_field(&pb::Route::default(), "future of a route");
    let mut realm = demo_realm().encode_to_vec();
    bytes::encode(ROUTES, &route, &mut realm);
    let mut got = Vec::new();
    bytes::encode(REALM, &realm, &mut got);
    let done = run("realm get demo --toml", got, Code::Ok).await;
    assert_eq!(done.code, Some(1));
    let got = pb::GetRealmResponse {
        realm: Some(demo_realm()),
        ..Default::default()
    };
    let done = run("realm get demo --toml", got.encode_to_vec(), Code::Ok).await;
    assert_eq!(done.code, Some(0), "{}", done.complaint);
}
