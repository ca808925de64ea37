//! How commands reach a server: the connection flags, what completes them, and the connection itself.

mod address;
mod server;
mod settings;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::api_key::ApiKey;
use super::contexts::{CONTEXT, ChosenContext};
use super::pager::PAGER;
use super::realm_flag::{ENVIRONMENT, REALM};

pub(super) use super::key_file::read_key;
pub(super) use super::key_source::{KEY, KEY_FILE, KeySource};
pub(super) use address::absolute_socket;
pub(super) use server::Server;
pub(super) use settings::is_key_id;

/// The flags that say how to reach the server.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// The context to take the server, the key and other settings from [default: the current one of `claviger use`].
    #[arg(
        long,
        short,
        global = true,
        env = CONTEXT,
        value_name = "NAME",
        help_heading = "Connection"
    )]
    context: Option<OsString>,
    // These flags are accepted by `claviger serve` too. A client's environment variable must not stop a server, so flags
    // with a variable accept any string here, and `connect` validates it. An empty variable counts as unset.
    // A list for `canary`. clap would refuse a second value for the other commands with a message of its own, but it cannot
    // tell them apart: the flag is global.
    /// The server's gRPC address: `http://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT` for http, or `unix:PATH`
    /// [default: that of the context, or `http://127.0.0.1:7700`]. Only `claviger canary` takes several, separated by commas or
    /// with the flag repeated.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_ENDPOINT",
        value_name = "URL",
        help_heading = "Connection"
    )]
    endpoint: Vec<OsString>,
    /// The file with the PEM certificates to trust with https.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_CA_FILE",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    ca_file: Option<OsString>,
    /// The file with the client's own certificate in PEM, for a server that wants one with https.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_CLIENT_CERT",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    client_cert: Option<OsString>,
    /// The file with the private key of --client-cert, in PEM.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_CLIENT_KEY",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    client_key: Option<OsString>,
    // The id is not `key`: clap would confuse it with an argument of that id in a command.
    /// The caller's own API key. Prefer `claviger login` or --key-file: every user of the machine can see a command line in the
    /// list of processes, and the shell's history keeps it.
    #[arg(
        id = "caller_key",
        long = "key",
        global = true,
        value_name = "KEY",
        value_parser = clap::value_parser!(ApiKey),
        conflicts_with = "key_file",
        help_heading = "Connection"
    )]
    key: Option<ApiKey>,
    /// The file with the caller's own API key; one newline at its end, also CR LF, is ignored. Overrides `CLAVIGER_KEY`, which overrides
    /// `CLAVIGER_KEY_FILE`, which overrides the key of the context.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    key_file: Option<PathBuf>,
    /// How long to wait for each answer [default: 10s; healthcheck: 3s].
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_TIMEOUT",
        value_name = "SPAN",
        help_heading = "Connection"
    )]
    timeout: Option<OsString>,
    /// Print responses and errors as JSON, with the field names of the proto and times in RFC 3339.
    #[arg(long, global = true)]
    pub json: bool,
    #[arg(skip)]
    chosen: Option<ChosenContext>,
    /// The context that was not taken, because it is for another server.
    #[arg(skip)]
    unused_context: Option<String>,
    /// Whether the address is that of the context.
    #[arg(skip)]
    has_endpoint_of_context: bool,
    /// Print only this field of the answer, by its name in the JSON, with dots for fields in fields: `scopes`, `labels.team`. A list
    /// has one value on each line.
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) field: Option<String>,
}

impl Connection {
    /// The variables of the client commands that no flag has. All others are those of flags.
    pub const VARIABLES: [&str; 5] = [KEY, KEY_FILE, REALM, ENVIRONMENT, PAGER];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    pub(super) struct Line {
        #[command(flatten)]
        pub(super) connection: Connection,
    }

    /// A flag is parsed like its variable, and needs no change of the test's own environment.
    pub(super) fn connection(flag: &str, text: OsString) -> Connection {
        let line = ["claviger", "--key", "k", flag].map(OsString::from);
        let line = <Line as clap::Parser>::try_parse_from(line.into_iter().chain([text]));
        line.expect("any value is accepted").connection
    }
}
