//! The places that may carry a key, which of them decides, and what of them reaches the server behind; and the identity of a key
//! beyond the usual headers.

use claviger::pb::claviger::v1 as pb;
use pb::credential_source::{Cookie, Source, WebsocketProtocol};

use super::fixture::{GatewayFixture, PARTNERO};
use super::gateway_process::GatewayKind;
use super::http1::{Answer, UpstreamRequest};
use crate::fixtures::{header_source, strings};

const PLAIN: &str = "GET /v1/partners";

const LONGEST_LABEL: &str = "operator/a.label_with-the-longest-name-1";

/// A key may be in either of two headers, a cookie or a WebSocket protocol, in this order.
fn realm(realm: &mut pb::Realm) {
    let source = |source| pb::CredentialSource {
        source: Some(source),
    };
    realm.credentials = Some(pb::Credentials {
        sources: vec![
            header_source("x-api-key", ""),
            header_source("authorization", "Bearer"),
            source(Source::Cookie(Cookie {
                name: "session".to_owned(),
            })),
            source(Source::WebsocketProtocol(WebsocketProtocol::default())),
        ],
        partner_header: String::new(),
    });
    let optional = pb::Route {
        path: "/open/**".to_owned(),
        target: Some(pb::route::Target::Public(true)),
        optional_key: true,
        ..Default::default()
    };
    realm.routes.insert(0, optional);
    let denial = |class: pb::DenialClass| pb::Denial {
        denial_class: class.into(),
        body: "{{verdict}} {{reason}}".to_owned(),
        ..Default::default()
    };
    realm.denials = vec![
        denial(pb::DenialClass::Unauthenticated),
        denial(pb::DenialClass::Forbidden),
    ];
    realm.identity_labels = strings(&["operator/plan", "tier", LONGEST_LABEL]);
}

#[derive(Debug)]
enum Outcome {
    /// It passes as the request of the key with this name, with these values of `cookie` and `sec-websocket-protocol`.
    Passes(&'static str, &'static str, &'static str),
    /// It passes as nobody's.
    Public,
    /// It is denied with 401 for this reason.
    Denied(&'static str),
}

use Outcome::{Denied, Passes, Public};

const GOOD: Outcome = Passes("good", "", "");

const CASES: &[(&str, &[&str], Outcome)] = &[
    (PLAIN, &["X-Api-Key: {good}"], GOOD),
    (PLAIN, &["Authorization: Bearer {good}"], GOOD),
    // The first source decides, and no other place reaches the server.
    (
        PLAIN,
        &["X-Api-Key: {good}", "Authorization: Basic dTpw"],
        GOOD,
    ),
    (
        PLAIN,
        &["Authorization: Basic dTpw", "X-Api-Key: {good}"],
        GOOD,
    ),
    (
        PLAIN,
        &["X-Api-Key: {good}", "Authorization: Bearer an-other.token"],
        GOOD,
    ),
    (
        PLAIN,
        &["X-Api-Key: an-other-token", "Authorization: Bearer {good}"],
        Denied("VERDICT_UNKNOWN UNKNOWN"),
    ),
    (
        PLAIN,
        &["X-Api-Key: {good}", "Cookie: session=x; a=b"],
        Passes("good", "a=b", ""),
    ),
    // Two keys of claviger, wherever they are.
    (
        PLAIN,
        &["X-Api-Key: {good}", "Authorization: Bearer {read}"],
        SEVERAL,
    ),
    (
        PLAIN,
        &["X-Api-Key: {good}", "Authorization: {good}"],
        SEVERAL,
    ),
    (
        PLAIN,
        &["Authorization: Bearer {good}", "Cookie: session={read}"],
        SEVERAL,
    ),
    (
        PLAIN,
        &[
            "Cookie: session={good}",
            "Sec-WebSocket-Protocol: claviger.bearer.{good}, app",
        ],
        SEVERAL,
    ),
    (PLAIN, &["Cookie: session={good}; session={good}"], SEVERAL),
    (
        PLAIN,
        &["Sec-WebSocket-Protocol: claviger.bearer.{good}, claviger.bearer.{read}"],
        SEVERAL,
    ),
    // What else is in the header stays.
    (PLAIN, &["Cookie: session={good}"], GOOD),
    (
        PLAIN,
        &["Cookie: a=b; session={good}; c=\"d e\""],
        Passes("good", "a=b; c=\"d e\"", ""),
    ),
    (
        PLAIN,
        &["Cookie: a=b;session={good};c=d"],
        Passes("good", "a=b; c=d", ""),
    ),
    (
        PLAIN,
        &["Cookie: a=b", "X-Api-Key: {good}"],
        Passes("good", "a=b", ""),
    ),
    (
        PLAIN,
        &["Cookie: Session={good}"],
        Denied("VERDICT_MALFORMED NO_KEY"),
    ),
    (
        PLAIN,
        &["Cookie: session=\"{good}\""],
        Denied("VERDICT_UNKNOWN UNKNOWN"),
    ),
    (
        PLAIN,
        &["Sec-WebSocket-Protocol: claviger.bearer.{good}, app"],
        Passes("good", "", "app"),
    ),
    (
        PLAIN,
        &["Sec-WebSocket-Protocol: app, claviger.bearer.{good}"],
        Passes("good", "", "app"),
    ),
    (
        PLAIN,
        &["Sec-WebSocket-Protocol: claviger.bearer.{good}"],
        GOOD,
    ),
    (
        PLAIN,
        &["Sec-WebSocket-Protocol: app", "X-Api-Key: {good}"],
        Passes("good", "", "app"),
    ),
    // Each mistake has a reason of its own.
    (PLAIN, &[], Denied("VERDICT_MALFORMED NO_KEY")),
    (PLAIN, &["Cookie: a=b"], Denied("VERDICT_MALFORMED NO_KEY")),
    (
        PLAIN,
        &["Cookie: session="],
        Denied("VERDICT_MALFORMED NO_KEY"),
    ),
    (
        PLAIN,
        &["X-Api-Key: {good}x"],
        Denied("VERDICT_MALFORMED KEY_MALFORMED"),
    ),
    (
        PLAIN,
        &["Authorization: Basic dTpw"],
        Denied("VERDICT_MALFORMED CREDENTIALS_MALFORMED"),
    ),
    (
        PLAIN,
        &["X-Api-Key: {revoked}"],
        Denied("VERDICT_REVOKED REVOKED"),
    ),
    // A public route takes the key away too, and never asks about it.
    ("GET /health", &["Cookie: session={revoked}"], Public),
    (
        "GET /health",
        &["X-Api-Key: {good}", "Cookie: session=x"],
        Public,
    ),
    (
        "GET /health",
        &["Sec-WebSocket-Protocol: claviger.bearer.{good}"],
        Public,
    ),
    // Where a key is optional, a bad one is denied.
    ("GET /open/a", &[], Public),
    ("GET /open/a", &["X-Api-Key: {good}"], GOOD),
    (
        "GET /open/a",
        &["X-Api-Key: {read}"],
        Passes("read", "", ""),
    ),
    (
        "GET /open/a",
        &["Cookie: session={good}; a=b"],
        Passes("good", "a=b", ""),
    ),
    (
        "GET /open/a",
        &["X-Api-Key: {revoked}"],
        Denied("VERDICT_REVOKED REVOKED"),
    ),
    (
        "GET /open/a",
        &["X-Api-Key: {good}x"],
        Denied("VERDICT_MALFORMED KEY_MALFORMED"),
    ),
    ("GET /open/a", &["X-Api-Key:"], Public),
    ("GET /open/a", &["Cookie: session="], Public),
    (
        PLAIN,
        &["Cookie: session=", "Authorization: Bearer {good}"],
        GOOD,
    ),
    (
        "GET /open/a",
        &["Authorization: Basic dTpw"],
        Denied("VERDICT_MALFORMED CREDENTIALS_MALFORMED"),
    ),
    (
        "GET /open/a",
        &["X-Api-Key: {staging_good}"],
        Denied("VERDICT_ENVIRONMENT_MISMATCH ENVIRONMENT_MISMATCH"),
    ),
];

const SEVERAL: Outcome = Denied("VERDICT_MALFORMED SEVERAL_KEYS");

/// Seen red with the lines of cookies and protocols left out of the configurations of nginx, Caddy and Envoy over HTTP; over gRPC
/// without the headers of labels, with the keys left in, and with a bad key let through where a key is optional.
pub(super) async fn check_all(fixture: &mut GatewayFixture) {
    fixture.put_realm(PARTNERO, realm).await;
    let labels = [
        ("operator/plan", "gold, x: 1/\u{e9}\u{1f511}~"),
        ("hidden", "x"),
    ];
    fixture.label(PARTNERO, "good", &labels).await;
    fixture.renew_gateway(PARTNERO);
    let mut wrong = Vec::new();
    for (line, headers, outcome) in CASES {
        let headers = strings(headers);
        let (answer, seen) = fixture.request(PARTNERO, line, &headers).await;
        if !is_as_expected(fixture, line, outcome, &answer, &seen) {
            wrong.push(format!(
                "{line} {headers:?} should be {outcome:?}: {answer:?} {seen:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{:?}:\n{}",
        fixture.kind,
        wrong.join("\n")
    );
    forged_labels(fixture).await;
    websockets_of_browsers(fixture).await;
    cookies_in_two_headers(fixture).await;
    the_longest_identity(fixture).await;
    println!("{:?}: {} places", fixture.kind, CASES.len());
}

fn is_as_expected(
    fixture: &GatewayFixture,
    line: &str,
    outcome: &Outcome,
    answer: &Answer,
    seen: &[UpstreamRequest],
) -> bool {
    let (key, cookie, protocol) = match outcome {
        Denied(body) => {
            return answer.status == 401 && answer.body == *body && seen.is_empty();
        }
        Passes(key, cookie, protocol) => (*key, *cookie, *protocol),
        Public => ("", "", ""),
    };
    let [seen] = seen else { return false };
    let only = |name: &str| {
        let values: Vec<_> = seen.headers(name).collect();
        values.join("|")
    };
    let plan = if key == "good" {
        "gold%2C%20x%3A%201%2F%C3%A9%F0%9F%94%91~"
    } else {
        ""
    };
    let known = (!key.is_empty()).then(|| &fixture.key(PARTNERO, key).key);
    let mut usual = seen.clone();
    usual.headers.retain(|(name, _)| {
        let name = name.to_ascii_lowercase();
        !name.starts_with("x-claviger-label-")
    });
    fixture.check_seen(line, &usual, known);
    answer.status == 200
        && only("cookie") == cookie
        && only("sec-websocket-protocol") == protocol
        && only("x-claviger-label-operator-plan") == plan
        && only("x-claviger-label-tier").is_empty()
        && only("x-claviger-label-hidden").is_empty()
        && ["x-api-key", "authorization"]
            .iter()
            .all(|name| only(name).is_empty())
}

/// A gateway whose configuration is older than the realm knows no label. Caddy removes all before it asks; behind every other gateway
/// such a request is denied. Seen red without the denial.
async fn forged_labels(fixture: &GatewayFixture) {
    for label in ["Tier", "Operator-Plan", "Not-Of-This-Realm"] {
        let forged = format!("X-Claviger-Label-{label}: forged");
        let headers = strings(&["X-Api-Key: {good}", &forged]);
        let (answer, seen) = fixture.request(PARTNERO, PLAIN, &headers).await;
        let what = format!("{:?} {label} {answer:?} {seen:?}", fixture.kind);
        assert!(!format!("{seen:?}").contains("forged"), "{what}");
        if fixture.kind == GatewayKind::Caddy {
            assert_eq!(answer.status, 200, "{what}");
        } else {
            assert_eq!(answer.status, 401, "{what}");
            assert_eq!(
                answer.body, "VERDICT_MALFORMED CREDENTIALS_MALFORMED",
                "{what}"
            );
        }
    }
}

/// A browser offers a protocol with the key and another one, and takes only an answer that names one of them.
async fn websockets_of_browsers(fixture: &GatewayFixture) {
    let upgrade = |key: &str| {
        strings(&[
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            &format!("Sec-WebSocket-Protocol: claviger.bearer.{{{key}}}, app"),
        ])
    };
    let (answer, seen) = fixture.request(PARTNERO, PLAIN, &upgrade("good")).await;
    let what = format!("{:?} {answer:?} {seen:?}", fixture.kind);
    assert_eq!((answer.status, seen.len()), (101, 1), "{what}");
    assert_eq!(
        answer.header("sec-websocket-protocol"),
        Some("app"),
        "{what}"
    );
    let offered: Vec<_> = seen[0].headers("sec-websocket-protocol").collect();
    assert_eq!(offered, ["app"], "{what}");
    let (answer, seen) = fixture.request(PARTNERO, PLAIN, &upgrade("revoked")).await;
    assert_eq!((answer.status, seen.len()), (401, 0), "{answer:?}");
}

/// Of two headers no cookie may be lost, and no key may reach the server. Over HTTP, and without `encode_raw_headers`, Envoy joins them
/// with a comma, and such a request is denied.
async fn cookies_in_two_headers(fixture: &GatewayFixture) {
    let headers = strings(&["Cookie: a=b", "Cookie: session={good}"]);
    let (answer, seen) = fixture.request(PARTNERO, PLAIN, &headers).await;
    let what = format!("{:?} {answer:?} {seen:?}", fixture.kind);
    if matches!(
        fixture.kind,
        GatewayKind::EnvoyJoined | GatewayKind::EnvoyHttp
    ) {
        assert_eq!((answer.status, seen.len()), (401, 0), "{what}");
        return;
    }
    assert_eq!((answer.status, seen.len()), (200, 1), "{what}");
    let cookies: Vec<_> = seen[0].headers("cookie").collect();
    assert_eq!(cookies, ["a=b"], "{what}");
}

/// A realm has at most 256 scopes, and a value of a label at most 256 characters. Seen red with the buffer that nginx has by itself.
async fn the_longest_identity(fixture: &GatewayFixture) {
    let most = |realm: &mut pb::Realm| {
        let more = realm.scopes.len()..256;
        realm.scopes.extend(more.map(|number| pb::Scope {
            name: format!("s{number:_<63}"),
            ..Default::default()
        }));
    };
    fixture.put_realm(PARTNERO, most).await;
    let value = "\u{1f511}".repeat(256);
    fixture
        .label(
            PARTNERO,
            "good",
            &[("operator/plan", &value), ("tier", &value)],
        )
        .await;
    let cookie = format!("Cookie: a={}", "b".repeat(6_000));
    let headers = strings(&["X-Api-Key: {good}", &cookie]);
    let (answer, seen) = fixture.request(PARTNERO, PLAIN, &headers).await;
    assert_eq!(
        (answer.status, seen.len()),
        (200, 1),
        "{:?} {answer:?}",
        fixture.kind
    );
    let length = |name: &str| seen[0].headers(name).map(str::len).sum::<usize>();
    assert!(length("x-claviger-scopes") > 16_000, "{:?}", fixture.kind);
    assert_eq!(
        length("x-claviger-label-tier"),
        256 * 12,
        "{:?}",
        fixture.kind
    );
}
