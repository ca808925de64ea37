//! All limits of the transport that are not flags, each with its reason.

use std::time::Duration;

use hyper::rt::Timer;
use hyper::server::conn::{http1, http2};

/// How long a new connection may take to send its first bytes. Even from far away, that takes only a round trip or two.
pub(super) const FIRST_BYTES: Duration = Duration::from_secs(5);

/// How long a new connection may take for its TLS handshake, including the wait for its turn. From far away the handshake takes
/// three round trips. Until its end the connection counts, and its client has proven nothing.
pub(super) const TLS_HANDSHAKE: Duration = Duration::from_secs(5);

/// The time between two TLS handshakes of one address, after a burst. A handshake takes up to a millisecond of a Verify thread
/// (the signature of an RSA key of 2,048 bits), so one address takes at most a tenth of a thread. Clients keep their connections
/// for minutes.
pub(super) const TLS_HANDSHAKE_EVERY: Duration = Duration::from_millis(10);

/// The number of TLS handshakes that one address may start at once: most of the connections that it may have by default, so that
/// a gateway reconnects without a wait after a restart of the server.
pub(super) const TLS_HANDSHAKE_BURST: u32 = 200;

/// The time between two looks at the files of the certificates. Their contents are compared, which takes a fraction of a
/// millisecond and no time of a Verify thread.
pub(super) const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

/// How long a peer may read nothing of a pending response before the server closes the connection. Until then the unread
/// response holds memory. Even a slow reader reads something within this time.
pub(super) const STALLED: Duration = Duration::from_secs(20);

/// How long an idle peer has to close its connection after GOAWAY: time for a round trip.
pub(super) const GOAWAY_GRACE: Duration = Duration::from_secs(1);

/// The pause before the next `accept` when the process has no file descriptors or memory left. Without the pause the loop would
/// spin, because the connection that could not be accepted is still pending.
pub(super) const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// The socket buffer of a connection in each direction, in bytes. The kernel doubles the value for its own bookkeeping. Without
/// this setting the kernel lets the buffer grow to megabytes when the peer does not read.
pub(super) const SYSTEM_BUFFER: usize = 256 * 1024;

/// The number of connections that wait to be accepted before the system refuses more.
pub(super) const BACKLOG: i32 = 1024;

/// The time between two looks at the calls of each thread, by which new connections are spread.
pub(super) const LOAD_EVERY: Duration = Duration::from_secs(1);

/// How long a connection may be idle before the kernel checks whether its peer is still reachable.
pub(super) const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

/// The number of bytes that a peer may send outside of calls. Pings, acknowledgements and window updates of an honest client
/// come to a few kilobytes in the lifetime of a connection. This limit ends a flood of frames that belong to no call.
pub(super) const BYTES_BESIDE_CALLS: i64 = 1024 * 1024;

/// The number of bytes that are read from a connection before its task yields to others. They hold at most some thousand of the
/// smallest frames.
pub(super) const BYTES_PER_TURN: usize = 16 * 1024;

/// What a connection pays for a call that needs no key, or that was refused: how long the server does not read from it. Such a
/// call takes some ten microseconds of a Verify thread, and nobody has to prove anything for it. Probes make a few in a minute.
pub(super) const CALL_WITHOUT_A_KEY: Duration = Duration::from_micros(500);

/// The number of bytes of long bodies that the server reads from a connection in a second. A Verify thread needs less than a
/// twentieth of its time for that, and could verify no more keys than come in so many bytes of batches.
pub(super) const BODY_BYTES_PER_SECOND: u32 = 64 * 1024 * 1024;

/// The bytes that each frame of a long body counts for besides its own, so that small frames are not cheaper.
pub(super) const FRAME_BYTES: usize = 1024;

/// How long a connection may read ahead of its pace after it was idle: long enough for the largest body of a batch, and for the
/// inexact end of a pause, but not so long that others wait.
pub(super) const PACE_BURST: Duration = Duration::from_millis(5);

/// The number of bytes that each call may take besides its body: twice the size of the largest headers.
pub(super) const BYTES_PER_CALL: i64 = 2 * MAX_HEADERS as i64;

/// The number of calls to health and reflection that one address may have open: one watch of health for each of its connections.
/// Clients need no key for them, they may stay open without end, and each holds some kilobytes.
pub(super) const MAX_ANONYMOUS_CALLS_PER_ADDRESS: usize = 256;

/// The number of such calls that all addresses together may have open. A single health check is always answered.
pub(super) const MAX_ANONYMOUS_CALLS: usize = 2048;

/// The number of streams of questions that one address may have open, and that all addresses together may have. Each takes up
/// to a message and a window, 128 KiB, for as long as its client does not complete a question. One for each connection suffices.
pub(super) const MAX_VERIFY_STREAMS_PER_ADDRESS: usize = 256;
pub(super) const MAX_VERIFY_STREAMS: usize = 1024;

/// The bytes of incomplete bodies that the server holds for one address. The server holds a body from its first byte, before it
/// can authenticate the caller.
pub(super) const MAX_BODY_BYTES_PER_ADDRESS: usize = 4 * 1024 * 1024;

/// The bytes of incomplete bodies that the server holds for all addresses together.
pub(super) const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The maximum size of a request's headers, in bytes as HTTP/2 counts them. gRPC's C core also accepts 8 KiB. An API key and the
/// baggage of a trace fit several times.
const MAX_HEADERS: u32 = 8 * 1024;

/// The number of calls that a connection may have in flight. RFC 9113 recommends at least 100. More streams are more memory for
/// a client that opens them and never finishes. A client that needs more calls opens a second connection.
const MAX_STREAMS: u32 = 100;

/// The number of streams that a client may open and reset before the server has accepted them ("rapid reset", CVE-2023-44487).
/// This is the default of h2, set here so that an update cannot change it unnoticed.
const MAX_PENDING_RESETS: usize = 20;

/// The number of streams that the server resets because of a client's errors before it closes the connection ("MadeYouReset",
/// CVE-2025-8671). An honest client causes none, or a few when calls exceed their deadlines.
const MAX_ERROR_RESETS: usize = 100;

/// The number of bytes that may be in transit to the server on one stream, and on all streams of a connection, before a handler
/// reads them. Handlers read at once, so a larger window is not faster, but takes more memory when they cannot.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// The number of bytes of a response that are buffered for a client that does not read.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// The time between two pings of a connection, and how long the client may take to answer. A client whose machine is gone holds
/// its connection for at most the sum of both.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an HTTP/1.1 client may take to send the headers of a request. The client may also be idle for that long between two
/// requests, which is longer than the ten or fifteen seconds between two probes.
const HTTP1_HEADERS: Duration = Duration::from_secs(30);

/// The number of headers that a request over HTTP/1.1 may have, and their total size. Gateways pass on all headers of their
/// clients, of which nginx accepts 32 KiB by default.
const HTTP1_MAX_HEADERS: usize = 256;
const HTTP1_MAX_BUFFER: usize = 64 * 1024;

/// The settings of HTTP/2, over which gRPC is served.
pub(super) fn http2<E>(
    executor: E,
    timer: impl Timer + Send + Sync + 'static,
) -> http2::Builder<E> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(timer)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// The settings of HTTP/1.1 and 1.0, over which probes and gateways are served.
pub(super) fn http1(timer: impl Timer + Send + Sync + 'static) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(timer)
        .header_read_timeout(HTTP1_HEADERS)
        .max_headers(HTTP1_MAX_HEADERS)
        .max_buf_size(HTTP1_MAX_BUFFER);
    builder
}
