//! What the server is started with. The comments of the fields are the help text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

use crate::hashing::RootCost;
use crate::retention::{Retention, Span};
use crate::store::DatabaseUrl;

/// Where the database is.
#[derive(Args, Clone, Debug)]
pub struct LocationArgs {
    /// The directory that holds the database, and the pepper if it is not elsewhere. On a local file system
    #[arg(
        long,
        env = "CLAVIGER_DATA_DIR",
        value_name = "DIR",
        default_value = "./claviger-data"
    )]
    pub data_dir: PathBuf,

    /// A PostgreSQL database instead, 14 or later, such as `postgres://USER@HOST/DATABASE`. Its password is better left to
    /// PGPASSWORD or ~/.pgpass. Off this machine the connection is encrypted and the server's certificate verified
    #[arg(
        long,
        env = "CLAVIGER_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: Option<DatabaseUrl>,

    /// How long the PostgreSQL database may take over any one answer before it counts as not answering
    #[arg(long, env = "CLAVIGER_DATABASE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub database_timeout: Duration,
}

/// Where the authority is kept.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub location: LocationArgs,

    /// The file with the pepper, under which secrets are digested [default: pepper.toml in the data directory; with
    /// --database-url there is none]
    #[arg(long, env = "CLAVIGER_PEPPER_FILE", value_name = "FILE")]
    pub pepper_file: Option<PathBuf>,

    /// How much memory the Argon2 root of a new key takes, in KiB
    #[arg(long, env = "CLAVIGER_ARGON2_MEMORY", value_name = "KIB", default_value_t = RootCost::default().memory_kib)]
    pub argon2_memory: u32,

    /// How many passes over that memory it takes
    #[arg(long, env = "CLAVIGER_ARGON2_PASSES", value_name = "N", default_value_t = RootCost::default().passes)]
    pub argon2_passes: u32,

    /// Believe the machine's clock although it is behind the latest time that this authority has seen. Expired keys may
    /// come back to life: only if that latest time was wrong
    #[arg(long, env = "CLAVIGER_TRUST_CLOCK", value_parser = FalseyValueParser::new())]
    pub trust_clock: bool,
}

impl StoreArgs {
    /// The cost of a root.
    pub fn root_cost(&self) -> RootCost {
        RootCost {
            memory_kib: self.argon2_memory,
            passes: self.argon2_passes,
        }
    }

    /// Where the pepper is; nowhere if the database is a shared one and nobody said.
    pub fn pepper_path(&self) -> Option<PathBuf> {
        self.pepper_file.clone().or_else(|| {
            let LocationArgs {
                data_dir,
                database_url,
                database_timeout: _,
            } = &self.location;
            database_url.is_none().then(|| data_dir.join("pepper.toml"))
        })
    }
}

/// How the authority is served.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub store: StoreArgs,

    /// Make a new authority if there is none yet
    #[arg(long, env = "CLAVIGER_INIT", value_parser = FalseyValueParser::new())]
    pub init: bool,

    /// Where to serve gRPC
    #[arg(
        long,
        env = "CLAVIGER_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7700",
        value_parser = address
    )]
    pub listen: SocketAddr,

    /// Where to serve /livez, /readyz and /forward-auth over HTTP/1.1
    #[arg(
        long,
        env = "CLAVIGER_HTTP_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7701",
        value_parser = address
    )]
    pub http_listen: SocketAddr,

    /// How often to look for changes in the store when nobody made one here
    #[arg(long, env = "CLAVIGER_POLL_INTERVAL", value_name = "TIME", default_value = "50ms", value_parser = interval)]
    pub poll_interval: Duration,

    /// How often to write down how keys were used; a crash loses what was not written yet. At most an hour. `0s` counts
    /// nothing: no key has a usage then, and all look unused
    #[arg(long, env = "CLAVIGER_USAGE_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = usage_interval)]
    pub usage_interval: Duration,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub retention: RetentionArgs,

    /// How long to go on serving after SIGTERM, while health already says NOT_SERVING, so that load balancers notice.
    /// SIGINT (Ctrl-C) does not wait
    #[arg(long, env = "CLAVIGER_DRAIN_DELAY", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// How long calls that are then in flight get to finish
    #[arg(long, env = "CLAVIGER_DRAIN_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub gateway: GatewayArgs,

    /// Do not describe the services to whoever asks (gRPC reflection)
    #[arg(long, env = "CLAVIGER_NO_REFLECTION", value_parser = FalseyValueParser::new())]
    pub no_reflection: bool,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub transport: TransportArgs,
}

/// For how long what has happened is kept.
#[derive(Args, Clone, Copy, Debug)]
pub struct RetentionArgs {
    /// How long to keep the audit trail: a time such as `90d`, at least a day, or `forever`. Its newest event always stays
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_EVENTS",
        value_name = "TIME",
        default_value = "forever"
    )]
    retain_events: Span,

    /// How long to keep how often keys were used, hour by hour
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_USAGE",
        value_name = "TIME",
        default_value = "400d"
    )]
    retain_usage: Span,

    /// How long to know of a deleted key whose it was, so that its usage can be asked for
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_TOMBSTONES",
        value_name = "TIME",
        default_value = "400d"
    )]
    retain_tombstones: Span,

    /// How often to look for what is too old
    #[arg(long, hide = true, value_name = "TIME", default_value = "10m", value_parser = interval)]
    pub retain_interval: Duration,
}

impl RetentionArgs {
    /// What is kept for how long.
    pub fn retention(self) -> Retention {
        Retention {
            events: self.retain_events,
            usage: self.retain_usage,
            tombstones: self.retain_tombstones,
        }
    }
}

/// How much clients may hold, and for how long.
#[derive(Args, Clone, Copy, Debug)]
pub struct TransportArgs {
    /// How many connections to take at once, on each of the two addresses. More are closed as they come. Each takes a file
    /// descriptor; where the system gives fewer, fewer are taken
    #[arg(
        long,
        env = "CLAVIGER_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = 4096
    )]
    pub max_connections: usize,

    /// How many of them from one address, an IPv6 network of 64 bits being one. Raise it where many clients come through
    /// one proxy
    #[arg(
        long,
        env = "CLAVIGER_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value_t = 256
    )]
    pub max_connections_per_address: usize,

    /// How many calls to work on at once, half of them at the most from one address. More are told to come back
    /// (RESOURCE_EXHAUSTED); health is always answered
    #[arg(
        long,
        env = "CLAVIGER_MAX_CALLS",
        value_name = "N",
        default_value_t = 8192
    )]
    pub max_calls: usize,

    /// How long a call may take, its request included, if it does not ask for less (grpc-timeout)
    #[arg(long, env = "CLAVIGER_CALL_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = interval)]
    pub call_timeout: Duration,

    /// For how long to keep a connection, a tenth more or less, so that clients spread anew. Calls in flight are finished
    #[arg(long, env = "CLAVIGER_CONNECTION_AGE", value_name = "TIME", default_value = "5m", value_parser = interval)]
    pub connection_age: Duration,
}

/// Which gateway asks at /forward-auth.
#[derive(Args, Clone, Copy, Debug)]
pub struct GatewayArgs {
    /// Which kind of gateway asks at /forward-auth on --http-listen. Without it nobody may
    #[arg(long, env = "CLAVIGER_GATEWAY", value_enum)]
    gateway: Option<GatewayKind>,

    /// How many proxies there are before that gateway whose x-forwarded-for is to be believed
    #[arg(
        long,
        env = "CLAVIGER_TRUSTED_HOPS",
        value_name = "N",
        default_value_t = 0
    )]
    pub trusted_hops: usize,
}

/// A kind of gateway: they differ in how they tell the original request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GatewayKind {
    /// `auth_request`: x-original-method and x-original-uri, as its configuration sets them; it passes on 401 and 403 only
    Nginx,
    /// `forward_auth`: x-forwarded-method and x-forwarded-uri
    Caddy,
    /// `forwardAuth`: x-forwarded-method and x-forwarded-uri
    Traefik,
    /// `ext_authz` with `http_service`: the method as it is, the path after the prefix
    Envoy,
}

impl GatewayArgs {
    /// The kind, if one is served.
    pub fn kind(self) -> Option<GatewayKind> {
        self.gateway
    }
}

/// An address to listen on.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be IP:PORT, such as 127.0.0.1:7700 or [::1]:7700".to_owned())
}

/// A span that is not zero: to look without a pause would keep a core busy, and in no time nothing can be done.
fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must not be zero".to_owned()),
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}

/// How often to write usage down; zero is never. No counter of the recorder overflows within an hour.
fn usage_interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval > Duration::from_hours(1) => {
            Err("must be an hour at the most".to_owned())
        }
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}
