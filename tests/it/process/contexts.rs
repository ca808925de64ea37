//! Contexts: `login`, `logout`, `context`, `use` and `whoami`, and what commands take from a context.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;

use crate::fixtures::{Engine, Program, SMALL, Terminal, TestStore, claviger, outcome};

/// A user with a home, and a server.
struct User {
    home: tempfile::TempDir,
    program: Program,
    operator: String,
    _test_store: Arc<TestStore>,
}

/// What a command says: its exit code, its answer, and what it complains of.
type Said = (Option<i32>, String, String);

impl User {
    fn new() -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, &[]);
        let operator = program.operator();
        Self {
            home: tempfile::tempdir().unwrap(),
            program,
            operator,
            _test_store: test_store,
        }
    }

    /// A user who has logged in.
    fn logged_in() -> Self {
        let user = Self::new();
        let address = user.program.address.clone();
        let login = user.says(&["login", "--endpoint", &address], &user.operator, 0);
        assert!(login.starts_with("Logged in to http://"), "{login}");
        user
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("claviger/contexts.toml")
    }

    fn write(&self, content: &str) {
        fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        fs::write(self.file(), content).unwrap();
        fs::set_permissions(self.file(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = claviger(words);
        command.env("XDG_CONFIG_HOME", self.home.path());
        command
    }

    fn run(&self, words: &[&str], variables: &[(&str, &str)], input: &str) -> Said {
        use std::io::Write as _;
        let mut command = self.command(words);
        command
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        said(&child.wait_with_output().unwrap())
    }

    fn says(&self, words: &[&str], input: &str, code: i32) -> String {
        let (found, said, complaint) = self.run(words, &[], input);
        assert_eq!(found, Some(code), "{words:?}\n{said}\n{complaint}");
        if code == 0 { said } else { complaint }
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[words, &["--json"]].concat(), "", 0)).unwrap()
    }

    /// Makes a realm with two environments and a partner.
    fn make_realm(&self, realm: &str) {
        let scopes = ["--scope", "read", "--scope", "write"];
        let environments = [
            "--environment",
            "production=live",
            "--environment",
            "staging=test",
        ];
        let put = ["realm", "put", realm, "--prefix", realm];
        self.says(&[&put[..], &environments, &scopes].concat(), "", 0);
        self.says(&["partner", "put", "acme", "--realm", realm], "", 0);
    }
}

fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// Seen red without the reasons of refusals.
#[test]
fn a_login_keeps_the_key_for_later_commands() {
    let user = User::new();
    let address = user.program.address.clone();
    let (code, _, complaint) = user.run(&["realm", "list"], &[], "");
    assert_eq!(code, Some(2));
    assert!(
        complaint.contains("hint: claviger login, or --key-file FILE"),
        "{complaint}"
    );

    let wrong = user.says(&["login", "--endpoint", &address], "claviger_main_wrong", 1);
    assert!(
        wrong.contains("does not know your key; nothing was kept\n")
            && wrong.ends_with("; this one came from standard input\n"),
        "{wrong}"
    );
    assert!(!user.file().exists());

    let said = user.says(
        &["login", "--endpoint", &address],
        &format!("{}\n", user.operator),
        0,
    );
    assert!(
        said.contains("as \"first operator\" (claviger_main_"),
        "{said}"
    );
    assert!(!said.contains(&user.operator));
    assert_eq!(mode(&user.file()), 0o600);
    assert_eq!(mode(user.file().parent().unwrap()), 0o700);
    user.says(&["realm", "list"], "", 0);

    // Another one. The first one stays, and is not the current one any more.
    let login = [
        "login",
        "-c",
        "second",
        "--endpoint",
        &address,
        "--realm",
        "demo",
    ];
    user.says(&login, &user.operator, 0);
    let list = user.json(&["context", "list"]);
    assert_eq!(list["current"], "second");
    let names: Vec<_> = list["contexts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|context| &context["name"])
        .collect();
    assert_eq!(names, ["default", "second"]);
    let who = user.json(&["whoami"]);
    assert_eq!(
        (&who["context"], &who["role"]),
        (&"second".into(), &"operator".into())
    );
    let shown = user.says(&["whoami", "--context", "default"], "", 0);
    for fact in [
        "context   default\n",
        "key from  context default\n",
        "role      operator\n",
    ] {
        assert!(shown.contains(fact), "{shown}");
    }
    user.says(&["use", "default", "--realm", "other"], "", 0);
    user.says(&["context", "use", "second"], "", 0);
    let table = user.says(&["context", "list"], "", 0);
    assert!(
        table.contains("second (current)") && table.contains("other"),
        "{table}"
    );
    assert!(!table.contains(&user.operator));

    // A new key for the same context keeps what is not named.
    user.says(&["login"], &user.operator, 0);
    assert_eq!(
        user.json(&["context", "list"])["contexts"][1]["realm"],
        "demo"
    );
    let other = user.says(&["login", "--endpoint", "127.0.0.1:1"], &user.operator, 2);
    assert!(
        other.contains("the current context second is for http://"),
        "{other}"
    );

    let refusal = user.says(&["logout"], "", 2);
    assert!(refusal.contains("--yes"), "{refusal}");
    let gone = user.says(&["logout", "--yes"], "", 0);
    assert!(gone.starts_with("Removed the context second."), "{gone}");
    assert_eq!(user.json(&["context", "list"])["current"], Value::Null);
    user.says(&["realm", "list"], "", 2);
    user.says(&["realm", "list", "-c", "default"], "", 0);
    let unknown = user.says(&["realm", "list", "-c", "second"], "", 2);
    assert!(
        unknown.contains("no context `second`\nhint: the contexts: default"),
        "{unknown}"
    );
}

#[test]
fn the_server_is_that_of_a_flag_or_a_variable_or_the_context() {
    let user = User::logged_in();
    // Which of the addresses is called, by the error.
    let at = |host: u8| format!("127.0.0.{host}:1");
    let (flag, variable, context) = (at(2), at(3), at(4));
    user.write(&format!(
        "current = \"a\"\n[contexts.a]\nendpoint = \"{context}\"\nkey = \"k\"\n"
    ));
    let list = ["realm", "list"];
    let with_flag = [&list[..], &["--endpoint", &flag]].concat();
    let exported: &[_] = &[
        ("CLAVIGER_ENDPOINT", variable.as_str()),
        ("CLAVIGER_KEY", "k"),
    ];
    for (words, variables, server) in [
        (&with_flag[..], exported, flag.clone()),
        (&list, exported, variable.clone()),
        (
            &list,
            &[("CLAVIGER_ENDPOINT", "")],
            format!("{context} (context a)"),
        ),
        (&list, &[], format!("{context} (context a)")),
    ] {
        let (code, _, complaint) = user.run(words, variables, "");
        let expected =
            format!("error: no answer from {server}: connection refused\nhint: claviger serve, or");
        assert!(complaint.starts_with(&expected), "{complaint}");
        assert_eq!(code, Some(1));
    }
    // The key of the context is for its server only.
    let (code, _, complaint) = user.run(&with_flag, &[], "");
    assert!(
        complaint.contains("the context a is for another server"),
        "{complaint}"
    );
    assert_eq!(code, Some(2));
}

/// Seen red with the context before the variable.
#[test]
fn the_key_is_that_of_a_flag_or_a_variable_or_the_context() {
    let user = User::logged_in();
    let list = ["realm", "list"];
    let good = fs::read_to_string(user.file()).unwrap();
    // Which key is used is told by the refusal.
    let good = good.replace(&user.operator, "claviger_main_kept");
    user.write(&good);
    let key_file = user.home.path().join("a.key");
    fs::write(&key_file, "claviger_main_in-a-file").unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let key_file = key_file.to_str().unwrap();
    let both = [
        ("CLAVIGER_KEY", "claviger_main_exported"),
        ("CLAVIGER_KEY_FILE", key_file),
    ];
    for (words, variables, source) in [
        (
            &["realm", "list", "--key", "claviger_main_typed"][..],
            &both[..],
            "--key".to_owned(),
        ),
        (
            &["realm", "list", "--key-file", key_file],
            &both,
            format!("the file {key_file}"),
        ),
        (&list, &both, "CLAVIGER_KEY".to_owned()),
        (&list, &both[1..], format!("the file {key_file}")),
        (&list, &[], "context default".to_owned()),
    ] {
        let (_, _, complaint) = user.run(words, variables, "");
        assert!(
            complaint.contains("does not know your key\n")
                && complaint.ends_with(&format!("; this one came from {source}\n")),
            "{complaint}"
        );
    }
}

/// Seen red with the context before the variable, and with the environment of the context in every realm.
#[test]
fn the_realm_and_the_environment_are_those_of_a_flag_or_a_variable_or_the_context() {
    let user = User::logged_in();
    user.make_realm("one");
    user.make_realm("two");
    let good = fs::read_to_string(user.file()).unwrap();
    let issue = [
        "keys",
        "issue",
        "--partner",
        "acme",
        "--level",
        "partner",
        "--json",
    ];
    let defaults = "realm = \"two\"\nenvironment = \"staging\"\n";
    let environment = ("CLAVIGER_ENVIRONMENT", "staging");
    for (defaults, flags, variables, expected) in [
        (defaults, &[][..], &[][..], "two staging"),
        (
            defaults,
            &["--environment", "production"],
            &[environment],
            "two production",
        ),
        (
            defaults,
            &["--realm", "one", "--environment", "production"],
            &[],
            "one production",
        ),
        (
            defaults,
            &[],
            &[("CLAVIGER_REALM", "one"), environment],
            "one staging",
        ),
        (
            defaults,
            &["--realm", "two"],
            &[("CLAVIGER_REALM", "one")],
            "two staging",
        ),
        ("realm = \"two\"\n", &[], &[environment], "two staging"),
        // The environment of the context is that of its realm.
        (defaults, &["--realm", "one"], &[], "--environment"),
        ("realm = \"one\"\n", &[], &[], "--environment"),
        (
            "",
            &["--environment", "production"],
            &[],
            "several: one, two",
        ),
    ] {
        user.write(&format!("{good}{defaults}"));
        let (code, said, complaint) = user.run(&[&issue, flags].concat(), variables, "");
        if code == Some(0) {
            let key: Value = serde_json::from_str(&said).unwrap();
            let key = &key["key"];
            let found = format!(
                "{} {}",
                key["realm"].as_str().unwrap(),
                key["environment"].as_str().unwrap()
            );
            assert_eq!(found, expected, "{defaults:?} {flags:?} {variables:?}");
        } else {
            let expected = expected.trim_start_matches("--");
            assert!(
                complaint.contains(expected),
                "{defaults:?} {flags:?} {variables:?}: {complaint}"
            );
        }
    }
    // The built-in realm has one environment, and the context's realm has no say in it.
    let operators = [
        "keys", "issue", "--realm", "claviger", "--scope", "operator", "--json",
    ];
    user.write(&format!("{good}{defaults}"));
    let (code, ..) = user.run(&operators, &[environment], "");
    assert_eq!(code, Some(0));
}

/// Seen red without the warning.
#[test]
fn a_forgotten_variable_before_a_named_context_is_warned_of() {
    let user = User::logged_in();
    let exported = [("CLAVIGER_KEY", user.operator.as_str())];
    let (code, _, complaint) = user.run(&["realm", "list", "-c", "default"], &exported, "");
    assert_eq!(code, Some(0));
    assert_eq!(
        complaint,
        "warning: CLAVIGER_KEY is set and comes before the context default: unset CLAVIGER_KEY\n"
    );
    let by_variable = [exported[0], ("CLAVIGER_CONTEXT", "default")];
    let (code, _, complaint) = user.run(&["realm", "list"], &by_variable, "");
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
}

/// Seen red without the look at the mode.
#[test]
fn a_file_that_cannot_be_trusted_or_read_is_named_without_its_keys() {
    const KEY: &str = "claviger_main_4fzs3fzs3fzs3fzs3fzs3fz";
    let user = User::new();
    for (mode, content, part) in [
        (0o644, String::new(), "other users may read it"),
        (0o620, String::new(), "other users may change it"),
        (
            0o600,
            format!("[contexts.a]\nkey = \"{KEY}\n"),
            "contexts.toml: line 2, column",
        ),
        (
            0o600,
            format!("[contexts.a]\nkeys = \"{KEY}\"\n"),
            "line 2, column 1: unknown setting `keys`",
        ),
        (
            0o600,
            format!("{KEY} = 1\n"),
            "line 1, column 1: unknown name `***`",
        ),
        (
            0o600,
            "current = \"gone\"\n".to_owned(),
            "no context `gone`",
        ),
    ] {
        user.write(&content);
        fs::set_permissions(user.file(), fs::Permissions::from_mode(mode)).unwrap();
        for command in [
            &["realm", "list"][..],
            &["whoami"],
            &["context", "list"],
            &["login"],
        ] {
            let (code, said, complaint) = user.run(command, &[("CLAVIGER_KEY", KEY)], KEY);
            let is_not_stopped = match (mode, content.as_str()) {
                (0o600, "current = \"gone\"\n") => matches!(command, ["context", _] | ["login"]),
                // A list uses nothing of the file, and a login takes it away from its readers.
                (0o620, _) => command == ["context", "list"],
                (0o644, _) => matches!(command, ["context", _] | ["login"]),
                _ => false,
            };
            if is_not_stopped {
                assert_ne!(code, Some(2), "{command:?} {content}: {complaint}");
                continue;
            }
            assert_eq!(code, Some(2), "{command:?} {content}: {said} {complaint}");
            assert!(complaint.contains(part), "{complaint}");
            assert!(
                !complaint.contains("s3fz") && said.is_empty(),
                "{complaint}"
            );
        }
        // What calls no server does not care, and a server least of all.
        user.says(&["key", "new"], "", 0);
        let data = user.home.path().join("data");
        let settings = ["--data-dir", data.to_str().unwrap()];
        let check = outcome(user.command(&["serve", "--check-config"]).args(settings));
        assert!(check.status.success(), "{}", said_of(&check));
        let doctor = outcome(user.command(&["doctor"]).args(settings));
        assert!(
            !said_of(&doctor).contains("contexts"),
            "{}",
            said_of(&doctor)
        );
    }
    let (code, _, complaint) = user.run(&["serve", "-c", "a"], &[], "");
    assert_eq!(code, Some(2));
    assert!(
        complaint.contains("--context is only for the commands that call"),
        "{complaint}"
    );
}

/// Seen red with an error instead of the warning.
#[test]
fn what_needs_nothing_of_the_file_goes_on_without_it() {
    let user = User::new();
    let address = user.program.address.clone();
    let key = ("CLAVIGER_KEY", user.operator.as_str());
    for (mode, content, why) in [
        (0o644, "", "other users may read it"),
        (0o622, "", "other users may change it"),
        (0o600, "currant = \"a\"\n", "unknown name `currant`"),
        (0o600, "current = \"gone\"\n", "no context `gone`"),
    ] {
        user.write(content);
        fs::set_permissions(user.file(), fs::Permissions::from_mode(mode)).unwrap();
        for command in [&["realm", "list"][..], &["whoami"]] {
            let words = [command, &["--endpoint", &address]].concat();
            let (code, _, complaint) = user.run(&words, &[key], "");
            assert_eq!(code, Some(0), "{complaint}");
            assert!(
                complaint.starts_with("warning: ")
                    && complaint.contains(why)
                    && complaint.contains("; the command goes on without a context\nhint: "),
                "{complaint}"
            );
            // A context that is named is needed.
            let words = [command, &["--endpoint", &address, "-c", "gone"]].concat();
            assert_eq!(user.run(&words, &[key], "").0, Some(2));
        }
        let (code, _, complaint) = user.run(&["healthcheck", "--endpoint", &address], &[], "");
        assert_eq!((code, complaint.as_str()), (Some(0), ""));
        let (code, _, complaint) = user.run(&["realm", "list", "--help"], &[], "");
        assert_eq!((code, complaint.as_str()), (Some(0), ""));
    }

    // The list only shows, and says that commands refuse the file.
    user.write("current = \"gone\"\n[contexts.a]\n");
    fs::set_permissions(user.file(), fs::Permissions::from_mode(0o666)).unwrap();
    let (code, said, complaint) = user.run(&["context", "list"], &[], "");
    assert!(code == Some(0) && said.contains("KEY\na "), "{said}");
    for part in [
        "commands do not use it: chmod 600 /",
        "`gone` does not exist",
    ] {
        assert!(complaint.contains(part), "{complaint}");
    }
    // What others may have written is not made one's own.
    let login = ["login", "--endpoint", &address];
    user.says(&login, &user.operator, 2);
    fs::set_permissions(user.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, complaint) = user.run(&login, &[], &user.operator);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(
        complaint.starts_with("warning: other users could read /"),
        "{complaint}"
    );
    assert_eq!(mode(&user.file()), 0o600);
}

fn said_of(output: &Output) -> String {
    let (_, said, complaint) = said(output);
    said + &complaint
}

/// Seen red without the warning.
#[test]
fn a_key_stays_in_its_file_or_comes_from_a_command() {
    let user = User::new();
    let address = user.program.address.clone();
    let key_file = user.home.path().join("my key; true");
    fs::write(&key_file, format!("{}\n", user.operator)).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let path = key_file.to_str().unwrap();
    let login = ["login", "--endpoint", &address];
    for (name, flags) in [
        ("a", &["--key-file", path][..]),
        ("b", &["--", "cat", path]),
    ] {
        let said = user.says(&[&login[..], &["-c", name], flags].concat(), "", 0);
        assert!(said.contains("without the API key"), "{said}");
        // Standard input is the command's own.
        let verify = user.says(&["verify", "--realm", "claviger"], &user.operator, 0);
        assert!(
            verify.starts_with("allowed") || verify.starts_with("denied"),
            "{verify}"
        );
    }
    let content = fs::read_to_string(user.file()).unwrap();
    assert!(!content.contains(&user.operator), "{content}");
    assert!(content.contains("key_command = [\"cat\", "), "{content}");
    user.says(&["logout", "b"], "", 0);

    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o644)).unwrap();
    let warning = format!(
        "warning: every user of this machine can read {path} and the API key in it: chmod o-r {path}\n"
    );
    for words in [
        &["realm", "list", "-c", "a"][..],
        &["realm", "list", "--endpoint", &address, "--key-file", path],
    ] {
        let (code, _, complaint) = user.run(words, &[], "");
        assert_eq!((code, &complaint), (Some(0), &warning));
    }
    user.write(&format!(
        "[contexts.c]\nendpoint = \"{address}\"\nkey_command = [\"false\", \"secret\"]\n"
    ));
    let refusal = user.says(&["realm", "list", "-c", "c"], "", 2);
    assert!(
        refusal.starts_with("error: the command `false` of context c has failed"),
        "{refusal}"
    );
    assert!(!refusal.contains("secret"), "{refusal}");
}

/// Seen red with a key that is typed before the terminal hides it.
#[test]
fn a_newcomer_pastes_the_key_that_the_server_shows() {
    let test_store = TestStore::on(Engine::Sqlite);
    let home = tempfile::tempdir().unwrap();
    let data = test_store.data();
    let mut serve = claviger(&["serve", "--init", "--data-dir", data.to_str().unwrap()]);
    serve.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    serve.args(["--argon2-memory", "8", "--argon2-passes", "1"]);
    let server = Terminal::run(&serve);
    server.wait_for("keys loaded");
    let shown = server.shown().replace("\r\n", "\n");
    let lines: Vec<_> = shown.lines().collect();
    let key = lines
        .iter()
        .find(|line| line.starts_with("claviger_main_"))
        .unwrap();
    let commands: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix(&format!("    {} ", env!("CARGO_BIN_EXE_claviger"))))
        .collect();
    assert!(!shown.contains("export") && commands.len() == 2, "{shown}");
    assert!(
        commands[0].starts_with("login --endpoint http://127.0.0.1:"),
        "{shown}"
    );

    let words: Vec<_> = commands[0].split_whitespace().collect();
    let mut login = claviger(&words);
    login.env("XDG_CONFIG_HOME", home.path());
    let mut second = Terminal::run(&login);
    second.wait_for("(it is not shown): ");
    second.wait_until_hidden();
    second.enter(&format!("{key}\n"));
    let (code, said) = second.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("Logged in to") && !said.contains(&key[20..]),
        "{said}"
    );
    let words: Vec<_> = commands[1].split_whitespace().collect();
    let mut put = claviger(&words);
    let put = put.env("XDG_CONFIG_HOME", home.path()).output().unwrap();
    assert!(put.status.success(), "{}", said_of(&put));

    // Removed only after a yes, because the file may be the only place with the key.
    for (answer, code) in [("n\n", Some(1)), ("y\n", Some(0))] {
        let mut logout = claviger(&["logout"]);
        logout.env("XDG_CONFIG_HOME", home.path());
        let mut terminal = Terminal::run(&logout);
        terminal.wait_for("[y/N]");
        terminal.enter(answer);
        assert_eq!(terminal.end().0, code);
    }
}

/// Seen red with what `login` and `logout` have read before they ask.
#[test]
fn what_another_command_sets_during_a_question_is_not_lost() {
    let user = User::logged_in();
    let set = |setting: &str| {
        let content = fs::read_to_string(user.file()).unwrap();
        user.write(&format!("{content}{setting}\n"));
    };
    let mut login = Terminal::run(&user.command(&["login"]));
    login.wait_for("(it is not shown): ");
    login.wait_until_hidden();
    user.says(&["use", "default", "--realm", "demo"], "", 0);
    login.enter(&format!("{}\n", user.operator));
    let (code, said) = login.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        user.json(&["context", "list"])["contexts"][0]["realm"],
        "demo"
    );

    // The end of another key is not what was agreed to.
    let mut logout = Terminal::run(&user.command(&["logout"]));
    logout.wait_for("[y/N]");
    let good = fs::read_to_string(user.file()).unwrap();
    user.write(&good.replace(&user.operator, "claviger_main_newer"));
    logout.enter("y\n");
    let (code, said) = logout.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("got another API key"), "{said}");
    assert!(!said.contains("newer"), "{said}");
    // Another setting does not matter.
    let mut logout = Terminal::run(&user.command(&["logout"]));
    logout.wait_for("[y/N]");
    set("environment = \"staging\"");
    logout.enter("y\n");
    let (code, said) = logout.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        user.json(&["context", "list"])["contexts"],
        Value::Array(Vec::new())
    );
}

/// Seen red with the path as it was typed.
#[test]
fn a_command_is_found_from_every_directory() {
    let user = User::new();
    let address = user.program.address.clone();
    let script = user.home.path().join("print-key");
    fs::write(&script, format!("#!/bin/sh\necho {}\n", user.operator)).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let absolute = script.to_str().unwrap();
    for (name, program) in [("relative", "./print-key"), ("absolute", absolute)] {
        let words = ["login", "-c", name, "--endpoint", &address, "--", program];
        let login = outcome(user.command(&words).current_dir(user.home.path()));
        assert!(login.status.success(), "{}", said_of(&login));
        let list = outcome(user.command(&["realm", "list"]).current_dir("/"));
        assert!(list.status.success(), "{}", said_of(&list));
    }
    let content = fs::read_to_string(user.file()).unwrap();
    assert!(
        !content.contains("\"./") && content.contains(absolute),
        "{content}"
    );
    // Only `login` knows the directory.
    user.write("[contexts.a]\nkey_command = [\"./print-key\"]\n");
    let refusal = user.says(&["realm", "list", "-c", "a"], "", 2);
    assert!(
        refusal.contains("by its name or its absolute path"),
        "{refusal}"
    );
}

/// Seen red without the context in `run_command`.
#[test]
fn a_list_on_a_terminal_names_the_context() {
    let user = User::logged_in();
    for (words, caption) in [
        (&["realm", "list"][..], "default  "),
        (
            &["keys", "list", "--realm", "claviger"],
            "default / realm claviger  ",
        ),
    ] {
        let shown = SMALL.run(&mut user.command(words)).text;
        assert!(shown.starts_with(caption), "{shown}");
    }
}

/// Seen red with the path as it was typed, and with paths compared without case.
#[test]
fn the_key_of_a_context_goes_to_its_own_socket_only() {
    let test_store = TestStore::on(Engine::Sqlite);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let program = Program::serve(&test_store, &["--unix-socket", socket.to_str().unwrap()]);
    let home = tempfile::tempdir().unwrap();
    let run = |words: &[&str], folder: &Path| {
        let mut command = claviger(words);
        command
            .env("XDG_CONFIG_HOME", home.path())
            .current_dir(folder);
        command
    };
    let login = ["login", "--endpoint", "unix:a.sock", "--key-file"];
    let key = folder.path().join("operator.key");
    fs::write(&key, program.operator()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let words = [&login[..], &[key.to_str().unwrap()]].concat();
    // Later in another directory, where another socket could have the name.
    for (words, folder) in [(&words[..], folder.path()), (&["whoami"], home.path())] {
        let (code, _, complaint) = said(&outcome(&mut run(words, folder)));
        assert_eq!(code, Some(0), "{complaint}");
    }
    let other = format!("unix:{}", folder.path().join("A.sock").display());
    let elsewhere = ["whoami", "--endpoint", &other];
    let (_, _, complaint) = said(&outcome(&mut run(&elsewhere, home.path())));
    assert!(complaint.contains("is for another server"), "{complaint}");
}

/// Seen red with the field looked for afterwards.
#[test]
fn a_field_that_no_answer_has_is_refused_before_the_change() {
    let user = User::logged_in();
    let before = fs::read_to_string(user.file()).unwrap();
    for words in [
        &["logout", "--yes", "--field", "nosuch"][..],
        &["use", "default", "--realm", "other", "--field", "nosuch"],
    ] {
        let (code, _, complaint) = user.run(words, &[], "");
        assert_eq!(code, Some(2), "{complaint}");
        assert!(complaint.contains("has no such field"), "{complaint}");
    }
    assert_eq!(fs::read_to_string(user.file()).unwrap(), before);
}
