//! A connection from its first bytes to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection_limiter::{CallQuota, ConnectionPermit};
use super::limits::{self, FAREWELL, FIRST_BYTES};
use super::socket::{Allowance, Socket};

/// What an HTTP/2 client says first (RFC 9113, section 3.4), and the type of the SETTINGS frame that must follow.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
/// The head of a frame: three bytes of length, one of type, one of flags, four of stream.
const FRAME_HEAD: usize = 9;

/// A connection that was taken in, and has not said anything yet.
pub struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) permit: ConnectionPermit,
    pub(super) remote: SocketAddr,
    pub(super) life: Life,
}

/// The other end of a connection, as those who answer its calls see it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub remote: SocketAddr,
    /// The address that it called.
    pub local: Option<SocketAddr>,
    /// What it may hold of calls and bodies.
    pub quota: CallQuota,
    /// What it may send.
    pub allowance: Arc<Allowance>,
}

impl Accepted {
    /// Serves gRPC.
    pub async fn http2<S, B>(mut self, service: impl FnOnce(Peer) -> S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(first) = self.first_bytes(http2_begins).await else {
            return;
        };
        let calls = self.life.calls.clone();
        let service = service(Peer {
            remote: self.remote,
            local: self.stream.local_addr().ok(),
            quota: self.permit.quota(),
            allowance: Arc::clone(&calls.allowance),
        });
        let socket = Socket::new(self.stream, first, Arc::clone(&calls.allowance));
        let connection =
            limits::http2(calls, TokioTimer::new()).serve_connection(TokioIo::new(socket), service);
        self.life.of(connection).await;
        drop(self.permit);
    }

    /// Serves HTTP/1.1 and HTTP/1.0.
    pub async fn http1(mut self, router: Router) {
        let Some(first) = self.first_bytes(|_| Some(true)).await else {
            return;
        };
        let calls = self.life.calls.clone();
        let socket = Socket::new(self.stream, first, Arc::clone(&calls.allowance));
        let router = TowerToHyperService::new(router);
        let peer = self.remote.ip();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            calls.allowance.call();
            request.extensions_mut().insert(ConnectInfo(peer));
            calls.tasks.track_future(router.call(request))
        });
        let connection =
            limits::http1(TokioTimer::new()).serve_connection(TokioIo::new(socket), service);
        self.life.of(connection).await;
        drop(self.permit);
    }

    /// Reads until `begins` knows whether this is what is served here. Whoever says nothing, or something else, or says it
    /// too slowly, is not answered; and a server that stops does not wait for it.
    async fn first_bytes(&mut self, begins: fn(&[u8]) -> Option<bool>) -> Option<Vec<u8>> {
        let reading = async {
            let mut first = Vec::with_capacity(PREFACE.len() + FRAME_HEAD);
            loop {
                // Never more than there is room for: what comes after is read when it is served.
                let room = (first.capacity() - first.len()) as u64;
                let read = (&mut self.stream).take(room).read_buf(&mut first).await;
                if read.ok()? == 0 {
                    return None;
                }
                match begins(&first) {
                    Some(true) => return Some(first),
                    Some(false) => return None,
                    None => {}
                }
            }
        };
        tokio::select! {
            read = timeout(FIRST_BYTES, reading) => read.ok()?,
            () = self.life.stop.cancelled() => None,
        }
    }
}

/// Whether these are the first bytes of HTTP/2, as far as they go: the preface and the head of a SETTINGS frame, which
/// every client sends at once and without waiting for the server.
fn http2_begins(first: &[u8]) -> Option<bool> {
    let preface = first.len().min(PREFACE.len());
    if first[..preface] != PREFACE[..preface] {
        return Some(false);
    }
    let head = first[preface..].first_chunk::<FRAME_HEAD>()?;
    Some(matches!(head, [_, _, _, SETTINGS, flags, 0, 0, 0, 0] if flags & 1 == 0))
}

/// The calls of a connection: counted, and each adds to what the connection may send.
#[derive(Clone, Default)]
pub(super) struct Calls {
    tasks: TaskTracker,
    allowance: Arc<Allowance>,
}

/// hyper runs each stream of HTTP/2, from its request to the end of its answer, as a task.
impl<F> Executor<F> for Calls
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.allowance.call();
        drop(self.tasks.spawn(stream));
    }
}

/// How long a connection lives.
pub(super) struct Life {
    /// Until it is told to go.
    pub(super) age: Duration,
    /// How long its calls then have.
    pub(super) call_timeout: Duration,
    pub(super) stop: CancellationToken,
    pub(super) calls: Calls,
}

impl Life {
    /// Serves a connection until its peer leaves, its time is over, or the server stops. In the latter cases the peer is
    /// told (GOAWAY, or `connection: close`) and its calls get to finish.
    async fn of(self, connection: impl GracefulConnection<Error = hyper::Error>) {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            () = sleep(self.age) => {}
            () = self.stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        // One that has nothing to do should leave by itself. It may also be silent, or not know what it was told.
        let idle = async {
            sleep(FAREWELL).await;
            self.calls.tasks.close();
            self.calls.tasks.wait().await;
        };
        tokio::select! {
            ended = connection.as_mut() => log_end(ended),
            () = idle => {}
            // No call takes longer. What is still open is a stream that never ends, or an answer that is not read.
            () = sleep(self.call_timeout.max(FAREWELL)) => {}
        }
    }
}

/// Peers that break off or break the rules are every day's business.
fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(error = %error, cause = ?std::error::Error::source(&error), "a connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http2_is_known_by_its_preface_and_a_settings_frame() {
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
