//! What is around the program where it is installed: the health check, completions and man pages, the service manager, and the files
//! of `packaging/`.

mod container;
mod debian;
mod healthcheck;
mod help;
mod kubernetes;
mod service_manager;
mod units;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::fixtures::without_variables;

/// A file of `packaging/`.
fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(packaging(name)).unwrap()
}

/// Runs a command that must succeed, and returns what it prints.
fn succeeds(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = without_variables(command).output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(status.success(), "{command:?}\n{stdout}\n{stderr}");
    stdout
}
