//! Requests to switch the protocol (RFC 9110, section 7.8). A WebSocket (RFC 6455) is one request that claviger decides about. With
//! `h2c` a client could go on to send other requests on the same connection, which no gateway sees.

use super::cases;
use super::credentials;
use super::fixture::{GatewayFixture, PARTNERO};
use super::http1::SWITCHED;

const HANDSHAKE: [&str; 2] = [
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

/// Seen red without the lines for `Upgrade` in each configuration, and with every upgrade passed on, and
/// without Envoy's own `connection`.
pub(super) async fn send_all(fixture: &GatewayFixture) {
    let kind = fixture.kind;
    let good = cases::good_key(PARTNERO);
    let request = async |key: &str, more: &[&str]| {
        let mut headers = credentials::headers(PARTNERO, key);
        headers.extend(HANDSHAKE.iter().chain(more).map(ToString::to_string));
        fixture
            .request(PARTNERO, "GET /v1/partners", &headers)
            .await
    };
    for connection in [
        "Connection: Upgrade",
        "Connection: keep-alive, upgrade",
        "Connection: upgrade, x-claviger-partner, x-claviger-key-id",
    ] {
        for upgrade in ["Upgrade: websocket", "Upgrade: WebSocket"] {
            let what = format!("{kind:?} {connection} {upgrade}");
            let (answer, seen) = request(good, &[connection, upgrade]).await;
            assert_eq!(answer.status, 101, "{what} {answer:?} {seen:?}");
            assert_eq!(answer.body, SWITCHED, "{what}");
            let [seen] = seen.as_slice() else {
                panic!("{what}: one request reaches the server: {seen:?}")
            };
            fixture.check_seen(&what, seen, Some(&fixture.key(PARTNERO, good).key));
            let upgrades: Vec<_> = seen.headers("upgrade").collect();
            assert!(
                matches!(upgrades.as_slice(), [only] if only.eq_ignore_ascii_case("websocket")),
                "{what} {upgrades:?}"
            );
            // A proxy behind the gateway would remove other headers that are named here.
            let named: Vec<_> = seen.headers("connection").collect();
            assert!(
                matches!(named.as_slice(), [only] if only.eq_ignore_ascii_case("upgrade")),
                "{what} {named:?}"
            );
            assert_eq!(seen.headers("sec-websocket-version").count(), 1, "{what}");

            let (answer, seen) = request("revoked", &[connection, upgrade]).await;
            assert_eq!((answer.status, seen.len()), (401, 0), "{what} {answer:?}");
        }
    }
    for upgrade in [
        &["Upgrade: h2c"][..],
        &["Upgrade: h2c, websocket"],
        &["Upgrade: websocket, h2c"],
        &["Upgrade: h2c", "Upgrade: websocket"],
        &["Upgrade: websocket", "Upgrade: h2c"],
        &["Upgrade: websocket/h2c"],
        &["Upgrade: TLS/1.0"],
    ] {
        let mut more = vec![
            "Connection: Upgrade, HTTP2-Settings",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        ];
        more.extend(upgrade);
        let (answer, seen) = request(good, &more).await;
        for seen in &seen {
            let switched: Vec<_> = seen.headers("upgrade").collect();
            assert!(
                switched
                    .iter()
                    .all(|name| name.eq_ignore_ascii_case("websocket")),
                "{kind:?} {upgrade:?}: {switched:?} reached the server, and the answer was {answer:?}"
            );
        }
    }
}
