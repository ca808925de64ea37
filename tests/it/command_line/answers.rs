//! What scripts read: the API key alone, one field of an answer, and errors as JSON.

use std::io::Read as _;
use std::process::Stdio;

use rustix::pty::OpenptFlags;
use serde_json::Value;

use super::shell_with_demo;
use crate::fixtures::{Shell, claviger};

const ISSUE: &str = "keys issue --partner acme --level partner --scope read";

/// Standard output and standard error of a command that succeeds.
fn both(shell: &Shell, line: &str) -> [String; 2] {
    let output = shell.run(line, "");
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{line}: {}", texts[1]);
    texts
}

/// Seen red with the facts on standard output, as on a terminal.
#[test]
fn a_script_gets_the_key_alone_and_a_person_its_facts() {
    let (_test_store, shell) = shell_with_demo();
    let is_alone = |shown: &str, prefix: &str| {
        assert!(
            shown.starts_with(prefix) && shown.lines().count() == 1,
            "{shown}"
        );
    };
    let [key, told] = both(&shell, ISSUE);
    is_alone(&key, "demo_live_");
    assert!(
        told.starts_with("Issued ") && !told.contains(key.trim_end()),
        "{told}"
    );
    let listed = shell.json("keys list", "", 0);
    let id = listed["keys"][0]["id"].as_str().unwrap();
    let [key, told] = both(&shell, &format!("keys rotate {id} --overlap 1h"));
    is_alone(&key, "demo_live_");
    assert!(told.contains("The old secret works until"), "{told}");
    let [key, told] = both(&shell, "key new");
    is_alone(&key, "claviger_main_");
    assert!(told.starts_with("sha256  "), "{told}");
    let issued = shell.json(ISSUE, "", 0);
    assert!(issued["plain_key"].is_string() && issued["key"]["id"].is_string());

    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&controller).unwrap();
    rustix::pty::unlockpt(&controller).unwrap();
    let terminal = rustix::pty::ioctl_tiocgptpeer(&controller, flags).unwrap();
    let words: Vec<_> = ISSUE.split(' ').collect();
    let mut child = claviger(&words)
        .env("CLAVIGER_ENDPOINT", &shell.program.address)
        .env("CLAVIGER_KEY", &shell.operator)
        .stdin(Stdio::null())
        .stdout(terminal)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let mut shown = [0; 8192];
    let read = std::fs::File::from(controller).read(&mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown[..read]);
    assert!(
        shown.contains("Issued ") && shown.contains("demo_live_"),
        "{shown}"
    );
}

/// Seen red with a field that is looked for only in the answer itself.
#[test]
fn one_field_of_an_answer_is_printed_alone() {
    let (_test_store, shell) = shell_with_demo();
    let write = ISSUE.replace(
        "--scope read",
        "--scope read --scope write --label team=data",
    );
    let key = shell.says(&format!("{write} --field plain_key"), "", 0);
    assert!(
        key.starts_with("demo_live_") && key.lines().count() == 1,
        "{key}"
    );
    let id = shell.says("keys list --field id", "", 0);
    let id = id.trim_end();
    let field = |name: &str| shell.says(&format!("keys get {id} --field {name}"), "", 0);
    assert_eq!(field("scopes"), "read\nwrite\n");
    assert_eq!(field("key.partner"), "acme\n");
    assert_eq!(field("labels.team"), "data\n");
    assert_eq!(field("full_access"), "false\n");
    assert_eq!(field("expire_time"), "", "it never expires");
    assert_eq!(
        shell.says("project get web --field partner", "", 0),
        "acme\n"
    );
    assert_eq!(
        shell.json("keys list --field id", "", 0),
        serde_json::json!([id])
    );
    assert_eq!(
        shell.json(&format!("keys get {id} --field scopes"), "", 0),
        serde_json::json!(["read", "write"])
    );
    assert_eq!(
        shell.says("partner create globex --field partner.id", "", 0),
        "globex\n"
    );

    let unknown = shell.says(&format!("keys get {id} --field scope"), "", 2);
    assert!(
        unknown.contains("scopes") && unknown.contains("external_id"),
        "{unknown}"
    );
    let unknown = shell.run("keys list --field scope --json", "");
    let unknown: Value = serde_json::from_slice(&unknown.stderr).unwrap();
    assert_eq!(unknown["error"]["code"], "INVALID_ARGUMENT");
    let unknown = shell.run("keys get --field scope --json", "");
    let unknown: Value = serde_json::from_slice(&unknown.stderr).unwrap();
    assert_eq!(unknown["error"]["code"], "INVALID_ARGUMENT");
    shell.says(&format!("{write} --field plan_key"), "", 2);
    let all = shell.json("keys list", "", 0);
    assert_eq!(
        all["keys"].as_array().map(Vec::len),
        Some(1),
        "no key was issued"
    );
}
