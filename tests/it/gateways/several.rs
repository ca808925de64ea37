//! Several APIs behind one gateway: two realms, and two environments of one of them.

use super::cases;
use super::credentials;
use super::fixture::{GatewayFixture, PARTNA, PARTNA_STAGING, PEAKA, Site};
use super::gateway_process::GatewayKind;

const APIS: [(Site, &str); 3] = [
    (PEAKA, "peaka.example"),
    (PARTNA, "partna.example"),
    (PARTNA_STAGING, "staging.partna.example"),
];

/// Seen red with the same names of upstreams for each API in nginx, without the key in Envoy's virtual hosts, without what
/// answers for other hosts in Caddy and nginx, and with `$http_host` in nginx.
async fn several_apis_fit_into_one(kind: GatewayKind) {
    let fixture = GatewayFixture::on(kind).await;
    let gate = fixture.gateway_of(&APIS);
    let host = |name: &str| format!("Host: {name}:{}", gate.address.port());
    for (site, name) in APIS {
        for (owner, _) in APIS {
            let mut headers = credentials::headers(site, "key");
            let key = fixture.key(owner, cases::good_key(owner));
            for header in &mut headers {
                *header = header.replace("{key}", &key.plain_key);
            }
            headers.push(host(name));
            let what = format!("{kind:?}: a key of {owner:?} at {name}");
            let line = cases::plain_request(site);
            let (answer, seen) = fixture.request_at(&gate, site, line, &headers).await;
            if owner == site {
                assert_eq!((answer.status, seen.len()), (200, 1), "{what}: {answer:?}");
                fixture.check_seen(&what, &seen[0], Some(&key.key));
            } else {
                assert_eq!((answer.status, seen.len()), (401, 0), "{what}: {answer:?}");
            }
        }
    }
    // A request can name two hosts. The server behind gets the one that decided.
    let mut headers = credentials::headers(PARTNA_STAGING, cases::good_key(PARTNA_STAGING));
    headers.push(host("partna.example"));
    let line = cases::plain_request(PARTNA_STAGING);
    let (method, path) = line.split_once(' ').unwrap();
    let line = format!(
        "{method} http://staging.partna.example:{}{path}",
        gate.address.port()
    );
    let (answer, seen) = fixture
        .request_at(&gate, PARTNA_STAGING, &line, &headers)
        .await;
    for seen in &seen {
        let named: Vec<_> = seen.headers("host").collect();
        assert!(
            matches!(named.as_slice(), [only] if only.starts_with("staging.partna.example")),
            "{kind:?}: {named:?}, {answer:?}"
        );
    }
    for other in ["other.example", "peaka.example.other", "x.partna.example"] {
        let mut headers = credentials::headers(PEAKA, cases::good_key(PEAKA));
        headers.push(host(other));
        let line = cases::plain_request(PEAKA);
        let (answer, seen) = fixture.request_at(&gate, PEAKA, line, &headers).await;
        assert_eq!(
            (answer.status, seen.len()),
            (404, 0),
            "{kind:?} {other}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_apis_fit_into_one_envoy() {
    several_apis_fit_into_one(GatewayKind::EnvoyRaw).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_apis_fit_into_one_nginx() {
    several_apis_fit_into_one(GatewayKind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_apis_fit_into_one_caddy() {
    several_apis_fit_into_one(GatewayKind::Caddy).await;
}
