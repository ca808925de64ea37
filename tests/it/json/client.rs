//! A client of HTTP/1.1 that sends what it is told, and keeps its connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::fixtures::DEADLINE;

/// A client with one connection at a time.
pub(super) struct Client {
    address: String,
    pub(super) authorization: Option<String>,
    connection: Option<BufReader<TcpStream>>,
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} {:?} {body}", self.status, self.headers)
    }
}

impl Client {
    pub(super) fn new(address: &str, key: Option<&str>) -> Self {
        Self {
            address: address.to_owned(),
            authorization: key.map(|key| format!("Bearer {key}")),
            connection: None,
        }
    }

    /// Calls a method that answers.
    pub(super) fn call(&mut self, method: &str, request: &Value) -> Value {
        let reply = self.post(method, request.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{method} {request}: {reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        reply.json()
    }

    /// Posts a body to a method `SERVICE/METHOD`.
    pub(super) fn post(&mut self, method: &str, body: &[u8]) -> Reply {
        self.post_with(method, &[], body)
    }

    /// The same with headers besides.
    pub(super) fn post_with(&mut self, method: &str, headers: &[&str], body: &[u8]) -> Reply {
        let length = format!("content-length: {}", body.len());
        let headers = [&["content-type: application/json", &length], headers].concat();
        let head = self.head(&format!("POST /claviger.v1.{method}"), &headers);
        self.exchange(&[head.as_bytes(), body].concat())
    }

    /// The first line and the headers of a request.
    pub(super) fn head(&self, line: &str, headers: &[&str]) -> String {
        let mut head = format!("{line} HTTP/1.1\r\nhost: claviger\r\n");
        if let Some(authorization) = &self.authorization {
            head += &["authorization: ", authorization, "\r\n"].concat();
        }
        for header in headers {
            head += &[header, "\r\n"].concat();
        }
        head + "\r\n"
    }

    /// Sends a request and reads its answer, on a new connection if the server has closed the last one.
    pub(super) fn exchange(&mut self, request: &[u8]) -> Reply {
        if let Some(mut connection) = self.connection.take()
            && let Ok(reply) = exchange(&mut connection, request)
        {
            self.keep(connection, &reply);
            return reply;
        }
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = BufReader::new(stream);
        let reply = exchange(&mut connection, request).unwrap();
        self.keep(connection, &reply);
        reply
    }

    fn keep(&mut self, connection: BufReader<TcpStream>, reply: &Reply) {
        if reply.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
    }
}

fn exchange(connection: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<Reply> {
    // The server may have answered before it has read everything.
    let sent = connection.get_mut().write_all(request);
    let line = line(connection).map_err(|error| sent.err().unwrap_or(error))?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let mut reply = Reply {
        status: status.ok_or_else(|| io::Error::other("no status"))?,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let line = self::line(connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').expect("a header");
        reply
            .headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    let length = reply.header("content-length").expect("its length");
    reply.body = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut reply.body)?;
    Ok(reply)
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

impl Reply {
    pub(super) fn header(&self, wanted: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error.
    pub(super) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The reason of an error.
    pub(super) fn reason(&self) -> String {
        let info = self.detail("google.rpc.ErrorInfo");
        info["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The fields that an error names.
    pub(super) fn fields(&self) -> Vec<String> {
        let bad = self.detail("google.rpc.BadRequest");
        let violations = bad["fieldViolations"].as_array().cloned();
        let violations = violations.unwrap_or_default();
        violations
            .iter()
            .map(|of| super::text(&of["field"]))
            .collect()
    }

    fn detail(&self, kind: &str) -> Value {
        let json = self.json();
        let details = json["details"].as_array().cloned().unwrap_or_default();
        let found = details.into_iter().find(|detail| detail["type"] == kind);
        found.unwrap_or_default()["debug"].take()
    }
}
