//! What the command line says when something is wrong or takes long: hints that follow the reason, the names of arguments, warnings.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::fixtures::{Engine, Program, Shell, Terminal, TestStore, claviger, eventually};

fn shell(test_store: &TestStore) -> Shell {
    let program = Program::serve(test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    let put =
        "realm put demo --prefix demo --environment production=live --scope read --scope write";
    shell.says(put, "", 0);
    shell.says("partner put acme --realm demo", "", 0);
    shell
}

/// The time in brackets in a message: `(25 Nov 22:25 UTC, 2 h ago)`, written here by the test.
fn in_both_forms(message: &str, time: &str) -> String {
    let (_, rest) = message
        .split_once(" (")
        .unwrap_or_else(|| panic!("{message}"));
    let (both, _) = rest.split_once(')').unwrap();
    let (minute, ago) = both.split_once(" UTC, ").unwrap();
    let day = time[8..10].trim_start_matches('0');
    assert!(
        minute.starts_with(day) && minute.ends_with(&time[11..16]),
        "{both} is not {time}"
    );
    assert!(ago.ends_with(" ago"), "{both}");
    format!(" ({both})")
}

/// Issues a key. Returns its id and the API key.
fn issue(shell: &Shell, flags: &str) -> (String, String) {
    let issued = shell.json(&format!("keys issue {flags} --scope read"), "", 0);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    (text(&issued["key"]["id"]), text(&issued["plain_key"]))
}

/// The last characters of an API key, as a hint has them.
fn last(key: &str) -> String {
    format!("…{}", &key[key.len() - 4..])
}

/// The hint about a disabled key.
fn enable(key: &str, other: &str) -> String {
    let key = last(key);
    format!(
        "an administrator can enable it: claviger keys enable {key} --realm claviger; or {other}"
    )
}

/// The hint about a key that is used from a wrong address.
fn from_elsewhere(id: &str) -> String {
    format!(
        "call from an address in the key's ranges; an administrator can change them: claviger keys update {id} --allow-cidr CIDR"
    )
}

/// The time that the metadata of an error has, as its message tells it; empty if it has none.
fn time_of(metadata: &serde_json::Value, message: &str) -> String {
    let mut names = ["expire_time", "revoke_time"].into_iter();
    let time = names.find_map(|name| metadata[name].as_str());
    time.map_or_else(String::new, |time| in_both_forms(message, time))
}

/// Seen red without the facts of the server, and with one hint for all reasons.
#[tokio::test]
async fn a_refused_key_is_named_and_the_hint_follows_the_reason() {
    const NAME: &str = "ci\u{202e}of-acme";
    let test_store = TestStore::on(Engine::Sqlite);
    let mut shell = shell(&test_store);
    shell.says("partner put globex --realm demo", "", 0);
    let manager = "--realm claviger --partner demo";
    let (expired_id, expired) = issue(&shell, &format!("{manager} --name {NAME} --expires-in 3s"));
    let (disabled_id, disabled) = issue(&shell, &format!("{manager} --name disabled"));
    let (revoked_id, revoked) = issue(&shell, manager);
    let (elsewhere_id, elsewhere) = issue(&shell, &format!("{manager} --allow-cidr 192.0.2.0/24"));
    let (_, suspended) = issue(
        &shell,
        "--realm demo --partner globex --level partner --name theirs",
    );
    shell.says(&format!("keys disable {disabled_id} --yes"), "", 0);
    shell.says(
        &format!("keys revoke {revoked_id} --yes --reason leaked"),
        "",
        0,
    );
    shell.says("partner suspend globex --realm demo --yes", "", 0);
    shell.operator.clone_from(&expired);
    eventually("it expires", async || {
        let answer = shell.run("realm list", "");
        (answer.status.code() != Some(0)).then_some(())
    })
    .await;
    let other = "set CLAVIGER_KEY to another key, or --key-file FILE";
    let server = shell.program.address.clone();
    for (key, id, error, facts, hint) in [
        (
            &*expired,
            &*expired_id,
            "your key has expired",
            // What could turn the writing direction is escaped.
            format!(": \"ci\\u{{202e}}of-acme\", {}", last(&expired)),
            other.to_owned(),
        ),
        (
            &disabled,
            &disabled_id,
            "your key is disabled",
            format!(": \"disabled\", {}", last(&disabled)),
            enable(&disabled, other),
        ),
        (
            &revoked,
            &revoked_id,
            "your key is revoked",
            format!(": {}", last(&revoked)),
            other.to_owned(),
        ),
        (
            "claviger_main_wrong",
            "",
            "this authority does not know your key",
            String::new(),
            format!(
                "it may be mistyped, deleted, replaced by a rotation, or of another authority than {server}; {other}"
            ),
        ),
        (
            &elsewhere,
            "",
            "your key may not be used from this address",
            String::new(),
            from_elsewhere(&elsewhere_id),
        ),
        (
            &suspended,
            "",
            "the partner of your key is suspended: globex",
            format!("; \"theirs\", {}", last(&suspended)),
            "an administrator can restore it: claviger partner restore globex --realm demo"
                .to_owned(),
        ),
    ] {
        key.clone_into(&mut shell.operator);
        let complaint = shell.says("keys list --realm demo", "", 1);
        let output = shell.run("keys list --realm demo --json", "");
        let told: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        let metadata = &told["error"]["metadata"];
        let time = time_of(metadata, &complaint);
        let has_time = error.ends_with("expired") || error.ends_with("revoked");
        assert_eq!(!time.is_empty(), has_time, "{told}");
        let hint = hint + "; this one came from CLAVIGER_KEY";
        assert_eq!(
            complaint,
            format!("error: {error}{time}{facts}\nhint: {hint}\n")
        );
        assert_eq!(told["error"]["hint"], hint);
        if id.is_empty() {
            continue;
        }
        assert_eq!(metadata["key_id"], id);
        assert_eq!(metadata["realm"], "claviger");
        assert!(!told.to_string().contains("leaked"), "{told}");
    }
    // A question of a gateway tells as much, but for what only the store knows.
    shell.operator.clone_from(&revoked);
    let complaint = shell.says("verify --realm demo", &expired, 4);
    let error = "error: your key is revoked\n";
    assert!(complaint.contains(error), "{complaint}");
}

/// Seen red without `Arguments`.
#[test]
fn an_error_names_arguments_as_they_are_typed_and_rules_in_words() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell(&test_store);
    let rule = "must begin with a letter or a digit, and may have letters, digits, . _ @ | + : = -; at most 128 characters";
    for (line, setter) in [
        ("partner put Ac/me --realm demo", "ID (partner)"),
        (
            "project put w/b --realm demo --partner acme",
            "ID (project.id)",
        ),
        (
            "project put web --realm demo --partner ac/me",
            "--partner (partner)",
        ),
        (
            "keys issue --realm demo --partner ac/me --level partner",
            "--partner (partner)",
        ),
    ] {
        let complaint = shell.says(line, "", 2);
        assert!(
            complaint.contains(&format!("\n  {setter}: {rule}\n")),
            "{line}: {complaint}"
        );
    }
    // For programs, the rule as the server gives it.
    let complaint = shell.says("partner put Ac/me --realm demo --json", "", 2);
    assert!(complaint.contains("must match [A-Za-z0-9]["), "{complaint}");

    let issued = shell.json(
        "keys issue --realm demo --partner acme --level partner --scope read,write",
        "",
        0,
    );
    assert_eq!(
        issued["key"]["scopes"],
        serde_json::json!(["read", "write"])
    );
    let id = issued["key"]["id"].as_str().unwrap();
    let key = issued["plain_key"].as_str().unwrap();
    assert!(
        shell
            .says("verify --realm demo --scope read,write", key, 0)
            .starts_with("allowed")
    );
    shell.says(&format!("keys update {id} --scope read"), "", 0);
    shell.says("verify --realm demo --scope read,write", key, 3);
    shell.says("verify --realm demo --any-scope read,write", key, 0);

    // The variable of the endpoint is set.
    let complaint = shell.says("keys get", "", 2);
    assert!(
        complaint.contains("Usage: claviger keys get [OPTIONS] <"),
        "{complaint}"
    );
    assert!(!complaint.contains("--endpoint"), "{complaint}");
}

/// Seen red without the warnings.
#[test]
fn a_key_in_sight_of_others_is_warned_of() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell(&test_store);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("k");
    fs::write(&file, &shell.operator).unwrap();
    for (mode, warns) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = shell.run(&format!("realm list --key-file {}", file.display()), "");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            complaint.contains("every user of this machine can read"),
            warns,
            "{complaint}"
        );
    }
    let complaint = |words: &[&str], input: &str| {
        use std::io::Write as _;
        let mut command = claviger(words);
        let command = command
            .env("CLAVIGER_ENDPOINT", &shell.program.address)
            .env("CLAVIGER_KEY", &shell.operator)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
    };
    let explain = ["explain", "--realm", "demo", "--path", "/"];
    let key = "demo_live_4fzs3fzs3fzs3fzs3fzs3fz";
    let header = format!("authorization: Bearer {key}");
    let shown = complaint(&[&explain[..], &["--header", &header]].concat(), "");
    assert!(
        shown.starts_with(
            "warning: every user of this machine can see the API key in --header authorization"
        ),
        "{shown}"
    );
    assert!(!shown.contains(key), "{shown}");
    let unused = "warning: the API key is not used, because no --header has {key}";
    let header = "x-other: 1";
    let given = complaint(&[&explain[..], &["--header", header, key]].concat(), "");
    assert!(given.starts_with(unused), "{given}");
    let with_place = [&explain[..], &["--header", "authorization: Bearer {key}"]].concat();
    assert!(
        !complaint(&with_place, key).contains("warning"),
        "it is used"
    );
    assert!(
        !complaint(&explain, "").contains("warning"),
        "no key is given"
    );

    // At a terminal, because a script has chosen so.
    let mut list = claviger(&["realm", "list", "--key", &shell.operator]);
    list.env("CLAVIGER_ENDPOINT", &shell.program.address);
    let (code, said) = Terminal::run(&list).end();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("warning: every user of this machine can see the key of --key"),
        "{said}"
    );
    let output = list.output().unwrap();
    assert!(output.stderr.is_empty());
}

/// Seen red without the notice.
#[test]
fn a_slow_server_is_told_and_an_interrupted_change_can_be_repeated() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell(&test_store);
    let address = shell.program.address.clone();
    let command = |words: &[&str]| {
        let mut command = claviger(words);
        command
            .env("CLAVIGER_ENDPOINT", &address)
            .env("CLAVIGER_KEY", &shell.operator)
            .env("CLAVIGER_REALM", "demo");
        command
    };
    let notice = format!("waiting for {address} …");
    shell.program.signal("STOP");
    let waiting = Terminal::run(&command(&["realm", "list"]));
    waiting.wait_for(&notice);
    shell.program.signal("CONT");
    let (code, said) = waiting.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with(&format!("{notice}\r\x1b[K")), "{said:?}");
    let quick = Terminal::run(&command(&["realm", "list"])).end().1;
    assert!(
        !quick.contains("waiting") && quick.contains("demo"),
        "{quick:?}"
    );

    let issue = [
        "keys",
        "issue",
        "--partner",
        "acme",
        "--level",
        "partner",
        "--name",
        "it's new",
        "--scope",
        "read",
    ];
    let words = [&issue[..], &["--expires-in", "90d"]].concat();
    shell.program.signal("STOP");
    let mut change = Terminal::run(&command(&words));
    change.wait_for(&notice);
    // The connection is made by the system, so that the notice may be that of the change or of a question before it.
    std::thread::sleep(std::time::Duration::from_millis(700));
    change.enter("\x03");
    let (code, said) = change.end();
    shell.program.signal("CONT");
    assert_eq!(code, Some(130), "{said}");
    let hint = "hint: the change may have been made or not; this makes it at most once:\n  ";
    let (before, line) = said.split_once(hint).unwrap_or_else(|| panic!("{said}"));
    assert!(
        before.contains(&format!(
            "error: interrupted before the answer of {address}\n"
        )),
        "{said}"
    );
    assert!(
        line.contains("--name \"it's new\"") && !line.contains("--expires-in"),
        "{line}"
    );
    assert!(!line.contains('.') || !line.contains("Z."), "{line}");
    assert!(
        line.lines().all(|line| line.chars().count() <= 80),
        "{line}"
    );
    // It is pasted as it stands, twice: the key is issued once.
    let mut told = Vec::new();
    for _ in 0..2 {
        let mut paste = std::process::Command::new("sh");
        let variables = command(&[]);
        for (name, value) in variables.get_envs() {
            match value {
                Some(value) => paste.env(name, value),
                None => paste.env_remove(name),
            };
        }
        let output = paste.args(["-c", line]).output().unwrap();
        told.push((
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    assert!(
        told[1].1.contains("this request was made before"),
        "{told:?}"
    );
    let listed = shell.json("keys list --realm demo", "", 0);
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["keys"][0]["name"], "it's new");

    // A read is over with Ctrl-C, without a word.
    shell.program.signal("STOP");
    let mut read = Terminal::run(&command(&["realm", "list"]));
    read.wait_for(&notice);
    read.enter("\x03");
    let (code, _) = read.end();
    shell.program.signal("CONT");
    assert_eq!(code, None, "the signal has ended it");
}
