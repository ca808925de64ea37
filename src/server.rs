//! The server: builds all services from the opened store, runs them, and shuts them down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::auth::Authenticator;
use crate::authority::Authority;
use crate::config::{GatewayArgs, RetentionArgs, ServeArgs, TransportArgs};
use crate::domain::clock::Clock;
use crate::gateway::GatewayAuthorizer;
use crate::grpc::{
    Admin, ExtAuthzService, Guard, KeyAdminService, KeyVerifyService, Pages, RealmAdminService,
};
use crate::hashing::Roots;
use crate::http;
use crate::mirror::{Feed, Mirror};
use crate::open::{LockHandle, OpenedStore};
use crate::pb::DESCRIPTORS;
use crate::pb::claviger::v1::key_admin_server::KeyAdminServer;
use crate::pb::claviger::v1::key_verify_server::KeyVerifyServer;
use crate::pb::claviger::v1::realm_admin_server::RealmAdminServer;
use crate::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use crate::readiness::Readiness;
use crate::retention;
use crate::store::Store;
use crate::transport;
use crate::usage::{self, UsageRecorder};

/// The largest message that health and reflection accept, in bytes. It contains the name of a service or a symbol, and needs no
/// key.
const MAX_OPEN_MESSAGE: usize = 4 * 1024;

/// The largest message that `KeyVerify` accepts, in bytes.
const MAX_VERIFY_MESSAGE: usize = 64 * 1024;

/// The largest message that the service for Envoy accepts, in bytes. It contains all headers of a client's request.
const MAX_GATEWAY_MESSAGE: usize = 256 * 1024;

/// The largest message that the admin services accept, in bytes.
const MAX_ADMIN_MESSAGE: usize = 1024 * 1024;

/// The time between two writes of the clock's mark to the store.
const TIME_MARK_EVERY: Duration = Duration::from_mins(1);

/// How long the last write of usage may take, and how long the store may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The service names for which health is reported; the empty name stands for the whole server.
const HEALTH_NAMES: [&str; 5] = [
    "",
    AuthorizationServer::<ExtAuthzService>::NAME,
    KeyVerifyServer::<KeyVerifyService>::NAME,
    KeyAdminServer::<KeyAdminService>::NAME,
    RealmAdminServer::<RealmAdminService>::NAME,
];

/// A request to stop the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Report NOT_SERVING for the drain delay, then stop.
    Drain,
    /// Stop as soon as the calls in flight are answered.
    Now,
}

/// The reason why the server failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}. Choose another address with --{flag}, or stop the process that uses this one"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets the address.
        flag: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The keys could not be loaded.
    #[error("cannot load the keys: {0}")]
    Load(#[from] crate::store::Error),
    /// A task of the server ended unexpectedly.
    #[error("the {0} has failed: see the log for the reason")]
    Failed(&'static str),
    /// Another process serves this database now.
    #[error(
        "another claviger process took over the database while this one could not reach it, so this process stops: run only \
         one process, because replicas are not supported yet"
    )]
    LockLost,
    /// The reflection service could not be built.
    #[error("cannot build the reflection service: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The bound listeners of gRPC and HTTP.
pub struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
}

impl Listeners {
    /// Binds both addresses.
    pub async fn bind(args: &ServeArgs) -> Result<Self, ServeError> {
        Ok(Self {
            grpc: listen(args.listen, "listen").await?,
            http: listen(args.http_listen, "http-listen").await?,
        })
    }

    /// The address of gRPC, with the real port if the system chose it.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
            .local_addr()
            .expect("a bound listener has an address")
    }

    /// The address of HTTP, with the real port if the system chose it.
    pub fn http_address(&self) -> SocketAddr {
        self.http
            .local_addr()
            .expect("a bound listener has an address")
    }
}

/// A server that is not running yet.
pub struct Server {
    listeners: Listeners,
    guard: Guard,
    transport: TransportArgs,
    authorizer: GatewayAuthorizer,
    gateway: GatewayArgs,
    stop_serving: CancellationToken,
    health: HealthReporter,
    readiness: watch::Sender<Readiness>,
    feed: Feed,
    mirror: Arc<Mirror>,
    usage: usage::Writer,
    retention: RetentionArgs,
    store: Store,
    clock: Clock,
    roots: Roots,
    changes: TaskTracker,
    drain_delay: Duration,
    drain_timeout: Duration,
    lock: LockHandle,
}

impl Server {
    /// Builds the server. Health reports NOT_SERVING until [`Server::run`] has loaded the keys.
    pub async fn new(
        args: &ServeArgs,
        opened: OpenedStore,
        listeners: Listeners,
    ) -> Result<Self, ServeError> {
        let OpenedStore {
            store,
            peppers,
            clock,
            head,
            roots,
            lock,
        } = opened;
        let feed = Feed::new(store.clone(), clock.clone(), args.poll_interval);
        let mirror = feed.mirror();
        let recorder = Arc::new(UsageRecorder::new(!args.usage_interval.is_zero()));
        let authenticator = Authenticator::new(
            Arc::clone(&mirror),
            Arc::clone(&peppers),
            clock.clone(),
            Arc::clone(&recorder),
        );
        let changes = TaskTracker::new();
        let authority = Authority::new(
            store.clone(),
            Arc::clone(&mirror),
            clock.clone(),
            Arc::clone(&peppers),
            roots.clone(),
        );
        let admin = Admin::new(
            Arc::new(authority),
            authenticator.clone(),
            Pages::new(&head.seal),
            changes.clone(),
        );

        let (health, health_service) = tonic_health::server::health_reporter();
        set_health(&health, ServingStatus::NotServing).await;
        let authorizer = GatewayAuthorizer::new(
            Arc::clone(&mirror),
            Arc::clone(&peppers),
            clock.clone(),
            authenticator.clone(),
            Arc::clone(&recorder),
        );
        let key_verify = KeyVerifyService::new(
            Arc::clone(&mirror),
            peppers,
            clock.clone(),
            authenticator,
            Arc::clone(&recorder),
        );
        let mut services = Routes::builder();
        services
            .add_service(health_service.max_decoding_message_size(MAX_OPEN_MESSAGE))
            .add_service(
                KeyVerifyServer::new(key_verify).max_decoding_message_size(MAX_VERIFY_MESSAGE),
            )
            .add_service(
                AuthorizationServer::new(ExtAuthzService::new(authorizer.clone()))
                    .max_decoding_message_size(MAX_GATEWAY_MESSAGE),
            )
            .add_service(
                KeyAdminServer::new(KeyAdminService::new(admin.clone(), clock.clone()))
                    .max_decoding_message_size(MAX_ADMIN_MESSAGE),
            )
            .add_service(
                RealmAdminServer::new(RealmAdminService::new(admin))
                    .max_decoding_message_size(MAX_ADMIN_MESSAGE),
            );
        if !args.no_reflection {
            add_reflection(&mut services)?;
        }
        let stop_serving = CancellationToken::new();
        let transport = transport::within_descriptors(args.transport);
        let guard = Guard::new(
            services.routes().prepare(),
            transport.max_calls,
            transport.call_timeout,
            stop_serving.clone(),
        );
        Ok(Self {
            listeners,
            guard,
            transport,
            authorizer,
            gateway: args.gateway,
            stop_serving,
            health,
            readiness: watch::Sender::new(Readiness::Starting),
            feed,
            mirror,
            usage: usage::Writer::new(recorder, store.clone(), args.usage_interval),
            retention: args.retention,
            store,
            clock,
            roots,
            changes,
            drain_delay: args.drain_delay,
            drain_timeout: args.drain_timeout,
            lock,
        })
    }

    /// Watches whether the server should get requests.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// The mirror from which requests are decided.
    pub fn mirror(&self) -> Arc<Mirror> {
        Arc::clone(&self.mirror)
    }

    /// The store.
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// The root hashing of new keys.
    pub fn roots(&self) -> Roots {
        self.roots.clone()
    }

    /// Loads the keys and serves until a stop request. A second request shortens the drain; a closed channel counts as
    /// [`Stop::Now`].
    ///
    /// # Errors
    /// If the keys cannot be loaded, a task of the server fails, or another process takes over the database.
    pub async fn run(self, mut stop: mpsc::Receiver<Stop>) -> Result<(), ServeError> {
        let Self {
            listeners: Listeners { grpc, http },
            guard,
            transport,
            authorizer,
            gateway,
            stop_serving,
            mut health,
            readiness,
            mut feed,
            mirror,
            usage,
            retention,
            store,
            clock,
            roots: _,
            changes,
            drain_delay,
            drain_timeout,
            lock,
        } = self;
        let (stop_feed, feed_stopped) = watch::channel(false);
        // Stops both transports on every return from this function.
        let _stop_on_return = stop_serving.clone().drop_guard();
        let mut serving = tokio::spawn(transport::accept(
            grpc,
            transport,
            stop_serving.clone(),
            move |accepted| {
                let guard = guard.clone();
                accepted.http2(move |peer| guard.for_peer(peer))
            },
        ));
        let router = http::router(readiness.subscribe(), authorizer, gateway);
        let probes = tokio::spawn(transport::accept(
            http,
            transport,
            stop_serving.clone(),
            move |accepted| accepted.http1(router.clone()),
        ));

        let mut locked = AbortOnDropHandle::new(tokio::spawn(lock.keep()));
        let loading = std::time::Instant::now();
        tokio::select! {
            loaded = feed.load() => loaded?,
            _ = &mut locked => return Err(ServeError::LockLost),
            _ = stop.recv() => {
                tracing::info!("stopped during the start");
                return Ok(());
            }
        }
        tracing::info!(
            keys = mirror.index().len(),
            revision = %mirror.index().revision(),
            took = ?loading.elapsed(),
            "keys loaded"
        );
        let mut feeding = tokio::spawn(feed.run(feed_stopped));
        readiness.send_replace(Readiness::Ready);
        set_health(&health, ServingStatus::Serving).await;
        let mut background_tasks =
            start_background_tasks(mirror, &health, &readiness, &store, clock, retention);
        let usage_writer = usage.start();

        let mode = tokio::select! {
            mode = stop.recv() => mode.unwrap_or(Stop::Now),
            // These tasks end only if they fail, and the server cannot run without them.
            _ = &mut serving => return Err(ServeError::Failed("transport")),
            _ = &mut feeding => return Err(ServeError::Failed("feed")),
            _ = &mut locked => return Err(ServeError::LockLost),
        };
        tracing::info!(?mode, "stopping");
        background_tasks.abort_all();
        readiness.send_replace(Readiness::Draining);
        set_health(&health, ServingStatus::NotServing).await;
        if mode == Stop::Drain {
            tokio::select! {
                () = tokio::time::sleep(drain_delay) => {}
                Some(_) = stop.recv() => {}
            }
        }
        stop_serving.cancel();
        // Ends open watches of health, which would keep the transport open permanently.
        for name in HEALTH_NAMES {
            health.clear_service_status(name).await;
        }
        finish(&mut serving, &changes, drain_timeout, &mut stop).await;
        probes.abort();
        let _ = probes.await;
        // No call is answered any more, so the counts are complete.
        usage_writer.stop(CLOSE_TIMEOUT).await;
        stop_feed.send_replace(true);
        let _ = feeding.await;
        if tokio::time::timeout(CLOSE_TIMEOUT, store.close())
            .await
            .is_err()
        {
            tracing::warn!("store not closed in time; acknowledged changes are safe");
        }
        locked.abort();
        let _ = locked.await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for the calls in flight, and for changes that continue although their callers have disconnected, for at most `timeout`.
/// A further stop request ends the wait.
async fn finish(
    serving: &mut JoinHandle<()>,
    changes: &TaskTracker,
    timeout: Duration,
    stop: &mut mpsc::Receiver<Stop>,
) {
    let finished = async {
        let _ = (&mut *serving).await;
        changes.close();
        changes.wait().await;
    };
    tokio::select! {
        () = finished => {}
        () = tokio::time::sleep(timeout) => {
            tracing::warn!(?timeout, "drain timeout reached; calls in flight are dropped");
        }
        Some(_) = stop.recv() => tracing::warn!("second stop request; calls in flight are dropped"),
    }
    serving.abort();
}

/// Starts the tasks that run in the background while the server serves.
fn start_background_tasks(
    mirror: Arc<Mirror>,
    health: &HealthReporter,
    readiness: &watch::Sender<Readiness>,
    store: &Store,
    clock: Clock,
    retention: RetentionArgs,
) -> JoinSet<()> {
    let mut background_tasks = JoinSet::new();
    background_tasks.spawn(watch_trust(
        Arc::clone(&mirror),
        health.clone(),
        readiness.clone(),
    ));
    background_tasks.spawn(mark_time(store.clone(), clock.clone()));
    background_tasks.spawn(retention::run(
        retention.retention(),
        store.clone(),
        mirror,
        clock,
        retention.retain_interval,
    ));
    background_tasks
}

/// Regularly writes the time to the store, so that after a restart the clock does not begin long before the last stop.
async fn mark_time(store: Store, clock: Clock) {
    loop {
        tokio::time::sleep(TIME_MARK_EVERY).await;
        if let Err(error) = store.mark_time(clock.now()).await {
            tracing::warn!(%error, "time not written");
        }
    }
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// Withdraws readiness and health when the store contradicts the mirror.
async fn watch_trust(
    mirror: Arc<Mirror>,
    health: HealthReporter,
    readiness: watch::Sender<Readiness>,
) {
    let mut distrust = mirror.distrust();
    while let Ok(reason) = distrust
        .wait_for(Option::is_some)
        .await
        .map(|reason| reason.clone())
    {
        readiness.send_replace(Readiness::Distrusted(reason.unwrap_or_default()));
        set_health(&health, ServingStatus::NotServing).await;
        if distrust.changed().await.is_err() {
            return;
        }
    }
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ServeError> {
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "listener is unencrypted and reachable from other machines: keep it inside a private network"
        );
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen {
            address,
            flag,
            source,
        })
}

fn add_reflection(services: &mut RoutesBuilder) -> Result<(), ServeError> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_file_descriptor_set(error_details())
    };
    // grpcurl and buf use v1, the reflection client of Python only v1alpha.
    let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    services
        .add_service(v1.max_decoding_message_size(MAX_OPEN_MESSAGE))
        .add_service(v1alpha.max_decoding_message_size(MAX_OPEN_MESSAGE));
    Ok(())
}

/// The descriptors of the messages in error details, so that a client can decode them. `google.rpc.Status` itself is in
/// [`DESCRIPTORS`].
fn error_details() -> FileDescriptorSet {
    let mut files = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .expect("tonic-types contains valid descriptors");
    files
        .file
        .retain(|file| file.name().ends_with("error_details.proto"));
    files
}
