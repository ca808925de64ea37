//! A client that does nothing but TLS handshakes, from an address of its own.

use std::io::{self, BufRead, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{error::Error, io::Write};

use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;

use crate::connect::Certificate;
use crate::servers::ServerProcess;

/// The number of handshakes that are in progress.
const AT_ONCE: usize = 64;

/// The address of the client: it takes the limits of an address from nobody else.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[derive(Serialize, Deserialize)]
struct Target {
    address: SocketAddr,
    certificate: Certificate,
}

/// A process that does handshakes until it is stopped.
pub(crate) struct Flood(Child);

impl Flood {
    /// Starts the process against a server that serves TLS.
    pub(crate) fn start(server: &ServerProcess) -> Result<Self, Box<dyn Error>> {
        let target = Target {
            address: server.address.parse()?,
            certificate: server.certificate.clone().ok_or("no TLS")?,
        };
        let child = Command::new(std::env::current_exe()?)
            .arg("handshake")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.as_ref().ok_or("no input")?;
        writeln!(input, "{}", serde_json::to_string(&target)?)?;
        Ok(Self(child))
    }

    /// Stops the process, and returns how many handshakes were completed.
    pub(crate) fn stop(mut self) -> Result<usize, Box<dyn Error>> {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

/// Does handshakes with the target in the first line of standard input until that ends, and prints their number.
pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let target: Arc<Target> = Arc::new(serde_json::from_str(&line)?);
    let completed = Arc::new(AtomicUsize::new(0));
    for _ in 0..AT_ONCE {
        let (target, completed) = (Arc::clone(&target), Arc::clone(&completed));
        tokio::spawn(async move {
            loop {
                // A server that has enough closes the connection.
                if handshake(&target).await.is_ok() {
                    completed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    tokio::task::spawn_blocking(|| io::stdin().lock().read_to_end(&mut Vec::new())).await??;
    println!("{}", completed.load(Ordering::Relaxed));
    // The tasks have no end of their own.
    std::process::exit(0);
}

async fn handshake(target: &Target) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((CLIENT, 0)))?;
    let socket = socket.connect(target.address).await?;
    target.certificate.handshake(socket, b"h2").await.map(drop)
}
