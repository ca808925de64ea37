//! What a gateway is told: the API that it protects, and the servers on either side of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::cli::api_key::ApiKey;
use crate::pb::claviger::v1::credential_source::Source;
use crate::pb::claviger::v1::{Denial, DenialClass, Realm};

/// Where a gateway listens unless it is told.
pub(super) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// One environment of a realm as one gateway protects it.
pub(super) struct GatewayApi {
    pub(super) realm: Realm,
    pub(super) environment: String,
    /// The gateway's own key.
    pub(super) key: ApiKey,
    /// Where the gateway reaches claviger.
    pub(super) claviger: Address,
    /// The server behind the gateway.
    pub(super) upstream: Address,
    /// Where the gateway listens, if that was said.
    pub(super) listen: Option<SocketAddr>,
    /// The hosts of the API. Empty: every host.
    pub(super) hosts: Vec<HostName>,
    /// Whether the gateway answers 404 for other hosts.
    pub(super) default_server: bool,
}

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

/// A denial of a realm.
pub(super) struct RealmDenial<'r> {
    pub(super) status: u32,
    /// Its headers, with names in lower case.
    pub(super) headers: Vec<(&'r str, &'r str)>,
    pub(super) body: &'r str,
}

impl GatewayApi {
    /// A name of the API that no other realm or environment has: the names of both have no dot.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.realm.id, self.environment)
    }

    /// Where the gateway listens.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or(DEFAULT_LISTEN)
    }

    /// The headers that may carry the client's key.
    pub(super) fn key_headers(&self) -> Vec<&str> {
        let credentials = self.realm.credentials.as_ref();
        let sources = credentials.map_or(&[][..], |credentials| &credentials.sources);
        let names = sources.iter().filter_map(|source| match &source.source {
            Some(Source::Header(header)) => Some(header.name.as_str()),
            _ => None,
        });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The headers of the client's request that claviger reads.
    pub(super) fn read_headers(&self) -> Vec<&str> {
        let mut names = self.key_headers();
        let credentials = self.realm.credentials.as_ref();
        names.extend(
            credentials
                .map(|credentials| credentials.partner_header.as_str())
                .filter(|name| !name.is_empty()),
        );
        names
    }

    /// The denial for a class: the realm's, or the one that claviger has for it.
    pub(super) fn denial(&self, class: DenialClass) -> RealmDenial<'_> {
        let defined = self
            .realm
            .denials
            .iter()
            .find(|denial| denial.denial_class() == class);
        let (status, headers, body) = defined.map_or((0, None, ""), |defined| {
            let Denial {
                status,
                headers,
                body,
                ..
            } = defined;
            (*status, Some(headers), body.as_str())
        });
        RealmDenial {
            status: match (status, class) {
                (0, DenialClass::Unauthenticated) => 401,
                (0, DenialClass::Forbidden) => 403,
                (0, _) => 503,
                (status, _) => status,
            },
            headers: headers
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            body,
        }
    }
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
}
