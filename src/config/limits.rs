//! The limits on changes, connections and calls.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::parse::{interval, size};

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

    /// The maximum number of connections of each listener. Further connections are closed at once. Each
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
    #[arg(long, env = "CLAVIGER_CONNECTION_AGE", value_name = "TIME", default_value = "5min", value_parser = interval)]
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
