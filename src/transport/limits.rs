//! Every limit of the transport that is not a flag, in one place, each with its reason.

use std::time::Duration;

use hyper::rt::Timer;
use hyper::server::conn::{http1, http2};

/// How long a new connection may take to say which protocol it speaks: a round trip or two even from far away.
pub(super) const FIRST_BYTES: Duration = Duration::from_secs(5);

/// How long a peer may leave what is sent to it unread before its connection is cut. Until then an answer that nobody reads
/// holds memory; a slow reader takes at least something within this time.
pub(super) const STALLED: Duration = Duration::from_secs(20);

/// How long a connection that has nothing to do gets to answer to GOAWAY: a round trip.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// How long to leave the listener alone when there are no file descriptors left, or no memory. Without a pause the loop
/// would spin, as the connection that could not be taken is still there.
pub(super) const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// How much the system keeps for a connection in each direction; it takes twice as much to administer it. Without a word from
/// us it lets one grow to megabytes when its peer does not read.
pub(super) const SYSTEM_BUFFER: usize = 256 * 1024;

/// How often it is logged that connections are refused.
pub(super) const LOG_EVERY: Duration = Duration::from_mins(1);

/// How long a connection may be silent before the system looks whether its peer is still there.
pub(super) const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

/// How many bytes a connection may send beyond what its calls account for. Pings, acknowledgements and window updates of an
/// honest client come to a few kilobytes in the life of a connection; a flood of frames that belong to no call ends here.
pub(super) const BYTES_BESIDE_CALLS: i64 = 1024 * 1024;

/// How many bytes are read from a connection before others have their turn: of the smallest frames these are some thousand.
pub(super) const TURN: usize = 16 * 1024;

/// How many of the bytes that a connection sends each call accounts for, beside its body: twice its largest headers.
pub(super) const BYTES_OF_A_CALL: i64 = 2 * MAX_HEADERS as i64;

/// How many calls of health and reflection one address may have open: a watch of health for each of its connections.
/// Anybody may open them, they need never end, and each keeps some kilobytes.
pub(super) const OPEN_CALLS_OF_AN_ADDRESS: usize = 256;

/// How many of them all addresses together may have open, unless it is a single look at health, which is always answered.
pub(super) const OPEN_CALLS_OF_ALL: usize = 2048;

/// How many bytes of bodies that are not complete yet one address may keep here. A body is kept from its first byte, before
/// anybody knows whether its sender may call at all.
pub(super) const BODIES_OF_AN_ADDRESS: usize = 4 * 1024 * 1024;

/// How many bytes of such bodies all addresses together may keep here.
pub(super) const BODIES_OF_ALL: usize = 16 * 1024 * 1024;

/// The largest headers of a request, in bytes as HTTP/2 counts them. gRPC's C core takes 8 KiB too; a key and a trace's
/// baggage fit several times.
const MAX_HEADERS: u32 = 8 * 1024;

/// How many calls a connection may have in flight. RFC 9113 advises not to go below 100; more are more memory for whoever
/// opens them and never finishes, and a client that has more to ask opens a second connection.
const MAX_STREAMS: u32 = 100;

/// How many streams a client may have opened and reset before they were looked at ("rapid reset", CVE-2023-44487). As in h2
/// by itself; said here so that an update cannot change it quietly.
const MAX_UNSEEN_RESETS: usize = 20;

/// How many streams the server may have had to reset for a client's errors in the life of a connection ("MadeYouReset",
/// CVE-2025-8671). An honest client causes none, or a few when calls run into their deadlines.
const MAX_PROVOKED_RESETS: usize = 100;

/// How much may be on its way to the server on one stream, and on all streams of a connection, without having been read by a
/// handler. Handlers read at once, so that more would not be faster, only more memory when they cannot.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// How much of an answer is prepared ahead of a client that does not read it.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// How often a connection is pinged, and how long it may take to answer. A client whose machine has gone holds its
/// connection no longer than both.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an HTTP/1.1 client may take for the headers of a request, which is also how long it may be idle: longer than
/// the ten or fifteen seconds between two probes.
const HTTP1_HEADERS: Duration = Duration::from_secs(30);

/// How many headers a request over HTTP/1.1 may have, and how large they may be together. Gateways hand over all of their
/// clients' headers, of which nginx takes 32 KiB by itself.
const HTTP1_MAX_HEADERS: usize = 256;
const HTTP1_MAX_BUFFER: usize = 64 * 1024;

/// HTTP/2 as gRPC is served over it.
pub(super) fn http2<E>(
    executor: E,
    timer: impl Timer + Send + Sync + 'static,
) -> http2::Builder<E> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(timer)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(MAX_PROVOKED_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// HTTP/1.1, and 1.0, as probes are served over it.
pub(super) fn http1(timer: impl Timer + Send + Sync + 'static) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(timer)
        .header_read_timeout(HTTP1_HEADERS)
        .max_headers(HTTP1_MAX_HEADERS)
        .max_buf_size(HTTP1_MAX_BUFFER);
    builder
}
