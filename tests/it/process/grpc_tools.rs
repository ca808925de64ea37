//! The tools that people debug gRPC with: the real grpcurl and the real buf, which know the services by reflection alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use claviger::pb::claviger::v1 as pb;
use serde_json::{Value, json};

use crate::fixtures::{
    Engine, Program, TestStore, authority_key_request, header_source, issue, issue_request,
};

/// A running server with the realm `demo` and a key of it.
struct Server {
    program: Program,
    operator: String,
    key: String,
    gateway: String,
    _test_store: Arc<TestStore>,
}

impl Server {
    async fn start() -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, &[]);
        let mut api = program.api();
        api.make_demo().await;
        api.put_realm(pb::Realm {
            credentials: Some(pb::Credentials {
                sources: vec![header_source("authorization", "Bearer")],
                partner_header: String::new(),
            }),
            routes: vec![pb::Route {
                path: "/v1/**".to_owned(),
                scopes: vec!["read".to_owned()],
                ..Default::default()
            }],
            ..crate::fixtures::demo_realm()
        })
        .await;
        let key = issue(&mut api, issue_request()).await.plain_key;
        let gateway = issue(&mut api, authority_key_request("verify", "demo")).await;
        Self {
            operator: program.operator(),
            program,
            key,
            gateway: gateway.plain_key,
            _test_store: test_store,
        }
    }

    /// Runs grpcurl with these arguments before the address and these after it.
    fn grpcurl(&self, flags: &[&str], rest: &[&str]) -> Output {
        Command::new(tool("grpcurl"))
            .arg("-plaintext")
            .args(flags)
            .arg(&self.program.address)
            .args(rest)
            .output()
            .unwrap()
    }

    fn call(&self, caller: &str, method: &str, request: &Value) -> Value {
        let authorization = format!("authorization: Bearer {caller}");
        let request = request.to_string();
        let output = self.grpcurl(&["-H", &authorization, "-d", &request], &[method]);
        serde_json::from_str(&stdout_of(output)).unwrap()
    }
}

fn stdout_of(output: Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program that `tests/run` installs beside the Python of the tests.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/python/bin")
        .join(name);
    assert!(
        tool.exists(),
        "{} is not there. `tests/run` installs it, as would:\n\
         python3 -m venv target/python && target/python/bin/pip install -r tests/python/requirements.txt",
        tool.display()
    );
    tool
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_lists_and_describes_every_service() {
    let server = Server::start().await;
    let listed = stdout_of(server.grpcurl(&[], &["list"]));
    let listed: Vec<_> = listed.lines().collect();
    for service in [
        "claviger.v1.KeyAdmin",
        "claviger.v1.KeyVerify",
        "claviger.v1.RealmAdmin",
        "envoy.service.auth.v3.Authorization",
        "grpc.health.v1.Health",
    ] {
        assert!(listed.contains(&service), "{service} in {listed:?}");
        let described = stdout_of(server.grpcurl(&[], &["describe", service]));
        assert!(described.contains("rpc "), "{described}");
    }
    let described = stdout_of(server.grpcurl(&[], &["describe", "claviger.v1.VerifyRequest"]));
    // With the comments of the proto.
    assert!(described.contains("string key = 1"), "{described}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_asks_for_health_without_a_key() {
    let server = Server::start().await;
    for service in [
        "",
        "claviger.v1.KeyVerify",
        "envoy.service.auth.v3.Authorization",
    ] {
        let request = json!({ "service": service }).to_string();
        let output = server.grpcurl(&["-d", &request], &["grpc.health.v1.Health/Check"]);
        assert!(stdout_of(output).contains("\"SERVING\""), "{service:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_verifies_and_explains() {
    let server = Server::start().await;
    let question = json!({
        "realm": "demo", "environment": "production", "key": server.key, "scopes": ["admin"],
    });
    let answer = server.call(&server.gateway, "claviger.v1.KeyVerify/Verify", &question);
    assert_eq!(answer["verdict"], "VERDICT_SCOPE_MISSING");
    assert_eq!(answer["missingScopes"], json!(["admin"]));

    let explained = server.call(
        &server.operator,
        "claviger.v1.KeyVerify/Explain",
        &json!({ "verify": question }),
    );
    assert_eq!(explained["decidedBy"], "scope_missing");
    assert!(explained["checks"].as_array().unwrap().len() > 5);

    // An error is one, with its reason in words.
    let authorization = format!("authorization: Bearer {}", server.gateway);
    let output = server.grpcurl(
        &[
            "-H",
            &authorization,
            "-d",
            r#"{"filter": {"realm": "demo"}}"#,
        ],
        &["claviger.v1.KeyAdmin/ListKeys"],
    );
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(complaint.contains("Code: PermissionDenied"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_asks_as_envoy_does() {
    let server = Server::start().await;
    let check = |path: &str, authorization: &str| {
        json!({
            "attributes": {
                "request": { "http": {
                    "method": "GET",
                    "path": path,
                    "headers": { "authorization": authorization },
                } },
                "context_extensions": { "realm": "demo", "environment": "production" },
            },
        })
    };
    let method = "envoy.service.auth.v3.Authorization/Check";
    let bearer = format!("Bearer {}", server.key);
    let answer = server.call(&server.gateway, method, &check("/v1/things", &bearer));
    let headers = answer["okResponse"]["headers"].as_array().unwrap();
    let partner = headers
        .iter()
        .find(|header| header["header"]["key"] == "x-claviger-partner")
        .unwrap();
    assert_eq!(partner["header"]["value"], "acme");

    // 16 is UNAUTHENTICATED, 7 PERMISSION_DENIED.
    let answer = server.call(&server.gateway, method, &check("/v1/things", "Bearer x"));
    assert_eq!(answer["status"]["code"], 16);
    let answer = server.call(&server.gateway, method, &check("/v2/things", &bearer));
    assert_eq!(answer["status"]["code"], 7);
}

/// buf knows the first version of reflection, grpcurl 1.8 its alpha.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buf_curl_calls_by_reflection() {
    let server = Server::start().await;
    let question = json!({ "realm": "demo", "environment": "production", "key": server.key });
    let output = Command::new(tool("buf"))
        .args(["curl", "--http2-prior-knowledge", "--protocol", "grpc"])
        .args(["--reflect-protocol", "grpc-v1"])
        .args(["-H", &format!("authorization: Bearer {}", server.gateway)])
        .args(["-d", &question.to_string()])
        .arg(format!(
            "http://{}/claviger.v1.KeyVerify/Verify",
            server.program.address
        ))
        .output()
        .unwrap();
    let answer: Value = serde_json::from_str(&stdout_of(output)).unwrap();
    assert_eq!(answer["verdict"], "VERDICT_ALLOWED");
}
