//! The sockets on which the server listens.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::Signal;

use crate::config::{ServeArgs, is_exposed};
use crate::transport::{self, CertificateError, Listener, PassedSockets, Tls, UnixSocketFile};

/// The listeners, and the certificates with which they serve TLS.
pub struct Listeners {
    /// Of gRPC; for gateways only if there is another for administrators.
    pub(super) grpc: Listener,
    pub(super) http: Listener,
    pub(super) admin: Option<Listener>,
    pub(super) unix: Option<Listener>,
    pub(super) unix_file: Option<UnixSocketFile>,
    pub(super) tls: Option<Arc<Tls>>,
}

/// The reason why the server cannot listen. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}. Choose another address with --{flag}, or stop the process that uses this one"
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// The flag that sets the address.
        flag: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// A path cannot be listened on.
    #[error(
        "cannot listen on {}: {source}. Choose another path with --unix-socket, in a directory that this user may write to",
        path.display()
    )]
    Path {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// An address that other machines can reach would be served without TLS.
    #[error(
        "--{flag} {address} can be reached from other machines, and the API keys of callers must not pass a network as plain \
         text: set --tls-cert and --tls-key, or --insecure-listen if the network is private or a proxy encrypts"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
        /// The flag that sets the address.
        flag: &'static str,
    },
    /// A socket that the process was started with cannot be used.
    #[error("{0}")]
    PassedSocket(String),
    /// The certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
}

impl ListenError {
    /// Whether the configuration cannot work, as opposed to something that another process uses.
    pub fn is_of_configuration(&self) -> bool {
        match self {
            Self::Address { .. } => false,
            Self::Path { source, .. } => source.kind() != io::ErrorKind::AddrInUse,
            Self::Exposed { .. } | Self::PassedSocket(_) | Self::Certificates(_) => true,
        }
    }
}

impl Listeners {
    /// Reads the certificates, and takes the sockets that the process was started with or listens itself.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(args: &ServeArgs) -> Result<Self, ListenError> {
        let tls = Tls::load(&args.tls)?;
        let mut passed = PassedSockets::take().map_err(ListenError::PassedSocket)?;
        let listen = &args.listen;
        let grpc = tcp(passed.named("listen"), "listen", listen.listen, args)?;
        let http = passed.named("http-listen");
        let http = tcp(http, "http-listen", listen.http_listen, args)?;
        let admin = match (passed.named("admin-listen"), listen.admin_listen) {
            (None, None) => None,
            // The address of a socket that was passed is its own.
            (passed, address) => {
                let address = address.unwrap_or(listen.listen);
                Some(tcp(passed, "admin-listen", address, args)?)
            }
        };
        let (unix, unix_file) = match (passed.named("unix-socket"), &listen.unix_socket) {
            (Some(Listener::Tcp(_)), _) => return Err(wrong_kind("unix-socket", "a path")),
            (Some(listener), _) if listener.guarded_path().is_none() => {
                return Err(ListenError::PassedSocket(
                    "every user of this machine may open the socket `unix-socket` that this process was started with: set a path \
                     in ListenStream= and SocketMode=0660 in its unit"
                        .to_owned(),
                ));
            }
            (Some(listener), _) => (Some(listener), None),
            (None, None) => (None, None),
            (None, Some(path)) => {
                let bound = Listener::unix(path);
                let (listener, file) = bound.map_err(|source| ListenError::Path {
                    path: path.clone(),
                    source,
                })?;
                (Some(listener), Some(file))
            }
        };
        if let Some(name) = passed.left() {
            return Err(ListenError::PassedSocket(format!(
                "this process was started with a socket named `{name}`, which is for nothing: set FileDescriptorName= in the unit of \
                 the socket to listen, http-listen, admin-listen or unix-socket"
            )));
        }
        Ok(Self {
            grpc,
            http,
            admin,
            unix,
            unix_file,
            tls,
        })
    }

    /// The number of listeners.
    pub(super) fn count(&self) -> usize {
        2 + [&self.admin, &self.unix].into_iter().flatten().count()
    }

    /// Whether the addresses serve TLS.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads the certificates again when their files change, and when `hangups` reports a signal, without end.
    pub fn reload_certificates(&self, hangups: Signal) -> impl Future<Output = ()> + use<> {
        transport::reload(self.tls.clone(), hangups)
    }

    /// The address of gRPC, with the real port if the system chose it.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address().expect("it listens on an address")
    }

    /// The address of HTTP, with the real port if the system chose it.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address().expect("it listens on an address")
    }

    /// The path of the Unix socket.
    pub fn unix_path(&self) -> Option<PathBuf> {
        self.unix.as_ref().and_then(Listener::guarded_path)
    }

    /// The address of administration, if it has one of its own.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(Listener::address)
    }
}

/// The socket that was passed, or a new one on this address.
fn tcp(
    passed: Option<Listener>,
    flag: &'static str,
    address: SocketAddr,
    args: &ServeArgs,
) -> Result<Listener, ListenError> {
    let address = match &passed {
        Some(passed) => passed
            .address()
            .ok_or_else(|| wrong_kind(flag, "an address"))?,
        None => address,
    };
    if !args.may_be_exposed(address) {
        return Err(ListenError::Exposed { address, flag });
    }
    if args.tls.tls_cert.is_none() && is_exposed(address) {
        tracing::warn!(
            %address,
            "listener is unencrypted and reachable from other machines: keep it inside a private network"
        );
    }
    if let Some(passed) = passed {
        return Ok(passed);
    }
    Listener::tcp(address).map_err(|source| ListenError::Address {
        address,
        flag,
        source,
    })
}

fn wrong_kind(name: &str, expected: &str) -> ListenError {
    ListenError::PassedSocket(format!(
        "this process was started with a socket named `{name}` that does not listen on {expected}: set ListenStream= in the unit \
         of the socket to one"
    ))
}
