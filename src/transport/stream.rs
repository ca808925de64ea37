//! The connection that hyper reads and writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::socket::Socket;

/// A connection of which the first bytes have been read.
pub(super) struct Stream {
    first: Vec<u8>,
    /// How many of the first bytes hyper has read.
    read: usize,
    encryption: Encryption,
}

/// A connection, encrypted or not. Not a trait object, because each read and write goes through it.
pub(super) enum Encryption {
    Plain(Socket<TcpStream>),
    // Boxed, because it is a kilobyte larger.
    Tls(Box<TlsStream<Socket<TcpStream>>>),
}

impl Encryption {
    /// Whether the client has proven itself by a certificate.
    pub(super) fn has_client_certificate(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().is_some(),
        }
    }
}

impl Stream {
    /// Creates a stream from a connection of which the `first` bytes have been read.
    pub(super) fn new(encryption: Encryption, first: Vec<u8>) -> Self {
        Self {
            first,
            read: 0,
            encryption,
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
        Pin::new(&mut self.encryption).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.encryption {
            Encryption::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Encryption::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    /// Without vectored writes, h2 copies bodies up to 1 KiB into its buffer, and writes many answers at once. With them, it writes each
    /// answer of 256 bytes or more by itself, which costs more than the copies.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.encryption {
            Encryption::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Encryption::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.encryption {
            Encryption::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Encryption::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Encryption {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}
