//! TLS, and what may be served without it.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum, ValueHint};

/// TLS on all listening addresses. Which of these flags need which others is checked when the certificates are read, wherever
/// their values come from.
#[derive(Args, Clone, Debug)]
pub struct TlsArgs {
    /// The PEM file with the server's certificate, followed by those of its issuers. With it, all listening addresses serve
    /// TLS 1.2 and 1.3 only. The file is read again when it changes
    #[arg(
        long,
        env = "CLAVIGER_TLS_CERT",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    pub tls_cert: Option<PathBuf>,

    /// The PEM file with the private key of the server's certificate
    #[arg(
        long,
        env = "CLAVIGER_TLS_KEY",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    pub tls_key: Option<PathBuf>,

    /// The PEM file with the certificates that issue the certificates of clients. A client may then prove itself by a
    /// certificate too, and one that does not verify is refused
    #[arg(
        long,
        env = "CLAVIGER_CLIENT_CA",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    pub client_ca: Option<PathBuf>,

    /// A service that only clients with a certificate from --client-ca may call. Repeat the flag for several. Health, reflection,
    /// /livez, /readyz and /metrics never need one, nor do callers over --unix-socket
    #[arg(
        long,
        env = "CLAVIGER_REQUIRE_CLIENT_CERT",
        value_name = "SERVICE",
        value_enum,
        value_delimiter = ','
    )]
    pub require_client_cert: Vec<CertifiedService>,

    /// Serve plain text on an address that other machines can reach. The API keys of callers can then be read on the network
    #[arg(long, env = "CLAVIGER_INSECURE_LISTEN", value_parser = BoolishValueParser::new())]
    pub insecure_listen: bool,
}

/// What can be for clients with a certificate only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertifiedService {
    /// `KeyVerify`, and Envoy's `Authorization`
    Verify,
    /// `KeyAdmin` and `RealmAdmin`
    Admin,
    /// /auth and /forward-auth over HTTP
    Gateway,
}

impl TlsArgs {
    /// Whether only clients with a certificate may call this service.
    pub fn requires_client_certificate(&self, service: CertifiedService) -> bool {
        self.require_client_cert.contains(&service)
    }
}
