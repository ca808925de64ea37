//! TLS: the handshake of a connection, and the certificates, which are replaced while the server runs.

mod certificate_facts;
mod credentials;
mod handshake;
mod handshake_limiter;
mod reload;
mod validity;

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use certificate_facts::CertificateFacts;
pub use credentials::CertificateError;
use credentials::{CertificateFiles, Credentials};
pub(super) use handshake::{HANDSHAKE_RECORD, HandshakeError};
use handshake_limiter::HandshakeLimiter;
pub use reload::{EXPIRES_SOON, reload};

use super::limits::TLS_HANDSHAKE;
use super::socket::Socket;
use crate::config::TlsArgs;
use crate::domain::clock::Clock;
use crate::domain::time::Timestamp;
use crate::metrics::Counter;

/// The protocol that is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// TLS as both listeners serve it.
pub struct Tls {
    files: CertificateFiles,
    clock: Clock,
    /// What new connections use. Established ones keep what they began with.
    current: ArcSwap<Credentials>,
    limiter: HandshakeLimiter,
    replaced: Counter,
    failed: [Counter; HandshakeError::ALL.len()],
    /// Whether the files have changed and cannot be used.
    is_stale: AtomicBool,
}

impl Tls {
    /// Reads the certificates. Returns `None` if TLS is off.
    ///
    /// # Errors
    /// If they cannot be used, or one of the flags is missing.
    pub fn load(args: &TlsArgs) -> Result<Option<Arc<Self>>, CertificateError> {
        let Some(files) = CertificateFiles::of(args)? else {
            return Ok(None);
        };
        let clock = Clock::system();
        let credentials = files.credentials(&files.read()?, clock.now())?;
        Ok(Some(Arc::new(Self {
            files,
            clock,
            current: ArcSwap::from_pointee(credentials),
            limiter: HandshakeLimiter::new(),
            replaced: Counter::default(),
            failed: Default::default(),
            is_stale: AtomicBool::new(false),
        })))
    }

    /// Checks that no flag is given without another one that it needs.
    ///
    /// # Errors
    /// [`CertificateError::Incomplete`].
    pub fn check_flags(args: &TlsArgs) -> Result<(), CertificateError> {
        CertificateFiles::of(args).map(drop)
    }

    /// From when to when the server's certificate is valid.
    pub fn validity(&self) -> Range<Timestamp> {
        self.current.load().validity.clone()
    }

    /// Counts a handshake that failed.
    pub(super) fn count_failure(&self, reason: HandshakeError) {
        self.failed[reason as usize].count();
    }

    /// How many handshakes failed for each reason.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let failed = HandshakeError::ALL.into_iter().zip(&self.failed);
        failed.map(|(reason, count)| (reason.label(), count.get()))
    }

    /// How often the certificates were replaced.
    pub fn replaced(&self) -> u64 {
        self.replaced.get()
    }

    /// Whether the files have changed and cannot be used, so that older certificates are in use.
    pub fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    /// Performs the handshake of a new connection.
    ///
    /// # Errors
    /// If it fails, or takes too long, including the wait for its turn.
    pub(super) async fn accept(
        &self,
        socket: Socket<TcpStream>,
        peer: IpAddr,
        protocol: Protocol,
    ) -> Result<TlsStream<Socket<TcpStream>>, HandshakeError> {
        let deadline = Instant::now() + TLS_HANDSHAKE;
        // A silent client takes no turn.
        match timeout_at(deadline, socket.first_byte()).await {
            Ok(Ok(Some(HANDSHAKE_RECORD))) => {}
            Ok(Ok(Some(_))) => return Err(HandshakeError::PlainText),
            Ok(Ok(None) | Err(_)) => return Err(HandshakeError::Closed),
            Err(_) => return Err(HandshakeError::TooSlow),
        }
        let Some(wait) = self.limiter.take_turn(peer) else {
            sleep_until(deadline).await;
            return Err(HandshakeError::TooMany);
        };
        sleep(wait).await;
        let credentials = self.current.load();
        let config = match protocol {
            Protocol::Http2 => &credentials.http2,
            Protocol::Http1 => &credentials.http1,
        };
        let handshake = TlsAcceptor::from(Arc::clone(config)).accept(socket);
        drop(credentials);
        match timeout_at(deadline, handshake.into_fallible()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err((error, socket))) => {
                let error = HandshakeError::of(&error);
                if error != HandshakeError::Aborted {
                    let _ = timeout_at(deadline, deliver_alert(socket)).await;
                }
                Err(error)
            }
            Err(_) => Err(HandshakeError::TooSlow),
        }
    }
}

/// Lets the alert that was written last reach the client. The system discards it if bytes of the client are unread when the
/// connection is closed, and with TLS 1.3 a client may send its first request before it knows that its certificate is refused.
async fn deliver_alert(mut socket: Socket<TcpStream>) {
    if socket.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    }
}
