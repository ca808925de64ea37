//! What can go wrong on the way to the server and at it, and what to do about each.

use std::error::Error;
use std::io;
use std::time::Duration;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use super::failure::{self, Failure, Violation};
use super::text::span;

/// The way to the server: what the failures of a call are told with.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) endpoint: String,
    pub(super) key_source: String,
    pub(super) timeout: Duration,
}

impl Link {
    /// There is no connection to the server.
    pub(super) fn unreachable(&self, error: &(dyn Error + 'static)) -> Failure {
        let endpoint = &self.endpoint;
        let kind = causes(error)
            .find_map(|cause| cause.downcast_ref::<io::Error>())
            .map(io::Error::kind);
        if kind == Some(io::ErrorKind::ConnectionRefused) {
            return Failure::new(
                Code::Unavailable,
                format!("nothing answers at {endpoint}: is `claviger serve` running?"),
            )
            .hint("--endpoint or CLAVIGER_ENDPOINT names another address");
        }
        let root = causes(error).last().unwrap_or(error);
        let failure = Failure::new(
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
    pub(super) fn timeout(&self, is_change: bool) -> Failure {
        Failure::new(
            Code::DeadlineExceeded,
            format!("no answer from {} within {}", self.endpoint, span(self.timeout)),
        )
        .hint(if is_change {
            "the change may have been made or not: look before you repeat it; --timeout waits longer"
        } else {
            "--timeout waits longer"
        })
        .open(is_change)
    }

    /// The call was answered with an error, or broke.
    pub(super) fn refused(&self, status: &Status, is_change: bool) -> Failure {
        if is_timeout(status) {
            return self.timeout(is_change);
        }
        // Only an error that was made on this side, out of a broken connection, has a cause.
        if let Some(cause) = status.source() {
            return self.broken(cause, is_change);
        }

        let details = status.get_error_details();
        let retry = details.retry_info().and_then(|retry| retry.retry_delay);
        let message = match status.message() {
            "" => format!(
                "the server gave no reason ({})",
                failure::name(status.code())
            ),
            message => message.to_owned(),
        };
        let key = &self.key_source;
        let failure = match status.code() {
            Code::Unauthenticated => Failure::new(
                Code::Unauthenticated,
                format!("the key from {key} was not accepted: {message}"),
            )
            .hint(
                "it may be mistyped, expired, disabled or revoked, or belong to another authority; the caller's key comes \
                 from CLAVIGER_KEY or --key-file",
            ),
            Code::PermissionDenied if details.bad_request().is_some() => Failure::new(
                Code::PermissionDenied,
                format!("the key from {key} holds less than this would give"),
            )
            .hint("ask for less, or use a key that holds it: an operator's, or one of the realm's managers'"),
            Code::PermissionDenied => Failure::new(
                Code::PermissionDenied,
                format!("the key from {key} may not do this: {message}"),
            ),
            Code::Aborted => Failure::new(Code::Aborted, message)
                .hint("look at what is there now, and make the change again on that"),
            Code::Unimplemented => Failure::new(
                Code::Unimplemented,
                format!("the server at {} does not know this call", self.endpoint),
            )
            .hint("it may be older than this program, or not be claviger's gRPC address"),
            Code::Internal | Code::Unknown | Code::DataLoss => {
                Failure::new(status.code(), format!("the server failed: {message}"))
                    .hint("its log says more")
            }
            Code::Unavailable | Code::ResourceExhausted => {
                Failure::new(status.code(), message).hint(match retry {
                    Some(delay) => format!("try again in {}", span(at_least_a_second(delay))),
                    None => "try again in a moment".to_owned(),
                })
            }
            code => Failure::new(code, message),
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
        let violations = fields
            .chain(conditions)
            .map(|(field, description)| Violation {
                field: field.clone(),
                description: description.clone(),
            })
            .collect();
        let reason = details.error_info().map(|info| info.reason.clone());
        let failure = match reason.as_deref().and_then(remedy) {
            Some(remedy) => failure.hint(remedy),
            None => failure,
        };
        // This is the code of a commit that the server itself has lost sight of.
        let is_open = is_change && status.code() == Code::Unknown;
        failure.told(reason, violations, retry).open(is_open)
    }

    fn broken(&self, cause: &(dyn Error + 'static), is_change: bool) -> Failure {
        let root = causes(cause).last().unwrap_or(cause);
        Failure::new(
            Code::Unavailable,
            format!("the connection to {} broke: {root}", self.endpoint),
        )
        .hint(if is_change {
            "the change may have been made or not: look before you repeat it"
        } else {
            "is that the server's gRPC address, 7700 by default, and not its HTTP address?"
        })
        .open(is_change)
    }
}

/// What to do where a reason says more than its code.
fn remedy(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "NO_ROTATION" => "the key has one text only; `claviger keys rotate` gives it a second one",
        "ALREADY_IMPORTED" => {
            "the text is a key already; `claviger keys rotate` gives a key a text of its own"
        }
        "KEY_EXPIRED" => {
            "`claviger keys update KEY_ID --expires-in SPAN` gives it a later end, if it shall live on"
        }
        "KEY_REVOKED" => "nothing brings a revoked key back; `claviger keys issue` makes another",
        "LOCKS_OUT_CALLER" => {
            "the key that you call with would lose what it takes to undo this; use another key for it"
        }
        _ => return None,
    })
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
        link().refused(status, false)
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
            link().unreachable(&refusal).to_string(),
            "error: nothing answers at http://127.0.0.1:7700: is `claviger serve` running?\n\
             hint: --endpoint or CLAVIGER_ENDPOINT names another address"
        );
        assert_eq!(
            link().timeout(false).to_string(),
            "error: no answer from http://127.0.0.1:7700 within 10s\nhint: --timeout waits longer"
        );
    }

    #[test]
    fn a_change_without_an_answer_may_have_been_made() {
        let status = Status::deadline_exceeded("");
        let failure = link().refused(&status, true);
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
            link().refused(&status, true).to_string(),
            "error: the connection to http://127.0.0.1:7700 broke: reset\n\
             hint: the change may have been made or not: look before you repeat it"
        );
    }

    #[test]
    fn the_servers_words_cannot_drive_the_terminal() {
        let said = refused(&Status::not_found("no \x1b[31mrealm\n")).to_string();
        assert_eq!(said, "error: no \\u{1b}[31mrealm\\n");
    }
}
