//! Secrets from files and credentials, and that none is shown.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::{BAD_CONFIGURATION, Machine, line};
use crate::fixtures::{Engine, Program, TestStore, claviger};

const CANARY: &str = "kanarienvogel";
const OTHER: &str = "postgres://claviger@other/claviger";

/// Seen red with all white space trimmed, without the check for an empty file, and with a credential ignored that cannot be
/// reached.
#[test]
fn the_file_of_a_secret_holds_nothing_but_the_value() {
    for (text, complaint) in [
        ("", "is empty: write the value into it"),
        ("\n", "is empty: write the value into it"),
    ] {
        let mut machine = Machine::new();
        let file = machine.write("url", text);
        machine.set("CLAVIGER_DATABASE_URL_FILE", file.clone());
        let said = machine.refused(&[], BAD_CONFIGURATION);
        assert!(
            said.contains(&format!(
                "error: CLAVIGER_DATABASE_URL_FILE: {file} {complaint}"
            )),
            "{said}"
        );
        machine.variables.clear();
        let file = machine.write_credential("database-url", text);
        let said = machine.refused(&[], BAD_CONFIGURATION);
        assert!(
            said.contains(&format!(
                "error: credential database-url: {file} {complaint}"
            )),
            "{said}"
        );
    }
    let mut machine = Machine::new();
    machine.set("CLAVIGER_DATABASE_URL_FILE", "absent");
    let said = machine.refused(&[], BAD_CONFIGURATION);
    assert!(
        said.contains("CLAVIGER_DATABASE_URL_FILE: cannot read absent: "),
        "{said}"
    );
    fs::write(
        machine.path("absent"),
        [CANARY.as_bytes(), b"\xff"].concat(),
    )
    .unwrap();
    let said = machine.refused(&[], BAD_CONFIGURATION);
    assert!(
        said.contains("absent is not text in UTF-8") && !said.contains(CANARY),
        "{said}"
    );
    machine.variables.clear();
    machine.set("CREDENTIALS_DIRECTORY", "absent");
    let said = machine.refused(&[], BAD_CONFIGURATION);
    let complaint = "credential database-url: cannot read absent/database-url: ";
    assert!(
        said.contains(complaint) && said.contains("or unset it"),
        "{said}"
    );
    machine.variables.clear();
    machine.set("CLAVIGER_DATABASE_URL", "");
    let said = machine.refused(&[], BAD_CONFIGURATION);
    assert!(said.contains("CLAVIGER_DATABASE_URL is empty"), "{said}");
    machine.variables.clear();
    for (text, value) in [
        ("postgres://a@b/c", "postgres://a@b/c"),
        ("postgres://a@b/c\n", "postgres://a@b/c"),
        ("postgres://a@b/c\r\n", "postgres://a@b/c"),
    ] {
        let file = machine.write("url", text);
        machine.set("CLAVIGER_DATABASE_URL_FILE", file);
        let printed = machine.printed(&[]);
        assert_eq!(
            line(&printed, "database-url"),
            format!("database-url = \"{value}\"  # CLAVIGER_DATABASE_URL_FILE")
        );
    }
    // Whatever else is in the file is part of the value, which is then no simple URL.
    machine.write("url", "postgres://a@b/c\n\n");
    assert!(line(&machine.printed(&[]), "database-url").contains("\"***\""));
}

/// A server whose pepper is a credential that nobody may write. Seen red with only secrets taken from credentials.
#[test]
fn a_credential_can_be_the_pepper_file() {
    let test_store = TestStore::on(Engine::Sqlite);
    drop(Program::serve(&test_store, &[]));
    let mut machine = Machine::new();
    let pepper = fs::read_to_string(test_store.pepper()).unwrap();
    let file = machine.write_credential("pepper-file", &pepper);
    fs::remove_file(test_store.pepper()).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(machine.path("credentials"), Permissions::from_mode(0o500)).unwrap();
    let data = test_store.flags();
    let mut serve = claviger(&[
        "serve",
        &data[0],
        "--listen=127.0.0.1:0",
        "--http-listen=127.0.0.1:0",
    ]);
    let program = Program::start(serve.envs(&machine.variables), test_store.data());
    drop(program);
    let names = fs::read_dir(machine.path("credentials")).unwrap().count();
    assert_eq!(names, 1, "nothing was written beside it");
    fs::set_permissions(machine.path("credentials"), Permissions::from_mode(0o700)).unwrap();
}

/// Seen red with the URL printed as it is, and without `hide_env_values`.
#[test]
fn no_password_is_shown_wherever_it_comes_from() {
    let broken = [
        format!("postgres://claviger:{CANARY}@127.0.0.1:1/claviger"),
        format!("postgres://127.0.0.1:1/claviger?password={CANARY}"),
        format!("postgres://claviger:{CANARY}@127.0.0.1:port/claviger"),
        format!("postgres://claviger:x/{CANARY}@127.0.0.1:1/claviger"),
        format!("postgres://claviger:x?{CANARY}@127.0.0.1:1/claviger"),
        format!("postgres://claviger:1@{CANARY}@127.0.0.1:1/claviger"),
        format!("postgres://claviger:1#{CANARY}@127.0.0.1:1/claviger"),
        format!("postgres://claviger@127.0.0.1:1/claviger?pasword={CANARY}"),
        format!("mysql://claviger:{CANARY}@127.0.0.1:1/claviger"),
        CANARY.to_owned(),
    ];
    for url in &broken {
        for source in ["flag", "variable", "variable file", "credential", "file"] {
            let mut machine = Machine::new();
            machine.write(
                "pepper.toml",
                &format!("[peppers]\n1 = \"{}\"\n", "ab".repeat(32)),
            );
            let mut flags = vec![
                "--pepper-file=pepper.toml".to_owned(),
                "--log=trace".to_owned(),
            ];
            match source {
                "flag" => flags.push(format!("--database-url={url}")),
                "variable" => machine.set("CLAVIGER_DATABASE_URL", url),
                "variable file" => {
                    machine.write("url", url);
                    machine.set("CLAVIGER_DATABASE_URL_FILE", "url");
                }
                "credential" => drop(machine.write_credential("database-url", url)),
                _ => {
                    machine.write("c.toml", &format!("database-url = \"{url}\""));
                    fs::set_permissions(machine.path("c.toml"), Permissions::from_mode(0o644))
                        .unwrap();
                    flags.push("--config=c.toml".to_owned());
                }
            }
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            for command in [
                &["serve"][..],
                &["serve", "--print-config"],
                &["serve", "--check-config"],
                &["serve", "--help"],
            ] {
                let outcome = machine.run(&[command, &flags].concat());
                assert!(
                    !outcome.printed.contains(CANARY) && !outcome.said.contains(CANARY),
                    "{source} {url} {outcome:?}"
                );
                if command.contains(&"--print-config") {
                    let line = line(&outcome.printed, "database-url");
                    assert!(
                        line.starts_with("# database-url = ") && line.contains("***"),
                        "{line}"
                    );
                    assert!(line.contains("; the secret is masked"), "{line}");
                }
                if command.len() == 1 {
                    assert!(
                        matches!(outcome.code, Some(1 | BAD_CONFIGURATION)),
                        "{outcome:?}"
                    );
                    assert_eq!(
                        outcome
                            .said
                            .contains("every user of this machine can read it"),
                        source == "file",
                        "{outcome:?}"
                    );
                }
            }
        }
    }
}

/// Seen red with the errors of TOML as their parser displays them, and without `mask_urls`.
#[test]
fn no_password_is_shown_by_an_error_of_the_parser() {
    let url = format!("postgres://claviger:{CANARY}@db/claviger");
    for text in [
        format!("database-url = {url}"),
        format!("database-url = \"{url}"),
        format!("database-url = [[\"{url}\"]]"),
        format!("database-url = {{ url = \"{url}\" }}"),
        format!("databse-url = \"{url}\""),
        format!("listen = \"{url}\""),
        format!("init = \"{url}\""),
        format!("log-format = \"{url}\""),
        format!("database-url = \"{OTHER}\"\ndatabase-url = \"{url}\""),
    ] {
        let machine = Machine::new();
        let file = machine.write("c.toml", &text);
        let said = machine.refused(&["--config", &file], BAD_CONFIGURATION);
        assert!(!said.contains(CANARY), "{text}: {said}");
    }
    let machine = Machine::new();
    for flags in [
        &["serve", &url][..],
        &["serve", "--databse-url", &url],
        &["serve", "--listen", &url],
    ] {
        let outcome = machine.run(flags);
        assert_eq!(outcome.code, Some(2));
        assert!(!outcome.said.contains(CANARY), "{outcome:?}");
    }
    for variable in [
        "CLAVIGER_LISTEN",
        "CLAVIGER_MAX_CALLS",
        "CLAVIGER_LOG_FORMAT",
        "CLAVIGER_DATABSE_URL",
    ] {
        let mut machine = Machine::new();
        machine.set(variable, &url);
        let said = machine.refused(&[], BAD_CONFIGURATION);
        assert!(said.contains(variable) && !said.contains(CANARY), "{said}");
    }
}

/// Seen red with a warning for every file, and without any.
#[test]
fn a_file_with_a_password_that_every_user_can_read_is_warned_about() {
    let machine = Machine::new();
    let pepper = machine.write(
        "pepper.toml",
        &format!("[peppers]\n1 = \"{}\"\n", "ab".repeat(32)),
    );
    for (url, mode, warns) in [
        (
            format!("postgres://claviger:{CANARY}@127.0.0.1/claviger"),
            0o644,
            true,
        ),
        (
            format!("postgres://claviger:{CANARY}@127.0.0.1/claviger"),
            0o640,
            false,
        ),
        (
            "postgres://claviger@127.0.0.1/claviger".to_owned(),
            0o644,
            false,
        ),
    ] {
        let file = machine.write(
            "c.toml",
            &format!("pepper-file = \"{pepper}\"\ndatabase-url = \"{url}\""),
        );
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let outcome = machine.run(&["serve", "--check-config", "--config", &file]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let warning = format!(
            "warning: {file} has a secret (`database-url`), and every user of this machine can read it: chmod o-r"
        );
        assert_eq!(outcome.said.starts_with(&warning), warns, "{outcome:?}");
    }
}
