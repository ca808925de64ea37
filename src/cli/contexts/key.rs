//! The API key of a context: stored in the contexts file, in a separate file, or printed by a command.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::cli::api_key::ApiKey;
use crate::cli::failure::Failure;
use crate::cli::key_file::read_key;
use crate::cli::{redact, text};

/// Where the API key of a context is.
#[derive(Clone)]
pub(in crate::cli) enum ContextKey {
    /// In the file of the contexts.
    Stored(ApiKey),
    /// In a separate file.
    File(PathBuf),
    /// A program prints it: the program and its arguments, which no shell reads.
    Command(Vec<String>),
}

impl ContextKey {
    /// Where the API key of this context comes from, for people.
    pub(in crate::cli) fn source(&self, context: &str) -> String {
        match self {
            Self::Stored(_) => format!("context {context}"),
            Self::File(path) => format!("the file {} of context {context}", path.display()),
            Self::Command(line) => format!("the command `{}` of context {context}", program(line)),
        }
    }

    /// Where the API key is, in a few words without the name of the context.
    pub(in crate::cli) fn place(&self) -> String {
        match self {
            Self::Stored(_) => "stored".to_owned(),
            Self::File(path) => format!("file {}", path.display()),
            Self::Command(line) => format!("command {}", program(line)),
        }
    }

    /// Returns the API key: reads the file, or runs the command.
    pub(in crate::cli) fn read(&self, context: &str) -> Result<ApiKey, Failure> {
        match self {
            Self::Stored(key) => Ok(key.clone()),
            Self::File(path) => read_key(path, "key_file"),
            Self::Command(line) => run(line).map_err(|why| {
                let program = program(line);
                Failure::usage(format!(
                    "the command `{program}` of context {context} {why}"
                ))
                .hint(format!(
                    "run it by hand, or log in again: claviger login --context {context}"
                ))
            }),
        }
    }
}

/// Runs a command without a shell, and returns what it prints. It may ask on the terminal, but standard input belongs to the caller:
/// it may have a key to verify.
fn run(line: &[String]) -> Result<ApiKey, String> {
    let (program, arguments) = line.split_first().ok_or("is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    // Its end of the pipe closes with it, so that a program that prints without an end gets an error.
    let key = child.stdout.take().map(ApiKey::read);
    let status = child
        .wait()
        .map_err(|error| format!("cannot be waited for: {error}"))?;
    if !status.success() {
        return Err(format!("has failed: {status}"));
    }
    key.unwrap_or_else(|| Ok(ApiKey::from(String::new())))
        .map_err(|error| format!("prints what cannot be read: {error}"))
}

/// The program of a command, without its arguments, which may be secret.
fn program(line: &[String]) -> String {
    let program = line.first().map_or("", String::as_str);
    text::plain(&redact::mask_keys(program, &[])).into_owned()
}

/// Shows neither the API key nor the arguments of the command.
impl fmt::Debug for ContextKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stored(_) => "Stored",
            Self::File(_) => "File",
            Self::Command(_) => "Command",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(line: &[&str]) -> Result<String, String> {
        let line: Vec<_> = line.iter().map(|&word| word.to_owned()).collect();
        run(&line).map(|key| key.reveal().to_owned())
    }

    #[test]
    fn a_command_is_run_without_a_shell() {
        assert_eq!(printed(&["echo", "$HOME; `id`"]).unwrap(), "$HOME; `id`");
        assert_eq!(printed(&["true"]).unwrap(), "");
        assert!(printed(&["false"]).unwrap_err().starts_with("has failed"));
        let absent = printed(&["/absent/program", "secret"]).unwrap_err();
        assert!(absent.starts_with("cannot be run"), "{absent}");
        // It reads no input, and one without an end is ended.
        assert_eq!(printed(&["cat"]).unwrap(), "");
        assert!(printed(&["yes"]).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        for key in [
            ContextKey::Stored(ApiKey::from("secret".to_owned())),
            ContextKey::Command(vec!["pass".to_owned(), "secret".to_owned()]),
        ] {
            let shown = format!("{key:?} {} {}", key.source("prod"), key.place());
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
