//! The configuration of nginx.

use super::address::ServerName;
use super::api::{GatewayApi, RealmDenial};
use super::template::fill;
use super::upstream_tls::{ClientCertificate, UpstreamTls};
use crate::pb::claviger::v1::DenialClass;

/// The length of a quoted text, in bytes. nginx refuses one of 4,096.
const MAX_QUOTED: usize = 2_000;

/// The placeholders in the body of a denial.
const PLACEHOLDERS: [&str; 2] = ["{{verdict}}", "{{reason}}"];

/// The variables that replace the placeholders.
const FROM_ANSWER: [&str; 2] = ["${claviger_verdict}", "${claviger_reason}"];

/// The statement for bodies that contain `$`, which nginx cannot quote.
const DOLLAR: &str = "geo $claviger_dollar { default \"$\"; }";

/// Writes a file for the `http` block.
pub(super) fn config(api: &GatewayApi) -> String {
    let denials = [
        (DenialClass::Unauthenticated, FROM_ANSWER),
        (DenialClass::Forbidden, FROM_ANSWER),
        (DenialClass::Undecided, ["UNDECIDED"; 2]),
    ]
    .map(|(class, values)| denial(&api.denial(class), values));
    let [unauthenticated, forbidden, undecided] = &denials;
    let dollar = denials
        .iter()
        .any(|denial| denial.contains("claviger_dollar"));
    let names: Vec<_> = api.hosts.iter().map(|host| host.0.as_str()).collect();
    let own = api.key_headers();
    let own = own
        .iter()
        .map(|name| format!("proxy_set_header {name} \"\";"));
    let shared = api.shared_headers();
    let shared = shared
        .iter()
        .map(|name| from_answer(name, &name.replace('-', "_")));
    let key_headers: Vec<_> = own.chain(shared).collect();
    let labels: Vec<_> = api
        .label_headers
        .iter()
        .zip(1..)
        .map(|(name, number)| from_answer(name, &format!("label_{number}")))
        .collect();
    let tls = api.tls.as_ref().map_or_else(String::new, |tls| {
        upstream_tls(tls, &ServerName::of(&api.claviger))
    });
    let listen = api.listen().to_string();
    let mut text = fill(
        include_str!("nginx.conf"),
        &[
            ("REALM", &api.realm.id),
            ("ENVIRONMENT", &api.environment),
            ("API", &api.name()),
            ("GATEWAY_KEY", api.key.reveal()),
            ("LISTEN", &listen),
            (
                "SERVER_NAMES",
                if names.is_empty() {
                    "_".to_owned()
                } else {
                    names.join(" ")
                }
                .as_str(),
            ),
            ("UPSTREAM", &api.upstream.to_string()),
            ("CLAVIGER", &api.claviger.to_string()),
            ("SCHEME", api.claviger_scheme()),
            ("TLS", &tls),
            ("DOLLAR", if dollar { DOLLAR } else { "" }),
            ("LABELS", &labels.join("\n")),
            ("KEY_HEADERS", &key_headers.join("\n")),
            ("UNAUTHENTICATED", unauthenticated),
            ("FORBIDDEN", forbidden),
            ("UNDECIDED", undecided),
        ],
    );
    if api.default_server && !names.is_empty() {
        text.push_str(&fill(
            "\n# All other hosts.\nserver {\n    listen ${LISTEN} default_server;\n    return 404;\n}\n",
            &[("LISTEN", &listen)],
        ));
    }
    text
}

/// The statements that set a header as claviger's answer has it. nginx does not start if the name of a variable of this file is long.
fn from_answer(name: &str, variable: &str) -> String {
    let answered = name.replace('-', "_");
    format!(
        "auth_request_set $claviger_{variable} $upstream_http_{answered};\nproxy_set_header {name} $claviger_{variable};"
    )
}

/// The statements about a claviger that serves TLS.
fn upstream_tls(tls: &UpstreamTls, server: &ServerName) -> String {
    let UpstreamTls {
        ca,
        client_certificate,
    } = tls;
    let mut statements = vec![
        "proxy_ssl_verify on;".to_owned(),
        format!("proxy_ssl_trusted_certificate \"{ca}\";"),
        // By itself nginx allows one issuer between the certificate and the root.
        "proxy_ssl_verify_depth 4;".to_owned(),
        format!("proxy_ssl_name {server};"),
        "proxy_ssl_server_name on;".to_owned(),
        // By itself nginx 1.22 does not speak 1.3.
        "proxy_ssl_protocols TLSv1.2 TLSv1.3;".to_owned(),
    ];
    if let Some(ClientCertificate { certificate, key }) = client_certificate {
        statements.push(format!("proxy_ssl_certificate \"{certificate}\";"));
        statements.push(format!("proxy_ssl_certificate_key \"{key}\";"));
    }
    statements.join("\n")
}

/// The statements that answer with a denial. `values` replace the placeholders in its body.
fn denial(denial: &RealmDenial, values: [&str; 2]) -> String {
    let mut statements = Vec::new();
    let mut content_type = "";
    let mut headers = Vec::new();
    for (name, value) in &denial.headers {
        match *name {
            "content-type" => content_type = value,
            // claviger's own answer has it.
            "www-authenticate" => {}
            name => {
                let variable = format!("claviger_header_{}", headers.len() + 1);
                // Only in a body they are placeholders.
                let value = text(&variable, pieces(value, PLACEHOLDERS), &mut statements);
                headers.push(format!("add_header {name} {value} always;"));
            }
        }
    }
    let mut body = pieces(denial.body, values);
    if body.is_empty() {
        // Where the body is a text of no length, nginx writes a page of its own, but not where it is a variable.
        statements.push("set $claviger_body '';".to_owned());
        body.push("${claviger_body}".to_owned());
    }
    let body = text("claviger_body", body, &mut statements);
    // This directive knows no variables, so that `$` is only a character.
    let content_type = content_type.replace('\\', r"\\").replace('\'', r"\'");
    statements.push(format!("default_type '{content_type}';"));
    statements.extend(headers);
    statements.push(format!("return {} {body};", denial.status));
    statements.join("\n")
}

/// A text of several pieces as a parameter: in quotes, or as a variable that `statements` put together.
fn text(variable: &str, pieces: Vec<String>, statements: &mut Vec<String>) -> String {
    if let [only] = pieces.as_slice() {
        return format!("'{only}'");
    }
    statements.push(format!("set ${variable} '';"));
    let set = |piece| format!("set ${variable} '${{{variable}}}{piece}';");
    statements.extend(pieces.into_iter().map(set));
    format!("${variable}")
}

/// A text as pieces to put into single quotes, none of them longer than nginx reads. `values` replace the placeholders.
fn pieces(text: &str, values: [&str; 2]) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut push = |escaped: &str| {
        if pieces
            .last()
            .is_none_or(|last| last.len() + escaped.len() > MAX_QUOTED)
        {
            pieces.push(String::new());
        }
        if let Some(last) = pieces.last_mut() {
            last.push_str(escaped);
        }
    };
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let placeholder = PLACEHOLDERS.iter().zip(values);
        if let Some((placeholder, value)) = placeholder
            .into_iter()
            .find(|(own, _)| rest.starts_with(**own))
        {
            push(value);
            rest = &rest[placeholder.len()..];
            continue;
        }
        match character {
            '\\' => push(r"\\"),
            '\'' => push(r"\'"),
            '$' => push("${claviger_dollar}"),
            '\n' => push(r"\n"),
            '\r' => push(r"\r"),
            other => push(other.encode_utf8(&mut [0; 4])),
        }
        rest = &rest[character.len_utf8()..];
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial_with(headers: &[(&str, &str)], body: &str) -> String {
        let headers = headers.to_vec();
        denial(
            &RealmDenial {
                status: 402,
                headers,
                body,
            },
            FROM_ANSWER,
        )
    }

    #[test]
    fn what_has_a_meaning_in_a_configuration_is_escaped() {
        let headers = [
            ("x-a", "it's $1 {{verdict}}"),
            ("content-type", "a/$b; c='\\'"),
        ];
        assert_eq!(
            denial_with(
                &headers,
                "{\"it's\":\"\\n {{verdict}}_$\"}\r\n{{reason}}{{{verdict"
            ),
            "default_type 'a/$b; c=\\'\\\\\\'';\n\
             add_header x-a 'it\\'s ${claviger_dollar}1 {{verdict}}' always;\n\
             return 402 '{\"it\\'s\":\"\\\\n ${claviger_verdict}_${claviger_dollar}\"}\\r\\n${claviger_reason}{{{verdict';"
        );
    }

    #[test]
    fn an_empty_body_is_a_variable() {
        let empty = denial_with(&[], "");
        assert!(empty.contains("set $claviger_body '';"), "{empty}");
        assert!(empty.ends_with("return 402 '${claviger_body}';"), "{empty}");
    }

    /// nginx reads at most 4,096 bytes between two quotes.
    #[test]
    fn no_text_is_longer_than_nginx_reads() {
        let dollars = "$".repeat(512);
        let headers = [
            ("x-a", &*dollars),
            ("x-b", &dollars),
            ("content-type", &dollars),
        ];
        for unit in [
            "{{verdict}}",
            "$",
            "'",
            "\\",
            "\n",
            "x",
            "\u{10ffff}",
            "'{{verdict}}",
        ] {
            let count = 4_096 / unit.len();
            let long = denial_with(&headers, &unit.repeat(count));
            assert!(long.lines().all(|line| line.len() < 4_000), "{long}");
            assert_eq!(
                long.matches("${claviger_verdict}").count(),
                if unit.contains("verdict") { count } else { 0 },
                "{unit}"
            );
            assert_eq!(long.matches("add_header x-").count(), 2);
        }
    }
}
