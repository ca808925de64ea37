//! A TCP connection that its peer can neither flood nor leave unread.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::limits::{BYTES_BESIDE_CALLS, BYTES_OF_A_CALL, STALLED, TURN};

/// How many more bytes a connection may send. Calls add to it what they need, so that it runs out only for whoever sends
/// frames that belong to no call.
#[derive(Debug)]
pub struct Allowance(AtomicI64);

impl Default for Allowance {
    fn default() -> Self {
        Self(AtomicI64::new(BYTES_BESIDE_CALLS))
    }
}

impl Allowance {
    /// A call began.
    pub(super) fn call(&self) {
        self.add(BYTES_OF_A_CALL);
    }

    /// Bytes of a call's body came.
    pub fn body(&self, bytes: usize) {
        self.add(bytes as i64);
    }

    /// It is not saved up: a million calls do not pay for a flood.
    fn add(&self, bytes: i64) {
        if self.0.load(Ordering::Relaxed) < BYTES_BESIDE_CALLS {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_sub(bytes as i64, Ordering::Relaxed) >= bytes as i64
    }
}

/// The connection as hyper sees it.
pub(super) struct Socket {
    stream: TcpStream,
    /// What was read before hyper was asked, and how much of it hyper has read.
    first: Vec<u8>,
    read: usize,
    /// How much was read since others last had their turn.
    turn: usize,
    allowance: Arc<Allowance>,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// A connection of which the `first` bytes have been read.
    pub(super) fn new(stream: TcpStream, first: Vec<u8>, allowance: Arc<Allowance>) -> Self {
        Self {
            stream,
            first,
            read: 0,
            turn: 0,
            allowance,
            stalled: None,
        }
    }

    /// Bounds the time for which the peer takes nothing.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unread = &self.first[self.read..];
        if !unread.is_empty() {
            let count = unread.len().min(buf.remaining());
            buf.put_slice(&unread[..count]);
            self.read += count;
            return Poll::Ready(Ok(()));
        }
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf)? else {
            self.turn = 0;
            return Poll::Pending;
        };
        let came = buf.filled().len() - before;
        self.turn += came;
        if self.allowance.take(came) {
            Poll::Ready(Ok(read))
        } else {
            Poll::Ready(Err(io::Error::other(
                "it sent too much that belongs to no call",
            )))
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A TCP stream has nothing to flush, and its end is sent at once: neither waits for the peer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
