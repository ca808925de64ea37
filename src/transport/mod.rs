//! The transport: accepts connections, and limits their number, their lifetime and the resources that they hold.
//!
//! The transport does not handle calls itself: [`AcceptedConnection::http2`] and [`AcceptedConnection::http1`] get a service.

mod connection;
mod connection_limiter;
mod descriptors;
mod limits;
mod listener;
mod pace;
mod passed_sockets;
mod socket;
mod stream;
mod threads;
mod tls;

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use connection::{AcceptedConnection, Peer};
pub use connection_limiter::CallQuota;
pub use descriptors::{most_descriptors, needed_descriptors, within_descriptors};
pub use listener::{Listener, UnixSocketFile};
pub use pace::Pace;
pub use passed_sockets::PassedSockets;
pub use socket::Allowance;
pub use threads::{ThreadConnections, Threads};
pub use tls::{CertificateError, CertificateFacts, EXPIRES_SOON, Tls, reload};

use crate::config::TransportArgs;
use crate::metrics::Refusals;
use crate::telemetry::limited;
use connection::Lifetime;
use connection_limiter::ConnectionLimiter;
use listener::RegisteredListener;
use threads::LoadBalancer;

/// Accepts the connections of listeners.
#[derive(Clone)]
pub struct Acceptor {
    /// The limits.
    pub args: TransportArgs,
    /// With it, the connections over TCP are encrypted. Each thread performs the handshakes of its connections.
    pub tls: Option<Arc<Tls>>,
    /// Counts what is refused because of a limit.
    pub refusals: Arc<Refusals>,
    /// Ends everything when it is cancelled.
    pub stop: CancellationToken,
}

impl Acceptor {
    /// Accepts connections and serves each with `serve` on one of the threads, whose index `serve` gets. Runs on the first of the
    /// threads, because nothing else may delay it. The task ends when the last connection is closed.
    ///
    /// # Errors
    /// The result of the task is an error if the listener cannot be registered with the runtime of that thread.
    pub fn accept<F>(
        self,
        listener: Listener,
        threads: &Threads,
        serve: impl Fn(usize, AcceptedConnection) -> F + Send + Sync + 'static,
    ) -> AbortOnDropHandle<io::Result<()>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtimes = threads.runtimes();
        let balancer = threads.balancer();
        let accepting = async move {
            let listener = listener.registered()?;
            let connections = TaskTracker::new();
            self.accept_until_stopped(listener, balancer, |index, accepted| {
                connections.spawn_on(serve(index, accepted), &runtimes[index]);
            })
            .await;
            connections.close();
            connections.wait().await;
            Ok(())
        };
        AbortOnDropHandle::new(threads.runtimes()[0].spawn(accepting))
    }

    async fn accept_until_stopped(
        &self,
        listener: RegisteredListener,
        mut balancer: LoadBalancer,
        spawn: impl Fn(usize, AcceptedConnection),
    ) {
        let Self {
            args,
            tls,
            refusals,
            stop,
        } = self;
        let limiter =
            ConnectionLimiter::new(args.max_connections, args.max_connections_per_address);
        let mut ticks = tokio::time::interval(limits::LOAD_EVERY);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    balancer.tick();
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !is_of_one_connection(&error) {
                        log_refused(&error, None);
                        tokio::time::sleep(limits::OUT_OF_RESOURCES).await;
                    }
                    continue;
                }
            };
            let permit = match limiter.admit(stream.address()) {
                Ok(permit) => permit,
                Err(full) => {
                    refusals.count(full.limit());
                    log_refused(&full, stream.address());
                    continue;
                }
            };
            // The connection is served even if an option cannot be set.
            if let Err(error) = stream.set_options() {
                tracing::debug!(%error, "socket options not set");
            }
            let (thread, open) = balancer.choose();
            spawn(
                thread,
                AcceptedConnection {
                    stream,
                    permit,
                    tls: tls.clone(),
                    refusals: Arc::clone(refusals),
                    lifetime: Lifetime {
                        max_age: jittered(args.connection_age),
                        call_timeout: args.call_timeout,
                        stop: stop.clone(),
                        calls: TaskTracker::new(),
                        closing: CancellationToken::new(),
                        open,
                    },
                },
            );
        }
        // The listener is dropped at once, so that new clients get an error instead of waiting in the backlog.
    }
}

/// Logs a refused connection, at most once a minute for each reason.
fn log_refused(why: &dyn std::fmt::Display, peer: Option<IpAddr>) {
    let why = why.to_string();
    let peer = peer.map(tracing::field::display);
    limited!(&why => warn, why, peer, "connections refused");
}

/// Whether an error of `accept` concerns only one connection, so that the next can be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
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
