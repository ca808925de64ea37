//! Refusals as gRPC errors: a code, a message, and details for programs.
//!
//! Faults of the server are logged here, at most once a minute each. The caller gets a fixed message.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use hyper::body::Bytes;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::auth::{AuthError, Forbidden, KeyObjection, RefusedKey};
use crate::authority::{EntryRefusal, Queued, Refusal, RefusedKeyFacts};
use crate::domain::ids::KeyId;
use crate::domain::violation::Violations;
use crate::mirror::MissingRevision;
use crate::pb::claviger::v1::KeyState;
use crate::store;
use crate::telemetry::limited;
use crate::verify::VerifyError;

/// The domain of every `google.rpc.ErrorInfo` that is sent.
const DOMAIN: &str = "claviger";

/// The `RetryInfo` delay after the store did not answer.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// The `RetryInfo` delay after a limit, and while the server lacks recent data.
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
            Refusal::ExternalIdTaken(holder) => external_id_taken(Some(holder)),
            Refusal::Precondition { reason, .. } => {
                error(Code::FailedPrecondition, message, info(reason))
            }
            Refusal::Conflict(_) => error(Code::Aborted, message, info("CHANGED_MEANWHILE")),
            Refusal::Busy(_) => exhausted(message, "BUSY", RETRY_SOON),
            Refusal::TooManyOfCaller(of) => {
                let reason = match of {
                    Queued::Changes | Queued::NewKeys => "TOO_MANY_CHANGES",
                    Queued::Reads => "TOO_MANY_READS",
                };
                exhausted(message, reason, RETRY_SOON)
            }
            Refusal::BudgetSpent(wait) => exhausted(message, "CHANGE_BUDGET_SPENT", wait),
            Refusal::NothingToRevoke(cause) => because(&message, *cause),
            Refusal::Store(failure) => store_error(failure),
            Refusal::NotApplied(_) => {
                limited!(error, message, "committed change not applied");
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

/// The error for a failure of the store.
fn store_error(failure: store::Error) -> Status {
    match failure {
        store::Error::Busy => error(
            Code::ResourceExhausted,
            "the server is busy with other calls: try again",
            retry("BUSY", RETRY_SOON),
        ),
        store::Error::NoRoom { free, reserve } => {
            limited!(
                error,
                free,
                reserve,
                "disk nearly full; only changes that take access away are made"
            );
            error(
                Code::ResourceExhausted,
                "the disk of the server is nearly full, so only changes that take access away are made: ask an operator to \
                 free some space",
                info("DISK_NEARLY_FULL"),
            )
        }
        store::Error::TooBroad => error(
            Code::FailedPrecondition,
            "the search took longer than 4.5 seconds: add a partner, a project or an external id (keys), a realm, a partner or a key \
             (events), or a partner or a shorter range (usage), or find the key by its whole API key",
            info("FILTER_TOO_BROAD"),
        ),
        store::Error::Unavailable(cause) => {
            limited!(error, error = %cause, "store unavailable");
            error(
                Code::Unavailable,
                "the store does not answer: try again",
                retry("STORE_UNAVAILABLE", RETRY_STORE),
            )
        }
        store::Error::CommitUnknown(cause) => {
            limited!(error, error = %cause, "commit outcome unknown");
            // A code that clients do not retry automatically: the change may have been made.
            error(
                Code::Unknown,
                "the store failed during the commit, so the change may or may not have been made: check the current state \
                 before you repeat the call",
                info("COMMIT_UNKNOWN"),
            )
        }
        store::Error::Refused(cause) => {
            limited!(error, error = %cause, "value refused by the store");
            internal()
        }
        store::Error::Corrupt(what) => {
            limited!(error, what, "stored data unreadable");
            internal()
        }
        store::Error::IdTaken(id) => {
            // An id consists of the time and ten random bytes.
            limited!(error, key_id = %id, "new key has the id of a deleted key");
            internal()
        }
    }
}

/// The error for a refusal, with a message before its own.
fn because(message: &str, cause: Refusal) -> Status {
    let cause = Status::from(cause);
    let message = format!("{message}: {}", cause.message());
    Status::with_details(
        cause.code(),
        message,
        Bytes::copy_from_slice(cause.details()),
    )
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Starting => starting(),
            AuthError::Unauthenticated(why) => unauthenticated(why),
            AuthError::Refused(key) => refused_key(&key, None),
            AuthError::Forbidden(forbidden) => forbidden.into(),
            AuthError::Verify(reason) => verify_error(reason),
            AuthError::NoBuiltInRealm => {
                limited!(error, "stored data of the built-in realm missing");
                internal()
            }
        }
    }
}

impl From<Forbidden> for Status {
    fn from(Forbidden(why): Forbidden) -> Self {
        error(Code::PermissionDenied, why, info("NOT_ALLOWED"))
    }
}

/// The error for a request whose fields break rules.
pub(super) fn invalid(violations: &Violations) -> Status {
    violated(Code::InvalidArgument, "", "INVALID_FIELD", violations)
}

/// An error whose message and details name each wrong field.
fn violated(code: Code, heading: &str, reason: &str, violations: &Violations) -> Status {
    let descriptions: Vec<_> = violations
        .kept()
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect();
    let mut message = format!("{heading}{}", descriptions.join("; "));
    if violations.more() > 0 {
        let _ = write!(message, "; and {} more", violations.more());
    }
    let mut details = info(reason);
    details.set_bad_request(
        violations
            .kept()
            .iter()
            .map(|violation| FieldViolation::new(&violation.field, &violation.description))
            .collect::<Vec<_>>(),
    );
    error(code, message, details)
}

/// The error for an external id that this key has, or that an earlier entry of the request takes.
fn external_id_taken(holder: Option<KeyId>) -> Status {
    let description = match holder {
        Some(_) => "another key of the realm has it: choose another one, or delete that key",
        None => "an earlier entry of this request has it: choose another one for one of the two",
    };
    let mut details = ErrorDetails::new();
    let metadata = holder.map(|key| ("key_id".to_owned(), key.to_string()));
    details
        .set_error_info("EXTERNAL_ID_TAKEN", DOMAIN, HashMap::from_iter(metadata))
        .set_bad_request(vec![FieldViolation::new("external_id", description)]);
    let message = format!("external_id: {description}");
    error(Code::AlreadyExists, message, details)
}

/// The error of an import entry that was refused.
pub(super) fn not_imported(why: EntryRefusal) -> Status {
    match why {
        EntryRefusal::Invalid(violations) => invalid(&violations),
        EntryRefusal::NotFound(message) => error(Code::NotFound, message, info("NOT_FOUND")),
        EntryRefusal::AlreadyImported(key) => {
            let metadata = key.map(|key| {
                let mut metadata = HashMap::from([
                    ("key_id".to_owned(), key.id.to_string()),
                    ("realm".to_owned(), key.realm.to_string()),
                ]);
                if key.is_revoked {
                    let state = KeyState::Revoked.as_str_name();
                    metadata.insert("state".to_owned(), state.to_owned());
                }
                metadata
            });
            let mut details = ErrorDetails::new();
            details.set_error_info("ALREADY_IMPORTED", DOMAIN, metadata.unwrap_or_default());
            error(
                Code::AlreadyExists,
                "this API key was imported before: leave out this entry",
                details,
            )
        }
        EntryRefusal::Repeated => error(
            Code::AlreadyExists,
            "an earlier entry of this request has the same API key: leave out one of the two",
            info("ALREADY_IMPORTED"),
        ),
        EntryRefusal::ExternalIdTaken(holder) => external_id_taken(Some(holder)),
        EntryRefusal::ExternalIdRepeated => external_id_taken(None),
    }
}

/// The error for a caller without a valid key.
pub(super) fn unauthenticated(message: &str) -> Status {
    error(Code::Unauthenticated, message, info("NOT_AUTHENTICATED"))
}

/// The error for a caller whose own key, which it has proven, is not accepted.
///
/// Its holder may know the facts of the key. The reason of a revocation is not among them: an administrator wrote it
/// for administrators.
pub(super) fn refused_key(key: &RefusedKey, stored: Option<RefusedKeyFacts>) -> Status {
    let RefusedKey {
        id,
        name,
        realm,
        partner,
        objection,
    } = key;
    let (hint, revoked_at) = stored.map_or_else(Default::default, |stored| {
        let RefusedKeyFacts { hint, revoked_at } = stored;
        (hint, revoked_at)
    });
    let (code, reason) = match objection {
        KeyObjection::PartnerSuspended | KeyObjection::AddressDenied => {
            (Code::PermissionDenied, "NOT_ALLOWED")
        }
        KeyObjection::Revoked
        | KeyObjection::Disabled
        | KeyObjection::Expired(_)
        | KeyObjection::OldSecret(_) => (Code::Unauthenticated, "NOT_AUTHENTICATED"),
    };
    let end = match *objection {
        KeyObjection::Revoked => revoked_at.map(|at| ("revoke_time", at)),
        KeyObjection::Expired(at) => Some(("expire_time", at)),
        KeyObjection::OldSecret(at) => Some(("old_expire_time", at)),
        KeyObjection::Disabled | KeyObjection::PartnerSuspended | KeyObjection::AddressDenied => {
            None
        }
    };
    let mut metadata = vec![
        ("verdict", objection.verdict().as_str().to_owned()),
        ("key_id", id.to_string()),
    ];
    // From a wrong address no call tells its holder about the key.
    if !matches!(objection, KeyObjection::AddressDenied) {
        metadata.extend([
            ("name", name.clone()),
            ("hint", hint),
            ("realm", realm.to_string()),
            ("partner", partner.as_str().to_owned()),
        ]);
    }
    let end = end.map(|(name, at)| (name, at.rfc3339().to_string()));
    let metadata = metadata.into_iter().chain(end);
    let metadata = metadata.filter(|(_, value)| !value.is_empty());
    let metadata: HashMap<_, _> = metadata
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    error(code, objection.message(), details)
}

/// The error for a caller without a client certificate, to a service that requires one.
pub(super) fn client_certificate_required() -> Status {
    error(
        Code::Unauthenticated,
        "this server requires a client certificate for this service: connect with one from an issuer of its --client-ca",
        info("CLIENT_CERTIFICATE_REQUIRED"),
    )
}

/// The error while the mirror is not loaded yet.
pub(super) fn starting() -> Status {
    error(
        Code::Unavailable,
        "this server is starting and has not loaded the keys yet: try again",
        retry("STARTING", RETRY_SOON),
    )
}

/// The error for a `min_revision` that the mirror does not have.
pub(super) fn missing_revision(missing: MissingRevision) -> Status {
    match missing {
        MissingRevision::Behind => error(
            Code::Unavailable,
            "this server has not reached `min_revision` yet: try again",
            retry("BEHIND_MIN_REVISION", RETRY_SOON),
        ),
        MissingRevision::Lost => error(
            Code::FailedPrecondition,
            "min_revision: its change was lost when the database failed over: forget this revision, and make the change again if \
             it is still wanted",
            info("REVISION_LOST"),
        ),
    }
}

/// The error for a pepper version that the pepper file lacks.
pub(super) fn pepper_missing() -> Status {
    error(
        Code::Unavailable,
        "the server's pepper file lacks the version that this key needs: put the right pepper file back and restart the server",
        retry("PEPPER_MISSING", RETRY_STORE),
    )
}

/// The error of a server that has had no news from the database for too long.
pub(super) fn lease_lapsed() -> Status {
    error(
        Code::Unavailable,
        "this server has lost contact with the database for longer than its lease, so it does not know what was taken away since: \
         try again, or ask another server",
        retry("LEASE_LAPSED", RETRY_STORE),
    )
}

/// The error for a key without a verdict. The log names the cause.
pub(super) fn verify_error(error: VerifyError) -> Status {
    match error {
        VerifyError::Corrupt => {
            limited!(
                error,
                "stored key, or its realm, partner or project, unreadable"
            );
            internal()
        }
        VerifyError::PepperMissing => {
            limited!(error, "pepper version of the presented key missing");
            pepper_missing()
        }
        VerifyError::LeaseLapsed => lease_lapsed(),
    }
}

/// The error for a fault of the server. The log names the cause.
pub(super) fn internal() -> Status {
    error(
        Code::Internal,
        "internal error: see the log of the server",
        info("INTERNAL"),
    )
}

/// The error when the server, or the client's address, has too many calls in progress.
pub(super) fn too_many_calls() -> Status {
    error(
        Code::ResourceExhausted,
        "the server, or this client address, has too many calls in progress: try again",
        retry("TOO_MANY_CALLS", RETRY_SOON),
    )
}

/// The error when the client's address, or all clients together, have too many bytes of incomplete requests.
pub(super) fn too_many_bodies() -> Status {
    error(
        Code::ResourceExhausted,
        "the server is receiving too many incomplete requests: try again",
        retry("TOO_MANY_BODIES", RETRY_SOON),
    )
}

/// The error after the deadline that the caller set.
pub(super) fn deadline_exceeded() -> Status {
    error(
        Code::DeadlineExceeded,
        "the call's deadline has passed, and a change that it started may still be made: check the current state before you \
         repeat the call",
        info("DEADLINE_EXCEEDED"),
    )
}

/// The error after the server's limit for a call.
pub(super) fn call_too_long() -> Status {
    error(
        Code::DeadlineExceeded,
        "the call took longer than the server allows, and a change that it started may still be made: check the current state \
         before you repeat the call",
        info("CALL_TOO_LONG"),
    )
}

/// The error for an unknown method.
pub(super) fn no_such_method() -> Status {
    error(
        Code::Unimplemented,
        "this server has no such method: check the service name and the client's version",
        info("NO_SUCH_METHOD"),
    )
}

/// The error for administration on the address of the gateways.
pub(super) fn administration_elsewhere() -> Status {
    error(
        Code::Unimplemented,
        "this address serves only gateways, and administration is on another one: call the address of --admin-listen, or the path of \
         --unix-socket, over gRPC",
        info("ADMINISTRATION_ELSEWHERE"),
    )
}

/// The error for a request whose body is no JSON. `why` repeats nothing of the body.
pub(super) fn malformed_json(why: &str) -> Status {
    error(
        Code::InvalidArgument,
        format!("the request is not valid JSON: {why}"),
        info("MALFORMED_REQUEST"),
    )
}

/// The error for a message that is larger than the server accepts.
pub(super) fn message_too_large(why: &str) -> Status {
    error(
        Code::ResourceExhausted,
        format!("the message is larger than this server accepts: send less at once ({why})"),
        info("MESSAGE_TOO_LARGE"),
    )
}

/// The error for a form of a call that the server does not support.
pub(super) fn unsupported(message: &str) -> Status {
    error(Code::Unimplemented, message, info("UNIMPLEMENTED"))
}

/// The error for a header of a request that breaks a rule.
pub(super) fn invalid_header(name: &str, problem: &'static str) -> Status {
    let mut violations = Violations::default();
    violations.add(name, problem);
    invalid(&violations)
}

/// An error that tonic returned, with a reason added, and with the code that other gRPC servers use for it.
pub(super) fn from_tonic(code: Code, message: &str) -> Status {
    match code {
        // Malformed protobuf, no message or a truncated message: tonic reports these errors of the client as internal. Internal
        // errors of this server have details and do not come here.
        Code::Internal => error(
            Code::InvalidArgument,
            format!("the request cannot be decoded: {message}"),
            info("MALFORMED_REQUEST"),
        ),
        Code::OutOfRange => message_too_large(message),
        Code::Unimplemented if message.is_empty() => no_such_method(),
        Code::Unimplemented => error(code, message, info("UNIMPLEMENTED")),
        other => error(other, message, info("TRANSPORT")),
    }
}

/// Converts an error into the form that messages contain.
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

/// The error for a limit that holds no longer than this time.
fn exhausted(message: String, reason: &str, after: Duration) -> Status {
    error(Code::ResourceExhausted, message, retry(reason, after))
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
    fn an_error_fits_into_headers_however_many_fields_are_wrong() {
        let mut violations = Violations::default();
        for i in 0..1_000 {
            violations.add(
                format!("realm.scopes[{i}].name"),
                "must match [a-z][a-z0-9:._-]{0,63}",
            );
        }
        let status = invalid(&violations);
        assert!(
            status.message().ends_with("and 984 more"),
            "{}",
            status.message()
        );
        // gRPC's C core accepts at most 8 KiB in all headers together. Details are sent as base64.
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
