//! The examples of the help pages and of the documents.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{commands, prints, shell};
use crate::documents::{block_of_page, command_lines};
use crate::fixtures::{SMALL, Shell, Shown, TestStore, columns, without_variables};

/// A realm as a page expects it. Each part is for the pages that do not make it themselves.
const REALM: &str = r#"cat >demo.toml <<'END'
id = "demo"
prefix = "demo"
self_rotation = true
environments = [{ name = "production", tag = "live" }]
scopes = [{ name = "read" }, { name = "write", implies = ["read"] }]
[credentials]
sources = [{ header = { name = "authorization", scheme = "Bearer" } }]
[[routes]]
methods = ["POST"]
path = "/v1/items"
scopes = ["write"]
END
claviger realm apply --file demo.toml
"#;

const PARTNER: &str = "claviger partner create acme\n";

const PROJECTS: &str = "claviger partner create globex
claviger project create web --partner acme
claviger project create app --partner acme
";

const KEYS: &str = r#"issue() { claviger keys issue --partner acme --level partner "$@"; }
issue --scope write --name ci >ci.key
issue --scope write --output-file demo.key
issue --scope write --output-file my.key
issue --scope read --output-file leaked.key
claviger keys issue --realm claviger --partner demo --scope verify --output-file gateway.key
cat >keys.csv <<'END'
plain_key,partner,level
Zq7RkfP0vJ2mYc81-00001,acme,partner
END
cat >keys.jsonl <<'END'
{"plain_key": "Zq7RkfP0vJ2mYc81-00002", "level": "partner"}
END
cat >authority.toml <<'END'
[[realms]]
END
sed 's/^\[\[/[[realms./; s/^\[credentials/[realms.credentials/' demo.toml >>authority.toml
"#;

const CANARY: &str = "claviger realm create canary --prefix canary --environment production=live
claviger partner create canary --realm canary
";

const LOGIN: &str = "umask 077
printf %s \"$CLAVIGER_KEY\" >my.key
claviger login --context prod --key-file my.key
";

/// The pages whose examples need other than the usual: what is run before, and the exit codes that are right.
const SPECIAL: [(&str, &str, &[i32]); 19] = [
    // A person, a server elsewhere and a password manager, which this machine has not.
    ("login", LOGIN, &[0, 1, 2]),
    ("logout", LOGIN, &[0]),
    ("use", LOGIN, &[0]),
    ("context use", LOGIN, &[0]),
    ("whoami", LOGIN, &[0]),
    ("status", LOGIN, &[0]),
    // They run until they are stopped.
    ("serve", "", &[0, 124]),
    ("events", "", &[0, 124]),
    ("canary", CANARY, &[0, 124]),
    (
        "migrate",
        "claviger bootstrap --data-dir ./claviger-data >operator.key",
        &[0],
    ),
    // The machine of a test is not prepared as that of a server.
    (
        "doctor",
        "claviger bootstrap --data-dir ./claviger-data >operator.key",
        &[0, 1],
    ),
    ("keys find", "", &[0, 1]),
    ("keys list", "", &[0, 5]),
    ("diff", "", &[0, 5]),
    (
        "keys end-rotation",
        "claviger keys rotate ci --overlap 1h >new.key",
        &[0],
    ),
    ("keys enable", "claviger keys disable ci --yes", &[0]),
    // These are about a database that several servers share.
    ("replicas set-lease", "", &[0, 1]),
    ("replicas accept-history", "", &[0, 1]),
    ("replicas set-clock", "", &[0, 1]),
];

/// A directory with a server of its own, as the examples expect it.
struct World {
    shell: Shell,
    test_store: Arc<TestStore>,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (test_store, shell) = shell();
        let dir = tempfile::tempdir().unwrap();
        let config = "data-dir = \"claviger-data\"\n";
        std::fs::write(dir.path().join("claviger.toml"), config).unwrap();
        Self {
            shell,
            test_store,
            dir,
        }
    }

    /// Runs lines as a user pastes them. A command that does not end by itself is stopped.
    fn paste(&self, lines: &str, is_of_server: bool) -> Output {
        self.pasted(lines, is_of_server).output().unwrap()
    }

    fn pasted(&self, lines: &str, is_of_server: bool) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_claviger"));
        let path = format!(
            "{}:{}",
            program.parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let seconds = if lines.contains("--follow") || lines.contains("claviger canary") {
            3
        } else {
            100
        };
        let seconds = if lines.starts_with("claviger serve --init") {
            5
        } else {
            seconds
        };
        let mut bash = Command::new("timeout");
        let command = without_variables(&mut bash)
            .args([&seconds.to_string(), "bash", "-c", lines])
            .current_dir(self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env("PATH", path);
        if is_of_server {
            command
                .env("CLAVIGER_LISTEN", "127.0.0.1:0")
                .env("CLAVIGER_HTTP_LISTEN", "127.0.0.1:0")
                .env("CLAVIGER_DRAIN_DELAY", "0s");
        } else {
            command
                .env("CLAVIGER_ENDPOINT", &self.shell.program.address)
                .env("CLAVIGER_KEY", &self.shell.operator);
        }
        bash
    }

    fn prepare(&self, lines: &str, is_of_server: bool) {
        let lines = format!("set -e\n{}", self.with_hint(lines));
        let output = self.paste(&lines, is_of_server);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {complaint}");
    }

    /// An example names a key by the end of a hint, which this key has not.
    fn with_hint(&self, lines: &str) -> String {
        if !lines.contains(HINT) {
            return lines.to_owned();
        }
        let listed = self.shell.json("keys list --realm demo --name ci", "", 0);
        let hint = listed["keys"][0]["hint"].as_str().unwrap();
        let end: Vec<char> = hint.chars().rev().take(4).collect();
        lines.replace(HINT, &format!("…{}", end.iter().rev().collect::<String>()))
    }
}

/// The hint in the examples.
const HINT: &str = "…plvF";

/// The examples on a page, each with all its lines.
fn examples(page: &str) -> Vec<String> {
    let lines = page.lines().skip_while(|line| *line != "Examples:").skip(1);
    let mut examples: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        assert!(line.chars().count() <= 78, "{line}");
        let line = line.strip_prefix("  ").unwrap();
        match examples.last_mut() {
            Some(last) if goes_on => {
                last.push('\n');
                last.push_str(line);
            }
            _ => examples.push(line.to_owned()),
        }
        goes_on = line.ends_with('\\');
    }
    examples
}

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
enum WritesTo {
    Pipe,
    Terminal,
}

/// Runs the examples of a page. Returns what is wrong with them.
fn run_page(command: &[String], writes_to: WritesTo) -> Vec<String> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let examples = examples(&prints(&[&words[..], &["--help"]].concat()));
    if examples.is_empty() {
        return Vec::new();
    }
    let name = words.join(" ");
    let is_of_server = ["serve", "bootstrap", "migrate", "doctor"].contains(&&*name);
    let world = World::new();
    let special = SPECIAL.iter().find(|(page, ..)| *page == name);
    let (before, codes) = special.map_or(("", &[0][..]), |(_, before, codes)| (*before, codes));
    let everything = [REALM, PARTNER, PROJECTS, KEYS].concat();
    match name.as_str() {
        "realm create" => {}
        "partner create" => world.prepare(REALM, false),
        "project create" => world.prepare(&[REALM, PARTNER].concat(), false),
        _ if is_of_server => world.prepare(before, true),
        _ => {
            world.prepare(&everything, false);
            world.prepare(before, false);
        }
    }
    let mut wrong = Vec::new();
    for example in &examples {
        let mut pasted = world.pasted(&world.with_hint(example), is_of_server);
        let (code, shown) = match writes_to {
            WritesTo::Pipe => {
                let Output { status, stderr, .. } = pasted.output().unwrap();
                (status.code(), String::from_utf8(stderr).unwrap())
            }
            WritesTo::Terminal => {
                let Shown { text, code } = SMALL.run(&mut pasted);
                (code, text)
            }
        };
        if code.is_none_or(|code| !codes.contains(&code)) {
            wrong.push(format!(
                "{name} to a {writes_to:?}: {example}\n{code:?} {shown}"
            ));
        }
        if let (WritesTo::Terminal, Some(line)) = (writes_to, flaw(&shown)) {
            wrong.push(format!("{example}\n{line:?}\n{shown}"));
        }
    }
    drop(world.test_store);
    wrong
}

/// The first line of a screen that the terminal breaks in the middle of a word, or that a terminal without colours garbles.
fn flaw(shown: &str) -> Option<&str> {
    // What shows progress is wiped again.
    let mut lines = shown
        .split(['\n', '\r'])
        .map(|line| line.trim_start_matches("\x1b[K"));
    lines.find(|line| {
        // What is to be copied is whole: an API key, and the command to go on with.
        let is_whole = !line.trim().contains(' ') || line.contains("claviger ");
        // A log is read by programs too, so its lines are not broken.
        let is_log = line.starts_with("20") && line.contains("Z ");
        let fits = columns(line) <= usize::from(SMALL.columns);
        !(fits || is_whole || is_log) || line.contains('\x1b')
    })
}

/// Seen red with a time in the future in an example of `keys revoke-all`, and with a pruning that is refused in one of `diff`.
#[test]
fn every_example_of_every_help_page_runs_as_it_stands_piped_and_at_a_terminal() {
    let pages: Vec<_> = commands(&[])
        .into_iter()
        .flat_map(|page| [(page.clone(), WritesTo::Pipe), (page, WritesTo::Terminal)])
        .collect();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while let Some((page, writes_to)) =
                        pages.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        wrong.lock().unwrap().extend(run_page(page, *writes_to));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The blocks of `docs/realms.md`, one after the other.
#[test]
fn the_page_about_realms_is_true_as_it_stands() {
    let world = World::new();
    for (heading, index) in [
        ("## The parts", 0),
        ("## Change a realm", 0),
        ("## Change a realm", 1),
    ] {
        world.prepare(&block_of_page("docs/realms.md", heading, index), false);
    }
}

/// What the parser says about a line that it does not take.
const REFUSED: [&str; 6] = [
    "unexpected argument",
    "unrecognized subcommand",
    "required arguments were not provided",
    "requires a subcommand",
    "invalid value",
    "cannot be used with",
];

/// Without a server nothing is done, but each command line is read. Seen red with a value that is none.
#[test]
fn every_command_of_the_documents_is_one_that_the_program_takes() {
    let dir = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_claviger")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let lines: Vec<_> = command_lines()
        .into_iter()
        .filter(|(_, line)| {
            let command = line.split_whitespace().nth(1).unwrap_or_default();
            !["serve", "bootstrap", "migrate", "doctor", "canary"].contains(&command)
        })
        .collect();
    assert!(lines.len() > 50, "{}", lines.len());
    for (page, line) in lines {
        let mut bash = Command::new("timeout");
        let output = without_variables(&mut bash)
            .args(["20", "bash", "-c", &line])
            .current_dir(dir.path())
            .env("PATH", &path)
            .env("CLAVIGER_ENDPOINT", "127.0.0.1:1")
            .env("CLAVIGER_KEY", "none")
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        // A value such as TIME stands for the reader's own.
        let stands_for = |line: &str| {
            let value = line.split('\'').nth(1).unwrap_or_default();
            line.contains("invalid value") && value.chars().all(|c| c.is_ascii_uppercase())
        };
        let refused = complaint
            .lines()
            .filter(|line| !stands_for(line))
            .any(|line| REFUSED.iter().any(|refused| line.contains(refused)));
        assert!(!refused, "{page}: {line}\n{complaint}");
    }
}
