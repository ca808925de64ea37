//! Help pages, topics, tips and aliases.

use super::{commands, complains, prints, shell_with_demo};
use crate::fixtures::{claviger, outcome};

const TOPICS: [&str; 6] = [
    "connection",
    "exit-codes",
    "import-format",
    "list",
    "scopes",
    "times",
];

/// Seen red with a usage line that is not broken, with pages for `-h` of up to 40 lines, and with an example that is too wide.
#[test]
fn a_page_fits_on_a_screen_and_begins_with_examples() {
    let commands = commands(&[]);
    assert!(commands.len() > 50, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        for flag in ["-h", "--help"] {
            let page = prints(&[&words[..], &[flag]].concat());
            for line in page.lines() {
                assert!(line.chars().count() <= 80, "{words:?} {flag}: {line}");
            }
            let is_leaf = !page.contains("\nCommands:\n");
            if is_leaf && flag == "-h" {
                assert!(page.lines().count() <= 25, "{words:?}:\n{page}");
                assert!(
                    page.contains("--help"),
                    "{words:?} says where more is:\n{page}"
                );
            }
            if is_leaf {
                let [examples, usage] = ["\nExamples:\n", "\nUsage: claviger "].map(|part| {
                    page.find(part)
                        .unwrap_or_else(|| panic!("{words:?}: {page}"))
                });
                assert!(examples < usage, "{words:?}");
                // Of this command, and not of the one beside it.
                let named = format!("claviger {}", words.join(" "));
                assert!(page[examples..usage].contains(&named), "{words:?}: {page}");
            }
            let is_client = ![
                "serve",
                "bootstrap",
                "migrate",
                "doctor",
                "completions",
                "man",
            ]
            .contains(words.first().unwrap_or(&"keys"));
            let connection = page.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(
                connection.contains("Connection flags: claviger help connection"),
                is_client,
                "{words:?}"
            );
            assert!(!page.contains("--ca-file"), "{words:?}");
        }
    }
}

#[test]
fn the_short_page_has_the_flags_that_matter_and_names_the_others() {
    let page = prints(&["keys", "issue", "-h"]);
    for flag in ["partner", "project", "scope", "expires-in", "output-file"] {
        assert!(page.contains(&format!("\n  --{flag} ")), "{flag}:\n{page}");
    }
    assert!(page.contains("--request-id, "), "{page}");
    let page = prints(&["keys", "issue", "--help"]);
    for heading in [
        "Who:",
        "What it may do:",
        "How long:",
        "Output:",
        "The change:",
    ] {
        assert!(
            page.lines().any(|line| line == heading),
            "{heading}:\n{page}"
        );
    }
    assert!(page.contains("--level partner|project"), "{page}");
    let serve = prints(&["serve", "--help"]);
    assert!(
        serve.contains("\nTLS:\n") && serve.contains("[env: CLAVIGER_TLS_CERT]"),
        "{serve}"
    );
}

#[test]
fn help_has_topics_and_the_pages_of_all_commands() {
    let root = prints(&["help"]);
    for topic in TOPICS {
        assert!(root.contains(topic), "{topic}:\n{root}");
        let text = prints(&["help", topic]);
        assert!(text.lines().count() > 10, "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{topic}: {line}");
        }
    }
    let connection = prints(&["help", "connection"]);
    assert!(connection.contains("--key-file") && connection.contains("CLAVIGER_REALM"));
    let page = prints(&["keys", "issue", "--help"]);
    assert_eq!(prints(&["help", "keys", "issue"]), page);
    assert_eq!(prints(&["keys", "help", "issue"]), page);
    assert_eq!(prints(&["keys", "help"]), prints(&["keys", "--help"]));
    let unknown = complains(&["help", "nonsense"]);
    assert!(unknown.contains("nonsense"), "{unknown}");
}

/// Seen red with the parser's own tips.
#[test]
fn a_tip_is_near_to_what_was_typed() {
    for (line, tip) in [
        (&["keys", "isue"][..], "issue"),
        (&["keys", "list", "--relm", "demo"], "--realm"),
        (&["keys", "list", "--state", "activ"], "active"),
        (&["key", "revoke"], "claviger keys revoke"),
    ] {
        let complaint = complains(line);
        assert!(
            complaint.contains("tip:") && complaint.contains(tip),
            "{complaint}"
        );
    }
    for line in [
        &["partner", "crate-it"][..],
        &["keys", "disable", "x", "--reason", "y"],
        &["events", "--tail"],
        &["realm", "get", "demo", "--dry-run"],
    ] {
        let complaint = complains(line);
        assert!(!complaint.contains("tip:"), "{line:?}: {complaint}");
    }
}

#[test]
fn habits_of_other_programs_work() {
    let (_test_store, shell) = shell_with_demo();
    let issued = shell.json(
        "keys create --partner acme --level partner --scope read --ttl 90d",
        "",
        0,
    );
    let id = issued["key"]["id"].as_str().unwrap();
    assert!(issued["key"]["expire_time"].is_string());
    for line in ["show", "describe"] {
        shell.says(&format!("keys {line} {id}"), "", 0);
        shell.says(&format!("partners {line} acme"), "", 0);
        shell.says(&format!("projects {line} web"), "", 0);
        shell.says(&format!("realms {line} demo"), "", 0);
    }
    shell.says("keys ls -n 1", "", 0);
    shell.says("realms ls --limit 1", "", 0);
    shell.says("partners ls", "", 0);
    shell.says("projects ls", "", 0);
    shell.says("audit --limit 3", "", 0);
    shell.says("log -n 3", "", 0);
    shell.says(&format!("keys rm {id} --yes"), "", 0);
    let named_id = shell.says(&format!("events --key {id}"), "", 2);
    assert!(named_id.contains("--key-id"), "{named_id}");
    let new = shell.says("key new", "", 0);
    assert!(new.starts_with("claviger_main_"), "`key` is not `keys`");
}

/// The commit stands only in a release: see `build.rs`.
#[test]
fn the_version_is_told_in_each_way() {
    let version = prints(&["--version"]);
    let number = env!("CARGO_PKG_VERSION");
    assert!(
        version.starts_with(&format!("claviger {number}")),
        "{version}"
    );
    assert_eq!(prints(&["version"]), version);
    assert_eq!(prints(&["-V"]), version);
    let output = outcome(&mut claviger(&["version", "--json"]));
    assert_eq!(output.status.code(), Some(2));
}
