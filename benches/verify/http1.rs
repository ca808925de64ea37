//! The load of a gateway that uses HTTP/1.1: one request at a time on each connection.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{Load, microseconds};

/// Sends requests until none are left, and returns the latencies of those on this connection.
pub(crate) async fn run(
    load: &Load,
    questions: &[u8],
    next: &AtomicUsize,
) -> Result<Vec<f64>, Box<dyn Error + Send + Sync>> {
    let mut socket = TcpStream::connect(&load.address).await?;
    socket.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut input = vec![0; 16 * 1024];
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.calls {
            return Ok(latencies);
        }
        let start = number * load.length % questions.len();
        let began = Instant::now();
        let request = &questions[start..start + load.length];
        let response = exchange(&mut socket, request, &mut input).await?;
        load.check(response)?;
        latencies.push(microseconds(began));
    }
}

/// Sends a request and returns the response, which must have no body.
pub(crate) async fn exchange<'i>(
    socket: &mut TcpStream,
    request: &[u8],
    input: &'i mut [u8],
) -> io::Result<&'i [u8]> {
    socket.write_all(request).await?;
    let mut filled = 0;
    while !input[..filled].ends_with(b"\r\n\r\n") {
        let read = socket.read(&mut input[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
    }
    Ok(&input[..filled])
}
