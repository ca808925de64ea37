//! The flags of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::gateway::GatewayArgs;
use super::limits::{LimitArgs, TransportArgs};
use super::listen::{ListenArgs, is_exposed};
use super::parse::{interval, replica_name, span, usage_interval};
use super::retention::RetentionArgs;
use super::store::StoreArgs;
use super::tls::TlsArgs;
use crate::telemetry::TraceArgs;

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
    #[arg(long, env = "CLAVIGER_INIT", value_parser = BoolishValueParser::new())]
    pub init: bool,

    /// With --init, create the new authority as this file declares it, with the operator key in it; can be repeated. An authority
    /// that exists stays as it is: see `claviger apply`
    #[arg(
        long,
        value_name = "FILE",
        env = "CLAVIGER_APPLY",
        value_delimiter = ','
    )]
    pub apply: Vec<PathBuf>,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub listen: ListenArgs,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub tls: TlsArgs,

    /// The name of this server among those that share a PostgreSQL database, as `claviger replicas` shows it [default: the name of
    /// the machine]
    #[arg(long, env = "CLAVIGER_REPLICA_NAME", value_name = "NAME", value_parser = replica_name)]
    pub replica_name: Option<String>,

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
    #[arg(long, env = "CLAVIGER_NO_REFLECTION", value_parser = BoolishValueParser::new())]
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

impl ServeArgs {
    /// The name of this server among those that share a database.
    pub fn replica_name(&self) -> String {
        let host = || {
            let uname = rustix::system::uname();
            uname.nodename().to_string_lossy().into_owned()
        };
        self.replica_name.clone().unwrap_or_else(host)
    }

    /// The addresses that must not be listened on: other machines can reach them, and they would serve plain text without
    /// --insecure-listen.
    pub fn exposed_addresses(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let addresses = self.listen.addresses();
        addresses.filter(|(address, _)| !self.may_be_exposed(*address))
    }

    /// Whether this address may be listened on.
    pub fn may_be_exposed(&self, address: SocketAddr) -> bool {
        self.tls.tls_cert.is_some() || self.tls.insecure_listen || !is_exposed(address)
    }
}
