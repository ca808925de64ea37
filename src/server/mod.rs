//! The server: builds all services from the opened store, runs them, and shuts them down.

mod contact;
mod exposition;
mod listeners;
mod parts;
mod service_manager;

use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use contact::Contact;
use exposition::Sources;
pub use listeners::{ListenError, Listeners};
use parts::{Parts, Shared, ThreadServices};
use service_manager::WatchedThread;

use crate::authority::Authority;
use crate::config::{RetentionArgs, ServeArgs};
use crate::domain::clock::Clock;
use crate::grpc::{
    Admin, AuthorityAdminService, CallMetrics, ExtAuthzService, Guard, KeyAdminService,
    KeyVerifyService, Pages, RealmAdminService, Services,
};
use crate::hashing::Roots;
use crate::history;
use crate::http::{GatewayMetrics, HttpServices, Scraper};
use crate::metrics::Refusals;
use crate::mirror::{Feed, Mirror};
use crate::open::{LockHandle, OpenedStore};
use crate::pb::claviger::v1::authority_admin_server::AuthorityAdminServer;
use crate::pb::claviger::v1::key_admin_server::KeyAdminServer;
use crate::pb::claviger::v1::realm_admin_server::RealmAdminServer;
use crate::pb::encoded::key_verify_server::KeyVerifyServer;
use crate::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use crate::readiness::Readiness;
use crate::replica::{self, Heartbeats};
use crate::retention;
use crate::store::Store;
use crate::telemetry::Tracer;
use crate::threads::RuntimeThread;
use crate::transport::{self, Acceptor, Listener, Threads};
use crate::usage::{self, UsageRecorder};

/// The time between two writes of the clock's mark to the store.
const TIME_MARK_EVERY: Duration = Duration::from_mins(1);

/// How long the last write of usage may take, and how long the store may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time between two checks whether the lease has lapsed.
const LEASE_CHECK_EVERY: Duration = Duration::from_millis(20);

/// The service names for which health is reported; the empty name stands for the whole server.
const HEALTH_NAMES: [&str; 6] = [
    "",
    AuthorizationServer::<ExtAuthzService>::NAME,
    KeyVerifyServer::<KeyVerifyService>::NAME,
    KeyAdminServer::<KeyAdminService>::NAME,
    RealmAdminServer::<RealmAdminService>::NAME,
    AuthorityAdminServer::<AuthorityAdminService>::NAME,
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
    /// The server cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Traces cannot be sent.
    #[error("{0}")]
    Traces(String),
    /// The threads that serve connections could not be started.
    #[error(
        "cannot start the threads that serve connections: {0}; start fewer with --verify-threads"
    )]
    Threads(io::Error),
    /// The keys could not be loaded.
    #[error("cannot load the keys: {0}")]
    Load(#[from] crate::store::Error),
    /// A task of the server ended unexpectedly.
    #[error("the {0} has failed: see the log for the reason")]
    Failed(&'static str),
    /// Another process has the database for itself now.
    #[error(
        "another claviger process took the database for itself while this one could not reach it, so this process stops: start it \
         again when that process (a migration, `bootstrap`, or a server of claviger 0.1) has ended"
    )]
    LockLost,
    /// The reflection service could not be built.
    #[error("cannot build the reflection service: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The threads of a server that have normal priority. Whoever starts them may lower the priority of everything else.
pub struct ServerThreads {
    /// Serve the connections.
    verify: Threads,
    /// Follows the store.
    feed: RuntimeThread,
    /// Sends heartbeats to a shared database.
    heartbeat: RuntimeThread,
}

impl ServerThreads {
    /// Starts the threads.
    pub fn start(args: &ServeArgs) -> Result<Self, ServeError> {
        let start = || {
            Ok(Self {
                verify: Threads::start(args.transport.verify_threads())?,
                feed: RuntimeThread::start("feed")?,
                heartbeat: RuntimeThread::start("heartbeat")?,
            })
        };
        start().map_err(ServeError::Threads)
    }

    /// The threads without which the server serves nobody, or what is not true any more.
    fn watched(&self) -> Vec<WatchedThread> {
        let threads = self.verify.all().chain([&self.feed, &self.heartbeat]);
        let watched = threads.map(|thread| WatchedThread {
            name: thread.name().to_owned(),
            runtime: thread.runtime().clone(),
        });
        watched.collect()
    }
}

/// A server that is not running yet.
pub struct Server {
    listeners: Listeners,
    threads: ServerThreads,
    services: Vec<ThreadServices>,
    acceptor: Acceptor,
    tracer: Option<Arc<Tracer>>,
    health: HealthReporter,
    readiness: watch::Sender<Readiness>,
    feed: Feed,
    heartbeats: Option<Heartbeats>,
    usage: usage::Writer,
    retention: RetentionArgs,
    store: Store,
    clock: Clock,
    roots: Roots,
    use_cases: TaskTracker,
    drain_delay: Duration,
    drain_timeout: Duration,
    lock: LockHandle,
}

impl Server {
    /// Builds the server. Health reports NOT_SERVING until [`Server::run`] has loaded the keys. The calls of the admin plane run
    /// on the current runtime.
    pub async fn new(
        args: &ServeArgs,
        opened: OpenedStore,
        listeners: Listeners,
        threads: ServerThreads,
    ) -> Result<Self, ServeError> {
        let OpenedStore {
            store,
            peppers,
            clock,
            head,
            roots,
            lock,
        } = opened;
        let store = store.with_disk_reserve(args.limits.disk_reserve);
        let feed = Feed::new(store.clone(), clock.clone(), args.poll_interval);
        let mirror = feed.mirror();
        let recorder = || Arc::new(UsageRecorder::new(!args.usage_interval.is_zero()));
        let admin_recorder = recorder();
        let parts = Parts {
            mirror: Arc::clone(&mirror),
            peppers: Arc::clone(&peppers),
            clock: clock.clone(),
            health: HealthReporter::new(),
        };
        set_health(&parts.health, ServingStatus::NotServing).await;
        let authority = Arc::new(Authority::new(
            store.clone(),
            Arc::clone(&mirror),
            clock.clone(),
            peppers,
            roots.clone(),
            args.limits.delegated_changes_per_hour,
        ));
        let refusals: Arc<Refusals> = Arc::default();
        let (use_cases, stop_serving) = (TaskTracker::new(), CancellationToken::new());
        let admin = Admin::new(
            Arc::clone(&authority),
            parts.authenticator(&admin_recorder),
            Pages::new(&head.seal),
            use_cases.clone(),
            Arc::clone(&refusals),
            stop_serving.clone(),
        );
        let admin_plane = parts.admin_plane(admin, &admin_recorder, !args.no_reflection)?;
        let readiness = watch::Sender::new(Readiness::Starting);
        let transport = transport::within_descriptors(args.transport, listeners.count());
        // Services and a recorder of its own for each thread, so that no call writes what another thread writes too.
        let recorders: Vec<_> = (0..threads.verify.count()).map(|_| recorder()).collect();
        let all_recorders = recorders.iter().cloned().chain([admin_recorder]).collect();
        let usage = usage::Writer::new(all_recorders, store.clone(), args.usage_interval);
        let tracer = Tracer::start(&args.traces).map_err(ServeError::Traces)?;
        let calls = CallMetrics::for_threads(recorders.len(), tracer.as_ref());
        let gateways = Arc::new(GatewayMetrics::new(tracer.clone()));
        let scraper = Scraper::start(exposition::exposition(Sources {
            readiness: readiness.subscribe(),
            mirror: Arc::clone(&mirror),
            clock: clock.clone(),
            store: store.metrics(),
            authority,
            roots: roots.clone(),
            usage: usage.backlog_size(),
            calls: calls.clone(),
            gateways: Arc::clone(&gateways),
            refusals: Arc::clone(&refusals),
            connections: threads.verify.connections(),
            tls: listeners.tls.clone(),
        }));
        let shared = Shared {
            args,
            limits: transport,
            has_admin_address: listeners.admin.is_some(),
            admin_plane,
            gateways,
            scraper,
            readiness: readiness.subscribe(),
            stop: stop_serving.clone(),
        };
        let services = parts.thread_services(&recorders, calls, &shared);
        let acceptor = Acceptor {
            args: transport,
            tls: listeners.tls.clone(),
            refusals,
            stop: stop_serving,
        };
        Ok(Self {
            listeners,
            threads,
            services,
            acceptor,
            tracer,
            health: parts.health,
            readiness,
            heartbeats: Heartbeats::new(&store, mirror, clock.clone(), args.replica_name()),
            feed,
            usage,
            retention: args.retention,
            store,
            clock,
            roots,
            use_cases,
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
        self.feed.mirror()
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
    /// If the keys cannot be loaded, a task of the server fails, or another process takes the database for itself.
    pub async fn run(self, mut stop: mpsc::Receiver<Stop>) -> Result<(), ServeError> {
        let _telling = service_manager::start(self.readiness(), self.threads.watched());
        let Self {
            listeners:
                Listeners {
                    grpc,
                    http,
                    admin,
                    unix,
                    unix_file,
                    tls: _,
                },
            threads:
                ServerThreads {
                    verify,
                    feed: feed_thread,
                    heartbeat: heartbeat_thread,
                },
            services,
            acceptor,
            tracer,
            mut health,
            readiness,
            feed,
            heartbeats,
            usage,
            retention,
            store,
            clock,
            roots: _,
            use_cases,
            drain_delay,
            drain_timeout,
            lock,
        } = self;
        // Stops both transports on every return from this function.
        let stop_serving = acceptor.stop.clone();
        let _stop_on_return = stop_serving.clone().drop_guard();
        let (grpc_services, http_services): (Vec<_>, Vec<_>) = services
            .into_iter()
            .map(|services| (services.grpc, services.http))
            .unzip();
        let mut serving = try_join_all(
            grpc_listeners(grpc, admin, unix, grpc_services)
                .map(|(listener, services)| accept_grpc(&acceptor, listener, &verify, services)),
        );
        let probes = accept_http(&acceptor, http, &verify, http_services);

        let mut locked = AbortOnDropHandle::new(tokio::spawn(lock.keep()));
        let began = std::time::Instant::now();
        let mirror = feed.mirror();
        let mut contact = Contact::start(feed_thread, feed, heartbeat_thread, heartbeats);
        tokio::select! {
            established = contact.established() => established?,
            _ = &mut locked => return Err(ServeError::LockLost),
            _ = stop.recv() => {
                tracing::info!("stopped during the start");
                return Ok(());
            }
        }
        let (keys, revision) = (mirror.index().len(), mirror.index().revision());
        tracing::info!(keys, %revision, took = ?began.elapsed(), "keys loaded");
        let recording = start_recording(&store, &mirror, &clock);
        let mut background_tasks =
            start_background_tasks(mirror, &health, &readiness, &store, clock, retention);
        let usage_writer = usage.start();

        let mode = tokio::select! {
            mode = stop.recv() => mode.unwrap_or(Stop::Now),
            // These tasks end only if they fail, and the server cannot run without them.
            _ = &mut serving => return Err(ServeError::Failed("transport")),
            error = contact.failed() => return Err(error),
            _ = &mut locked => return Err(ServeError::LockLost),
        };
        tracing::info!(?mode, "stopping");
        background_tasks.abort_all();
        withdraw(&readiness, &health).await;
        if mode == Stop::Drain {
            wait(drain_delay, &mut stop).await;
        }
        stop_serving.cancel();
        // With the listener, so that a server that takes its place has its file.
        drop(unix_file);
        // Ends open watches of health, which would keep the transport open permanently.
        for name in HEALTH_NAMES {
            health.clear_service_status(name).await;
        }
        finish(&mut serving, &use_cases, drain_timeout, &mut stop).await;
        drop((serving, probes));
        verify.stop().await;
        // No call is answered any more, so the counts are complete.
        usage_writer.stop(CLOSE_TIMEOUT).await;
        contact.leave().await;
        contact.stop_feed().await;
        drop(recording);
        close(&store).await;
        contact.end().await;
        send_last_spans(tracer).await;
        locked.abort();
        let _ = locked.await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// The listeners of gRPC, each with the services of each thread.
fn grpc_listeners(
    grpc: Listener,
    admin: Option<Listener>,
    unix: Option<Listener>,
    services: Vec<Guard<Services>>,
) -> impl Iterator<Item = (Listener, Vec<Guard<Services>>)> {
    let for_gateways = |services: &Guard<Services>| match &admin {
        Some(_) => services.clone().for_gateways_only(),
        None => services.clone(),
    };
    let first = services.iter().map(for_gateways).collect();
    let others = [admin, unix].into_iter().flatten();
    let others = others.map(move |listener| (listener, services.clone()));
    iter::once((grpc, first)).chain(others)
}

/// Accepts the connections of a listener of gRPC.
fn accept_grpc(
    acceptor: &Acceptor,
    listener: Listener,
    threads: &Threads,
    services: Vec<Guard<Services>>,
) -> AbortOnDropHandle<io::Result<()>> {
    let acceptor = acceptor.clone();
    acceptor.accept(listener, threads, move |thread, accepted| {
        let services = services[thread].clone();
        accepted.http2(move |peer| services.for_peer(peer))
    })
}

/// Accepts the connections of the listener of HTTP/1.1.
fn accept_http(
    acceptor: &Acceptor,
    listener: Listener,
    threads: &Threads,
    services: Vec<HttpServices>,
) -> AbortOnDropHandle<io::Result<()>> {
    let acceptor = acceptor.clone();
    acceptor.accept(listener, threads, move |thread, accepted| {
        let services = services[thread].clone();
        accepted.http1(move |peer| services.for_peer(peer))
    })
}

/// Reports that the server should get no more requests.
async fn withdraw(readiness: &watch::Sender<Readiness>, health: &HealthReporter) {
    readiness.send_replace(Readiness::Draining);
    set_health(health, ServingStatus::NotServing).await;
}

/// Waits for this time. A further stop request ends the wait.
async fn wait(delay: Duration, stop: &mut mpsc::Receiver<Stop>) {
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        Some(_) = stop.recv() => {}
    }
}

async fn send_last_spans(tracer: Option<Arc<Tracer>>) {
    if let Some(tracer) = tracer {
        // Its only error is a panic, which is logged.
        let _ = tokio::task::spawn_blocking(move || tracer.shut_down()).await;
    }
}

async fn close(store: &Store) {
    if tokio::time::timeout(CLOSE_TIMEOUT, store.close())
        .await
        .is_err()
    {
        tracing::warn!("store not closed in time; acknowledged changes are safe");
    }
}

/// Waits for the calls in flight, and for use cases that continue although their callers have disconnected, for at most
/// `timeout`.
/// A further stop request ends the wait.
async fn finish(
    serving: &mut (impl Future + Unpin),
    use_cases: &TaskTracker,
    timeout: Duration,
    stop: &mut mpsc::Receiver<Stop>,
) {
    let finished = async {
        let _ = (&mut *serving).await;
        use_cases.close();
        use_cases.wait().await;
    };
    tokio::select! {
        () = finished => {}
        () = tokio::time::sleep(timeout) => {
            tracing::warn!(?timeout, "drain timeout reached; calls in flight are dropped");
        }
        Some(_) = stop.recv() => tracing::warn!("second stop request; calls in flight are dropped"),
    }
}

/// Starts the task that stores what is found out about lost history. It runs until the feed has stopped, which may find more.
fn start_recording(store: &Store, mirror: &Arc<Mirror>, clock: &Clock) -> AbortOnDropHandle<()> {
    let recording = history::record(store.clone(), Arc::clone(mirror), clock.clone());
    AbortOnDropHandle::new(tokio::spawn(recording))
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
    background_tasks.spawn(watch_standing(
        Arc::clone(&mirror),
        health.clone(),
        readiness.clone(),
    ));
    if store.is_shared() {
        background_tasks.spawn(replica::look_after(store.uncounted(), clock.clone()));
    }
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
        if let Err(error) = store.mark_time(clock.read()).await {
            tracing::warn!(%error, "time not written");
        }
    }
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// Reports whether the server should get requests: not while the lease has lapsed.
async fn watch_standing(
    mirror: Arc<Mirror>,
    health: HealthReporter,
    readiness: watch::Sender<Readiness>,
) {
    loop {
        let standing = if mirror.lease().left().is_zero() {
            Readiness::LeaseLapsed
        } else {
            Readiness::Ready
        };
        if *readiness.borrow() != standing {
            let is_ready = standing == Readiness::Ready;
            if standing == Readiness::LeaseLapsed {
                tracing::error!(
                    "lease lapsed: only what is malformed or revoked is answered until the database answers again"
                );
            }
            readiness.send_replace(standing);
            let status = if is_ready {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            set_health(&health, status).await;
        }
        if !mirror.lease().has_end() {
            return;
        }
        tokio::time::sleep(LEASE_CHECK_EVERY).await;
    }
}
