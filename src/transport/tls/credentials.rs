//! The certificates, and what is read from their files.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::validity::validity;
use crate::config::TlsArgs;
use crate::domain::time::Timestamp;

/// The reason why TLS cannot be served with these files.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{flag}: cannot read {}: {source}", path.display())]
    Read {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file contains no certificate.
    #[error(
        "{flag}: {} contains no certificate: it must be a PEM file with BEGIN CERTIFICATE",
        path.display()
    )]
    NoCertificate {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be used.
    #[error("{flag}: {} contains a certificate that cannot be read: {why}", path.display())]
    Unreadable {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file of the key contains no key that can be used.
    #[error(
        "--tls-key: {} contains no private key that can be used: it must be a PEM file with an RSA, ECDSA or Ed25519 key, not \
         encrypted with a passphrase",
        .0.display()
    )]
    NoKey(PathBuf),
    /// The key belongs to another certificate.
    #[error(
        "the key of --tls-key {} does not belong to the certificate of --tls-cert {}: the first certificate of the file must \
         be the server's own",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// A flag is given without another one that it needs.
    #[error("{flag} needs {needs}: set {needs} too, or leave out {flag}")]
    Incomplete {
        /// The flag.
        flag: &'static str,
        /// The flag that is missing.
        needs: &'static str,
    },
    /// The certificate is not valid any more.
    #[error("--tls-cert: the certificate in {} has expired: replace it", .0.display())]
    Expired(PathBuf),
    /// The certificate is not valid yet.
    #[error(
        "--tls-cert: the certificate in {} is not valid before {}: replace it, or correct this machine's clock",
        certificate.display(), start.rfc3339()
    )]
    NotYetValid {
        /// The file of the certificate.
        certificate: PathBuf,
        /// When it begins to be valid.
        start: Timestamp,
    },
}

/// The files of the certificates.
#[derive(Clone, Debug)]
pub(super) struct CertificateFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

/// What the files contain.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

/// What new connections use.
pub(super) struct Credentials {
    /// For HTTP/2.
    pub(super) http2: Arc<ServerConfig>,
    /// For HTTP/1.1.
    pub(super) http1: Arc<ServerConfig>,
    /// The digest of the files.
    pub(super) digest: [u8; 32],
    /// From when to when the server's certificate is valid.
    pub(super) validity: Range<Timestamp>,
}

impl CertificateFiles {
    /// The files that the flags name; `None` if TLS is off.
    ///
    /// # Errors
    /// If a flag is given without another one that it needs. Ignoring it would serve less safely than it asks for.
    pub(super) fn of(args: &TlsArgs) -> Result<Option<Self>, CertificateError> {
        let TlsArgs {
            tls_cert,
            tls_key,
            client_ca,
            require_client_cert,
            insecure_listen: _,
        } = args;
        let requires_certificate = !require_client_cert.is_empty();
        let needs = |is_given, flag, other: &Option<PathBuf>, needs| match (is_given, other) {
            (true, None) => Err(CertificateError::Incomplete { flag, needs }),
            _ => Ok(()),
        };
        needs(tls_cert.is_some(), "--tls-cert", tls_key, "--tls-key")?;
        needs(tls_key.is_some(), "--tls-key", tls_cert, "--tls-cert")?;
        needs(
            requires_certificate,
            "--require-client-cert",
            client_ca,
            "--client-ca",
        )?;
        needs(client_ca.is_some(), "--client-ca", tls_cert, "--tls-cert")?;
        let pair = tls_cert.clone().zip(tls_key.clone());
        Ok(pair.map(|(certificate, key)| Self {
            certificate,
            key,
            client_ca: client_ca.clone(),
        }))
    }

    /// Reads the files.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub(super) fn read(&self) -> Result<Contents, CertificateError> {
        let read = |flag, path: &Path| {
            std::fs::read(path).map_err(|source| CertificateError::Read {
                flag,
                path: path.to_owned(),
                source,
            })
        };
        Ok(Contents {
            certificate: read("--tls-cert", &self.certificate)?,
            key: read("--tls-key", &self.key)?.into(),
            client_ca: self
                .client_ca
                .as_ref()
                .map(|path| read("--client-ca", path))
                .transpose()?,
        })
    }

    /// Makes what new connections use from the contents of the files.
    ///
    /// # Errors
    /// If no client could use it.
    pub(super) fn credentials(
        &self,
        contents: &Contents,
        now: Timestamp,
    ) -> Result<Credentials, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let (chain, validity) = self.chain(&contents.certificate)?;
        if validity.end <= now {
            return Err(CertificateError::Expired(self.certificate.clone()));
        }
        if validity.start > now {
            return Err(CertificateError::NotYetValid {
                certificate: self.certificate.clone(),
                start: validity.start,
            });
        }
        let certified = self.certified_key(chain, &contents.key, &provider)?;
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for TLS 1.2 and 1.3");
        let config = match (&self.client_ca, &contents.client_ca) {
            (Some(path), Some(contents)) => {
                let unreadable = |error: &dyn std::fmt::Display| CertificateError::Unreadable {
                    flag: "--client-ca",
                    path: path.clone(),
                    why: error.to_string(),
                };
                let mut roots = RootCertStore::empty();
                for certificate in certificates("--client-ca", path, contents)? {
                    roots.add(certificate).map_err(|error| unreadable(&error))?;
                }
                // Not required, so that probes need none.
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| unreadable(&error))?;
                config.with_client_cert_verifier(verifier)
            }
            _ => config.with_no_client_auth(),
        };
        let mut http2 = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // Connections last for minutes. A resumed session would keep a client's certificate beyond its end, and memory.
        http2.session_storage = Arc::new(NoServerSessionStorage {});
        http2.send_tls13_tickets = 0;
        let mut http1 = http2.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        http1.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        Ok(Credentials {
            http2: Arc::new(http2),
            http1: Arc::new(http1),
            digest: contents.digest(),
            validity,
        })
    }

    /// The server's certificate, followed by those of its issuers, and from when to when it is valid.
    fn chain(
        &self,
        contents: &[u8],
    ) -> Result<(Vec<CertificateDer<'static>>, Range<Timestamp>), CertificateError> {
        let chain = certificates("--tls-cert", &self.certificate, contents)?;
        let validity = validity(&chain[0]).ok_or_else(|| CertificateError::Unreadable {
            flag: "--tls-cert",
            path: self.certificate.clone(),
            why: "it has no time of expiry".to_owned(),
        })?;
        Ok((chain, validity))
    }

    fn certified_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, CertificateError> {
        // The errors of the parser are dropped, because they may repeat lines of the file.
        let key = PrivateKeyDer::from_pem_slice(key)
            .ok()
            .and_then(|key| provider.key_provider.load_private_key(key).ok())
            .ok_or_else(|| CertificateError::NoKey(self.key.clone()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            }),
            Err(error) => Err(CertificateError::Unreadable {
                flag: "--tls-cert",
                path: self.certificate.clone(),
                why: error.to_string(),
            }),
        }
    }
}

impl Contents {
    /// The digest of all contents, by which a change is seen.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let none = Vec::new();
        let client_ca = self.client_ca.as_ref().unwrap_or(&none);
        for contents in [&self.certificate, &self.key, client_ca] {
            hash.update((contents.len() as u64).to_be_bytes());
            hash.update(contents);
        }
        hash.finalize().into()
    }
}

/// The certificates of a file, of which there is at least one.
pub(super) fn certificates(
    flag: &'static str,
    path: &Path,
    contents: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(CertificateError::NoCertificate {
            flag,
            path: path.to_owned(),
        }),
        // The error of the parser may repeat lines of the file, which may be a key.
        Err(_) => Err(CertificateError::Unreadable {
            flag,
            path: path.to_owned(),
            why: "it is no valid PEM".to_owned(),
        }),
    }
}
