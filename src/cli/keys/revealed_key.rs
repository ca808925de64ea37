//! Showing an API key, or writing it to a file. The server returns an API key only once.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::mem;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::response::ChangeResponse;
use crate::cli::text;
use crate::pb::claviger::v1::{IssueKeyResponse, Key, RotateKeyResponse, RotateSelfResponse};

/// A response with a new API key.
pub(super) trait RevealedKey: ChangeResponse {
    /// The verb for what was done with the key.
    const DONE: &'static str;

    /// The facts of the key.
    fn key(&self) -> Option<&Key>;

    /// The API key; empty in a replayed response.
    fn plain_key(&mut self) -> &mut String;

    /// Whether an earlier request with the same id made the change.
    fn is_replayed(&self) -> bool;
}

macro_rules! revealed_keys {
    ($($name:ident: $done:literal),*) => {
        $(impl RevealedKey for $name {
            const DONE: &'static str = $done;

            fn key(&self) -> Option<&Key> {
                self.key.as_ref()
            }

            fn plain_key(&mut self) -> &mut String {
                &mut self.plain_key
            }

            fn is_replayed(&self) -> bool {
                self.replayed
            }
        })*
    };
}

revealed_keys!(
    IssueKeyResponse: "issued",
    RotateKeyResponse: "rotated",
    RotateSelfResponse: "rotated"
);

/// The flags that say where the API key goes.
#[derive(Debug, Args)]
pub(super) struct OutputFlags {
    /// Write the API key to a new file that only you can read, instead of showing it.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// Print `key-only` on standard output: the API key and a newline, and everything else on standard error. This is the default
    /// where standard output is not a terminal. Not with --json.
    #[arg(long, value_name = "WHAT", conflicts_with = "output_file")]
    output: Option<Form>,
}

/// What standard output gets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    KeyOnly,
}

/// Where the API key will go.
#[derive(Debug)]
pub(super) enum KeyDestination {
    /// Standard output, with the facts of the key.
    Shown,
    /// Standard output, alone.
    KeyOnly,
    /// A new file.
    File(PathBuf),
}

/// A destination whose file exists.
pub(super) enum PreparedDestination {
    /// Standard output, with the facts of the key.
    Shown,
    /// Standard output, alone.
    KeyOnly,
    /// The new file.
    File(KeyFile),
}

impl OutputFlags {
    /// Returns the destination, without creating a file.
    pub(super) fn destination(self, output: &Output) -> Result<KeyDestination, Failure> {
        if self.output.is_some() {
            // `--json` may stand before the command, where the parser does not see that both are given.
            if output.is_json() {
                return Err(Failure::usage(
                    "--output key-only cannot be combined with --json: the JSON has the API key in `plain_key`",
                ));
            }
            return Ok(KeyDestination::KeyOnly);
        }
        if self.output_file.as_deref() == Some(Path::new("-")) {
            return Err(Failure::usage(
                "--output-file must name a file; without the flag, the API key is shown on standard output, and with `--output key-only` alone",
            ));
        }
        Ok(match self.output_file {
            Some(file) => KeyDestination::File(file),
            // A script reads standard output, and wants the API key.
            None if output.is_for_people() && !output.is_terminal() => KeyDestination::KeyOnly,
            None => KeyDestination::Shown,
        })
    }
}

impl KeyDestination {
    /// Creates the file before the API key is issued: an API key that cannot be written would be lost.
    pub(super) fn prepare(self) -> Result<PreparedDestination, Failure> {
        Ok(match self {
            Self::Shown => PreparedDestination::Shown,
            Self::KeyOnly => PreparedDestination::KeyOnly,
            Self::File(path) => PreparedDestination::File(KeyFile::create(path)?),
        })
    }
}

impl PreparedDestination {
    /// Shows the response with the API key, or without it once the API key is in its file. `describe` formats everything
    /// except the API key.
    pub(super) fn deliver<R: RevealedKey>(
        self,
        mut answer: R,
        output: &Output,
        describe: impl Fn(&R) -> String,
    ) -> Result<(), Failure> {
        if answer.plain_key().is_empty() {
            if !answer.is_replayed() {
                return Err(lost(&answer, "read", &"the answer does not contain it"));
            }
            if output.is_json() {
                // For a program the response is more useful than the error alone.
                output.show(&answer, describe)?;
            }
            return Err(replayed(&answer));
        }
        let file = match self {
            Self::File(file) => file,
            Self::KeyOnly => {
                output::print(&text::plain(answer.plain_key()))
                    .map_err(|error| lost(&answer, "shown", &error))?;
                output::print_error(&describe(&answer));
                return Ok(());
            }
            Self::Shown => {
                let plain_key = text::plain(answer.plain_key()).into_owned();
                return output
                    .render(&answer, |answer| shown(&describe(answer), &plain_key))
                    .and_then(|text| output::print(&text))
                    .map_err(|error| lost(&answer, "shown", &error));
            }
        };
        let name = file.path.display().to_string();
        let plain_key = mem::take(answer.plain_key());
        file.keep(&plain_key)
            .map_err(|error| lost(&answer, "written to the file", &error))?;
        output.show_change(&answer, |answer| {
            let note = format!(
                "The API key is in {}, and nowhere else.",
                text::plain(&name)
            );
            format!("{}\n\n{note}", describe(answer))
        })
    }
}

fn shown(description: &str, plain_key: &str) -> String {
    format!(
        "{description}\n\nThe API key, which is shown this once and stored nowhere:\n\n{plain_key}\n"
    )
}

/// The failure of a repeated request: the caller wants the API key, which no longer exists anywhere.
fn replayed<R: RevealedKey>(answer: &R) -> Failure {
    let id = answer.key().map_or("", |key| &key.id);
    Failure::failed(format!(
        "this request was made before: key {id} was {} then, and its API key cannot be shown again",
        R::DONE
    ))
    .hint(rotate_hint(id))
}

/// The failure to deliver the API key of a change that was made.
fn lost<R: RevealedKey>(answer: &R, done: &str, error: &dyn fmt::Display) -> Failure {
    let id = answer.key().map_or("", |key| &key.id);
    Failure::failed(format!(
        "the key was {}, but its API key could not be {done} and is lost: {error}",
        R::DONE
    ))
    .hint(rotate_hint(id))
}

fn rotate_hint(id: &str) -> String {
    format!("`claviger keys rotate {id}` gives the key a new secret")
}

/// A new file for an API key. It is removed again unless the API key is written to it.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    file: File,
    is_kept: bool,
}

impl KeyFile {
    fn create(path: PathBuf) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match file {
            Ok(file) => Ok(Self {
                path,
                file,
                is_kept: false,
            }),
            Err(error) => Err(Failure::failed(cannot_create(&path, &error)).hint(
                if error.kind() == io::ErrorKind::AlreadyExists {
                    "nothing was changed; --output-file must name a file that does not exist yet"
                } else {
                    "nothing was changed; the directory must exist and be writable"
                },
            )),
        }
    }

    pub(super) fn keep(mut self, plain_key: &str) -> io::Result<()> {
        writeln!(self.file, "{plain_key}")?;
        self.file.sync_all()?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // A failure is harmless: an empty file stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn cannot_create(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.kind() == io::ErrorKind::AlreadyExists {
        format!("{path} exists already, and is not overwritten")
    } else {
        format!("cannot create {path}: {error}")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn issued() -> IssueKeyResponse {
        IssueKeyResponse {
            key: Some(Key {
                id: "0192f0c1".to_owned(),
                ..Key::default()
            }),
            ..IssueKeyResponse::default()
        }
    }

    #[test]
    fn the_api_key_is_on_a_line_of_its_own_and_announced_as_shown_once() {
        let shown = shown("issued a key", "demo_live_secret");
        assert!(shown.contains("shown this once"));
        assert_eq!(
            shown
                .lines()
                .filter(|line| line.contains("demo"))
                .collect::<Vec<_>>(),
            ["demo_live_secret"]
        );
    }

    #[test]
    fn a_lost_key_is_named_by_its_id() {
        let failure = lost(&issued(), "read", &"the answer does not contain it");
        assert!(!failure.is_usage());
        assert_eq!(
            failure.to_string(),
            "error: the key was issued, but its API key could not be read and is lost: the answer does not contain it\n\
             hint: `claviger keys rotate 0192f0c1` gives the key a new secret"
        );
    }

    #[test]
    fn a_replayed_response_has_no_api_key() {
        let answer = IssueKeyResponse {
            replayed: true,
            ..issued()
        };
        let output = Output::new(false);
        let refusal = PreparedDestination::Shown
            .deliver(answer, &output, |_| unreachable!("there is no API key"));
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "error: this request was made before: key 0192f0c1 was issued then, and its API key cannot be shown again\n\
             hint: `claviger keys rotate 0192f0c1` gives the key a new secret"
        );
    }

    #[test]
    fn a_key_file_is_the_owners_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.key");
        KeyFile::create(path.clone()).unwrap().keep("key").unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "key\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refusal = KeyFile::create(path.clone()).err().unwrap();
        assert!(refusal.to_string().contains("not overwritten"));
        assert!(refusal.to_string().contains("does not exist yet"));
        let absent = KeyFile::create(folder.path().join("absent/new.key"));
        let refusal = absent.err().unwrap().to_string();
        assert!(
            refusal
                .ends_with("hint: nothing was changed; the directory must exist and be writable"),
            "{refusal}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "key\n");
    }

    #[test]
    fn a_key_file_without_a_key_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.key");
        drop(KeyFile::create(path.clone()).unwrap());
        assert!(!path.exists());
    }
}
