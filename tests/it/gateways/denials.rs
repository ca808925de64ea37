//! Denials that are hard to write into a configuration.

use claviger::pb::claviger::v1 as pb;

use super::credentials;
use super::fixture::{GatewayFixture, PARTNERO};

const HELP: &str = r#"it's $1, \ "; see {api} {{verdict}}"#;
const CONTENT_TYPE: &str = r#"text/$x; charset="utf-8""#;

/// The realm's denials, with this status and body for those that are not known.
fn denials(status: u32, body: &str) -> Vec<pb::Denial> {
    let longest = "$".repeat(512);
    let headers = [
        ("x-help", HELP),
        ("x-longest", &longest),
        ("content-type", CONTENT_TYPE),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let denial = |class: pb::DenialClass, status| pb::Denial {
        denial_class: class.into(),
        status,
        headers: headers.clone().into(),
        body: body.to_owned(),
    };
    vec![
        denial(pb::DenialClass::Unauthenticated, status),
        denial(pb::DenialClass::Forbidden, 451),
    ]
}

/// Seen red with a body in one piece, with nothing escaped, without the verdict's header, and without `allowed_client_headers` of
/// the realm. For nginx also red with a body that is only long because of its verdicts, and with a long header.
pub(super) async fn check_all(fixture: &mut GatewayFixture) {
    let kind = fixture.kind;
    let long = "'$\\{{verdict}}${API} {http.request.uri}\r\n".repeat(99);
    let text = r#"it's "$1" \n {} {{verdict}}_ #; "#;
    let verdicts = "{{verdict}}".repeat(4_096 / 11);
    for (status, body) in [(404, text), (401, &long), (418, ""), (499, &verdicts)] {
        let change = |realm: &mut pb::Realm| realm.denials = denials(status, body);
        fixture.put_realm(PARTNERO, change).await;
        fixture.renew_gateway(PARTNERO);
        for (key, status, verdict) in [
            ("", status, "VERDICT_MALFORMED"),
            ("revoked", status, "VERDICT_REVOKED"),
            ("read", 451, "VERDICT_SCOPE_MISSING"),
        ] {
            let headers = match key {
                "" => vec![],
                key => credentials::headers(PARTNERO, key),
            };
            let (answer, seen) = fixture
                .request(PARTNERO, "DELETE /v1/partners", &headers)
                .await;
            let what = format!("{kind:?} {status} {key:?}: {answer:?}");
            let told = (u32::from(answer.status), seen.len());
            assert_eq!(told, (status, 0), "{what}");
            assert_eq!(answer.body, body.replace("{{verdict}}", verdict), "{what}");
            assert_eq!(answer.header("x-help"), Some(HELP), "{what}");
            assert_eq!(
                answer.header("x-longest").map(str::len),
                Some(512),
                "{what}"
            );
            // Envoy leaves it out where there is no body.
            if !body.is_empty() {
                assert_eq!(answer.header("content-type"), Some(CONTENT_TYPE), "{what}");
            }
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Bearer realm=\"partnero\""), "{what}");
            assert_eq!(answer.header("x-claviger-verdict"), None, "{what}");
        }
    }
}
