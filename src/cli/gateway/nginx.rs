//! The configuration of nginx.

use super::api::{GatewayApi, RealmDenial};
use super::template::fill;
use crate::pb::claviger::v1::DenialClass;

/// The length of a quoted text, in bytes. nginx refuses one of 4,096.
const MAX_QUOTED: usize = 2_000;

/// The statement for bodies that contain `$`, which nginx cannot quote.
const DOLLAR: &str = "geo $claviger_dollar { default \"$\"; }";

/// Writes a file for the `http` block.
pub(super) fn config(api: &GatewayApi) -> String {
    let denials = [
        (DenialClass::Unauthenticated, "${claviger_verdict}"),
        (DenialClass::Forbidden, "${claviger_verdict}"),
        (DenialClass::Undecided, "UNDECIDED"),
    ]
    .map(|(class, verdict)| denial(&api.denial(class), verdict));
    let [unauthenticated, forbidden, undecided] = &denials;
    let dollar = denials
        .iter()
        .any(|denial| denial.contains("claviger_dollar"));
    let names: Vec<_> = api.hosts.iter().map(|host| host.0.as_str()).collect();
    let key_headers: Vec<_> = api
        .key_headers()
        .iter()
        .map(|name| format!("proxy_set_header {name} \"\";"))
        .collect();
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
            ("DOLLAR", if dollar { DOLLAR } else { "" }),
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

/// The statements that answer with a denial. `verdict` replaces the placeholder in its body.
fn denial(denial: &RealmDenial, verdict: &str) -> String {
    let mut statements = vec![String::new()];
    let mut content_type = "";
    for (name, value) in &denial.headers {
        match *name {
            "content-type" => content_type = value,
            // claviger's own answer has it.
            "www-authenticate" => {}
            name => statements.push(format!("add_header {name} '{}' always;", escaped(value))),
        }
    }
    statements[0] = format!("default_type '{}';", escaped(content_type));
    let status = denial.status;
    match body_pieces(denial.body, verdict).as_slice() {
        [only] => statements.push(format!("return {status} '{only}';")),
        // Where the body is a text of no length, nginx writes a page of its own, but not where it is a variable.
        pieces => {
            statements.push("set $claviger_body '';".to_owned());
            for piece in pieces {
                statements.push(format!("set $claviger_body '${{claviger_body}}{piece}';"));
            }
            statements.push(format!("return {status} $claviger_body;"));
        }
    }
    statements.join("\n")
}

/// The body as texts to put into quotes, none of them longer than nginx reads.
fn body_pieces(body: &str, verdict: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    for (i, part) in body.split("{{verdict}}").enumerate() {
        if i > 0 {
            piece.push_str(verdict);
        }
        for character in part.chars() {
            if piece.len() >= MAX_QUOTED {
                pieces.push(std::mem::take(&mut piece));
            }
            escape_into(character, &mut piece);
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// A text to put into single quotes.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        escape_into(character, &mut out);
    }
    out
}

fn escape_into(character: char, out: &mut String) {
    match character {
        '\\' => out.push_str(r"\\"),
        '\'' => out.push_str(r"\'"),
        '$' => out.push_str("${claviger_dollar}"),
        '\n' => out.push_str(r"\n"),
        '\r' => out.push_str(r"\r"),
        other => out.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial_with(body: &str) -> String {
        let headers = vec![("x-a", "it's $1"), ("content-type", "text/plain")];
        denial(
            &RealmDenial {
                status: 402,
                headers,
                body,
            },
            "${claviger_verdict}",
        )
    }

    #[test]
    fn what_has_a_meaning_in_a_configuration_is_escaped() {
        assert_eq!(
            denial_with("{\"it's\":\"\\n {{verdict}}_$\"}\r\n"),
            "default_type 'text/plain';\n\
             add_header x-a 'it\\'s ${claviger_dollar}1' always;\n\
             return 402 '{\"it\\'s\":\"\\\\n ${claviger_verdict}_${claviger_dollar}\"}\\r\\n';"
        );
    }

    #[test]
    fn an_empty_body_is_a_variable_and_a_long_one_is_several_texts() {
        assert!(denial_with("").ends_with("set $claviger_body '';\nreturn 402 $claviger_body;"));
        let long = denial_with(&"'{{verdict}}".repeat(4_096 / 12));
        assert!(long.lines().all(|line| line.len() < 4_000), "{long}");
        assert_eq!(long.matches("${claviger_verdict}").count(), 4_096 / 12);
        assert_eq!(long.matches(r"\'").count(), 4_096 / 12 + 1);
    }
}
