//! The `status` command.

use std::process::Stdio;
use std::time::Instant;

use super::shell_with_demo;
use crate::fixtures::{DEADLINE, Engine, Program, SMALL, Shell, TestStore, claviger, outcome};

#[test]
fn a_server_is_told_with_the_key_that_calls_it() {
    let (_test_store, shell) = shell_with_demo();
    let told = shell.says("status", "", 0);
    for line in [
        "state     ready",
        "database  embedded, with one server",
        "clock     agrees with this machine's",
        "realms    claviger, demo",
        "role      operator",
        "key from  CLAVIGER_KEY",
        "expires   never",
    ] {
        assert!(told.contains(line), "no {line:?} in\n{told}");
    }
    let document = shell.json("status", "", 0);
    assert_eq!(document["status"], "SERVING", "{document}");
    assert_eq!(document["realms"], serde_json::json!(["claviger", "demo"]));
    assert_eq!(document["key"]["name"], "first operator");

    // A partner's key may list neither servers nor realms.
    let issued = shell.json(
        "keys issue --partner acme --level partner --scope read --expires-in 90d",
        "",
        0,
    );
    let mut command = claviger(&["status", "--endpoint", &shell.program.address]);
    command.env("CLAVIGER_KEY", issued["plain_key"].as_str().unwrap());
    let shown = SMALL.run(&mut command);
    assert_eq!(shown.code, Some(0), "{}", shown.text);
    for part in ["READY", "a key of acme in the realm demo", ", in 90d"] {
        assert!(shown.text.contains(part), "no {part:?} in\n{}", shown.text);
    }
    assert!(!shown.text.contains("database"), "{}", shown.text);
}

/// The state of a server does not depend on the key. Seen red with the key asked for first.
#[test]
fn what_is_wrong_is_told_apart() {
    let test_store = TestStore::on(Engine::Sqlite);
    let mut program = Program::serve(&test_store, &["--drain-delay", "1h"]);
    let operator = program.operator();
    let at = |endpoint: &str, key: &str| {
        let mut command = claviger(&["status", "--endpoint", endpoint]);
        let output = outcome(command.env("CLAVIGER_KEY", key).stdin(Stdio::null()));
        let [told, complaint] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), told, complaint)
    };
    let address = program.address.clone();
    let unknown = operator.replace("claviger_main_", "claviger_main_0");
    let (code, told, complaint) = at(&address, &unknown);
    assert_eq!(code, Some(1), "{complaint}");
    assert!(told.contains("state   ready"), "{told}");
    assert!(complaint.contains("does not know your key"), "{complaint}");
    assert!(!complaint.contains(&unknown), "{complaint}");

    let (code, told, complaint) = at("127.0.0.1:1", &operator);
    assert_eq!((code, &*told), (Some(1), ""), "{complaint}");
    assert!(
        complaint.contains("no answer from 127.0.0.1:1"),
        "{complaint}"
    );

    let shell = Shell { program, operator };
    assert!(shell.says("status", "", 0).contains("ready"));
    program = shell.program;
    program.signal("TERM");
    let deadline = Instant::now() + DEADLINE;
    let told = loop {
        let (code, told, complaint) = at(&address, &shell.operator);
        if told.contains("state     not ready") {
            assert_eq!((code, &*complaint), (Some(1), ""), "{told}");
            break told;
        }
        assert!(Instant::now() < deadline, "{told}\n{complaint}");
    };
    assert!(told.contains("first operator"), "{told}");
}
