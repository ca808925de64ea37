//! The clients of the measurement: processes of their own, which share one core.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::future::poll_fn;
use std::io::{self, BufRead, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use claviger::pb::claviger::v1 as pb;
use h2::client::SendRequest;
use hyper::Request;
use hyper::body::Bytes;
use prost::Message;
use rustix::process::setpriority_process;
use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::Outcome;
use crate::questions::{frame, question};

/// The number of connections of the client that verifies, each with one call in progress.
pub(super) const VERIFY_CONNECTIONS: usize = 4;

/// How long a client runs before its latencies count.
pub(super) const WARM_UP: Duration = Duration::from_millis(300);

/// The priority of the client that administers, as low as that of the server's administration. Otherwise the latencies would be
/// those of two clients that compete for one core.
const NICE: i32 = 10;

/// The address of the client that administers: it takes the limits of an address from nobody else.
const ADMINISTRATOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const VERIFY: &str = "KeyVerify/Verify";
const ISSUE_KEY: &str = "KeyAdmin/IssueKey";
const REVOKE_KEY: &str = "KeyAdmin/RevokeKey";

/// A process that calls the server. It reads its parameters from a line of standard input and writes its result to standard output.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Client {
    /// Verifies for a given time.
    Verify,
    /// Issues and revokes keys for a given time.
    Operate,
    /// Administers until standard input ends.
    Administer,
}

#[derive(Serialize, Deserialize)]
pub(super) struct VerifyLoad {
    pub(super) address: String,
    pub(super) bearer: String,
    pub(super) plain_keys: Vec<String>,
    pub(super) time: Duration,
}

#[derive(Serialize, Deserialize)]
pub(super) struct OperatorLoad {
    pub(super) address: String,
    pub(super) bearer: String,
    /// The encoded request to issue a key.
    pub(super) issue: Vec<u8>,
    pub(super) time: Duration,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) calls: usize,
    /// Percentiles of the latency, in microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AdminLoad {
    pub(super) address: String,
    /// The calls of each list are made one after the other, again and again. The lists are called at the same time.
    pub(super) lists: Vec<Vec<AdminCall>>,
    /// The number of connections over which the calls with a key are spread, and those without.
    pub(super) connections: usize,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct AdminCall {
    pub(super) method: String,
    pub(super) bearer: Option<String>,
    /// The file of the message.
    pub(super) message: PathBuf,
}

/// The number of answers by the method and the gRPC status.
pub(super) type Administered = BTreeMap<String, usize>;

/// Runs a client.
pub(crate) async fn run(client: Client) -> Outcome<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let result = match client {
        Client::Verify => serde_json::to_string(&verify(serde_json::from_str(&line)?).await?)?,
        Client::Operate => serde_json::to_string(&operate(serde_json::from_str(&line)?).await?)?,
        Client::Administer => {
            serde_json::to_string(&administer(serde_json::from_str(&line)?).await?)?
        }
    };
    println!("{result}");
    Ok(())
}

/// Opens a connection from an address, whose windows never fill.
async fn connect(address: &str, from: Ipv4Addr) -> io::Result<SendRequest<Bytes>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let address = address.parse().map_err(io::Error::other)?;
    let socket = socket.connect(address).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(16 * 1024 * 1024)
        .initial_connection_window_size(256 * 1024 * 1024)
        .handshake(socket)
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

fn request(address: &str, method: &str, bearer: Option<&str>) -> Outcome<Request<()>> {
    let mut request = Request::post(format!("http://{address}/claviger.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    Ok(request.body(())?)
}

/// Makes a call, and returns its gRPC status and its body.
async fn call(
    sender: &mut SendRequest<Bytes>,
    request: Request<()>,
    mut body: Bytes,
) -> Result<(String, Vec<u8>), h2::Error> {
    poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (mut answer, mut stream) = sender.send_request(request, false)?;
    let sending = async {
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let Some(capacity) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return Ok(());
            };
            let part = body.split_to(capacity?.min(body.len()));
            stream.send_data(part, body.is_empty())?;
        }
        Ok::<_, h2::Error>(())
    };
    // A call that is refused at once is answered before its body was sent.
    let answer = tokio::select! {
        answer = &mut answer => answer?,
        sent = sending => {
            // If the stream was reset, then the answer says why.
            let _ = sent;
            answer.await?
        }
    };
    let status = |headers: &hyper::HeaderMap| {
        let status = headers
            .get("grpc-status")
            .and_then(|status| status.to_str().ok());
        status.map(str::to_owned)
    };
    if let Some(status) = status(answer.headers()) {
        return Ok((status, Vec::new()));
    }
    let mut body = answer.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        message.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((status(&trailers).unwrap_or_default(), message))
}

async fn verify(load: VerifyLoad) -> Outcome<Measured> {
    let load = Arc::new(load);
    let messages: Vec<Bytes> = load
        .plain_keys
        .iter()
        .map(|key| frame(&question(key.clone())).into())
        .collect();
    let messages = Arc::new(messages);
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..VERIFY_CONNECTIONS {
        let (load, messages, next) = (Arc::clone(&load), Arc::clone(&messages), Arc::clone(&next));
        let mut sender = connect(&load.address, Ipv4Addr::LOCALHOST).await?;
        let template = request(&load.address, VERIFY, Some(&load.bearer))?;
        connections.spawn(async move {
            let mut latencies = Vec::new();
            // There is a latency, however slow the server is.
            while began.elapsed() < WARM_UP + load.time || latencies.is_empty() {
                let message = &messages[next.fetch_add(1, Ordering::Relaxed) % messages.len()];
                let called = Instant::now();
                let outcome = call(&mut sender, template.clone(), message.clone()).await;
                let latency = called.elapsed();
                let (status, answer) = outcome.map_err(|error| error.to_string())?;
                // The prefix has five bytes. The first field of the message is the verdict.
                if status != "0" || answer.get(5..7) != Some(&[0x08, pb::Verdict::Allowed as u8]) {
                    return Err(format!("status {status}, answer {answer:x?}"));
                }
                if called - began >= WARM_UP {
                    latencies.push(latency.as_secs_f64() * 1e6);
                }
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(connection) = connections.join_next().await {
        latencies.extend(connection??);
    }
    Ok(measured(next.load(Ordering::Relaxed), latencies))
}

fn measured(calls: usize, mut latencies: Vec<f64>) -> Measured {
    latencies.sort_by(f64::total_cmp);
    Measured {
        calls,
        p50: latencies[latencies.len() / 2],
        p99: latencies[latencies.len() * 99 / 100],
    }
}

/// Issues a key and revokes it, again and again. Both together count as one call.
async fn operate(load: OperatorLoad) -> Outcome<Measured> {
    let mut sender = connect(&load.address, Ipv4Addr::LOCALHOST).await?;
    let bearer = Some(load.bearer.as_str());
    let issue = request(&load.address, ISSUE_KEY, bearer)?;
    let revoke = request(&load.address, REVOKE_KEY, bearer)?;
    let message: Bytes = framed(&load.issue).into();
    let began = Instant::now();
    let mut latencies = Vec::new();
    while began.elapsed() < WARM_UP + load.time || latencies.is_empty() {
        let called = Instant::now();
        let (status, answer) = call(&mut sender, issue.clone(), message.clone()).await?;
        let answer = answer.get(5..).unwrap_or_default();
        let issued = pb::IssueKeyResponse::decode(answer)?;
        let key = issued.key.ok_or(format!("IssueKey: status {status}"))?;
        let revocation = pb::RevokeKeyRequest {
            key_id: key.id,
            ..Default::default()
        };
        let message = framed(&revocation.encode_to_vec()).into();
        let (status, _) = call(&mut sender, revoke.clone(), message).await?;
        if status != "0" {
            return Err(format!("RevokeKey: status {status}").into());
        }
        if called - began >= WARM_UP {
            latencies.push(called.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(measured(latencies.len(), latencies))
}

/// A message as gRPC sends it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// A connection that is opened again when the server has closed it. The server does so when a client sends the bodies of calls that
/// were refused already.
struct Connection {
    address: String,
    sender: Mutex<SendRequest<Bytes>>,
}

impl Connection {
    async fn open(address: &str) -> Outcome<Arc<Self>> {
        Ok(Arc::new(Self {
            address: address.to_owned(),
            sender: Mutex::new(connect(address, ADMINISTRATOR).await?),
        }))
    }

    async fn call(&self, request: Request<()>, body: Bytes) -> Result<String, h2::Error> {
        let mut sender = self.sender.lock().await.clone();
        let outcome = call(&mut sender, request, body).await;
        if outcome.is_err() {
            let mut sender = self.sender.lock().await;
            // Another call may have opened it again.
            if poll_fn(|cx| sender.poll_ready(cx)).await.is_err()
                && let Ok(opened) = connect(&self.address, ADMINISTRATOR).await
            {
                *sender = opened;
            }
        }
        outcome.map(|(status, _)| status)
    }
}

async fn administer(load: AdminLoad) -> Outcome<Administered> {
    setpriority_process(None, NICE)?;
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push((
            Connection::open(&load.address).await?,
            Connection::open(&load.address).await?,
        ));
    }
    let (answered, mut answers) = mpsc::unbounded_channel();
    let mut lists = JoinSet::new();
    // Many lists have the same messages.
    let mut bodies = BTreeMap::<_, Bytes>::new();
    for (first, list) in load.lists.into_iter().enumerate() {
        let (with_a_key, without_a_key) = &connections[first % connections.len()];
        let mut calls = Vec::new();
        for AdminCall {
            method,
            bearer,
            message,
        } in list
        {
            let body = match bodies.entry(message) {
                Entry::Occupied(read) => read.get().clone(),
                Entry::Vacant(unread) => {
                    let body = Bytes::from(framed(&fs::read(unread.key())?));
                    unread.insert(body).clone()
                }
            };
            let connection = match &bearer {
                Some(_) => Arc::clone(with_a_key),
                None => Arc::clone(without_a_key),
            };
            let request = request(&load.address, &method, bearer.as_deref())?;
            calls.push((method, connection, request, body));
        }
        let answered = answered.clone();
        lists.spawn(async move {
            // Lists that are equal begin with different calls.
            for (method, connection, request, body) in calls.iter().cycle().skip(first) {
                let outcome = connection.call(request.clone(), body.clone()).await;
                let outcome = outcome.unwrap_or_else(|_| "connection closed".to_owned());
                let _ = answered.send(format!("{method} {outcome}"));
            }
        });
    }
    // Ends when the measurement is over.
    tokio::task::spawn_blocking(|| io::stdin().lock().read_to_end(&mut Vec::new())).await??;
    drop(lists);
    let mut administered = Administered::new();
    while let Ok(answer) = answers.try_recv() {
        *administered.entry(answer).or_default() += 1;
    }
    Ok(administered)
}
