//! Man pages, and what the help commands do without a server. `tests/it/command_line/` tests completions.

use std::collections::BTreeSet;
use std::process::Stdio;

use super::succeeds;
use crate::command_line::commands;
use crate::fixtures::{claviger, outcome};

/// Seen red with pages of the first level only.
#[test]
fn each_command_has_a_man_page_with_its_flags_and_no_values_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("share/man1");
    succeeds(
        claviger(&["man"])
            .arg(&pages)
            .env("CLAVIGER_DATABASE_URL", "postgres://u:hunter2@h/d")
            .env("CLAVIGER_ENDPOINT", "hunter2.example"),
    );
    let named: BTreeSet<String> = commands(&[])
        .into_iter()
        .map(|path| {
            let name = [vec!["claviger".to_owned()], path].concat().join("-");
            format!("{name}.1")
        })
        .collect();
    assert!(named.len() > 40, "{named:?}");
    let mut written = BTreeSet::new();
    for entry in pages.read_dir().unwrap() {
        let entry = entry.unwrap();
        let page = std::fs::read_to_string(entry.path()).unwrap();
        assert!(!page.contains("hunter2"), "{entry:?}");
        written.insert(entry.file_name().into_string().unwrap());
    }
    assert_eq!(written, named);
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("claviger-keys-issue.1").contains(r"\-\-expires\-in"));
    let serve = page("claviger-serve.1");
    assert!(serve.contains(r"\-\-drain\-delay") && serve.contains("CLAVIGER_DRAIN_DELAY"));
    assert!(
        !serve.contains(r"\-\-endpoint"),
        "serve refuses what only clients have"
    );
}

#[test]
fn help_needs_no_server_and_fails_clearly() {
    let refused = outcome(&mut claviger(&["completions", "bash", "--json"]));
    assert_eq!(refused.status.code(), Some(2));
    let failed = outcome(&mut claviger(&["man", "/proc/pages"]));
    assert_eq!(failed.status.code(), Some(1));
    let complaint = String::from_utf8(failed.stderr).unwrap();
    assert!(complaint.contains("/proc/pages"), "{complaint}");
    // A reader that goes away is no error.
    let mut child = claviger(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}
