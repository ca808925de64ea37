//! Gateways: what they need to ask this authority.
//!
//! `config` reads a realm and prints the configuration of a gateway for it. `api` is what a gateway is told, and `envoy`, `nginx`
//! and `caddy` write it as their programs read it, each with a template of its own. `upstream_tls` is how a gateway reaches a claviger
//! that serves TLS.

mod address;
mod api;
mod caddy;
mod config;
mod config_file;
mod envoy;
mod nginx;
mod template;
mod upstream_tls;

use clap::Subcommand;

use super::connect::Connection;
use super::failure::Failure;
use super::output::Output;
use config::Config;

/// The commands for gateways.
#[derive(Debug, Subcommand)]
pub enum Command {
    Config(Box<Config>),
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Config(config) => config.run(connection, output).await,
        }
    }
}
