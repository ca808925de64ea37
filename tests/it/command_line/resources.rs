//! Realms, partners and projects: created, updated, applied from files, and deleted.

use super::{shell, shell_with_demo};

/// Seen red with `create` as `put`.
#[test]
fn create_and_update_say_what_they_did_and_refuse_the_other_case() {
    let (_test_store, shell) = shell();
    let realm = "realm create demo --prefix demo --environment production=live --scope read";
    let said = shell.says(realm, "", 0);
    assert!(said == "Created realm demo.\n", "{said}");
    for (create, update, same, changed) in [
        (
            realm,
            "realm update demo --max-lifetime 90d --scope read",
            "realm update demo --max-lifetime 90d",
            "Changed realm demo (max lifetime).",
        ),
        (
            "partner create acme",
            "partner update acme --display-name Acme",
            "partner put acme",
            "Changed partner acme (display name).",
        ),
        (
            "project create web --partner acme",
            "project update web --display-name Shop",
            "project put web --partner acme --display-name Shop",
            "Changed project web (display name).",
        ),
    ] {
        let noun = create.split(' ').next().unwrap();
        if noun != "realm" {
            let missing = shell.says(update, "", 1);
            assert!(
                missing.contains(&format!("claviger {noun} create")),
                "{missing}"
            );
            let said = shell.says(create, "", 0);
            assert!(said.starts_with(&format!("Created {noun} ")), "{said}");
        }
        let before = shell.json(&format!("{noun} list"), "", 0);
        let exists = shell.says(create, "", 1);
        assert!(
            exists.contains(&format!("claviger {noun} update")),
            "{exists}"
        );
        assert_eq!(shell.json(&format!("{noun} list"), "", 0), before);
        let said = shell.says(update, "", 0);
        assert!(said.starts_with(changed), "{said}");
        for line in [update, same] {
            let said = shell.says(line, "", 0);
            assert!(said.contains("nothing was changed"), "{said}");
        }
    }
    let missing = shell.says("realm update other --scope read", "", 1);
    assert!(missing.contains("there is no realm other"), "{missing}");
    let incomplete = shell.says("realm create other --scope read", "", 2);
    assert!(incomplete.contains("--prefix"), "{incomplete}");
    // The project of another partner is a project of this realm.
    shell.says("partner create globex", "", 0);
    let taken = shell.says("project create web --partner globex", "", 1);
    assert!(taken.contains("exists already"), "{taken}");
    let project = shell.says("project get web", "", 0);
    assert!(
        project.contains("Shop") && project.contains("acme"),
        "{project}"
    );
    let missing = shell.says("project get nothing", "", 1);
    assert!(missing.contains("there is no project nothing"), "{missing}");
}

/// Seen red without the field.
#[test]
fn create_and_update_say_what_they_did_in_json_too() {
    let (_test_store, shell) = shell();
    for (line, outcome) in [
        (
            "realm create demo --prefix demo --environment production=live",
            "created",
        ),
        ("realm update demo --max-lifetime 90d", "changed"),
        ("realm update demo --max-lifetime 90d", "unchanged"),
        ("partner create acme", "created"),
        ("partner update acme --display-name Acme", "changed"),
        ("partner update acme --display-name Acme", "unchanged"),
        ("project create web --partner acme", "created"),
        ("project update web --display-name Shop", "changed"),
        ("project update web --display-name Shop", "unchanged"),
    ] {
        let answer = shell.json(line, "", 0);
        assert_eq!(answer["outcome"], outcome, "{line}");
        let noun = line.split(' ').next().unwrap();
        assert!(answer[noun]["revision"].is_number(), "{answer}");
        if outcome != "unchanged" {
            continue;
        }
        let said = shell.says(&format!("{line} --field outcome"), "", 0);
        assert_eq!(said, "unchanged\n");
        let said = shell.says(&format!("{line} --field {noun}.id"), "", 0);
        assert!(["demo\n", "acme\n", "web\n"].contains(&&*said), "{said}");
    }
}

/// Seen red with the server's `max_cache` in the file.
#[test]
fn a_realm_file_that_was_got_is_small_and_changes_nothing() {
    let (test_store, shell) = shell();
    let file = test_store.data().join("demo.toml");
    let file = file.to_str().unwrap();
    let whole = r#"
        id = "demo"
        prefix = "demo"
        levels = ["KEY_LEVEL_PARTNER"]
        unscoped_keys = "full_access"
        max_lifetime = "0s"
        environments = [{ name = "production", tag = "live" }]
        scopes = [{ name = "read" }, { name = "write", implies = ["read"] }]
        [credentials]
        sources = [{ header = { name = "authorization", scheme = "Bearer" } }]
        [[routes]]
        methods = ["POST"]
        path = "/v1/items"
        scopes = ["write"]
        [[routes]]
        path = "/health"
        public = true
    "#;
    std::fs::write(file, whole).unwrap();
    let apply = format!("realm apply -f {file}");
    let shown = shell.says(&format!("{apply} --dry-run"), "", 0);
    assert!(shown.contains("create realm demo"), "{shown}");
    shell.says("realm get demo", "", 1);
    let said = shell.says(&apply, "", 0);
    assert!(said.starts_with("Created realm demo."), "{said}");

    let text = shell.says("realm get demo --toml", "", 0);
    for line in ["levels = [\"partner\"]", "unscoped_keys = \"full-access\""] {
        assert!(text.lines().any(|is| is == line), "{line}:\n{text}");
    }
    for default in [
        "max_",
        "trailing_slash",
        "encoded",
        "UNSPECIFIED",
        "revision",
    ] {
        assert!(!text.contains(default), "{default}:\n{text}");
    }
    std::fs::write(file, &text).unwrap();
    let before = shell.json("realm get demo", "", 0);
    let said = shell.says(&apply, "", 0);
    assert!(said.starts_with("Nothing to change."), "{said}");
    assert_eq!(shell.json("realm get demo", "", 0), before);

    std::fs::write(file, format!("max_cache = \"30s\"\n{text}")).unwrap();
    let shown = shell.says(&format!("{apply} --dry-run"), "", 0);
    assert!(
        shown.contains("+ max_cache = \"30s\"") && shown.contains("1 change."),
        "{shown}"
    );
    assert_eq!(shell.json("realm get demo", "", 0), before);
    let said = shell.says(&apply, "", 0);
    assert!(said.starts_with("Changed realm demo."), "{said}");

    let shown = shell.says("realm get demo", "", 0);
    for part in ["/v1/items", "POST", "write", "/health", "no key"] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
}

/// Seen red without the key of the gateway.
#[test]
fn a_realm_is_deleted_with_its_keys_only_if_that_is_said() {
    let (_test_store, shell) = shell_with_demo();
    let issue = "keys issue --partner acme --level partner --scope read";
    let keys: Vec<_> = (0..3).map(|_| shell.says(issue, "", 0)).collect();
    // A gateway's key, which is in another realm.
    let gateway = "keys issue --realm claviger --partner demo --scope verify";
    shell.says(gateway, "", 0);
    let refusal = shell.says("realm delete demo --yes", "", 1);
    assert!(refusal.contains("keys"), "{refusal}");
    let refusal = shell.says("realm delete demo --with-keys", "", 2);
    assert!(refusal.contains("--yes"), "{refusal}");
    for key in &keys {
        shell.says("verify --realm demo --scope read", key, 0);
    }
    let deleted = shell.run("realm delete demo --with-keys --yes", "");
    let told = String::from_utf8(deleted.stderr).unwrap();
    assert!(
        deleted.status.success() && told.contains("4 keys"),
        "{told}"
    );
    shell.says("realm get demo", "", 1);
    shell.says("verify --realm demo --scope read", &keys[0], 2);
    let events = shell.says("events --all-realms --kind keys.revoked", "", 0);
    assert!(events.contains("the realm is deleted"), "{events}");
}
