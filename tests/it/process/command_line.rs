//! The command line as a newcomer types it, from an empty directory to a revoked key.

use std::sync::Arc;

use super::grpc_tools::tool;
use crate::fixtures::{Engine, Program, Shell, TestStore, claviger};

#[test]
fn the_tour_leads_from_an_empty_directory_to_a_revoked_key() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };

    let put = "realm put demo --prefix demo --environment production=live --scope read --scope write=read";
    shell.says(put, "", 0);
    shell.says("partner put acme --realm demo --display-name Acme", "", 0);
    shell.says("project put web --realm demo --partner acme", "", 0);
    assert!(shell.says("realm list", "", 0).contains("production"));
    assert!(
        shell
            .says("project list --realm demo", "", 0)
            .contains("web")
    );

    let issued = shell.json(
        "keys issue --realm demo --partner acme --level partner --name first --scope write --expires-in 90d",
        "",
        0,
    );
    let key = issued["plain_key"].as_str().unwrap();
    let id = issued["key"]["id"].as_str().unwrap();
    assert_eq!(issued["key"]["state"], "KEY_STATE_ACTIVE");
    assert!(
        issued["key"]["expire_time"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert!(issued["revision"].is_u64());

    let listed = shell.says("keys list --realm demo", "", 0);
    assert!(
        listed.contains(id) && listed.contains("first") && !listed.contains(key),
        "{listed}"
    );
    assert!(
        shell
            .says(&format!("keys get {id}"), "", 0)
            .contains("acme")
    );
    assert!(
        shell
            .says(&format!("keys scopes {id}"), "", 0)
            .contains("read")
    );

    let question = "verify --realm demo --scope read";
    assert!(shell.says(question, key, 0).starts_with("allowed"));
    assert!(
        shell
            .says(question, &format!("{key}\n"), 0)
            .starts_with("allowed")
    );
    assert!(
        shell
            .says(&format!("verify {key} --realm demo"), "", 0)
            .starts_with("allowed")
    );
    let denied = shell.json(question, "demo_live_nonsense", 3);
    assert_eq!(denied["verdict"], "VERDICT_MALFORMED");

    shell.says(&format!("keys disable {id} --yes"), "", 0);
    assert_eq!(shell.json(question, key, 3)["verdict"], "VERDICT_DISABLED");
    shell.says(&format!("keys enable {id}"), "", 0);
    shell.says(&format!("keys revoke {id} --reason leaked --yes"), "", 0);
    assert_eq!(shell.json(question, key, 3)["verdict"], "VERDICT_REVOKED");
    assert!(
        shell
            .says("events --realm demo", "", 0)
            .contains("key.revoked")
    );
    shell.says(&format!("keys delete {id} --yes"), "", 0);
    assert_eq!(shell.json(question, key, 3)["verdict"], "VERDICT_UNKNOWN");
}

#[test]
fn exit_codes_tell_failure_wrong_use_denial_and_indecision_apart() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let mut shell = Shell { program, operator };
    shell.says("realm get nothing", "", 1);
    let complaint = shell.says(
        "realm put Demo --prefix demo --environment production=live",
        "",
        2,
    );
    assert!(complaint.contains("must begin with"), "{complaint}");
    shell.says("verify --realm nothing", "x", 2);
    shell.says("verify --realm claviger", "x", 3);
    shell.says("verify --no-such-flag", "x", 2);

    shell.operator = "claviger_main_wrong".to_owned();
    shell.says("realm list", "", 1);
    shell.says("verify --realm claviger", "x", 4);
    shell.program.kill();
    let complaint = shell.says("realm list", "", 1);
    assert!(complaint.contains("claviger serve"), "{complaint}");
    shell.says("verify --realm claviger", "x", 4);
}

/// The two blocks of commands after the mark in the README: the tour, and its last question by grpcurl.
fn readmes_tour() -> (&'static str, &'static str) {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("<!-- The tour").expect("the tour's mark");
    let mut blocks = rest.split("```sh\n").skip(1).map(|block| {
        let (block, _) = block.split_once("```").expect("the block's end");
        block
    });
    let tour = blocks.next().expect("the tour");
    let grpcurl = blocks.next().expect("the line for grpcurl");
    (tour, grpcurl)
}

#[test]
fn the_readmes_tour_is_true_as_it_stands() {
    let (tour, grpcurl) = readmes_tour();
    assert!(grpcurl.contains("\ngrpcurl "), "{grpcurl}");
    let readme = include_str!("../../../README.md");
    let login = "claviger login < claviger-data/operator.key";
    assert!(readme.contains(login), "the login without a terminal");
    let login = login.replace("claviger-data/", "");
    let home = tempfile::tempdir().unwrap();

    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_claviger"));
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let tools = tool("grpcurl");
    let path = format!("{path}:{}", tools.parent().unwrap().display());
    // The address is the only thing that is not as it stands there.
    let grpcurl = grpcurl.replace("127.0.0.1:7700", &program.address);
    let output = std::process::Command::new("bash")
        .args(["-c", &format!("{login} >&2\n{tour}\n{grpcurl}")])
        .current_dir(test_store.data())
        .env("PATH", path)
        .env("CLAVIGER_ENDPOINT", &program.address)
        .env("XDG_CONFIG_HOME", home.path())
        .env_remove("CLAVIGER_KEY")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    let (first, others) = complaints.split_once('\n').unwrap();
    assert!(first.starts_with("Logged in to"), "{complaints}");
    assert_eq!(others.lines().count(), 1, "{complaints}");
    let allowed = said.find("\nallowed\n").expect("the key is allowed");
    let denied = said
        .find("\ndenied: VERDICT_REVOKED")
        .expect("the key is denied");
    assert!(allowed < denied, "{said}");
    assert!(said.contains("the tour is over"), "{said}");
    assert!(said.contains("\"verdict\": \"VERDICT_REVOKED\""), "{said}");
}

/// Seen red with each command that leaves the external id out of its request, with `keys get` that does not show it, and without
/// the flag in `failure::FLAGS`.
#[test]
fn key_commands_take_the_id_that_another_system_has_for_the_key() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    shell.says(
        "realm put demo --prefix demo --environment production=live --scope read",
        "",
        0,
    );
    shell.says("partner put acme --realm demo", "", 0);
    let issue = "keys issue --realm demo --partner acme --level partner --external-id";
    let shown = shell.run(&format!("{issue} -first"), "");
    let shown = String::from_utf8(shown.stderr).unwrap();
    assert!(shown.contains("external id  -first\n"), "{shown}");
    let listed = shell.json("keys list --realm demo --external-id -first", "", 0);
    let id = listed["keys"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed["keys"][0]["external_id"], "-first");
    let none = shell.json("keys list --realm demo --external-id first", "", 0);
    assert_eq!(none["keys"].as_array().map(Vec::len), Some(0));

    let refusal = shell.says(&format!("{issue} -first"), "", 1);
    let expected = "error: the server rejected the request:\n  --external-id (external_id): another key of the realm has it";
    assert!(refusal.starts_with(expected), "{refusal}");
    shell.says(&format!("keys update {id} --external-id second"), "", 0);
    let shown = shell.says(&format!("keys get {id}"), "", 0);
    assert!(shown.contains("external id  second\n"), "{shown}");
    shell.says(&format!("keys update {id} --external-id="), "", 0);
    let shown = shell.says(&format!("keys get {id}"), "", 0);
    assert!(!shown.contains("external id"), "{shown}");

    let line = |number: u8| format!("TtgGcQFq.s3fzROFoop8uHG4pS2LYhoqn1rLb{number:04}");
    let csv = format!(
        "plain_key,external_id\n{},21fd1a8d\n{},\n{},21fd1a8d\n",
        line(1),
        line(2),
        line(3)
    );
    let import = "keys import - --format csv --realm demo --partner acme --level partner --batch 1";
    for dry_run in [" --dry-run", ""] {
        let summary = shell.run(&format!("{import}{dry_run} --json"), &csv);
        assert_eq!(summary.status.code(), Some(1));
        let summary: serde_json::Value = serde_json::from_slice(&summary.stdout).unwrap();
        assert_eq!(
            (&summary["imported"], &summary["failed"]),
            (&2.into(), &1.into())
        );
        let failure = &summary["failures"][0];
        assert_eq!(failure["line"], 4);
        let reason = failure["reason"].as_str().unwrap();
        assert!(reason.starts_with("external_id: "), "{reason}");
    }
    let listed = shell.json("keys list --realm demo --external-id 21fd1a8d", "", 0);
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(1));
}

/// Seen red with each command that leaves the revision out of its request.
#[test]
fn key_commands_take_the_revision_that_the_key_must_have() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    shell.says(
        "realm put demo --prefix demo --environment production=live --scope read",
        "",
        0,
    );
    shell.says("partner put acme --realm demo", "", 0);
    let issued = shell.json(
        "keys issue --realm demo --partner acme --level partner --scope read",
        "",
        0,
    );
    let id = issued["key"]["id"].as_str().unwrap();
    for command in [
        "update ID --name renamed",
        "rotate ID --overlap 1h",
        "end-rotation ID --keep new --yes",
        "disable ID --yes",
        "enable ID",
    ] {
        let line = format!("keys {}", command.replace("ID", id));
        let read = shell.json(&format!("keys get {id}"), "", 0);
        let known = read["key"]["revision"].as_u64().unwrap();
        let shown = shell.says(&format!("keys get {id}"), "", 0);
        assert!(shown.contains(&format!("{known}")), "{shown}");
        let refusal = shell.says(&format!("{line} --if-revision {}", known - 1), "", 1);
        assert!(refusal.contains("if-revision"), "{refusal}");
        let changed = shell.json(&format!("{line} --if-revision {known}"), "", 0);
        assert_eq!(changed["key"]["revision"], changed["revision"], "{line}");
    }
}

/// A server with the realms `demo` and `other`, the partner `acme` in both, and a key in each.
fn two_realms() -> (Arc<TestStore>, Shell) {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    for realm in ["demo", "other"] {
        let put = format!(
            "realm put {realm} --prefix {realm} --environment production=live --scope read"
        );
        shell.says(&put, "", 0);
        shell.says(&format!("partner put acme --realm {realm}"), "", 0);
        let issue = format!(
            "keys issue --realm {realm} --partner acme --level partner --scope read --name in-{realm}"
        );
        shell.says(&issue, "", 0);
    }
    (test_store, shell)
}

/// Seen red with a walk that ends after the first realm, without the exit code, and with a realm whose error is left out.
#[test]
fn one_command_looks_for_keys_in_all_realms() {
    let (_test_store, mut shell) = two_realms();
    let realms = |listed: &serde_json::Value| -> Vec<(String, String)> {
        let keys = listed["keys"].as_array().unwrap().iter();
        keys.map(|key| {
            (
                key["realm"].as_str().unwrap().to_owned(),
                key["name"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
    };
    let expiring = "keys list --all-realms --state active --expires-within 14d --fail-if-any";
    assert!(
        shell
            .says(expiring, "", 0)
            .contains("There are no such keys.")
    );
    for realm in ["other", "demo"] {
        let issue = format!(
            "keys issue --realm {realm} --partner acme --level partner --scope read --name soon-{realm} --expires-in 7d"
        );
        shell.says(&issue, "", 0);
    }
    let found = shell.run(&format!("{expiring} --json"), "");
    assert_eq!(found.status.code(), Some(5));
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let soon = ["demo", "other"].map(|realm| (realm.to_owned(), format!("soon-{realm}")));
    assert_eq!(realms(&found), soon);
    let table = shell.run(expiring, "");
    assert_eq!(table.status.code(), Some(5));
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.starts_with("REALM  ID "), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    // Without the flag, to find something is no failure. All pages are shown, whatever their size.
    let all = shell.json("keys list --all-realms --page-size 1 --partner acme", "", 0);
    let names: Vec<_> = realms(&all).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["soon-demo", "in-demo", "soon-other", "in-other"]);
    let one = shell.run("keys list --realm demo --fail-if-any", "");
    assert_eq!(one.status.code(), Some(5), "also in one realm");

    // The realm that refuses is named, and no other realm hides it.
    let refused = shell.says("keys list --all-realms --hint abc --fail-if-any", "", 2);
    assert!(refused.starts_with("error: realm claviger: "), "{refused}");
    assert!(refused.contains("--hint (filter.hint)"), "{refused}");

    // A manager has one realm.
    let issue = "keys issue --realm claviger --partner other --scope manage --output key-only";
    let manager = shell.says(issue, "", 0);
    shell.operator = manager.trim_end().to_owned();
    let found = shell.run(&format!("{expiring} --json"), "");
    assert_eq!(found.status.code(), Some(5));
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(realms(&found), soon[1..]);
}

/// Seen red with the facts of the key on standard output.
#[test]
fn a_script_gets_the_api_key_alone() {
    let (_test_store, shell) = two_realms();
    let issue =
        "keys issue --realm demo --partner acme --level partner --scope read --output key-only";
    let mut id = String::new();
    for rotates in [false, true] {
        let line = if rotates {
            format!("keys rotate {id} --expires-in 2d --output key-only")
        } else {
            issue.to_owned()
        };
        let output = shell.run(&line, "");
        assert_eq!(output.status.code(), Some(0));
        let key = String::from_utf8(output.stdout).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(key.matches('\n').count(), 1, "{key}");
        assert!(
            key.starts_with("demo_live_") && key.ends_with('\n'),
            "{key}"
        );
        assert!(!told.contains(key.trim_end()), "{told}");
        let fact = told
            .lines()
            .find_map(|line| line.strip_prefix("key id"))
            .unwrap();
        fact.trim().clone_into(&mut id);
        assert!(
            shell
                .says("verify --realm demo --scope read", &key, 0)
                .starts_with("allowed")
        );
    }
    let shown = shell.json(&format!("keys get {id}"), "", 0);
    assert!(shown["key"]["expire_time"].is_string(), "{shown}");
    for line in [format!("{issue} --json"), format!("--json {issue}")] {
        let refusal = shell.run(&line, "");
        assert_eq!((refusal.status.code(), refusal.stdout.len()), (Some(2), 0));
        let refusal: serde_json::Value = serde_json::from_slice(&refusal.stderr).unwrap();
        assert!(
            refusal["error"]["message"]
                .as_str()
                .unwrap()
                .contains("--json"),
            "{refusal}"
        );
    }
}

/// Seen red with the parser's own output, and without the masking of API keys.
#[test]
fn with_json_an_error_in_the_arguments_is_json_too() {
    const KEY: &str = "demo_live_4fzs3fzs3fzs3fzs3fzs3fz";
    let outcome = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let output = claviger(&words).output().unwrap();
        let (said, complaint) = (output.stdout, output.stderr);
        (
            output.status.code(),
            String::from_utf8(said).unwrap(),
            String::from_utf8(complaint).unwrap(),
        )
    };
    for (line, part) in [
        ("keys get --json", "required arguments were not provided"),
        ("--json keys list --ream demo", "'--ream'"),
        (
            "keys list --realm demo --json --unused-for 1m",
            "`1m` is ambiguous: write `1min` or `30d`",
        ),
        ("keys --json", "requires a subcommand"),
        ("--json", "requires a subcommand"),
        ("--json nonsense", "nonsense"),
        (
            "serve --json",
            "--json is only for the commands that call a running server",
        ),
        (&format!("keys list {KEY} --json"), "***"),
    ] {
        let (code, said, complaint) = outcome(line);
        assert_eq!((code, said.as_str()), (Some(2), ""), "{line}: {complaint}");
        let error: serde_json::Value = serde_json::from_str(&complaint).expect(line);
        let error = &error["error"];
        assert_eq!(error["code"], "INVALID_ARGUMENT", "{line}");
        assert!(
            error["message"].as_str().unwrap().contains(part),
            "{line}: {error}"
        );
        assert!(!complaint.contains("s3fz"), "{complaint}");
    }
    let (code, _, complaint) = outcome("keys list -- --json");
    assert!(
        code == Some(2) && complaint.starts_with("error: "),
        "{complaint}"
    );
    for line in ["keys list --help --json", "--json --version"] {
        let (code, said, _) = outcome(line);
        assert_eq!(code, Some(0), "{line}");
        assert!(said.contains("claviger"), "{said}");
    }
}

/// Seen red without `ApiKey::flaw`: the server then says that the key is unknown.
#[test]
fn a_flaw_in_the_callers_key_file_is_named() {
    let (_test_store, shell) = two_realms();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.key");
    let list = format!("realm list --key-file {}", file.display());
    let key = &shell.operator;
    for (content, flaw) in [
        (key.clone(), None),
        (format!("{key}\n"), None),
        (format!("{key}\r\n"), None),
        (
            format!("\u{feff}{key}\n"),
            Some("starts with a byte-order mark: save it without one"),
        ),
        (format!("{key} \n"), Some("contains a space or a tab")),
        (format!("{key}\n{key}\n"), Some("has more than one line")),
        (format!("{key}\0"), Some("contains a NUL byte")),
        (
            format!("{key}\u{a0}"),
            Some("contains a character that is not ASCII"),
        ),
        (String::new(), Some("is empty")),
    ] {
        std::fs::write(&file, content).unwrap();
        let Some(flaw) = flaw else {
            shell.says(&list, "", 0);
            continue;
        };
        let refusal = shell.says(&list, "", 2);
        assert!(refusal.contains(&format!("my.key {flaw}")), "{refusal}");
        assert!(!refusal.contains(key.as_str()), "{refusal}");
    }
    let output = claviger(&["realm", "list", "--endpoint", &shell.program.address])
        .env("CLAVIGER_KEY", format!("\u{feff}{key}"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let refusal = String::from_utf8(output.stderr).unwrap();
    assert!(
        refusal.starts_with("error: CLAVIGER_KEY starts with a byte-order mark"),
        "{refusal}"
    );
}

#[test]
fn keys_that_match_are_ended_and_an_empty_value_selects_none() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    let put =
        "realm put demo --prefix demo --environment production=live --scope read --level partner";
    shell.says(put, "", 0);
    shell.says("partner put acme --realm demo", "", 0);
    for (name, team) in [("robot", "a"), ("robot", "b"), ("person", "a")] {
        let issue = "keys issue --realm demo --partner acme --scope read";
        shell.says(&format!("{issue} --name {name} --label team={team}"), "", 0);
    }
    let left = |state: &str| {
        let listed = shell.json(&format!("keys list --realm demo --state {state}"), "", 0);
        listed["keys"].as_array().map_or(0, Vec::len)
    };
    for empty in [
        "--partner",
        "--name",
        "--hint",
        "--created-by",
        "--external-id",
    ] {
        for command in ["revoke-all --reason x", "delete-all"] {
            let refusal = shell.says(
                &format!("keys {command} --realm demo --yes {empty}="),
                "",
                2,
            );
            assert!(refusal.contains(empty), "{refusal}");
        }
    }
    let labels = "--label team=a --label team=b";
    let refusal = shell.says(
        &format!("keys delete-all --realm demo --yes {labels}"),
        "",
        2,
    );
    assert!(
        refusal.contains("--label: `team` is given twice"),
        "{refusal}"
    );
    let refusal = shell.says("keys delete-all --realm demo --name robot", "", 2);
    assert!(refusal.contains("--yes"), "{refusal}");
    assert_eq!(left("active"), 3);

    let revoke = "keys revoke-all --realm demo --name ROBOT --label team=a --reason over";
    let preview = shell.says(&format!("{revoke} --dry-run"), "", 0);
    assert!(
        preview.starts_with("This would revoke 1 key permanently."),
        "{preview}"
    );
    assert_eq!(left("active"), 3);
    let done = shell.says(&format!("{revoke} --yes"), "", 0);
    assert!(done.starts_with("Revoked 1 key."), "{done}");
    assert_eq!((left("active"), left("revoked")), (2, 1));
    let id = "01234567-89ab-4cde-8f01-23456789abcd";
    let delete = format!("keys delete-all --realm demo --name robot --yes --request-id {id}");
    for done in [
        "Deleted 2 keys.",
        "This request was made before, and deleted 2 keys then",
    ] {
        let said = shell.says(&delete, "", 0);
        assert!(said.starts_with(done), "{said}");
    }
    assert_eq!((left("active"), left("revoked")), (1, 0));
    let answer = shell.json("keys delete-all --realm demo --state active --yes", "", 0);
    assert_eq!(answer["deleted"], 1);
}

#[test]
fn a_scope_is_renamed_in_one_command_or_in_two() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    let scopes = "--scope read --scope write=read";
    let put = format!("realm put demo --prefix demo --environment production=live {scopes}");
    shell.says(&put, "", 0);
    shell.says("partner put acme --realm demo", "", 0);
    let issue = "keys issue --realm demo --partner acme --level partner --scope write";
    let id = shell.json(issue, "", 0)["key"]["id"].clone();
    let id = id.as_str().unwrap();

    let rename = "realm rename-scope demo write edit";
    let said = shell.says(&format!("{rename} --dry-run"), "", 0);
    assert_eq!(
        said.trim_end(),
        "This would rename the scope write of realm demo to edit, on 1 key."
    );
    let said = shell.says(&format!("{rename} --keep-old-scope --yes"), "", 0);
    assert!(
        said.starts_with("Renamed the scope write to edit, on 1 key."),
        "{said}"
    );
    assert!(said.contains("still has the old scope"), "{said}");
    // A put with flags keeps what tells that the renaming is unfinished.
    let with_both = "realm put demo --scope read --scope write=read --scope edit=write";
    shell.says(with_both, "", 0);
    let request_id = "01234567-89ab-4cde-8f01-23456789abcd";
    let finish = format!("{rename} --yes --request-id {request_id}");
    for done in [
        "Renamed the scope write to edit, on 0 keys.",
        "This request was made before, and changed 0 keys then",
    ] {
        let said = shell.says(&finish, "", 0);
        assert!(said.starts_with(done), "{said}");
    }
    let scopes = shell.json(&format!("keys scopes {id}"), "", 0);
    assert_eq!(scopes["granted"], serde_json::json!(["edit"]));
    let complaint = shell.says(&format!("{rename} --yes"), "", 1);
    assert!(complaint.contains("renamed already"), "{complaint}");
    let answer = shell.json("realm rename-scope demo edit write --yes", "", 0);
    assert_eq!(answer["updated_keys"], 1);
}
