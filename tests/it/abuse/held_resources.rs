//! Abusers that take what there is and hold it.

use std::time::{Duration, Instant};

use claviger::pb::claviger::v1::{KeyFilter, ListKeysRequest};
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use super::attacked_server::Target;
use crate::fixtures::eventually;
use crate::fixtures::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, Raw, SETTINGS, WINDOW_UPDATE, call,
    frame, message,
};

const ABUSER: u8 = 2;
/// What one address may have by default, and how many calls a connection may have in flight.
const CONNECTIONS: usize = 256;
const STREAMS: u32 = 100;

/// How long it takes until the server closes a connection.
async fn closed(raw: &mut Raw, within: Duration) -> Duration {
    let began = Instant::now();
    let mut read = [0; 4096];
    let reading = async { while !matches!(raw.0.read(&mut read).await, Ok(0) | Err(_)) {} };
    timeout(within, reading)
        .await
        .expect("the connection is still open");
    began.elapsed()
}

/// A connection that the server serves: the places of the abuser before may not all be free yet.
async fn taken(target: &Target) -> Raw {
    eventually("there is a place", async || {
        let mut raw = Raw::http2(&target.address, ABUSER, &[]).await;
        raw.next().await.map(|_| raw)
    })
    .await
}

/// Seen red without the timeout for the first bytes.
pub(super) async fn silence(target: Target) -> String {
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(Raw::connect(&target.address, ABUSER).await.unwrap());
    }
    silent.push(Raw::connect(&target.http, ABUSER).await.unwrap());
    let mut longest = Duration::ZERO;
    for raw in &mut silent {
        longest = longest.max(closed(raw, Duration::from_secs(10)).await);
    }
    format!("{} connections closed after {longest:.1?}", silent.len())
}

/// Seen red without the timeout for the first bytes.
pub(super) async fn slow_preface(target: Target) -> String {
    let mut slow = Raw::connect(&target.address, ABUSER).await.unwrap();
    for (sent, byte) in PREFACE.iter().enumerate() {
        if slow.send(&[*byte]).await.is_err() {
            return format!("closed after {sent} bytes of the preface");
        }
        sleep(Duration::from_millis(500)).await;
    }
    panic!("it was let finish");
}

/// A client that starts with another frame than SETTINGS is closed at once, a client that stops before it in time. Seen red when hyper is
/// asked as soon as the preface is there.
pub(super) async fn no_settings(target: Target) -> String {
    let mut pinging = Raw::connect(&target.address, ABUSER).await.unwrap();
    let hello = [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat();
    pinging.send(&hello).await.unwrap();
    let at_once = closed(&mut pinging, Duration::from_secs(2)).await;
    let mut halting = Raw::connect(&target.address, ABUSER).await.unwrap();
    halting.send(PREFACE).await.unwrap();
    halting
        .send(&frame(SETTINGS, 0, 0, &[])[..8])
        .await
        .unwrap();
    let in_time = closed(&mut halting, Duration::from_secs(10)).await;
    format!("closed after {at_once:.1?} and {in_time:.1?}")
}

/// Seen red without the cap: all are kept.
pub(super) async fn connections(target: Target) -> String {
    let mut kept = Vec::new();
    for _ in 0..500 {
        // What is beyond the cap is closed at once, which may even be seen here.
        let Ok(mut raw) = Raw::connect(&target.address, ABUSER).await else {
            continue;
        };
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        if raw.send(&hello).await.is_ok() && raw.next().await.is_some() {
            kept.push(raw);
        }
    }
    assert_eq!(kept.len(), CONNECTIONS);
    let mut other = Raw::http2(&target.address, 3, &[]).await;
    assert_eq!(other.next().await.unwrap().kind, SETTINGS);
    format!("{} of 500 were taken", kept.len())
}

/// Streams that never end and need no key: watches of health, as many as the connections of an address have room for. Seen
/// red without the bound on them, by memory.
pub(super) async fn watches(target: Target) -> String {
    let mut watching = Vec::new();
    let head = call("/grpc.health.v1.Health/Watch", &[]);
    let (mut open, mut refused) = (0, 0);
    for _ in 0..CONNECTIONS {
        let mut raw = taken(&target).await;
        for i in 0..STREAMS {
            let stream = 2 * i + 1;
            let frames = [
                frame(HEADERS, END_HEADERS, stream, &head),
                frame(DATA, END_STREAM, stream, &[0; 5]),
            ];
            raw.send(&frames.concat()).await.unwrap();
        }
        let mut told = 0;
        while told < STREAMS {
            let frame = raw.next().await.expect("the connection is kept");
            if frame.kind == HEADERS {
                told += 1;
                let is_end = frame.flags & END_STREAM != 0;
                *(if is_end { &mut refused } else { &mut open }) += 1;
            }
        }
        watching.push(raw);
    }
    assert!(open <= 256, "{open} are open");
    format!("{open} are open, {refused} were refused")
}

/// A connection on which bodies are sent, no faster than HTTP/2 allows.
struct Sender {
    raw: Raw,
    window: usize,
    ended: u32,
}

impl Sender {
    /// Reads a frame, for the room that it gives or the call that it ends.
    async fn look(&mut self) {
        let frame = self.raw.next().await.expect("the connection is kept");
        if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
            self.window += u32::from_be_bytes(*frame.payload.first_chunk().unwrap()) as usize;
        }
        self.ended += u32::from(frame.kind == HEADERS && frame.flags & END_STREAM != 0);
    }
}

/// Calls that announce a body and never finish it, more than one address has places for, each with 8 KiB of it. Seen red without
/// the bound on unfinished bodies (by memory), and without a longest time for calls (none is ever answered).
pub(super) async fn bodies(target: Target) -> String {
    let mut senders = Vec::new();
    let part = [&[0, 0, 15, 0, 0], [7; 8 * 1024 - 5].as_slice()].concat();
    let head = call("/claviger.v1.KeyAdmin/IssueKey", &[]);
    for _ in 0..64 {
        let mut sender = Sender {
            raw: taken(&target).await,
            window: 65_535,
            ended: 0,
        };
        for i in 0..STREAMS {
            let stream = 2 * i + 1;
            while sender.window < part.len() {
                sender.look().await;
            }
            let frames = [
                frame(HEADERS, END_HEADERS, stream, &head),
                frame(DATA, 0, stream, &part),
            ];
            sender.raw.send(&frames.concat()).await.unwrap();
            sender.window -= part.len();
        }
        senders.push(sender);
    }
    let mut answered = 0;
    for mut sender in senders {
        let ending = async {
            while sender.ended < STREAMS {
                sender.look().await;
            }
        };
        timeout(Duration::from_secs(30), ending)
            .await
            .expect("every call is ended");
        answered += sender.ended;
    }
    format!("{answered} calls were answered all the same")
}

/// Long answers, for which there is every room that HTTP/2 can give, and which are never read. Seen red without the bound
/// on the time for which a peer takes nothing.
pub(super) async fn unread(target: Target) -> String {
    let largest = u32::MAX / 2;
    let mut raw = Raw::http2(&target.address, ABUSER, &[(4, largest)]).await;
    let more = (largest - 65_535).to_be_bytes();
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &more)).await.unwrap();
    let bearer = format!("Bearer {}", target.operator);
    let question = message(&ListKeysRequest {
        filter: Some(KeyFilter {
            realm: "demo".to_owned(),
            ..Default::default()
        }),
        page_size: 1000,
        ..Default::default()
    });
    let began = Instant::now();
    for i in 0..STREAMS {
        let stream = 2 * i + 1;
        let head = call(
            "/claviger.v1.KeyAdmin/ListKeys",
            &[("authorization", &bearer)],
        );
        raw.send(&frame(HEADERS, END_HEADERS, stream, &head))
            .await
            .unwrap();
        raw.send(&frame(DATA, END_STREAM, stream, &question))
            .await
            .unwrap();
    }
    // To write is the only way to see, without reading, that the server has closed it.
    let writing = async {
        while raw.send(&frame(PING, 0, 0, &[0; 8])).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    // Twenty seconds, after a busy machine has made enough answers to fill what the kernel keeps.
    timeout(Duration::from_secs(90), writing)
        .await
        .expect("the connection is still open");
    format!("closed after {:.1?}", began.elapsed())
}
