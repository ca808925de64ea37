//! The `gateway config` command.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::api::{Address, GatewayApi, HostName};
use super::{caddy, config_file, envoy, nginx};
use crate::cli::api_key::ApiKey;
use crate::cli::client::Client;
use crate::cli::connect::{Connection, read_key};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::pb::claviger::v1::{GetRealmRequest, Realm, VerifyRequest};

/// The port of `--http-listen` unless `serve` is told another one.
const HTTP_PORT: u16 = 7701;

/// The realm with the keys of callers, gateways among them.
const BUILT_IN_REALM: &str = "claviger";

/// Print the configuration of a gateway for a realm, complete and with the gateway's key.
///
/// The server must be started with `--gateway` for nginx, Caddy, and Envoy over HTTP.
///
/// The configuration contains what the realm defines: the headers that carry keys, and for nginx the denials. Print it again when
/// these change. It covers one environment of one realm; several configurations fit into one gateway.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger gateway config envoy --realm demo --gateway-key-file demo-gateway.key \\
      --upstream 127.0.0.1:8081 --output-file envoy.yaml

  claviger gateway config nginx --realm demo --gateway-key-file demo-gateway.key \\
      --upstream 127.0.0.1:8081 --listen 0.0.0.0:80 --host api.example.com \\
      --output-file /etc/nginx/conf.d/demo.conf

The gateway's own key can verify keys of this realm, and nothing else:
  claviger keys issue --realm claviger --partner demo --scope verify --name gateway \\
      --output-file demo-gateway.key")]
pub struct Config {
    /// The kind of gateway. Envoy asks over gRPC (`envoy`) or over HTTP (`envoy-http`).
    kind: Kind,
    /// The realm that describes the API.
    #[arg(long)]
    realm: String,
    /// The environment of the realm; may be omitted where the realm has only one.
    #[arg(long)]
    environment: Option<String>,
    /// The file with the gateway's own key, which has the scope `verify` for the realm.
    #[arg(long, value_name = "FILE")]
    gateway_key_file: PathBuf,
    /// The server behind the gateway: the API itself.
    #[arg(long, value_name = "HOST:PORT", value_parser = Address::parse)]
    upstream: Address,
    /// Where the gateway listens, without TLS [default: 127.0.0.1:8080; for Caddy with --host, the ports 80 and 443, with HTTPS].
    #[arg(long, value_name = "IP:PORT", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// The host of the API in requests; can be repeated. Other hosts get 404 [default: every host].
    #[arg(long, value_name = "NAME", value_parser = HostName::parse)]
    host: Vec<HostName>,
    /// Omit the server that answers 404 for other hosts, because another file has it for this port (nginx and Caddy).
    #[arg(long)]
    no_default_server: bool,
    /// Where the gateway reaches claviger [default: the host of --endpoint, with its port for Envoy over gRPC, and 7701 over HTTP].
    #[arg(long, value_name = "HOST:PORT", value_parser = Address::parse)]
    claviger_address: Option<Address>,
    /// Write the configuration to a file that only you can read, instead of printing it with the key. Replaces a file that this
    /// command wrote for the same API, unless it was edited.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

/// The kinds of gateways with a configuration here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Envoy,
    EnvoyHttp,
    Nginx,
    Caddy,
}

impl Config {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        // Errors in the flags are reported before a connection is attempted.
        let key = gateway_key(&self.gateway_key_file)?;
        if self.no_default_server && matches!(self.kind, Kind::Envoy | Kind::EnvoyHttp) {
            return Err(Failure::usage(
                "--no-default-server is for nginx and Caddy: leave it out, because Envoy answers 404 by itself",
            ));
        }
        let claviger = match self.claviger_address {
            Some(address) => address,
            None => self.kind.address(connection)?,
        };
        let realm = realm(connection, self.realm).await?;
        let environment = environment(&realm, self.environment)?;
        for warning in warnings(&realm) {
            output::print_error(&format!("warning: {warning}"));
        }
        let gateway = connection
            .connect_with(&key, &self.gateway_key_file)
            .await?;
        try_key(&gateway, &key, &realm.id, &environment).await?;
        let api = GatewayApi {
            realm,
            environment,
            key,
            claviger,
            upstream: self.upstream,
            listen: self.listen,
            hosts: unique(self.host),
            default_server: !self.no_default_server,
        };
        let text = self.kind.render(&api);
        let Some(path) = self.output_file else {
            if output.is_json() {
                return output.show_summary(&json!({ "config": text }), String::new);
            }
            return output.print_file(&text);
        };
        config_file::write(&path, &text)?;
        let path = path.display().to_string();
        output.show_summary(&json!({ "output_file": path }), || {
            let GatewayApi {
                realm, environment, ..
            } = &api;
            format!(
                "wrote {path}: realm {}, environment {environment}\n\n{}",
                realm.id,
                self.kind.next_steps(&path)
            )
        })
    }
}

impl Kind {
    /// Where a gateway reaches the server that this command calls.
    fn address(self, connection: &Connection) -> Result<Address, Failure> {
        let (scheme, host, port) = connection.server_address()?;
        if scheme == "https" {
            return Err(Failure::usage(
                "the printed configurations ask without TLS: name claviger's address for the gateway with --claviger-address",
            ));
        }
        let port = match self {
            Self::Envoy => port,
            Self::EnvoyHttp | Self::Nginx | Self::Caddy => HTTP_PORT,
        };
        Ok(Address { host, port })
    }

    fn render(self, api: &GatewayApi) -> String {
        match self {
            Self::Envoy => envoy::over_grpc(api),
            Self::EnvoyHttp => envoy::over_http(api),
            Self::Nginx => nginx::config(api),
            Self::Caddy => caddy::config(api),
        }
    }

    fn next_steps(self, path: &str) -> String {
        match self {
            Self::Envoy => format!("Start Envoy with it: envoy -c {path}"),
            Self::EnvoyHttp => format!(
                "Start claviger with `--gateway envoy`, and Envoy with this file: envoy -c {path}"
            ),
            Self::Nginx => {
                "Start claviger with `--gateway nginx`, and nginx with this file in its `http` block, such as in conf.d."
                    .to_owned()
            }
            Self::Caddy => format!(
                "Start claviger with `--gateway caddy`, and Caddy with this file or an `import` of it: \
                 caddy run --adapter caddyfile --config {path}"
            ),
        }
    }
}

/// Reads the gateway's key. It has only characters that have no meaning of their own in a configuration.
fn gateway_key(file: &Path) -> Result<ApiKey, Failure> {
    let key = read_key(file, "--gateway-key-file")?;
    let mut bytes = key.reveal().bytes();
    if key.reveal().is_empty() || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let file = file.display();
        return Err(Failure::usage(format!("{file} does not contain an API key of claviger"))
            .hint("it must be the file that `claviger keys issue --output-file` wrote for this gateway"));
    }
    Ok(key)
}

/// The realm of the API.
async fn realm(connection: &Connection, realm_id: String) -> Result<Realm, Failure> {
    if realm_id == BUILT_IN_REALM {
        return Err(Failure::usage(format!(
            "the realm {BUILT_IN_REALM} is no API: it has the keys of operators and gateways"
        )));
    }
    let client = connection.connect().await?;
    let request = GetRealmRequest { realm_id };
    let answer = client.ask(client.realms().get_realm(request)).await?;
    answer
        .realm
        .ok_or_else(|| Failure::failed("the server returned nothing: it may be of another version"))
}

/// The environment that was chosen, or the only one.
fn environment(realm: &Realm, chosen: Option<String>) -> Result<String, Failure> {
    let names: Vec<_> = realm
        .environments
        .iter()
        .map(|environment| environment.name.as_str())
        .collect();
    let problem = match (chosen, names.as_slice()) {
        (Some(name), all) if all.contains(&name.as_str()) => return Ok(name),
        (None, [only]) => return Ok((*only).to_owned()),
        (Some(_), _) => "--environment names none of the realm's environments",
        (None, _) => "--environment must say which of the realm's environments the gateway is for",
    };
    Err(Failure::usage(format!("{problem}: {}", names.join(", "))))
}

/// What makes a gateway of this realm deny everything.
fn warnings(realm: &Realm) -> Vec<String> {
    let id = &realm.id;
    let sources = realm
        .credentials
        .as_ref()
        .map_or(0, |credentials| credentials.sources.len());
    let mut warnings = Vec::new();
    if realm.routes.is_empty() {
        warnings.push(format!(
            "the realm {id} has no routes, so its gateway denies every request: put them with `claviger realm put --file`"
        ));
    }
    if sources == 0 {
        warnings.push(format!(
            "the realm {id} does not say which header carries the key (`credentials`), so only public routes pass"
        ));
    }
    warnings
}

/// Tries the gateway's key: it must verify keys of the realm, and must not administer it.
///
/// That the server refuses it is only a warning: a key that may be used only from the gateway's address is not accepted here.
async fn try_key(
    gateway: &Client,
    key: &ApiKey,
    realm: &str,
    environment: &str,
) -> Result<(), Failure> {
    let request = GetRealmRequest {
        realm_id: realm.to_owned(),
    };
    let answer = gateway.ask(gateway.realms().get_realm(request)).await;
    if answer.is_ok() {
        return Err(Failure::usage(format!(
            "the key from {} may change realms and keys, so a gateway must not have it",
            gateway.key_source()
        ))
        .hint(format!(
            "`claviger keys issue --realm {BUILT_IN_REALM} --partner {realm} --scope verify --output-file NEW_FILE` issues a \
             key for the gateway"
        )));
    }
    let request = VerifyRequest {
        // Any key will do. The gateway's own one is of no realm that a gateway protects.
        key: key.reveal().to_owned(),
        realm: realm.to_owned(),
        environment: environment.to_owned(),
        ..VerifyRequest::default()
    };
    if let Err(failure) = gateway.ask(gateway.verify().verify(request)).await {
        output::print_error(&format!(
            "warning: this server does not accept the gateway's key for the realm {realm}: {}\n\
             This is right only if the key may be used from the gateway's address and not from here. Otherwise issue \
             another one, and print the configuration with it.",
            failure.message()
        ));
    }
    Ok(())
}

/// Gateways refuse a configuration that names a host twice.
fn unique(mut hosts: Vec<HostName>) -> Vec<HostName> {
    hosts.sort();
    hosts.dedup();
    hosts
}

fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "must be an IP address and a port, such as 0.0.0.0:8080 or [::]:8080")
}
