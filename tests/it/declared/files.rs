//! Files of declared states, by the command line against a running server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use claviger::domain::key_text;
use claviger::hashing::ImportHash;
use tempfile::TempDir;

use crate::fixtures::{Engine, Program, Shell, TestStore, claviger, outcome};

const STATE: &str = r#"
[[realms]]
id = "demo"
prefix = "demo"

[[realms.environments]]
name = "production"
tag = "live"

[[realms.routes]]
path = "/v1/**"

[[realms.routes]]
path = "/v2/**"

[[partners]]
realm = "demo"
id = "acme"
display_name = "Acme"

[[projects]]
realm = "demo"
partner = "acme"
id = "web"

[[keys]]
sha256 = "SHA256"
name = "edge"
partner = "demo"
scopes = ["verify"]
expire_time = 2090-01-31
labels = { team = "edge" }
"#;

const PLAIN_KEY: &str = "claviger-test-0123456789-abcdefghij";

/// A running server, and a directory for files.
struct Started {
    shell: Shell,
    dir: TempDir,
    _store: Arc<TestStore>,
}

impl Started {
    fn new() -> Self {
        let store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&store, &[]);
        let operator = program.operator();
        Self {
            shell: Shell { program, operator },
            dir: tempfile::tempdir().unwrap(),
            _store: store,
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        let text = text.replace("SHA256", &ImportHash::of(PLAIN_KEY).hex());
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn files_are_applied_once_and_what_was_edited_by_hand_is_shown() {
    let started = Started::new();
    let shell = &started.shell;
    let file = started.file("state.toml", STATE);
    let created = "create realm demo\ncreate partner acme of demo\ncreate project web of demo/acme\ncreate key \"edge\" (verify of demo)\n    + partner = \"demo\"\n    + name = \"edge\"\n    + scopes = [\"verify\"]\n    + expire_time = \"2090-01-31T00:00:00Z\"\n    + [labels]\n    + team = \"edge\"\n";
    let diff = shell.says(&format!("diff {file}"), "", 0);
    assert_eq!(diff, format!("{created}\n4 changes.\n"));
    shell.says(&format!("diff {file} --fail-if-any"), "", 5);
    let applied = shell.run(&format!("apply {file} --wait everywhere"), "");
    assert!(applied.status.success());
    assert_eq!(String::from_utf8(applied.stderr).unwrap(), created);
    let said = String::from_utf8(applied.stdout).unwrap();
    assert!(said.starts_with("Made 4 changes."), "{said}");
    let applied = shell.json(&format!("apply {file}"), "", 0);
    assert_eq!(applied["changes"].as_array().unwrap().len(), 0);
    let diff = shell.says(&format!("diff {file} --prune --fail-if-any"), "", 0);
    assert_eq!(diff, "The authority is as declared.\n");

    // By hand.
    shell.says("realm put demo --max-cache 30s", "", 0);
    shell.says("partner put acme --realm demo --display-name Other", "", 0);
    shell.says("partner put extra --realm demo", "", 0);
    let listed = shell.json("keys list --realm claviger --name edge", "", 0);
    let id = listed["keys"][0]["id"].as_str().unwrap().to_owned();
    shell.says(
        &format!("keys update {id} --label team=core --expires-at 2091-01-31"),
        "",
        0,
    );
    let diff = shell.says(&format!("diff {file} --prune"), "", 0);
    assert_eq!(
        diff.replace(&id, "ID"),
        "change realm demo\n\
         \x20     prefix = \"demo\"\n\
         \x20   - max_cache = \"30s\"\n\
         change partner acme of demo\n\
         \x20     id = \"acme\"\n\
         \x20   - display_name = \"Other\"\n\
         \x20   + display_name = \"Acme\"\n\
         \x20     suspended = false\n\
         change key \"edge\" (verify of demo)\n\
         \x20     id ID\n\
         \x20     scopes = [\"verify\"]\n\
         \x20   - expire_time = \"2091-01-31T00:00:00Z\"\n\
         \x20   + expire_time = \"2090-01-31T00:00:00Z\"\n\
         \x20     [labels]\n\
         \x20   - team = \"core\"\n\
         \x20   + team = \"edge\"\n\
         delete partner extra of demo\n\
         \n\
         4 changes.\n"
    );
    assert!(diff.lines().all(|line| line.chars().count() <= 80));
    // Without a terminal, only deletions want to be confirmed.
    let complaint = shell.says(&format!("apply {file} --prune=partners"), "", 2);
    assert!(complaint.contains("--yes"), "{complaint}");
    shell.says(&format!("apply {file} --prune=partners --yes"), "", 0);
    shell.says(&format!("diff {file} --prune --fail-if-any"), "", 0);
}

#[tokio::test]
async fn files_are_put_together_and_a_file_of_a_realm_is_one() {
    let started = Started::new();
    let shell = &started.shell;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/realms");
    let mut files: Vec<_> = ["bullseye", "partna", "partnero", "peaka"]
        .map(|realm| {
            examples
                .join(realm)
                .with_extension("toml")
                .display()
                .to_string()
        })
        .to_vec();
    files.push(started.file("state.toml", STATE));
    shell.says(&format!("apply {}", files.join(" ")), "", 0);
    let listed = shell.json("realm list", "", 0);
    assert_eq!(listed["realms"].as_array().unwrap().len(), 6);
    // From standard input, and with the same realm twice.
    let complaint = shell.says(
        &format!("diff - {}", files[0]),
        &fs::read_to_string(&files[0]).unwrap(),
        2,
    );
    assert!(
        complaint.contains("realms[1].id") && complaint.contains("declared twice"),
        "{complaint}"
    );
    // One file with all of them says the same.
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/declared/authority.toml");
    let example = fs::read_to_string(example).unwrap();
    let operator = ImportHash::of("claviger-test-0123456789-operator").hex();
    let example = example
        .replace("OPERATOR_SHA256", &operator)
        .replace("GATEWAY_SHA256", "SHA256");
    let file = started.file("example.toml", &example.replace("bullseye gateway", "edge"));
    let planned = shell.json(&format!("diff {file}"), "", 2);
    // The key serves another realm there.
    assert_eq!(
        planned["error"]["violations"][0]["field"],
        "keys[1].partner"
    );
    let without_key = example.split("\n# The gateway").next().unwrap().to_owned()
        + "\n[[partners]]"
        + example.split_once("[[partners]]").unwrap().1;
    let file = started.file("example.toml", &without_key);
    let planned = shell.json(&format!("diff {file}"), "", 0);
    let changes = planned["changes"].as_array().unwrap();
    assert!(
        changes
            .iter()
            .all(|change| change["after"]["realm"].is_null()),
        "{planned}"
    );
}

/// Each is refused before anything is sent.
#[tokio::test]
async fn what_a_file_cannot_say_is_refused_with_its_place() {
    let started = Started::new();
    let head = "[[realms]]\nid = \"new\"\nprefix = \"new\"\n";
    for (text, said) in [
        (
            "[[realm]]\nid = \"demo\"",
            "`realm` is not a field: check its spelling",
        ),
        (
            "[[realms]]\nid = \"demo\"\nprefx = \"demo\"",
            "`realms[1].prefx` is not a field: check its spelling",
        ),
        (
            "[[partners]]\n[[partners]]\nsuspend = true",
            "`partners[1].suspend` is not a field: check its spelling",
        ),
        (
            "[[keys]]\nplain_key = \"x\"",
            "`keys[0].plain_key` is not a field: check its spelling",
        ),
        (
            "[[keys]]\nexpire_time = \"soon\"",
            "`keys[0].expire_time` must be a time such as 2030-01-31T12:00:00Z, or a date",
        ),
        (
            "[[keys]]\nexpire_time = 2030-01-31T12:00:00",
            "`keys[0].expire_time` must be a time such as 2030-01-31T12:00:00Z, or a date",
        ),
        (
            "[[realms]]\nid = \"demo\"\nrevision = 3",
            "`realms[1].revision` is set by the server: remove it from the file",
        ),
        ("[keys]", "`keys` must be a list"),
        ("[[keys]", "line 1: "),
    ] {
        let file = started.file("wrong.toml", &format!("{head}{text}"));
        for command in ["apply", "diff"] {
            let complaint = started.shell.says(&format!("{command} {file}"), "", 2);
            let expected = if text == "[[keys]" { "line 4: " } else { said };
            assert!(
                complaint.contains(expected),
                "{complaint} instead of {expected}"
            );
        }
    }
    started.shell.says("apply absent.toml", "", 2);
    let listed = started.shell.json("realm list", "", 0);
    assert_eq!(
        listed["realms"].as_array().unwrap().len(),
        1,
        "nothing was applied"
    );
}

#[tokio::test]
async fn an_api_key_is_made_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let declared = dir.path().join("state.toml");
    fs::write(&declared, STATE.replace("SHA256", "")).unwrap();
    let declared = declared.to_str().unwrap();
    let written = dir.path().join("new.key");
    let written = written.to_str().unwrap();
    let run = |args: &[&str], code: i32| {
        let output = outcome(&mut claviger(args));
        let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(output.status.code(), Some(code), "{args:?} {texts:?}");
        texts
    };
    let check = |plain_key: &str, sha256: &str, start: &str| {
        assert!(
            plain_key.starts_with(start) && key_text::parse(plain_key).is_ok(),
            "{plain_key}"
        );
        assert_eq!(ImportHash::of(plain_key).hex(), sha256);
    };
    let of_demo = ["key", "new", "--realm", "demo", "--file", declared];
    let [shown, _] = run(&[&of_demo[..], &["--json"]].concat(), 0);
    let json: serde_json::Value = serde_json::from_str(&shown).unwrap();
    check(
        json["plain_key"].as_str().unwrap(),
        json["sha256"].as_str().unwrap(),
        "demo_live_",
    );
    for line in [&["key", "new"][..], &["key", "new", "--output", "key-only"]] {
        let [shown, said] = run(line, 0);
        check(
            shown.trim_end(),
            said.trim_end().strip_prefix("sha256  ").unwrap(),
            "claviger_main_",
        );
    }
    let [shown, said] = run(&["key", "new", "--output-file", written], 0);
    let plain_key = fs::read_to_string(written).unwrap();
    check(
        plain_key.trim_end(),
        shown.trim_end().strip_prefix("sha256  ").unwrap(),
        "claviger_main_",
    );
    assert_eq!(
        fs::metadata(written).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!said.contains(plain_key.trim_end()));
    // What is there is not overwritten, and nothing is made up.
    run(&["key", "new", "--output-file", written], 1);
    assert_eq!(fs::read_to_string(written).unwrap(), plain_key);
    let [_, said] = run(&["key", "new", "--realm", "demo"], 2);
    assert!(said.contains("--file"), "{said}");
    run(&["key", "new", "--realm", "ghost", "--file", declared], 2);
    run(&[&of_demo[..], &["--environment", "ghost"]].concat(), 2);
}
