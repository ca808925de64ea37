//! States of servers that somebody should hear of, each brought about for real.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use tokio::net::TcpStream;
use tonic::Code;

use crate::fixtures::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, call, frame, message};
use crate::fixtures::{
    Api, Cluster, Engine, Program, Proxy, TestStore, Traffic, envoy_check, forward_auth,
    verify_request,
};
use crate::metrics::counts::realm_at_gateways;

/// A server, and what it needs to exist.
pub(super) struct Server {
    pub(super) program: Program,
    pub(super) test_store: Arc<TestStore>,
}

impl Server {
    pub(super) fn start(flags: &[&str]) -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, flags);
        Self {
            program,
            test_store,
        }
    }

    /// A server whose log can never be written.
    pub(super) fn with_full_log() -> Self {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve_with_stderr(&test_store, full.into(), &[]);
        Self {
            program,
            test_store,
        }
    }

    /// Its value of the label `instance`.
    pub(super) fn instance(&self) -> &str {
        &self.program.http
    }

    /// Kills it and starts it again where it was, with other flags.
    pub(super) fn restart(&mut self, flags: &[&str]) {
        self.program.kill();
        let addresses = [self.program.address.clone(), self.program.http.clone()];
        let [grpc, http] = &addresses;
        self.program = Program::serve_at(&self.test_store, [grpc, http], flags);
    }
}

/// A server whose database is behind a network that can fail.
pub(super) struct DistantStore {
    pub(super) server: Server,
    proxy: Proxy,
    key: String,
}

impl DistantStore {
    pub(super) async fn start() -> Self {
        let cluster = Cluster::shared();
        let proxy = Proxy::to(cluster.socket()).await;
        let test_store = TestStore::in_cluster(&cluster).through(&proxy);
        let program = Program::serve(&test_store, &["--usage-interval", "50ms"]);
        let mut api = program.api();
        api.make_demo().await;
        let key = api.issue().await.plain_key;
        Self {
            server: Server {
                program,
                test_store,
            },
            proxy,
            key,
        }
    }

    /// The database goes away, and a key is used that must be counted.
    pub(super) async fn lose(&self) {
        self.proxy.set(Traffic::Cut);
        self.server.program.api().ask(&self.key).await;
    }
}

/// A server with a partner whose row cannot be read, and a key of this partner.
pub(super) struct DamagedStore {
    pub(super) server: Server,
    key: String,
}

impl DamagedStore {
    pub(super) async fn start() -> Self {
        let mut server = Server::start(&[]);
        let mut api = server.program.api();
        api.make_demo().await;
        api.put_realm(realm_at_gateways()).await;
        let key = api.issue().await.plain_key;
        let spoil = "UPDATE partners SET display_name = CAST(x'ff' AS TEXT) WHERE id = 'acme'";
        server.test_store.execute_sql(&[spoil]).await;
        server.restart(&[]);
        Self { server, key }
    }

    /// Nothing can be decided about the key, at a gateway or without one.
    pub(super) async fn ask(&self) {
        let program = &self.server.program;
        let headers = [("x-api-key", self.key.as_str())];
        let operator = program.operator();
        let undecided =
            envoy_check(&program.address, &operator, "demo", "/v1/data", &headers).await;
        undecided.err().unwrap();
        let question = verify_request(&self.key);
        let undecided = program.api().verify.verify(question).await.unwrap_err();
        assert_eq!(undecided.code(), Code::Internal);
    }

    /// An administrator meets the row.
    pub(super) async fn read(&self) {
        let request = pb::GetPartnerRequest {
            realm: "demo".to_owned(),
            partner: "acme".to_owned(),
        };
        let mut api = self.server.program.api();
        let unreadable = api.realms.get_partner(request).await.unwrap_err();
        assert_eq!(unreadable.code(), Code::Internal);
    }
}

/// A server in use, by good clients and others.
pub(super) struct BusyServer {
    pub(super) server: Server,
    key: String,
}

impl BusyServer {
    pub(super) async fn start() -> Self {
        let server = Server::start(&["--gateway", "nginx"]);
        let mut api = server.program.api();
        api.make_demo().await;
        api.put_realm(realm_at_gateways()).await;
        let key = api.issue().await.plain_key;
        Self { server, key }
    }

    /// Good keys at gateways and without them, a request without a key, and a wrong key now and then.
    pub(super) async fn use_well(&self) {
        let program = &self.server.program;
        let operator = program.operator();
        let good = ("x-api-key", self.key.as_str());
        for (path, headers) in [
            ("/v1/data", [good].as_slice()),
            ("/v1/open", &[]),
            ("/v1/data", &[]),
        ] {
            forward_auth(&program.http, &operator, "demo", path, headers).await;
            let answer = envoy_check(&program.address, &operator, "demo", path, headers).await;
            answer.unwrap();
        }
        let mut api = program.api();
        let good = vec![verify_request(&self.key); 50];
        let requests = [good, vec![verify_request("demo_live_x")]].concat();
        let request = pb::VerifyBatchRequest { requests };
        api.verify.verify_batch(request).await.unwrap();
        api.ask(&self.key).await;
    }

    /// Wrong keys, and a good one for what it may not do.
    pub(super) async fn present_keys(&self) {
        let wrong = verify_request("demo_live_x");
        let denied = pb::VerifyRequest {
            scopes: vec!["admin".to_owned()],
            ..verify_request(&self.key)
        };
        let requests = [vec![wrong; 50], vec![denied; 50]].concat();
        let request = pb::VerifyBatchRequest { requests };
        self.server
            .program
            .api()
            .verify
            .verify_batch(request)
            .await
            .unwrap();
    }

    /// nginx with a wrong key, and Envoy with a wrong realm.
    pub(super) async fn ask_as_misconfigured_gateways(&self) {
        let program = &self.server.program;
        forward_auth(&program.http, "no-key", "demo", "/v1/data", &[]).await;
        let operator = program.operator();
        let refused = envoy_check(&program.address, &operator, "no-realm", "/", &[]).await;
        assert_eq!(refused.err().unwrap().code(), Code::InvalidArgument);
    }

    /// A question whose second half comes late.
    pub(super) async fn verify_slowly(&self) {
        let program = &self.server.program;
        let bearer = format!("Bearer {}", program.operator());
        let headers = call(
            "/claviger.v1.KeyVerify/Verify",
            &[("authorization", bearer.as_str())],
        );
        let mut raw = Raw::http2(&program.address, 1, &[]).await;
        raw.send(&frame(HEADERS, END_HEADERS, 1, &headers))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let question = message(&verify_request(&self.key));
        raw.send(&frame(DATA, END_STREAM, 1, &question))
            .await
            .unwrap();
        while let Some(frame) = raw.next().await {
            if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }

    /// Callers with keys of no authority, all between two scrapes.
    pub(super) async fn call_with_a_wrong_key(&self) {
        let mut stranger = self.server.program.api().with_key("claviger_main_nonsense");
        for _ in 0..30 {
            let realm_id = "demo".to_owned();
            let request = pb::GetRealmRequest { realm_id };
            let refused = stranger.realms.get_realm(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
    }
}

/// Opens more connections than an address may have, and closes them again.
pub(super) async fn open_many_connections(program: &Program) {
    let mut connections = Vec::new();
    for _ in 0..30 {
        connections.push(TcpStream::connect(&program.address).await.unwrap());
    }
}

/// A change that needs room on the disk.
pub(super) async fn refused_for_the_disk(program: &Program) {
    let mut api: Api = program.api();
    let request = pb::PutRealmRequest {
        realm: Some(realm_at_gateways()),
        ..Default::default()
    };
    let refused = api.realms.put_realm(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

/// Takes the newest change away, the revocation of a key, as a failover that lost it.
pub(super) async fn lose_the_revocation(test_store: &TestStore) {
    let statements = [
        "UPDATE keys SET facts = json_set(facts, '$.revocation', NULL)",
        "DELETE FROM events WHERE revision = (SELECT max(revision) FROM events)",
        "UPDATE authority SET revision = revision - 1",
    ];
    test_store.execute_sql(&statements).await;
}
