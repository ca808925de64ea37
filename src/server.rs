//! The server: everything put together, from the first byte to the last call.

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

/// The largest message that health and reflection take, in bytes: the name of a service or a symbol. Anybody may send one.
const MAX_OPEN_MESSAGE: usize = 4 * 1024;

/// The largest message that the hot service takes, in bytes.
const MAX_VERIFY_MESSAGE: usize = 64 * 1024;

/// The largest message that gateways may send, in bytes: Envoy hands over every header of a request.
const MAX_GATEWAY_MESSAGE: usize = 256 * 1024;

/// The largest message that the services of administration take, in bytes.
const MAX_ADMIN_MESSAGE: usize = 1024 * 1024;

/// How often the time is written down while nothing else is.
const TIME_MARK_EVERY: Duration = Duration::from_mins(1);

/// How long the store gets to close.
const CLOSING: Duration = Duration::from_secs(10);

/// The names under which health is told.
const HEALTH_NAMES: [&str; 5] = [
    "",
    AuthorizationServer::<ExtAuthzService>::NAME,
    KeyVerifyServer::<KeyVerifyService>::NAME,
    KeyAdminServer::<KeyAdminService>::NAME,
    RealmAdminServer::<RealmAdminService>::NAME,
];

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Be seen to go first, and then stop.
    Drain,
    /// Stop as soon as the calls in flight are answered.
    Now,
}

/// Why the server stopped, other than being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}. Is something else there? --{flag} names another address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that names it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The keys could not be loaded.
    #[error("the keys could not be loaded: {0}")]
    Load(#[from] crate::store::Error),
    /// A part of the server ended that never should.
    #[error("the {0} has failed; the log says why")]
    Failed(&'static str),
    /// Another process serves this database now.
    #[error(
        "another claviger took the database over while this one could not reach it; replicas are not supported yet, so this \
         one ends"
    )]
    Usurped,
    /// The reflection service could not be made.
    #[error("the services cannot be described: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The addresses that are listened on.
pub struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
}

impl Listeners {
    /// Takes the addresses.
    pub async fn bind(args: &ServeArgs) -> Result<Self, ServeError> {
        Ok(Self {
            grpc: listen(args.listen, "listen").await?,
            http: listen(args.http_listen, "http-listen").await?,
        })
    }

    /// Where gRPC is served; tells the port if the system chose it.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
            .local_addr()
            .expect("a bound listener has an address")
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http
            .local_addr()
            .expect("a bound listener has an address")
    }
}

/// A server that does not answer yet.
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
    kept: RetentionArgs,
    store: Store,
    clock: Clock,
    roots: Roots,
    changes: TaskTracker,
    drain_delay: Duration,
    drain_timeout: Duration,
    /// Keeps every other process away.
    lock: LockHandle,
}

impl Server {
    /// Puts everything together. Health says NOT_SERVING until [`Server::run`] has loaded the keys.
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
        tell_health(&health, ServingStatus::NotServing).await;
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
            kept: args.retention,
            store,
            clock,
            roots,
            changes,
            drain_delay: args.drain_delay,
            drain_timeout: args.drain_timeout,
            lock,
        })
    }

    /// Whether requests should come here, from now on.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// What requests are decided by.
    pub fn mirror(&self) -> Arc<Mirror> {
        Arc::clone(&self.mirror)
    }

    /// Where everything is kept.
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// What makes the roots of new keys.
    pub fn roots(&self) -> Roots {
        self.roots.clone()
    }

    /// Loads the keys and serves until told to stop. A second word hurries a drain; a closed channel is [`Stop::Now`].
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
            kept,
            store,
            clock,
            roots: _,
            changes,
            drain_delay,
            drain_timeout,
            lock,
        } = self;
        let (stop_feed, feed_stops) = watch::channel(false);
        // However this ends, nobody is served after it.
        let _served_until_here = stop_serving.clone().drop_guard();
        let mut serving = tokio::spawn(transport::accept(
            grpc,
            transport,
            stop_serving.clone(),
            move |accepted| {
                let guard = guard.clone();
                accepted.http2(move |peer| guard.towards(peer))
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
            _ = &mut locked => return Err(ServeError::Usurped),
            _ = stop.recv() => {
                tracing::info!("stopped while starting");
                return Ok(());
            }
        }
        tracing::info!(
            keys = mirror.index().len(),
            revision = %mirror.index().revision(),
            took = ?loading.elapsed(),
            "the keys are in memory"
        );
        let mut feeding = tokio::spawn(feed.run(feed_stops));
        readiness.send_replace(Readiness::Ready);
        tell_health(&health, ServingStatus::Serving).await;
        let mut background_tasks = start_chores(mirror, &health, &readiness, &store, clock, kept);
        let counting = usage.start();

        let asked = tokio::select! {
            asked = stop.recv() => asked.unwrap_or(Stop::Now),
            // Neither ends by itself unless it failed, and without either this is no server.
            _ = &mut serving => return Err(ServeError::Failed("transport")),
            _ = &mut feeding => return Err(ServeError::Failed("feed")),
            _ = &mut locked => return Err(ServeError::Usurped),
        };
        tracing::info!(?asked, "stopping");
        background_tasks.abort_all();
        readiness.send_replace(Readiness::Draining);
        tell_health(&health, ServingStatus::NotServing).await;
        if asked == Stop::Drain {
            tokio::select! {
                () = tokio::time::sleep(drain_delay) => {}
                Some(_) = stop.recv() => {}
            }
        }
        stop_serving.cancel();
        // An open Watch of health would keep the transport open for ever.
        for name in HEALTH_NAMES {
            health.clear_service_status(name).await;
        }
        finish(&mut serving, &changes, drain_timeout, &mut stop).await;
        probes.abort();
        let _ = probes.await;
        // Nobody is answered any more, so that what is counted now is all.
        counting.stop(CLOSING).await;
        stop_feed.send_replace(true);
        let _ = feeding.await;
        if tokio::time::timeout(CLOSING, store.close()).await.is_err() {
            tracing::warn!("the store did not close in time; what was acknowledged is safe");
        }
        locked.abort();
        let _ = locked.await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for the calls in flight, and for the changes that go on though their authenticator have gone; but not for ever.
async fn finish(
    serving: &mut JoinHandle<()>,
    changes: &TaskTracker,
    patience: Duration,
    stop: &mut mpsc::Receiver<Stop>,
) {
    let finished = async {
        let _ = (&mut *serving).await;
        changes.close();
        changes.wait().await;
    };
    tokio::select! {
        () = finished => {}
        () = tokio::time::sleep(patience) => {
            tracing::warn!(?patience, "calls were still in flight when the time was up");
        }
        Some(_) = stop.recv() => tracing::warn!("told again: calls in flight are given up"),
    }
    serving.abort();
}

/// What goes on beside the calls for as long as there are any.
fn start_chores(
    mirror: Arc<Mirror>,
    health: &HealthReporter,
    readiness: &watch::Sender<Readiness>,
    store: &Store,
    clock: Clock,
    kept: RetentionArgs,
) -> JoinSet<()> {
    let mut background_tasks = JoinSet::new();
    background_tasks.spawn(watch_trust(
        Arc::clone(&mirror),
        health.clone(),
        readiness.clone(),
    ));
    background_tasks.spawn(mark_time(store.clone(), clock.clone()));
    background_tasks.spawn(retention::run(
        kept.retention(),
        store.clone(),
        mirror,
        clock,
        kept.retain_interval,
    ));
    background_tasks
}

/// Writes the time down now and then, so that a start does not begin long before the last stop.
async fn mark_time(store: Store, clock: Clock) {
    loop {
        tokio::time::sleep(TIME_MARK_EVERY).await;
        if let Err(error) = store.mark_time(clock.now()).await {
            tracing::warn!(%error, "the time could not be written down");
        }
    }
}

async fn tell_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// Takes the server out of service when its mirror and the store contradict each other.
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
        tell_health(&health, ServingStatus::NotServing).await;
        if distrust.changed().await.is_err() {
            return;
        }
    }
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ServeError> {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "this listener is in plain text and open to other machines: keep it inside a private network");
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
    // grpcurl and buf speak v1, Python's helper only v1alpha.
    let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    services
        .add_service(v1.max_decoding_message_size(MAX_OPEN_MESSAGE))
        .add_service(v1alpha.max_decoding_message_size(MAX_OPEN_MESSAGE));
    Ok(())
}

/// The messages in the details of errors, so that a client can show them. `google.rpc.Status` itself is in [`DESCRIPTORS`].
fn error_details() -> FileDescriptorSet {
    let mut files = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .expect("the descriptors that tonic-types comes with");
    files
        .file
        .retain(|file| file.name().ends_with("error_details.proto"));
    files
}
