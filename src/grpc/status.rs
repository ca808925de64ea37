//! Refusals as gRPC errors: a code, a sentence, and details that programs can read.
//!
//! What is the server's own fault is logged here, once, and told in a fixed text.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::auth::{AuthError, Forbidden};
use crate::authority::{EntryRefusal, Refusal};
use crate::domain::violation::Violation;
use crate::store;
use crate::verify::VerifyError;

/// The domain of every `google.rpc.ErrorInfo` that is sent.
const DOMAIN: &str = "claviger";

/// How many violations are told at the most.
const MOST_VIOLATIONS: usize = 16;

/// When to try again after the store did not answer.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// When to try again what was not known yet, or not admitted.
const RETRY_SOON: Duration = Duration::from_millis(100);

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Invalid(violations) => invalid(&violations),
            Refusal::Exceeds(violations) => violated(
                Code::PermissionDenied,
                &format!("{message}: "),
                "EXCEEDS_CALLER",
                &violations,
            ),
            Refusal::CallerGone => unauthenticated(&message),
            Refusal::Forbidden(_) => error(Code::PermissionDenied, message, info("NOT_ALLOWED")),
            Refusal::NotFound(_) => error(Code::NotFound, message, info("NOT_FOUND")),
            Refusal::AlreadyExists(_) => {
                error(Code::AlreadyExists, message, info("ALREADY_EXISTS"))
            }
            Refusal::Precondition { reason, .. } => {
                error(Code::FailedPrecondition, message, info(reason))
            }
            Refusal::Unimplemented(field) => {
                let violation = Violation {
                    field,
                    description: "is not implemented yet: leave it unset".to_owned(),
                };
                violated(
                    Code::Unimplemented,
                    "",
                    "FIELD_NOT_IMPLEMENTED",
                    &[violation],
                )
            }
            Refusal::Conflict(_) => error(Code::Aborted, message, info("CHANGED_MEANWHILE")),
            Refusal::Busy(_) => error(Code::ResourceExhausted, message, retry("BUSY", RETRY_SOON)),
            Refusal::Store(store::Error::Unavailable(cause)) => {
                tracing::error!(error = %cause, "the store does not answer");
                error(
                    Code::Unavailable,
                    "the store does not answer; try again",
                    retry("STORE_UNAVAILABLE", RETRY_STORE),
                )
            }
            Refusal::Store(store::Error::CommitUnknown(cause)) => {
                tracing::error!(error = %cause, "the store failed in the middle of a commit");
                // A code that nobody repeats by itself: the change may have been made.
                error(
                    Code::Unknown,
                    "the store failed while the change was committed, so it may or may not have been made; look before you repeat it",
                    info("COMMIT_UNKNOWN"),
                )
            }
            Refusal::Store(store::Error::Corrupt(what)) => {
                tracing::error!(what, "what is stored cannot be read");
                internal()
            }
            Refusal::Store(store::Error::IdTaken(id)) => {
                // It was made of the time and of ten random bytes.
                tracing::error!(key_id = %id, "a new key got the id of a deleted one");
                internal()
            }
            Refusal::NotApplied(_) => {
                tracing::error!(message, "a change has not come round");
                error(Code::Unknown, message, info("NOT_APPLIED"))
            }
            Refusal::Behind => error(
                Code::Unavailable,
                message,
                retry("STORE_UNAVAILABLE", RETRY_STORE),
            ),
        }
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Starting => starting(),
            AuthError::Unauthenticated(why) => unauthenticated(why),
            AuthError::Forbidden(forbidden) => forbidden.into(),
            AuthError::Verify(VerifyError::PepperMissing) => pepper_missing(),
            AuthError::Verify(VerifyError::Corrupt) | AuthError::NoBuiltInRealm => internal(),
        }
    }
}

impl From<Forbidden> for Status {
    fn from(Forbidden(why): Forbidden) -> Self {
        error(Code::PermissionDenied, why, info("NOT_ALLOWED"))
    }
}

/// The request breaks rules.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    violated(Code::InvalidArgument, "", "INVALID_FIELD", violations)
}

/// The message and the details name each field that is to blame.
fn violated(code: Code, heading: &str, reason: &str, violations: &[Violation]) -> Status {
    // An error travels in headers, of which clients take a few kilobytes.
    let more = violations.len().saturating_sub(MOST_VIOLATIONS);
    let shown = || violations.iter().take(MOST_VIOLATIONS);
    let sentences: Vec<_> = shown()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect();
    let mut message = format!("{heading}{}", sentences.join("; "));
    if more > 0 {
        let _ = write!(message, "; and {more} more");
    }
    let mut details = info(reason);
    details.set_bad_request(
        shown()
            .map(|violation| FieldViolation::new(&violation.field, &violation.description))
            .collect::<Vec<_>>(),
    );
    error(code, message, details)
}

/// An entry of an import was refused.
pub(super) fn not_imported(why: EntryRefusal) -> Status {
    match why {
        EntryRefusal::Invalid(violations) => invalid(&violations),
        EntryRefusal::NotFound(what) => error(
            Code::NotFound,
            format!("{what} does not exist"),
            info("NOT_FOUND"),
        ),
        EntryRefusal::AlreadyImported(key) => {
            let metadata = key.map(|(id, realm)| {
                HashMap::from([
                    ("key_id".to_owned(), id.to_string()),
                    ("realm".to_owned(), realm.to_string()),
                ])
            });
            let mut details = ErrorDetails::new();
            details.set_error_info("ALREADY_IMPORTED", DOMAIN, metadata.unwrap_or_default());
            error(
                Code::AlreadyExists,
                "a key with this text was imported before",
                details,
            )
        }
        EntryRefusal::Repeated => error(
            Code::AlreadyExists,
            "the same text stands further up in this request",
            info("ALREADY_IMPORTED"),
        ),
    }
}

/// The caller did not prove who it is.
pub(super) fn unauthenticated(message: &str) -> Status {
    error(Code::Unauthenticated, message, info("NOT_AUTHENTICATED"))
}

/// The caller's partner has as many changes under way as it may have by keys of its own.
pub(super) fn too_many_changes() -> Status {
    error(
        Code::ResourceExhausted,
        "the caller's partner has too many changes under way; try again",
        retry("TOO_MANY_CHANGES", RETRY_SOON),
    )
}

/// Nothing is in memory yet.
pub(super) fn starting() -> Status {
    error(
        Code::Unavailable,
        "this server is starting and does not know the keys yet; try again",
        retry("STARTING", RETRY_SOON),
    )
}

/// The mirror does not know yet what the caller knows.
pub(super) fn behind() -> Status {
    error(
        Code::Unavailable,
        "this server does not know of min_revision yet; try again",
        retry("BEHIND_MIN_REVISION", RETRY_SOON),
    )
}

/// The pepper file lacks the version that this key was digested under.
pub(super) fn pepper_missing() -> Status {
    error(
        Code::Unavailable,
        "this server's pepper file lacks the version that this key needs; an operator must put it back",
        retry("PEPPER_MISSING", RETRY_STORE),
    )
}

/// Why there is no decision, for the gateway; the log has the rest.
pub(super) fn undecided(undecided: VerifyError) -> Status {
    match undecided {
        VerifyError::Corrupt => {
            tracing::error!("a key was presented of which what is stored cannot be read");
            internal()
        }
        VerifyError::PepperMissing => {
            tracing::error!(
                "a key was presented whose version of the pepper the pepper file lacks"
            );
            pepper_missing()
        }
    }
}

/// Something is wrong here that is none of the caller's business.
pub(super) fn internal() -> Status {
    error(Code::Internal, "internal error", info("INTERNAL"))
}

/// As many calls are worked on as may be.
pub(super) fn too_many_calls() -> Status {
    error(
        Code::ResourceExhausted,
        "this server works on as many calls as it takes at once; try again",
        retry("TOO_MANY_CALLS", RETRY_SOON),
    )
}

/// The caller's address has too many bytes of unfinished requests here, or all have.
pub(super) fn too_many_bodies() -> Status {
    error(
        Code::ResourceExhausted,
        "too many requests are being sent here that are not complete; try again",
        retry("TOO_MANY_BODIES", RETRY_SOON),
    )
}

/// The time is over that the caller gave the call.
pub(super) fn deadline_exceeded() -> Status {
    error(
        Code::DeadlineExceeded,
        "the call's deadline is over; a change that it began may still be made",
        info("DEADLINE_EXCEEDED"),
    )
}

/// The time is over that the server gives a call.
pub(super) fn call_too_long() -> Status {
    error(
        Code::DeadlineExceeded,
        "the call took longer than this server lets one take; a change that it began may still be made",
        info("CALL_TOO_LONG"),
    )
}

/// There is no such method.
pub(super) fn no_such_method() -> Status {
    error(
        Code::Unimplemented,
        "there is no such method",
        info("NO_SUCH_METHOD"),
    )
}

/// What tonic itself answered, with a reason for programs, and the code by which gRPC's other servers tell it.
pub(super) fn of_tonic(code: Code, message: &str) -> Status {
    match code {
        // Malformed protobuf, no message, a message cut short: tonic calls "internal" what only a client can do wrong. What
        // is our own fault says so with details.
        Code::Internal => error(
            Code::InvalidArgument,
            format!("the request cannot be read: {message}"),
            info("MALFORMED_REQUEST"),
        ),
        Code::OutOfRange => error(Code::ResourceExhausted, message, info("MESSAGE_TOO_LARGE")),
        Code::Unimplemented if message.is_empty() => no_such_method(),
        Code::Unimplemented => error(code, message, info("UNIMPLEMENTED")),
        other => error(other, message, info("TRANSPORT")),
    }
}

/// An error as it stands inside a message.
pub(super) fn as_message(status: &Status) -> tonic_types::Status {
    use prost::Message;
    tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

fn error(code: Code, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(code, message, details)
}

fn info(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new())
}

fn retry(reason: &str, after: Duration) -> ErrorDetails {
    let mut details = info(reason);
    details.set_retry_info(Some(after));
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_fits_into_headers_however_much_is_wrong() {
        let violations: Vec<_> = (0..1_000)
            .map(|i| Violation {
                field: format!("realm.scopes[{i}].name"),
                description: "must match [a-z][a-z0-9:._-]{0,63}".to_owned(),
            })
            .collect();
        let status = invalid(&violations);
        assert!(
            status.message().ends_with("and 984 more"),
            "{}",
            status.message()
        );
        // What gRPC's C core takes at the most, in all headers together, is 8 KiB; details are sent as base64.
        assert!(status.message().len() + status.details().len() * 4 / 3 < 6 * 1024);
        assert_eq!(
            status
                .get_error_details()
                .bad_request()
                .unwrap()
                .field_violations
                .len(),
            16
        );
    }
}
