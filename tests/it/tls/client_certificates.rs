//! Certificates of clients: asked for, verified, and required by the services that are named, but never by the handshake.

use std::path::Path;
use std::process::{Command, Output};

use claviger::pb::claviger::v1 as pb;
use tonic::Code;
use tonic::transport::Identity;
use tonic_types::StatusExt as _;

use super::certificates::Certificates;
use super::{Certificate, ClientTlsConfig, Endpoint, TlsServer};
use crate::fixtures::{Api, Engine, Program, TestStore, claviger, verify_request};
use crate::process::tool;

/// A server that knows the issuer `clients`, and requires a certificate of it for these services, with flags for its gateways.
pub(super) fn server(required: &[&str], gateways: &[&str]) -> TlsServer {
    let certificates = Certificates::new();
    certificates.issuer("clients");
    certificates.issue("gateway", "clients", "DNS:gateway");
    let test_store = TestStore::on(Engine::Sqlite);
    let tls = certificates.flags();
    let mut flags: Vec<_> = tls.iter().map(String::as_str).collect();
    let ca = certificates.path("clients.pem");
    flags.extend(["--client-ca", &ca]);
    flags.extend(gateways);
    for service in required {
        flags.extend(["--require-client-cert", service]);
    }
    TlsServer {
        program: Program::serve(&test_store, &flags),
        certificates,
        _test_store: test_store,
    }
}

impl TlsServer {
    /// The API as a client with this certificate.
    fn api_with(&self, name: &str) -> Api {
        let read = |name: String| std::fs::read(self.certificates.path(&name)).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem".to_owned())))
            .identity(Identity::from_pem(
                read(format!("{name}.pem")),
                read(format!("{name}.key")),
            ));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.program.address)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
        Api::on(channel, &self.program.operator())
    }

    fn grpcurl(&self, flags: &[&str], method: &str) -> Output {
        let ca = self.certificates.path("ca.pem");
        let bearer = format!("authorization: Bearer {}", self.program.operator());
        Command::new(tool("grpcurl"))
            .args(["-cacert", &ca, "-H", &bearer])
            .args(flags)
            .args([&self.program.address, method])
            .output()
            .unwrap()
    }

    /// The status and the body of a request over HTTP.
    fn curl(&self, flags: &[&str], path: &str) -> (String, String) {
        let output = Command::new("curl")
            .args(["-sS", "-w", "\n%{http_code}", "--cacert"])
            .arg(self.certificates.path("ca.pem"))
            .args(flags)
            .arg(format!("https://{}{path}", self.program.http))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), format!("{body}{complaint}"))
    }
}

/// What a call of a client without a certificate is refused with.
fn assert_required(answer: Result<(), tonic::Status>, what: &str) {
    let status = answer.expect_err(what);
    assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status:?}");
    let reason = status.get_details_error_info().unwrap().reason;
    assert_eq!(reason, "CLIENT_CERTIFICATE_REQUIRED", "{what}");
}

/// Each service by itself. Seen red with the check left out, in the guard and for gateways, and with `Explain` taken for `admin`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_requires_a_certificate_refuses_clients_without() {
    for required in ["verify", "admin", "gateway"] {
        let server = server(&[required], &["--gateway", "nginx"]);
        let mut with = server.api_with("gateway");
        with.make_demo().await;
        let key = with.issue().await.plain_key;
        let mut without = server.api();
        let explain = || pb::ExplainRequest {
            question: Some(pb::explain_request::Question::Verify(verify_request(&key))),
        };
        with.verify.verify(verify_request(&key)).await.unwrap();
        with.verify.explain(explain()).await.unwrap();
        with.realms
            .list_realms(pb::ListRealmsRequest::default())
            .await
            .unwrap();

        let verify = without.verify.verify(verify_request(&key)).await.map(drop);
        let batch = without
            .verify
            .verify_batch(pb::VerifyBatchRequest::default())
            .await
            .map(drop);
        let explain = without.verify.explain(explain()).await.map(drop);
        let realms = without
            .realms
            .list_realms(pb::ListRealmsRequest::default())
            .await
            .map(drop);
        let issued = without
            .keys
            .issue_key(crate::fixtures::issue_request())
            .await
            .map(drop);
        let check = server.grpcurl(&[], "envoy.service.auth.v3.Authorization/Check");
        let check = String::from_utf8(check.stderr).unwrap();
        let is_required = check.contains("CLIENT_CERTIFICATE_REQUIRED");
        assert_eq!(is_required, required == "verify", "{check}");
        if required == "verify" {
            for (answer, what) in [(verify, "verify"), (batch, "batch"), (explain, "explain")] {
                assert_required(answer, what);
            }
        } else {
            verify.unwrap();
            explain.unwrap();
        }
        if required == "admin" {
            assert_required(realms, "realms");
            assert_required(issued, "issue");
        } else {
            realms.unwrap();
            issued.unwrap();
        }

        // Probes and reflection never need one.
        let health = server.grpcurl(&[], "grpc.health.v1.Health/Check");
        assert!(health.status.success(), "{health:?}");
        assert_eq!(
            server.curl(&[], "/readyz"),
            ("200".to_owned(), "ok\n".to_owned())
        );
        assert_eq!(server.curl(&[], "/livez").0, "200");
        let bearer = format!(
            "x-claviger-authorization: Bearer {}",
            server.program.operator()
        );
        let [cert, key_file] =
            ["gateway.pem", "gateway.key"].map(|name| server.certificates.path(name));
        let request = [
            "-H",
            &bearer,
            "-H",
            "x-original-method: GET",
            "-H",
            "x-original-uri: /",
        ];
        for path in [
            "/auth/nginx/demo/production",
            "/forward-auth/demo/production",
        ] {
            let (status, told) = server.curl(&request, path);
            let is_required = told.contains("CLIENT_CERTIFICATE_REQUIRED");
            assert_eq!(is_required, required == "gateway", "{status} {told}");
            assert_eq!(status == "500", is_required, "{status} {told}");
            let certified = [&request[..], &["--cert", &cert, "--key", &key_file]].concat();
            let (status, told) = server.curl(&certified, path);
            assert_ne!(status, "500", "{told}");
        }
        if required == "gateway" {
            server
                .logs(&[
                    "WARN",
                    "gateway misconfigured",
                    "CLIENT_CERTIFICATE_REQUIRED",
                ])
                .await;
        }
    }
}

/// Seen red with a server that asks for no certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_does_not_verify_is_refused_and_the_client_told() {
    let server = server(&["admin"], &[]);
    let certificates = &server.certificates;
    certificates.issuer("stranger");
    certificates.issue("strange", "stranger", "DNS:gateway");
    certificates.issue_expired_by("expired", "clients");
    let endpoint = format!("https://{}", server.program.address);
    let list = |flags: &[&str]| {
        let ca = certificates.path("ca.pem");
        let output = claviger(&["realm", "list", "--endpoint", &endpoint, "--ca-file", &ca])
            .args(flags)
            .env("CLAVIGER_KEY", server.program.operator())
            .output()
            .unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), complaint)
    };
    let named =
        |name: &str| ["pem", "key"].map(|ending| certificates.path(&format!("{name}.{ending}")));
    for name in ["strange", "expired", "server"] {
        let [cert, key] = named(name);
        let (code, complaint) = list(&["--client-cert", &cert, "--client-key", &key]);
        assert_eq!(code, Some(1), "{name}");
        assert!(
            complaint.contains("not accept the client certificate")
                && complaint.contains("--client-cert"),
            "{name}: {complaint}"
        );
    }
    server
        .logs(&["WARN", "client's certificate has expired"])
        .await;
    server
        .logs(&["WARN", "not from an issuer in --client-ca"])
        .await;
    let (code, complaint) = list(&[]);
    assert_eq!(code, Some(1));
    assert!(
        complaint.contains("requires a client certificate") && complaint.contains("--client-key"),
        "{complaint}"
    );

    let [cert, key] = named("gateway");
    let (code, complaint) = list(&["--client-cert", &cert, "--client-key", &key]);
    assert_eq!(code, Some(0), "{complaint}");
    let listed = server.grpcurl(
        &["-cert", &cert, "-key", &key],
        "claviger.v1.RealmAdmin/ListRealms",
    );
    assert!(listed.status.success(), "{listed:?}");
    for (flags, why) in [
        (&["--client-cert", cert.as_str()][..], "given together"),
        (&["--client-key", &key], "given together"),
        (
            &["--client-cert", &key, "--client-key", &key],
            "not a PEM file with a certificate",
        ),
        (
            &["--client-cert", &cert, "--client-key", &cert],
            "not a PEM file with a private key",
        ),
        (
            &["--client-cert", &cert, "--client-key", "/absent"],
            "cannot read /absent",
        ),
    ] {
        let (code, complaint) = list(flags);
        assert_eq!(code, Some(2), "{complaint}");
        assert!(complaint.contains(why), "{complaint}");
    }
    assert!(Path::new(&cert).exists());
}

/// Seen red with the issuers of clients left out of the comparison.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_issuer_of_clients_holds_for_new_connections() {
    let server = server(&["admin"], &[]);
    let mut before = server.api_with("gateway");
    before.make_demo().await;
    server.certificates.issuer("others");
    server.certificates.issue("other", "others", "DNS:other");
    server
        .certificates
        .replace_file("clients.pem", "others.pem");
    server.program.signal("HUP");
    server.logs(&["INFO", "certificates replaced"]).await;
    let after = server
        .api_with("gateway")
        .realms
        .list_realms(pb::ListRealmsRequest::default())
        .await;
    assert_ne!(after.unwrap_err().code(), Code::Ok);
    let mut other = server.api_with("other");
    other
        .realms
        .list_realms(pb::ListRealmsRequest::default())
        .await
        .unwrap();
    // An established connection stays.
    before
        .realms
        .list_realms(pb::ListRealmsRequest::default())
        .await
        .unwrap();
}

/// The same services over JSON. Seen red with a guard for JSON that knows of no certificates.
#[test]
fn a_service_that_requires_a_certificate_refuses_json_without() {
    for required in ["verify", "admin"] {
        let server = server(&[required], &[]);
        let bearer = format!("authorization: Bearer {}", server.program.operator());
        let json = "content-type: application/json";
        let request = ["-H", &bearer, "-H", json, "-d"];
        let [cert, key_file] =
            ["gateway.pem", "gateway.key"].map(|name| server.certificates.path(name));
        for (method, body, service) in [
            ("KeyVerify/Verify", r#"{"realm": "claviger"}"#, "verify"),
            ("KeyVerify/VerifyBatch", r#"{"requests": [{}]}"#, "verify"),
            ("RealmAdmin/ListRealms", "{}", "admin"),
            ("AuthorityAdmin/ListReplicas", "{}", "admin"),
        ] {
            let path = format!("/claviger.v1.{method}");
            let without = [&request[..], &[body]].concat();
            let (status, told) = server.curl(&without, &path);
            let is_required = told.contains("CLIENT_CERTIFICATE_REQUIRED");
            assert_eq!(is_required, required == service, "{method}: {told}");
            let expected = if is_required { "401" } else { "200" };
            assert_eq!(status, expected, "{method}: {told}");
            let certified = [&without[..], &["--cert", &cert, "--key", &key_file]].concat();
            let (status, told) = server.curl(&certified, &path);
            assert_eq!(status, "200", "{method}: {told}");
        }
    }
}
