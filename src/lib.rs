//! claviger, a key authority: it issues API keys, and answers on every request whether a key is good for it.
//!
//! The program in `main.rs` is thin; everything is here. Three walks through the house:
//!
//! **A Verify.** [`auth`] authenticates the caller from the [`mirror`], [`grpc`] reads the request into a [`verify::Question`], and
//! [`verify::decide`] compares it with the facts that the mirror holds. No step waits, locks, or asks the store.
//!
//! **A gateway's request.** It comes whole, by [`grpc`] or [`http`]. [`gateway`] reads its path and its credential by the
//! realm's rules and asks the very same question.
//!
//! **An Issue.** [`grpc`] reads the request into a [`authority::NewKey`] and runs the use case to its end, come what may.
//! [`authority`] has [`hashing`] make the secret's root, opens a change of the [`store`] that takes the next revision,
//! re-reads the caller, makes the key, and commits it together with its event. The feed of the [`mirror`] brings it in, and
//! only then is it answered.
//!
//! The arrows point one way: wire types stop at [`grpc`] and [`cli`], sqlx stops at [`store`], argon2 stops at [`hashing`],
//! and [`domain`] knows of nothing but itself.

pub mod auth;
pub mod authority;
pub mod cli;
pub mod commands;
pub mod config;
pub mod domain;
pub mod gateway;
pub mod grpc;
pub mod hashing;
pub mod http;
pub mod mirror;
pub mod open;
pub mod readiness;
pub mod retention;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod transport;
pub mod usage;
pub mod verify;

/// What goes over the wire, as generated from `proto/`.
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
