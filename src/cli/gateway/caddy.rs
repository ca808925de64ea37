//! The configuration of Caddy.

use super::address::ServerName;
use super::api::GatewayApi;
use super::template::fill;
use super::upstream_tls::{ClientCertificate, UpstreamTls};

/// Writes a Caddyfile.
pub(super) fn config(api: &GatewayApi) -> String {
    // By itself Caddy serves a host over HTTPS, on the usual ports.
    let is_https = api.listen.is_none() && !api.hosts.is_empty();
    let listen = api.listen();
    let port = listen.port();
    let bind = if is_https || listen.ip().is_unspecified() {
        String::new()
    } else {
        format!("bind {}", listen.ip())
    };
    let hosts: Vec<_> = api.hosts.iter().map(|host| host.0.as_str()).collect();
    let sites: Vec<_> = match hosts.as_slice() {
        [] => vec![format!("http://:{port}")],
        hosts if is_https => hosts.iter().map(ToString::to_string).collect(),
        hosts => hosts
            .iter()
            .map(|host| format!("http://{host}:{port}"))
            .collect(),
    };
    let own = api.key_headers();
    let own = own.iter().map(|name| format!("request_header -{name}"));
    let shared = api.shared_headers();
    let replaced = shared.iter().map(|name| {
        fill(
            "request_header -${NAME}\n\
             @${NAME} header_regexp X-Claviger-Left-${NAME} .\n\
             request_header @${NAME} ${NAME} {http.request.header.X-Claviger-Left-${NAME}}\n\
             request_header -X-Claviger-Left-${NAME}",
            &[("NAME", name)],
        )
        .trim_end()
        .to_owned()
    });
    let key_headers: Vec<_> = own.chain(replaced).collect();
    let copied: Vec<_> = api
        .label_headers
        .iter()
        .cloned()
        .chain(
            shared
                .iter()
                .map(|name| format!("{name}>X-Claviger-Left-{name}")),
        )
        .map(|header| format!(" {header}"))
        .collect();
    let tls = api.tls.as_ref().map_or_else(String::new, |tls| {
        transport(tls, &ServerName::of(&api.claviger))
    });
    let mut text = fill(
        include_str!("Caddyfile"),
        &[
            ("REALM", &api.realm.id),
            ("ENVIRONMENT", &api.environment),
            ("GATEWAY_KEY", api.key.reveal()),
            ("SITES", &sites.join(", ")),
            ("BIND", &bind),
            ("UPSTREAM", &api.upstream.to_string()),
            ("CLAVIGER", &api.claviger.to_string()),
            ("TLS", &tls),
            ("COPIED", &copied.concat()),
            ("KEY_HEADERS", &key_headers.join("\n")),
        ],
    );
    if api.default_server && !hosts.is_empty() {
        let site = if is_https {
            "https://".to_owned()
        } else {
            format!("http://:{port}")
        };
        text.push_str(&fill(
            "\n# All other hosts: Caddy answers them with an empty 200 otherwise.\n${SITE} {\n\t${BIND}\n\trespond 404\n}\n",
            &[("SITE", &site), ("BIND", &bind)],
        ));
    }
    text
}

/// The lines of the transport to a claviger that serves TLS.
fn transport(tls: &UpstreamTls, server: &ServerName) -> String {
    let UpstreamTls {
        ca,
        client_certificate,
    } = tls;
    let mut lines = vec![
        "tls".to_owned(),
        "tls_timeout 1s".to_owned(),
        // Later versions of Caddy prefer `tls_trust_pool`, which 2.6 does not know.
        format!("tls_trusted_ca_certs \"{ca}\""),
        format!("tls_server_name {server}"),
    ];
    if let Some(ClientCertificate { certificate, key }) = client_certificate {
        lines.push(format!("tls_client_auth \"{certificate}\" \"{key}\""));
    }
    lines.join("\n")
}
