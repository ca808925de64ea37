//! Nobody locks themselves out without saying so.

use super::{issue, revision, world};

/// Seen red without `LockOutFlag::check` in each of the commands.
#[test]
fn the_callers_own_key_is_kept() {
    let (_test_store, mut shell) = world();
    let own = shell.json("keys self", "", 0)["key"]["id"].clone();
    let own = own.as_str().unwrap();
    let before = revision(&shell);
    for command in ["revoke", "disable", "delete"] {
        let refusal = shell.says(&format!("keys {command} {own} --yes"), "", 1);
        let expected = "\"first operator\" (claviger, main …";
        assert!(refusal.contains(expected), "{refusal}");
        assert!(
            refusal.contains("is the key that this command calls with, from CLAVIGER_KEY"),
            "{refusal}"
        );
        assert!(refusal.contains("--even-if-it-locks-me-out"), "{refusal}");
        let refusal = shell.json(&format!("keys {command} {own} --yes"), "", 1);
        assert_eq!(refusal["error"]["reason"], "LOCKS_OUT_CALLER");
        let (shown, status) = shell.at_terminal(&format!("keys {command} {own}"), &[]);
        assert_eq!(status.code(), Some(1), "it asks nothing: {shown}");
    }
    assert_eq!(revision(&shell), before);

    // Another operator may end it.
    let issue_operator =
        "keys issue --realm claviger --scope operator --name second --output key-only";
    let second = shell.says(issue_operator, "", 0);
    let first = std::mem::replace(&mut shell.operator, second.trim_end().to_owned());
    shell.says(&format!("keys disable {own} --yes"), "", 0);
    shell.says(&format!("keys enable {own}"), "", 0);
    shell.operator = first;
    let line = format!("keys revoke {own} --yes --even-if-it-locks-me-out");
    assert!(
        shell
            .says(&line, "", 0)
            .starts_with("Revoked \"first operator\"")
    );
    shell.says("realm list", "", 1);
}

#[test]
fn a_partners_administrator_keeps_its_own_key() {
    let (_test_store, mut shell) = world();
    let admin = issue(&shell, "acme", "--name admin --scope admin");
    shell.operator.clone_from(&admin.plain_key);
    let refusal = shell.says("keys revoke admin --yes", "", 1);
    assert!(refusal.contains("\"admin\" (acme, live …"), "{refusal}");
    shell.says("keys revoke admin --yes --even-if-it-locks-me-out", "", 0);
    shell.says("keys self", "", 1);
}

/// Seen red without the note.
#[test]
fn who_rotates_the_own_key_is_told_to_replace_it() {
    let (_test_store, shell) = world();
    let own = shell.json("keys self", "", 0)["key"]["id"].clone();
    let own = own.as_str().unwrap();
    // It is in use: the command itself uses it.
    let refusal = shell.says(&format!("keys rotate {own}"), "", 2);
    assert!(
        refusal.contains("or let the old secret work for a while with --overlap 24h"),
        "{refusal}"
    );
    let rotated = shell.run(&format!("keys rotate {own} --overlap 1h"), "");
    let note = String::from_utf8(rotated.stderr).unwrap();
    assert!(
        note.contains("\nnote: CLAVIGER_KEY holds the old API key now, which works until 2"),
        "{note}"
    );
    let other = issue(&shell, "acme", "");
    let rotated = shell.run(&format!("keys rotate {}", other.id), "");
    let told = String::from_utf8(rotated.stderr).unwrap();
    assert!(
        rotated.status.success() && !told.contains("note:"),
        "{told}"
    );
}

/// Seen red without the checks before the keys are counted.
#[test]
fn a_realm_is_not_deleted_with_the_callers_own_key() {
    let (_test_store, mut shell) = world();
    issue(&shell, "acme", "");
    let before = revision(&shell);
    let built_in = shell.says("realm delete claviger --with-keys --yes", "", 1);
    assert!(
        built_in.contains("the realm claviger is built in"),
        "{built_in}"
    );
    assert_eq!(revision(&shell), before);
    let manager = "keys issue --realm claviger --partner demo --scope manage --output key-only";
    let manager = shell.says(manager, "", 0).trim_end().to_owned();
    let admin = issue(&shell, "acme", "--name admin --scope admin");
    let before = revision(&shell);
    let operator = shell.operator.clone();
    for own in [manager, admin.plain_key] {
        shell.operator = own;
        let refusal = shell.json("realm delete demo --with-keys --yes", "", 1);
        let message = refusal["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("is the key that this command calls with"),
            "{message}"
        );
        assert_eq!(refusal["error"]["reason"], "LOCKS_OUT_CALLER");
    }
    shell.operator = operator;
    assert_eq!(revision(&shell), before);
    shell.says("realm delete demo --with-keys --yes", "", 0);
}
