//! The independent client, with all its calls as JSON.

use crate::fixtures::{Engine, Program, TestStore};
use crate::process::run_python_client;

/// The same promises as over gRPC, of the same requests.
#[test]
fn the_python_client_has_the_same_answers_over_json() {
    let test_store = TestStore::on(Engine::Sqlite);
    // Most of its time, it waits for counts of usage.
    let program = Program::serve(&test_store, &["--usage-interval", "100ms"]);
    let json = [("CLAVIGER_JSON_ENDPOINT", &*program.http)];
    run_python_client(&program, &json);
}
