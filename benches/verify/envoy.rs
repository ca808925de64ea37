//! What a decision of claviger adds to the latency of Envoy: Envoy that asks claviger, and Envoy that asks a server which allows
//! everything at once, each at a fixed rate of requests.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claviger::gateway::IDENTITY_HEADERS;
use claviger::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use claviger::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use claviger::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use claviger::pb::envoy::service::auth::v3::check_response::HttpResponse;
use claviger::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval_at, sleep};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::http1;
use crate::questions::target;
use crate::seed::{Database, HOT, Seeded, seed};
use crate::servers::{ServerProcess, in_dir};
use crate::slices::median;

/// The number of requests per second.
const RATE: u32 = 1_000;

/// The number of connections, each with as many requests per second as the others.
const CONNECTIONS: u32 = 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Allows everything, with this response.
struct AllowEverything(OkHttpResponse);

#[tonic::async_trait]
impl Authorization for AllowEverything {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(CheckResponse {
            status: Some(tonic_types::Status::default()),
            http_response: Some(HttpResponse::OkResponse(self.0.clone())),
        }))
    }
}

/// A response that has Envoy do what a response of claviger has it do.
fn like_claviger() -> OkHttpResponse {
    let values = [
        "0192f0c1-2345-7abc-8def-0123456789ab",
        "demo",
        "partner-0",
        "",
        "production",
        "admin read write",
    ];
    let header = |(name, value): (&&str, &str)| HeaderValueOption {
        header: Some(HeaderValue {
            key: (*name).to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: true,
    };
    OkHttpResponse {
        headers: IDENTITY_HEADERS.iter().zip(values).map(header).collect(),
        headers_to_remove: vec!["authorization".to_owned()],
    }
}

/// Serves a service for Envoy that allows everything, on tonic with its defaults, and prints its address on standard output.
pub(crate) async fn serve_authorizer(sets_headers: bool) -> Outcome<()> {
    let response = if sets_headers {
        like_claviger()
    } else {
        OkHttpResponse::default()
    };
    // As `Server::serve` listens, but on a port that the system chooses.
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    println!("{}", incoming.local_addr()?);
    Server::builder()
        .add_service(AuthorizationServer::new(AllowEverything(response)))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

/// The parameters of the client.
#[derive(Serialize, Deserialize)]
struct Load {
    address: String,
    plain_keys: Vec<String>,
    time: Duration,
}

/// The latencies of a slice, in microseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
}

/// Reads the parameters from standard input, sends requests at the fixed rate, and prints the latencies.
pub(crate) async fn run() -> Outcome<()> {
    let load: Load = serde_json::from_reader(io::stdin())?;
    let mut connections = JoinSet::new();
    let begin = tokio::time::Instant::now();
    for connection in 0..CONNECTIONS {
        let mut socket = TcpStream::connect(&load.address).await?;
        socket.set_nodelay(true)?;
        let requests: Vec<String> = load
            .plain_keys
            .iter()
            .zip(0..)
            .map(|(key, number)| {
                format!(
                    "GET {} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {key}\r\naccept: application/json\r\n\
                     user-agent: partner/1.0\r\n\r\n",
                    target(number)
                )
            })
            .collect();
        let end = begin + load.time;
        let mut ticks = interval_at(
            begin + Duration::from_secs(1) / RATE * connection,
            Duration::from_secs(1) / RATE * CONNECTIONS,
        );
        connections.spawn(async move {
            let mut latencies = Vec::new();
            let mut input = vec![0; 16 * 1024];
            for request in requests.iter().cycle().skip(connection as usize) {
                if ticks.tick().await > end {
                    break;
                }
                let sent = Instant::now();
                let answer = http1::exchange(&mut socket, request.as_bytes(), &mut input).await;
                let answer = answer.map_err(|error| error.to_string())?;
                if !answer.starts_with(b"HTTP/1.1 200 ") {
                    return Err(String::from_utf8_lossy(answer).into_owned());
                }
                latencies.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(connection) = connections.join_next().await {
        latencies.extend(connection??);
    }
    latencies.sort_by(f64::total_cmp);
    let at = |percent: usize| latencies[latencies.len() * percent / 100];
    let percentiles = Percentiles {
        p50: at(50),
        p90: at(90),
        p99: at(99),
    };
    serde_json::to_writer(io::stdout(), &percentiles)?;
    Ok(())
}

/// Measures both alternately.
pub(crate) async fn measure(keys: usize, quick: bool) -> Outcome<()> {
    let (rounds, time) = if quick {
        (1, Duration::from_millis(500))
    } else {
        (10, Duration::from_secs(4))
    };
    let program = program().ok_or(
        "Envoy is not there: python3 -m venv target/python && \
         target/python/bin/pip install -r tests/python/requirements.txt",
    )?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    let database = Database::Sqlite(data.join("claviger.db"));
    let seeded = seed(&database, &data.join("pepper.toml"), keys).await?;
    let (claviger, _) = ServerProcess::claviger(&in_dir(&data))?;
    let everything = ServerProcess::reference(&["serve-authorizer".as_ref()])?;
    let with_headers =
        ServerProcess::reference(&["serve-authorizer".as_ref(), "--sets-headers".as_ref()])?;
    let asks_claviger = Envoy::start(&program, dir.path(), "claviger", &claviger, &seeded).await?;
    let asks_for_headers =
        Envoy::start(&program, dir.path(), "headers", &with_headers, &seeded).await?;
    let asks_nothing = Envoy::start(&program, dir.path(), "empty", &everything, &seeded).await?;
    let mut rows = [
        (
            "empty authorizer, against itself",
            &asks_nothing,
            Vec::new(),
        ),
        (
            "the same with claviger's headers",
            &asks_for_headers,
            Vec::new(),
        ),
        ("claviger, 500 routes", &asks_claviger, Vec::new()),
    ];
    for round in 0..=rounds {
        for (_, envoy, pairs) in &mut rows {
            let pair = (
                asks_nothing.slice(&seeded, time)?,
                envoy.slice(&seeded, time)?,
            );
            if round > 0 {
                pairs.push(pair);
            }
        }
    }
    println!(
        "Envoy with one worker at {RATE} requests a second over {CONNECTIONS} connections, which asks before it answers by itself:\n\
         medians of {rounds} slices of {} s, each after one in which Envoy asks a server on tonic that allows everything at once.\n",
        time.as_secs_f64()
    );
    println!(
        "{:<34} {:>16} {:>16} {:>16}",
        "", "p50: us x", "p90: us x", "p99: us x"
    );
    for (name, _, pairs) in &rows {
        print!("{name:<34}");
        for value in [
            |slice: &Percentiles| slice.p50,
            |slice: &Percentiles| slice.p90,
            |slice: &Percentiles| slice.p99,
        ] {
            let each: Vec<f64> = pairs.iter().map(|(_, slice)| value(slice)).collect();
            let ratios: Vec<f64> = pairs
                .iter()
                .map(|(reference, slice)| value(slice) / value(reference))
                .collect();
            print!(" {:>10.0} {:>5.2}", median(&each), median(&ratios));
        }
        println!();
    }
    Ok(())
}

/// A running Envoy. Dropping it kills the process.
struct Envoy {
    child: Child,
    address: String,
}

impl Envoy {
    /// Starts Envoy with the configuration that `claviger gateway config` prints, but without a server behind it.
    async fn start(
        program: &Path,
        dir: &Path,
        name: &str,
        authorizer: &ServerProcess,
        seeded: &Seeded,
    ) -> Outcome<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (host, port) = authorizer.address.split_once(':').ok_or("no port")?;
        let mut config = include_str!("../../src/cli/gateway/envoy.yaml").replace(
            "route: { cluster: ${API} }",
            "direct_response: { status: 200 }",
        );
        for (variable, value) in [
            ("LISTEN_HOST", "127.0.0.1"),
            ("LISTEN_PORT", &address.port().to_string()),
            ("REALM", "demo"),
            ("ENVIRONMENT", "production"),
            ("GATEWAY_KEY", &seeded.gateway_key),
            ("CLAVIGER_HOST", host),
            ("CLAVIGER_PORT", port),
            ("API", "demo.production"),
            ("DOMAINS", "[\"*\"]"),
            ("UPSTREAM_HOST", "127.0.0.1"),
            ("UPSTREAM_PORT", "9"),
        ] {
            config = config.replace(&format!("${{{variable}}}"), value);
        }
        let file = dir.join(format!("{name}.yaml"));
        fs::write(&file, config)?;
        let child = Command::new(program)
            .arg("-c")
            .arg(file)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--log-level", "error"])
            .spawn()?;
        let envoy = Self {
            child,
            address: address.to_string(),
        };
        for _ in 0..200 {
            if TcpStream::connect(&envoy.address).await.is_ok() {
                return Ok(envoy);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err("Envoy does not start".into())
    }

    fn slice(&self, seeded: &Seeded, time: Duration) -> Outcome<Percentiles> {
        let load = Load {
            address: self.address.clone(),
            plain_keys: seeded.plain_keys.iter().take(HOT).cloned().collect(),
            time,
        };
        let mut client = Command::new(std::env::current_exe()?)
            .arg("envoy-client")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = client.stdin.take().ok_or("no input")?;
        input.write_all(&serde_json::to_vec(&load)?)?;
        drop(input);
        let output = client.wait_with_output()?;
        Ok(serde_json::from_slice(&output.stdout).map_err(|_| "the client has failed")?)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program of Envoy, where `tests/run` puts it.
fn program() -> Option<PathBuf> {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/lib");
    let versions = site.read_dir().ok()?.filter_map(Result::ok);
    let mut programs =
        versions.map(|version| version.path().join("site-packages/envoy/_bin/envoy"));
    programs.find(|program| program.is_file())
}
