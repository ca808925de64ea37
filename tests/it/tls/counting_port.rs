//! A port between a gateway and claviger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A port that passes everything on to an address, and counts the connections.
pub(super) struct CountingPort {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl CountingPort {
    pub(super) async fn to(address: &str) -> Self {
        Self::at("127.0.0.1:0", address).await
    }

    pub(super) async fn at(here: &str, address: &str) -> Self {
        let listener = TcpListener::bind(here).await.unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (to, counted) = (address.to_owned(), Arc::clone(&connections));
        Self {
            address: listener.local_addr().unwrap(),
            connections,
            accepting: tokio::spawn(async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let mut far = TcpStream::connect(&to).await.unwrap();
                    tokio::spawn(async move {
                        // Either side may end it.
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    });
                }
            }),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for CountingPort {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
