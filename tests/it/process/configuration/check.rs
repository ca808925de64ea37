//! `--check-config`. What it says of certificates is tested in `tests/it/tls/start.rs`.

use std::fs;

use super::{BAD_CONFIGURATION, Machine};

const CORRECT: &str = "the configuration is correct\n";

/// What the check finds wrong with these flags.
fn found(machine: &Machine, flags: &[&str]) -> String {
    let outcome = machine.run(&[&["serve", "--check-config"], flags].concat());
    assert_eq!(outcome.code, Some(BAD_CONFIGURATION), "{outcome:?}");
    assert_eq!(outcome.printed, "");
    outcome.said
}

/// Seen red with a check that makes the data directory.
#[test]
fn a_correct_configuration_needs_no_store_and_makes_none() {
    let machine = Machine::new();
    // Taken, and the check does not listen.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let pepper = machine.write(
        "pepper.toml",
        &format!("[peppers]\n1 = \"{}\"\n", "ab".repeat(32)),
    );
    for flags in [
        &[][..],
        &["--init"],
        &["--listen", &address],
        &["--listen", "0.0.0.0:7700", "--insecure-listen"],
        &["--pepper-file", &pepper],
        // It need not answer.
        &[
            "--database-url",
            "postgres://claviger@127.0.0.1:1/claviger",
            "--pepper-file",
            &pepper,
        ],
        &[
            "--database-url",
            "postgres://claviger@127.0.0.1:1/claviger",
            "--pepper-file",
            "new.toml",
            "--init",
        ],
    ] {
        let outcome = machine.run(&[&["serve", "--check-config"], flags].concat());
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert_eq!(outcome.printed, CORRECT);
        // A volume that is not mounted looks like this.
        let needs_init = !flags.contains(&"--init") && !flags.contains(&"--database-url");
        assert_eq!(outcome.said.contains("there is no authority"), needs_init);
        assert_eq!(outcome.said.lines().count(), usize::from(needs_init));
        let names: Vec<_> = fs::read_dir(machine.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["pepper.toml"], "nothing was made");
    }
    let both = machine.run(&["serve", "--print-config", "--check-config"]);
    let comment = format!("# {CORRECT}");
    assert_eq!(both.printed, machine.printed(&[]) + &comment);
}

/// Seen red without the checks of the log, of the addresses and of the certificates.
#[test]
fn everything_that_is_wrong_is_found_at_once() {
    let machine = Machine::new();
    machine.write("data", "a file");
    let said = found(
        &machine,
        &[
            "--log=claviger=loud",
            "--argon2-memory=1",
            "--data-dir=data",
            "--pepper-file=data",
            "--listen=0.0.0.0:7700",
            "--http-listen=0.0.0.0:7700",
            "--tls-key=absent.key",
            "--max-connections=1",
        ],
    );
    for complaint in [
        "error: --log claviger=loud",
        "error: --argon2-memory must be at least 8 KiB",
        "error: cannot use data: not a directory",
        "error: the pepper file data is not valid",
        "error: --listen 0.0.0.0:7700 can be reached from other machines",
        "error: --http-listen 0.0.0.0:7700 can be reached from other machines",
        "error: --listen 0.0.0.0:7700 and --http-listen 0.0.0.0:7700 are the same: choose another port",
        "error: --tls-key needs --tls-cert",
        "warning: --max-connections-per-address 256 is more than --max-connections 1",
    ] {
        assert!(said.contains(complaint), "{complaint}: {said}");
    }
    assert_eq!(said.lines().count(), 9, "{said}");
}

/// What the start would only find when it listens. Seen red with addresses that are compared as text, and without a look at the path.
#[test]
fn addresses_and_paths_that_cannot_be_listened_on_are_found() {
    let machine = Machine::new();
    machine.write("file", "a file");
    let long = format!("--unix-socket={}", "x".repeat(200));
    for (flags, complaint) in [
        (
            &[
                "--listen=127.0.0.1:7702",
                "--admin-listen=0.0.0.0:7702",
                "--insecure-listen",
            ][..],
            "are the same",
        ),
        (
            &[
                "--listen=[::]:7702",
                "--http-listen=0.0.0.0:7702",
                "--insecure-listen",
            ],
            "are the same",
        ),
        (
            &["--unix-socket=absent/claviger.sock"],
            "the directory does not exist",
        ),
        (&["--unix-socket=file"], "the file exists and is no socket"),
        (&[&long], "cannot listen on"),
    ] {
        let said = found(&machine, &[flags, &["--init"]].concat());
        assert!(said.contains(complaint), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Seen red with a pepper file that need not exist.
#[test]
fn a_missing_pepper_is_found_if_there_may_be_a_store() {
    let machine = Machine::new();
    let url = "--database-url=postgres://claviger@127.0.0.1:1/claviger";
    for (flags, complaint) in [
        (&[url][..], "--database-url needs a pepper file"),
        (&[url, "--init"], "--database-url needs a pepper file"),
        (
            &[url, "--pepper-file=absent"],
            "the pepper file absent is missing",
        ),
        (
            &[
                "--database-url=postgres://claviger@127.0.0.1:port/claviger",
                "--init",
                "--pepper-file=absent",
            ],
            "--database-url cannot be read",
        ),
        (
            &[
                "--database-url=postgres://claviger@db.example.com/claviger?sslmode=require",
                "--init",
                "--pepper-file=absent",
            ],
            "set sslmode=verify-full",
        ),
    ] {
        let said = found(&machine, flags);
        assert!(said.contains(complaint), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let first = machine.run(&[
        "bootstrap",
        "--argon2-memory=8",
        "--argon2-passes=1",
        "--data-dir=data",
    ]);
    assert_eq!(first.code, Some(0), "{first:?}");
    let check = ["serve", "--check-config", "--data-dir=data"];
    assert_eq!(machine.run(&check).printed, CORRECT);
    fs::rename(
        machine.path("data/pepper.toml"),
        machine.path("pepper.toml"),
    )
    .unwrap();
    for flags in [&["--data-dir=data"][..], &["--data-dir=data", "--init"]] {
        let said = found(&machine, flags);
        assert!(
            said.contains("the pepper file data/pepper.toml is missing"),
            "{said}"
        );
    }
}
