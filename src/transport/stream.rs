//! The connection that hyper reads and writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::socket::Socket;

/// A connection of which the first bytes have been read.
pub(super) struct Stream {
    first: Vec<u8>,
    /// How many of the first bytes hyper has read.
    read: usize,
    wire: Wire,
}

/// A connection of the system, encrypted or not. Not a trait object, because each read and write goes through it.
pub(super) enum Wire {
    Tcp(Socket<TcpStream>),
    Unix(Socket<UnixStream>),
    // Boxed, because it is a kilobyte larger.
    Tls(Box<TlsStream<Socket<TcpStream>>>),
}

impl Wire {
    /// Whether the client has proven itself by a certificate, or by the right to open the Unix socket.
    pub(super) fn is_certified(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix(_) => true,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().is_some(),
        }
    }
}

impl Stream {
    /// Creates a stream from a connection of which the `first` bytes have been read.
    pub(super) fn new(wire: Wire, first: Vec<u8>) -> Self {
        Self {
            first,
            read: 0,
            wire,
        }
    }
}

impl AsyncRead for Stream {
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
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Wire::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    /// Without vectored writes, h2 copies bodies up to 1 KiB into its buffer, and writes many answers at once. With them, it writes each
    /// answer of 256 bytes or more by itself, which costs more than the copies.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}
