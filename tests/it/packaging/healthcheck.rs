//! `claviger healthcheck` against a server in each state.

use std::net::TcpListener;
use std::time::Instant;

use serde_json::{Value, json};

use crate::fixtures::{Engine, Program, TestStore, claviger, eventually, outcome};
use crate::tls::Certificates;

/// The line that the check prints, and its exit code. There is no key in its environment.
fn check(endpoint: &str, flags: &[&str]) -> (String, i32) {
    let mut command = claviger(&["healthcheck"]);
    let output = outcome(command.args(flags).env("CLAVIGER_ENDPOINT", endpoint));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    (said.trim_end().to_owned(), output.status.code().unwrap())
}

/// Seen red with an exit code that does not depend on the status.
#[tokio::test]
async fn the_check_follows_the_health_of_the_server() {
    let test_store = TestStore::on(Engine::Sqlite);
    let mut program = Program::serve(&test_store, &["--drain-delay", "1h"]);
    let endpoint = format!("http://{}", program.address);
    let is = |status: &str| format!("{endpoint} is {status}");
    let healthy = (format!("healthy: {}", is("SERVING")), 0);
    assert_eq!(check(&program.address, &[]), healthy);
    let service = ["--service", "claviger.v1.AuthorityAdmin"];
    let expected = format!("healthy: {} at {}", service[1], is("SERVING"));
    assert_eq!(check(&program.address, &service), (expected, 0));
    let (said, code) = check(&program.address, &["--service", "no.Such", "--json"]);
    let expected = json!({
        "endpoint": endpoint, "error": null, "healthy": false, "service": "no.Such", "status": "SERVICE_UNKNOWN",
    });
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), expected);
    assert_eq!(code, 1);

    program.signal("TERM");
    let draining = (format!("not healthy: {}", is("NOT_SERVING")), 1);
    eventually("it is draining", async || {
        (check(&program.address, &[]) == draining).then_some(())
    })
    .await;
    program.kill();
    let (said, code) = check(&program.address, &[]);
    assert!(
        said.starts_with(&format!(
            "not healthy: no answer from {}: ",
            program.address
        )),
        "{said}"
    );
    assert_eq!(code, 1);
}

/// Seen red with the timeout of the other commands.
#[test]
fn a_server_that_does_not_answer_is_not_healthy_after_a_short_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let began = Instant::now();
    let (said, code) = check(&address, &[]);
    let took = began.elapsed().as_secs_f64();
    assert!(said.contains("within 3s"), "{said}");
    assert_eq!(code, 1);
    assert!(took >= 3.0, "{took}");
    let (said, _) = check(&address, &["--timeout", "100ms", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["status"], Value::Null);
    assert!(said["error"].as_str().unwrap().contains("100ms"), "{said}");
}

#[test]
fn the_check_reaches_a_server_over_tls_and_over_a_unix_socket() {
    let certificates = Certificates::new();
    let test_store = TestStore::on(Engine::Sqlite);
    let socket = test_store.data().with_file_name("claviger.sock");
    let socket_flag = format!("--unix-socket={}", socket.display());
    let tls = certificates.flags();
    let mut flags: Vec<_> = tls.iter().map(String::as_str).collect();
    flags.push(&socket_flag);
    let program = Program::serve(&test_store, &flags);
    let https = format!("https://{}", program.address);
    let ca = certificates.path("ca.pem");
    assert_eq!(check(&https, &["--ca-file", &ca]).1, 0);
    let (said, code) = check(&https, &[]);
    assert!(said.contains("trusted issuer"), "{said}");
    assert_eq!(code, 1);
    assert_eq!(check(&format!("unix:{}", socket.display()), &[]).1, 0);
}

#[test]
fn the_check_repeats_no_key() {
    let key = "demo_live_4fzs3fzs3fzs3fzs3fzs3fz";
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    for address in [&*program.address, "127.0.0.1:1"] {
        let (said, code) = check(address, &["--service", key, "--json"]);
        assert_eq!(code, 1);
        assert!(!said.contains("s3fz"), "{said}");
    }
}
