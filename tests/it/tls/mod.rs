//! TLS: the real program with the clients that people use, and with clients that no library would be.

mod certificates;
mod client_certificates;
mod clients;
mod counting_port;
mod database;
mod gateways;
mod handshakes;
mod metrics;
mod reload;
mod start;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::fixtures::frames::Raw;
use crate::fixtures::{Api, Engine, Program, TestStore, eventually};
pub(crate) use certificates::Certificates;
pub(crate) use metrics::{scrape_with_everything, server_with_a_short_certificate};

/// A server with the certificate `server`, and what it needs to exist.
pub(crate) struct TlsServer {
    program: Program,
    certificates: Certificates,
    _test_store: Arc<TestStore>,
}

impl TlsServer {
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_on(Engine::Sqlite, flags)
    }

    fn start_on(engine: Engine, flags: &[&str]) -> Self {
        let certificates = Certificates::new();
        let test_store = TestStore::on(engine);
        let tls = certificates.flags();
        let mut all: Vec<_> = tls.iter().map(String::as_str).collect();
        all.extend(flags);
        Self {
            program: Program::serve(&test_store, &all),
            certificates,
            _test_store: test_store,
        }
    }

    /// The API with the operator's key, on a new connection.
    fn api(&self) -> Api {
        self.api_that_trusts("ca.pem")
    }

    fn api_that_trusts(&self, ca: &str) -> Api {
        let pem = std::fs::read(self.certificates.path(ca)).unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.program.address)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
        Api::on(channel, &self.program.operator())
    }

    fn log(&self) -> String {
        String::from_utf8(self.program.log.lock().unwrap().clone()).unwrap()
    }

    /// Waits until the log has a line with all these texts.
    async fn logs(&self, texts: &[&str]) {
        eventually(&format!("a line with {texts:?}"), async || {
            let log = self.log();
            let has_all = |line: &str| texts.iter().all(|text| line.contains(text));
            log.lines().any(has_all).then_some(())
        })
        .await;
    }
}

/// A client of TLS that trusts the CA.
fn connector(certificates: &Certificates) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificates.path("ca.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// A handshake from 127.0.0.x.
async fn handshake(
    connector: &TlsConnector,
    address: &str,
    from: u8,
) -> std::io::Result<TlsStream<TcpStream>> {
    let Raw(stream) = Raw::connect(address, from).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    connector.connect(name, stream).await
}

/// How long a client without a handshake may stay.
const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
