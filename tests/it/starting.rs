//! What the program refuses to start with, and what it says then.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use claviger::pb::claviger::v1::Verdict;

use super::fixtures::{Api, Program, claviger, outcome};

const BAD_CONFIGURATION: i32 = 78;

/// Runs a command that ends by itself.
fn run(dir: &Path, args: &[&str]) -> Output {
    let data = dir.join("data");
    let mut line = args.to_vec();
    line.extend([
        "--data-dir",
        data.to_str().unwrap(),
        "--argon2-memory",
        "8",
        "--argon2-passes",
        "1",
    ]);
    if args[0] == "serve" {
        line.extend(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    }
    outcome(&mut claviger(&line))
}

fn refused(dir: &Path, args: &[&str], code: i32) -> String {
    let output = run(dir, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn an_empty_store_is_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let said = refused(dir.path(), &["serve"], BAD_CONFIGURATION);
    assert!(
        said.contains("--init") && said.contains("bootstrap") && said.contains("mounted"),
        "{said}"
    );
    assert!(!dir.path().join("data").exists());
    refused(dir.path(), &["bootstrap", "--recover"], BAD_CONFIGURATION);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Program::serve(dir.path(), &[]);
    for second in [
        ["serve"].as_slice(),
        &["serve", "--init"],
        &["bootstrap"],
        &["bootstrap", "--recover"],
    ] {
        let said = refused(dir.path(), second, BAD_CONFIGURATION);
        assert!(said.contains("another claviger process"), "{said}");
    }
}

#[test]
fn everything_in_the_directory_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _running = Program::serve(dir.path(), &[]);
    let data = dir.path().join("data");
    assert_eq!(
        fs::metadata(&data).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let mut names = Vec::new();
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let expected = [
        "claviger.db",
        "claviger.db-shm",
        "claviger.db-wal",
        "claviger.lock",
        "operator.key",
        "pepper.toml",
    ];
    assert_eq!(names, expected);
}

/// Seen red without the canary: the server then starts and calls every key unknown.
#[test]
fn a_missing_or_wrong_pepper_is_refused_and_the_right_one_still_works() {
    let dir = tempfile::tempdir().unwrap();
    drop(Program::serve(dir.path(), &[]));
    let pepper = dir.path().join("data/pepper.toml");
    let right = fs::read_to_string(&pepper).unwrap();

    fs::remove_file(&pepper).unwrap();
    for start in [["serve"].as_slice(), &["serve", "--init"]] {
        let said = refused(dir.path(), start, BAD_CONFIGURATION);
        assert!(
            said.contains("pepper") && said.contains("missing") && said.contains("Put it back"),
            "{said}"
        );
        assert!(
            !pepper.exists(),
            "no new pepper is made for an old database"
        );
    }

    let digits = right.split('"').nth(1).unwrap();
    fs::write(&pepper, right.replace(digits, &"ab".repeat(32))).unwrap();
    let said = refused(dir.path(), &["serve"], BAD_CONFIGURATION);
    assert!(said.contains("not the one of this database"), "{said}");
    assert!(!said.contains("abab"), "{said}");

    fs::write(&pepper, "nonsense").unwrap();
    refused(dir.path(), &["serve"], BAD_CONFIGURATION);

    fs::write(&pepper, right).unwrap();
    drop(Program::serve(dir.path(), &[]));
}

#[test]
fn bootstrap_prints_the_first_key_alone_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["bootstrap"]);
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    let key = printed.strip_suffix('\n').unwrap();
    assert!(key.starts_with("claviger_main_") && !key.contains(char::is_whitespace));

    let said = refused(dir.path(), &["bootstrap"], 1);
    assert!(said.contains("--recover"), "{said}");
    assert!(!dir.path().join("data/operator.key").exists());

    let output = run(dir.path(), &["bootstrap", "--recover"]);
    let other = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && other != printed);

    let program = Program::serve(dir.path(), &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for key in [key, other.trim()] {
            let mut api = Api::new(&program.address, key);
            api.make_demo().await;
            let issued = api.issue().await.plain_key;
            assert_eq!(api.verdict(&issued).await, Verdict::Allowed);
        }
    });
}

#[test]
fn a_bad_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let said = refused(
        dir.path(),
        &["serve", "--init", "--log", "claviger=loud"],
        BAD_CONFIGURATION,
    );
    assert!(said.contains("--log"), "{said}");
    refused(dir.path(), &["serve", "--listen", "nowhere"], 2);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = dir.path().join("data");
    let line = [
        "serve",
        "--init",
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        &address,
    ];
    let output = outcome(&mut claviger(&line));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("cannot listen") && said.contains("--listen"),
        "{said}"
    );
    assert!(!data.join("pepper.toml").exists(), "nothing was made");

    let said = refused(dir.path(), &["serve", "--json"], 2);
    assert!(said.contains("--json"), "{said}");
    refused(dir.path(), &["serve", "--init", "--poll-interval", "0s"], 2);
}
