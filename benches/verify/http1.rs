//! Requests over HTTP/1.1, one at a time on a connection.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::Socket;

/// Sends a request and returns the response, which must have no body.
pub(crate) async fn exchange<'i>(
    socket: &mut dyn Socket,
    request: &[u8],
    input: &'i mut [u8],
) -> io::Result<&'i [u8]> {
    socket.write_all(request).await?;
    socket.flush().await?;
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
