//! The gateways themselves: the programs that are in use out there, with the
//! configurations that `claviger gateway config` prints.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fixtures::{DEADLINE, Program, claviger, installed};

/// A gateway, and how it asks claviger about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GatewayKind {
    /// Over gRPC, each header as often as it was sent.
    EnvoyRaw,
    /// Over gRPC, headers joined with commas: what Envoy does by itself.
    EnvoyJoined,
    /// Over gRPC, with paths made plain by Envoy before it asks.
    EnvoyNormalising,
    /// Over HTTP.
    EnvoyHttp,
    Nginx,
    Caddy,
}

impl GatewayKind {
    /// What claviger must be started with.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::EnvoyRaw | Self::EnvoyJoined | Self::EnvoyNormalising => &[],
            Self::EnvoyHttp => &["--gateway", "envoy"],
            Self::Nginx => &["--gateway", "nginx"],
            Self::Caddy => &["--gateway", "caddy"],
        }
    }

    /// Whether it is an Envoy.
    pub(super) fn is_envoy(self) -> bool {
        !matches!(self, Self::Nginx | Self::Caddy)
    }

    /// Whether it asks over gRPC.
    pub(super) fn is_grpc(self) -> bool {
        self.flags().is_empty()
    }

    /// Whether a target that was sent so reaches the server behind so: byte by byte, unless it is normalised on the way
    /// (RFC 3986, section 6.2.2.2).
    pub(super) fn passes_on(self, sent: &str, seen: &str) -> bool {
        if self != Self::EnvoyNormalising {
            return sent == seen;
        }
        let (path, query) = sent.split_at(sent.find('?').unwrap_or(sent.len()));
        let mut parts = path.split('%');
        let mut normal = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (code, rest) = part.split_at(2.min(part.len()));
            match u8::from_str_radix(code, 16).map(char::from) {
                Ok(letter) if letter.is_ascii_alphanumeric() || "-._~".contains(letter) => {
                    normal.push(letter);
                }
                _ => normal.extend(["%", code]),
            }
            normal.push_str(rest);
        }
        seen == normal + query
    }

    /// What `claviger gateway config` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::EnvoyRaw | Self::EnvoyJoined | Self::EnvoyNormalising => "envoy",
            Self::EnvoyHttp => "envoy-http",
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
        }
    }

    /// The configuration of this kind from the one that is printed.
    fn variant(self, printed: &str) -> String {
        match self {
            Self::EnvoyJoined => changed(printed, "raw_headers: true", "raw_headers: false"),
            Self::EnvoyNormalising => changed(
                printed,
                "use_remote_address: true",
                concat!(
                    "use_remote_address: true\n",
                    "                normalize_path: true\n",
                    "                merge_slashes: true\n",
                    "                path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
                ),
            ),
            Self::EnvoyRaw | Self::EnvoyHttp | Self::Nginx | Self::Caddy => printed.to_owned(),
        }
    }
}

fn changed(printed: &str, from: &str, to: &str) -> String {
    assert!(printed.contains(from), "{from}");
    printed.replace(from, to)
}

/// An API that a gateway protects, and the servers on either side.
#[derive(Clone, Debug)]
pub(crate) struct GatewayApi {
    pub(crate) realm: &'static str,
    pub(crate) environment: &'static str,
    /// The host of its requests; empty: every host.
    pub(crate) host: &'static str,
    /// The gateway's own key.
    pub(crate) key: String,
    pub(crate) upstream: SocketAddr,
    /// More flags of `claviger gateway config`.
    pub(crate) flags: Vec<String>,
}

/// The configuration of a gateway that listens at this address, as the command line prints it.
fn printed(
    kind: GatewayKind,
    program: &Program,
    api: &GatewayApi,
    listen: SocketAddr,
    flags: &[&str],
) -> String {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), &api.key).unwrap();
    let address = if kind.is_grpc() {
        &program.address
    } else {
        &program.http
    };
    let is_told = api.flags.iter().any(|flag| flag == "--claviger-address");
    let output = claviger(&["gateway", "config", kind.name()])
        .args(["--realm", api.realm, "--environment", api.environment])
        .args(["--upstream", &api.upstream.to_string()])
        .args(["--listen", &listen.to_string()])
        .args(["--claviger-address", address].iter().filter(|_| !is_told))
        .arg("--gateway-key-file")
        .arg(key.path())
        .args(["--host", api.host].iter().filter(|_| !api.host.is_empty()))
        .args(flags)
        .args(&api.flags)
        .env("CLAVIGER_ENDPOINT", &program.address)
        .env("CLAVIGER_KEY", program.operator())
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && complaint.is_empty(),
        "{complaint}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A running gateway. Killed when dropped.
pub(crate) struct GatewayProcess {
    child: Child,
    pub(crate) address: SocketAddr,
    dir: TempDir,
}

impl GatewayProcess {
    /// Starts a gateway for APIs of these hosts, and waits until it listens. Another process may take its port in the moment before,
    /// so it gets another one then.
    pub(crate) fn open(kind: GatewayKind, program: &Program, apis: &[GatewayApi]) -> Self {
        Self::configured(kind, |address| {
            let configurations = apis.iter().enumerate().map(|(i, api)| {
                let is_first = i == 0 || kind.name() == "envoy";
                let flags: &[_] = if is_first {
                    &[]
                } else {
                    &["--no-default-server"]
                };
                kind.variant(&printed(kind, program, api, address, flags))
            });
            configurations.collect()
        })
    }

    /// The same with configurations for the address at which it is to listen.
    pub(crate) fn configured(
        kind: GatewayKind,
        configurations: impl Fn(SocketAddr) -> Vec<String>,
    ) -> Self {
        for _ in 0..4 {
            match Self::try_open(kind, &configurations) {
                Ok(gateway) => return gateway,
                Err(log) => assert!(log.contains("in use"), "{kind:?} does not start:\n{log}"),
            }
        }
        panic!("{kind:?} finds no free port");
    }

    /// Starts a gateway at a port that was free a moment ago. If it ends by itself, its log is the error.
    fn try_open(
        kind: GatewayKind,
        configurations: impl Fn(SocketAddr) -> Vec<String>,
    ) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let address = {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            free.local_addr().unwrap()
        };
        let configurations = configurations(address);
        let mut command = match kind {
            GatewayKind::Nginx => nginx(dir.path(), &configurations),
            GatewayKind::Caddy => caddy(dir.path(), &configurations),
            _ => envoy(dir.path(), &configurations),
        };
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut gate = Self {
            child,
            address,
            dir,
        };
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(address).is_err() {
            if gate.child.try_wait().unwrap().is_some() {
                return Err(gate.log());
            }
            assert!(
                Instant::now() < deadline,
                "{kind:?} is silent:\n{}",
                gate.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        // The process that has the port answers too.
        match gate.child.try_wait().unwrap() {
            None => Ok(gate),
            Some(_) => Err(gate.log()),
        }
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configurations within the least of a main one, with its files in a directory of its own. It runs as one process, so that its
/// end is the end of all of it.
fn nginx(dir: &Path, configurations: &[String]) -> Command {
    std::fs::create_dir(dir.join("conf.d")).unwrap();
    for (i, configuration) in configurations.iter().enumerate() {
        std::fs::write(dir.join(format!("conf.d/{i}.conf")), configuration).unwrap();
    }
    let main = include_str!("../../../examples/nginx/nginx.conf");
    std::fs::write(dir.join("nginx.conf"), main).unwrap();
    let mut command = Command::new(installed("nginx", &["/usr/sbin/nginx"]));
    let prefix = format!("{}/", dir.display());
    command.args(["-e", "stderr", "-p", &prefix, "-c", "nginx.conf"]);
    command
}

fn caddy(dir: &Path, configurations: &[String]) -> Command {
    for (i, configuration) in configurations.iter().enumerate() {
        std::fs::write(dir.join(format!("{i}.caddy")), configuration).unwrap();
    }
    // Its port for administration is always the same one; two would meet there.
    let main = "{\n\tadmin off\n}\nimport *.caddy\n";
    std::fs::write(dir.join("Caddyfile"), main).unwrap();
    let mut command = Command::new(installed("caddy", &[]));
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(dir.join("Caddyfile"))
        .env("HOME", dir)
        .env("XDG_DATA_HOME", dir)
        .env("XDG_CONFIG_HOME", dir);
    command
}

fn envoy(dir: &Path, configurations: &[String]) -> Command {
    let file = dir.join("envoy.yaml");
    let (first, others) = configurations.split_first().unwrap();
    let together = others
        .iter()
        .fold(first.clone(), |together, other| add_api(&together, other));
    // Two of them would share a port, each with some of the connections, instead of the second one being refused.
    let alone = changed(
        &together,
        "- name: api\n      address:",
        "- name: api\n      enable_reuse_port: false\n      address:",
    );
    std::fs::write(&file, alone).unwrap();
    let mut command = Command::new(envoy_program());
    command
        .arg("-c")
        .arg(file)
        .args(["--concurrency", "1", "--disable-hot-restart"])
        .args(["--log-level", "warn"]);
    command
}

/// Puts the API of another configuration into a configuration, as examples/envoy/README.md says: the entry below `virtual_hosts`, and
/// the cluster of the server behind.
pub(crate) fn add_api(configuration: &str, other: &str) -> String {
    let [hosts, filters] = [
        "                  virtual_hosts:\n",
        "                http_filters:\n",
    ];
    let [clusters, claviger] = ["  clusters:\n", "    - name: claviger\n"];
    let between = |from: &str, to: &str| {
        let (_, rest) = other.split_once(from).unwrap();
        rest.split_once(to).unwrap().0.to_owned()
    };
    let host = between(hosts, filters);
    let cluster = between(clusters, claviger);
    let configuration = changed(configuration, filters, &format!("{host}{filters}"));
    changed(&configuration, claviger, &format!("{cluster}{claviger}"))
}

/// Envoy itself: the script beside it would be a parent that outlives nothing.
pub(crate) fn envoy_program() -> PathBuf {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let binary = site.join("lib").read_dir().ok().and_then(|mut versions| {
        versions.find_map(|version| {
            let binary = version.ok()?.path().join("site-packages/envoy/_bin/envoy");
            binary.exists().then(|| binary.display().to_string())
        })
    });
    installed("envoy", &[&binary.unwrap_or_default()])
}
