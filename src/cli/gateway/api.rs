//! What a gateway is told: the API that it protects, and the servers on either side of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::address::{Address, HostName};
use super::upstream_tls::UpstreamTls;
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
    /// How the gateway reaches claviger over TLS; `None` without TLS.
    pub(super) tls: Option<UpstreamTls>,
    /// The server behind the gateway.
    pub(super) upstream: Address,
    /// Where the gateway listens, if that was said.
    pub(super) listen: Option<SocketAddr>,
    /// The hosts of the API. Empty: every host.
    pub(super) hosts: Vec<HostName>,
    /// The headers with labels of the key, in lower case.
    pub(super) label_headers: Vec<String>,
    /// Whether the gateway answers 404 for other hosts.
    pub(super) default_server: bool,
}

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

    /// The scheme of claviger's address for the gateway.
    pub(super) fn claviger_scheme(&self) -> &'static str {
        match self.tls {
            None => "http",
            Some(_) => "https",
        }
    }

    /// The headers that carry the client's key and nothing else.
    pub(super) fn key_headers(&self) -> Vec<&str> {
        self.headers(|source| match source {
            Source::Header(header) => Some(header.name.as_str()),
            Source::Cookie(_) | Source::WebsocketProtocol(_) => None,
        })
    }

    /// The headers that carry the client's key beside what the API needs. claviger's answer has them without the key.
    pub(super) fn shared_headers(&self) -> Vec<&str> {
        self.headers(|source| match source {
            Source::Header(_) => None,
            Source::Cookie(_) => Some("cookie"),
            Source::WebsocketProtocol(_) => Some("sec-websocket-protocol"),
        })
    }

    fn headers<'s>(&'s self, name: impl Fn(&'s Source) -> Option<&'s str>) -> Vec<&'s str> {
        let credentials = self.realm.credentials.as_ref();
        let sources = credentials.map_or(&[][..], |credentials| &credentials.sources);
        let sources = sources.iter().filter_map(|source| source.source.as_ref());
        let mut names: Vec<_> = sources.filter_map(name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The headers of the client's request that claviger reads.
    pub(super) fn read_headers(&self) -> Vec<&str> {
        let mut names = self.key_headers();
        names.extend(self.shared_headers());
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
