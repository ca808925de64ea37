//! claviger

pub mod authority;
pub mod cli;
pub mod config;
pub mod data_dir;
pub mod domain;
pub mod grpc;
pub mod hashing;
pub mod http;
pub mod launch;
pub mod mirror;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod verify;

/// What goes over the wire, as generated from `proto/`. It stops at [`grpc`] and [`cli`].
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/_includes.rs"));

    /// The descriptors of every message and service, with their comments, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
