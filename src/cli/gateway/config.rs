//! The `gateway config` command.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::address::{Address, HostName, ServerName};
use super::api::GatewayApi;
use super::upstream_tls::UpstreamTlsFlags;
use super::{caddy, config_file, envoy, nginx};
use crate::cli::api_key::ApiKey;
use crate::cli::client::Client;
use crate::cli::connect::{Connection, read_key};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::realm_flag::RealmFlag;
use crate::domain::realm::IdentityLabel;
use crate::pb::claviger::v1::verify_request::Target;
use crate::pb::claviger::v1::{GetRealmRequest, Realm, Verdict, VerifyRequest, VerifyResponse};

/// The port of `--http-listen` unless `serve` is told another one.
const HTTP_PORT: u16 = 7701;

/// The realm with the keys of callers, gateways among them.
const BUILT_IN_REALM: &str = "claviger";

/// Print the configuration of a gateway for a realm, complete and with the gateway's key.
///
/// The server must be started with `--gateway` for nginx, Caddy, and Envoy over HTTP.
///
/// The configuration contains what the realm defines: the places that carry keys, the identity labels, and for nginx the denials. Print
/// it again when these change. It covers one environment of one realm; several configurations fit into one gateway.
#[derive(Debug, Args)]
#[command(after_help = "\
The gateway's own key can verify keys of this realm, and nothing else:
  claviger keys issue --realm claviger --partner demo --scope verify

Examples:
  claviger gateway config envoy --gateway-key-file gateway.key \\
      --upstream 127.0.0.1:8081 --output-file envoy.yaml")]
pub struct Config {
    /// The kind of gateway. Envoy asks over gRPC (`envoy`) or over HTTP (`envoy-http`).
    kind: Kind,
    #[command(flatten)]
    realm: RealmFlag,
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
    #[command(flatten)]
    tls: UpstreamTlsFlags,
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
        let (scheme, host, port) = match (connection.server_address()?, &self.claviger_address) {
            (Some(address), _) => address,
            (None, Some(Address { host, port })) => ("http", host.clone(), *port),
            (None, None) => {
                return Err(Failure::usage(
                    "--endpoint is a Unix socket: name the address at which the gateway reaches claviger with --claviger-address",
                ));
            }
        };
        let tls = self.tls.read()?;
        if scheme == "https" && tls.is_none() {
            return Err(Failure::usage(
                "--endpoint is https, but the gateway would send keys to claviger without TLS: name the issuer of claviger's \
                 certificate with --claviger-ca FILE",
            )
            .hint(
                "FILE is a path on the gateway's machine; if a proxy serves TLS and claviger itself does not, run this command \
                 with claviger's own address as --endpoint",
            ));
        }
        let claviger = self.claviger_address.unwrap_or_else(|| Address {
            host,
            port: self.kind.port(port),
        });
        if self.kind == Kind::Nginx
            && tls.is_some()
            && let ServerName::Ip(ip) = ServerName::of(&claviger)
        {
            return Err(Failure::usage(format!(
                "nginx does not find IP addresses such as {ip} in certificates: name claviger's host with --claviger-address \
                 HOST:PORT, with a host name for which the certificate is valid",
            )));
        }
        if tls.is_none() && !claviger.is_loopback() {
            output::print_error(&format!(
                "warning: the gateway will send keys to {claviger} as plain text: give --claviger-ca if claviger serves TLS, or \
                 keep the network between them private"
            ));
        }
        let client = connection.connect().await?;
        let id = self.realm.resolve(&client).await?;
        let realm = realm(&client, id).await?;
        let environment = environment(&realm, self.environment)?;
        for warning in warnings(&realm) {
            output::print_error(&format!("warning: {warning}"));
        }
        check_key(
            &client,
            connection,
            &self.gateway_key_file,
            &key,
            &realm.id,
            &environment,
        )
        .await?;
        let label_headers = label_headers(&realm)?;
        let api = GatewayApi {
            label_headers,
            realm,
            environment,
            key,
            claviger,
            tls,
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
    /// The port at which a gateway asks a server with this port for gRPC.
    fn port(self, grpc: u16) -> u16 {
        match self {
            Self::Envoy => grpc,
            Self::EnvoyHttp | Self::Nginx | Self::Caddy => HTTP_PORT,
        }
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
async fn realm(client: &Client, realm_id: String) -> Result<Realm, Failure> {
    if realm_id == BUILT_IN_REALM {
        return Err(Failure::usage(format!(
            "the realm {BUILT_IN_REALM} is no API: it has the keys of operators and gateways"
        )));
    }
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
            "the realm {id} has no routes, so its gateway denies every request: name them in a file for `claviger realm apply`"
        ));
    }
    if sources == 0 {
        warnings.push(format!(
            "the realm {id} does not say which header carries the key (`credentials`), so only public routes pass"
        ));
    }
    warnings
}

/// Checks that the gateway's key may verify keys of the realm, and do nothing else.
///
/// An operator may look at the key from anywhere. Without an operator's key, the gateway's key itself must work from here.
async fn check_key(
    client: &Client,
    connection: &Connection,
    file: &Path,
    key: &ApiKey,
    realm: &str,
    environment: &str,
) -> Result<(), Failure> {
    let refuse = |why: &str| {
        let file = file.display();
        Err(Failure::usage(format!("{file} is not a key for a gateway of the realm {realm}: {why}")).hint(format!(
            "`claviger keys issue --realm {BUILT_IN_REALM} --partner {realm} --scope verify --output-file NEW_FILE` issues one"
        )))
    };
    let question = |realm: &str, environment: &str| VerifyRequest {
        key: key.reveal().to_owned(),
        realm: realm.to_owned(),
        environment: environment.to_owned(),
        target: Some(Target::AnyTarget(true)),
        ..VerifyRequest::default()
    };
    match client
        .ask(client.verify().verify(question(BUILT_IN_REALM, "")))
        .await
    {
        Ok(answer) => match problem(&answer, realm) {
            Some(why) => refuse(&why),
            None => Ok(()),
        },
        Err(failure) if failure.is_forbidden() => {
            let gateway = connection.connect_with(key, file).await?;
            let request = GetRealmRequest {
                realm_id: realm.to_owned(),
            };
            let read = gateway.ask(gateway.realms().get_realm(request)).await;
            if read.is_ok() {
                return refuse("it may do more than verify");
            }
            // Any key shows whether the gateway's own one is accepted.
            let answer = gateway
                .ask(gateway.verify().verify(question(realm, environment)))
                .await;
            match answer {
                Ok(_) => Ok(()),
                Err(failure) => refuse(&failure.message()),
            }
        }
        Err(failure) => Err(failure),
    }
}

/// What is wrong with the gateway's key, as the answer about it says. That it may not be used from here does not matter.
fn problem(answer: &VerifyResponse, realm: &str) -> Option<String> {
    let Some(key) = &answer.key else {
        return Some(format!("it is no key of the realm {BUILT_IN_REALM}"));
    };
    match answer.verdict() {
        Verdict::Allowed | Verdict::AddressDenied => {}
        denied => return Some(format!("it is not accepted ({})", denied.as_str_name())),
    }
    if key.scopes != ["verify"] {
        return Some(format!("it holds the scopes {}", key.scopes.join(", ")));
    }
    (key.partner != realm).then(|| format!("it is for the realm {}", key.partner))
}

/// The headers with labels of the realm's keys.
fn label_headers(realm: &Realm) -> Result<Vec<String>, Failure> {
    let header = |name: &String| match IdentityLabel::parse(name) {
        Ok(label) => Ok(label.header().to_owned()),
        Err(why) => Err(Failure::failed(format!("identity label {name}: it {why}"))
            .hint("use the version of this program that the server has")),
    };
    realm.identity_labels.iter().map(header).collect()
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
