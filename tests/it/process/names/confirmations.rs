//! What cannot be undone or stops traffic says what it is about, and asks.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use super::{issue, revision, state, world};
use crate::fixtures::{END_OF_INPUT, INTERRUPT, Shell, claviger, eventually};

/// Every command that asks, with the key `ci` in an overlap.
const ASKING: [&str; 16] = [
    "keys revoke ci",
    "keys disable ci",
    "keys delete ci",
    "keys end-rotation ci --keep new",
    "keys revoke-self",
    "keys revoke-all --partner acme --reason x",
    "keys delete-all --partner acme",
    "partner suspend acme",
    "partner delete idle",
    "project delete web",
    "realm delete other",
    "realm rename-scope demo write edit",
    "realm rename-scope demo write edit --request-id 01234567-89ab-4cde-8f01-23456789abcd",
    "replicas accept-history 1",
    "replicas set-clock",
    "keys revoke 01a214d0-7407-7b5d-a9dc-8c57eacd3de0",
];

fn with_everything(shell: &Shell) {
    issue(shell, "acme", "--name ci");
    shell.says("keys rotate ci --overlap 1h", "", 0);
    shell.says("partner put idle", "", 0);
    shell.says(
        "realm put other --prefix other --environment production=live",
        "",
        0,
    );
}

/// Seen red without `or_terminal` in each of the commands.
#[test]
fn without_a_terminal_nothing_is_done_without_yes() {
    let (_test_store, shell) = world();
    with_everything(&shell);
    let before = revision(&shell);
    for line in ASKING {
        let line = if line.starts_with("realm") || line.starts_with("replicas") {
            line.to_owned()
        } else {
            format!("{line} --realm demo").replace("revoke-self --realm demo", "revoke-self")
        };
        let refusal = shell.says(&line, "y\n", 2);
        assert!(
            refusal.contains("there is no terminal to ask at"),
            "{line}: {refusal}"
        );
        assert!(refusal.contains("--yes"), "{refusal}");
        let refusal = shell.json(&line, "", 2);
        assert_eq!(refusal["error"]["code"], "INVALID_ARGUMENT");
        // A closed standard input is no yes either, and no server is asked.
        let words: Vec<_> = line.split_whitespace().collect();
        let script = "exec \"$0\" \"$@\" <&-";
        let program = claviger(&words);
        let mut shell_command = std::process::Command::new("sh");
        let closed = crate::fixtures::without_variables(&mut shell_command)
            .args(["-c", script])
            .arg(program.get_program())
            .args(program.get_args())
            .env("CLAVIGER_ENDPOINT", "127.0.0.1:1")
            .env("CLAVIGER_KEY", &shell.operator)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(closed.status.code(), Some(2), "{line}");
        // Each has the short flag: so its own parser says.
        let help = claviger(&[&words[..], &["--help"]].concat())
            .output()
            .unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("-y, --yes"), "{line}: {help}");
    }
    assert_eq!(revision(&shell), before);
}

/// Seen red with `y` as the default, and with an interruption that counts as a yes.
#[test]
fn the_question_says_which_key_it_is_about() {
    let (_test_store, shell) = world();
    let key = issue(&shell, "acme", "--name ci");
    let before = revision(&shell);
    for verb in ["Revoke", "Disable", "Delete"] {
        let line = format!("keys {} ci --realm demo", verb.to_lowercase());
        let question = format!(
            "{verb} \"ci\" (acme, live …{})? It was never used. [y/N] ",
            key.end
        );
        for (typed, code) in [
            ("n\n", Some(1)),
            ("\n", Some(1)),
            (END_OF_INPUT, Some(1)),
            (INTERRUPT, None),
        ] {
            let (shown, status) = shell.at_terminal(&line, &[("[y/N]", typed)]);
            assert!(shown.starts_with(&question), "{shown}");
            assert_eq!(status.code(), code, "{shown}");
            if code.is_none() {
                assert_eq!(status.signal(), Some(2));
            } else {
                assert!(shown.contains("error: nothing was changed"), "{shown}");
            }
        }
        // One command, and no question: the key is ready to be ended.
    }
    assert_eq!(revision(&shell), before);
    let (shown, status) = shell.at_terminal("keys revoke ci --realm demo", &[("[y/N]", "y\n")]);
    assert!(status.success(), "{shown}");
    let done = format!("Revoked \"ci\" (acme, live …{}).", key.end);
    assert!(shown.contains(&done), "{shown}");
    assert_eq!(state(&shell, &key.id), "revoked");
    // What needs no change needs no question.
    let (shown, status) = shell.at_terminal("keys revoke ci --realm demo", &[]);
    assert!(
        status.success() && shown.contains("already revoked"),
        "{shown}"
    );
    assert!(shown.contains(" UTC; nothing was changed"), "{shown}");
}

/// Seen red with a question that asks the server for no usage.
#[tokio::test(flavor = "multi_thread")]
async fn the_question_says_when_a_key_was_used() {
    let (_test_store, shell) = world();
    let key = issue(&shell, "acme", "--name ci");
    used(&shell, &key.id, &key.plain_key).await;
    let (shown, _) = shell.at_terminal("keys revoke ci", &[("[y/N]", "n\n")]);
    let part = format!("Revoke \"ci\" (acme, live …{})? It was used ", key.end);
    assert!(
        shown.starts_with(&part) && shown.contains(" s ago. [y/N]"),
        "{shown}"
    );

    // A rotation asks only if the secret is in use.
    let idle = issue(&shell, "acme", "--name idle");
    shell.says("keys rotate idle", "", 0);
    assert_eq!(state(&shell, &idle.id), "active");
    let before = revision(&shell);
    let refusal = shell.says("keys rotate ci", "", 2);
    assert!(refusal.contains("--overlap 24h"), "{refusal}");
    let (shown, status) = shell.at_terminal("keys rotate ci", &[("[y/N/24h]", "n\n")]);
    assert_eq!(status.code(), Some(1));
    let first = format!("\"ci\" (acme, live …{}) was used ", key.end);
    assert!(shown.starts_with(&first), "{shown}");
    let second =
        " s ago. Its present secret would stop now.\nRotate without an overlap? [y/N/24h] ";
    assert!(shown.contains(second), "{shown}");
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert_eq!(revision(&shell), before);
    let (shown, status) = shell.at_terminal("keys rotate ci", &[("[y/N/24h]", "2h\n")]);
    assert!(
        status.success() && shown.contains("The old secret works until"),
        "{shown}"
    );
    // Now the newest secret is unused, so that only a rotation without an overlap stops anything.
    shell.says("keys rotate ci --overlap 2h", "", 0);
    let (shown, status) = shell.at_terminal("keys rotate ci", &[("[y/N/24h]", "y\n")]);
    assert!(status.success(), "{shown}");
    assert!(
        shown.contains("Both of its secrets would stop now."),
        "{shown}"
    );
    assert!(
        shown.contains("The old secret does not work any more."),
        "{shown}"
    );
}

/// Uses a key, and waits until the server tells it.
async fn used(shell: &Shell, id: &str, plain_key: &str) {
    shell.says(
        "verify --realm demo --environment production --scope read",
        plain_key,
        0,
    );
    eventually("the use is told", async || {
        let shown = shell.json(&format!("keys get {id}"), "", 0);
        shown["key"]["last_used_time"].as_str().map(drop)
    })
    .await;
}

/// Seen red with the old secret named for `--keep old`.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_rotation_says_which_secret_stops() {
    let (_test_store, shell) = world();
    let key = issue(&shell, "acme", "--name ci");
    used(&shell, &key.id, &key.plain_key).await;
    let rotated = shell.json("keys rotate ci --overlap 1h", "", 0);
    let new = rotated["plain_key"].as_str().unwrap();
    let (old_end, new_end) = (&key.end, &new[new.len() - 4..]);
    let line = "keys end-rotation ci --keep";
    let (shown, _) = shell.at_terminal(&format!("{line} new"), &[("[y/N]", "n\n")]);
    let question = format!(
        "Keep only the new secret of \"ci\" (acme, live …{new_end})? The old one (live …{old_end}) was used "
    );
    let words = |shown: &str| shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&shown).starts_with(question.trim_end()), "{shown}");
    let (shown, _) = shell.at_terminal(&format!("{line} old"), &[("[y/N]", "n\n")]);
    let question = format!("The new one (live …{new_end}) was never used and would stop now.");
    assert!(words(&shown).contains(&question), "{shown}");
    let done = shell.says(&format!("{line} new --yes"), "", 0);
    assert!(done.contains("the new secret stays."), "{done}");
    // Without a rotation the server refuses, before a question.
    let (shown, status) = shell.at_terminal(&format!("{line} new"), &[]);
    assert_eq!(status.code(), Some(1), "{shown}");
}

/// Seen red without the counts, and with the question before the check.
#[test]
fn owners_say_how_many_keys_they_have() {
    let (_test_store, shell) = world();
    for _ in 0..3 {
        issue(&shell, "acme", "");
    }
    let dead = issue(&shell, "acme", "");
    shell.says(&format!("keys revoke {} --yes", dead.id), "", 0);
    let of_project = "keys issue --project web --environment staging --scope read";
    shell.says(of_project, "", 0);

    let (shown, status) = shell.at_terminal("partner suspend acme", &[("[y/N]", "n\n")]);
    assert!(
        shown.starts_with("Suspend partner acme of demo? It has 4 active keys. [y/N]"),
        "{shown}"
    );
    assert_eq!(status.code(), Some(1));
    let before = revision(&shell);
    // What the server would refuse is refused before the question.
    for (line, part) in [
        (
            "partner delete acme",
            "partner acme of demo still has 4 keys",
        ),
        ("project delete web", "project web of demo still has 1 key"),
        ("realm delete demo", "realm demo still has 4 keys"),
    ] {
        let (shown, status) = shell.at_terminal(line, &[]);
        assert_eq!(status.code(), Some(1), "{line}: {shown}");
        assert!(shown.replace('\n', " ").contains(part), "{line}: {shown}");
    }
    let refusals = [
        "partner delete acm",
        "project delete weeb",
        "realm delete demoo",
    ];
    for (line, near) in refusals.into_iter().zip(["acme", "web", "demo"]) {
        let (shown, _) = shell.at_terminal(line, &[]);
        assert!(shown.contains(&format!("did you mean {near}?")), "{shown}");
    }
    let refused = shell
        .at_terminal("realm delete demo --if-revision 1", &[])
        .0;
    assert!(refused.contains("and not 1"), "{refused}");
    assert_eq!(revision(&shell), before);

    shell.says("keys revoke-all --realm demo --reason over --yes", "", 0);
    for (line, question) in [
        (
            "project delete web",
            "Delete project web of demo with 1 revoked or expired key? [y/N]",
        ),
        (
            "partner delete acme",
            "Delete partner acme of demo with its projects and 4 revoked or expired keys?",
        ),
        (
            "realm delete demo",
            "Delete realm demo with its partners, its projects? [y/N]",
        ),
    ] {
        let (shown, status) = shell.at_terminal(line, &[("[y/N]", "y\n")]);
        assert!(shown.starts_with(question), "{shown}");
        assert!(status.success() && shown.contains("Deleted "), "{shown}");
    }
}

/// Seen red with the source of the key alone.
#[test]
fn a_key_that_revokes_itself_is_named() {
    let (_test_store, mut shell) = world();
    let key = issue(&shell, "acme", "--name ci");
    let disabled = issue(&shell, "acme", "--name off");
    shell.says("keys disable off --yes", "", 0);
    shell.operator.clone_from(&key.plain_key);
    let line = "keys revoke-self --reason found";
    let (shown, _) = shell.at_terminal(line, &[("[y/N]", "n\n")]);
    let question = format!("Revoke \"ci\" (acme, live …{})? It was ", key.end);
    assert!(
        shown.starts_with(&question) && shown.contains("from CLAVIGER_KEY"),
        "{shown}"
    );
    let (shown, status) = shell.at_terminal(line, &[("[y/N]", "y\n")]);
    assert!(
        status.success() && shown.contains("Revoked \"ci\" (acme, live …"),
        "{shown}"
    );
    // Its holder may not read it, but may revoke it.
    shell.operator = disabled.plain_key;
    let (shown, status) = shell.at_terminal(line, &[("[y/N]", "y\n")]);
    assert!(
        shown.starts_with("Revoke the key from CLAVIGER_KEY permanently? [y/N]"),
        "{shown}"
    );
    assert!(status.success(), "{shown}");
}
