//! The measured servers, each in its own process.

use std::convert::Infallible;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger::auth::{AuthError, Principal};
use claviger::config::TransportArgs;
use claviger::domain::ids::KeyId;
use claviger::domain::key::Digest;
use claviger::grpc::{CallMetrics, Destination, Dispatch, Guard};
use claviger::pb::claviger::v1 as pb;
use claviger::transport::{Acceptor, Listener, Threads};
use hyper::{Request, Response};
use pb::key_verify_server::{KeyVerify, KeyVerifyServer};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::connect::Certificate;

/// The number of clock ticks per second in `/proc` (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;

/// One service, without a check of the caller.
struct Alone<S> {
    service: KeyVerifyServer<S>,
    /// Whether a whole request is answered with an empty message at once.
    answers_whole: bool,
}

impl<S: KeyVerify> Dispatch for Alone<S> {
    type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn prove(&self, _: &str, peer: Option<IpAddr>) -> Result<Principal, AuthError> {
        Ok(Principal {
            key: KeyId::from_bytes([0; 16]),
            secret: Digest {
                pepper: 0,
                mac: [0; 32],
            },
            peer,
            answer_by: None,
        })
    }

    fn answer(
        &self,
        _: Destination,
        _: &Principal,
        message: &[u8],
    ) -> Option<Result<Vec<u8>, Status>> {
        if !self.answers_whole {
            return None;
        }
        // The request is decoded, as for every service.
        pb::VerifyRequest::decode(message).ok()?;
        Some(Ok(pb::VerifyResponse::default().encode_to_vec()))
    }

    fn call(&self, _: Destination, request: Request<Body>) -> Self::Answer {
        self.service.clone().call(request)
    }
}

/// Serves one service with the same transport and guard as `claviger serve --verify-threads 1`, and prints its address on
/// standard output. With `answers_whole` a whole request is answered like a Verify of claviger, without tonic.
pub(crate) async fn serve_alone(
    service: impl KeyVerify,
    answers_whole: bool,
) -> Result<(), Box<dyn Error>> {
    let listener = Listener::tcp("127.0.0.1:0".parse()?)?;
    println!("{}", listener.address().ok_or("no address")?);
    // The defaults of `claviger serve`.
    let limits = TransportArgs {
        verify_threads: Some(1),
        max_connections: 4_096,
        max_connections_per_address: 256,
        max_calls: 8_192,
        call_timeout: Duration::from_secs(30),
        connection_age: Duration::from_mins(5),
    };
    let service = KeyVerifyServer::new(service).max_decoding_message_size(64 * 1024);
    let stop = CancellationToken::new();
    let guard = Guard::new(
        Alone {
            service,
            answers_whole,
        },
        CallMetrics::for_threads(1, None).remove(0),
        limits.max_calls,
        limits.call_timeout,
        stop.clone(),
    );
    let threads = Threads::start(limits.verify_threads())?;
    let acceptor = Acceptor {
        args: limits,
        tls: None,
        refusals: Arc::default(),
        stop,
    };
    let accepting = acceptor.accept(listener, &threads, move |_, accepted| {
        let guard = guard.clone();
        accepted.http2(move |peer| guard.for_peer(peer))
    });
    accepting.await??;
    Ok(())
}

/// Builds the server `claviger-stock` with these arguments of `cargo build`, and returns the path of its program.
pub(crate) fn stock_program(args: &[&str]) -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", "claviger-stock"])
        .args(["--message-format", "json", "--quiet"])
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    let messages = String::from_utf8(output.stdout)?;
    let mut programs = messages.lines().rev().filter_map(|message| {
        let message: serde_json::Value = serde_json::from_str(message).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    Ok(programs.next().ok_or("the server was not built")?)
}

/// A server process. Dropping it kills the process.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) address: String,
    /// The address for HTTP/1.1; empty if there is none.
    pub(crate) http_address: String,
    /// Its certificate, if it serves TLS.
    pub(crate) certificate: Option<Certificate>,
}

impl ServerProcess {
    /// Starts this program as one of the servers to compare with.
    pub(crate) fn reference(args: &[&OsStr]) -> Result<Self, Box<dyn Error>> {
        Self::start(&std::env::current_exe()?, args)
    }

    /// Starts a program that prints its address on standard output.
    pub(crate) fn start(program: &Path, args: &[&OsStr]) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(program)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut address)?;
        if address.is_empty() {
            return Err(format!("{args:?} does not start").into());
        }
        Ok(Self {
            child,
            address: address.trim().to_owned(),
            http_address: String::new(),
            certificate: None,
        })
    }

    /// Starts `claviger serve` with these flags and over TLS with this certificate.
    pub(crate) fn claviger_over_tls(
        flags: &[&OsStr],
        certificate: Certificate,
    ) -> Result<Self, Box<dyn Error>> {
        let mut flags = flags.to_vec();
        for (flag, file) in [
            ("--tls-cert", &certificate.certificate),
            ("--tls-key", &certificate.key),
        ] {
            flags.extend([OsStr::new(flag), file.as_os_str()]);
        }
        let (mut process, _) = Self::claviger(&flags)?;
        process.certificate = Some(certificate);
        Ok(process)
    }

    /// Starts `claviger serve` with these flags, and waits until its log says that the keys are loaded. Returns the process and
    /// how long the start took.
    pub(crate) fn claviger(flags: &[&OsStr]) -> Result<(Self, Duration), Box<dyn Error>> {
        let began = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CLAVIGER_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
            ])
            .args(["--log-format", "json"])
            .args(flags)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?).lines();
        let mut lines = String::new();
        let mut addresses = None;
        let (address, http_address) = loop {
            let Some(line) = log.next().transpose()? else {
                return Err(format!("claviger does not start:\n{lines}").into());
            };
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let (Some(grpc), Some(http)) = (event["grpc"].as_str(), event["http"].as_str()) {
                addresses = Some((grpc.to_owned(), http.to_owned()));
            }
            if event["message"] == "keys loaded"
                && let Some(addresses) = addresses.take()
            {
                break addresses;
            }
            lines += &line;
            lines.push('\n');
        };
        let took = began.elapsed();
        // The log is read to its end, so that a full pipe does not block the server.
        std::thread::spawn(move || log.for_each(drop));
        let process = Self {
            child,
            address,
            http_address,
            certificate: None,
        };
        Ok((process, took))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that the process has used so far, user and system, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64, Box<dyn Error>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in brackets, may contain any character. User and system time are fields 14 and 15 of the line.
        let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
        let mut times = fields.split_whitespace().skip(11);
        let mut time =
            || -> Result<f64, Box<dyn Error>> { Ok(times.next().ok_or("no time")?.parse()?) };
        Ok((time()? + time()?) / TICKS)
    }

    /// The resident memory of the process, in bytes.
    pub(crate) fn memory(&self) -> Result<f64, Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line
            .ok_or("no VmRSS")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kib * 1024.0)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The flags to serve the authority of this data directory.
pub(crate) fn in_dir(dir: &Path) -> [&OsStr; 2] {
    [OsStr::new("--data-dir"), dir.as_os_str()]
}
