//! The sockets on which connections arrive: addresses, and a path in the file system.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{self, IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
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

/// The file of a Unix socket. Dropping it removes the file, unless another process has put its own in its place.
#[derive(Debug)]
pub struct UnixSocketFile {
    path: PathBuf,
    /// Of the file that was made.
    device_and_inode: Option<(u64, u64)>,
}

impl UnixSocketFile {
    fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            device_and_inode: device_and_inode(path),
        }
    }
}

impl Drop for UnixSocketFile {
    fn drop(&mut self) {
        if device_and_inode(&self.path) == self.device_and_inode {
            // It may be gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn device_and_inode(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
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

    /// Checks that an address can be listened on now, without listening there: another process that begins to is not disturbed.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] if something listens on it.
    pub fn check_tcp(address: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    }

    /// Listens on a path, for the owner and the group of the file only. Replaces the file of a server that is gone.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] if a server listens on it.
    pub fn unix(path: &Path) -> io::Result<(Self, UnixSocketFile)> {
        remove_abandoned(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = UnixSocketFile::at(path);
        // Before it listens, so that nobody can connect before.
        fs::set_permissions(path, Permissions::from_mode(UNIX_SOCKET_MODE))?;
        socket.listen(limits::BACKLOG)?;
        Ok((Self::Unix(socket.into()), file))
    }

    /// Checks that a path can be listened on, apart from what another process does.
    pub fn check_unix(path: &Path) -> io::Result<()> {
        SockAddr::unix(path)?;
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if !directory.unwrap_or(Path::new(".")).is_dir() {
            let problem = "the directory does not exist";
            return Err(io::Error::new(ErrorKind::NotFound, problem));
        }
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                let problem = "the file exists and is no socket";
                Err(io::Error::new(ErrorKind::InvalidInput, problem))
            }
            _ => Ok(()),
        }
    }

    /// The path of a Unix socket, if only its owner and its group may connect. `None` if others may, or if it has no path.
    pub fn guarded_path(&self) -> Option<PathBuf> {
        let Self::Unix(listener) = self else {
            return None;
        };
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        let mode = fs::metadata(&path).ok()?.permissions().mode();
        (mode & 0o002 == 0).then_some(path)
    }

    /// Whether connections arrive on the socket.
    pub(super) fn is_listening(&self) -> bool {
        let socket = match self {
            Self::Tcp(listener) => SockRef::from(listener),
            Self::Unix(listener) => SockRef::from(listener),
        };
        socket.is_listener().unwrap_or(false)
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
    Listener::check_unix(path)?;
    if !path.exists() {
        return Ok(());
    }
    // Without waiting: a server whose queue is full is there all the same.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::Error::new(
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
        assert_eq!(no_socket.kind(), ErrorKind::InvalidInput);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    /// Seen red with a connection that waits, and with a file that is removed whoever made it.
    #[test]
    fn a_busy_server_is_there_and_the_file_of_another_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (_listener, file) = Listener::unix(&path).unwrap();
        // Until its queue is full.
        let queued: Vec<_> = std::iter::from_fn(|| {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let connected = socket.connect(&SockAddr::unix(&path).unwrap());
            connected.is_ok().then_some(socket)
        })
        .collect();
        assert!(!queued.is_empty());
        let busy = Listener::unix(&path).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::AddrInUse);

        fs::remove_file(&path).unwrap();
        let (_other, _its_file) = Listener::unix(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    /// Seen red with every path taken for a guarded one.
    #[test]
    fn a_socket_that_everybody_may_open_is_not_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (listener, _file) = Listener::unix(&path).unwrap();
        assert_eq!(listener.guarded_path().as_deref(), Some(&*path));
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(listener.guarded_path(), None);
    }
}
