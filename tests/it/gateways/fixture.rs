//! The four partner APIs, put from `examples/realms`, with partners and keys of every kind, and a gateway before each.

use std::collections::HashMap;
use std::sync::Arc;

use claviger::pb::claviger::v1 as pb;

use super::gateway_process::{GatewayApi, GatewayKind, GatewayProcess};
use super::http1::{Answer, Upstream, UpstreamRequest, send};
use super::keys::{KnownKey, gateway_key, issue, key_specs};
use crate::fixtures::{
    Engine, Program, TestStore, eventually, forward_auth, put_partner_realms, strings,
};

/// An API in one of its environments: what one gateway stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) realm: &'static str,
    pub(super) environment: &'static str,
}

pub(super) const PEAKA: Site = site("peaka", "production");
pub(super) const PARTNA: Site = site("partna", "production");
pub(super) const PARTNA_STAGING: Site = site("partna", "staging");
pub(super) const BULLSEYE: Site = site("bullseye", "production");
pub(super) const PARTNERO: Site = site("partnero", "production");

pub(super) const SITES: [Site; 5] = [PEAKA, PARTNA, PARTNA_STAGING, BULLSEYE, PARTNERO];

const fn site(realm: &'static str, environment: &'static str) -> Site {
    Site { realm, environment }
}

impl Site {
    /// The site as a gateway with this key protects it, for requests to this host.
    fn protected_by(self, host: &'static str, key: &str, upstream: &Upstream) -> GatewayApi {
        GatewayApi {
            realm: self.realm,
            environment: self.environment,
            host,
            key: key.to_owned(),
            upstream: upstream.address,
            flags: Vec::new(),
        }
    }

    /// The body that the API's documentation promises for a status, or that its example chose.
    pub(super) fn body(self, status: u16) -> &'static str {
        match (self.realm, status) {
            ("bullseye", 401) => {
                r#"{"code":"Unauthorized","message":"Invalid or missing API key","details":{}}"#
            }
            ("bullseye", 403) => {
                r#"{"code":"Forbidden","message":"The API key may not do this","details":{}}"#
            }
            _ => "",
        }
    }
}

/// claviger with the four realms, a gateway of one kind before each API, and the server behind them.
pub(super) struct GatewayFixture {
    pub(super) kind: GatewayKind,
    program: Program,
    test_store: Arc<TestStore>,
    upstream: Upstream,
    gates: HashMap<Site, GatewayProcess>,
    gateway_keys: HashMap<Site, String>,
    keys: HashMap<(&'static str, &'static str), KnownKey>,
}

impl GatewayFixture {
    /// Starts everything, with a gateway before each site.
    pub(super) async fn on(kind: GatewayKind) -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, kind.flags());
        let upstream = Upstream::start().await;
        let mut api = program.api();
        put_partner_realms(&program, &mut api).await;
        let mut keys = HashMap::new();
        for spec in key_specs(kind) {
            let known = issue(&mut api, &spec).await;
            assert!(keys.insert((spec.realm, spec.name), known).is_none());
        }
        for ((realm, name), known) in &keys {
            if *name == "expired" {
                eventually("the key expires", async || {
                    let request = pb::VerifyRequest {
                        key: known.plain_key.clone(),
                        realm: (*realm).to_owned(),
                        environment: "production".to_owned(),
                        target: Some(pb::verify_request::Target::AnyTarget(true)),
                        ..Default::default()
                    };
                    let answer = api.verify.verify(request).await.unwrap().into_inner();
                    (answer.verdict() == pb::Verdict::Expired).then_some(())
                })
                .await;
            }
        }
        let mut gates = HashMap::new();
        let mut gateway_keys = HashMap::new();
        for site in SITES {
            let key = gateway_key(&mut api, site.realm).await;
            let api = site.protected_by("", &key, &upstream);
            gateway_keys.insert(site, key);
            gates.insert(site, GatewayProcess::open(kind, &program, &[api]));
        }
        let fixture = Self {
            kind,
            program,
            test_store,
            upstream,
            gates,
            gateway_keys,
            keys,
        };
        fixture.upstream.seen();
        fixture
    }

    /// One gateway of this kind for several sites, each for the requests to its host.
    pub(super) fn gateway_of(&self, sites: &[(Site, &'static str)]) -> GatewayProcess {
        let apis: Vec<_> = sites
            .iter()
            .map(|(site, host)| site.protected_by(host, &self.gateway_keys[site], &self.upstream))
            .collect();
        GatewayProcess::open(self.kind, &self.program, &apis)
    }

    /// Starts the gateway of a site again, with a configuration that is printed now.
    pub(super) fn renew_gateway(&mut self, site: Site) {
        let gate = self.gateway_of(&[(site, "")]);
        self.gates.insert(site, gate);
    }

    /// A key by its name.
    pub(super) fn key(&self, site: Site, name: &str) -> &KnownKey {
        let found = self
            .keys
            .iter()
            .find(|((realm, own), _)| *realm == site.realm && *own == name);
        found
            .unwrap_or_else(|| panic!("no key {name} at {site:?}"))
            .1
    }

    /// The text with each `{name}` replaced by the API key of this name.
    pub(super) fn filled(&self, site: Site, text: &str) -> String {
        let mut text = text.to_owned();
        for ((realm, name), known) in &self.keys {
            if *realm == site.realm {
                text = text.replace(&format!("{{{name}}}"), &known.plain_key);
            }
        }
        text
    }

    /// Sends a request through a site's gateway: its first line but for the version, and its headers. What came back, and what
    /// the server behind has seen.
    pub(super) async fn request(
        &self,
        site: Site,
        line: &str,
        headers: &[String],
    ) -> (Answer, Vec<UpstreamRequest>) {
        self.request_at(&self.gates[&site], site, line, headers)
            .await
    }

    /// The same at a gateway, with the keys of a site.
    pub(super) async fn request_at(
        &self,
        gate: &GatewayProcess,
        site: Site,
        line: &str,
        headers: &[String],
    ) -> (Answer, Vec<UpstreamRequest>) {
        let host = if headers.iter().any(|header| header.starts_with("Host:")) {
            ""
        } else {
            "Host: api.example\r\n"
        };
        let line = self.filled(site, line);
        let connection = if headers
            .iter()
            .any(|header| header.starts_with("Connection:"))
        {
            ""
        } else {
            "Connection: close\r\n"
        };
        let mut request = format!("{line} HTTP/1.1\r\n{host}{connection}");
        if !line.starts_with("GET") && !line.starts_with("HEAD") {
            request.push_str("Content-Length: 0\r\n");
        }
        for header in headers {
            request.push_str(&self.filled(site, header));
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        self.send_to(gate, request.as_bytes()).await
    }

    /// The same with bytes as they are.
    pub(super) async fn send(&self, site: Site, request: &[u8]) -> (Answer, Vec<UpstreamRequest>) {
        self.send_to(&self.gates[&site], request).await
    }

    async fn send_to(
        &self,
        gate: &GatewayProcess,
        request: &[u8],
    ) -> (Answer, Vec<UpstreamRequest>) {
        let answer = send(gate.address, request).await;
        (answer, self.upstream.seen())
    }

    /// Checks what the server behind saw of a request that is this key's, or nobody's on an open route: who it is is told by
    /// claviger alone, and no key is.
    pub(super) fn check_seen(&self, what: &str, seen: &UpstreamRequest, key: Option<&pb::Key>) {
        let told = key.map_or_else(Default::default, identity);
        let names = claviger::gateway::IDENTITY_HEADERS;
        for (name, value) in names.iter().zip(&told) {
            let values: Vec<_> = seen
                .headers
                .iter()
                .filter(|(own, _)| normalised(own) == *name)
                .map(|(_, value)| value.as_str())
                .collect();
            // To be told nothing is the same as not to be told.
            let same = match values.as_slice() {
                [] => value.is_empty(),
                [only] => only == value,
                _ => false,
            };
            assert!(
                same,
                "{:?} {what}: {name} is {values:?} and not {value:?}",
                self.kind
            );
        }
        for (name, value) in &seen.headers {
            let name = normalised(name);
            // By name they take away what they know; what is not told by claviger means nothing.
            let by_name = matches!(self.kind, GatewayKind::Nginx | GatewayKind::EnvoyHttp);
            assert!(
                !name.starts_with("x-claviger-")
                    || names.contains(&name.as_str())
                    || (by_name && name == "x-claviger-other"),
                "{:?} {what}: {name}: {value} reached the server behind",
                self.kind
            );
        }
        let all = format!("{seen:?}");
        let keys = self.keys.values().map(|known| &known.plain_key);
        for key in keys.chain(self.gateway_keys.values()) {
            assert!(
                !all.contains(key.as_str()),
                "{:?} {what}: a key reached the server behind: {all}",
                self.kind
            );
        }
    }

    /// Has a realm deny those that it does not know with this status.
    pub(super) async fn put_denial(&self, site: Site, status: u32) {
        let denial = pb::Denial {
            denial_class: pb::DenialClass::Unauthenticated.into(),
            status,
            ..Default::default()
        };
        self.put_realm(site, |realm| realm.denials = vec![denial])
            .await;
    }

    /// Changes the definition of a site's realm.
    pub(super) async fn put_realm(&self, site: Site, change: impl FnOnce(&mut pb::Realm)) {
        let mut api = self.program.api();
        let request = pb::GetRealmRequest {
            realm_id: site.realm.to_owned(),
        };
        let got = api.realms.get_realm(request).await.unwrap().into_inner();
        let mut realm = got.realm.unwrap();
        change(&mut realm);
        let request = pb::PutRealmRequest {
            realm: Some(realm),
            ..Default::default()
        };
        api.realms.put_realm(request).await.unwrap();
    }

    /// Gives a key these labels.
    pub(super) async fn label(&self, site: Site, name: &str, labels: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let request = pb::UpdateKeyRequest {
            key_id: self.key(site, name).key.id.clone(),
            update_mask: Some(prost_types::FieldMask {
                paths: strings(&["labels"]),
            }),
            labels: labels.iter().map(owned).collect(),
            ..Default::default()
        };
        self.program.api().keys.update_key(request).await.unwrap();
    }

    /// claviger's answer to nginx about a request without a key.
    pub(super) async fn ask_as_nginx(&self, site: Site, path: &str) -> String {
        let key = &self.gateway_keys[&site];
        let answer = forward_auth(&self.program.http, key, site.realm, path, &[]).await;
        String::from_utf8(answer).unwrap()
    }

    /// Checks that no gateway has logged a key.
    pub(super) fn check_logs(&self) {
        for (site, gate) in &self.gates {
            let log = gate.log();
            let keys = self.keys.values().map(|known| &known.plain_key);
            for key in keys.chain(self.gateway_keys.values()) {
                assert!(
                    !log.contains(key.as_str()),
                    "{:?} {site:?}: a key is in the log: {log}",
                    self.kind
                );
            }
        }
    }

    /// Ends the server behind the gateways.
    pub(super) fn stop_upstream(&self) {
        self.upstream.stop();
    }

    /// Ends claviger as a power failure would.
    pub(super) fn stop_claviger(&mut self) {
        self.program.kill();
    }

    /// Starts it again where it was.
    pub(super) fn start_claviger(&mut self) {
        let addresses = [self.program.address.clone(), self.program.http.clone()];
        let [grpc, http] = &addresses;
        self.program = Program::serve_at(&self.test_store, [grpc, http], self.kind.flags());
    }
}

/// As servers read it that take `_` for `-`.
fn normalised(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// What claviger tells of a key, in the order of its headers.
fn identity(key: &pb::Key) -> [String; 6] {
    let hierarchy: &[&str] = match key.realm.as_str() {
        "bullseye" => &["read", "write", "admin"],
        "partnero" => &["read", "write"],
        _ => &[],
    };
    let highest = if key.full_access {
        hierarchy.len()
    } else {
        let granted = |scope: &&str| key.scopes.iter().any(|own| own == scope);
        hierarchy
            .iter()
            .rposition(granted)
            .map_or(0, |rank| rank + 1)
    };
    let mut held = hierarchy[..highest].to_vec();
    held.sort_unstable();
    [
        key.id.clone(),
        key.realm.clone(),
        key.partner.clone(),
        key.project.clone(),
        key.environment.clone(),
        held.join(" "),
    ]
}
