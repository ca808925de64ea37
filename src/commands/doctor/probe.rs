//! Asks what listens at an address whether it is a claviger, and whether it serves. No key is sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tonic::Code;
use tonic::codegen::Service;
use tonic::transport::{Endpoint, Uri};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest answer over HTTP that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// A service that only claviger has.
const SERVICE: &str = "claviger.v1.KeyVerify";

/// A metric that only claviger has.
const METRIC: &str = "claviger_build_info{version=\"";

/// What listens at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) by: Answerer,
    /// The certificate that it has shown, in DER; empty without TLS.
    pub(super) certificate: Vec<u8>,
}

/// Who answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answerer {
    /// A claviger that should get requests, and its version if it has told.
    Serving(Option<String>),
    /// A claviger that should not, and why if it has told.
    NotServing(String),
    /// Something that does not answer as claviger does, and what became of the question.
    Other(String),
}

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Address {
        address: SocketAddr,
        is_encrypted: bool,
    },
    Path(PathBuf),
}

impl Target {
    /// The address of a listener, as this machine reaches it.
    pub(super) fn of_listener(address: SocketAddr, is_encrypted: bool) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self::Address {
            address: SocketAddr::new(ip, address.port()),
            is_encrypted,
        }
    }

    /// The socket at this path.
    pub(super) fn path(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

/// Asks a listener of gRPC.
pub(super) async fn grpc(target: Target) -> Answer {
    ask(target, b"h2", |stream| Box::pin(health(stream))).await
}

/// Asks a listener of HTTP/1.1.
pub(super) async fn http(target: Target) -> Answer {
    let metrics = ask(target.clone(), b"http/1.1", |stream| {
        Box::pin(async move {
            let text = get(stream, "/metrics").await?;
            let version = text
                .split_once(METRIC)
                .and_then(|(_, rest)| rest.split('"').next());
            Ok(match version {
                Some(version) => Answerer::Serving(Some(version.to_owned())),
                None => Answerer::Other("its answer has no metrics of claviger".to_owned()),
            })
        })
    });
    let answer = metrics.await;
    if let Answerer::Other(_) = answer.by {
        return answer;
    }
    let ready = ask(target, b"http/1.1", |stream| {
        Box::pin(async move {
            let text = get(stream, "/readyz").await?;
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            Ok(if head.split(' ').nth(1) == Some("200") {
                Answerer::Serving(None)
            } else {
                Answerer::NotServing(body.trim().to_owned())
            })
        })
    });
    match ready.await.by {
        Answerer::Serving(_) => answer,
        by => Answer { by, ..answer },
    }
}

/// A connection, with TLS or without.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

type Question = fn(Box<dyn Connection>) -> BoxFuture<'static, io::Result<Answerer>>;

async fn ask(target: Target, protocol: &'static [u8], question: Question) -> Answer {
    let mut certificate = Vec::new();
    let asking = async {
        let stream: Box<dyn Connection> = match target {
            Target::Path(path) => Box::new(UnixStream::connect(path).await?),
            Target::Address {
                address,
                is_encrypted,
            } => {
                let stream = TcpStream::connect(address).await?;
                if is_encrypted {
                    let tls = connector(protocol)
                        .connect(ServerName::from(address.ip()), stream)
                        .await?;
                    let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    certificate = shown.map(|shown| shown.to_vec()).unwrap_or_default();
                    Box::new(tls)
                } else {
                    Box::new(stream)
                }
            }
        };
        question(stream).await
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    let by = match answered {
        Ok(Ok(by)) => by,
        Ok(Err(error)) => Answerer::Other(error.to_string()),
        Err(_) => Answerer::Other(format!("no answer within {PATIENCE:?}")),
    };
    Answer { by, certificate }
}

/// Gets a page.
async fn get(mut stream: Box<dyn Connection>, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Asks for the health of the service that only claviger has.
async fn health(stream: Box<dyn Connection>) -> io::Result<Answerer> {
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint
        .connect_with_connector(OneConnection(Some(stream)))
        .await;
    let channel = channel.map_err(|_| io::Error::other("it does not speak HTTP/2"))?;
    let request = HealthCheckRequest {
        service: SERVICE.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    Ok(match answer {
        Ok(answer) if answer.get_ref().status == ServingStatus::Serving as i32 => {
            Answerer::Serving(None)
        }
        Ok(_) => Answerer::NotServing("NOT_SERVING".to_owned()),
        Err(status) if status.code() == Code::NotFound => {
            Answerer::Other("it is another gRPC server".to_owned())
        }
        Err(status) => Answerer::Other(format!(
            "it does not answer as claviger does: {}",
            status.code()
        )),
    })
}

/// Connects once, with a connection that exists.
struct OneConnection(Option<Box<dyn Connection>>);

impl Service<Uri> for OneConnection {
    type Response = TokioIo<Box<dyn Connection>>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().ok_or(io::ErrorKind::ConnectionAborted.into());
        std::future::ready(stream.map(TokioIo::new))
    }
}

fn connector(protocol: &[u8]) -> TlsConnector {
    let provider = Arc::new(ring::default_provider());
    let verifier = AnyCertificate(Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Accepts any certificate. The question has no secret, and the certificate is compared with that of the configuration afterwards.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
