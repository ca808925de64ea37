//! The load: a given number of calls over some connections, with some calls in flight on each, in its own process.
//!
//! The load writes HTTP/2 frames to the socket itself, because it must cost less than the server that it measures. A gRPC client
//! costs more, and h2load can send only one body. Frames and header blocks are prepared in advance, and only the first bytes of
//! each response are checked. HTTP/2 is RFC 9113, header compression RFC 7541.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::{Certificate, Socket, connect};
use crate::http1;

/// The number of connections, and of calls in flight on each.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
}

impl Shape {
    /// How the load is, if nothing else is said.
    pub(crate) const USUAL: Self = Self {
        connections: 8,
        in_flight: 32,
    };
}

/// The latencies of the calls of a load, in microseconds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Latencies {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Latencies {
    fn of(mut each: Vec<f64>) -> Self {
        each.sort_by(f64::total_cmp);
        let at = |percent: usize| each.get(each.len() * percent / 100).copied();
        Self {
            p50: at(50).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
        }
    }
}

/// The parameters of a load.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    /// The address of the server.
    pub(crate) address: String,
    /// The API key of the caller.
    pub(crate) bearer: String,
    /// The path of the call: the service and its method.
    pub(crate) method: String,
    /// The file of the gRPC messages with their prefixes, one after the other, all of one length.
    pub(crate) questions: PathBuf,
    /// The length of each message with its prefix, in bytes.
    pub(crate) length: usize,
    /// The index of the first message to send; the first message follows the last.
    pub(crate) first: usize,
    /// The number of calls to make.
    pub(crate) calls: usize,
    /// The first bytes of each expected response message.
    pub(crate) answers_begin: Vec<u8>,
    pub(crate) shape: Shape,
    pub(crate) protocol: Protocol,
    /// The certificate of the server, if it serves TLS.
    pub(crate) certificate: Option<Certificate>,
}

/// How the messages are sent.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    /// Each as a gRPC call.
    Calls,
    /// As messages of one gRPC stream on each connection.
    Stream,
    /// Each as a request over HTTP/1.1.
    Http1,
}

/// Reads the parameters from standard input, runs the load, and prints the latencies. An unexpected response ends it with an error.
pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let load: Load = serde_json::from_reader(io::stdin())?;
    let (load, questions) = (Arc::new(load.clone()), Arc::new(read_questions(&load)?));
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..load.shape.connections {
        let (load, questions, next) = (load.clone(), questions.clone(), next.clone());
        connections.spawn(async move {
            if load.protocol == Protocol::Http1 {
                return over_http1(&load, &questions, &next).await;
            }
            let connection = Connection::open(&load, &questions, &next).await?;
            connection.run().await
        });
    }
    let mut latencies = Vec::with_capacity(load.calls);
    while let Some(connection) = connections.join_next().await {
        latencies.extend(connection?.map_err(|error| error as Box<dyn Error>)?);
    }
    if latencies.len() != load.calls {
        return Err(format!("{} of {} calls were answered", latencies.len(), load.calls).into());
    }
    serde_json::to_writer(io::stdout(), &Latencies::of(latencies))?;
    Ok(())
}

/// Reads only the messages of this slice, because a file for a million keys contains more.
fn read_questions(load: &Load) -> io::Result<Vec<u8>> {
    let mut file = File::open(&load.questions)?;
    let all = file.metadata()?.len() as usize / load.length;
    let first = load.first % all;
    file.seek(SeekFrom::Start((first * load.length) as u64))?;
    let mut questions = Vec::new();
    let wanted = load.calls.min(all) * load.length;
    file.by_ref()
        .take(wanted as u64)
        .read_to_end(&mut questions)?;
    file.rewind()?;
    let rest = wanted - questions.len();
    file.take(rest as u64).read_to_end(&mut questions)?;
    Ok(questions)
}

/// Sends requests over HTTP/1.1, one at a time, until none are left, and returns the latencies of those on this connection.
async fn over_http1(
    load: &Load,
    questions: &[u8],
    next: &AtomicUsize,
) -> Result<Vec<f64>, Box<dyn Error + Send + Sync>> {
    let mut socket = load.connect().await?;
    let mut latencies = Vec::new();
    let mut input = vec![0; 16 * 1024];
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.calls {
            return Ok(latencies);
        }
        let start = number * load.length % questions.len();
        let began = Instant::now();
        let request = &questions[start..start + load.length];
        let response = http1::exchange(&mut *socket, request, &mut input).await?;
        load.check(response)?;
        latencies.push(microseconds(began));
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_HEAD: usize = 9;
/// The length of the prefix of a message.
const PREFIX: usize = 5;
const LARGEST_FRAME: usize = 16_384;
const FIRST_WINDOW: usize = 65_535;
const LARGEST_WINDOW: u32 = 0x7fff_ffff;

struct Connection<'l> {
    load: &'l Load,
    questions: &'l [u8],
    /// The number of the next call, shared by all connections.
    next: &'l AtomicUsize,
    socket: Box<dyn Socket>,
    out: Vec<u8>,
    /// The header block of each call after the first.
    block: Vec<u8>,
    stream: u32,
    /// The flow-control window of the connection, in bytes.
    window: usize,
    /// The same of the only stream, if there is only one.
    stream_window: usize,
    /// The calls in flight by their streams: when they began, and whether a message has arrived.
    calls: HashMap<u32, (Instant, bool)>,
    /// When the messages were sent that wait for a response, if there is only one stream.
    sent: VecDeque<Instant>,
    /// What has arrived of responses that are not complete, if there is only one stream.
    received: Vec<u8>,
    /// Whether each connection has one stream of messages in the place of calls.
    is_stream: bool,
    /// Whether the only stream has ended.
    is_over: bool,
    /// The latency of each answered call, in microseconds.
    latencies: Vec<f64>,
}

impl<'l> Connection<'l> {
    async fn open(load: &'l Load, questions: &'l [u8], next: &'l AtomicUsize) -> io::Result<Self> {
        let socket = load.connect().await?;
        let mut connection = Self {
            load,
            questions,
            next,
            socket,
            out: Vec::new(),
            block: first_block(load),
            stream: 1,
            window: FIRST_WINDOW,
            stream_window: FIRST_WINDOW,
            calls: HashMap::new(),
            sent: VecDeque::new(),
            received: Vec::new(),
            is_stream: load.protocol == Protocol::Stream,
            is_over: load.protocol != Protocol::Stream,
            latencies: Vec::new(),
        };
        connection.out.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // Setting 4 is the window of each stream; WINDOW_UPDATE enlarges that of the connection. Both are so large that they
        // never fill.
        let mut settings = vec![0, 4];
        settings.extend(LARGEST_WINDOW.to_be_bytes());
        connection.frame(SETTINGS, 0, 0, &settings);
        let widen = LARGEST_WINDOW - FIRST_WINDOW as u32;
        connection.frame(WINDOW_UPDATE, 0, 0, &widen.to_be_bytes());
        if connection.is_stream {
            let block = std::mem::take(&mut connection.block);
            connection.frame(HEADERS, END_HEADERS, connection.stream, &block);
        }
        Ok(connection)
    }

    /// Makes calls until none are left, and returns the latencies of those on this connection.
    async fn run(mut self) -> Result<Vec<f64>, Box<dyn Error + Send + Sync>> {
        let mut input = vec![0; 256 * 1024];
        let mut filled = 0;
        loop {
            while self.may_send() && self.send() {}
            if self.in_flight() == 0 {
                if self.is_over {
                    return Ok(self.latencies);
                }
                // No message is left.
                self.frame(DATA, END_STREAM, self.stream, &[]);
            }
            self.socket.write_all(&self.out).await?;
            self.socket.flush().await?;
            self.out.clear();
            let read = self.socket.read(&mut input[filled..]).await?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            filled += read;
            let mut used = 0;
            while let Some(head) = input[used..filled].first_chunk::<FRAME_HEAD>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let end = used + FRAME_HEAD + length;
                if end > filled {
                    break;
                }
                let head = *head;
                self.take(&head, &input[used + FRAME_HEAD..end])?;
                used = end;
            }
            input.copy_within(used..filled, 0);
            filled -= used;
        }
    }

    fn in_flight(&self) -> usize {
        self.calls.len() + self.sent.len()
    }

    fn may_send(&self) -> bool {
        let length = self.load.length;
        self.in_flight() < self.load.shape.in_flight
            && self.window >= length
            && (!self.is_stream || self.stream_window >= length)
    }

    /// Writes the next call or message to the buffer. Returns `false` if none is left.
    fn send(&mut self) -> bool {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.load.calls {
            return false;
        }
        let length = self.load.length;
        let start = number * length % self.questions.len();
        let (stream, questions) = (self.stream, self.questions);
        if !self.is_stream {
            let block = std::mem::replace(&mut self.block, LATER_BLOCK.to_vec());
            self.frame(HEADERS, END_HEADERS, stream, &block);
        }
        let mut pieces = questions[start..start + length]
            .chunks(LARGEST_FRAME)
            .peekable();
        while let Some(piece) = pieces.next() {
            let is_last = pieces.peek().is_none() && !self.is_stream;
            let flags = if is_last { END_STREAM } else { 0 };
            self.frame(DATA, flags, stream, piece);
        }
        self.window -= length;
        if self.is_stream {
            self.stream_window -= length;
            self.sent.push_back(Instant::now());
        } else {
            self.calls.insert(stream, (Instant::now(), false));
            self.stream += 2;
        }
        true
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
        self.out.extend(length);
        self.out.extend([kind, flags]);
        self.out.extend(stream.to_be_bytes());
        self.out.extend(payload);
    }

    /// Handles a frame from the server.
    fn take(&mut self, head: &[u8; FRAME_HEAD], payload: &[u8]) -> Result<(), String> {
        let [_, _, _, kind, flags, stream @ ..] = *head;
        let stream = u32::from_be_bytes(stream);
        match kind {
            DATA if self.is_stream => self.take_messages(payload)?,
            HEADERS if self.is_stream => {
                self.is_over = flags & END_STREAM != 0;
                if self.is_over && !self.sent.is_empty() {
                    return Err("the stream ended early".to_owned());
                }
            }
            DATA | HEADERS => {
                let call = self.calls.get_mut(&stream);
                let (began, has_message) = call.ok_or("a frame of no call")?;
                if kind == DATA && !*has_message {
                    *has_message = true;
                    self.load.check(payload.get(PREFIX..).unwrap_or_default())?;
                }
                if flags & END_STREAM != 0 {
                    if !*has_message {
                        return Err("a call was answered with an error".to_owned());
                    }
                    self.latencies.push(microseconds(*began));
                    self.calls.remove(&stream);
                }
            }
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().copied().unwrap_or_default();
                self.window += u32::from_be_bytes(more) as usize;
            }
            WINDOW_UPDATE if self.is_stream => {
                let more = payload.first_chunk().copied().unwrap_or_default();
                self.stream_window += u32::from_be_bytes(more) as usize;
            }
            SETTINGS | PING | WINDOW_UPDATE => {}
            other => return Err(format!("the server sent a frame of type {other}")),
        }
        Ok(())
    }

    /// Takes the responses that are complete.
    fn take_messages(&mut self, payload: &[u8]) -> Result<(), String> {
        self.received.extend(payload);
        let mut rest = self.received.as_slice();
        while let Some(([0, length @ ..], after)) = rest.split_first_chunk::<PREFIX>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some((message, after)) = after.split_at_checked(length) else {
                break;
            };
            self.load.check(message)?;
            let sent = self.sent.pop_front().ok_or("a response to no message")?;
            self.latencies.push(microseconds(sent));
            rest = after;
        }
        self.received = rest.to_vec();
        Ok(())
    }
}

impl Load {
    async fn connect(&self) -> io::Result<Box<dyn Socket>> {
        let alpn: &[u8] = match self.protocol {
            Protocol::Calls | Protocol::Stream => b"h2",
            Protocol::Http1 => b"http/1.1",
        };
        connect(&self.address, self.certificate.as_ref(), alpn).await
    }

    fn check(&self, message: &[u8]) -> Result<(), String> {
        if message.starts_with(&self.answers_begin) {
            return Ok(());
        }
        Err(format!("a response begins with {:x?}", message.get(..8)))
    }
}

fn microseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// The header block of a connection's first call, which adds five fields to the dynamic table of the connection. The numbers are
/// indexes of the static table of RFC 7541, appendix A.
fn first_block(load: &Load) -> Vec<u8> {
    let mut block = vec![0x80 + 3, 0x80 + 6];
    let mut field = |name: &[u8], value: &str| {
        block.extend(name);
        block.extend(text(value));
    };
    field(&[0x40 + 4], &load.method);
    field(&[0x40 + 1], &load.address);
    field(&[0x40 + 31], "application/grpc");
    field(&[&[0x40], text("te").as_slice()].concat(), "trailers");
    field(&[0x40 + 23], &format!("Bearer {}", load.bearer));
    block
}

/// The same fields again, by their indexes in the tables, as gRPC clients send them.
const LATER_BLOCK: [u8; 7] = [
    0x80 + 3,
    0x80 + 6,
    0x80 + 66,
    0x80 + 65,
    0x80 + 64,
    0x80 + 63,
    0x80 + 62,
];

fn text(text: &str) -> Vec<u8> {
    assert!(text.len() < 127, "a length of one byte");
    [&[text.len() as u8], text.as_bytes()].concat()
}
