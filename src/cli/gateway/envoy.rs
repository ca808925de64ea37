//! The configuration of Envoy.

use super::address::ServerName;
use super::api::GatewayApi;
use super::template::fill;
use super::upstream_tls::{ClientCertificate, UpstreamTls};
use crate::pb::claviger::v1::DenialClass;

/// Writes a whole bootstrap that asks over gRPC.
pub(super) fn over_grpc(api: &GatewayApi) -> String {
    render(include_str!("envoy.yaml"), api, "h2")
}

/// Writes a whole bootstrap that asks over HTTP.
pub(super) fn over_http(api: &GatewayApi) -> String {
    render(include_str!("envoy-http.yaml"), api, "http/1.1")
}

/// `protocol` is what the gateway speaks with claviger, as ALPN names it.
fn render(template: &str, api: &GatewayApi, protocol: &str) -> String {
    let listen = api.listen();
    let domains: Vec<_> = if api.hosts.is_empty() {
        vec!["\"*\"".to_owned()]
    } else {
        // Envoy compares the port of the `Host` header too.
        let port = listen.port();
        let hosts = api.hosts.iter();
        hosts
            .flat_map(|host| [format!("\"{}\"", host.0), format!("\"{}:{port}\"", host.0)])
            .collect()
    };
    let mut denial_headers: Vec<_> = [
        DenialClass::Unauthenticated,
        DenialClass::Forbidden,
        DenialClass::Undecided,
    ]
    .into_iter()
    .flat_map(|class| api.denial(class).headers)
    .map(|(name, _)| name)
    .filter(|name| *name != "www-authenticate")
    .collect();
    denial_headers.sort_unstable();
    denial_headers.dedup();
    let mut set_headers: Vec<_> = api.label_headers.iter().map(String::as_str).collect();
    set_headers.extend(api.shared_headers());
    let tls = api.tls.as_ref().map_or_else(String::new, |tls| {
        transport_socket(tls, &ServerName::of(&api.claviger), protocol)
    });
    fill(
        template,
        &[
            ("REALM", &api.realm.id),
            ("ENVIRONMENT", &api.environment),
            ("API", &api.name()),
            ("GATEWAY_KEY", api.key.reveal()),
            ("LISTEN_HOST", &quoted(&listen.ip().to_string())),
            ("LISTEN_PORT", &listen.port().to_string()),
            ("DOMAINS", &format!("[{}]", domains.join(", "))),
            ("UPSTREAM_HOST", &quoted(&api.upstream.host)),
            ("UPSTREAM_PORT", &api.upstream.port.to_string()),
            ("CLAVIGER_HOST", &quoted(&api.claviger.host)),
            ("CLAVIGER_PORT", &api.claviger.port.to_string()),
            ("SCHEME", api.claviger_scheme()),
            ("TLS", &tls),
            ("KEY_HEADERS", &list("- ", &api.key_headers())),
            ("READ_HEADERS", &list("- exact: ", &api.read_headers())),
            ("SET_HEADERS", &list("- exact: ", &set_headers)),
            ("DENIAL_HEADERS", &list("- exact: ", &denial_headers)),
        ],
    )
}

/// The transport socket of the cluster of a claviger that serves TLS.
fn transport_socket(tls: &UpstreamTls, server: &ServerName, protocol: &str) -> String {
    let UpstreamTls {
        ca,
        client_certificate,
    } = tls;
    let (sni, kind) = match server {
        ServerName::Dns(name) => (format!("sni: \"{name}\""), "DNS"),
        // The extension names no addresses (RFC 6066).
        ServerName::Ip(_) => (String::new(), "IP_ADDRESS"),
    };
    let certificates = client_certificate.as_ref().map_or_else(
        String::new,
        |ClientCertificate { certificate, key }| {
            format!(
                "tls_certificates:\n  - certificate_chain: {{ filename: \"{certificate}\" }}\n    private_key: {{ filename: \"{key}\" }}"
            )
        },
    );
    fill(
        include_str!("envoy-tls.yaml"),
        &[
            ("SNI", &sni),
            ("PROTOCOL", protocol),
            ("CERTIFICATES", &certificates),
            ("CA", ca),
            ("KIND", kind),
            ("NAME", &server.to_string()),
        ],
    )
    .trim_end()
    .to_owned()
}

/// A string that YAML cannot take for anything else, such as a number.
fn quoted(host: &str) -> String {
    format!("\"{host}\"")
}

/// The entries of a list, with names that YAML cannot take for anything else.
fn list(prefix: &str, names: &[&str]) -> String {
    let entries: Vec<_> = names
        .iter()
        .map(|name| format!("{prefix}\"{name}\""))
        .collect();
    entries.join("\n")
}
