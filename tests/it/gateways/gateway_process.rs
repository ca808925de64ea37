//! The gateways themselves: the programs that are in use out there, with the very configurations of `examples/`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fixtures::DEADLINE;

/// A gateway, and how it asks claviger about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GatewayKind {
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
    pub(super) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::EnvoyRaw | Self::EnvoyJoined | Self::EnvoyNormalising => &[],
            Self::EnvoyHttp => &["--gateway", "envoy"],
            Self::Nginx => &["--gateway", "nginx"],
            Self::Caddy => &["--gateway", "caddy"],
        }
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

    /// Its configuration, with places left open.
    fn example(self) -> String {
        let envoy = include_str!("../../../examples/envoy/envoy.yaml");
        match self {
            Self::EnvoyRaw => envoy.to_owned(),
            Self::EnvoyJoined => changed(envoy, "raw_headers: true", "raw_headers: false"),
            Self::EnvoyNormalising => changed(
                envoy,
                "use_remote_address: true",
                concat!(
                    "use_remote_address: true\n",
                    "                normalize_path: true\n",
                    "                merge_slashes: true\n",
                    "                path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
                ),
            ),
            Self::EnvoyHttp => include_str!("../../../examples/envoy/envoy-http.yaml").to_owned(),
            Self::Nginx => {
                include_str!("../../../examples/nginx/claviger.conf.template").to_owned()
            }
            Self::Caddy => include_str!("../../../examples/caddy/Caddyfile").to_owned(),
        }
    }
}

fn changed(example: &str, from: &str, to: &str) -> String {
    assert!(example.contains(from));
    example.replace(from, to)
}

/// What a gateway is configured with: the API that it stands for, and the servers on either side.
#[derive(Clone, Debug)]
pub(super) struct GatewaySettings {
    pub(super) realm: String,
    pub(super) environment: String,
    /// Its own key.
    pub(super) key: String,
    pub(super) claviger: SocketAddr,
    pub(super) upstream: SocketAddr,
    /// The bodies of denials, for gateways that do not pass them on.
    pub(super) unauthenticated: String,
    pub(super) forbidden: String,
}

/// A running gateway. Killed when dropped.
pub(super) struct GatewayProcess {
    child: Child,
    pub(super) address: SocketAddr,
    dir: TempDir,
}

impl GatewayProcess {
    /// Starts a gateway and waits until it listens. Another process may take its port in the moment before, so it gets another
    /// one then.
    pub(super) fn open(kind: GatewayKind, settings: &GatewaySettings) -> Self {
        for _ in 0..4 {
            match Self::try_open(kind, settings) {
                Ok(gateway) => return gateway,
                Err(log) => assert!(log.contains("in use"), "{kind:?} does not start:\n{log}"),
            }
        }
        panic!("{kind:?} finds no free port");
    }

    /// Starts a gateway at a port that was free a moment ago. If it ends by itself, its log is the error.
    fn try_open(kind: GatewayKind, settings: &GatewaySettings) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let address = {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            free.local_addr().unwrap()
        };
        let filled = settings.filled(address);
        let mut command = match kind {
            GatewayKind::Nginx => nginx(dir.path(), &fill(&kind.example(), &filled)),
            GatewayKind::Caddy => caddy(dir.path(), &kind.example(), &filled),
            _ => envoy(dir.path(), &fill(&kind.example(), &filled)),
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
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl GatewaySettings {
    /// What the examples leave open.
    fn filled(&self, listen: SocketAddr) -> BTreeMap<&'static str, String> {
        let Self {
            realm,
            environment,
            key,
            claviger,
            upstream,
            unauthenticated,
            forbidden,
        } = self;
        BTreeMap::from([
            ("REALM", realm.clone()),
            ("ENVIRONMENT", environment.clone()),
            ("GATEWAY_KEY", key.clone()),
            ("LISTEN", listen.to_string()),
            ("LISTEN_HOST", listen.ip().to_string()),
            ("LISTEN_PORT", listen.port().to_string()),
            ("SITE", format!("http://:{}", listen.port())),
            ("CLAVIGER", claviger.to_string()),
            ("CLAVIGER_HOST", claviger.ip().to_string()),
            ("CLAVIGER_PORT", claviger.port().to_string()),
            ("API", upstream.to_string()),
            ("API_HOST", upstream.ip().to_string()),
            ("API_PORT", upstream.port().to_string()),
            ("UNAUTHENTICATED", unauthenticated.clone()),
            ("FORBIDDEN", forbidden.clone()),
        ])
    }
}

/// What envsubst does.
fn fill(example: &str, filled: &BTreeMap<&str, String>) -> String {
    let mut text = example.to_owned();
    for (name, value) in filled {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    text
}

/// The example within the least of a configuration, with its files in a directory of its own. It runs as one process, so that
/// its end is the end of all of it.
fn nginx(dir: &Path, server: &str) -> Command {
    std::fs::write(dir.join("claviger.conf"), server).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {kind};\n"))
        .concat();
    let main = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {{}}\n\
         http {{\n  access_log off;\n{temporary}  include claviger.conf;\n}}\n"
    );
    std::fs::write(dir.join("nginx.conf"), main).unwrap();
    let mut command = Command::new(program("nginx", &["/usr/sbin/nginx"]));
    let prefix = format!("{}/", dir.display());
    command.args(["-e", "stderr", "-p", &prefix, "-c", "nginx.conf"]);
    command
}

fn caddy(dir: &Path, site: &str, filled: &BTreeMap<&str, String>) -> Command {
    // Its port for administration is always the same one; two would meet there.
    let file = format!("{{\n\tadmin off\n}}\n{site}");
    std::fs::write(dir.join("Caddyfile"), file).unwrap();
    let mut command = Command::new(program("caddy", &["/usr/bin/caddy"]));
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(dir.join("Caddyfile"))
        .env("HOME", dir)
        .env("XDG_DATA_HOME", dir)
        .env("XDG_CONFIG_HOME", dir)
        .envs(filled);
    command
}

fn envoy(dir: &Path, bootstrap: &str) -> Command {
    let file = dir.join("envoy.yaml");
    // Two of them would share a port, each with some of the connections, instead of the second one being refused.
    let alone = changed(
        bootstrap,
        "- name: api\n      address:",
        "- name: api\n      enable_reuse_port: false\n      address:",
    );
    std::fs::write(&file, alone).unwrap();
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let binary = site.join("lib").read_dir().ok().and_then(|mut versions| {
        versions.find_map(|version| {
            let binary = version.ok()?.path().join("site-packages/envoy/_bin/envoy");
            binary.exists().then(|| binary.display().to_string())
        })
    });
    // The binary itself: the script beside it would be a parent that outlives nothing.
    let mut command = Command::new(program("envoy", &[&binary.unwrap_or_default()]));
    command
        .arg("-c")
        .arg(file)
        .args(["--concurrency", "1", "--disable-hot-restart"])
        .args(["--log-level", "warn"]);
    command
}

/// A program where `tests/run` has it put.
fn program(name: &str, places: &[&str]) -> PathBuf {
    let named = std::env::var_os(format!("CLAVIGER_TEST_{}", name.to_uppercase()));
    let found = named.map(PathBuf::from).or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = places
            .iter()
            .map(PathBuf::from)
            .chain(std::env::split_paths(&path).map(|dir| dir.join(name)));
        places.find(|place| place.is_file())
    });
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not there. `tests/run` installs it, as would `apt-get install nginx caddy` and \
             `target/python/bin/python -m pip install -r tests/python/requirements.txt`"
        )
    })
}
