//! What a scrape tells of the certificates.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{TlsServer, connector};
use crate::fixtures::{Engine, eventually};
use crate::metrics::Scrape;

impl TlsServer {
    pub(crate) fn http_address(&self) -> &str {
        &self.program.http
    }

    /// The issuer of the certificate.
    pub(crate) fn ca_file(&self) -> String {
        self.certificates.path("ca.pem")
    }

    /// Puts a file in the place of the certificate that does not belong to the key.
    pub(crate) fn spoil_the_certificate(&self) {
        self.certificates.replace_file("server.pem", "ca.pem");
        self.program.signal("HUP");
    }

    async fn http(&self) -> TlsStream<TcpStream> {
        let mut config = connector(&self.certificates).config().as_ref().clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connection = TcpStream::connect(&self.program.http).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, connection).await.unwrap()
    }

    async fn scrape(&self) -> Scrape {
        Scrape::over(self.http().await).await
    }

    async fn scrape_when(&self, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
        eventually(what, async || {
            let scrape = self.scrape().await;
            is_so(&scrape).then_some(scrape)
        })
        .await
    }
}

const EXPIRY: &str = "claviger_certificate_expiry_timestamp_seconds";
const FAILING: &str = "claviger_certificate_reload_failing";
const RELOADS: &str = "claviger_certificate_reloads_total";

/// Seen red with a failure that the next reading of the same files ends, and with the expiry of the first certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_cannot_be_used_and_new_ones_are_seen() {
    let server = TlsServer::start(&[]);
    let certificates = &server.certificates;
    certificates.issue_for_days("long", 90);
    let first = server.scrape().await;
    assert!(first.value(FAILING) < 0.5);

    server.spoil_the_certificate();
    let stale = server
        .scrape_when("the replacement fails", |scrape| {
            scrape.value(FAILING) > 0.5
        })
        .await;
    assert!(stale.value(RELOADS) < 0.5);
    assert_eq!(stale.value(EXPIRY).to_bits(), first.value(EXPIRY).to_bits());

    certificates.replace("server", "long");
    server.program.signal("HUP");
    let replaced = server
        .scrape_when("the replacement is in use", |scrape| {
            scrape.value(RELOADS) > 0.5
        })
        .await;
    assert!(replaced.value(FAILING) < 0.5);
    let later = replaced.value(EXPIRY) - first.value(EXPIRY);
    assert!(later > 3_600.0, "{later}");
}

/// A server whose certificate expires tomorrow.
pub(crate) async fn server_with_a_short_certificate() -> TlsServer {
    let server = TlsServer::start(&[]);
    server.certificates.issue_for_days("short", 1);
    server.certificates.replace("server", "short");
    server.program.signal("HUP");
    let is_new = |scrape: &Scrape| scrape.value(RELOADS) > 0.5;
    server
        .scrape_when("the certificate is in use", is_new)
        .await;
    server
}

/// Seen red without the count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_fail_are_counted_by_reason() {
    let server = TlsServer::start(&[]);
    let mut plain = TcpStream::connect(&server.program.http).await.unwrap();
    plain
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    // Closed, or reset because what it sent is not read.
    let _ = plain.read_to_end(&mut Vec::new()).await;
    let counted = "claviger_tls_handshake_failures_total{reason=\"plain_text\"}";
    let scrape = server.scrape().await;
    assert_eq!(scrape.count(counted), 1);
    assert_eq!(scrape.sum("claviger_tls_handshake_failures_total", &[]), 1);
}

/// A scrape of a server that has every metric, each with a series.
pub(crate) async fn scrape_with_everything() -> Scrape {
    // A server on a shared database has metrics about its lease.
    let server = TlsServer::start_on(Engine::Postgres, &["--gateway", "nginx"]);
    server.api().make_demo().await;
    let mut gateway = server.http().await;
    let question = b"GET /auth/nginx/demo/production HTTP/1.0\r\n\r\n";
    gateway.write_all(question).await.unwrap();
    gateway.read_to_end(&mut Vec::new()).await.unwrap();
    server.scrape().await
}
