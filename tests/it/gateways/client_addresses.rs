//! The address of a client behind a trusted proxy, in the forms in which proxies write it.

use claviger::pb::claviger::v1 as pb;

use super::gateway_process::{GatewayApi, GatewayKind, GatewayProcess};
use super::http1::{Upstream, send};
use super::keys::gateway_key;
use crate::fixtures::{Engine, Program, TestStore, eventually, put_partner_realms, strings};
use crate::metrics::Scrape;

/// What a proxy before nginx says of the client, and the status for a key that may be used from two ranges.
const CASES: [(&str, u16); 13] = [
    ("203.0.113.9", 200),
    ("203.0.113.9:5512", 200),
    ("198.51.100.1, 203.0.113.9:5512", 200),
    ("2001:db8::1", 200),
    ("[2001:db8::1]", 200),
    ("[2001:db8::1]:443", 200),
    ("198.51.100.1:5512", 403),
    ("[2001:db9::1]:443", 403),
    ("203.0.113.9, 198.51.100.1:5512", 403),
    ("203.0.113.9:65536", 403),
    ("[203.0.113.9]:80", 403),
    ("unknown", 403),
    ("_hidden:80", 403),
];

/// Seen red with entries that must be an address alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_a_client_is_read_as_proxies_write_it() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = ["--gateway", "nginx", "--trusted-hops", "1"];
    let program = Program::serve(&test_store, &flags);
    let upstream = Upstream::start().await;
    let mut api = program.api();
    put_partner_realms(&program, &mut api).await;
    let request = pb::IssueKeyRequest {
        realm: "peaka".to_owned(),
        partner: "acme".to_owned(),
        level: pb::KeyLevel::Partner.into(),
        allowed_cidrs: strings(&["203.0.113.0/24", "2001:db8::/32"]),
        ..Default::default()
    };
    let issued = api.keys.issue_key(request).await.unwrap().into_inner();
    let gateway = GatewayApi {
        realm: "peaka",
        environment: "production",
        host: "",
        key: gateway_key(&mut api, "peaka").await,
        upstream: upstream.address,
        flags: Vec::new(),
    };
    let gateway = GatewayProcess::open(GatewayKind::Nginx, &program, &[gateway]);
    let status = async |forwarded: &str| {
        let request = format!(
            "POST /api/v1/organizations HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nContent-Length: 0\r\n\
             Authorization: Bearer {}\r\nX-Forwarded-For: {forwarded}\r\n\r\n",
            issued.plain_key
        );
        send(gateway.address, request.as_bytes()).await.status
    };
    for (forwarded, expected) in CASES {
        assert_eq!(status(forwarded).await, expected, "{forwarded}");
    }
    let unknown = CASES[9..].len();
    let series = r#"claviger_gateway_decisions_total{realm="peaka",reason="address_unknown"}"#;
    let counted = Scrape::of(&program.http).await.count(series);
    assert_eq!(counted, unknown as u64);
    eventually("the log names the setting", async || {
        let log = String::from_utf8_lossy(&program.log.lock().unwrap()).into_owned();
        log.contains("check --trusted-hops").then_some(())
    })
    .await;
}
