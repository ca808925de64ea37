//! Connections: who gets one, how long it lives, and how much it may hold.
//!
//! What calls are answered with is none of its business: [`Accepted::http2`] and [`Accepted::http1`] are given a service.

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

pub use connection::{Accepted, Peer};
pub use connection_limiter::CallQuota;
pub use descriptors::within_descriptors;
pub use socket::Allowance;

use crate::config::TransportArgs;
use connection::{Calls, Life};
use connection_limiter::ConnectionLimiter;

/// Takes connections and has them served until told to stop, and is done when the last of them has gone. Dropped, it cuts
/// them all.
pub async fn accept<F>(
    listener: TcpListener,
    args: TransportArgs,
    stop: CancellationToken,
    serve: impl Fn(Accepted) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let limiter = ConnectionLimiter::new(args.max_connections, args.max_connections_per_address);
    let mut connections = JoinSet::new();
    let mut refused = Refused::default();
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => break,
            // A connection that has ended is forgotten.
            Some(_) = connections.join_next() => continue,
            taken = listener.accept() => taken,
        };
        let (stream, remote) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    refused.count(&error);
                    tokio::time::sleep(limits::OUT_OF_RESOURCES).await;
                }
                continue;
            }
        };
        let permit = match limiter.admit(remote.ip()) {
            Ok(permit) => permit,
            Err(full) => {
                refused.count(&full);
                continue;
            }
        };
        // What cannot be set is not worth a connection.
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "a connection could not be prepared");
        }
        connections.spawn(serve(Accepted {
            stream,
            permit,
            remote,
            life: Life {
                age: jittered(args.connection_age),
                call_timeout: args.call_timeout,
                stop: stop.clone(),
                calls: Calls::default(),
            },
        }));
    }
    // Nobody new is let wait at the door.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Connections that were not taken. They may be many, so not each has its line in the log.
#[derive(Default)]
struct Refused {
    total: u64,
    logged: Option<Instant>,
}

impl Refused {
    fn count(&mut self, why: &dyn std::fmt::Display) {
        self.total += 1;
        if self
            .logged
            .is_none_or(|logged| logged.elapsed() >= limits::LOG_EVERY)
        {
            self.logged = Some(Instant::now());
            tracing::warn!(%why, since_start = self.total, "connections are refused");
        }
    }
}

/// Whether an error of `accept` is about the connection that was to be taken, so that the next may be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Answers are small and wanted at once.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(limits::TCP_KEEPALIVE)
        .with_interval(limits::TCP_KEEPALIVE / 4);
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(limits::SYSTEM_BUFFER)?;
    socket.set_recv_buffer_size(limits::SYSTEM_BUFFER)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// A tenth more or less, so that connections that were opened together do not all come back together.
fn jittered(age: Duration) -> Duration {
    let [random] = crate::hashing::random::<1>();
    age.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth_at_the_most() {
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
