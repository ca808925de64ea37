//! The tests of the running service: the real server, over real sockets, on a real store. Nothing here waits for a fixed
//! time; what must come about is asked for until it has, or a deadline has passed.

mod abuse;
mod callers;
mod crash;
mod delegation;
mod explain;
mod fixtures;
mod garbage;
mod gateways;
mod history;
mod life;
mod many;
mod paths;
mod postgres;
mod python;
mod secrets;
mod sequences;
mod starting;
mod stopping;
mod store_conformance;
mod tour;
mod transport;
mod usage;
mod writers;
