//! What went wrong, in sentences that say what to do next.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use super::connect::Link;
use super::output::{plain, span};

/// Why a command did not do what it should. Holds no key's text, as nothing that makes one has it.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    message: String,
    /// What to do about it.
    hint: Option<String>,
    /// The server's constant for this error, for programs.
    reason: Option<String>,
    violations: Vec<Violation>,
}

/// What is wrong with one thing.
#[derive(Debug)]
struct Violation {
    field: String,
    description: String,
}

impl Failure {
    /// The command was used wrongly.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// Something on this side did not work.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// There is no connection to the server.
    pub(super) fn unreachable(link: &Link, error: &(dyn Error + 'static)) -> Self {
        let endpoint = &link.endpoint;
        let kind = causes(error)
            .find_map(|cause| cause.downcast_ref::<io::Error>())
            .map(io::Error::kind);
        if kind == Some(io::ErrorKind::ConnectionRefused) {
            return Self::new(
                Code::Unavailable,
                format!("nothing answers at {endpoint}: is `claviger serve` running?"),
            )
            .hint("--endpoint or CLAVIGER_ENDPOINT names another address");
        }
        let root = causes(error).last().unwrap_or(error);
        let failure = Self::new(
            Code::Unavailable,
            format!("cannot reach {endpoint}: {root}"),
        );
        if endpoint.starts_with("https:") {
            failure.hint("--ca-file names the certificates to trust")
        } else {
            failure.hint("--endpoint or CLAVIGER_ENDPOINT names the server's address")
        }
    }

    /// There was no answer in time.
    pub(super) fn timeout(link: &Link, is_change: bool) -> Self {
        Self::new(
            Code::DeadlineExceeded,
            format!("no answer from {} within {}", link.endpoint, span(link.timeout)),
        )
        .hint(if is_change {
            "the change may have been made or not: look before you repeat it; --timeout waits longer"
        } else {
            "--timeout waits longer"
        })
    }

    /// The call was answered with an error, or broke.
    pub(super) fn refused(link: &Link, status: &Status, is_change: bool) -> Self {
        if is_timeout(status) {
            return Self::timeout(link, is_change);
        }
        // Only an error that was made on this side, out of a broken connection, has a cause.
        if let Some(cause) = status.source() {
            return Self::broken(link, cause, is_change);
        }

        let details = status.get_error_details();
        let retry = details.retry_info().and_then(|retry| retry.retry_delay);
        let message = match status.message() {
            "" => format!("the server gave no reason ({})", name(status.code())),
            message => message.to_owned(),
        };
        let key = &link.key_source;
        let failure = match status.code() {
            Code::Unauthenticated => Self::new(
                Code::Unauthenticated,
                format!("the key from {key} was not accepted: {message}"),
            )
            .hint(
                "it may be mistyped, expired, disabled or revoked, or belong to another authority; the caller's key comes \
                 from CLAVIGER_KEY or --key-file",
            ),
            Code::PermissionDenied if details.bad_request().is_some() => Self::new(
                Code::PermissionDenied,
                format!("the key from {key} holds less than this would give"),
            )
            .hint("ask for less, or use a key that holds it: an operator's, or one of the realm's managers'"),
            Code::PermissionDenied => Self::new(
                Code::PermissionDenied,
                format!("the key from {key} may not do this: {message}"),
            ),
            Code::Aborted => Self::new(Code::Aborted, message)
                .hint("look at what is there now, and make the change again on that"),
            Code::Unimplemented => Self::new(
                Code::Unimplemented,
                format!("the server at {} does not know this call", link.endpoint),
            )
            .hint("it may be older than this program, or not be claviger's gRPC address"),
            Code::Internal | Code::Unknown | Code::DataLoss => {
                Self::new(status.code(), format!("the server failed: {message}"))
                    .hint("its log says more")
            }
            Code::Unavailable | Code::ResourceExhausted => {
                Self::new(status.code(), message).hint(match retry {
                    Some(delay) => format!("try again in {}", span(at_least_a_second(delay))),
                    None => "try again in a moment".to_owned(),
                })
            }
            code => Self::new(code, message),
        };

        let fields = details.bad_request().into_iter().flat_map(|request| {
            let violations = request.field_violations.iter();
            violations.map(|violation| (&violation.field, &violation.description))
        });
        let conditions = details
            .precondition_failure()
            .into_iter()
            .flat_map(|unmet| {
                let violations = unmet.violations.iter();
                violations.map(|violation| (&violation.subject, &violation.description))
            });
        Self {
            reason: details.error_info().map(|info| info.reason.clone()),
            violations: fields
                .chain(conditions)
                .map(|(field, description)| Violation {
                    field: field.clone(),
                    description: description.clone(),
                })
                .collect(),
            ..failure
        }
    }

    fn broken(link: &Link, cause: &(dyn Error + 'static), is_change: bool) -> Self {
        let root = causes(cause).last().unwrap_or(cause);
        Self::new(
            Code::Unavailable,
            format!("the connection to {} broke: {root}", link.endpoint),
        )
        .hint(if is_change {
            "the change may have been made or not: look before you repeat it"
        } else {
            "is that the server's gRPC address, 7700 by default, and not its HTTP address?"
        })
    }

    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            reason: None,
            violations: Vec::new(),
        }
    }

    /// Adds what to do about it.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Whether something else has to be asked for, as repeating it would not help.
    pub(super) fn is_usage(&self) -> bool {
        self.code == Code::InvalidArgument
    }

    /// Whether the thing that was asked for does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let violations: Vec<_> = self
            .violations
            .iter()
            .map(|violation| {
                json!({ "field": violation.field, "description": violation.description })
            })
            .collect();
        let mut error = json!({
            "code": name(self.code),
            "message": self.message,
            "violations": violations,
        });
        for (name, text) in [("hint", &self.hint), ("reason", &self.reason)] {
            if let Some(text) = text {
                error[name] = json!(text);
            }
        }
        json!({ "error": error })
    }
}

/// For people; what came from the server cannot reach the terminal's controls.
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_usage() && !self.violations.is_empty() {
            // The server's message is for those who see no more than it, and tells the same.
            write!(formatter, "error: the server does not take this:")?;
        } else {
            write!(formatter, "error: {}", plain(&self.message))?;
            if self.code == Code::PermissionDenied && !self.violations.is_empty() {
                formatter.write_str(":")?;
            }
        }
        for Violation { field, description } in &self.violations {
            let field = plain(field);
            let description = plain(description);
            match flag(&field) {
                Some(flag) => write!(formatter, "\n  {flag} ({field}): {description}")?,
                None => write!(formatter, "\n  {field}: {description}")?,
            }
        }
        if let Some(hint) = &self.hint {
            write!(formatter, "\nhint: {}", plain(hint))?;
        }
        Ok(())
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        (*error).source()
    })
}

/// Whether time ran out: on this side, or on the server's, which tells it by the same words. Other cancellations are
/// those of a connection that is taken away, as a server does that stops.
fn is_timeout(status: &Status) -> bool {
    match status.code() {
        Code::DeadlineExceeded => true,
        Code::Cancelled => {
            status.message() == TimeoutExpired(()).to_string()
                || status
                    .source()
                    .is_some_and(|cause| causes(cause).any(<dyn Error>::is::<TimeoutExpired>))
        }
        _ => false,
    }
}

fn at_least_a_second(delay: Duration) -> Duration {
    Duration::from_secs(delay.as_secs().max(1))
}

/// The code as gRPC writes it: `INVALID_ARGUMENT`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

/// The flags that fill the requests' fields.
const FLAGS: [(&str, &str); 33] = [
    ("admin_scope", "--admin-scope"),
    ("allowed_cidrs", "--allow-cidr"),
    ("any_scopes", "--any-scope"),
    ("any_target", "--any-target"),
    ("client_ip", "--client-ip"),
    ("display_name", "--display-name"),
    ("end_time", "--until"),
    ("environment", "--environment"),
    ("environments", "--environment"),
    ("expire_time", "--expires-in or --expires-at"),
    ("full_access", "--full-access"),
    ("if_revision", "--if-revision"),
    ("kind", "--kind"),
    ("labels", "--label"),
    ("level", "--level"),
    ("levels", "--level"),
    ("max_cache", "--max-cache"),
    ("max_lifetime", "--max-lifetime"),
    ("min_revision", "--min-revision"),
    ("name", "--name"),
    ("own_project", "--own-project"),
    ("page_size", "--page-size"),
    ("page_token", "--page-token"),
    ("partner", "--partner"),
    ("prefix", "--prefix"),
    ("project", "--project"),
    ("realm", "--realm"),
    ("reason", "--reason"),
    ("scopes", "--scope"),
    ("start_time", "--since"),
    ("states", "--state"),
    ("unscoped_keys", "--unscoped-keys"),
    ("wait", "--wait"),
];

/// The flag that fills a request's field. A path such as `realm.environments[0].tag` is known by its list.
fn flag(field: &str) -> Option<&'static str> {
    let path = field.split('[').next().unwrap_or(field);
    let leaf = path.rsplit('.').next().unwrap_or(path);
    FLAGS
        .iter()
        .find_map(|(field, flag)| (*field == leaf).then_some(*flag))
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation};

    use super::*;

    fn link() -> Link {
        Link {
            endpoint: "http://127.0.0.1:7700".to_owned(),
            key_source: "CLAVIGER_KEY".to_owned(),
            timeout: Duration::from_secs(10),
        }
    }

    fn refused(status: &Status) -> Failure {
        Failure::refused(&link(), status, false)
    }

    #[test]
    fn each_bad_field_has_a_line_with_its_flag() {
        let details = ErrorDetails::with_bad_request([
            FieldViolation::new("realm.environments[0].tag", "is taken"),
            FieldViolation::new("expire_time", "lies in the past"),
            FieldViolation::new("novelty", "is not known here"),
        ]);
        let status =
            Status::with_error_details(Code::InvalidArgument, "3 fields are wrong", details);
        let failure = refused(&status);

        assert!(failure.is_usage());
        assert_eq!(
            failure.to_string(),
            "error: the server does not take this:\n\
             \x20 --environment (realm.environments[0].tag): is taken\n\
             \x20 --expires-in or --expires-at (expire_time): lies in the past\n\
             \x20 novelty: is not known here"
        );
    }

    #[test]
    fn for_programs_an_error_is_one_object() {
        let mut details =
            ErrorDetails::with_bad_request([FieldViolation::new("scopes[1]", "unknown")]);
        details.set_error_info(
            "SCOPE_UNKNOWN",
            "claviger",
            std::collections::HashMap::new(),
        );
        let status = Status::with_error_details(Code::InvalidArgument, "a field is wrong", details);
        assert_eq!(
            refused(&status).json().to_string(),
            r#"{"error":{"code":"INVALID_ARGUMENT","message":"a field is wrong","reason":"SCOPE_UNKNOWN","violations":[{"description":"unknown","field":"scopes[1]"}]}}"#
        );
    }

    #[test]
    fn what_still_stands_in_the_way_is_told() {
        let details = ErrorDetails::with_precondition_failure([PreconditionViolation::new(
            "KEYS",
            "partner acme",
            "has 3 keys",
        )]);
        let status = Status::with_error_details(Code::FailedPrecondition, "it is in use", details);
        assert_eq!(
            refused(&status).to_string(),
            "error: it is in use\n  partner acme: has 3 keys"
        );
    }

    #[test]
    fn an_unaccepted_key_is_named_by_its_place() {
        let said = refused(&Status::unauthenticated("no such key")).to_string();
        assert!(
            said.starts_with(
                "error: the key from CLAVIGER_KEY was not accepted: no such key\nhint: "
            )
        );
    }

    #[test]
    fn a_server_that_is_busy_says_when_to_come_again() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::Unavailable, "the store is away", details);
        assert_eq!(
            refused(&status).to_string(),
            "error: the store is away\nhint: try again in 2s"
        );
    }

    #[test]
    fn nothing_that_listens_is_told_from_no_answer() {
        let refusal = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            Failure::unreachable(&link(), &refusal).to_string(),
            "error: nothing answers at http://127.0.0.1:7700: is `claviger serve` running?\n\
             hint: --endpoint or CLAVIGER_ENDPOINT names another address"
        );
        assert_eq!(
            Failure::timeout(&link(), false).to_string(),
            "error: no answer from http://127.0.0.1:7700 within 10s\nhint: --timeout waits longer"
        );
    }

    #[test]
    fn a_change_without_an_answer_may_have_been_made() {
        let status = Status::deadline_exceeded("");
        let failure = Failure::refused(&link(), &status, true);
        assert!(failure.to_string().contains("may have been made or not"));
    }

    #[test]
    fn only_time_that_ran_out_is_a_timeout() {
        let by_message = Status::cancelled("Timeout expired");
        let by_cause = Status::from_error(Box::new(TimeoutExpired(())));
        assert_eq!(by_cause.code(), Code::Cancelled);
        for status in [Status::deadline_exceeded(""), by_message, by_cause] {
            assert!(
                refused(&status).to_string().contains("within 10s"),
                "{status}"
            );
        }
        let said = refused(&Status::cancelled("the server stops")).to_string();
        assert_eq!(said, "error: the server stops");
    }

    #[test]
    fn a_cancellation_with_a_cause_is_a_broken_connection() {
        let mut status = Status::cancelled("operation was canceled");
        status.set_source(std::sync::Arc::new(io::Error::other("reset")));
        assert_eq!(
            Failure::refused(&link(), &status, true).to_string(),
            "error: the connection to http://127.0.0.1:7700 broke: reset\n\
             hint: the change may have been made or not: look before you repeat it"
        );
    }

    #[test]
    fn the_servers_words_cannot_drive_the_terminal() {
        let said = refused(&Status::not_found("no \x1b[31mrealm\n")).to_string();
        assert_eq!(said, "error: no \\u{1b}[31mrealm\\n");
    }

    #[test]
    fn every_flag_that_is_named_exists() {
        fn longs(command: &clap::Command, found: &mut Vec<String>) {
            found.extend(command.get_arguments().filter_map(|arg| {
                let long = arg.get_long()?;
                Some(format!("--{long}"))
            }));
            for command in command.get_subcommands() {
                longs(command, found);
            }
        }
        let mut known = Vec::new();
        longs(&crate::cli::tests::command(), &mut known);
        for (field, flags) in FLAGS {
            for flag in flags.split(" or ") {
                assert!(known.iter().any(|known| known == flag), "{field}: {flag}");
            }
        }
    }

    #[test]
    fn codes_are_written_as_grpc_does() {
        assert_eq!(name(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(name(Code::NotFound), "NOT_FOUND");
    }
}
