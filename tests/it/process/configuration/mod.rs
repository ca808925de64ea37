//! Where the settings of the server come from: flags, variables, files with secrets, systemd credentials, a configuration file.

mod check;
mod file;
mod precedence;
mod print;
mod secrets;
mod variables;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::fixtures::{claviger, outcome};

const BAD_CONFIGURATION: i32 = 78;
const WRONG_USE: i32 = 2;

/// The files and the variables of a command.
struct Machine {
    dir: TempDir,
    variables: BTreeMap<String, String>,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    printed: String,
    said: String,
}

impl Machine {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            variables: BTreeMap::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn set(&mut self, variable: &str, value: impl Into<String>) {
        self.variables.insert(variable.to_owned(), value.into());
    }

    /// Writes a credential, as systemd does.
    fn write_credential(&mut self, name: &str, value: &str) -> String {
        let path = self.write(&format!("credentials/{name}"), value);
        let directory = self.path("credentials").to_str().unwrap().to_owned();
        self.set("CREDENTIALS_DIRECTORY", directory);
        path
    }

    /// Runs a command that ends by itself, in the directory of the files.
    fn run(&self, args: &[&str]) -> Outcome {
        let mut command = claviger(args);
        command
            .current_dir(self.dir.path())
            .env_remove("CREDENTIALS_DIRECTORY")
            .envs(&self.variables);
        let output = outcome(&mut command);
        Outcome {
            code: output.status.code(),
            printed: String::from_utf8(output.stdout).unwrap(),
            said: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The settings in force of `serve` with these flags, as they are printed.
    fn printed(&self, flags: &[&str]) -> String {
        let outcome = self.run(&[&["serve", "--print-config"], flags].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.said);
        outcome.printed
    }

    /// What `serve` says when it refuses these flags. It says so as well when it only checks them.
    fn refused(&self, flags: &[&str], code: i32) -> String {
        let outcome = self.run(&[&["serve"], flags].concat());
        assert_eq!(outcome.code, Some(code), "{flags:?}: {outcome:?}");
        assert!(!self.path("claviger-data").exists(), "nothing was made");
        let checked = self.run(&[&["serve", "--check-config"], flags].concat());
        assert_eq!(checked.code, Some(code));
        // The parser shows how the flags are used, of which one is another now.
        let complaints = |said: &str| said.split("\n\nUsage:").next().map(str::to_owned);
        assert_eq!(complaints(&checked.said), complaints(&outcome.said));
        outcome.said
    }
}

/// The printed line of a setting, also if it is a comment.
fn line<'p>(printed: &'p str, name: &str) -> &'p str {
    let mut lines = printed.lines().filter(|line| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        line.split(" = ").next() == Some(name)
    });
    let line = lines.next().unwrap_or_else(|| panic!("{name}: {printed}"));
    assert!(lines.next().is_none(), "{name} is printed once");
    line
}
