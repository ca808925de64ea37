//! Completions, as the shells ask for them.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{prints, shell_with_demo};
use crate::fixtures::{claviger, without_variables};

/// Loads the completions, and prints those of each line on standard input, whose last word is the one to complete.
const BASH: &str = r#"source "$0" && while IFS= read -r line; do
    IFS=' ' read -ra COMP_WORDS <<<"$line"
    case $line in *' ') COMP_WORDS+=('') ;; esac
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_TYPE=9 COMPREPLY=()
    _clap_complete_claviger claviger "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[@]}"
done"#;

/// The path on which a shell finds the program.
fn search_path() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_claviger")).parent().unwrap();
    format!("{}:{}", program.display(), std::env::var("PATH").unwrap())
}

fn script(dir: &Path, shell: &str) -> PathBuf {
    let script = dir.join(shell);
    std::fs::write(&script, prints(&["completions", shell])).unwrap();
    script
}

/// What bash completes in these lines, with the server at an address.
fn bash(lines: &[&str], endpoint: &str, key: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("lines");
    std::fs::write(&input, lines.join("\n") + "\n").unwrap();
    let mut bash = Command::new("bash");
    let output = without_variables(&mut bash)
        .args(["-c", BASH])
        .arg(script(dir.path(), "bash"))
        .env("PATH", search_path())
        .env("CLAVIGER_ENDPOINT", endpoint)
        .env("CLAVIGER_KEY", key)
        .stdin(std::fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(complaint, "", "nothing is in the middle of what is typed");
    let shown = String::from_utf8(output.stdout).unwrap();
    shown.lines().map(|line| line.trim().to_owned()).collect()
}

/// Seen red without the names of partners.
#[test]
fn bash_completes_commands_flags_and_the_names_of_a_server() {
    let (_test_store, shell) = shell_with_demo();
    shell.says("partner create globex", "", 0);
    shell.says(
        "realm create other --prefix other --environment staging=test --scope zap",
        "",
        0,
    );
    shell.says("partner create initech --realm other", "", 0);
    let completed = |line: &str| {
        bash(&[line], &shell.program.address, &shell.operator)
            .pop()
            .unwrap()
    };
    for (line, words) in [
        ("claviger ke", &["keys", "key"][..]),
        (
            "claviger keys rev",
            &["revoke", "revoke-all", "revoke-self"],
        ),
        (
            "claviger keys list --state ",
            &["active", "disabled", "expired", "revoked"],
        ),
        (
            "claviger keys list --realm ",
            &["demo", "other", "claviger"],
        ),
        (
            "claviger keys list --realm demo --partner ",
            &["acme", "globex"],
        ),
        ("claviger keys list --realm other --partner ", &["initech"]),
        (
            "claviger keys issue --realm demo --scope ",
            &["read", "write"],
        ),
        (
            "claviger keys issue --realm other --environment ",
            &["staging"],
        ),
        ("claviger keys issue --realm demo --project ", &["web"]),
        ("claviger partner get --realm demo g", &["globex"]),
        ("claviger realm get o", &["other"]),
        ("claviger --json realm get d", &["demo"]),
    ] {
        let shown = completed(line);
        for word in words {
            assert!(
                shown.split_whitespace().any(|is| is == *word),
                "{line}: {shown}"
            );
        }
        let values = shown
            .split_whitespace()
            .filter(|word| !word.starts_with('-'));
        assert_eq!(values.count(), words.len(), "{line}: {shown}");
    }
    assert_eq!(completed("claviger keys issue --sco"), "--scope");
    // Of two realms, none is meant.
    assert_eq!(completed("claviger keys list --partner "), "");
    assert_eq!(completed("claviger partner create a"), "", "a new name");
}

/// Seen red with a limit of three seconds.
#[test]
fn without_an_answer_nothing_is_completed_and_nobody_waits() {
    // It accepts connections by the system alone, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let line = "claviger keys list --realm ";
    for (endpoint, key) in [
        (&*silent, "claviger_main_wrong"),
        ("127.0.0.1:1", "claviger_main_wrong"),
        (&*silent, ""),
        ("no endpoint", "k"),
    ] {
        assert_eq!(bash(&[line], endpoint, key), [""], "{endpoint}");
        let took = (0..5).map(|_| {
            let began = Instant::now();
            let output = claviger(&["--", "claviger", "keys", "list", "--realm", ""])
                .env("CLAVIGER_COMPLETE", "bash")
                .env("_CLAP_COMPLETE_INDEX", "4")
                .env("CLAVIGER_ENDPOINT", endpoint)
                .env("CLAVIGER_KEY", key)
                .output()
                .unwrap();
            assert!(output.stdout.is_empty() && output.stderr.is_empty());
            began.elapsed()
        });
        // The fastest one, because other tests run beside it.
        let took = took.min().unwrap();
        assert!(took < Duration::from_millis(200), "{endpoint}: {took:?}");
    }
}

/// What the program answers to bash for a line with a home of its own. Without a key or an endpoint but those of a context.
fn of_home(home: &Path, shell: &str) -> Output {
    claviger(&["--", "claviger", "keys", "list", "--partner", ""])
        .env("CLAVIGER_COMPLETE", shell)
        .env("_CLAP_COMPLETE_INDEX", "4")
        .env("XDG_CONFIG_HOME", home)
        .output()
        .unwrap()
}

/// Seen red without the context in `complete::ask`.
#[test]
fn the_realm_and_the_server_are_those_of_the_context() {
    let (_test_store, shell) = shell_with_demo();
    shell.says(
        "realm create other --prefix other --environment staging=test",
        "",
        0,
    );
    shell.says("partner create initech --realm other", "", 0);
    let home = tempfile::tempdir().unwrap();
    let silent = |home: &Path| {
        let answered = of_home(home, "bash");
        assert!(answered.stdout.is_empty() && answered.stderr.is_empty());
    };
    // No context, and a file that cannot be read.
    silent(home.path());
    let folder = home.path().join("claviger");
    std::fs::create_dir(&folder).unwrap();
    let write = |content: &str| {
        let file = folder.join("contexts.toml");
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    };
    write("nonsense");
    silent(home.path());
    write(&format!(
        "current = \"a\"\n[contexts.a]\nendpoint = \"{}\"\nkey = \"{}\"\nrealm = \"other\"\n",
        shell.program.address, shell.operator
    ));
    // A busy machine may need longer than a shell waits.
    let found = (0..20).find_map(|_| {
        let answered = of_home(home.path(), "bash");
        assert!(answered.stderr.is_empty());
        let names = String::from_utf8(answered.stdout).unwrap();
        Some(names).filter(|names| !names.is_empty())
    });
    assert_eq!(found.unwrap().trim(), "initech");
}

/// Seen red with the error of the parser.
#[test]
fn a_shell_that_is_not_known_gets_no_word() {
    let home = tempfile::tempdir().unwrap();
    let answered = of_home(home.path(), "nonsense");
    assert_eq!(answered.status.code(), Some(1));
    assert!(answered.stdout.is_empty() && answered.stderr.is_empty());
}

/// Where fish or zsh is not installed, its part does nothing.
#[test]
fn fish_and_zsh_load_their_completions() {
    let (_test_store, shell) = shell_with_demo();
    let dir = tempfile::tempdir().unwrap();
    for (program, line) in [
        (
            "fish",
            "source $argv[1]; complete -C 'claviger keys list --realm d'",
        ),
        (
            "zsh",
            "autoload -U compinit && compinit -D && source $1 && echo demo ${_comps[claviger]}",
        ),
    ] {
        let script = script(dir.path(), program);
        let mut command = Command::new(program);
        let command = without_variables(&mut command);
        if program == "fish" {
            command.args(["--no-config", "-c", line]);
        } else {
            command.args(["-f", "-c", line, "zsh"]);
        }
        let output = command
            .arg(&script)
            .env("PATH", search_path())
            .env("CLAVIGER_ENDPOINT", &shell.program.address)
            .env("CLAVIGER_KEY", &shell.operator)
            .stdin(Stdio::null())
            .output();
        let Ok(output) = output else {
            eprintln!("{program} is not installed, so its completions are not tested");
            continue;
        };
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaint.is_empty(),
            "{program}: {complaint}"
        );
        assert!(shown.contains("demo"), "{program}: {shown}");
        if program == "zsh" {
            assert!(
                shown.contains("_clap_dynamic_completer_claviger"),
                "{shown}"
            );
        }
    }
}
