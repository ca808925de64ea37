//! TLS beside plain text: a certificate for 127.0.0.1, connections that trust it, and the measurement.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::load::{Protocol, Shape};
use crate::questions::Kinds;
use crate::seed::{Database, Seeded, seed};
use crate::servers::{ServerProcess, in_dir};
use crate::slices::{Subject, measure_alternately};
use crate::{Effort, Outcome, USUAL, copy, report};

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

/// Connects to a server: over TLS 1.3 if it has a certificate, otherwise in plain.
pub(crate) async fn connect(
    address: &str,
    certificate: Option<&Certificate>,
    protocol: Protocol,
) -> io::Result<Box<dyn Socket>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let Some(Certificate { certificate, .. }) = certificate else {
        return Ok(Box::new(socket));
    };
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
    roots.add(root).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::Calls | Protocol::Stream => vec![b"h2".to_vec()],
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
    };
    let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
    let socket = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    Ok(Box::new(socket))
}

/// Starts the usual server over TLS, with a certificate that is made in a directory.
pub(crate) fn start(data: &Path, dir: &Path) -> Result<ServerProcess, Box<dyn Error>> {
    let flags = in_dir(data).into_iter().chain(USUAL.map(OsStr::new));
    ServerProcess::claviger_over_tls(&flags.collect::<Vec<_>>(), Certificate::make(dir)?)
}

/// Creates an authority in SQLite, and measures two servers of it, one over TLS.
pub(crate) async fn measure_alone(effort: &Effort) -> Outcome {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    let database = Database::Sqlite(data.join("claviger.db"));
    let seeded = seed(&database, &data.join("pepper.toml"), effort.keys).await?;
    let kinds = Kinds::write(dir.path(), &seeded)?;
    let copy = copy(&data, &dir.path().join("copy"))?;
    let tls = start(&copy, dir.path())?;
    let flags = in_dir(&data).into_iter().chain(USUAL.map(OsStr::new));
    let (plain, _) = ServerProcess::claviger(&flags.collect::<Vec<_>>())?;
    measure(&tls, &plain, &seeded, &kinds, effort)
}

/// Measures TLS 1.3: a server that serves it and one in plain, on a copy of the same authority.
pub(crate) fn measure(
    tls: &ServerProcess,
    plain: &ServerProcess,
    seeded: &Seeded,
    kinds: &Kinds,
    effort: &Effort,
) -> Outcome {
    let mut costs = Vec::new();
    for (names, questions, shape, calls) in [
        (
            [
                "Verify, 1,000 hot keys",
                "the same in plain, against itself",
            ],
            &kinds.hot,
            Shape::USUAL,
            effort.calls,
        ),
        (
            ["forward-auth, 64 x 1", "the same in plain, against itself"],
            &kinds.forward_auth,
            Shape {
                connections: 64,
                in_flight: 1,
            },
            effort.calls / 5,
        ),
    ] {
        let subject = |name, server| Subject {
            shape,
            ..Subject::new(name, server, seeded, questions.clone(), calls)
        };
        let [over_tls, in_plain] = names;
        costs.extend(measure_alternately(
            &subject(in_plain, plain),
            &[subject(over_tls, tls), subject(in_plain, plain)],
            effort.rounds,
        )?);
    }
    println!(
        "\nThe cost of TLS 1.3: the same slices, alternating with those in plain. The handshakes, one for each connection, are\n\
         part of the slice.\n"
    );
    report("x in plain", &costs);
    Ok(())
}
