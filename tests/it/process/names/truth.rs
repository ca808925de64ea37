//! What commands say is so: the state of a key, a change that changed nothing, and names that do not exist.

use super::{issue, revision, world};
use crate::fixtures::Shell;

/// The state of a key in the list.
fn listed_state(shell: &Shell, id: &str) -> String {
    let listed = shell.says("keys list --realm demo", "", 0);
    let row = listed.lines().find(|line| line.contains(id)).unwrap();
    row.split_whitespace().nth(6).unwrap().to_owned()
}

/// Seen red without the field in the server's answer, and with the state of the key alone.
#[test]
fn a_key_of_a_suspended_partner_is_not_shown_as_active() {
    let (_test_store, shell) = world();
    let key = issue(&shell, "globex", "--name ci");
    let other = issue(&shell, "acme", "--name other");
    for (command, listed, shown, field) in [
        (
            "suspend",
            "suspended",
            "active, but partner globex is suspended",
            true,
        ),
        ("restore", "active", "active", false),
    ] {
        let done = shell.says(
            &format!(
                "partner {command} globex --realm demo {}",
                if field { "--yes" } else { "" }
            ),
            "",
            0,
        );
        let verb = if field { "Suspended" } else { "Restored" };
        assert_eq!(done, format!("{verb} partner globex of demo.\n"));
        assert_eq!(listed_state(&shell, &key.id), listed);
        assert_eq!(listed_state(&shell, &other.id), "active");
        let facts = shell.says("keys get ci", "", 0);
        assert!(
            facts.contains(&format!("state        {shown}\n")),
            "{facts}"
        );
        let json = shell.json("keys get ci", "", 0);
        assert_eq!(json["key"]["partner_suspended"], field);
        assert_eq!(json["key"]["state"], "KEY_STATE_ACTIVE");
        // The server selects by the key's own state, as docs/terminal.md says.
        let active = shell.says("keys list -q --state active", "", 0);
        assert!(active.contains(&key.id), "{active}");
        let found = shell.json(&format!("keys find --hint {}", key.end), "", 0);
        assert_eq!(found["keys"][0]["partner_suspended"], field);
    }
    shell.says("keys disable ci --yes", "", 0);
    shell.says("partner suspend globex --yes", "", 0);
    assert_eq!(listed_state(&shell, &key.id), "disabled");
    let facts = shell.says("keys get ci", "", 0);
    assert!(
        facts.contains("disabled, and partner globex is suspended"),
        "{facts}"
    );
}

/// Seen red with the done line of a change for each of them.
#[test]
fn a_change_that_changes_nothing_says_so() {
    let (_test_store, shell) = world();
    let key = issue(&shell, "acme", "--name svc-7");
    let title = format!("\"svc-7\" (acme, live …{})", key.end);
    let twice = |line: &str, done: &str, again: &str| {
        assert_eq!(shell.says(line, "", 0), format!("{done}\n"), "{line}");
        let before = revision(&shell);
        let said = shell.says(line, "", 0);
        assert!(said.starts_with(again), "{said}");
        assert!(said.ends_with("; nothing was changed\n"), "{said}");
        assert_eq!(revision(&shell), before, "{line}");
        // The answer of the server stays what it was.
        assert_eq!(shell.json(line, "", 0)["revision"].as_u64(), Some(before));
    };
    twice(
        "keys disable svc-7 --yes",
        &format!("Disabled {title}."),
        &format!("{title}: already disabled"),
    );
    twice(
        "keys enable svc-7",
        &format!("Enabled {title}."),
        &format!("{title}: already enabled"),
    );
    twice(
        "partner suspend acme --yes",
        "Suspended partner acme of demo.",
        "partner acme of demo: already suspended",
    );
    twice(
        "partner restore acme",
        "Restored partner acme of demo.",
        "partner acme of demo: not suspended",
    );
    twice(
        "keys revoke svc-7 --yes --reason leaked",
        &format!("Revoked {title}."),
        &format!("{title}: already revoked 2"),
    );
    // The first reason stays, and is told.
    let said = shell.says("keys revoke svc-7 --yes --reason again", "", 0);
    assert!(
        said.contains("Z (reason: leaked); nothing was changed"),
        "{said}"
    );
    assert_eq!(
        shell.json("keys get svc-7", "", 0)["key"]["revoke_reason"],
        "leaked"
    );
    // A bulk revocation is told like any other.
    issue(&shell, "acme", "--name bulk");
    shell.says("keys revoke-all --realm demo --reason over --yes", "", 0);
    let said = shell.says("keys revoke bulk --yes --reason again", "", 0);
    assert!(
        said.contains("already revoked") && said.contains("(reason: over)"),
        "{said}"
    );
    assert_eq!(
        shell.says("keys delete svc-7 --yes", "", 0),
        format!("Deleted {title}.\n")
    );
}

/// Seen red with each name left out of the check, and without the look at earlier events.
#[test]
fn a_filter_with_an_unknown_name_is_an_error_that_names_the_nearest() {
    let (_test_store, shell) = world();
    issue(&shell, "acme", "");
    let partner = "error: no partner \"acm\" in demo; did you mean acme?\n";
    let environment =
        "error: no environment \"prod\" in demo; environments of demo: production, staging\n";
    let project = "error: no project \"weeb\" in demo; did you mean web?\n";
    let realm = "error: no realm \"dmeo\"; did you mean demo?\n";
    for command in [
        "keys list",
        "keys delete-all --dry-run",
        "keys revoke-all --reason x --yes",
        "keys revoke-all --reason x --state active --dry-run",
        "usage",
    ] {
        for (flag, refusal) in [
            ("--partner acm", partner),
            ("--environment prod", environment),
            ("--project weeb", project),
            ("--realm dmeo", realm),
        ] {
            assert_eq!(
                shell.says(&format!("{command} {flag}"), "", 1),
                refusal,
                "{command}"
            );
        }
    }
    assert_eq!(
        shell.says("keys list --all-realms --partner acm", "", 1),
        partner
    );
    let refusal = shell.json("keys list --partner acm", "", 1);
    assert_eq!(refusal["error"]["code"], "NOT_FOUND");
    let several = shell.says("keys list --partner acm --environment prod", "", 1);
    assert_eq!(
        several,
        "error: some names do not exist\n  --partner acm        no such partner in demo. Did you mean acme?\n  \
         --environment prod   demo has: production, staging\nhint: did you mean --partner acme --environment production?\n"
    );
    let of_another = shell.says("keys list --partner globex --project web", "", 1);
    assert_eq!(
        of_another,
        "error: project \"web\" belongs to partner acme\n"
    );
    // What exists and has no keys is no error.
    for flag in ["--partner globex", "--environment staging", "--project web"] {
        let said = shell.says(&format!("keys list {flag}"), "", 0);
        assert_eq!(said, "There are no such keys.\n");
    }
    assert_eq!(
        shell.says("events --realm demo --partner acm", "", 1),
        partner
    );
    assert_eq!(shell.says("events --realm dmeo", "", 1), realm);
    // The audit trail has what was deleted since.
    shell.says("partner delete globex --yes", "", 0);
    let past = shell.run("events --realm demo --partner globex --until 1h", "");
    assert_eq!(past.status.code(), Some(0));
    assert_eq!(past.stdout, b"There are no such events.\n");
    assert_eq!(
        past.stderr,
        b"note: demo has no partner globex any more; its earlier events are kept\n"
    );
    let past = shell.says("events --realm demo --partner globex", "", 0);
    assert!(past.contains("partner.deleted"), "{past}");
}

/// Seen red without `Names::refused`.
#[test]
fn a_key_that_cannot_be_issued_names_all_that_is_unknown() {
    let (_test_store, shell) = world();
    let refusal = shell.says(
        "keys issue --partner acm --environment prod --scope reed",
        "",
        1,
    );
    assert_eq!(
        refusal,
        "error: this key cannot be issued\n  --partner acm        no such partner in demo. Did you mean acme?\n  \
         --environment prod   demo has: production, staging\n  --scope reed         demo has: read, write, admin. Did you \
         mean read?\nhint: did you mean --partner acme --environment production --scope read?\n"
    );
    let refusal = shell.says(
        "keys issue --partner acme --level partner --environment prod",
        "",
        2,
    );
    assert!(
        refusal.contains("demo has: production, staging"),
        "{refusal}"
    );
    // Another refusal stays as it is.
    let line = "keys issue --partner acme --level partner --environment staging --allow-cidr x";
    let refusal = shell.says(line, "", 2);
    assert!(refusal.contains("--allow-cidr"), "{refusal}");
}

/// Seen red without the warning, and with one for realms without scopes.
#[test]
fn a_key_without_a_scope_is_warned_of() {
    let (_test_store, shell) = world();
    let line = "keys issue --partner acme --level partner --environment staging --output key-only";
    let told = shell.run(line, "");
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("warning: the key holds no scope"), "{told}");
    assert!(
        told.contains("the scopes of demo: read, write, admin"),
        "{told}"
    );
    let told = shell.run(&format!("{line} --scope read"), "");
    assert!(!String::from_utf8(told.stderr).unwrap().contains("warning"));
    shell.says(
        "realm put plain --prefix plain --environment production=live --level partner",
        "",
        0,
    );
    shell.says("partner put acme --realm plain", "", 0);
    let told = shell.run("keys issue --realm plain --partner acme", "");
    let warned = String::from_utf8(told.stderr).unwrap();
    assert!(
        told.status.success() && !warned.contains("warning"),
        "{warned}"
    );
}

/// Seen red without the states in the filter.
#[test]
fn what_expires_or_is_not_used_means_living_keys() {
    let (_test_store, shell) = world();
    let soon = issue(&shell, "acme", "--name soon --expires-in 1d");
    let never = issue(&shell, "acme", "--name never");
    for (flag, key) in [("--expires-within 7d", &soon), ("--never-expires", &never)] {
        let ids = |flags: &str| shell.says(&format!("keys list -q {flags}"), "", 0);
        assert_eq!(ids(flag).trim_end(), key.id);
        shell.says(&format!("keys disable {} --yes", key.id), "", 0);
        assert_eq!(ids(flag).trim_end(), key.id, "it can be enabled again");
        shell.says(&format!("keys revoke {} --yes", key.id), "", 0);
        assert_eq!(ids(flag), "");
        assert_eq!(ids(&format!("{flag} --state revoked")).trim_end(), key.id);
    }
}
