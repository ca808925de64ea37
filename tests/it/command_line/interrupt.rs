//! Ctrl-C in an import.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read as _};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::shell_with_demo;
use crate::fixtures::claviger;

const LINES: usize = 600;

/// Seen red with an import that does not look at the signal.
#[test]
fn an_import_that_is_interrupted_says_what_is_in_and_goes_on_later() {
    let (test_store, shell) = shell_with_demo();
    let file = test_store.data().join("keys.csv");
    let mut csv = "plain_key,partner,level\n".to_owned();
    for number in 0..LINES {
        let _ = writeln!(csv, "Zq7RkfP0vJ2mYc81-{number:05},acme,partner");
    }
    std::fs::write(&file, csv).unwrap();
    let file = file.to_str().unwrap();
    let words = ["keys", "import", file, "--batch", "10"];
    let mut child = claviger(&words)
        .env("CLAVIGER_ENDPOINT", &shell.program.address)
        .env("CLAVIGER_KEY", &shell.operator)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    // The estimate comes after the first batch.
    while !told.contains("new lines a second") {
        let read = stderr.read_line(&mut told).unwrap();
        assert!(read > 0, "{told}");
    }
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    stderr.read_to_string(&mut told).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{told}");
    let said = String::from_utf8(output.stdout).unwrap();
    let last = told.lines().last().unwrap();
    let (in_file, rest) = last
        .strip_prefix("stopped: ")
        .and_then(|rest| rest.split_once(" of 600 are in. "))
        .unwrap_or_else(|| panic!("{told}"));
    assert_eq!(rest, "The same command goes on from here.");
    let in_file: usize = in_file.parse().unwrap();
    assert!(
        (10..LINES).contains(&in_file) && in_file.is_multiple_of(10),
        "{told}"
    );
    assert!(
        said.starts_with(&format!("imported       {in_file}\n")),
        "{said}"
    );

    let summary = shell.json(&words.join(" "), "", 0);
    assert_eq!(summary["already_there"], in_file, "{summary}");
    assert_eq!(summary["imported"], LINES - in_file, "{summary}");
    assert!(summary["stopped"].is_null(), "{summary}");
}
