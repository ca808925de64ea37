//! The text of a key, on the one occasion on which it is shown.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::mem;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::pb::claviger::v1::{IssueKeyResponse, Key, RotateKeyResponse};

use crate::cli::answer::Change;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::text;

/// An answer that has the new text of a key in it.
pub(super) trait Once: Change {
    /// What was done with the key.
    const DONE: &'static str;

    /// What is known of the key.
    fn key(&self) -> Option<&Key>;

    /// Its text, if it was not shown before.
    fn text(&mut self) -> &mut String;

    /// Whether this was done by an earlier request of the same id.
    fn is_replayed(&self) -> bool;
}

macro_rules! once {
    ($($name:ident: $done:literal),*) => {
        $(impl Once for $name {
            const DONE: &'static str = $done;

            fn key(&self) -> Option<&Key> {
                self.key.as_ref()
            }

            fn text(&mut self) -> &mut String {
                &mut self.plain_key
            }

            fn is_replayed(&self) -> bool {
                self.replayed
            }
        })*
    };
}

once!(IssueKeyResponse: "issued", RotateKeyResponse: "rotated");

/// Where the text goes.
#[derive(Debug, Args)]
pub(super) struct TextFlag {
    /// Write its text to a new file that only you can read, instead of showing it.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

/// A place for a text that is still to come.
#[derive(Debug)]
pub(super) struct Place(Option<PathBuf>);

/// A place that is ready for it.
pub(super) struct Ready(Option<KeyFile>);

impl TextFlag {
    /// The place, of which nothing is made yet.
    pub(super) fn place(self) -> Result<Place, Failure> {
        if self.output_file.as_deref() == Some(Path::new("-")) {
            return Err(Failure::usage(
                "--output-file names a file; without it the key is shown on standard output",
            ));
        }
        Ok(Place(self.output_file))
    }
}

impl Place {
    /// The file is there before the text is: a text that has no place to go to would be lost.
    pub(super) fn prepare(self) -> Result<Ready, Failure> {
        self.0.map(KeyFile::create).transpose().map(Ready)
    }
}

impl Ready {
    /// Shows the answer with the text, or without it once it is in its file. `told` says all but the text.
    pub(super) fn hand_over<O: Once>(
        self,
        mut answer: O,
        output: &Output,
        told: impl Fn(&O) -> String,
    ) -> Result<(), Failure> {
        if answer.text().is_empty() {
            if !answer.is_replayed() {
                return Err(lost(&answer, "read", &"the answer does not have it"));
            }
            if output.is_json() {
                // A program has more use for the answer than for the sentence about it.
                output.show(&answer, told)?;
            }
            return Err(before(&answer));
        }
        let Some(file) = self.0 else {
            let plain_key = text::plain(answer.text()).into_owned();
            return output
                .render(&answer, |answer| shown(&told(answer), &plain_key))
                .and_then(|text| output::print(&text))
                .map_err(|error| lost(&answer, "shown", &error));
        };
        let name = file.path.display().to_string();
        let plain_key = mem::take(answer.text());
        file.keep(&plain_key)
            .map_err(|error| lost(&answer, "written to the file", &error))?;
        output.show_change(&answer, |answer| {
            let said = format!("Its text is in {}, and nowhere else.", text::plain(&name));
            format!("{}\n\n{said}", told(answer))
        })
    }
}

fn shown(told: &str, plain_key: &str) -> String {
    format!("{told}\n\nThe key itself. It is shown this once and kept nowhere:\n\n{plain_key}\n")
}

/// Whoever asks again wants the text, and it is nowhere any more: that is no success.
fn before<O: Once>(answer: &O) -> Failure {
    let id = answer.key().map_or("", |key| &key.id);
    Failure::failed(format!(
        "this request was made before: key {id} was {} then, and its text cannot be shown again",
        O::DONE
    ))
    .hint(another(id))
}

fn lost<O: Once>(answer: &O, done: &str, error: &dyn fmt::Display) -> Failure {
    let id = answer.key().map_or("", |key| &key.id);
    Failure::failed(format!(
        "the key was {}, but its text could not be {done} and is lost: {error}",
        O::DONE
    ))
    .hint(another(id))
}

fn another(id: &str) -> String {
    format!("`claviger keys rotate {id}` gives it another text")
}

/// A new file for a key's text. Unless that is kept in it, it goes away again.
struct KeyFile {
    path: PathBuf,
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
            Err(error) => Err(Failure::failed(cannot_create(&path, &error))
                .hint("nothing was changed; --output-file names a file that does not exist yet")),
        }
    }

    fn keep(mut self, plain_key: &str) -> io::Result<()> {
        writeln!(self.file, "{plain_key}")?;
        self.file.sync_all()?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nothing depends on it; an empty file is in the way at worst.
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
    fn the_text_of_a_key_stands_alone_and_is_said_to_come_once() {
        let shown = shown("issued a key", "demo_live_text");
        assert!(shown.contains("shown this once"));
        assert_eq!(
            shown
                .lines()
                .filter(|line| line.contains("text"))
                .collect::<Vec<_>>(),
            ["demo_live_text"]
        );
    }

    #[test]
    fn a_lost_key_is_named_by_its_id() {
        let failure = lost(&issued(), "read", &"the answer does not have it");
        assert!(!failure.is_usage());
        assert_eq!(
            failure.to_string(),
            "error: the key was issued, but its text could not be read and is lost: the answer does not have it\n\
             hint: `claviger keys rotate 0192f0c1` gives it another text"
        );
    }

    #[test]
    fn what_was_done_before_has_no_text_any_more() {
        let answer = IssueKeyResponse {
            replayed: true,
            ..issued()
        };
        let output = Output::new(false);
        let refusal = Ready(None).hand_over(answer, &output, |_| unreachable!("there is no text"));
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "error: this request was made before: key 0192f0c1 was issued then, and its text cannot be shown again\n\
             hint: `claviger keys rotate 0192f0c1` gives it another text"
        );
    }

    #[test]
    fn a_key_file_is_the_owners_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.key");
        KeyFile::create(path.clone()).unwrap().keep("text").unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "text\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refusal = KeyFile::create(path.clone()).err().unwrap();
        assert!(refusal.to_string().contains("not overwritten"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "text\n");
    }

    #[test]
    fn a_key_file_without_a_key_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.key");
        drop(KeyFile::create(path.clone()).unwrap());
        assert!(!path.exists());
    }
}
