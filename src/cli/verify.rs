//! The question of a gateway, asked by hand or by a script.

use std::fs;
use std::io;

use clap::Args;

use crate::pb::claviger::v1::verify_request::Target;
use crate::pb::claviger::v1::{Verdict, VerifiedKey, VerifyRequest, VerifyResponse};

use super::ask;
use super::connect::Connection;
use super::failure::Failure;
use super::key_text::KeyText;
use super::output::Output;
use super::text;

/// The exit code when there is no verdict.
pub(super) const UNDECIDED: u8 = 4;
const DENIED: u8 = 3;
const ALLOWED: u8 = 0;

/// Ask whether a key is good for something.
///
/// Without --project, --own-project or --any-target the question is for what is partner-wide, which only a partner key
/// may do.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  allowed
  2  the question was wrong, by this program's judgement or the server's (INVALID_ARGUMENT), or
     the caller's own key is missing or cannot be read
  3  denied
  4  could not decide: the server cannot be reached, does not answer in time, or answers with
     another error, about the caller's own key too; never read it as a denial

Examples:
  claviger verify --realm demo --environment production --scope read < demo.key

  echo \"$KEY\" | claviger verify --realm demo --environment production --project web --json")]
pub struct Verify {
    #[command(flatten)]
    asked: Asked,
}

/// The key to test, and what it should be good for.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The key to test. Better leave it out, or `-`: then it is read from standard input, without one newline at its
    /// end. Arguments are seen by every user of the machine.
    #[arg(value_name = "KEY", value_parser = clap::value_parser!(KeyText))]
    tested_key: Option<KeyText>,
    /// The realm that is called.
    #[arg(long)]
    pub(super) realm: String,
    /// The environment that is called; may be left out where the realm has only one.
    #[arg(long, default_value_t, hide_default_value = true)]
    pub(super) environment: String,
    #[command(flatten)]
    target: TargetFlags,
    /// The owner that the request names.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// A scope that the key must hold; can be repeated.
    #[arg(long)]
    scope: Vec<String>,
    /// Scopes of which the key must hold one; can be repeated.
    #[arg(long, value_name = "SCOPE")]
    any_scope: Vec<String>,
    /// The address of the end client.
    #[arg(long, value_name = "IP", default_value_t, hide_default_value = true)]
    pub(super) client_ip: String,
    /// The answer must know of every change up to this revision.
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    min_revision: u64,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct TargetFlags {
    /// The request touches this project.
    #[arg(long)]
    project: Option<String>,
    /// The request touches the project that the key is bound to.
    #[arg(long)]
    own_project: bool,
    /// A key of either level will do.
    #[arg(long)]
    any_target: bool,
}

impl Verify {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let names_target = self.asked.target.names_one();
        let request = self.asked.request()?;
        let client = connection.connect().await?;
        let answer = client.ask(client.verify().verify(request)).await?;
        output.show(&answer, |answer| shown(answer, names_target))?;
        // A verdict that this program does not know is a denial.
        Ok(exit_code(answer.verdict == Verdict::Allowed as i32))
    }
}

pub(super) fn exit_code(is_allowed: bool) -> u8 {
    if is_allowed { ALLOWED } else { DENIED }
}

impl Asked {
    /// The key to test, from wherever it comes.
    pub(super) fn key(&mut self) -> Result<KeyText, Failure> {
        match self.tested_key.take() {
            Some(key) if key.reveal() != "-" => not_a_file(key),
            _ => read_key(),
        }
    }

    pub(super) fn request(mut self) -> Result<VerifyRequest, Failure> {
        let key = self.key()?;
        Ok(VerifyRequest {
            key: key.reveal().to_owned(),
            realm: self.realm,
            environment: self.environment,
            target: self.target.on_wire(),
            partner: self.partner,
            scopes: self.scope,
            any_scopes: self.any_scope,
            client_ip: self.client_ip,
            min_revision: self.min_revision,
        })
    }
}

impl TargetFlags {
    fn names_one(&self) -> bool {
        self.project.is_some() || self.own_project || self.any_target
    }

    fn on_wire(self) -> Option<Target> {
        match self {
            Self {
                project: Some(project),
                ..
            } => Some(Target::Project(project)),
            Self {
                own_project: true, ..
            } => Some(Target::OwnProject(true)),
            Self {
                any_target: true, ..
            } => Some(Target::AnyTarget(true)),
            _ => None,
        }
    }
}

/// A file's name is an easy slip, and would be denied as if the key in the file were wrong.
fn not_a_file(key: KeyText) -> Result<KeyText, Failure> {
    // Other than a regular file, it can be the pipe that a shell makes of `<(…)`.
    if fs::metadata(key.reveal()).is_ok_and(|file| !file.is_dir()) {
        return Err(Failure::usage(
            "that is a file; to test the key in it: claviger verify … < FILE",
        ));
    }
    Ok(key)
}

fn read_key() -> Result<KeyText, Failure> {
    if let Some(typed) = ask::ask_hidden("The key to test:") {
        return typed_key(typed);
    }
    KeyText::read(io::stdin().lock()).map_err(|error| {
        Failure::failed(format!("cannot read the key from standard input: {error}"))
    })
}

/// Who types nothing, or ends the input instead, has asked no question; a denial would read as an answer to one.
fn typed_key(typed: io::Result<String>) -> Result<KeyText, Failure> {
    match typed {
        Ok(text) if !text.is_empty() => Ok(KeyText::from(text)),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(Failure::failed(
            format!("cannot read the key from the terminal: {error}"),
        )),
        _ => Err(Failure::usage("no key was typed")),
    }
}

fn shown(answer: &VerifyResponse, names_target: bool) -> String {
    let key = answer.key.as_ref();
    let fact = |fact: fn(&VerifiedKey) -> String| key.map(fact).unwrap_or_default();
    let facts = text::facts([
        ("missing scopes", answer.missing_scopes.join(", ")),
        ("key id", fact(|key| key.id.clone())),
        ("name", fact(|key| key.name.clone())),
        ("realm", fact(|key| key.realm.clone())),
        ("partner", fact(|key| key.partner.clone())),
        ("project", fact(|key| key.project.clone())),
        (
            "level",
            fact(|key| text::word(key.level().as_str_name(), "KEY_LEVEL_")),
        ),
        ("environment", fact(|key| key.environment.clone())),
        (
            "scopes",
            fact(|key| text::granted(&key.scopes, key.full_access)),
        ),
        ("labels", fact(|key| text::pairs(&key.labels))),
        (
            "expires",
            fact(|key| text::expiry(key.expire_time.as_ref())),
        ),
        ("revision", answer.revision.to_string()),
        ("as of", text::time_if_any(answer.as_of.as_ref())),
        ("cache for", text::span_if_any(answer.cache_for.as_ref())),
    ]);
    format!("{}\n\n{facts}", verdict(answer.verdict, names_target))
}

fn verdict(number: i32, names_target: bool) -> String {
    let Ok(verdict) = Verdict::try_from(number) else {
        return format!("denied: verdict {number}, which this program does not know");
    };
    let why = match verdict {
        Verdict::Allowed => return "allowed".to_owned(),
        Verdict::Unspecified => "the server gave no verdict",
        Verdict::Malformed => "the text cannot be a key",
        Verdict::Unknown => "there is no such key in this realm",
        Verdict::Revoked => "the key was revoked",
        Verdict::Disabled => "the key is switched off",
        Verdict::Expired => "the key's or the secret's end has come",
        Verdict::EnvironmentMismatch => "the key is of another environment",
        Verdict::PartnerMismatch => "the key is another partner's than the request names",
        Verdict::PartnerSuspended => "the key is right, but its partner is suspended",
        Verdict::ProjectMismatch if !names_target => {
            "the key does not reach the target (no target was named, so partner-wide was asked: see --project, \
             --own-project, --any-target)"
        }
        Verdict::ProjectMismatch => "the key does not reach the target",
        Verdict::AddressDenied => "the client's address is not in the key's ranges, or not told",
        Verdict::ScopeMissing => "the key lacks a scope",
        Verdict::NoRoute => "no rule of the realm matches the request",
    };
    format!("denied: {} — {why}", verdict.as_str_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_verdict() {
        assert_eq!(verdict(Verdict::Allowed as i32, true), "allowed");
        assert_eq!(
            verdict(Verdict::Expired as i32, true),
            "denied: VERDICT_EXPIRED — the key's or the secret's end has come"
        );
    }

    #[test]
    fn a_mismatch_without_a_target_says_what_was_asked() {
        let number = Verdict::ProjectMismatch as i32;
        assert!(verdict(number, false).contains("no target was named"));
        assert!(!verdict(number, true).contains("no target was named"));
    }

    #[test]
    fn the_name_of_a_file_is_not_taken_for_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.key");
        let key = KeyText::from(path.to_str().unwrap().to_owned());
        assert!(not_a_file(key.clone()).is_ok());

        fs::write(&path, "demo_live_text").unwrap();
        let failure = not_a_file(key).unwrap_err();
        assert!(failure.is_usage());
        assert!(failure.to_string().contains("that is a file"), "{failure}");
    }

    #[test]
    fn typing_nothing_asks_nothing() {
        let end = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(typed_key(Err(end)).unwrap_err().is_usage());
        assert!(typed_key(Ok(String::new())).unwrap_err().is_usage());
        let broken = io::Error::other("broken");
        assert!(!typed_key(Err(broken)).unwrap_err().is_usage());
        assert_eq!(typed_key(Ok("k".to_owned())).unwrap().reveal(), "k");
    }

    #[test]
    fn a_verdict_that_is_not_known_is_a_denial() {
        assert!(verdict(0, true).starts_with("denied: "));
        assert_eq!(
            verdict(99, true),
            "denied: verdict 99, which this program does not know"
        );
    }

    #[test]
    fn a_denial_tells_what_is_missing_and_how_fresh_that_is() {
        let answer = VerifyResponse {
            verdict: Verdict::ScopeMissing as i32,
            key: Some(VerifiedKey {
                id: "id".to_owned(),
                level: 2,
                ..VerifiedKey::default()
            }),
            missing_scopes: vec!["write".to_owned()],
            revision: 4,
            as_of: Some(prost_types::Timestamp {
                seconds: 1_800_000_000,
                nanos: 0,
            }),
            cache_for: None,
        };
        assert_eq!(
            shown(&answer, true),
            "denied: VERDICT_SCOPE_MISSING — the key lacks a scope\n\n\
             missing scopes  write\n\
             key id          id\n\
             level           project\n\
             scopes          none\n\
             expires         never\n\
             revision        4\n\
             as of           2027-01-15T08:00:00Z"
        );
    }
}
