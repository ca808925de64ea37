//! Where `serve` listens.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::parse::address;

/// The addresses and the path on which to serve.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// The address on which to serve gRPC
    #[arg(
        long,
        env = "CLAVIGER_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7700",
        value_parser = address
    )]
    pub listen: SocketAddr,

    /// The address on which to serve /livez, /readyz, /metrics, /auth, and the services as JSON, over HTTP/1.1
    #[arg(
        long,
        env = "CLAVIGER_HTTP_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7701",
        value_parser = address
    )]
    pub http_listen: SocketAddr,

    /// A further address on which to serve gRPC. With it, --listen and --http-listen serve only what gateways call: no `KeyAdmin`,
    /// no `RealmAdmin`, no `Explain` and no reflection
    #[arg(
        long,
        env = "CLAVIGER_ADMIN_LISTEN",
        value_name = "ADDR",
        value_parser = address
    )]
    pub admin_listen: Option<SocketAddr>,

    /// A path on which to serve all of gRPC as plain text, for processes of this machine that may open the file: those of its owner
    /// and of its group
    #[arg(long, env = "CLAVIGER_UNIX_SOCKET", value_name = "PATH")]
    pub unix_socket: Option<PathBuf>,
}

impl ListenArgs {
    /// The addresses to listen on, each with the name of its flag.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let admin = self.admin_listen.map(|address| (address, "admin-listen"));
        let others = [(self.listen, "listen"), (self.http_listen, "http-listen")];
        others.into_iter().chain(admin)
    }
}

/// Whether other machines may reach an address.
pub fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}
