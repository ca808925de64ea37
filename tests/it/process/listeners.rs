//! Where the program listens: an address for administration alone, a Unix socket, and sockets that systemd has opened.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::tool;
use crate::fixtures::{
    Api, Engine, Program, TestStore, claviger, envoy_check, outcome, verify_request,
    without_variables,
};

/// A field of the line that says where the program listens.
fn listening(program: &Program, field: &str) -> String {
    let log = program.log.lock().unwrap();
    let lines = log.split(|byte| *byte == b'\n');
    let mut lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let line = lines.find(|line| line["message"] == "listening").unwrap();
    line[field].as_str().unwrap_or_default().to_owned()
}

fn is_elsewhere(status: &Status) {
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    let reason = status.get_details_error_info().unwrap().reason;
    assert_eq!(reason, "ADMINISTRATION_ELSEWHERE");
}

/// Seen red with a gateways' address that serves everything, and with reflection left there.
#[tokio::test]
async fn the_address_of_gateways_has_no_administration_if_that_has_its_own() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--admin-listen", "127.0.0.1:0"]);
    let admin = listening(&program, "admin");
    let mut administrator = Api::new(&admin, &program.operator());
    administrator.make_demo().await;
    let key = administrator.issue().await.plain_key;
    assert_eq!(administrator.verdict(&key).await, Verdict::Allowed);

    let mut gateway = program.api();
    assert_eq!(gateway.verdict(&key).await, Verdict::Allowed);
    let operator = program.operator();
    envoy_check(&program.address, &operator, "demo", "/", &[])
        .await
        .unwrap();
    is_elsewhere(
        &gateway
            .keys
            .list_keys(pb::ListKeysRequest::default())
            .await
            .unwrap_err(),
    );
    is_elsewhere(
        &gateway
            .realms
            .list_realms(pb::ListRealmsRequest::default())
            .await
            .unwrap_err(),
    );
    let explain = pb::ExplainRequest::default();
    is_elsewhere(&gateway.verify.explain(explain).await.unwrap_err());

    let grpcurl = |address: &str, what: &[&str]| {
        let mut line = Command::new(tool("grpcurl"));
        outcome(line.args(["-plaintext", address]).args(what))
            .status
            .success()
    };
    assert!(grpcurl(&admin, &["list"]));
    assert!(!grpcurl(&program.address, &["list"]));
    let output = outcome(
        claviger(&["realm", "list", "--endpoint", &program.address]).env("CLAVIGER_KEY", &operator),
    );
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("--admin-listen"), "{complaint}");
}

fn over(path: &Path) -> Channel {
    let url = format!("unix:{}", path.display());
    Endpoint::from_shared(url).unwrap().connect_lazy()
}

/// Calls over a Unix socket in Python, whose gRPC names the path as the host unless it is told another.
const PYTHON: &str = "import grpc, sys
path, key = sys.argv[1:]
same = dict(request_serializer=lambda b: b, response_deserializer=lambda b: b)
with grpc.insecure_channel('unix:' + path, [('grpc.default_authority', 'localhost')]) as channel:
    list_realms = channel.unary_unary('/claviger.v1.RealmAdmin/ListRealms', **same)
    print(list_realms(b'', metadata=[('authorization', 'Bearer ' + key)], timeout=20))
";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn in_dir(test_store: &TestStore) -> (PathBuf, String) {
    let path = test_store.data().with_file_name("claviger.sock");
    let flag = format!("--unix-socket={}", path.display());
    (path, flag)
}

/// Seen red with the file left behind at a stop, and with an address that such callers are given.
#[tokio::test]
async fn a_unix_socket_serves_those_who_may_open_it() {
    let test_store = TestStore::on(Engine::Sqlite);
    let (path, flag) = in_dir(&test_store);
    let flags = [
        &*flag,
        "--drain-delay",
        "0s",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let mut program = Program::serve(&test_store, &flags);
    assert_eq!(listening(&program, "unix"), path.display().to_string());
    assert_eq!(mode(&path), 0o660);
    let operator = program.operator();
    let mut api = Api::on(over(&path), &operator);
    api.make_demo().await;
    let key = api.issue().await;
    assert_eq!(api.verdict(&key.plain_key).await, Verdict::Allowed);

    // Such a caller has no address, so a key that is bound to addresses is of no use to it.
    let mut bound = pb::IssueKeyRequest {
        realm: "claviger".to_owned(),
        partner: "demo".to_owned(),
        scopes: vec!["verify".to_owned()],
        allowed_cidrs: vec!["127.0.0.0/8".to_owned()],
        ..Default::default()
    };
    let bound = api
        .keys
        .issue_key(std::mem::take(&mut bound))
        .await
        .unwrap()
        .into_inner();
    let verify = async |mut api: Api| api.verify.verify(verify_request(&key.plain_key)).await;
    verify(program.api().with_key(&bound.plain_key))
        .await
        .unwrap();
    let refused = verify(api.with_key(&bound.plain_key)).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");

    let endpoint = format!("unix:{}", path.display());
    let listed = outcome(
        claviger(&["realm", "list", "--json", "--endpoint", &endpoint])
            .env("CLAVIGER_KEY", &operator),
    );
    assert!(String::from_utf8(listed.stdout).unwrap().contains("demo"));
    let mut grpcurl = Command::new(tool("grpcurl"));
    let bearer = format!("authorization: Bearer {operator}");
    grpcurl
        .args(["-plaintext", "-unix", "-authority", "localhost"])
        .args(["-H", &bearer])
        .arg(&path);
    let listed = outcome(grpcurl.arg("claviger.v1.RealmAdmin/ListRealms"));
    assert!(String::from_utf8(listed.stdout).unwrap().contains("demo"));

    let mut python = Command::new(tool("python"));
    let listed = outcome(python.args(["-c", PYTHON]).arg(&path).arg(&operator));
    assert!(String::from_utf8(listed.stdout).unwrap().contains("demo"));

    program.signal("TERM");
    let stopped = tokio::task::spawn_blocking(move || program.wait());
    assert!(stopped.await.unwrap().success());
    assert!(!path.exists());
    let listed = outcome(
        claviger(&["realm", "list", "--endpoint", &endpoint]).env("CLAVIGER_KEY", &operator),
    );
    let complaint = String::from_utf8(listed.stderr).unwrap();
    assert!(complaint.contains(&endpoint), "{complaint}");
}

/// Neither TLS nor client certificates are needed over a Unix socket: its file decides.
#[tokio::test]
async fn a_unix_socket_needs_no_certificates() {
    let certificates = crate::tls::Certificates::new();
    let test_store = TestStore::on(Engine::Sqlite);
    let (path, flag) = in_dir(&test_store);
    let ca = certificates.path("ca.pem");
    let tls = certificates.flags();
    let mut flags: Vec<_> = tls.iter().map(String::as_str).collect();
    flags.extend([
        &*flag,
        "--client-ca",
        &ca,
        "--require-client-cert",
        "admin,verify",
    ]);
    let program = Program::serve(&test_store, &flags);
    let mut api = Api::on(over(&path), &program.operator());
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);
}

/// Seen red with a socket that is never replaced, and with one that always is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_of_a_server_that_is_gone_is_replaced_and_no_other() {
    let test_store = TestStore::on(Engine::Sqlite);
    let (path, flag) = in_dir(&test_store);
    let mut program = Program::serve(&test_store, &[&flag]);
    let other_store = TestStore::on(Engine::Sqlite);
    let data_dir = format!("--data-dir={}", other_store.data().display());
    let second = outcome(&mut claviger(&[
        "serve",
        "--init",
        &data_dir,
        &flag,
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ]));
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("--unix-socket"), "{complaint}");
    program.kill();
    assert!(path.exists());
    let program = Program::serve(&test_store, &[&flag]);
    let mut api = Api::on(over(&path), &program.operator());
    api.make_demo().await;
}

/// `claviger serve` as systemd starts it, with a socket that becomes descriptor 3.
fn activated(socket: impl Into<Stdio>, name: &str, test_store: &TestStore) -> Command {
    let program = env!("CARGO_BIN_EXE_claviger");
    let data = test_store.data();
    let line = format!(
        "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}; exec {program} serve --init --data-dir {} \
         --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --argon2-memory 8 --argon2-passes 1",
        data.display()
    );
    let mut shell = Command::new("bash");
    without_variables(&mut shell)
        .args(["-c", &line])
        .stdin(socket);
    shell
}

/// Seen red with sockets that are looked at but not taken.
#[tokio::test]
async fn a_socket_that_systemd_has_opened_is_served() {
    let test_store = TestStore::on(Engine::Sqlite);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let command = &mut activated(OwnedFd::from(socket), "listen", &test_store);
    let program = Program::start(command, test_store.data());
    assert_eq!(program.address, address);
    program.api().make_demo().await;

    let test_store = TestStore::on(Engine::Sqlite);
    let (path, _) = in_dir(&test_store);
    let socket = UnixListener::bind(&path).unwrap();
    let command = &mut activated(OwnedFd::from(socket), "unix-socket", &test_store);
    let program = Program::start(command, test_store.data());
    let mut api = Api::on(over(&path), &program.operator());
    api.make_demo().await;
    drop(program);
    // Its file belongs to systemd.
    assert!(path.exists());
}

/// Whoever may open the file needs no client certificate, so not everybody may. Seen red without the look at the mode.
#[test]
fn a_socket_of_systemd_that_everybody_may_open_is_refused() {
    let test_store = TestStore::on(Engine::Sqlite);
    let (path, _) = in_dir(&test_store);
    let socket = UnixListener::bind(&path).unwrap();
    // The default of systemd.
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let (code, complaint) = refused(socket, "unix-socket", &test_store);
    assert_eq!(code, Some(78), "{complaint}");
    assert!(complaint.contains("SocketMode=0660"), "{complaint}");
}

/// The exit code of a start with a socket, and what it complains about.
fn refused(
    socket: impl Into<OwnedFd>,
    name: &str,
    test_store: &TestStore,
) -> (Option<i32>, String) {
    let mut command = activated(socket.into(), name, test_store);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), complaint)
}

/// Seen red with a name that is ignored.
#[test]
fn a_socket_that_is_for_nothing_is_refused() {
    for (name, expected) in [
        ("claviger.socket", "FileDescriptorName="),
        ("unix-socket", "does not listen on a path"),
    ] {
        let test_store = TestStore::on(Engine::Sqlite);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (code, complaint) = refused(socket, name, &test_store);
        assert_eq!(code, Some(78), "{complaint}");
        assert!(complaint.contains(expected), "{complaint}");
    }
}

/// A socket of systemd that other machines can reach needs TLS like any other.
#[test]
fn a_passed_socket_must_not_be_exposed_as_plain_text() {
    let test_store = TestStore::on(Engine::Sqlite);
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let (code, complaint) = refused(socket, "listen", &test_store);
    assert_eq!(code, Some(78), "{complaint}");
    assert!(complaint.contains("--insecure-listen"), "{complaint}");
}
