//! Connections to a server, in plain or over TLS with a certificate for 127.0.0.1.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The files of a certificate and of its key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Makes a certificate that is its own issuer, with an ECDSA key, in a directory. Fails without the command `openssl`.
    pub(crate) fn make(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let made = Self {
            certificate: dir.join("server.pem"),
            key: dir.join("server.key"),
        };
        let line = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=claviger \
                    -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
        let output = Command::new("openssl")
            .args(line.split_whitespace())
            .arg("-out")
            .arg(&made.certificate)
            .arg("-keyout")
            .arg(&made.key)
            .output()
            .map_err(|error| format!("openssl: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(made)
    }
}

/// A connection to a server, encrypted or not.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Connects to a server: over TLS 1.3, with this application protocol, if it has a certificate, otherwise in plain.
pub(crate) async fn connect(
    address: &str,
    certificate: Option<&Certificate>,
    alpn: &[u8],
) -> io::Result<Box<dyn Socket>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    match certificate {
        Some(certificate) => Ok(Box::new(certificate.handshake(socket, alpn).await?)),
        None => Ok(Box::new(socket)),
    }
}

impl Certificate {
    /// Performs the handshake of a client that trusts the certificate.
    pub(crate) async fn handshake(
        &self,
        socket: TcpStream,
        alpn: &[u8],
    ) -> io::Result<TlsStream<TcpStream>> {
        let Self { certificate, .. } = self;
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
        roots.add(root).map_err(io::Error::other)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, socket).await
    }
}
