//! The services as JSON over HTTP.

mod client;
mod errors;
mod forms;
mod limits;
mod mutations;
mod python;
mod tour;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::fixtures::{Engine, Program, TestStore};
use client::{Client, Reply};

/// A server with the realm `demo` and the partner `acme`, and a client with the operator's key.
struct JsonServer {
    program: Program,
    operator: String,
    _test_store: Arc<TestStore>,
}

impl JsonServer {
    fn start(flags: &[&str]) -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, flags);
        let operator = program.operator();
        Self {
            program,
            operator,
            _test_store: test_store,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.program.http, Some(&self.operator))
    }

    /// A client that has made the realm and the partner.
    fn client_with_demo(&self) -> Client {
        let mut client = self.client();
        for (method, request) in demo() {
            client.call(method, &request);
        }
        client
    }
}

/// The calls that make the realm and the partner.
fn demo() -> [(&'static str, Value); 2] {
    let realm = json!({
        "id": "demo",
        "prefix": "demo",
        "environments": [{"name": "production", "tag": "live"}],
        "scopes": [{"name": "read"}, {"name": "write", "implies": ["read"]}],
    });
    let partner = json!({"realm": "demo", "id": "acme"});
    [
        ("RealmAdmin/PutRealm", json!({ "realm": realm })),
        ("RealmAdmin/PutPartner", json!({ "partner": partner })),
    ]
}

/// Issues a key and returns its id and the API key.
fn issue(client: &mut Client) -> (String, String) {
    let request = json!({"realm": "demo", "partner": "acme", "level": "KEY_LEVEL_PARTNER", "scopes": ["write"]});
    let issued = client.call("KeyAdmin/IssueKey", &request);
    (text(&issued["key"]["id"]), text(&issued["plainKey"]))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn assert_refused(reply: &Reply, status: u16, code: &str, reason: &str, what: &str) {
    assert_eq!(
        (reply.status, &*reply.code(), &*reply.reason()),
        (status, code, reason),
        "{what}: {reply:?}"
    );
}
