//! How commands name keys, owners and realms: what a user may type, what is asked before something ends, and what is said afterwards.

mod confirmations;
mod keys;
mod lock_out;
mod truth;

use std::sync::Arc;

use crate::fixtures::{Engine, Program, Shell, TestStore};

const REALM: &str = "realm put demo --prefix demo --environment production=live --environment staging=test --scope read \
                     --scope write=read --scope admin=write --admin-scope admin";

/// A server with the realm `demo` and the partners `acme`, with the project `web`, and `globex`.
fn world() -> (Arc<TestStore>, Shell) {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    for line in [
        REALM,
        "partner put acme",
        "partner put globex",
        "project put web --partner acme",
    ] {
        shell.says(line, "", 0);
    }
    (test_store, shell)
}

/// An issued key.
struct Issued {
    id: String,
    /// The last four characters of the API key.
    end: String,
    plain_key: String,
}

/// Issues a partner key with these flags.
fn issue(shell: &Shell, partner: &str, flags: &str) -> Issued {
    let line = format!(
        "keys issue --partner {partner} --level partner --environment production --scope read {flags}"
    );
    let issued = shell.json(&line, "", 0);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let plain_key = text(&issued["plain_key"]);
    Issued {
        id: text(&issued["key"]["id"]),
        end: plain_key[plain_key.len() - 4..].to_owned(),
        plain_key,
    }
}

/// The state of a key, without its prefix.
fn state(shell: &Shell, id: &str) -> String {
    let shown = shell.json(&format!("keys get {id}"), "", 0);
    let state = shown["key"]["state"].as_str().unwrap();
    state.trim_start_matches("KEY_STATE_").to_lowercase()
}

/// The revision of the authority, which every change raises.
fn revision(shell: &Shell) -> u64 {
    let listed = shell.json("keys list --realm claviger", "", 0);
    listed["revision"].as_u64().unwrap()
}
