//! The program as a process: its start and stop, crashes, its transport, its command line, the canary, and what it writes.

mod canary;
mod cancelled_calls;
mod command_line;
mod configuration;
mod contexts;
mod crash;
mod follow;
mod full_disk;
mod gateway_config;
mod grpc_tools;
mod hints;
mod listeners;
mod log;
mod method_paths;
mod names;
mod python;
mod screens;
mod secrets;
mod start;
mod stop;
mod transport;

pub(crate) use grpc_tools::tool;
pub(crate) use python::run_python_client;
