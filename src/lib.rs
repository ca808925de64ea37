//! claviger is an authority for API keys: it issues keys, and decides for each request whether its key may do it.
//!
//! The program in `main.rs` is thin; this library contains everything else. Three examples show how the modules work together:
//!
//! **A Verify call.** [`auth`] authenticates the caller from the [`mirror`], [`grpc`] decodes the request into a
//! [`verify::Question`], and [`verify::decide`] compares the question with the facts in the mirror. No step waits, takes a lock,
//! or reads the store.
//!
//! **A request of a gateway.** The gateway sends the whole request, over [`grpc`] or [`http`]. [`gateway`] parses its path and
//! its credentials by the realm's rules, and asks [`verify::decide`] the same kind of question.
//!
//! **An Issue call.** [`grpc`] decodes the request into an [`authority::NewKey`] and runs the operation to its end, even if the
//! client disconnects. [`authority`] lets [`hashing`] compute the root of the secret, opens a change of the [`store`] that takes
//! the next revision, re-reads the caller, creates the key, and commits it together with its event. Once the feed of the
//! [`mirror`] has read the change, the call is answered.
//!
//! Dependencies point in one direction: wire types stay within [`grpc`] and [`cli`], sqlx within [`store`], argon2 within
//! [`hashing`], and [`domain`] depends on no other module.

pub mod auth;
pub mod authority;
pub mod cli;
pub mod commands;
pub mod config;
pub mod domain;
pub mod gateway;
pub mod grpc;
pub mod hashing;
pub mod help;
pub mod history;
pub mod http;
pub mod metrics;
pub mod mirror;
pub mod open;
pub mod protobuf;
pub mod readiness;
pub mod replica;
pub mod retention;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod threads;
pub mod transport;
pub mod usage;
pub mod verify;

/// The messages and services, generated from `proto/`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/_includes.rs"));

    /// The descriptors of all messages and services, with their comments, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

    /// The servers of the Verify plane, which read and write encoded messages.
    pub mod encoded {
        include!(concat!(env!("OUT_DIR"), "/encoded/claviger.v1.rs"));
        include!(concat!(
            env!("OUT_DIR"),
            "/encoded/envoy.service.auth.v3.rs"
        ));
    }
}
