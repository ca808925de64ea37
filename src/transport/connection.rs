//! One connection, from its first bytes to its end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::connection_limiter::{CallQuota, ConnectionPermit};
use super::limits::{self, FIRST_BYTES, GOAWAY_GRACE};
use super::listener::{Accepted, Connected};
use super::pace::Pace;
use super::socket::{Allowance, Socket};
use super::stream::{Stream, Wire};
use super::threads::{OpenConnection, ThreadLoad};
use super::tls::{HANDSHAKE_RECORD, HandshakeError, Protocol, Tls};
use crate::metrics::{Limit, Refusals};

/// The connection preface of HTTP/2 (RFC 9113, section 3.4), and the type of the SETTINGS frame that must follow.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
/// The length of a frame header: three bytes of length, one of type, one of flags, four of stream.
const FRAME_HEADER: usize = 9;

/// An accepted connection from which nothing has been read. It belongs to no runtime yet: the one that serves it registers it.
pub struct AcceptedConnection {
    pub(super) stream: Accepted,
    pub(super) permit: ConnectionPermit,
    pub(super) lifetime: Lifetime,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) refusals: Arc<Refusals>,
}

/// A connection whose first bytes are of the expected protocol.
struct Begun {
    stream: Stream,
    calls: Calls,
    lifetime: Lifetime,
    peer: Peer,
    /// Held as long as the connection.
    _permit: ConnectionPermit,
}

/// The peer of a connection, for the service that handles its calls.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address of the peer; `None` over a Unix socket.
    pub address: Option<IpAddr>,
    /// The calls and body bytes that the peer's address and all addresses together hold.
    pub quota: CallQuota,
    /// The number of bytes that the peer may still send.
    pub allowance: Arc<Allowance>,
    /// How soon the server reads from the connection again.
    pub pace: Arc<Pace>,
    /// Whether the peer has proven itself by a certificate too.
    pub has_client_certificate: bool,
    /// Counts what is refused because of a limit.
    pub refusals: Arc<Refusals>,
    /// Cancelled when the server begins to close the connection, so that calls without an end of their own end.
    pub closing: CancellationToken,
}

impl AcceptedConnection {
    /// Serves gRPC over HTTP/2 until the connection ends.
    pub async fn http2<S, B>(self, service: impl FnOnce(Peer) -> S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(begun) = self.begin(Protocol::Http2).await else {
            return;
        };
        let connection = limits::http2(begun.calls, TokioTimer::new())
            .serve_connection(TokioIo::new(begun.stream), service(begun.peer));
        begun.lifetime.serve(connection, Protocol::Http2).await;
    }

    /// Serves HTTP/1.1 and HTTP/1.0 until the connection ends.
    pub async fn http1<S, B>(self, service: impl FnOnce(Peer) -> S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        B: Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(begun) = self.begin(Protocol::Http1).await else {
            return;
        };
        let (calls, closing) = (begun.calls, begun.peer.closing.clone());
        let service = service(begun.peer);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            calls.count();
            let (answer, closing) = (service.call(request), closing.clone());
            calls.tasks.track_future(async move {
                let mut answer = answer.await;
                if let Ok(answer) = &mut answer
                    && closing.is_cancelled()
                {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                }
                answer
            })
        });
        let connection =
            limits::http1(TokioTimer::new()).serve_connection(TokioIo::new(begun.stream), service);
        begun.lifetime.serve(connection, Protocol::Http1).await;
    }

    /// Performs the TLS handshake, if TLS is on, and reads the first bytes. Returns `None`, and so closes the connection without an
    /// answer, if the client sends nothing, another protocol, or too slowly, or if the server stops.
    async fn begin(self, protocol: Protocol) -> Option<Begun> {
        let address = self.stream.address();
        let connected = self.stream.registered().inspect_err(|error| {
            tracing::debug!(%error, "connection not registered");
        });
        let connected = connected.ok()?;
        let calls = Calls {
            tasks: self.lifetime.calls.clone(),
            allowance: Arc::default(),
            thread: self.lifetime.open.load(),
        };
        let pace: Arc<Pace> = Arc::default();
        let limits = (Arc::clone(&calls.allowance), Arc::clone(&pace));
        let tls = self.tls.as_deref();
        let (wire, first) = tokio::select! {
            opened = open(connected, limits, tls, protocol, &self.refusals) => opened?,
            () = self.lifetime.stop.cancelled() => return None,
        };
        Some(Begun {
            peer: Peer {
                address,
                quota: self.permit.quota(),
                allowance: Arc::clone(&calls.allowance),
                pace,
                has_client_certificate: wire.is_certified(),
                refusals: self.refusals,
                closing: self.lifetime.closing.clone(),
            },
            stream: Stream::new(wire, first),
            calls,
            lifetime: self.lifetime,
            _permit: self.permit,
        })
    }
}

/// Performs the TLS handshake, if TLS is on, and reads the first bytes. A Unix socket has no TLS.
async fn open(
    connected: Connected,
    (allowance, pace): (Arc<Allowance>, Arc<Pace>),
    tls: Option<&Tls>,
    protocol: Protocol,
    refusals: &Refusals,
) -> Option<(Wire, Vec<u8>)> {
    let mut plain_text_from = None;
    let mut wire = match (connected, tls) {
        (Connected::Unix(stream), _) => Wire::Unix(Socket::new(stream, allowance, pace)),
        (Connected::Tcp(stream, peer), None) => {
            plain_text_from = Some(peer);
            Wire::Tcp(Socket::new(stream, allowance, pace))
        }
        (Connected::Tcp(stream, peer), Some(tls)) => {
            let socket = Socket::new(stream, allowance, pace);
            // Boxed, because it is large, and over before the connection is served.
            let handshake = Box::pin(tls.accept(socket, peer, protocol)).await;
            let stream = handshake.inspect_err(|error| {
                tls.count_failure(*error);
                if *error == HandshakeError::TooMany {
                    refusals.count(Limit::Handshakes);
                }
                error.log(peer);
            });
            Wire::Tls(Box::new(stream.ok()?))
        }
    };
    let mut first = Vec::with_capacity(PREFACE.len() + FRAME_HEADER);
    let begins = match protocol {
        Protocol::Http2 => http2_begins,
        // hyper checks the rest.
        Protocol::Http1 => |first: &[u8]| Some(first.first() != Some(&HANDSHAKE_RECORD)),
    };
    let read = timeout(FIRST_BYTES, read_first(&mut wire, &mut first, begins)).await;
    if read.ok()?.is_some() {
        return Some((wire, first));
    }
    if let Some(peer) = plain_text_from
        && first.first() == Some(&HANDSHAKE_RECORD)
    {
        HandshakeError::TlsOnPlainText.log(peer);
    }
    None
}

/// Reads until `begins` returns whether the client uses the expected protocol. Returns `None` if it uses another, or closes the
/// connection before.
async fn read_first(
    stream: &mut (impl AsyncRead + Unpin),
    first: &mut Vec<u8>,
    begins: fn(&[u8]) -> Option<bool>,
) -> Option<()> {
    loop {
        // Never more than the capacity: hyper reads the following bytes.
        let room = (first.capacity() - first.len()) as u64;
        let read = (&mut *stream).take(room).read_buf(first).await;
        if read.ok()? == 0 {
            return None;
        }
        match begins(first) {
            Some(true) => return Some(()),
            Some(false) => return None,
            None => {}
        }
    }
}

/// Returns whether these are the first bytes of HTTP/2: the preface and the header of a SETTINGS frame, which every client sends
/// at once, without waiting for the server. Returns `None` if more bytes are needed.
fn http2_begins(first: &[u8]) -> Option<bool> {
    let preface = first.len().min(PREFACE.len());
    if first[..preface] != PREFACE[..preface] {
        return Some(false);
    }
    let header = first[preface..].first_chunk::<FRAME_HEADER>()?;
    Some(matches!(header, [_, _, _, SETTINGS, flags, 0, 0, 0, 0] if flags & 1 == 0))
}

/// The calls of a connection. Each call is tracked, counted, and adds to the bytes that the peer may send.
#[derive(Clone)]
struct Calls {
    tasks: TaskTracker,
    allowance: Arc<Allowance>,
    thread: Arc<ThreadLoad>,
}

impl Calls {
    fn count(&self) {
        self.allowance.call();
        self.thread.call();
    }
}

/// hyper executes each stream of HTTP/2, from its request to the end of its response, as one task.
impl<F> Executor<F> for Calls
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.count();
        drop(self.tasks.spawn(stream));
    }
}

/// The conditions under which a connection ends.
pub(super) struct Lifetime {
    /// The age at which the server begins to close the connection.
    pub(super) max_age: Duration,
    /// How long the calls in flight then have.
    pub(super) call_timeout: Duration,
    /// Cancelled when the server stops.
    pub(super) stop: CancellationToken,
    pub(super) calls: TaskTracker,
    /// Cancelled when the server begins to close the connection.
    pub(super) closing: CancellationToken,
    /// Counts the connection for its thread.
    pub(super) open: OpenConnection,
}

impl Lifetime {
    /// Serves a connection until the peer closes it, it reaches its maximum age, or the server stops. In the last two cases the
    /// server announces the end (GOAWAY, or `connection: close`) and lets the calls in flight finish.
    async fn serve(
        self,
        connection: impl GracefulConnection<Error = hyper::Error>,
        protocol: Protocol,
    ) {
        let mut connection = pin!(connection);
        let (max_age, stop) = (self.max_age, self.stop.clone());
        // In a task of its own: each time that the connection has something to do, it would look at these too, and `stop` belongs
        // to all threads and takes a lock.
        let mut end = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                () = sleep(max_age) => {}
                () = stop.cancelled() => {}
            }
        }));
        tokio::select! {
            biased;
            ended = connection.as_mut() => return log_end(ended),
            _ = &mut end => {}
        }
        self.closing.cancel();
        if protocol == Protocol::Http1 {
            // The next answer says `connection: close`. Closed between two requests, the connection may meet a request that is on
            // its way, and not every gateway repeats it.
            tokio::select! {
                ended = connection.as_mut() => return log_end(ended),
                () = sleep(GOAWAY_GRACE) => {}
                () = self.stop.cancelled() => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        // An idle peer should close the connection after GOAWAY, but it may be unreachable or ignore GOAWAY.
        let idle = async {
            sleep(GOAWAY_GRACE).await;
            self.calls.close();
            self.calls.wait().await;
        };
        tokio::select! {
            ended = connection.as_mut() => log_end(ended),
            () = idle => {}
            // No call takes longer. What is still open is a stream without end, or a response that the peer does not read.
            () = sleep(self.call_timeout.max(GOAWAY_GRACE)) => {}
        }
    }
}

/// Logs an error of a connection, at debug level, because peers often disconnect or violate the protocol.
fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(error = %error, cause = ?std::error::Error::source(&error), "connection ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http2_is_recognized_by_its_preface_and_a_settings_frame() {
        let hello = [PREFACE.as_slice(), &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]].concat();
        for length in 0..hello.len() {
            assert_eq!(http2_begins(&hello[..length]), None, "{length}");
        }
        assert_eq!(http2_begins(&hello), Some(true));
        let mut acknowledgement = hello.clone();
        acknowledgement[28] = 1;
        assert_eq!(http2_begins(&acknowledgement), Some(false));
        let mut headers = hello.clone();
        headers[27] = 1;
        assert_eq!(http2_begins(&headers), Some(false));
        assert_eq!(http2_begins(b"GET / HTTP/1.1\r\n"), Some(false));
        assert_eq!(http2_begins(b"\x16\x03\x01"), Some(false), "TLS");
    }
}
