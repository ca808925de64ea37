//! What names a key.

use super::{issue, revision, state, world};
use crate::fixtures::claviger;

const EXTERNAL_ID: &str = "21fd1a8d-88d5-4295-b792-5b2113138057";

/// Imports API keys of another system, with these names.
fn import(shell: &crate::fixtures::Shell, keys: &[(&str, &str)]) {
    let rows: Vec<_> = keys
        .iter()
        .map(|(plain_key, name)| format!("{plain_key},{name}"))
        .collect();
    let csv = format!("plain_key,name\n{}\n", rows.join("\n"));
    let line = "keys import - --format csv --realm demo --partner acme --level partner --environment production";
    shell.says(line, &csv, 0);
}

/// Seen red without each of the three look-ups, without the tag in `is_hint`, and with the hint of the newest secret alone.
#[test]
fn a_key_is_named_by_its_id_hint_name_or_external_id() {
    let (_test_store, shell) = world();
    let key = issue(
        &shell,
        "acme",
        &format!("--name ci --external-id {EXTERNAL_ID}"),
    );
    issue(&shell, "acme", "--name ci-2");
    let end = &key.end;
    for name in [
        key.id.clone(),
        "ci".to_owned(),
        EXTERNAL_ID.to_owned(),
        end.clone(),
        format!("…{end}"),
        format!("...{end}"),
        format!("demo_live_…{end}"),
        format!("live_…{end}"),
    ] {
        for realm in ["", " --realm demo"] {
            let shown = shell.json(&format!("keys get {name}{realm}"), "", 0);
            assert_eq!(shown["key"]["id"], key.id.as_str(), "{name}");
        }
    }
    // More than a hint shows could not be compared: it may be the end of another key.
    let more = format!("keys get …xx{end}");
    assert!(shell.says(&more, "", 1).contains("no key"), "{more}");
    let tagged = format!("live …{end}");
    let (shown, status) = shell.words_at_terminal(&["keys", "get", &tagged, "--json"], &[]);
    assert!(status.success() && shown.contains(&key.id), "{shown}");

    for line in ["scopes ci", "usage ci", "update ci --label a=b"] {
        shell.says(&format!("keys {line}"), "", 0);
    }
    shell.says("keys disable ci --yes", "", 0);
    assert_eq!(state(&shell, &key.id), "disabled");
    shell.says("keys enable ci", "", 0);
    let events = shell.json("events --key-id ci --kind key.enabled", "", 0);
    assert_eq!(events["events"][0]["key_id"], key.id.as_str());
    // The old secret of a rotation names the key, too.
    let rotated = shell.run("keys rotate ci --overlap 1h", "");
    let rotated = String::from_utf8(rotated.stderr).unwrap();
    assert!(
        rotated.starts_with("Rotated \"ci\" (acme, live …"),
        "{rotated}"
    );
    let shown = shell.json(&format!("keys get …{end}"), "", 0);
    assert_eq!(shown["key"]["id"], key.id.as_str());
    shell.says("keys end-rotation ci --keep new --yes", "", 0);
    shell.says("keys revoke ci --yes", "", 0);
    shell.says("keys delete ci --yes", "", 0);
    shell.says("keys get ci", "", 1);
}

/// Seen red without the realm `claviger` in `KeyName::administrator`, with it twice, and without `me`.
#[test]
fn an_administrator_is_named_like_a_key() {
    let (_test_store, shell) = world();
    let key = issue(&shell, "acme", "");
    let operators = shell.json("keys self", "", 0)["key"]["id"].clone();
    let name = [
        "events",
        "--actor",
        "first operator",
        "--key-id",
        &key.id,
        "--json",
    ];
    let (shown, _) = shell.words_at_terminal(&name, &[]);
    assert!(shown.contains("key.issued"), "{shown}");
    for line in [
        "keys list --created-by me",
        "keys list --all-realms --created-by me --partner acme",
        &format!("keys list --created-by {}", operators.as_str().unwrap()),
    ] {
        let listed = shell.json(line, "", 0);
        assert_eq!(listed["keys"][0]["id"], key.id.as_str(), "{line}");
    }
    let listed = shell.json("events --actor me --kind key.issued", "", 0);
    assert_eq!(listed["events"][0]["key_id"], key.id.as_str());
    // The realm of the events may be that of the administrators.
    let name = ["events", "--actor", "first operator", "--realm", "claviger"];
    let (shown, code) = shell.words_at_terminal(&name, &[]);
    assert!(code.success(), "{shown}");
    let none = shell.says("keys list --created-by nobody", "", 1);
    assert!(none.contains("no key \"nobody\" in demo"), "{none}");
}

/// Seen red with the first key taken, and with the living one taken also by `revoke`.
#[test]
fn a_name_of_several_keys_chooses_none_of_them() {
    let (_test_store, shell) = world();
    let [first, second] = ["acme", "globex"].map(|partner| issue(&shell, partner, "--name ci"));
    let refusal = shell.says("keys get ci", "", 2);
    let mut lines = refusal.lines();
    assert_eq!(lines.next(), Some("error: \"ci\" names 2 keys of demo"));
    assert!(
        lines.next().unwrap().contains("NAME  OWNER   KEY"),
        "{refusal}"
    );
    for (partner, key) in [("globex", &second), ("acme", &first)] {
        let row = lines.next().unwrap();
        let hint = format!("live …{}", key.end);
        for part in ["ci", partner, hint.as_str(), "active"] {
            assert!(row.contains(part), "{refusal}");
        }
    }
    let hint = format!(
        "hint: name one of them by its hint, such as …{}",
        second.end
    );
    assert_eq!(lines.next(), Some(hint.as_str()));
    assert!(
        refusal.lines().all(|line| line.chars().count() <= 80),
        "{refusal}"
    );
    let refusal = shell.json("keys get ci", "", 2);
    assert_eq!(refusal["error"]["reason"], "AMBIGUOUS_KEY");

    let before = revision(&shell);
    for line in [
        "revoke ci --yes",
        "disable ci --yes",
        "delete ci --yes",
        "rotate ci --yes",
        "end-rotation ci --keep new --yes",
        "update ci --label a=b",
        "rotate ci --overlap 1h --yes",
        "enable ci",
        "revoke-all --created-by ci --reason x --yes",
    ] {
        shell.says(&format!("keys {line}"), "", 2);
    }
    assert_eq!(revision(&shell), before);

    // A revoked key stays out of the way of what can be undone, and of nothing else.
    shell.says(&format!("keys revoke {} --yes", first.id), "", 0);
    let shown = shell.json("keys get ci", "", 0);
    assert_eq!(shown["key"]["id"], second.id.as_str());
    shell.says("keys update ci --label a=b", "", 2);
    for line in ["revoke", "disable", "delete", "rotate"] {
        let refusal = shell.says(&format!("keys {line} ci --yes"), "", 2);
        assert!(refusal.contains("names 2 keys"), "{refusal}");
    }
    shell.says(&format!("keys revoke {} --yes", second.id), "", 0);
    shell.says("keys get ci", "", 2);

    for _ in 0..12 {
        issue(&shell, "acme", "--name many");
    }
    let refusal = shell.says("keys get many", "", 2);
    assert!(refusal.contains("names 12 keys of demo"), "{refusal}");
    assert!(refusal.contains("\n  and 2 more\n"), "{refusal}");
    assert_eq!(refusal.matches("many  acme").count(), 10, "{refusal}");
}

/// Seen red with the candidates without their ids, and with names that count for a hint that is written as one.
#[test]
fn equal_hints_and_names_that_look_like_hints_choose_no_key() {
    let (_test_store, shell) = world();
    let first = "TtgGcQFqs3fzROFoop8uHG4pS2LYhoqn1rLbabcd";
    let second = "KtgGcQFqs3fzROFoop8uHG4pS2LYhoqn1rLbabcd";
    let other = "MtgGcQFqs3fzROFoop8uHG4pS2LYhoqn1rLbwxyz";
    import(&shell, &[(first, "one"), (second, "two"), (other, "abcd")]);
    let refusal = shell.says("keys get …abcd", "", 2);
    assert!(refusal.contains("names 2 keys"), "{refusal}");
    assert!(
        refusal.ends_with("hint: name one of them by its id\n"),
        "{refusal}"
    );
    for name in ["one", "two"] {
        let shown = shell.json(&format!("keys get {name}"), "", 0);
        let id = shown["key"]["id"].as_str().unwrap();
        assert!(refusal.contains(id), "{refusal}");
    }
    // Without the ellipsis it may be a name as well.
    let refusal = shell.says("keys revoke abcd --yes", "", 2);
    assert!(refusal.contains("names 3 keys"), "{refusal}");
    // A name that looks like the hint of another key.
    let third = issue(&shell, "globex", "--name …wxyz");
    let shown = shell.json("keys get …wxyz", "", 0);
    assert_eq!(shown["key"]["name"], "abcd");
    shell.says("keys revoke …wxyz --yes", "", 0);
    assert_eq!(state(&shell, &third.id), "active");
    assert_eq!(state(&shell, "…wxyz"), "revoked");
}

/// Seen red with names that count for an id.
#[test]
fn a_name_that_looks_like_an_id_chooses_no_key() {
    let (_test_store, shell) = world();
    let victim = issue(&shell, "acme", "--name victim");
    let attacker = issue(&shell, "globex", &format!("--name {}", victim.id));
    shell.says(&format!("keys revoke {} --yes", victim.id), "", 0);
    assert_eq!(state(&shell, &attacker.id), "active");
    shell.says(&format!("keys delete {} --yes", victim.id), "", 0);
    for command in ["get ID", "revoke ID --yes", "update ID --scope admin"] {
        let line = format!("keys {}", command.replace("ID", &victim.id));
        let refusal = shell.says(&line, "", 1);
        let hint = format!(
            "hint: a key has it as its name; name that key by its hint: live …{}",
            attacker.end
        );
        assert!(refusal.contains(&hint), "{refusal}");
    }
    assert_eq!(state(&shell, &attacker.id), "active");
    // An id of another realm than the one that is named.
    shell.says(
        "realm put other --prefix other --environment production=live",
        "",
        0,
    );
    for line in ["get", "revoke --yes", "update --label a=b"] {
        let line = format!("keys {line} {} --realm other", attacker.id);
        let refusal = shell.says(&line, "", 1);
        assert!(
            refusal.contains("of realm demo, and not of other"),
            "{refusal}"
        );
    }
    shell.says(&format!("keys get {}", attacker.id), "", 0);
    let refusal = shell.says("keys get victim", "", 2);
    assert!(refusal.contains("which realm?"), "{refusal}");
}

/// Seen red without `KeyName::check`, and with the text in the failure.
#[test]
fn an_api_key_in_the_place_of_a_key_is_neither_taken_nor_shown() {
    let (_test_store, shell) = world();
    let key = issue(&shell, "acme", "--name ci");
    let foreign = "TtgGcQFq.s3fzROFoop8uHG4pS2LYhoqn1rLb0001";
    for plain_key in [key.plain_key.as_str(), foreign] {
        for line in [
            "keys get KEY",
            "keys revoke KEY --yes",
            "keys rotate KEY --json",
            "keys usage KEY",
            "events --key-id KEY",
            "events --actor KEY",
            "keys list --created-by KEY",
        ] {
            let output = shell.run(&line.replace("KEY", plain_key), "");
            let complaint = String::from_utf8(output.stderr).unwrap();
            let code = if plain_key == foreign { 1 } else { 2 };
            assert_eq!(output.status.code(), Some(code), "{line}: {complaint}");
            assert!(complaint.contains("claviger keys find"), "{complaint}");
            assert!(!complaint.contains(&plain_key[10..20]), "{complaint}");
            assert!(output.stdout.is_empty());
        }
    }
    // Before anything is sent.
    let output = claviger(&["keys", "get", &key.plain_key, "--endpoint", "127.0.0.1:1"])
        .env("CLAVIGER_KEY", &shell.operator)
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) || complaint.contains("keys find"),
        "{complaint}"
    );

    let line = format!("events --key {}", key.id);
    let refusal = shell.says(&line, "", 2);
    let expected = "error: --key: that is a key's id, not an API key; for events use --key-id\n";
    assert!(refusal.starts_with(expected), "{refusal}");
    shell.says("keys get", "", 2);
    let words = ["keys", "revoke", "", "--yes"];
    let (refusal, status) = shell.words_at_terminal(&words, &[]);
    assert_eq!(status.code(), Some(2), "{refusal}");
}

/// Seen red without the nearest name.
#[test]
fn a_name_that_no_key_has_leads_to_the_nearest_one() {
    let (_test_store, shell) = world();
    issue(&shell, "acme", "--name nightly-export-to-the-warehouse");
    let refusal = shell.says("keys get nightly-export-to-teh-warehouse", "", 1);
    assert!(
        refusal.contains("did you mean \"nightly-export-to-the-warehouse\"?"),
        "{refusal}"
    );
    let refusal = shell.json("keys get ci", "", 1);
    assert_eq!(refusal["error"]["code"], "NOT_FOUND");
    let message = refusal["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("no key \"ci\" in demo"), "{message}");
}

#[test]
fn a_caller_sees_only_the_names_that_it_may_see() {
    let (_test_store, mut shell) = world();
    let own = issue(&shell, "acme", "--name ci");
    issue(&shell, "globex", "--name ci");
    issue(&shell, "globex", "--name theirs");
    let admin = issue(&shell, "acme", "--name admin --scope admin");
    let gateway = "keys issue --realm claviger --partner demo --scope verify --output key-only";
    let gateway = shell.says(gateway, "", 0);

    shell.operator = admin.plain_key;
    let shown = shell.json("keys get ci", "", 0);
    assert_eq!(shown["key"]["id"], own.id.as_str());
    let refusal = shell.says("keys get theirs", "", 1);
    assert!(!refusal.contains("did you mean"), "{refusal}");
    shell.says("keys revoke ci --yes", "", 0);
    // Names that it may not look up are the server's to refuse.
    let listed = shell.says("keys list --project wb", "", 0);
    assert!(listed.contains("There are no such keys."), "{listed}");

    gateway.trim_end().clone_into(&mut shell.operator);
    for line in [
        "keys get ci",
        "keys revoke …abcd --yes",
        "events --key-id ci",
    ] {
        let refusal = shell.says(line, "", 1);
        assert!(
            refusal.contains("the key from CLAVIGER_KEY may not"),
            "{refusal}"
        );
    }
}

/// Seen red with one page of ids.
#[test]
fn a_script_gets_the_ids_alone() {
    let (_test_store, shell) = world();
    let ids: Vec<_> = (0..3).map(|_| issue(&shell, "acme", "").id).collect();
    let listed = shell.says("keys list -q --page-size 1", "", 0);
    let newest_first: Vec<_> = ids.iter().rev().map(String::as_str).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), newest_first);
    assert_eq!(shell.says("keys list -q --state revoked", "", 0), "");
    let found = shell.run("keys list --quiet --fail-if-any", "");
    assert_eq!(found.status.code(), Some(5));
    shell.says("keys list -q --json", "", 2);
    shell.says("--json keys list -q", "", 2);
}

/// Seen red with the name in the sentence and in the list.
#[test]
fn a_name_of_several_keys_that_may_be_an_api_key_is_not_repeated() {
    const NAME: &str = "nightly-export-of-release-2026";
    let (_test_store, shell) = world();
    let first = issue(&shell, "acme", &format!("--name {NAME}"));
    issue(&shell, "globex", &format!("--name {NAME}"));
    let refusal = shell.says(&format!("keys get {NAME}"), "", 2);
    let expected = "error: 2 keys of demo have this name or external id\n";
    assert!(refusal.starts_with(expected), "{refusal}");
    assert!(
        refusal.contains(&format!("live …{}", first.end)),
        "{refusal}"
    );
    assert!(!refusal.contains("nightly"), "{refusal}");
}

/// Seen red with the key that has the external id.
#[test]
fn the_id_of_a_deleted_key_never_names_another_key() {
    let (_test_store, shell) = world();
    let gone = issue(&shell, "acme", "").id;
    shell.says(&format!("keys revoke {gone} --yes"), "", 0);
    shell.says(&format!("keys delete {gone} --yes"), "", 0);
    let other = issue(&shell, "acme", &format!("--external-id {gone}"));
    for line in ["get", "disable --yes", "enable", "delete --yes"] {
        let refusal = shell.says(&format!("keys {line} {gone}"), "", 1);
        let hint = format!(
            "hint: a key has it as its external id; name that key by its hint: live …{}",
            other.end
        );
        assert!(refusal.contains(&hint), "{line}: {refusal}");
    }
    assert_eq!(state(&shell, &other.id), "active");
}
