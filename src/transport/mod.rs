//! The transport: accepts connections, and limits their number, their lifetime and the resources that they hold.
//!
//! The transport does not handle calls itself: [`AcceptedConnection::http2`] and [`AcceptedConnection::http1`] get a service.

mod connection;
mod connection_limiter;
mod descriptors;
mod limits;
mod socket;

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use connection::{AcceptedConnection, Peer};
pub use connection_limiter::CallQuota;
pub use descriptors::within_descriptors;
pub use socket::Allowance;

use crate::config::TransportArgs;
use connection::{Calls, Lifetime};
use connection_limiter::ConnectionLimiter;

/// Accepts connections and serves each with `serve`, until `stop` is cancelled. Returns when the last connection is closed.
/// Dropping the future closes all connections at once.
pub async fn accept<F>(
    listener: TcpListener,
    args: TransportArgs,
    stop: CancellationToken,
    serve: impl Fn(AcceptedConnection) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let limiter = ConnectionLimiter::new(args.max_connections, args.max_connections_per_address);
    let mut connections = JoinSet::new();
    let mut refusals = RefusalLog::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            // Removes connections that have ended from the set.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    refusals.count(&error);
                    tokio::time::sleep(limits::OUT_OF_RESOURCES).await;
                }
                continue;
            }
        };
        let permit = match limiter.admit(remote.ip()) {
            Ok(permit) => permit,
            Err(full) => {
                refusals.count(&full);
                continue;
            }
        };
        // The connection is served even if an option cannot be set.
        if let Err(error) = set_options(&stream) {
            tracing::debug!(%error, "socket options not set");
        }
        connections.spawn(serve(AcceptedConnection {
            stream,
            permit,
            remote,
            lifetime: Lifetime {
                max_age: jittered(args.connection_age),
                call_timeout: args.call_timeout,
                stop: stop.clone(),
                calls: Calls::default(),
            },
        }));
    }
    // Closed at once, so that new clients get an error instead of waiting in the backlog.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The log of refused connections. There may be many, so not every one is logged.
#[derive(Default)]
struct RefusalLog {
    total: u64,
    last_logged: Option<Instant>,
}

impl RefusalLog {
    /// Counts a refused connection, and logs it if the last line is old enough.
    fn count(&mut self, why: &dyn std::fmt::Display) {
        self.total += 1;
        if self
            .last_logged
            .is_none_or(|logged| logged.elapsed() >= limits::LOG_EVERY)
        {
            self.last_logged = Some(Instant::now());
            tracing::warn!(%why, since_start = self.total, "connections refused");
        }
    }
}

/// Whether an error of `accept` concerns only one connection, so that the next can be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    // Answers are small and must not wait for more data.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(limits::TCP_KEEPALIVE)
        .with_interval(limits::TCP_KEEPALIVE / 4);
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(limits::SYSTEM_BUFFER)?;
    socket.set_recv_buffer_size(limits::SYSTEM_BUFFER)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// Varies an age by up to a tenth, so that connections that were opened together do not all reconnect together.
fn jittered(age: Duration) -> Duration {
    let [random] = crate::hashing::random::<1>();
    age.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_at_most_a_tenth() {
        let ages: Vec<_> = (0..100)
            .map(|_| jittered(Duration::from_secs(100)))
            .collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(90) && *most <= Duration::from_secs(110));
        assert!(
            *least < Duration::from_secs(98) && *most > Duration::from_secs(102),
            "they differ"
        );
    }
}
