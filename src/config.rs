//! The flags of the commands that open the store. The doc comments of the fields are the help texts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{FalseyValueParser, RangedU64ValueParser};
use clap::{Args, ValueEnum};

use crate::hashing::RootCost;
use crate::retention::{Retention, Span};
use crate::store::DatabaseUrl;
use crate::telemetry::TraceArgs;

/// The location of the database.
#[derive(Args, Clone, Debug)]
pub struct LocationArgs {
    /// The directory of the database, and of the pepper file unless --pepper-file names another. Must be on a local file system
    #[arg(
        long,
        env = "CLAVIGER_DATA_DIR",
        value_name = "DIR",
        default_value = "./claviger-data"
    )]
    pub data_dir: PathBuf,

    /// A PostgreSQL database (14 or later) to use instead, such as `postgres://USER@HOST/DATABASE`. Set its password in
    /// PGPASSWORD or ~/.pgpass rather than here. A connection to another machine is encrypted, and the server's certificate is
    /// verified
    #[arg(
        long,
        env = "CLAVIGER_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: Option<DatabaseUrl>,

    /// How long to wait for each answer of the PostgreSQL database before it counts as unreachable
    #[arg(long, env = "CLAVIGER_DATABASE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub database_timeout: Duration,
}

/// The location of the authority's data, and how to open it.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub location: LocationArgs,

    /// The pepper file, with the key of the secrets' digests [default: pepper.toml in the data directory; required with
    /// --database-url]
    #[arg(long, env = "CLAVIGER_PEPPER_FILE", value_name = "FILE")]
    pub pepper_file: Option<PathBuf>,

    /// The memory cost of the Argon2 root of a new key, in KiB
    #[arg(long, env = "CLAVIGER_ARGON2_MEMORY", value_name = "KIB", default_value_t = RootCost::default().memory_kib)]
    pub argon2_memory: u32,

    /// The time cost of the Argon2 root of a new key, in passes over that memory
    #[arg(long, env = "CLAVIGER_ARGON2_PASSES", value_name = "N", default_value_t = RootCost::default().passes)]
    pub argon2_passes: u32,

    /// Trust the machine's clock even if it is behind the latest time that this authority has recorded. Expired keys may work
    /// again, so use it only if the recorded time was wrong
    #[arg(long, env = "CLAVIGER_TRUST_CLOCK", value_parser = FalseyValueParser::new())]
    pub trust_clock: bool,
}

impl StoreArgs {
    /// The cost of the Argon2 root of a new key.
    pub fn root_cost(&self) -> RootCost {
        RootCost {
            memory_kib: self.argon2_memory,
            passes: self.argon2_passes,
        }
    }

    /// The path of the pepper file; `None` if the database is PostgreSQL and no path is given.
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

/// The flags of `claviger serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub store: StoreArgs,

    /// Create a new authority if there is none yet
    #[arg(long, env = "CLAVIGER_INIT", value_parser = FalseyValueParser::new())]
    pub init: bool,

    /// The address on which to serve gRPC
    #[arg(
        long,
        env = "CLAVIGER_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7700",
        value_parser = address
    )]
    pub listen: SocketAddr,

    /// The address on which to serve /livez, /readyz, /metrics and /auth over HTTP/1.1
    #[arg(
        long,
        env = "CLAVIGER_HTTP_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7701",
        value_parser = address
    )]
    pub http_listen: SocketAddr,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub tls: TlsArgs,

    /// How often to check the store for changes that this server did not make
    #[arg(long, env = "CLAVIGER_POLL_INTERVAL", value_name = "TIME", default_value = "50ms", value_parser = interval)]
    pub poll_interval: Duration,

    /// How often to write the usage of keys to the store, at most `1h`; a crash loses the counts since the last write. `0s`
    /// disables counting, so that all keys appear unused
    #[arg(long, env = "CLAVIGER_USAGE_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = usage_interval)]
    pub usage_interval: Duration,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub retention: RetentionArgs,

    /// How long to continue to serve after SIGTERM while health reports NOT_SERVING, so that load balancers notice. SIGINT
    /// (Ctrl-C) skips the delay
    #[arg(long, env = "CLAVIGER_DRAIN_DELAY", value_name = "TIME", default_value = "5s", value_parser = span)]
    pub drain_delay: Duration,

    /// How long calls in flight may then take to finish
    #[arg(long, env = "CLAVIGER_DRAIN_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = span)]
    pub drain_timeout: Duration,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub gateway: GatewayArgs,

    /// Disable gRPC reflection, which describes the services to any client
    #[arg(long, env = "CLAVIGER_NO_REFLECTION", value_parser = FalseyValueParser::new())]
    pub no_reflection: bool,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub traces: TraceArgs,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub limits: LimitArgs,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub transport: TransportArgs,
}

/// TLS on both listening addresses.
#[derive(Args, Clone, Debug)]
pub struct TlsArgs {
    /// The PEM file with the server's certificate, followed by those of its issuers. With it, both listening addresses serve
    /// TLS 1.2 and 1.3 only. The file is read again when it changes
    #[arg(
        long,
        env = "CLAVIGER_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The PEM file with the private key of the server's certificate
    #[arg(
        long,
        env = "CLAVIGER_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,

    /// The PEM file with the certificates that issue the certificates of clients. A client may then prove itself by a
    /// certificate too, and one that does not verify is refused
    #[arg(
        long,
        env = "CLAVIGER_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub client_ca: Option<PathBuf>,

    /// A service that only clients with a certificate from --client-ca may call. Repeat the flag for several. Health, reflection,
    /// /livez and /readyz never need one
    #[arg(
        long,
        env = "CLAVIGER_REQUIRE_CLIENT_CERT",
        value_name = "SERVICE",
        value_enum,
        value_delimiter = ',',
        requires = "client_ca"
    )]
    pub require_client_cert: Vec<CertifiedService>,

    /// Serve plain text on an address that other machines can reach. The API keys of callers can then be read on the network
    #[arg(long, env = "CLAVIGER_INSECURE_LISTEN", value_parser = FalseyValueParser::new())]
    pub insecure_listen: bool,
}

/// What can be for clients with a certificate only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertifiedService {
    /// `KeyVerify`, and Envoy's `Authorization`
    Verify,
    /// `KeyAdmin` and `RealmAdmin`
    Admin,
    /// /auth and /forward-auth over HTTP
    Gateway,
}

impl TlsArgs {
    /// Whether only clients with a certificate may call this service.
    pub fn requires_client_certificate(&self, service: CertifiedService) -> bool {
        self.require_client_cert.contains(&service)
    }
}

/// The limits on changes.
#[derive(Args, Clone, Copy, Debug)]
pub struct LimitArgs {
    /// How many changes an hour the keys of one partner may make, a tenth of them at once. Revocations and other changes that
    /// only take access away do not count
    #[arg(
        long,
        env = "CLAVIGER_DELEGATED_CHANGES_PER_HOUR",
        value_name = "N",
        default_value_t = 600,
        value_parser = RangedU64ValueParser::<u32>::new().range(1..)
    )]
    pub delegated_changes_per_hour: u32,

    /// The space to reserve on the disk of the data directory for changes that only take access away, such as `64MiB`. When less
    /// is left, all other changes are refused and usage is kept in memory. Not for PostgreSQL
    #[arg(
        long,
        env = "CLAVIGER_DISK_RESERVE",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = size
    )]
    pub disk_reserve: u64,
}

/// How long events, usage and tombstones are kept.
#[derive(Args, Clone, Copy, Debug)]
pub struct RetentionArgs {
    /// How long to keep the audit trail: a time such as `90d`, at least one day, or `forever`. The newest event always stays
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_EVENTS",
        value_name = "TIME",
        default_value = "forever"
    )]
    retain_events: Span,

    /// How long to keep the hourly usage of keys
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_USAGE",
        value_name = "TIME",
        default_value = "400d"
    )]
    retain_usage: Span,

    /// How long to keep the owner of a deleted key, so that its usage can be read
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_TOMBSTONES",
        value_name = "TIME",
        default_value = "400d"
    )]
    retain_tombstones: Span,

    /// How often to delete what is too old
    #[arg(long, hide = true, value_name = "TIME", default_value = "10m", value_parser = interval)]
    pub retain_interval: Duration,
}

impl RetentionArgs {
    /// The retention times.
    pub fn retention(self) -> Retention {
        Retention {
            events: self.retain_events,
            usage: self.retain_usage,
            tombstones: self.retain_tombstones,
        }
    }
}

/// The threads that serve connections, and the limits on connections and calls.
#[derive(Args, Clone, Copy, Debug)]
pub struct TransportArgs {
    /// The number of threads that serve connections [default: the number of processors]. Each connection is served by one of
    /// them, so open at least as many connections
    #[arg(
        long,
        env = "CLAVIGER_VERIFY_THREADS",
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024)
    )]
    pub verify_threads: Option<usize>,

    /// The maximum number of connections on each of the two listening addresses. Further connections are closed at once. Each
    /// connection takes a file descriptor; if the system allows fewer descriptors, the limit is lower
    #[arg(
        long,
        env = "CLAVIGER_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = 4096,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub max_connections: usize,

    /// The maximum number of connections from one client address; an IPv6 network of 64 bits counts as one address. Raise it if
    /// many clients connect through one proxy
    #[arg(
        long,
        env = "CLAVIGER_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value_t = 256,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub max_connections_per_address: usize,

    /// The maximum number of concurrent calls, at most half of them from one address. Further calls get RESOURCE_EXHAUSTED; a
    /// health check is always answered
    #[arg(
        long,
        env = "CLAVIGER_MAX_CALLS",
        value_name = "N",
        default_value_t = 8192,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub max_calls: usize,

    /// The deadline of a call, including the transfer of its request, unless the client sets a shorter one (grpc-timeout)
    #[arg(long, env = "CLAVIGER_CALL_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = interval)]
    pub call_timeout: Duration,

    /// The maximum age of a connection, varied by up to a tenth, so that clients reconnect and spread anew. Calls in flight
    /// finish first
    #[arg(long, env = "CLAVIGER_CONNECTION_AGE", value_name = "TIME", default_value = "5m", value_parser = interval)]
    pub connection_age: Duration,
}

impl TransportArgs {
    /// The number of threads that serve connections.
    pub fn verify_threads(&self) -> usize {
        self.verify_threads
            .or_else(|| std::thread::available_parallelism().ok().map(Into::into))
            .unwrap_or(1)
    }
}

/// The gateways that ask over HTTP.
#[derive(Args, Clone, Debug)]
pub struct GatewayArgs {
    /// A kind of gateway that asks at /auth/KIND/REALM/ENVIRONMENT on --http-listen. Repeat the flag for several kinds. Without it no
    /// gateway may ask over HTTP
    #[arg(
        long = "gateway",
        env = "CLAVIGER_GATEWAY",
        value_name = "KIND",
        value_enum,
        value_delimiter = ','
    )]
    kinds: Vec<GatewayKind>,

    /// The number of trusted proxies in front of these gateways that add to x-forwarded-for
    #[arg(
        long,
        env = "CLAVIGER_TRUSTED_HOPS",
        value_name = "N",
        default_value_t = 0
    )]
    pub trusted_hops: usize,
}

/// A kind of gateway. The kinds differ in how they send the method and the path of the client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GatewayKind {
    /// `auth_request`: x-original-method and x-original-uri, which its configuration must set; only 401 and 403 reach the client
    Nginx,
    /// `forward_auth`: x-forwarded-method and x-forwarded-uri
    Caddy,
    /// `forwardAuth`: x-forwarded-method and x-forwarded-uri
    Traefik,
    /// `ext_authz` with `http_service`: the method of the client's request, and its path after the prefix
    Envoy,
}

impl GatewayArgs {
    /// Serves these kinds, without trusted proxies.
    #[cfg(test)]
    pub(crate) fn new(kinds: &[GatewayKind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            trusted_hops: 0,
        }
    }

    /// The kinds of gateways that may ask over HTTP.
    pub fn kinds(&self) -> &[GatewayKind] {
        &self.kinds
    }
}

impl fmt::Display for GatewayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
        })
    }
}

/// Parses an address to listen on.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be IP:PORT, such as 127.0.0.1:7700 or [::1]:7700".to_owned())
}

/// Parses a time span.
fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "must be a time span such as `500ms`, `30s` or `1h`".to_owned())
}

/// Parses a number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "must be a size such as `64MiB`, `1GiB` or `0`".to_owned())
}

/// Parses a time that is not zero. An interval of zero would keep a core busy, and a timeout of zero would fail every time.
fn interval(text: &str) -> Result<Duration, String> {
    match span(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        interval => Ok(interval),
    }
}

/// Parses the interval of usage writes; zero disables counting. No counter of the recorder overflows within an hour.
fn usage_interval(text: &str) -> Result<Duration, String> {
    match span(text)? {
        interval if interval > Duration::from_hours(1) => {
            Err("must be at most one hour".to_owned())
        }
        interval => Ok(interval),
    }
}
