//! HTTP/1.1 by hand (RFC 9112), on both sides of a gateway: a client that sends bytes as they are, and a server that keeps
//! what reached it as it was. A library would put right what is odd, on either side.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::fixtures::DEADLINE;

/// A request as the server behind the gateway got it.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamRequest {
    /// The first line.
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
}

/// An answer as the client got it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl UpstreamRequest {
    /// The values of a header.
    pub(super) fn headers(&self, wanted: &str) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter();
        let found = headers.filter(move |(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    /// What stands between the method and the version.
    pub(super) fn target(&self) -> &str {
        let rest = self.line.split_once(' ').map_or("", |(_, rest)| rest);
        rest.rsplit_once(' ').map_or(rest, |(target, _)| target)
    }
}

impl Answer {
    pub(super) fn header(&self, wanted: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }
}

/// What a client sends and gets back after a connection's protocol was switched.
pub(super) const SWITCHED: &str = "switched";

/// The server behind a gateway. It answers everything with 200, and keeps what it saw. Where it is asked to switch the protocol, it
/// does, whichever protocol that is, and chooses the first subprotocol of a WebSocket.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<UpstreamRequest>>>,
    serving: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            // Dropped with this task, so that open connections end too.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                connections.spawn(async move {
                    // A connection that is cut has nothing more to show.
                    let _ = serve(stream, &kept).await;
                });
            }
        });
        Self {
            address,
            seen,
            serving,
        }
    }

    /// Listens no longer, and closes all connections.
    pub(super) fn stop(&self) {
        self.serving.abort();
    }

    /// What it saw since the last look.
    pub(crate) fn seen(&self) -> Vec<UpstreamRequest> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request after the other on one connection, so that a second one which was smuggled in is seen too.
async fn serve(stream: TcpStream, kept: &Mutex<Vec<UpstreamRequest>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(head) = head(&mut stream).await? {
        let (line, headers) = parse(&head);
        let named = |wanted: &str| {
            let mut headers = headers.iter();
            let found = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.clone())
        };
        match named("transfer-encoding") {
            Some(coding) if coding == "chunked" => skip_chunks(&mut stream).await?,
            _ => {
                let length = named("content-length").and_then(|length| length.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                stream.read_exact(&mut body).await?;
            }
        }
        let last = line.ends_with("1.0") || named("connection").is_some_and(|word| word == "close");
        let (upgrade, offered) = (named("upgrade"), named("sec-websocket-protocol"));
        kept.lock().unwrap().push(UpstreamRequest { line, headers });
        if let Some(protocol) = upgrade {
            let offered = offered.filter(|offered| !offered.is_empty());
            let chosen = offered.map_or_else(String::new, |offered| {
                let first = offered.split(',').next().unwrap_or_default();
                format!("sec-websocket-protocol: {}\r\n", first.trim())
            });
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n{chosen}\r\n"
            );
            stream.get_mut().write_all(answer.as_bytes()).await?;
            let mut sent = vec![0; SWITCHED.len()];
            stream.read_exact(&mut sent).await?;
            return stream.get_mut().write_all(&sent).await;
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).await?;
        if last {
            break;
        }
    }
    Ok(())
}

async fn skip_chunks(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).await?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// Up to the empty line; nothing at the end of a connection.
async fn head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(head))
}

fn parse(head: &[u8]) -> (String, Vec<(String, String)>) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
    });
    (first, headers.collect())
}

/// Sends bytes and reads the answer; one that is empty (status 0) if the connection was closed without a word.
pub(crate) async fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut stream = BufReader::new(stream);
        let Some(head) = head(&mut stream).await? else {
            return Ok(Answer::default());
        };
        let (line, headers) = parse(&head);
        let mut answer = Answer {
            status: line.split(' ').nth(1).unwrap_or("0").parse().unwrap_or(0),
            headers,
            body: String::new(),
        };
        if request.starts_with(b"HEAD ") {
            return Ok(answer);
        }
        if answer.status == 101 {
            // The body is what came back after the switch.
            stream.get_mut().write_all(SWITCHED.as_bytes()).await?;
        }
        let mut body = Vec::new();
        match answer.header("content-length").map(str::parse) {
            Some(Ok(length)) => {
                body.resize(length, 0);
                stream.read_exact(&mut body).await?;
            }
            _ => {
                stream.read_to_end(&mut body).await?;
            }
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok::<_, io::Error>(answer)
    };
    tokio::time::timeout(DEADLINE, exchange)
        .await
        .expect("the gateway answers or hangs up")
        // A reset is as good as a close.
        .unwrap_or_default()
}
