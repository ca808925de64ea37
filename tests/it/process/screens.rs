//! What the commands show on a terminal, and that everything else gets the same in whole.

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::fixtures::{
    DEADLINE, Engine, Program, SMALL, Screen, Shell, TestStore, claviger, columns,
};

struct Rig {
    shell: Shell,
    _test_store: Arc<TestStore>,
}

impl Rig {
    /// A realm with names that are long, wide, or try to control the terminal, and one key that was used.
    fn new() -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, &[]);
        let operator = program.operator();
        let rig = Self {
            shell: Shell { program, operator },
            _test_store: test_store,
        };
        let shell = &rig.shell;
        let put = "realm put demo --prefix demo --environment production=live --scope read --scope billing";
        shell.says(put, "", 0);
        let partners = ["acme", "umbrella-corporation-of-europe-and-asia-north"];
        for partner in partners {
            shell.says(&format!("partner put {partner} --realm demo"), "", 0);
        }
        shell.says("project put web --realm demo --partner acme", "", 0);
        let names = [
            "nightly-export-to-the-warehouse-eu",
            "東京タワー展望台の鍵東京タワー展望台の鍵",
            "e\u{301}👩🏽\u{200d}🔬👩🏽\u{200d}🔬👩🏽\u{200d}🔬👩🏽\u{200d}🔬👩🏽\u{200d}🔬",
            "svc-5",
        ];
        for (name, partner) in names.iter().zip(partners.iter().cycle()) {
            let issue = format!(
                "keys issue --realm demo --partner {partner} --level partner --name {name} --scope read --expires-in 90d \
                 --allow-cidr 10.0.0.0/8"
            );
            let issued = shell.json(&issue, "", 0);
            let key = issued["plain_key"].as_str().unwrap();
            shell.says("verify --realm demo --scope billing", key, 3);
        }
        rig
    }

    /// A command of these words, with the operator's key.
    fn command(&self, line: &str) -> Command {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = claviger(&words);
        command
            .env("CLAVIGER_ENDPOINT", &self.shell.program.address)
            .env("CLAVIGER_KEY", &self.shell.operator);
        command
    }

    /// What a command shows on a small terminal, none of whose lines is too wide.
    fn shows(&self, line: &str, code: i32) -> String {
        let shown = SMALL.run(&mut self.command(line));
        assert_eq!(shown.code, Some(code), "{line}\n{}", shown.text);
        for line in shown.text.lines() {
            let width = columns(line);
            assert!(width <= 80, "{width} columns: {line}\n{}", shown.text);
        }
        shown.text
    }

    /// Waits until the use of a key is counted.
    fn wait_for_usage(&self, id: &str) {
        let deadline = Instant::now() + DEADLINE;
        let usage = format!("keys usage {id}");
        while self.shell.json(&usage, "", 0)["totals"] == serde_json::json!([]) {
            assert!(
                Instant::now() < deadline,
                "the use of the key is not counted"
            );
        }
    }

    fn id_of(&self, name: &str) -> String {
        let listed = self
            .shell
            .json(&format!("keys list --realm demo --name {name}"), "", 0);
        listed["keys"][0]["id"].as_str().unwrap().to_owned()
    }
}

fn has_uuid(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    words.any(|word| word.len() == 36 && Uuid::try_parse(word).is_ok())
}

/// Each list, and what it must show. Seen red with the width of the terminal taken for 200.
#[test]
fn every_list_fits_the_terminal_and_has_no_uuid() {
    let rig = Rig::new();
    for (line, captions) in [
        (
            "keys list --realm demo",
            &[
                "realm demo",
                "4 keys, newest first",
                "LAST USED",
                "live …",
                "in 90d",
            ][..],
        ),
        (
            "keys list --all-realms",
            &["all realms", "5 keys", "first operator"],
        ),
        ("keys find --hint live", &["OWNER", "KEY", "STATE"]),
        (
            "events --realm demo",
            &[
                "WHEN (UTC)",
                "key.issued",
                "first operator",
                "may read; expires",
                "--wide",
            ],
        ),
        ("events --all-realms", &["all realms", "demo: "]),
        ("realm list", &["2 realms", "production (live)"]),
        (
            "partner list --realm demo",
            &["realm demo", "2 partners", "granted"],
        ),
        ("project list --realm demo", &["1 project", "web"]),
        (
            "keys revoke-all --realm demo --reason x --dry-run",
            &["This would revoke 4 keys", "live …", "LAST USED"],
        ),
    ] {
        let shown = rig.shows(line, 0);
        for part in captions {
            assert!(shown.contains(part), "{line}: no {part:?} in\n{shown}");
        }
        assert!(!has_uuid(&shown), "{line}\n{shown}");
        assert!(!shown.contains('\x1b'), "{line}\n{shown}");
    }
    let piped = rig.shell.says("keys list --realm demo", "", 0);
    let header = "ID                                    NAME";
    assert!(piped.starts_with(header), "{piped}");
    assert!(has_uuid(&piped) && piped.contains("umbrella-corporation-of-europe-and-asia-north"));
    assert!(
        piped.contains('T') && !piped.contains("in 90d") && !piped.contains('\x1b'),
        "{piped}"
    );
}

#[test]
fn a_key_its_usage_and_an_explanation_have_screens() {
    let rig = Rig::new();
    let id = rig.id_of("svc-5");
    rig.wait_for_usage(&id);
    let shown = rig.shows(&format!("keys get {id}"), 0);
    for part in [
        "ACTIVE  live …",
        "(partner)",
        "10.0.0.0/8",
        ", by \"first operator\"",
        " ago",
        "address denied 1",
        &id,
    ] {
        assert!(shown.contains(part), "no {part:?} in\n{shown}");
    }
    rig.shell
        .says(&format!("keys rotate {id} --overlap 24h"), "", 0);
    let shown = rig.shows(&format!("keys get {id}"), 0);
    assert!(
        shown.contains("\nrotation  until ") && shown.contains("\n  claviger keys end-rotation …"),
        "{shown}"
    );
    let shown = rig.shows("keys self", 0);
    assert!(shown.starts_with("first operator"), "{shown}");

    let shown = rig.shows(&format!("keys usage {id} --since yesterday"), 0);
    assert!(shown.starts_with("\"svc-5\" (umbrella"), "{shown}");
    assert!(
        shown.contains("denied (100 %): address denied 1"),
        "{shown}"
    );
    assert!(
        shown.contains("* not the whole hour") && shown.contains('░'),
        "{shown}"
    );
    let shown = rig.shows("usage --realm demo --since today", 0);
    assert!(
        shown.starts_with("realm demo") && shown.contains("umbrella-corporation-of-eur"),
        "{shown}"
    );
    rig.shows("usage --realm demo --since 2026-01-01 --over-time", 0);

    let key = rig.shell.json("keys issue --realm demo --partner acme --level partner --scope read --allow-cidr 10.0.0.0/8", "", 0);
    let key = key["plain_key"].as_str().unwrap();
    let explain = format!("explain {key} --realm demo --scope billing --client-ip 1.2.3.4");
    let shown = rig.shows(&explain, 3);
    assert!(
        shown.starts_with("denied (403): the client's address"),
        "{shown}"
    );
    for part in [
        "1.2.3.4 is in none of 10.0.0.0/8",
        "scope_missing   FAILED",
        "did not fail: --all shows them.",
    ] {
        assert!(shown.contains(part), "no {part:?} in\n{shown}");
    }
    assert!(!shown.contains("passed"), "{shown}");
    assert!(rig.shows(&format!("{explain} --all"), 3).contains("passed"));
    let piped = rig.shell.says(&explain, "", 3);
    assert!(
        piped.starts_with("denied by \"address_denied\": VERDICT_ADDRESS_DENIED, HTTP 403\n"),
        "{piped}"
    );
    assert!(piped.contains("passed"), "{piped}");
}

/// Who is denied most, and the key as the next command takes it. Seen red without `rank_by` in the request, and with a total that a
/// pipe asks for.
#[test]
fn usage_compares_the_keys_and_says_what_is_denied() {
    let rig = Rig::new();
    let issue = "keys issue --realm demo --partner acme --level partner --name fine --scope read";
    let fine = rig.shell.json(issue, "", 0);
    let key = fine["plain_key"].as_str().unwrap();
    rig.shell.says("verify --realm demo --scope read", key, 0);
    for name in ["svc-5", "fine"] {
        rig.wait_for_usage(&rig.id_of(name));
    }
    let both = rig.shows("usage --realm demo", 0);
    for part in [
        "█ allowed",
        "NAME",
        "OWNER",
        "KEY",
        "WHY",
        "nightly-export-",
        "fine",
        "live …",
        "100 %",
        "100 %  address denied",
    ] {
        assert!(both.contains(part), "no {part:?} in\n{both}");
    }
    assert!(!has_uuid(&both), "{both}");
    let denied = rig.shows("usage --realm demo --denied", 0);
    assert!(
        denied.contains("OWNER") && denied.contains("svc-5") && !denied.contains("fine  "),
        "{denied}"
    );
    let keys = rig.shows("usage --realm demo --by key --denied", 0);
    let row = keys.lines().find(|line| line.starts_with("svc-5")).unwrap();
    let handle = row.split_whitespace().find(|word| word.starts_with('…'));
    let got = rig.shows(&format!("keys get {} --realm demo", handle.unwrap()), 0);
    assert!(got.starts_with("svc-5"), "{got}");
    let owners = rig.shows("usage --realm demo --by owner", 0);
    assert!(!owners.contains("KEY") && owners.contains('█'), "{owners}");
    let nothing = rig.shows("usage --realm demo --denied --until 2026-01-01", 0);
    assert!(nothing.contains("Nothing was denied."), "{nothing}");

    let piped = rig.shell.says("usage --realm demo --by key", "", 0);
    let id = fine["key"]["id"].as_str().unwrap();
    assert!(
        piped.contains("HINT")
            && piped.contains(id)
            && piped.contains("umbrella-corporation-of-europe-and-asia-north"),
        "{piped}"
    );
    let json = rig.shell.json("usage --realm demo --denied --top 1", "", 0);
    assert_eq!(json["keys"].as_array().unwrap().len(), 1, "{json}");
    let json = rig
        .shell
        .json("keys list --realm demo --page-size 2", "", 0);
    assert!(json["total"].is_null(), "only a terminal asks: {json}");
}

/// Seen red with the colours left in where `NO_COLOR` is set.
#[test]
fn a_colour_repeats_a_word_and_can_be_refused() {
    let rig = Rig::new();
    let on = |line: &str, variables: &[(&str, &str)]| {
        let mut command = rig.command(line);
        command.env("TERM", "xterm").envs(variables.iter().copied());
        SMALL.run(&mut command).text
    };
    let list = "keys list --realm demo";
    let coloured = on(list, &[]);
    assert!(coloured.contains("\x1b[32mactive\x1b[0m"), "{coloured:?}");
    for refusal in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = on(list, &[refusal]);
        assert!(
            !plain.contains('\x1b') && plain.contains("active"),
            "{plain:?}"
        );
    }
    let error = on("keys list --realm nothing", &[]);
    assert!(error.contains("\x1b[31merror:\x1b[0m "), "{error:?}");
    let plain = on("keys list --realm nothing", &[("NO_COLOR", "1")]);
    assert!(plain.starts_with("error: "), "{plain:?}");
    assert!(!on(&format!("{list} --json"), &[]).contains('\x1b'));
}

#[test]
fn a_screen_that_is_too_long_goes_through_the_pager() {
    let rig = Rig::new();
    let on = |lines: u16, line: &str, variables: &[(&str, &str)]| {
        let terminal = Screen { columns: 80, lines };
        terminal
            .run(rig.command(line).envs(variables.iter().copied()))
            .text
    };
    let list = "keys list --realm demo";
    let pager = ("CLAVIGER_PAGER", "sed 's/^/> /'");
    let through = on(5, list, &[pager]);
    assert!(
        through.lines().all(|line| line.starts_with("> ")),
        "{through}"
    );
    assert!(through.contains("> realm demo"), "{through}");
    assert!(!on(50, list, &[pager]).contains("> "), "it fits");
    assert!(!on(5, &format!("{list} --json"), &[pager]).contains("> "));
    let other = ("PAGER", "sed 's/^/+ /'");
    assert!(on(5, list, &[pager, other]).contains("> realm demo"));
    assert!(
        !on(5, list, &[("CLAVIGER_PAGER", ""), other]).contains("+ "),
        "empty means none"
    );
    for absent in ["no-such-pager", "exit 127"] {
        let shown = on(5, list, &[("CLAVIGER_PAGER", absent)]);
        assert!(shown.contains("realm demo"), "{absent}: {shown}");
    }
    let refused = on(5, list, &[("CLAVIGER_PAGER", "head -1")]);
    assert!(
        refused.starts_with("realm demo") && !refused.contains("error"),
        "{refused}"
    );
}

#[test]
fn the_command_for_the_next_page_can_be_pasted() {
    let rig = Rig::new();
    let first = rig.shows("keys list --realm demo --page-size 3 --issued-before 0s", 0);
    assert!(first.contains("3 of 4 keys, newest first"), "{first}");
    let (_, command) = first
        .split_once("More follow. --all, or the next page:\n")
        .unwrap();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_claviger"));
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut shell = rig.command("");
    let mut next = Command::new("sh");
    for (name, value) in shell.env("PATH", path).get_envs() {
        if let Some(value) = value {
            next.env(name, value);
        }
    }
    let shown = SMALL.run(next.args(["-c", command]));
    assert_eq!(shown.code, Some(0), "{command}\n{}", shown.text);
    assert!(
        shown.text.contains("1 of 4 keys, newest first"),
        "{command}\n{}",
        shown.text
    );
    let with_key = SMALL.run(&mut rig.command(&format!(
        "events --page-size 1 --key {}",
        rig.shell.operator
    )));
    assert!(
        !with_key.text.contains(&rig.shell.operator),
        "the key is not shown again"
    );
    assert!(with_key.text.contains("--page-token="), "{}", with_key.text);
}

#[test]
fn columns_can_be_chosen() {
    let rig = Rig::new();
    let shown = rig.shows("keys list --realm demo --columns id,last-used", 0);
    assert!(has_uuid(&shown) && !shown.contains("NAME"), "{shown}");
    let piped = rig
        .shell
        .says("keys list --realm demo --columns KEY,created", "", 0);
    assert!(piped.starts_with("KEY         CREATED\nlive …"), "{piped}");
    let wide = SMALL
        .run(&mut rig.command("keys list --realm demo --wide"))
        .text;
    assert!(
        has_uuid(&wide) && wide.contains("HINT") && wide.contains("asia-north"),
        "{wide}"
    );
    // Before the server is asked.
    let complaint = claviger(&[
        "keys",
        "list",
        "--columns",
        "nmae",
        "--endpoint",
        "127.0.0.1:1",
    ])
    .output()
    .unwrap();
    assert_eq!(complaint.status.code(), Some(2));
    let complaint = String::from_utf8(complaint.stderr).unwrap();
    assert!(
        complaint.contains("no column \"nmae\"; the columns are "),
        "{complaint}"
    );
}

/// Seen red with the kind of the message on the terminal, and with the kind of the terminal in the pipe.
#[test]
fn a_suspension_is_a_kind_of_its_own_on_a_terminal_only() {
    let rig = Rig::new();
    let shell = &rig.shell;
    for line in [
        "partner suspend acme --realm demo --yes",
        "partner update acme --realm demo --display-name Acme",
        "partner restore acme --realm demo",
    ] {
        shell.says(line, "", 0);
    }
    let kinds = |shown: &str| -> Vec<String> {
        let words = shown.split_whitespace();
        let kinds = words.filter(|word| word.starts_with("partner.") && !word.ends_with(','));
        kinds.map(str::to_owned).collect()
    };
    let list = "events --realm demo --since 1h --partner acme --kind partner.put";
    let shown = rig.shows(list, 0);
    let expected = [
        "partner.restored",
        "partner.put",
        "partner.suspended",
        "partner.put",
    ];
    assert_eq!(kinds(&shown), expected, "{shown}");
    let piped = shell.says(list, "", 0);
    assert_eq!(kinds(&piped), ["partner.put"; 4], "{piped}");
    assert!(piped.contains("suspension=ended"), "{piped}");

    let several = "events --realm demo --kind partner.suspended,key.issued --kind partner.restored";
    let shown = rig.shows(several, 0);
    assert_eq!(
        kinds(&shown),
        ["partner.restored", "partner.suspended"],
        "{shown}"
    );
    assert!(
        shown.contains("key.issued") && shown.contains("6 events"),
        "{shown}"
    );
    let listed = shell.json(&format!("{several} --partner acme"), "", 0);
    let told = listed["events"].as_array().unwrap().iter();
    let told: Vec<_> = told
        .map(|event| (&event["kind"], &event["detail"]["suspension"]))
        .collect();
    assert_eq!(told.len(), 4);
    assert_eq!(*told[0].0, "partner.put");
    assert_eq!(*told[0].1, "ended");
    // A page of several kinds goes on.
    let first = shell.json(&format!("{several} --page-size 4"), "", 0);
    let token = first["next_page_token"].as_str().unwrap();
    let next = shell.json(
        &format!("{several} --page-size 4 --page-token={token}"),
        "",
        0,
    );
    assert_eq!(next["events"].as_array().unwrap().len(), 2, "{next}");
}

#[test]
fn the_kinds_of_events_are_named() {
    let output = claviger(&["events", "--kind", "key.revokd"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.contains("key.revoked") && complaint.contains("partner.suspended"),
        "{complaint}"
    );
}
