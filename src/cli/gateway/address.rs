//! The hosts that a configuration names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// A host name or an IP address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// The name or address of a host, or `*.DOMAIN` for the names below a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostName(pub(super) String);

/// What the certificate of a server must name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerName {
    /// A host name, in lower case.
    Dns(String),
    Ip(IpAddr),
}

impl Address {
    /// Parses `HOST:PORT`. An IPv6 address is in brackets.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parsed = match text.parse::<SocketAddr>() {
            Ok(address) => Some((address.ip().to_string(), address.port())),
            Err(_) => text.rsplit_once(':').and_then(|(host, port)| {
                let port = port.parse().ok()?;
                is_host(host).then(|| (host.to_owned(), port))
            }),
        };
        match parsed {
            Some((host, port)) if port != 0 => Ok(Self { host, port }),
            _ => Err("must look like `HOST:PORT`, such as 127.0.0.1:8081".to_owned()),
        }
    }

    /// Whether this is an address of the machine itself.
    pub(super) fn is_loopback(&self) -> bool {
        let ip: Result<IpAddr, _> = self.host.parse();
        ip.map_or_else(
            |_| self.host.eq_ignore_ascii_case("localhost"),
            |ip| ip.to_canonical().is_loopback(),
        )
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

impl HostName {
    /// Parses the name of a host, or `*.DOMAIN`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if is_host(text.strip_prefix("*.").unwrap_or(text)) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(
            "must be the name of a host, such as api.example.com or *.example.com, without a port"
                .to_owned(),
        )
    }
}

impl ServerName {
    /// What a certificate must name for clients that connect to this address.
    pub(super) fn of(address: &Address) -> Self {
        match address.host.parse() {
            Ok(ip) => Self::Ip(ip),
            Err(_) => Self::Dns(address.host.to_ascii_lowercase()),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => formatter.write_str(name),
            Self::Ip(ip) => ip.fmt(formatter),
        }
    }
}

/// Whether the text is a host name or an IPv4 address. Its characters have no meaning of their own in a configuration, and
/// `unix` is the beginning of a path to nginx.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text != "unix" && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:8081", "127.0.0.1", 8081),
            ("api.internal:80", "api.internal", 80),
            ("[::1]:443", "::1", 443),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
        for wrong in [
            "",
            "unix:80",
            "a..b:80",
            ":80",
            "api",
            "api:",
            "api:0",
            "api:65536",
            "::1:80",
            "a b:80",
            "a;b:80",
            "http://a:80",
            "a\n:80",
            "${API}:80",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_has_no_port_and_nothing_that_ends_a_statement() {
        assert_eq!(HostName::parse("API.example").unwrap().0, "api.example");
        assert!(HostName::parse("*.example.com").is_ok());
        for wrong in [
            ".", "..", ".a", "a.", "*..a", "", "*", "*.", "a.*", "a:80", "a b", "a;", "a{", "\"",
            "é",
        ] {
            assert!(HostName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_must_name_the_host_of_the_address() {
        for (address, name) in [
            (
                "Keys.Internal:7701",
                ServerName::Dns("keys.internal".to_owned()),
            ),
            ("10.0.0.1:7701", ServerName::Ip([10, 0, 0, 1].into())),
            ("[::1]:7701", ServerName::Ip("::1".parse().unwrap())),
        ] {
            assert_eq!(ServerName::of(&Address::parse(address).unwrap()), name);
        }
    }
}
