//! The four partner APIs, put from `examples/realms`, with partners and keys of every kind, and a gateway before each.

use std::collections::HashMap;
use std::sync::Arc;

use claviger::pb::claviger::v1 as pb;

use super::gate::{Between, Gate, Way};
use super::keys::{Known, gateway_key, issue, wishes};
use super::wire::{Answer, Seen, Upstream, send};
use crate::fixtures::{Api, Engine, Place, Program, claviger, eventually, outcome};

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

/// All of it, on one way.
pub(super) struct World {
    pub(super) way: Way,
    program: Program,
    place: Arc<Place>,
    upstream: Upstream,
    gates: HashMap<Site, Gate>,
    gateway_keys: Vec<String>,
    keys: HashMap<(&'static str, &'static str), Known>,
}

const PARTNERS: [(&str, bool); 4] = [
    ("acme", false),
    ("umbrella", false),
    ("frozen", true),
    ("gone", false),
];

const PROJECTS: [(&str, &str); 5] = [
    ("mtKDhe1U", "acme"),
    ("nQ2vXs8B", "acme"),
    ("zR7wLk4C", "umbrella"),
    ("yT5pMa9D", "frozen"),
    ("hB3cKe6F", "gone"),
];

impl World {
    /// Makes everything and opens a gate before each site.
    pub(super) async fn on(way: Way) -> Self {
        let place = Place::on(Engine::Sqlite);
        let program = Program::serve(&place, way.flags());
        let upstream = Upstream::start().await;
        let mut api = program.api();
        Self::put_examples(&program, &mut api).await;
        let mut keys = HashMap::new();
        for wish in wishes(way) {
            let known = issue(&mut api, &wish).await;
            assert!(keys.insert((wish.realm, wish.name), known).is_none());
        }
        for ((realm, name), known) in &keys {
            if *name == "expired" {
                eventually("the key expires", async || {
                    let request = pb::VerifyRequest {
                        key: known.text.clone(),
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
        let mut gateway_keys = Vec::new();
        for site in SITES {
            let key = gateway_key(&mut api, site.realm).await;
            let address = if way.is_grpc() {
                &program.address
            } else {
                &program.http
            };
            let between = Between {
                realm: site.realm.to_owned(),
                environment: site.environment.to_owned(),
                key: key.clone(),
                claviger: address.parse().unwrap(),
                upstream: upstream.address,
                unauthenticated: site.body(401).to_owned(),
                forbidden: site.body(403).to_owned(),
            };
            gateway_keys.push(key);
            gates.insert(site, Gate::open(way, &between));
        }
        let world = Self {
            way,
            program,
            place,
            upstream,
            gates,
            gateway_keys,
            keys,
        };
        world.upstream.seen();
        world
    }

    /// Puts the four realms and their owners.
    pub(super) async fn put_examples(program: &Program, api: &mut Api) {
        put_realms(program, &program.operator());
        put_owners(api).await;
    }

    /// A key by its name.
    pub(super) fn key(&self, site: Site, name: &str) -> &Known {
        let found = self
            .keys
            .iter()
            .find(|((realm, own), _)| *realm == site.realm && *own == name);
        found
            .unwrap_or_else(|| panic!("no key {name} at {site:?}"))
            .1
    }

    /// The text with each `{name}` in the place of which the key of this name stands.
    pub(super) fn filled(&self, site: Site, text: &str) -> String {
        let mut text = text.to_owned();
        for ((realm, name), known) in &self.keys {
            if *realm == site.realm {
                text = text.replace(&format!("{{{name}}}"), &known.text);
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
    ) -> (Answer, Vec<Seen>) {
        let host = if headers.iter().any(|header| header.starts_with("Host:")) {
            ""
        } else {
            "Host: api.example\r\n"
        };
        let line = self.filled(site, line);
        let mut request = format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n");
        if !line.starts_with("GET") && !line.starts_with("HEAD") {
            request.push_str("Content-Length: 0\r\n");
        }
        for header in headers {
            request.push_str(&self.filled(site, header));
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        self.send(site, request.as_bytes()).await
    }

    /// The same with bytes as they are.
    pub(super) async fn send(&self, site: Site, request: &[u8]) -> (Answer, Vec<Seen>) {
        let answer = send(self.gates[&site].address, request).await;
        (answer, self.upstream.seen())
    }

    /// Checks what the server behind saw of a request that is this key's, or nobody's on an open route: who it is is told by
    /// claviger alone, and no key is.
    pub(super) fn check_seen(&self, what: &str, seen: &Seen, key: Option<&pb::Key>) {
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
                self.way
            );
        }
        for (name, value) in &seen.headers {
            let name = normalised(name);
            // By name they take away what they know; what is not told by claviger means nothing.
            let by_name = matches!(self.way, Way::Nginx | Way::EnvoyHttp);
            assert!(
                !name.starts_with("x-claviger-")
                    || names.contains(&name.as_str())
                    || (by_name && name == "x-claviger-other"),
                "{:?} {what}: {name}: {value} reached the server behind",
                self.way
            );
        }
        let all = format!("{seen:?}");
        let keys = self.keys.values().map(|known| &known.text);
        for key in keys.chain(&self.gateway_keys) {
            assert!(
                !all.contains(key.as_str()),
                "{:?} {what}: a key reached the server behind: {all}",
                self.way
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

    /// Ends claviger as a power failure would.
    pub(super) fn stop_claviger(&mut self) {
        self.program.kill();
    }

    /// Starts it again where it was.
    pub(super) fn start_claviger(&mut self) {
        let addresses = [self.program.address.clone(), self.program.http.clone()];
        let [grpc, http] = &addresses;
        self.program = Program::serve_at(&self.place, [grpc, http], self.way.flags());
    }
}

/// As servers read it that take `_` for `-`.
fn normalised(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// What claviger tells of a key, in the order of its headers.
fn identity(key: &pb::Key) -> [String; 6] {
    let ladder: &[&str] = match key.realm.as_str() {
        "bullseye" => &["read", "write", "admin"],
        "partnero" => &["read", "write"],
        _ => &[],
    };
    let highest = if key.full_access {
        ladder.len()
    } else {
        let granted = |scope: &&str| key.scopes.iter().any(|own| own == scope);
        ladder.iter().rposition(granted).map_or(0, |rank| rank + 1)
    };
    let mut held = ladder[..highest].to_vec();
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

/// Puts the examples as their comments say.
fn put_realms(program: &Program, operator: &str) {
    for realm in ["peaka", "partna", "bullseye", "partnero"] {
        let file = format!(
            "{}/examples/realms/{realm}.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let output = outcome(
            claviger(&["realm", "put", "--file", &file])
                .env("CLAVIGER_ENDPOINT", &program.address)
                .env("CLAVIGER_KEY", operator),
        );
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{realm}: {complaint}");
    }
}

async fn put_owners(api: &mut Api) {
    for realm in ["peaka", "partna", "bullseye", "partnero"] {
        for (id, suspended) in PARTNERS {
            let partner = pb::Partner {
                realm: realm.to_owned(),
                id: id.to_owned(),
                suspended,
                ..Default::default()
            };
            let request = pb::PutPartnerRequest {
                partner: Some(partner),
                ..Default::default()
            };
            api.realms.put_partner(request).await.unwrap();
        }
        for (id, partner) in PROJECTS {
            let project = pb::Project {
                realm: realm.to_owned(),
                id: id.to_owned(),
                partner: partner.to_owned(),
                ..Default::default()
            };
            let request = pb::PutProjectRequest {
                project: Some(project),
                ..Default::default()
            };
            api.realms.put_project(request).await.unwrap();
        }
    }
}
