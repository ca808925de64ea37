//! A connection with limits on what its peer sends and on how long the peer may not read.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, sleep_until};

use super::limits::{BYTES_BESIDE_CALLS, BYTES_PER_CALL, BYTES_PER_TURN, STALLED};
use super::pace::Pace;

/// The number of bytes that the peer of a connection may still send. Each call adds what it needs, so that only a peer that
/// sends many frames outside of calls exhausts the allowance.
#[derive(Debug)]
pub struct Allowance(AtomicI64);

impl Default for Allowance {
    fn default() -> Self {
        Self(AtomicI64::new(BYTES_BESIDE_CALLS))
    }
}

impl Allowance {
    /// Adds the bytes of one call, when the call begins.
    pub(super) fn call(&self) {
        self.add(BYTES_PER_CALL);
    }

    /// Adds received bytes of a call's body.
    pub fn body(&self, bytes: usize) {
        self.add(bytes as i64);
    }

    /// Adds bytes unless the allowance is full, so that a peer cannot collect an allowance for a flood with many calls.
    fn add(&self, bytes: i64) {
        if self.0.load(Ordering::Relaxed) < BYTES_BESIDE_CALLS {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Subtracts received bytes. Returns `false` if the allowance is exhausted.
    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_sub(bytes as i64, Ordering::Relaxed) >= bytes as i64
    }
}

/// A connection of the system. Below TLS, so that the limits hold for what is on the wire, also for records without contents.
pub(super) struct Socket<S> {
    stream: S,
    /// The number of bytes that were read since the task last yielded.
    turn: usize,
    allowance: Arc<Allowance>,
    pace: Arc<Pace>,
    /// The end of a pause in which nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
    /// The timeout that runs while the peer reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Socket<S> {
    /// Creates a socket from a stream.
    pub(super) fn new(stream: S, allowance: Arc<Allowance>, pace: Arc<Pace>) -> Self {
        Self {
            stream,
            turn: 0,
            allowance,
            pace,
            pause: None,
            stalled: None,
        }
    }

    /// Limits the time in which the peer reads nothing.
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

impl Socket<TcpStream> {
    /// Waits for the first byte, and leaves it to be read. Returns `None` if the peer closes the connection before.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let count = self.stream.peek(&mut byte).await?;
        Ok((count > 0).then_some(byte[0]))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = self.pace.pause() {
            self.turn = 0;
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(end)));
            pause.as_mut().reset(end);
            ready!(pause.as_mut().poll(cx));
        }
        if self.turn >= BYTES_PER_TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf)? else {
            self.turn = 0;
            return Poll::Pending;
        };
        let received = buf.filled().len() - before;
        self.turn += received;
        if self.allowance.take(received) {
            Poll::Ready(Ok(read))
        } else {
            Poll::Ready(Err(io::Error::other(
                "the peer sent too many bytes outside of calls",
            )))
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(cx, written)
    }

    /// For TLS, which writes several records at once. Its last write, an alert, must reach the peer together with what precedes it.
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bounded(cx, closed)
    }
}
