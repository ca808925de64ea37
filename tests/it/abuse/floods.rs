//! Abusers that send more than any call needs. All come from 127.0.0.2 and read what they are sent, so that nothing but what
//! they send is their abuse.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::attacked_server::Target;
use crate::fixtures::DEADLINE;
use crate::fixtures::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS,
    WINDOW_UPDATE, call, field, frame, next_frame,
};

const ABUSER: u8 = 2;
const VERIFY: &str = "/claviger.v1.KeyVerify/Verify";

/// The streams that a client may open: odd numbers.
fn stream(i: u32) -> u32 {
    2 * i + 1
}

/// What an abuser got to see.
#[derive(Debug, Default)]
struct Seen {
    sent: u32,
    resets: u32,
    goaway: Option<u32>,
}

/// Sends up to `most` portions, and reads until the server has closed the connection, as it must.
async fn flood(target: &Target, most: u32, portion: impl Fn(u32) -> Vec<u8>) -> Seen {
    let raw = Raw::http2(&target.address, ABUSER, &[]).await;
    let (mut read, mut write) = raw.0.into_split();
    let reading = tokio::spawn(async move {
        let mut seen = Seen::default();
        while let Some(frame) = next_frame(&mut read).await {
            match frame.kind {
                RST_STREAM => seen.resets += 1,
                GOAWAY => {
                    let code = frame.payload[4..].first_chunk().unwrap();
                    seen.goaway = Some(u32::from_be_bytes(*code));
                }
                _ => {}
            }
        }
        seen
    });
    let mut sent = 0;
    let sending = async {
        while sent < most {
            write.write_all(&portion(sent)).await?;
            sent += 1;
        }
        io::Result::Ok(())
    };
    timeout(DEADLINE, sending)
        .await
        .expect("it is neither read nor closed")
        .ok();
    let seen = timeout(Duration::from_secs(10), reading)
        .await
        .unwrap_or_else(|_| panic!("the connection is still open after {sent}"));
    Seen {
        sent,
        ..seen.unwrap()
    }
}

fn closed(seen: &Seen, most: u32) -> String {
    let Seen {
        sent,
        resets,
        goaway,
    } = seen;
    let word = goaway.map_or("without a word".to_owned(), |code| {
        format!("with GOAWAY {code}")
    });
    format!("closed {word} after {resets} resets, {sent} of {most} portions sent")
}

/// Each stream above the limit is one that the server has to reset. Seen red with any number of provoked resets allowed.
pub(super) async fn streams(target: Target) -> String {
    let seen = flood(&target, 10_000, |i| {
        frame(HEADERS, END_HEADERS, stream(i), &call(VERIFY, &[]))
    })
    .await;
    closed(&seen, 10_000)
}

/// CVE-2023-44487: each stream is opened and given up. Seen red with any number of unseen resets allowed: the calls of this
/// one connection then take every place, and the good client is turned away.
pub(super) async fn rapid_reset(target: Target) -> String {
    let seen = flood(&target, 50_000, |i| {
        let cancel = 8_u32.to_be_bytes();
        [
            frame(HEADERS, END_HEADERS, stream(i), &call(VERIFY, &[])),
            frame(RST_STREAM, 0, stream(i), &cancel),
        ]
        .concat()
    })
    .await;
    closed(&seen, 50_000)
}

/// CVE-2025-8671: each stream is opened and then abused, so that the server has to give it up. Seen red with any number of
/// provoked resets allowed.
pub(super) async fn made_you_reset(target: Target) -> String {
    let seen = flood(&target, 50_000, |i| {
        [
            frame(HEADERS, END_HEADERS, stream(i), &call(VERIFY, &[])),
            // A window beyond 2^31-1 is an error of the stream.
            frame(WINDOW_UPDATE, 0, stream(i), &(u32::MAX / 2).to_be_bytes()),
        ]
        .concat()
    })
    .await;
    assert!(seen.resets <= 100, "{seen:?}");
    closed(&seen, 50_000)
}

/// Headers that never end. A limit of h2 that cannot be switched off, so never seen red.
pub(super) async fn continuation(target: Target) -> String {
    let seen = flood(&target, 10_000, |i| {
        if i == 0 {
            return frame(HEADERS, 0, 1, &call(VERIFY, &[]));
        }
        frame(CONTINUATION, 0, 1, &field("x-more", &"x".repeat(8_000)))
    })
    .await;
    closed(&seen, 10_000)
}

/// Calls with headers that are far too large. h2 answers each with 431; what all of them came to is more than the calls
/// account for. Seen red with the allowance off.
pub(super) async fn huge_headers(target: Target) -> String {
    let large = "x".repeat(16_000);
    let seen = flood(&target, 10_000, |i| {
        let end = END_HEADERS | END_STREAM;
        let mut frames = frame(HEADERS, END_STREAM, stream(i), &call(VERIFY, &[]));
        for _ in 0..3 {
            frames.extend(frame(CONTINUATION, 0, stream(i), &field("x-large", &large)));
        }
        frames.extend(frame(CONTINUATION, end & END_HEADERS, stream(i), &[]));
        frames
    })
    .await;
    closed(&seen, 10_000)
}

/// Seen red with the allowance off: h2 acknowledges each of them without end.
pub(super) async fn settings(target: Target) -> String {
    let seen = flood(&target, 10_000, |_| frame(SETTINGS, 0, 0, &[]).repeat(100)).await;
    closed(&seen, 10_000)
}

/// Seen red with the allowance off.
pub(super) async fn pings(target: Target) -> String {
    let seen = flood(&target, 10_000, |_| frame(PING, 0, 0, &[7; 8]).repeat(100)).await;
    closed(&seen, 10_000)
}

/// Data frames that bring no data. A limit of h2 that cannot be switched off, so never seen red.
pub(super) async fn empty_data(target: Target) -> String {
    let seen = flood(&target, 10_000, |i| {
        if i == 0 {
            return frame(HEADERS, END_HEADERS, 1, &call(VERIFY, &[]));
        }
        frame(DATA, 0, 1, &[]).repeat(100)
    })
    .await;
    closed(&seen, 10_000)
}

/// Seen red with the allowance off.
pub(super) async fn window_updates(target: Target) -> String {
    let seen = flood(&target, 10_000, |i| {
        if i == 0 {
            return frame(HEADERS, END_HEADERS, 1, &call(VERIFY, &[]));
        }
        frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()).repeat(100)
    })
    .await;
    closed(&seen, 10_000)
}
