//! Why a handshake failed.

use std::io;
use std::net::IpAddr;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

use crate::telemetry::limited;

/// The type of a record that begins a TLS connection.
pub(in crate::transport) const HANDSHAKE_RECORD: u8 = 0x16;

/// The reason why a TLS handshake failed. It contains nothing that the peer chose but which of the reasons it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(in crate::transport) enum HandshakeError {
    #[error("the client closed the connection before it sent anything")]
    Closed,
    #[error("the client does not speak TLS: it must use https, or TLS for gRPC")]
    PlainText,
    #[error(
        "the client speaks TLS, but this address serves plain text: start the server with --tls-cert and --tls-key"
    )]
    TlsOnPlainText,
    #[error("the client did not complete the handshake within 5 seconds")]
    TooSlow,
    #[error("the client's address starts too many handshakes")]
    TooMany,
    #[error("the client closed the connection during the handshake")]
    Aborted,
    #[error(
        "the client does not trust the server's certificate: give the client the certificate of its issuer"
    )]
    NotTrusted,
    #[error(
        "the client does not accept the server's certificate: it has expired, or does not name the host, or cannot be used"
    )]
    NotAccepted,
    #[error("the client ended the handshake with an alert")]
    Alert,
    #[error("the client and the server have no version of TLS, cipher or signature in common")]
    Incompatible,
    #[error(
        "the client offers no protocol (ALPN) that this address serves: h2 for gRPC, http/1.1 for HTTP"
    )]
    NoProtocol,
    #[error("the client's certificate has expired")]
    ClientExpired,
    #[error("the client's certificate is not from an issuer in --client-ca")]
    ClientUnknownIssuer,
    #[error("the client's certificate does not verify")]
    ClientInvalid,
    #[error("the client violates the protocol")]
    Violation,
    #[error("the connection failed")]
    Connection,
}

impl HandshakeError {
    /// All reasons.
    pub(super) const ALL: [Self; 16] = [
        Self::Closed,
        Self::PlainText,
        Self::TlsOnPlainText,
        Self::TooSlow,
        Self::TooMany,
        Self::Aborted,
        Self::NotTrusted,
        Self::NotAccepted,
        Self::Alert,
        Self::Incompatible,
        Self::NoProtocol,
        Self::ClientExpired,
        Self::ClientUnknownIssuer,
        Self::ClientInvalid,
        Self::Violation,
        Self::Connection,
    ];

    /// The name as the value of a label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::PlainText => "plain_text",
            Self::TlsOnPlainText => "tls_on_plain_text",
            Self::TooSlow => "too_slow",
            Self::TooMany => "too_many",
            Self::Aborted => "aborted",
            Self::NotTrusted => "not_trusted",
            Self::NotAccepted => "not_accepted",
            Self::Alert => "alert",
            Self::Incompatible => "incompatible",
            Self::NoProtocol => "no_protocol",
            Self::ClientExpired => "client_expired",
            Self::ClientUnknownIssuer => "client_unknown_issuer",
            Self::ClientInvalid => "client_invalid",
            Self::Violation => "violation",
            Self::Connection => "connection",
        }
    }

    /// The reason for an error of a handshake.
    pub(super) fn of(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|cause| cause.downcast_ref());
        match tls {
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Aborted,
            None => Self::Connection,
            Some(Error::AlertReceived(alert)) => match alert {
                AlertDescription::UnknownCA => Self::NotTrusted,
                AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate => Self::NotAccepted,
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
                    Self::Incompatible
                }
                _ => Self::Alert,
            },
            Some(Error::PeerIncompatible(_)) => Self::Incompatible,
            Some(Error::NoApplicationProtocol) => Self::NoProtocol,
            Some(Error::InvalidCertificate(error)) => match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::ClientExpired
                }
                CertificateError::UnknownIssuer => Self::ClientUnknownIssuer,
                _ => Self::ClientInvalid,
            },
            Some(_) => Self::Violation,
        }
    }

    /// Logs a failed handshake: each at debug level, and at most once a minute for each reason as a warning.
    pub(in crate::transport) fn log(self, peer: IpAddr) {
        tracing::debug!(%peer, why = %self, "TLS handshake failed");
        // Probes of a load balancer connect and say nothing.
        if self != Self::Closed {
            limited!(self => warn, %peer, why = %self, "TLS handshakes failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `label` names each reason, so a new one cannot be forgotten there.
    #[test]
    fn each_reason_is_listed_at_its_place() {
        for (index, reason) in HandshakeError::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
        let last = HandshakeError::Connection as usize;
        assert_eq!(last + 1, HandshakeError::ALL.len());
    }
}
