//! `realm put`, `partner put` and `project put` with flags: what a flag does not name stays as it was.

use std::sync::Arc;
use std::thread;

use serde_json::Value;

use crate::fixtures::{Engine, Program, Shell, TestStore, forward_auth};

const REALM_FILE: &str = r#"
id = "t"
prefix = "tkey"
max_cache = "5s"
max_lifetime = "90d"

[[environments]]
name = "production"
tag = "live"

[[scopes]]
name = "read"
description = "Reads everything"

[[scopes]]
name = "write"
implies = ["read"]
description = "Changes everything"

[[credentials.sources]]
header = { name = "authorization", scheme = "Bearer" }

[[routes]]
path = "/v1/**"
scopes = ["read"]

[[denials]]
denial_class = "unauthenticated"
body = "no"
"#;

fn shell(test_store: &Arc<TestStore>, flags: &[&str]) -> Shell {
    let program = Program::serve(test_store, flags);
    let operator = program.operator();
    Shell { program, operator }
}

/// A shell, and a server with the realm of the file.
fn shell_with_realm(test_store: &Arc<TestStore>) -> Shell {
    let shell = shell(test_store, &[]);
    shell.says("realm put --file -", REALM_FILE, 0);
    shell
}

/// A realm as `realm get` shows it, without its revision.
fn realm(shell: &Shell) -> Value {
    let mut realm = shell.json("realm get t", "", 0)["realm"].take();
    realm.as_object_mut().unwrap().remove("revision");
    realm
}

/// A partner or project as a put shows it, without its revision.
fn put(shell: &Shell, line: &str) -> Value {
    let noun = line.split(' ').next().unwrap();
    let mut put = shell.json(line, "", 0)[noun].take();
    put.as_object_mut().unwrap().remove("revision");
    put
}

/// Seen red with the values of the flags put alone, without what was read; and with new scopes that take no description from
/// the old ones.
#[tokio::test]
async fn a_scope_is_added_and_the_routes_stay_in_force() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell(&test_store, &["--gateway", "nginx"]);
    shell.says("realm put --file -", REALM_FILE, 0);
    shell.says("partner put acme --realm t", "", 0);
    let issue = "keys issue --realm t --partner acme --level partner --scope read";
    let issued = shell.json(issue, "", 0);
    let bearer = format!("Bearer {}", issued["plain_key"].as_str().unwrap());
    let status = async || {
        let headers = [("authorization", &*bearer)];
        let answer =
            forward_auth(&shell.program.http, &shell.operator, "t", "/v1/x", &headers).await;
        String::from_utf8_lossy(&answer)[9..12].to_owned()
    };
    assert_eq!(status().await, "200");

    let mut expected = realm(&shell);
    shell.says(
        "realm put t --prefix tkey --environment production=live --scope read --scope write=read --scope extra",
        "",
        0,
    );
    assert_eq!(status().await, "200");
    let extra =
        serde_json::json!({ "name": "extra", "implies": [], "description": "", "replaces": "" });
    expected["scopes"].as_array_mut().unwrap().push(extra);
    assert_eq!(realm(&shell), expected);
}

/// Seen red with the values of the flags put alone, without what was read.
#[test]
fn one_setting_of_a_realm_is_changed_and_no_other() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell_with_realm(&test_store);
    let mut expected = realm(&shell);
    let levels = ["KEY_LEVEL_PARTNER"];
    let environments = serde_json::json!([
        { "name": "production", "tag": "live" },
        { "name": "staging", "tag": "test" },
    ]);
    for (flags, field, value) in [
        ("--max-lifetime 30d", "max_lifetime", "2592000s".into()),
        ("--max-lifetime 0s", "max_lifetime", "0s".into()),
        ("--max-cache 0s", "max_cache", "0s".into()),
        ("--admin-scope write", "admin_scope", "write".into()),
        ("--admin-scope=", "admin_scope", "".into()),
        (
            "--unscoped-keys full-access",
            "unscoped_keys",
            "UNSCOPED_KEYS_FULL_ACCESS".into(),
        ),
        (
            "--unscoped-keys no-access",
            "unscoped_keys",
            "UNSCOPED_KEYS_NO_ACCESS".into(),
        ),
        ("--level partner", "levels", levels[..].into()),
        (
            "--environment production=live --environment staging=test",
            "environments",
            environments,
        ),
        ("--prefix tkeys", "prefix", "tkeys".into()),
    ] {
        shell.says(&format!("realm put t {flags}"), "", 0);
        expected[field] = value;
        assert_eq!(realm(&shell), expected, "{flags}");
    }
    // The route requires a scope, so the scopes cannot be removed before the route is.
    let complaint = shell.says("realm put t --no-scopes", "", 2);
    assert!(complaint.contains("realm.routes[0].scopes"), "{complaint}");
    assert_eq!(realm(&shell), expected);
    let file = shell.says("realm get t --toml", "", 0);
    shell.says(
        "realm put --file -",
        &file.replace("scopes = [\"read\"]", ""),
        0,
    );
    shell.says("realm put t --no-scopes", "", 0);
    expected["routes"][0]["scopes"] = Value::Array(Vec::new());
    expected["scopes"] = Value::Array(Vec::new());
    assert_eq!(realm(&shell), expected);
}

/// Seen red with the values of the flags put alone, without what was read.
#[test]
fn a_partner_and_a_project_keep_what_is_not_named() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell_with_realm(&test_store);
    let mut partner = put(&shell, "partner put acme --realm t --display-name Acme");
    shell.says("partner suspend acme --realm t --yes", "", 0);
    partner["suspended"] = true.into();
    assert_eq!(put(&shell, "partner put acme --realm t"), partner);
    partner["display_name"] = "Acme&Co".into();
    let renamed = put(&shell, "partner put acme --realm t --display-name Acme&Co");
    assert_eq!(renamed, partner);
    shell.says("partner restore acme --realm t", "", 0);
    partner["suspended"] = false.into();
    assert_eq!(put(&shell, "partner put acme --realm t"), partner);
    partner["display_name"] = "".into();
    let unnamed = put(&shell, "partner put acme --realm t --display-name=");
    assert_eq!(unnamed, partner);

    let mut project = put(
        &shell,
        "project put web --realm t --partner acme --display-name Web",
    );
    assert_eq!(
        put(&shell, "project put web --realm t --partner acme"),
        project
    );
    project["display_name"] = "".into();
    let unnamed = put(
        &shell,
        "project put web --realm t --partner acme --display-name=",
    );
    assert_eq!(unnamed, project);

    shell.says("partner put globex --realm t", "", 0);
    let complaint = shell.says("project put web --realm t --partner globex", "", 1);
    assert!(
        complaint.contains("belongs to another partner"),
        "{complaint}"
    );
}

/// Seen red with a file that only sets the prefix, the environments and the scopes, and keeps the rest; and without
/// `if_revision` in the put of a file.
#[test]
fn a_file_replaces_the_whole_realm() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell_with_realm(&test_store);
    let (head, _) = REALM_FILE.split_once("[[credentials").unwrap();
    let revision = shell.json("realm get t", "", 0)["realm"]["revision"].to_string();
    shell.says("realm put --file - --if-revision 1", head, 1);
    assert_eq!(realm(&shell)["routes"].as_array().unwrap().len(), 1);
    shell.says(
        &format!("realm put --file - --if-revision {revision}"),
        head,
        0,
    );
    let realm = realm(&shell);
    for field in ["routes", "denials"] {
        assert_eq!(realm[field], Value::Array(Vec::new()));
    }
    assert_eq!(realm["scopes"].as_array().unwrap().len(), 2);
}

/// Seen red without the comparison of `--if-revision` with the revision that was read; and without the look at which flags a new
/// realm has.
#[test]
fn an_edit_that_cannot_be_made_changes_nothing_and_says_why() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell_with_realm(&test_store);
    let complains = |line: &str, code: i32, parts: &[&str]| {
        let complaint = shell.says(line, "", code);
        for part in parts {
            assert!(complaint.contains(part), "{line}: {complaint}");
        }
    };
    let before = shell.json("realm get t", "", 0);
    let revision = before["realm"]["revision"].to_string();
    complains("realm put t", 2, &["nothing to change", "--scope"]);
    complains(
        "realm put u --scope read",
        1,
        &[
            "the realm does not exist",
            "--prefix PREFIX and --environment NAME=TAG",
        ],
    );
    complains("realm put u --prefix ukey", 1, &["--environment NAME=TAG"]);
    complains("realm put claviger --scope read", 1, &["built in"]);
    complains(
        "partner put t --realm claviger --display-name T",
        1,
        &["are the other realms"],
    );
    complains(
        "realm put t --max-cache 1s --if-revision 0",
        1,
        &[
            "the realm exists already, at revision ",
            &revision,
            "--if-revision",
        ],
    );
    complains(
        "realm put t --max-cache 1s --if-revision 1",
        1,
        &["and not 1", &revision, "--if-revision"],
    );
    complains(
        "realm put u --prefix ukey --environment production=live --if-revision 7",
        1,
        &["the realm does not exist, so it has no revision 7"],
    );
    complains(
        "partner suspend acme --realm t --yes",
        1,
        &["no partner \"acme\" in t"],
    );
    let failure = shell.run("realm put t --max-cache 1s --if-revision 1 --json", "");
    let failure: Value = serde_json::from_slice(&failure.stderr).unwrap();
    assert_eq!(failure["error"]["code"], "ABORTED");
    assert_eq!(failure["error"]["reason"], "CHANGED_MEANWHILE");
    assert_eq!(shell.json("realm get t", "", 0), before);
    shell.says("realm get u", "", 1);
    shell.says(
        &format!("realm put t --max-cache 1s --if-revision {revision}"),
        "",
        0,
    );
    shell.says(
        "realm put u --prefix ukey --environment production=live --if-revision 0",
        "",
        0,
    );
}

/// There is no method that returns one project, so the command line looks through the list.
///
/// Seen red with a look at the first page only.
#[tokio::test]
async fn a_project_is_found_on_a_later_page_of_the_list() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell_with_realm(&test_store);
    shell.says("partner put acme --realm t", "", 0);
    shell.says(
        "project put p --realm t --partner acme --display-name P",
        "",
        0,
    );
    let copies = "INSERT INTO projects (realm, id, partner, display_name, deleted, revision, created_at)
         WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 1500)
         SELECT realm, 'a' || number, partner, 'another', deleted, revision, created_at FROM projects, numbers";
    test_store.execute_sql(&[copies]).await;
    let page = shell.json("project list --realm t --page-size 1000", "", 0);
    assert_eq!(page["projects"].as_array().unwrap().len(), 1000);
    let project = put(&shell, "project put p --realm t --partner acme");
    assert_eq!(project["display_name"], "P");
}

/// Several commands at once, each of which names another setting. A command fails an attempt only if another one has succeeded,
/// so none of them needs more attempts than there are commands for the same resource.
///
/// Seen red without `if_revision` in the put, also only for a realm that does not exist; and without a second attempt.
#[test]
fn no_change_is_lost_among_commands_at_once() {
    const ROUNDS: u32 = 12;
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell_with_realm(&test_store);
    shell.says("partner put acme --realm t", "", 0);
    for round in 1..=ROUNDS {
        let is_even = round % 2 == 0;
        let unscoped = if is_even { "no-access" } else { "full-access" };
        let level = if is_even { "partner" } else { "project" };
        let suspension = if is_even { "restore" } else { "suspend --yes" };
        let create = format!("realm put r{round} --prefix r{round}x --environment production=live");
        let lines = [
            format!("{create} --max-cache 7s"),
            format!("{create} --max-lifetime 7s"),
            format!("{create} --scope read"),
            format!("realm put t --environment production=live --environment e{round}=t{round}"),
            format!("realm put t --scope read --scope s{round}"),
            format!("realm put t --unscoped-keys {unscoped}"),
            format!("realm put t --level {level}"),
            format!("realm put t --max-cache {round}s"),
            format!("realm put t --max-lifetime {round}s"),
            format!("partner put acme --realm t --display-name n{round}"),
            format!("partner {suspension} acme --realm t"),
        ];
        thread::scope(|scope| {
            for line in &lines {
                scope.spawn(|| shell.says(line, "", 0));
            }
        });
        let created = shell.json(&format!("realm get r{round}"), "", 0);
        assert_eq!(created["realm"]["max_cache"], "7s");
        assert_eq!(created["realm"]["max_lifetime"], "7s");
        assert_eq!(created["realm"]["scopes"][0]["name"], "read");
        let realm = realm(&shell);
        assert_eq!(realm["environments"][1]["name"], format!("e{round}"));
        assert_eq!(realm["scopes"][1]["name"], format!("s{round}"));
        let unscoped = format!(
            "UNSCOPED_KEYS_{}",
            unscoped.replace('-', "_").to_uppercase()
        );
        assert_eq!(realm["unscoped_keys"], unscoped);
        assert_eq!(
            realm["levels"][0],
            format!("KEY_LEVEL_{}", level.to_uppercase())
        );
        assert_eq!(realm["max_cache"], format!("{round}s"));
        assert_eq!(realm["max_lifetime"], format!("{round}s"));
        assert_eq!(realm["routes"].as_array().unwrap().len(), 1);
        let partner = shell.json("partner get acme --realm t", "", 0);
        assert_eq!(partner["partner"]["display_name"], format!("n{round}"));
        assert_eq!(partner["partner"]["suspended"], !is_even);
    }
}
