//! The command line as its users type it: help, aliases, completions, and what commands print for people and for scripts.

mod answers;
mod completions;
mod examples;
mod interrupt;
mod pages;
mod resources;
mod status;

use std::sync::Arc;

use crate::fixtures::{Engine, Program, Shell, TestStore, claviger, outcome};

/// What a command prints that succeeds without a server.
fn prints(args: &[&str]) -> String {
    let output = outcome(&mut claviger(args));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command complains about that is used incorrectly.
fn complains(args: &[&str]) -> String {
    let output = outcome(&mut claviger(args));
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A server without a realm.
fn shell() -> (Arc<TestStore>, Shell) {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    (test_store, Shell { program, operator })
}

/// A server with the realm `demo`, the partner `acme` and its project `web`.
fn shell_with_demo() -> (Arc<TestStore>, Shell) {
    let (test_store, shell) = shell();
    let create = "realm create demo --prefix demo --environment production=live --scope read --scope write=read";
    shell.says(create, "", 0);
    shell.says("partner create acme", "", 0);
    shell.says("project create web --partner acme", "", 0);
    (test_store, shell)
}

/// The commands with a page of help, each with its words.
pub(crate) fn commands(path: &[String]) -> Vec<Vec<String>> {
    let mut line: Vec<&str> = path.iter().map(String::as_str).collect();
    line.push("--help");
    let help = prints(&line);
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
