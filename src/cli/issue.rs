//! A new key, and what becomes of its text, which is shown this once.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::mem;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use prost_types::Timestamp;

use crate::pb::claviger::v1::{IssueKeyRequest, IssueKeyResponse};

use super::answer::Change as _;
use super::connect::Connection;
use super::failure::Failure;
use super::flags::{self, Level, WaitFlag};
use super::keys;
use super::output::{self, Output};

/// Make a key, and show its text this once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys issue --realm demo --partner acme --environment production --name ci --scope read \\
      --expires-in 90d

  claviger keys issue --realm demo --partner acme --project web --environment staging \\
      --output-file web.key")]
pub struct Issue {
    /// The realm to issue it in.
    #[arg(long)]
    realm: String,
    /// The partner that owns it; left out only for an operator's key in the realm `claviger`.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// The project to bind it to; makes it a project key.
    #[arg(long, default_value_t, hide_default_value = true)]
    project: String,
    /// May be left out with --project, or where the realm allows one level only.
    #[arg(long)]
    level: Option<Level>,
    /// May be left out where the realm has only one.
    #[arg(long, default_value_t, hide_default_value = true)]
    environment: String,
    /// What people call it.
    #[arg(
        long,
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    name: String,
    /// A scope to grant; can be repeated. Without any, it is what the realm says of unscoped keys.
    #[arg(long)]
    scope: Vec<String>,
    /// Grant every scope of the realm, also those that it will get.
    #[arg(long, conflicts_with = "scope")]
    full_access: bool,
    /// Let it expire that long from now, such as 90d [default: never, or by the realm's max lifetime].
    #[arg(long, value_name = "SPAN", value_parser = flags::span)]
    expires_in: Option<Duration>,
    /// Let it expire at this time, such as 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = flags::time, conflicts_with = "expires_in")]
    expires_at: Option<Timestamp>,
    /// A word to attach; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = flags::pair, allow_hyphen_values = true)]
    label: Vec<(String, String)>,
    /// An address range that it may be used from; can be repeated [default: from anywhere].
    #[arg(long, value_name = "CIDR")]
    allow_cidr: Vec<String>,
    /// Write its text to a new file that only you can read, instead of showing it.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Issue {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let wait = self.wait;
        let path = self.output_file.clone();
        if path.as_deref() == Some(Path::new("-")) {
            return Err(Failure::usage(
                "--output-file names a file; without it the key is shown on standard output",
            ));
        }
        let request = IssueKeyRequest {
            request_id: String::new(),
            wait: wait.on_wire(),
            ..self.request()?
        };
        let client = connection.connect().await?;
        // The file is there before the key is: a key whose text has no place to go to would be lost.
        let file = path.map(KeyFile::create).transpose()?;
        let mut answer = client.change(client.keys().issue_key(request)).await?;

        if answer.plain_key.is_empty() {
            return Err(lost(&answer, "read", &"the answer does not have it"));
        }
        let Some(file) = file else {
            return output
                .render(&answer, shown)
                .and_then(|text| output::print(&text))
                .map_err(|error| lost(&answer, "shown", &error));
        };
        let name = file.path.display().to_string();
        let plain_key = mem::take(&mut answer.plain_key);
        file.keep(&plain_key)
            .map_err(|error| lost(&answer, "written to the file", &error))?;
        output.show_change(&answer, |answer| {
            let said = format!("Its text is in {}, and nowhere else.", output::plain(&name));
            format!("{}\n\n{said}", told(answer))
        })
    }

    fn request(self) -> Result<IssueKeyRequest, Failure> {
        let expire_time = match self.expires_in {
            Some(span) => Some(
                flags::from_now(span)
                    .ok_or_else(|| Failure::usage("--expires-in lies beyond the year 9999"))?,
            ),
            None => self.expires_at,
        };
        Ok(IssueKeyRequest {
            request_id: String::new(),
            realm: self.realm,
            partner: self.partner,
            project: self.project,
            level: self.level.map_or(0, Level::on_wire),
            environment: self.environment,
            name: self.name,
            scopes: self.scope,
            full_access: self.full_access,
            expire_time,
            labels: flags::by_name(self.label)
                .map_err(|why| Failure::usage(format!("--label: {why}")))?,
            allowed_cidrs: self.allow_cidr,
            wait: 0,
        })
    }
}

fn shown(answer: &IssueKeyResponse) -> String {
    format!(
        "{}\n\nThe key itself. It is shown this once and kept nowhere:\n\n{}\n",
        told(answer),
        output::plain(&answer.plain_key)
    )
}

fn told(answer: &IssueKeyResponse) -> String {
    let facts = answer.key.as_ref().map(keys::facts).unwrap_or_default();
    format!("issued a key: {}\n\n{facts}", answer.settled())
}

fn lost(answer: &IssueKeyResponse, done: &str, error: &dyn fmt::Display) -> Failure {
    let id = answer.key.as_ref().map_or("", |key| &key.id);
    Failure::failed(format!(
        "the key was issued, but its text could not be {done} and is lost: {error}"
    ))
    .hint(format!(
        "take it back with `claviger keys delete {id}`, and issue another"
    ))
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
                .hint("no key was issued; --output-file names a file that does not exist yet")),
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

    use crate::pb::claviger::v1::Key;

    use super::*;

    #[test]
    fn the_text_of_a_key_stands_alone_and_is_said_to_come_once() {
        let answer = IssueKeyResponse {
            key: Some(Key::default()),
            plain_key: "demo_live_text".to_owned(),
            revision: 3,
            effective_everywhere_time: None,
            confirmed: true,
            replayed: false,
        };
        let shown = shown(&answer);
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
    fn a_lost_key_is_named_by_its_id() {
        let answer = IssueKeyResponse {
            key: Some(Key {
                id: "0192f0c1".to_owned(),
                ..Key::default()
            }),
            ..IssueKeyResponse::default()
        };
        let failure = lost(&answer, "read", &"the answer does not have it");
        assert!(!failure.is_usage());
        assert_eq!(
            failure.to_string(),
            "error: the key was issued, but its text could not be read and is lost: the answer does not have it\n\
             hint: take it back with `claviger keys delete 0192f0c1`, and issue another"
        );
    }

    #[test]
    fn a_key_file_without_a_key_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.key");
        drop(KeyFile::create(path.clone()).unwrap());
        assert!(!path.exists());
    }
}
