//! The gateways that ask over HTTP.

use std::fmt;

use clap::{Args, ValueEnum};

/// The gateways that ask over HTTP.
#[derive(Args, Clone, Debug)]
pub struct GatewayArgs {
    /// A kind of gateway that asks at /auth/KIND/REALM/ENVIRONMENT on --http-listen. Repeat the flag for several kinds. Without it no
    /// gateway may ask over HTTP
    #[arg(
        long = "gateway",
        env = "CLAVIGER_GATEWAY",
        value_name = "KIND",
        value_enum,
        value_delimiter = ','
    )]
    kinds: Vec<GatewayKind>,

    /// The number of trusted proxies in front of these gateways that add to x-forwarded-for
    #[arg(
        long,
        env = "CLAVIGER_TRUSTED_HOPS",
        value_name = "N",
        default_value_t = 0
    )]
    pub trusted_hops: usize,
}

/// A kind of gateway. The kinds differ in how they send the method and the path of the client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GatewayKind {
    /// `auth_request`: x-original-method and x-original-uri, which its configuration must set; only 401 and 403 reach the client
    Nginx,
    /// `forward_auth`: x-forwarded-method and x-forwarded-uri
    Caddy,
    /// `forwardAuth`: x-forwarded-method and x-forwarded-uri
    Traefik,
    /// `ext_authz` with `http_service`: the method of the client's request, and its path after the prefix
    Envoy,
}

impl GatewayArgs {
    /// Serves these kinds, without trusted proxies.
    #[cfg(test)]
    pub(crate) fn new(kinds: &[GatewayKind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            trusted_hops: 0,
        }
    }

    /// The kinds of gateways that may ask over HTTP.
    pub fn kinds(&self) -> &[GatewayKind] {
        &self.kinds
    }
}

impl fmt::Display for GatewayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
        })
    }
}
