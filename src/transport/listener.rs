//! The sockets on which connections arrive: addresses, and a path in the file system.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{self, IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::limits;

/// The owner and the group of the file may connect.
const UNIX_SOCKET_MODE: u32 = 0o660;

/// A socket on which connections arrive.
#[derive(Debug)]
pub enum Listener {
    /// An address.
    Tcp(net::TcpListener),
    /// A path.
    Unix(unix::UnixListener),
}

/// The file of a Unix socket. Dropping it removes the file.
#[derive(Debug)]
pub struct UnixSocketFile(PathBuf);

impl Drop for UnixSocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens on an address.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // So that a server can be started again while connections of the last one are closing.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(limits::BACKLOG)?;
        Ok(Self::Tcp(socket.into()))
    }

    /// Listens on a path, for the owner and the group of the file only. Replaces the file of a server that is gone.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] if a server listens on it, or if the file is no socket.
    pub fn unix(path: &Path) -> io::Result<(Self, UnixSocketFile)> {
        remove_abandoned(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = UnixSocketFile(path.to_owned());
        // Before it listens, so that nobody can connect before.
        fs::set_permissions(path, Permissions::from_mode(UNIX_SOCKET_MODE))?;
        socket.listen(limits::BACKLOG)?;
        Ok((Self::Unix(socket.into()), file))
    }

    /// The address, with the real port if the system chose it; `None` for a path.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Registers the listener with the current runtime.
    pub(super) fn registered(self) -> io::Result<RegisteredListener> {
        Ok(match self {
            Self::Tcp(listener) => RegisteredListener::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener) => RegisteredListener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

/// Removes the file of a socket on which nobody listens.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            let problem = "the file exists and is no socket";
            return Err(io::Error::new(ErrorKind::AddrInUse, problem));
        }
        Ok(_) => {}
    }
    match unix::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens on it",
        )),
    }
}

/// A listener of a runtime.
pub(super) enum RegisteredListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted connection that belongs to no runtime: the one that serves it registers it.
pub(super) enum Accepted {
    /// From this address.
    Tcp(net::TcpStream, IpAddr),
    Unix(unix::UnixStream),
}

/// A connection of the runtime that serves it.
pub(super) enum Connected {
    /// From this address.
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

impl RegisteredListener {
    /// Accepts a connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok(Accepted::Tcp(stream.into_std()?, remote.ip()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted::Unix(stream.into_std()?))
            }
        }
    }
}

impl Accepted {
    /// The address of the peer; `None` over a Unix socket.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Sets the options of the socket.
    pub(super) fn set_options(&self) -> io::Result<()> {
        let socket = match self {
            Self::Tcp(stream, _) => {
                // Answers are small and must not wait for more data.
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(limits::TCP_KEEPALIVE)
                    .with_interval(limits::TCP_KEEPALIVE / 4);
                let socket = SockRef::from(stream);
                socket.set_tcp_keepalive(&keepalive)?;
                socket
            }
            Self::Unix(stream) => SockRef::from(stream),
        };
        socket.set_send_buffer_size(limits::SYSTEM_BUFFER)?;
        socket.set_recv_buffer_size(limits::SYSTEM_BUFFER)
    }

    /// Registers the connection with the current runtime.
    pub(super) fn registered(self) -> io::Result<Connected> {
        Ok(match self {
            Self::Tcp(stream, address) => Connected::Tcp(TcpStream::from_std(stream)?, address),
            Self::Unix(stream) => Connected::Unix(UnixStream::from_std(stream)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// Seen red without the connection, and without the permissions.
    #[test]
    fn only_a_socket_on_which_nobody_listens_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (listener, file) = Listener::unix(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        let in_use = Listener::unix(&path).unwrap_err();
        assert_eq!(in_use.kind(), ErrorKind::AddrInUse);
        // As after a crash.
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        let (_listener, file) = Listener::unix(&path).unwrap();
        drop(file);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        let no_socket = Listener::unix(&path).unwrap_err();
        assert_eq!(no_socket.kind(), ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
