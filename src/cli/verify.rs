//! The `verify` command: the call of a gateway, made by hand or by a script.

use std::fs;
use std::io;

use clap::Args;

use super::api_key::ApiKey;
use super::connect::Connection;
use super::failure::Failure;
use super::output::Output;
use super::prompt;
use super::realm_flag::{EnvironmentFlag, RealmFlag};
use super::text;
use crate::pb::claviger::v1::verify_request::Target;
use crate::pb::claviger::v1::{Verdict, VerifiedKey, VerifyRequest, VerifyResponse};

/// The exit code when there is no verdict.
pub(super) const NO_VERDICT: u8 = 4;
const DENIED: u8 = 3;
const ALLOWED: u8 = 0;

/// Check whether a key is allowed to do something.
///
/// Without --project, --own-project or --any-target, the request is checked as partner-wide, which only a partner key may
/// do.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  allowed
  2  the command or the request is invalid (INVALID_ARGUMENT), or the caller's own key is
     missing or cannot be read
  3  denied
  4  no verdict: the server cannot be reached, does not answer in time, or returns another
     error, also about the caller's own key; never treat it as a denial

Examples:
  claviger verify --scope read < demo.key
  claviger verify --scope read --project web --json < demo.key")]
pub struct Verify {
    #[command(flatten)]
    question: VerifyFlags,
}

/// The key to test, and the request to test it for.
#[derive(Debug, Args)]
pub(super) struct VerifyFlags {
    /// The API key to test. Prefer to omit it, or give `-`: it is then read from standard input, without one newline at
    /// its end. Every user of the machine can see arguments.
    #[arg(value_name = "KEY", value_parser = clap::value_parser!(ApiKey))]
    tested_key: Option<ApiKey>,
    #[command(flatten)]
    pub(super) realm: RealmFlag,
    #[command(flatten)]
    pub(super) environment: EnvironmentFlag,
    #[command(flatten)]
    target: TargetFlags,
    /// The partner that the request names.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// A scope that the key must hold; can be repeated, or separated by commas.
    #[arg(long, value_delimiter = ',')]
    scope: Vec<String>,
    /// A scope of which the key must hold at least one; can be repeated, or separated by commas.
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    any_scope: Vec<String>,
    /// The address of the end client.
    #[arg(long, value_name = "IP", default_value_t, hide_default_value = true)]
    pub(super) client_ip: String,
    /// The server must have applied every change up to this revision.
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
    /// A key of either level is accepted.
    #[arg(long)]
    any_target: bool,
}

impl Verify {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let has_target = self.question.has_target();
        let realm = self.question.realm.clone();
        let environment = self.question.environment.clone();
        let mut request = self.question.request()?;
        let client = connection.connect().await?;
        request.realm = realm.resolve(&client).await?;
        request.environment = environment.resolve(&client, &request.realm);
        let answer = client.ask(client.verify().verify(request)).await?;
        output.show(&answer, |answer| shown(answer, has_target))?;
        // An unknown verdict is a denial.
        Ok(exit_code(answer.verdict == Verdict::Allowed as i32))
    }
}

pub(super) fn exit_code(is_allowed: bool) -> u8 {
    if is_allowed { ALLOWED } else { DENIED }
}

impl VerifyFlags {
    /// Whether the flags say what the request touches.
    pub(super) fn has_target(&self) -> bool {
        self.target.is_given()
    }

    /// The API key to test: the argument, or what a prompt or standard input returns.
    pub(super) fn key(&mut self) -> Result<ApiKey, Failure> {
        match self.tested_key.take() {
            Some(key) if key.reveal() != "-" => not_a_file(key),
            _ => read_key("The API key to test:"),
        }
    }

    /// Whether the API key is an argument.
    pub(super) fn has_key(&self) -> bool {
        let key = self.tested_key.as_ref();
        key.is_some_and(|key| key.reveal() != "-")
    }

    /// The request, without its realm and environment.
    pub(super) fn request(mut self) -> Result<VerifyRequest, Failure> {
        let key = self.key()?;
        Ok(VerifyRequest {
            key: key.reveal().to_owned(),
            realm: String::new(),
            environment: String::new(),
            target: self.target.into_proto(),
            partner: self.partner,
            scopes: self.scope,
            any_scopes: self.any_scope,
            client_ip: self.client_ip,
            min_revision: self.min_revision,
        })
    }
}

impl TargetFlags {
    fn is_given(&self) -> bool {
        self.project.is_some() || self.own_project || self.any_target
    }

    fn into_proto(self) -> Option<Target> {
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

/// Rejects the name of a file, an easy mistake, which would be denied as if the key in the file were wrong.
fn not_a_file(key: ApiKey) -> Result<ApiKey, Failure> {
    // Not only a regular file: a shell turns `<(…)` into a pipe.
    if fs::metadata(key.reveal()).is_ok_and(|file| !file.is_dir()) {
        return Err(Failure::usage(
            "the argument is the name of a file; to test the key in the file: claviger verify … < FILE",
        ));
    }
    Ok(key)
}

pub(super) fn read_key(question: &str) -> Result<ApiKey, Failure> {
    if let Some(typed) = prompt::ask_hidden(question) {
        return typed_key(typed);
    }
    ApiKey::read(io::stdin().lock()).map_err(|error| {
        Failure::failed(format!("cannot read the key from standard input: {error}"))
    })
}

/// The typed API key. Empty input and the end of the input are errors, because a denial would look like an answer.
fn typed_key(typed: io::Result<String>) -> Result<ApiKey, Failure> {
    match typed {
        Ok(key) if !key.is_empty() => Ok(ApiKey::from(key)),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(Failure::failed(
            format!("cannot read the key from the terminal: {error}"),
        )),
        _ => Err(Failure::usage("no key was typed")),
    }
}

fn shown(answer: &VerifyResponse, has_target: bool) -> String {
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
            fact(|key| text::enum_value(key.level().as_str_name(), "KEY_LEVEL_")),
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
    format!("{}\n\n{facts}", verdict(answer.verdict, has_target))
}

fn verdict(number: i32, has_target: bool) -> String {
    match Verdict::try_from(number) {
        Ok(Verdict::Allowed) => "allowed".to_owned(),
        Ok(verdict) => format!(
            "denied: {} — {}",
            verdict.as_str_name(),
            reason(verdict, has_target)
        ),
        Err(_) => format!("denied: verdict {number}, unknown to this program"),
    }
}

/// Why a key is denied. `has_target`: the question named what the request touches.
pub(super) fn reason(verdict: Verdict, has_target: bool) -> &'static str {
    match verdict {
        Verdict::Allowed => "nothing speaks against the key",
        Verdict::Unspecified => "the server returned no verdict",
        Verdict::Malformed => "the API key is malformed",
        Verdict::Unknown => "the realm has no such key",
        Verdict::Revoked => "the key was revoked",
        Verdict::Disabled => "the key is disabled",
        Verdict::Expired => "the key or the secret has expired",
        Verdict::EnvironmentMismatch => "the key belongs to another environment",
        Verdict::PartnerMismatch => "the key belongs to another partner than the request names",
        Verdict::PartnerSuspended => "the partner of the key is suspended",
        Verdict::ProjectMismatch if !has_target => {
            "the key does not reach the target (no target was given, so partner-wide was checked: see --project, \
             --own-project, --any-target)"
        }
        Verdict::ProjectMismatch => "the key does not reach the target",
        Verdict::AddressDenied => "the client's address is unknown or not in the key's ranges",
        Verdict::ScopeMissing => "the key lacks a scope",
        Verdict::NoRoute => "no route of the realm matches the request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_verdict() {
        assert_eq!(verdict(Verdict::Allowed as i32, true), "allowed");
        assert_eq!(
            verdict(Verdict::Expired as i32, true),
            "denied: VERDICT_EXPIRED — the key or the secret has expired"
        );
    }

    #[test]
    fn a_mismatch_without_a_target_says_what_was_asked() {
        let number = Verdict::ProjectMismatch as i32;
        assert!(verdict(number, false).contains("no target was given"));
        assert!(!verdict(number, true).contains("no target was given"));
    }

    #[test]
    fn the_name_of_a_file_is_not_taken_for_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.key");
        let key = ApiKey::from(path.to_str().unwrap().to_owned());
        assert!(not_a_file(key.clone()).is_ok());

        fs::write(&path, "demo_live_key").unwrap();
        let failure = not_a_file(key).unwrap_err();
        assert!(failure.is_usage());
        assert!(
            failure.to_string().contains("the name of a file"),
            "{failure}"
        );
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
            "denied: verdict 99, unknown to this program"
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
