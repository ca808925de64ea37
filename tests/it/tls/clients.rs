//! The clients that people use: the command line, grpcurl, buf, Python, curl and openssl.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use crate::fixtures::claviger;
use crate::process::tool;

use super::{TlsServer, client_certificates};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// `claviger realm list` at an endpoint.
fn list_realms(endpoint: &str, operator: &str, flags: &[&str]) -> Output {
    claviger(&["realm", "list", "--endpoint", endpoint])
        .args(flags)
        .env("CLAVIGER_KEY", operator)
        .output()
        .unwrap()
}

/// Seen red without `http/1.0` among the protocols: curl is then refused.
#[test]
fn the_command_line_grpcurl_buf_python_and_curl_are_served() {
    let server = TlsServer::start(&[]);
    let (address, operator) = (&server.program.address, server.program.operator());
    let ca = server.certificates.path("ca.pem");
    let endpoint = format!("https://{address}");
    let realms = said(&list_realms(&endpoint, &operator, &["--ca-file", &ca]));
    assert!(realms.contains("claviger"), "{realms}");

    let bearer = format!("authorization: Bearer {operator}");
    for flags in [&["-cacert", &ca][..], &["-insecure"]] {
        let mut grpcurl = Command::new(tool("grpcurl"));
        grpcurl
            .args(flags)
            .args(["-H", &bearer, address, "claviger.v1.RealmAdmin/ListRealms"]);
        let realms = said(&grpcurl.output().unwrap());
        assert!(realms.contains("\"claviger\""), "{realms}");
    }

    let mut buf = Command::new(tool("buf"));
    buf.args([
        "curl",
        "--protocol",
        "grpc",
        "--reflect-protocol",
        "grpc-v1",
    ])
    .args(["--cacert", &ca, "-H", &bearer])
    .arg(format!("{endpoint}/claviger.v1.RealmAdmin/ListRealms"));
    let realms = said(&buf.output().unwrap());
    assert!(realms.contains("\"claviger\""), "{realms}");

    let script = "import grpc, sys\n\
        from grpc_health.v1 import health_pb2, health_pb2_grpc\n\
        address, ca, key = sys.argv[1:]\n\
        credentials = grpc.ssl_channel_credentials(open(ca, 'rb').read())\n\
        channel = grpc.secure_channel(address, credentials)\n\
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)\n\
        assert health.status == health_pb2.HealthCheckResponse.SERVING\n\
        same = dict(request_serializer=lambda b: b, response_deserializer=lambda b: b)\n\
        list_realms = channel.unary_unary('/claviger.v1.RealmAdmin/ListRealms', **same)\n\
        assert b'claviger' in list_realms(b'', metadata=[('authorization', 'Bearer ' + key)])\n\
        print('served')\n";
    let mut python = Command::new(tool("python"));
    python.args(["-c", script, address, &ca, &operator]);
    assert_eq!(said(&python.output().unwrap()), "served\n");

    let ready = format!("https://{}/readyz", server.program.http);
    for flags in [
        &[][..],
        &["--tls-max", "1.2"],
        &["--http1.0"],
        &["--http1.1"],
    ] {
        let mut curl = Command::new("curl");
        let ok = said(
            &curl
                .args(["-sS", "--cacert", &ca])
                .args(flags)
                .arg(&ready)
                .output()
                .unwrap(),
        );
        assert_eq!(ok, "ok\n");
    }
}

/// Calls `ListRealms` with the address, the CA, the operator's key, and maybe the client's certificate and its key.
const PYTHON_CALL: &str = "import grpc, sys
address, ca, key, *own = sys.argv[1:]
ca, *own = (open(path, 'rb').read() for path in (ca, *own))
certificate, private = own or (None, None)
credentials = grpc.ssl_channel_credentials(ca, private, certificate)
same = dict(request_serializer=lambda b: b, response_deserializer=lambda b: b)
with grpc.secure_channel(address, credentials) as channel:
    list_realms = channel.unary_unary('/claviger.v1.RealmAdmin/ListRealms', **same)
    try:
        print(list_realms(b'', metadata=[('authorization', 'Bearer ' + key)], timeout=20))
    except grpc.RpcError as error:
        print(error.code(), error.details())
";

/// Where `admin` requires a certificate, and none is sent, or one. Seen red with a server that requires none.
#[test]
fn python_buf_and_openssl_are_served_with_a_client_certificate_where_one_is_required() {
    let server = client_certificates::server(&["admin"], &[]);
    let (address, operator) = (&server.program.address, server.program.operator());
    let [ca, cert, key] =
        ["ca.pem", "gateway.pem", "gateway.key"].map(|name| server.certificates.path(name));
    let python = |own: &[&String]| {
        let mut python = Command::new(tool("python"));
        python.args(["-c", PYTHON_CALL, address, &ca, &operator]);
        said(&python.args(own).output().unwrap())
    };
    let buf = |own: &[&str]| {
        let mut buf = Command::new(tool("buf"));
        buf.args([
            "curl",
            "--protocol",
            "grpc",
            "--reflect-protocol",
            "grpc-v1",
        ])
        .args(["--cacert", &ca])
        .args(own)
        .args(["-H", &format!("authorization: Bearer {operator}")])
        .arg(format!(
            "https://{address}/claviger.v1.RealmAdmin/ListRealms"
        ));
        let output = buf.output().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };
    let flags = ["--cert", &cert, "--key", &key];
    for told in [python(&[&cert, &key]), buf(&flags)] {
        assert!(told.contains("everything in every realm"), "{told}");
    }
    for told in [python(&[]), buf(&[])] {
        assert!(!told.contains("everything in every realm"), "{told}");
        assert!(told.contains("requires a client certificate"), "{told}");
        assert!(told.to_lowercase().contains("unauthenticated"), "{told}");
    }

    server.certificates.issuer("stranger");
    server
        .certificates
        .issue("strange", "stranger", "DNS:gateway");
    let [strange, strange_key] =
        ["strange.pem", "strange.key"].map(|name| server.certificates.path(name));
    for version in ["-tls1_2", "-tls1_3"] {
        let own = [version, "-cert", &cert, "-key", &key, "-CAfile", &ca];
        for flags in [&own[..], &[version, "-CAfile", &ca]] {
            let (ok, told) = s_client(address, flags);
            assert!(ok && told.contains("Verify return code: 0 (ok)"), "{told}");
            // The issuers that the server accepts.
            assert!(told.contains("CN = clients"), "{told}");
        }
    }
    // With TLS 1.3 the client learns of it only after its handshake.
    let own = ["-tls1_2", "-cert", &strange, "-key", &strange_key];
    let (ok, told) = s_client(address, &own);
    assert!(!ok && told.contains("alert"), "{told}");
}

/// What `openssl s_client` says about a handshake.
fn s_client(address: &str, flags: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", address])
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.success(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

/// Seen red with `h2` offered by both listeners, with tickets, and without vectored writes below TLS: the alert is then lost.
#[test]
fn tls_1_2_and_1_3_are_served_with_the_protocol_of_the_listener() {
    let server = TlsServer::start(&[]);
    let (grpc, http) = (&server.program.address, &server.program.http);
    for (address, protocol, other) in [(grpc, "h2", "http/1.1"), (http, "http/1.1", "h2")] {
        for (version, shown) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let both = format!("{other},{protocol}");
            let (ok, told) = s_client(address, &[version, "-alpn", &both]);
            assert!(ok && told.contains(&format!("New, {shown}")), "{told}");
            assert!(
                told.contains(&format!("ALPN protocol: {protocol}\n")),
                "{told}"
            );
            // Each connection proves itself anew, and nothing is sent before the handshake ends.
            assert!(
                !told.contains("Post-Handshake New Session Ticket"),
                "{told}"
            );
            let (ok, told) = s_client(address, &[version, "-alpn", other]);
            assert!(!ok && told.contains("no application protocol"), "{told}");
            let (ok, _) = s_client(address, &[version]);
            assert!(ok, "a client may offer none");
        }
        let (ok, told) = s_client(address, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!ok && told.contains("alert"), "{told}");
    }
}

/// A server of `OpenSSL` with a certificate that claviger would not start with.
struct OtherServer {
    child: Child,
    address: String,
}

impl OtherServer {
    fn start(cert: &str, key: &str) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-alpn", "h2"])
            .args(["-cert", cert, "-key", key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("ACCEPT ")?.to_owned()))
            .unwrap();
        Self { child, address }
    }
}

impl Drop for OtherServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seen red with the errors of rustls shown as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_says_what_is_wrong_with_a_connection() {
    let server = TlsServer::start(&[]);
    let certificates = &server.certificates;
    certificates.issuer("stranger");
    certificates.issue_expired("expired");
    certificates.self_sign("alone", "CA:FALSE");
    certificates.self_sign("issuer", "CA:TRUE");
    let [ca, stranger] = ["ca.pem", "stranger.pem"].map(|name| certificates.path(name));
    let [expired, key] = ["expired.pem", "expired.key"].map(|name| certificates.path(name));
    let other = OtherServer::start(&expired, &key);
    let [alone, issuer, issuer_key] =
        ["alone.pem", "issuer.pem", "issuer.key"].map(|name| certificates.path(name));
    let as_server = OtherServer::start(&issuer, &issuer_key);
    let test_store = crate::fixtures::TestStore::on(crate::fixtures::Engine::Sqlite);
    let plain = crate::fixtures::Program::serve(&test_store, &[]);
    let port = server.program.address.rsplit_once(':').unwrap().1;
    let https = format!("https://{}", server.program.address);
    for (endpoint, flags, why, hint) in [
        (&https, &[][..], "issuer", "--ca-file"),
        (&https, &["--ca-file", &stranger], "issuer", "--ca-file"),
        (
            &format!("https://localhost:{port}"),
            &["--ca-file", &ca],
            "not valid for the name",
            "--endpoint",
        ),
        (
            &format!("https://{}", other.address),
            &["--ca-file", &ca],
            "expired",
            "replace",
        ),
        (
            &format!("https://{}", as_server.address),
            &["--ca-file", &issuer],
            "CA:TRUE",
            "CA:FALSE",
        ),
        (
            &format!("https://{}", plain.address),
            &["--ca-file", &ca],
            "does not serve TLS",
            "http://",
        ),
        (
            &format!("https://{}", server.http_address()),
            &["--ca-file", &ca],
            "does not speak gRPC",
            "7700",
        ),
        (
            &format!("http://{}", server.program.address),
            &[],
            "broke",
            "https://",
        ),
    ] {
        let output = list_realms(endpoint, &server.program.operator(), flags);
        let complaint = text(&output.stderr);
        let (error, remedy) = complaint.split_once("hint: ").unwrap_or((&complaint, ""));
        assert!(
            error.contains(why) && remedy.contains(hint),
            "{endpoint} {flags:?}: {complaint}"
        );
        assert!(error.contains(endpoint.as_str()), "{complaint}");
        assert_eq!(output.status.code(), Some(1), "{complaint}");
    }
    server
        .logs(&["WARN", "does not trust the server's certificate"])
        .await;
    server
        .logs(&["WARN", "does not accept the server's certificate"])
        .await;
    server.logs(&["WARN", "does not speak TLS"]).await;

    // A certificate that is its own issuer is trusted by itself.
    certificates.replace("server", "alone");
    server.program.signal("HUP");
    server.logs(&["INFO", "certificates replaced"]).await;
    let operator = server.program.operator();
    said(&list_realms(&https, &operator, &["--ca-file", &alone]));
    let refused = list_realms(&https, &operator, &["--ca-file", &ca]);
    assert!(text(&refused.stderr).contains("not from a trusted issuer"));
}
