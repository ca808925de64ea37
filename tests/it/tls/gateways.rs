//! The gateways themselves over TLS, with the configurations that `claviger gateway config` prints for a claviger that serves TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger::pb::claviger::v1 as pb;

use super::counting_port::CountingPort;
use super::{TlsServer, client_certificates, connector, handshake};
use crate::fixtures::{Api, demo_realm, eventually, header_source};
use crate::gateways::{
    Answer, GatewayApi, GatewayKind, GatewayProcess, Upstream, gateway_key, send,
};

const KINDS: [GatewayKind; 4] = [
    GatewayKind::EnvoyRaw,
    GatewayKind::EnvoyHttp,
    GatewayKind::Nginx,
    GatewayKind::Caddy,
];

/// What claviger must be started with for all of them.
const GATEWAYS: [&str; 6] = [
    "--gateway",
    "envoy",
    "--gateway",
    "nginx",
    "--gateway",
    "caddy",
];

/// A claviger that serves TLS, with a realm that has one route, and the server behind its gateways.
struct Fixture {
    server: TlsServer,
    upstream: Upstream,
    gateway_key: String,
    key: String,
}

impl Fixture {
    async fn on(server: TlsServer) -> Self {
        let mut api: Api = server.api();
        api.make_demo().await;
        let realm = pb::Realm {
            credentials: Some(pb::Credentials {
                sources: vec![header_source("authorization", "Bearer")],
                ..Default::default()
            }),
            routes: vec![pb::Route {
                path: "/things".to_owned(),
                ..Default::default()
            }],
            ..demo_realm()
        };
        api.put_realm(realm).await;
        Self {
            upstream: Upstream::start().await,
            gateway_key: gateway_key(&mut api, "demo").await,
            key: api.issue().await.plain_key,
            server,
        }
    }

    fn address(&self, kind: GatewayKind) -> &str {
        match kind {
            GatewayKind::EnvoyRaw => &self.server.program.address,
            _ => &self.server.program.http,
        }
    }

    /// A gateway that reaches claviger at this address, and trusts this issuer.
    fn gateway(&self, kind: GatewayKind, address: &str, ca: &str, more: &[&str]) -> GatewayProcess {
        let path = |name: &str| self.server.certificates.path(name);
        let endpoint = format!("https://{}", self.server.program.address);
        let mut flags: Vec<_> = [
            "--endpoint",
            &endpoint,
            "--ca-file",
            &path("ca.pem"),
            "--claviger-address",
            address,
            "--claviger-ca",
            &path(ca),
        ]
        .map(str::to_owned)
        .into();
        // The command too is a client that may need a certificate.
        let own = ["gateway.pem", "gateway.key"].map(path);
        if own.iter().all(|file| Path::new(file).exists()) {
            for (flag, file) in ["--client-cert", "--client-key"].into_iter().zip(own) {
                flags.extend([flag.to_owned(), file]);
            }
        }
        for word in more {
            flags.push(if word.starts_with("--") {
                (*word).to_owned()
            } else {
                path(word)
            });
        }
        let api = GatewayApi {
            realm: "demo",
            environment: "production",
            host: "",
            key: self.gateway_key.clone(),
            upstream: self.upstream.address,
            flags,
        };
        GatewayProcess::open(kind, &self.server.program, &[api])
    }

    /// The same at claviger's own address, by the name that this kind of gateway can verify.
    fn usual_gateway(&self, kind: GatewayKind, ca: &str, more: &[&str]) -> GatewayProcess {
        self.gateway(kind, &by_name(self.address(kind)), ca, more)
    }

    /// The answer to a request with the key, and how many requests have reached the server behind.
    async fn request(&self, gateway: &GatewayProcess) -> (Answer, usize) {
        self.request_with(gateway, &self.key).await
    }

    async fn request_with(&self, gateway: &GatewayProcess, key: &str) -> (Answer, usize) {
        let answer = ask(gateway.address, key).await;
        (answer, self.upstream.seen().len())
    }

    /// Checks that a good request passes, and one with a wrong key does not.
    async fn check_works(&self, kind: GatewayKind, gateway: &GatewayProcess) {
        let (answer, seen) = self.request(gateway).await;
        let log = gateway.log();
        assert_eq!(
            (answer.status, seen),
            (200, 1),
            "{kind:?}: {answer:?}\n{log}"
        );
        let (answer, seen) = self.request_with(gateway, "wrong").await;
        assert_eq!((answer.status, seen), (401, 0), "{kind:?}: {answer:?}");
    }

    /// Checks that a good request does not pass, because the gateway does not trust claviger.
    async fn check_distrusts(&self, kind: GatewayKind, gateway: &GatewayProcess, what: &str) {
        let (answer, seen) = self.request(gateway).await;
        let log = gateway.log();
        assert_eq!(
            (answer.status, seen),
            (503, 0),
            "{kind:?}, {what}: {answer:?}\n{log}"
        );
        assert!(!log.contains(&self.key), "{log}");
    }
}

async fn ask(gateway: SocketAddr, key: &str) -> Answer {
    let request = format!(
        "GET /things HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\r\n"
    );
    send(gateway, request.as_bytes()).await
}

/// An address on this machine, with the name in place of the number.
fn by_name(address: &str) -> String {
    address.replace("127.0.0.1", "localhost")
}

/// By the name and, except for nginx, by the IP address, on connections that are kept. Seen red with `http` in nginx, with the type
/// `DNS` for an address in Envoy, and without `keepalive` in nginx.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_ask_over_tls() {
    let fixture = Fixture::on(TlsServer::start(&GATEWAYS)).await;
    let certificates = &fixture.server.certificates;
    certificates.issue("both", "ca", "DNS:localhost,IP:127.0.0.1");
    fixture.server.replace_certificate("both").await;
    for kind in KINDS {
        let port = CountingPort::to(fixture.address(kind)).await;
        let gateway = fixture.gateway(kind, &by_name(&port.address.to_string()), "ca.pem", &[]);
        for _ in 0..10 {
            fixture.check_works(kind, &gateway).await;
        }
        let connections = port.count();
        assert!(connections <= 2, "{kind:?}: {connections} connections");
        if kind != GatewayKind::Nginx {
            let gateway = fixture.gateway(kind, fixture.address(kind), "ca.pem", &[]);
            fixture.check_works(kind, &gateway).await;
        }
    }
}

/// The gateways trust only the root. Seen red without `proxy_ssl_verify_depth` in nginx.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_accept_a_certificate_from_an_issuer_far_below_the_root() {
    let fixture = Fixture::on(TlsServer::start(&GATEWAYS)).await;
    let server = &fixture.server;
    let names = "DNS:localhost,IP:127.0.0.1";
    server.certificates.issue_below_others("deep", names);
    server.replace_certificate("deep").await;
    for kind in KINDS {
        let gateway = fixture.usual_gateway(kind, "ca.pem", &[]);
        fixture.check_works(kind, &gateway).await;
    }
}

/// Seen red without `match_typed_subject_alt_names` and without the whole `validation_context` in Envoy, with another
/// `proxy_ssl_name` and without `proxy_ssl_verify` in nginx, and with `tls_insecure_skip_verify` in Caddy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_let_nothing_through_if_they_do_not_trust_claviger() {
    let fixture = Fixture::on(TlsServer::start(&GATEWAYS)).await;
    let server = &fixture.server;
    let certificates = &server.certificates;
    for (name, names) in [
        ("both", "DNS:localhost,IP:127.0.0.1"),
        ("other", "DNS:other.example,IP:127.0.0.1"),
    ] {
        certificates.issue(name, "ca", names);
    }
    certificates.issuer("stranger");
    server.replace_certificate("both").await;
    for kind in KINDS {
        let gateway = fixture.usual_gateway(kind, "stranger.pem", &[]);
        fixture
            .check_distrusts(kind, &gateway, "another issuer")
            .await;
        if kind != GatewayKind::Nginx {
            let port = CountingPort::at("127.0.0.2:0", fixture.address(kind)).await;
            let gateway = fixture.gateway(kind, &port.address.to_string(), "ca.pem", &[]);
            fixture
                .check_distrusts(kind, &gateway, "another address")
                .await;
        }
    }
    let not_trusted = "does not trust the server's certificate";
    server.logs(&["WARN", not_trusted]).await;

    let gateways = || KINDS.map(|kind| (kind, fixture.usual_gateway(kind, "ca.pem", &[])));
    let before = gateways();
    server.replace_certificate("other").await;
    for (kind, gateway) in &before {
        fixture
            .check_distrusts(*kind, gateway, "another name")
            .await;
    }

    let before = gateways();
    certificates.issue_for_seconds("brief", "DNS:localhost,IP:127.0.0.1", 5);
    server.replace_certificate("brief").await;
    eventually("the certificate expires", async || {
        let connector = connector(certificates);
        handshake(&connector, &server.program.address, 1)
            .await
            .err()
    })
    .await;
    for (kind, gateway) in &before {
        fixture.check_distrusts(*kind, gateway, "expired").await;
    }
    let not_accepted = "does not accept the server's certificate";
    server.logs(&["WARN", not_accepted]).await;
    server
        .logs(&["ERROR", "the server's certificate has expired"])
        .await;
}

/// Seen red without the client certificate in each configuration, and without the line in the log for Envoy over gRPC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_prove_themselves_by_client_certificates() {
    for (service, kinds) in [("verify", &KINDS[..1]), ("gateway", &KINDS[1..])] {
        let server = client_certificates::server(&[service], &GATEWAYS);
        let fixture = Fixture::on(server).await;
        let server = &fixture.server;
        let certificates = &server.certificates;
        certificates.issue("both", "ca", "DNS:localhost,IP:127.0.0.1");
        server.replace_certificate("both").await;
        let own = [
            "--claviger-client-cert",
            "gateway.pem",
            "--claviger-client-key",
            "gateway.key",
        ];
        for kind in kinds {
            let gateway = fixture.usual_gateway(*kind, "ca.pem", &own);
            fixture.check_works(*kind, &gateway).await;
        }
        let log = server.log();
        assert!(!log.contains("gateway misconfigured"), "{log}");
        for kind in kinds {
            let gateway = fixture.usual_gateway(*kind, "ca.pem", &[]);
            let (answer, seen) = fixture.request(&gateway).await;
            // Caddy passes on claviger's own answer.
            let (status, told) = match kind {
                GatewayKind::Caddy => (500, "CLIENT_CERTIFICATE_REQUIRED"),
                _ => (503, ""),
            };
            let what = format!("{kind:?}: {answer:?}");
            assert_eq!((answer.status, seen), (status, 0), "{what}");
            assert!(answer.body.contains(told), "{what}");
        }
        let texts = ["gateway misconfigured", "CLIENT_CERTIFICATE_REQUIRED"];
        server.logs(&["WARN", texts[0], texts[1]]).await;
    }
}

/// Connections do not live long here, so that gateways make new ones under load. Seen red with connections over HTTP/1.1 that end
/// between two requests: Envoy does not ask again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_without_a_failed_request_at_a_gateway() {
    let flags = [&GATEWAYS[..], &["--connection-age", "1s"]].concat();
    let fixture = Fixture::on(TlsServer::start(&flags)).await;
    let server = &fixture.server;
    for name in ["one", "two"] {
        server
            .certificates
            .issue(name, "ca", "DNS:localhost,IP:127.0.0.1");
    }
    server.replace_certificate("one").await;
    let ports =
        futures_util::future::join_all(KINDS.map(|kind| CountingPort::to(fixture.address(kind))))
            .await;
    let gateways: Vec<_> = KINDS
        .iter()
        .zip(&ports)
        .map(|(kind, port)| {
            fixture.gateway(*kind, &by_name(&port.address.to_string()), "ca.pem", &[])
        })
        .collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = gateways
        .iter()
        .flat_map(|gateway| [gateway.address; 2])
        .map(|address| {
            let (is_over, key) = (Arc::clone(&is_over), fixture.key.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = ask(address, &key).await;
                    if answer.status != 200 {
                        failed.push(answer);
                    }
                }
                failed
            })
        })
        .collect();
    for name in ["two", "one"].repeat(3) {
        let before: Vec<_> = ports.iter().map(CountingPort::count).collect();
        server.replace_certificate(name).await;
        eventually("each gateway has connected anew", async || {
            let mut counts = ports.iter().map(CountingPort::count).zip(&before);
            counts.all(|(now, before)| now > *before).then_some(())
        })
        .await;
    }
    is_over.store(true, Ordering::Relaxed);
    for (load, kind) in loads
        .into_iter()
        .zip(KINDS.iter().flat_map(|kind| [kind; 2]))
    {
        let failed = load.await.unwrap();
        assert!(failed.is_empty(), "{kind:?}: {failed:?}");
    }
}
