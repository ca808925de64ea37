//! The tests of the running service: the real server, over real sockets, on a real store. Nothing here waits for a fixed
//! time; what must come about is asked for until it has, or a deadline has passed.

mod abuse;
mod command_line;
mod declared;
mod doctor;
mod documents;
mod fixtures;
mod gateways;
mod json;
mod key_admin;
mod key_verify;
mod metrics;
mod model;
mod packaging;
mod process;
mod realm_admin;
mod replicas;
mod store;
mod tls;
mod traces;
