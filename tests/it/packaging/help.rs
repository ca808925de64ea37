//! Completions and man pages.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use super::succeeds;
use crate::fixtures::{claviger, outcome};

/// Loads the completions, and prints those of each line on standard input, whose last word is the one to complete.
const COMPLETE: &str = r#"source "$0" && while IFS= read -r line; do
    IFS=' ' read -ra COMP_WORDS <<<"$line"
    case $line in *' ') COMP_WORDS+=('') ;; esac
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _claviger claviger "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
done"#;

#[test]
fn bash_completes_commands_flags_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("claviger.bash");
    std::fs::write(&script, succeeds(&mut claviger(&["completions", "bash"]))).unwrap();
    let lines = dir.path().join("lines");
    std::fs::write(
        &lines,
        "claviger ke\nclaviger keys re\nclaviger keys issue --sc\nclaviger keys list --state \n",
    )
    .unwrap();
    let mut bash = Command::new("bash");
    let bash = bash.args(["-c", COMPLETE]).arg(&script);
    let output = bash
        .stdin(std::fs::File::open(&lines).unwrap())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "keys key\nrevoke revoke-all revoke-self\n--scope\nactive disabled expired revoked\n"
    );
    for shell in ["elvish", "fish", "powershell", "zsh"] {
        let script = succeeds(&mut claviger(&["completions", shell]));
        assert!(script.contains("healthcheck"), "{shell}");
    }
}

/// The paths of all commands, as their help lists them.
fn commands(path: &[String]) -> Vec<Vec<String>> {
    let mut line: Vec<&str> = path.iter().map(String::as_str).collect();
    line.push("--help");
    let help = succeeds(&mut claviger(&line));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned());
    let mut found = vec![path.to_vec()];
    for name in names.filter(|name| name != "help") {
        let mut path = path.to_vec();
        path.push(name);
        found.extend(commands(&path));
    }
    found
}

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
