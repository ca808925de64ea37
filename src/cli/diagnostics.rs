//! Errors of the connection and of the server, turned into a [`Failure`] with a hint.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::time::Duration;

use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use super::contexts::ChosenContext;
use super::failure::{self, Failure, Violation};
use super::flags;
use super::key_refusal::KeyRefusal;
use super::text::span;

/// What to do if the server refuses the client's certificate.
const CLIENT_CERTIFICATE: &str = "use a certificate that has not expired and is from an issuer of the server's --client-ca, with --client-cert and \
     --client-key";

/// The same if the connection broke before the server's reason arrived.
const CLIENT_CERTIFICATE_MAYBE: &str =
    "the server may not accept the client certificate of --client-cert: see the log of the server";

/// The facts about a call that its failures name.
#[derive(Clone, Debug)]
pub(super) struct CallContext {
    pub(super) endpoint: String,
    pub(super) key_source: String,
    /// How to call with another key.
    pub(super) other_key: String,
    pub(super) timeout: Duration,
    /// The client presents a certificate.
    pub(super) has_client_certificate: bool,
    /// The address is that of the context.
    pub(super) has_endpoint_of_context: bool,
    /// The context whose settings are in force.
    pub(super) chosen: Option<ChosenContext>,
}

impl CallContext {
    /// The server in a sentence: `127.0.0.1:7700 (context prod)`.
    pub(super) fn server(&self) -> String {
        let address = self.endpoint.strip_prefix("http://");
        let address = address.unwrap_or(&self.endpoint);
        match &self.chosen {
            Some(chosen) if self.has_endpoint_of_context => {
                format!("{address} (context {})", chosen.name)
            }
            _ => address.to_owned(),
        }
    }

    /// The failure to connect to the server.
    pub(super) fn unreachable(&self, error: &(dyn Error + 'static)) -> Failure {
        let endpoint = &self.endpoint;
        let kind = causes(error)
            .find_map(|cause| cause.downcast_ref::<io::Error>())
            .map(io::Error::kind);
        if kind == Some(io::ErrorKind::ConnectionRefused) {
            return Failure::new(
                Code::Unavailable,
                format!("no answer from {}: connection refused", self.server()),
            )
            .hint(if self.chosen.is_some() {
                "claviger serve, or --endpoint URL, or claviger use CONTEXT"
            } else {
                "claviger serve, or --endpoint URL"
            });
        }
        let root = causes(error).last().unwrap_or(error);
        let is_https = endpoint.starts_with("https:");
        let why = match Cause::of(error) {
            Cause::UntrustedIssuer => {
                "the server's certificate is not from a trusted issuer".to_owned()
            }
            Cause::IssuerAsServer => {
                "the server's certificate is that of an issuer (CA:TRUE), which no server may use"
                    .to_owned()
            }
            Cause::OtherName => {
                "the server's certificate is not valid for the name in --endpoint".to_owned()
            }
            Cause::Expired => "the server's certificate has expired".to_owned(),
            Cause::ClientCertificate => {
                "the server does not accept the client certificate".to_owned()
            }
            Cause::NoGrpc => "the server does not speak gRPC on this port".to_owned(),
            Cause::Closed if is_https => format!("the server does not serve TLS ({root})"),
            Cause::Certificate | Cause::HostName | Cause::Closed | Cause::Other => root.to_string(),
        };
        Failure::new(
            Code::Unavailable,
            format!("cannot reach {endpoint}: {why}"),
        )
        .hint(match Cause::of(error) {
            Cause::UntrustedIssuer | Cause::Certificate => {
                "set the trusted certificates with --ca-file"
            }
            Cause::IssuerAsServer => "make a certificate for the server with CA:FALSE",
            Cause::OtherName => {
                "use a name or an address of the certificate in --endpoint, or issue a certificate for this one"
            }
            Cause::Expired => {
                "replace the certificate of the server, and check the clock of this machine"
            }
            Cause::ClientCertificate => CLIENT_CERTIFICATE,
            Cause::HostName => "check the host name in --endpoint",
            Cause::NoGrpc => {
                "this may be the server's HTTP port: use its gRPC port, by default 7700"
            }
            Cause::Closed if is_https => "check that the port speaks TLS, or use http://",
            Cause::Closed | Cause::Other => {
                "set the server's address with --endpoint or CLAVIGER_ENDPOINT"
            }
        })
    }

    /// The failure of a call without a response in time.
    pub(super) fn timeout(&self, is_change: bool) -> Failure {
        Failure::new(
            Code::DeadlineExceeded,
            format!("no answer from {} within {}", self.server(), span(self.timeout)),
        )
        .hint(if is_change {
            "the change may have been made or not: check before you repeat it; --timeout sets a longer wait"
        } else {
            "--timeout sets a longer wait"
        })
        .outcome_unknown(is_change)
    }

    /// The failure of a call that Ctrl-C ended.
    pub(super) fn interrupted(&self, is_change: bool) -> Failure {
        let failure = Failure::new(
            Code::Cancelled,
            format!("interrupted before the answer of {}", self.server()),
        )
        .interrupted();
        if !is_change {
            return failure;
        }
        failure
            .hint("the change may have been made or not: check before you repeat it")
            .outcome_unknown(true)
    }

    /// The failure of a call that returned an error, or whose connection broke.
    pub(super) fn failed(&self, status: &Status, is_change: bool) -> Failure {
        if is_timeout(status) {
            return self.timeout(is_change);
        }
        // Only an error of this side has a cause: the connection broke.
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
        let info = details.error_info();
        let metadata = info.map_or_else(HashMap::new, |info| info.metadata.clone());
        let has_reason = |reason: &str| {
            let info = details.error_info();
            info.is_some_and(|info| info.reason == reason)
        };
        let failure = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied
                if let Some(refusal) = KeyRefusal::of(&message, &metadata) =>
            {
                self.refused_key(status.code(), &refusal)
            }
            Code::Unauthenticated if has_reason("CLIENT_CERTIFICATE_REQUIRED") =>
            {
                Failure::new(Code::Unauthenticated, message)
                    .hint("name the certificate with --client-cert and its key with --client-key")
            }
            Code::PermissionDenied if details.bad_request().is_some() => Failure::new(
                Code::PermissionDenied,
                format!("the key from {key} cannot grant more than it holds"),
            )
            .hint("grant less, or use a key that holds enough: an operator's or a realm manager's"),
            code @ (Code::Unauthenticated | Code::PermissionDenied) => {
                Failure::new(code, about_key(key, &message))
            }
            Code::Aborted => Failure::new(Code::Aborted, message).hint(
                "read the current state, then repeat the change with its revision (--if-revision)",
            ),
            Code::Unimplemented if has_reason("ADMINISTRATION_ELSEWHERE") => {
                Failure::new(Code::Unimplemented, message)
                    .hint("set the address of administration with --endpoint or CLAVIGER_ENDPOINT")
            }
            Code::Unimplemented => Failure::new(
                Code::Unimplemented,
                format!("the server at {} does not implement this call", self.endpoint),
            )
            .hint("the server may be older than this program, or the address may not be claviger's gRPC address"),
            Code::Internal | Code::Unknown | Code::DataLoss => {
                Failure::new(status.code(), format!("the server failed: {message}"))
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
        // The server returns this code if the outcome of its commit is unknown.
        let is_outcome_unknown = is_change && status.code() == Code::Unknown;
        failure
            .with_details(reason, violations, retry)
            .metadata(metadata)
            .outcome_unknown(is_outcome_unknown)
    }

    /// The failure of a call with a key that the server refuses. What the server advises is for all clients; the hint is for this one.
    fn refused_key(&self, code: Code, refusal: &KeyRefusal<'_>) -> Failure {
        let sentence = refusal.sentence(&flags::now().into());
        Failure::new(code, sentence).hint(refusal.hint(
            &self.server(),
            &self.other_key,
            &self.key_source,
        ))
    }

    fn broken(&self, cause: &(dyn Error + 'static), is_change: bool) -> Failure {
        // A client that connects with its first call has not sent it then.
        if causes(cause).any(<dyn Error>::is::<ConnectError>) {
            return self.unreachable(cause);
        }
        let root = causes(cause).last().unwrap_or(cause);
        let endpoint = &self.endpoint;
        // With TLS 1.3 the server looks at the client's certificate when the client takes the connection for established already.
        let is_refused = matches!(Cause::of(cause), Cause::ClientCertificate);
        let message = if is_refused {
            format!("cannot reach {endpoint}: the server does not accept the client certificate")
        } else {
            format!("the connection to {endpoint} broke: {root}")
        };
        Failure::new(Code::Unavailable, message)
            .hint(if is_refused {
                CLIENT_CERTIFICATE
            } else if self.has_client_certificate && !is_change {
                CLIENT_CERTIFICATE_MAYBE
            } else if is_change {
                "the change may have been made or not: check before you repeat it"
            } else if endpoint.starts_with("http:") {
                "check that the address is the server's gRPC address, by default port 7700, and not its HTTP address; if the \
                 server serves TLS, use https://"
            } else {
                "check that the address is the server's gRPC address, by default port 7700, and not its HTTP address"
            })
            // A call is sent only over a connection that was established on both sides.
            .outcome_unknown(is_change && !is_refused)
    }
}

/// Returns the hint for a reason that is more specific than the code.
fn remedy(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "KEY_EXPIRED" => {
            "set a later expiry with `claviger keys update KEY --expires-in SPAN`, if the key is to stay valid"
        }
        "LOCKS_OUT_CALLER" => {
            "leave your own key out: `revoke-all` with --partner or an earlier --issued-before, `apply` with its SHA-256 in a file"
        }
        _ => return None,
    })
}

/// Returns the server's message about the caller's key, with the source of the key.
fn about_key(source: &str, message: &str) -> String {
    const KEY: &str = "the caller's key";
    if message.contains(KEY) {
        message.replacen(KEY, &format!("the key from {source}"), 1)
    } else {
        format!("the key from {source}: {message}")
    }
}

/// Why a connection cannot be established, as far as the messages distinguish it.
enum Cause {
    /// No trusted certificate has issued the server's.
    UntrustedIssuer,
    /// The server uses the certificate of an issuer.
    IssuerAsServer,
    /// The server's certificate names other hosts.
    OtherName,
    /// The server's certificate has expired.
    Expired,
    /// The server's certificate is wrong in another way.
    Certificate,
    /// The server refuses the client's certificate.
    ClientCertificate,
    /// The host name has no address.
    HostName,
    /// The server does not offer HTTP/2.
    NoGrpc,
    /// The server ended the connection, or does not speak TLS.
    Closed,
    Other,
}

impl Cause {
    fn of(error: &(dyn Error + 'static)) -> Self {
        // The types of the TLS and DNS errors belong to crates below tonic, so their texts are compared.
        let has = |part: &str| causes(error).any(|cause| cause.to_string().contains(part));
        let is_closed = causes(error)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| {
                matches!(
                    cause.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::UnexpectedEof
                )
            });
        if has("UnknownIssuer") {
            Self::UntrustedIssuer
        } else if has("CaUsedAsEndEntity") {
            Self::IssuerAsServer
        } else if has("certificate not valid for name") || has("certificate: NotValidForName") {
            Self::OtherName
        } else if has("certificate expired") || has("certificate: Expired") {
            Self::Expired
        } else if has("NoApplicationProtocol") {
            Self::NoGrpc
        } else if has("received fatal alert") {
            // The alerts of a server that found fault with what this side sent after it had accepted the rest of the handshake.
            let of_certificate = ["ertificate", "UnknownCA", "UnknownCa", "DecryptError"];
            if of_certificate.iter().any(|alert| has(alert)) {
                Self::ClientCertificate
            } else {
                Self::Other
            }
        } else if has("certificate") {
            Self::Certificate
        } else if has("dns error") || has("failed to lookup address") {
            Self::HostName
        } else if is_closed || has("corrupt message") {
            Self::Closed
        } else {
            Self::Other
        }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        (*error).source()
    })
}

/// Whether the status is a timeout, of this side or of the server, which reports the same message. Other cancellations
/// come from a closed connection, for example of a server that stops.
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

    fn context() -> CallContext {
        CallContext {
            endpoint: "http://127.0.0.1:7700".to_owned(),
            key_source: "CLAVIGER_KEY".to_owned(),
            other_key: "set CLAVIGER_KEY to another key, or --key-file FILE".to_owned(),
            timeout: Duration::from_secs(10),
            has_client_certificate: false,
            has_endpoint_of_context: false,
            chosen: None,
        }
    }

    fn failed(status: &Status) -> Failure {
        context().failed(status, false)
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
        let failure = failed(&status);

        assert!(failure.is_usage());
        assert_eq!(
            failure.to_string(),
            "error: the server rejected the request:\n\
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
            failed(&status).json().to_string(),
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
            failed(&status).to_string(),
            "error: it is in use\n  partner acme: has 3 keys"
        );
    }

    #[test]
    fn a_key_that_is_refused_is_named_by_its_source() {
        let unknown =
            "this authority does not know the caller's key: check that it is the right one";
        let shown = failed(&Status::unauthenticated(unknown)).to_string();
        assert_eq!(
            shown,
            "error: this authority does not know your key\n\
             hint: it may be mistyped, deleted, replaced by a rotation, or of another authority than 127.0.0.1:7700; set CLAVIGER_KEY to \
             another key, or --key-file FILE; this one came from CLAVIGER_KEY"
        );
        let revoked = "the caller's key is revoked: use another key";
        assert_eq!(
            failed(&Status::unauthenticated(revoked)).to_string(),
            "error: your key is revoked\n\
             hint: set CLAVIGER_KEY to another key, or --key-file FILE; this one came from CLAVIGER_KEY"
        );
        let forbidden = "the caller's key may not do this: use an operator key";
        assert_eq!(
            failed(&Status::permission_denied(forbidden)).to_string(),
            "error: the key from CLAVIGER_KEY may not do this: use an operator key"
        );
        assert_eq!(
            failed(&Status::permission_denied("not from here")).to_string(),
            "error: the key from CLAVIGER_KEY: not from here"
        );
    }

    #[test]
    fn the_hint_for_a_connection_depends_on_the_cause() {
        let https = CallContext {
            endpoint: "https://keys.example".to_owned(),
            ..context()
        };
        let hint = |context: &CallContext, error: &io::Error| {
            let shown = context.unreachable(error).to_string();
            shown.split_once("\nhint: ").unwrap().1.to_owned()
        };
        let certificate = io::Error::new(
            io::ErrorKind::InvalidData,
            "invalid peer certificate: UnknownIssuer",
        );
        assert_eq!(
            hint(&https, &certificate),
            "set the trusted certificates with --ca-file"
        );
        let name =
            io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(hint(&https, &name), "check the host name in --endpoint");
        assert_eq!(hint(&context(), &name), "check the host name in --endpoint");
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(
            hint(&https, &reset),
            "check that the port speaks TLS, or use http://"
        );
        let address = "set the server's address with --endpoint or CLAVIGER_ENDPOINT";
        assert_eq!(hint(&context(), &reset), address);
        let other = io::Error::other("network is unreachable");
        assert_eq!(hint(&https, &other), address);
    }

    #[test]
    fn a_server_that_is_busy_says_when_to_come_again() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::Unavailable, "the store is away", details);
        assert_eq!(
            failed(&status).to_string(),
            "error: the store is away\nhint: try again in 2s"
        );
    }

    #[test]
    fn nothing_that_listens_is_told_from_no_answer() {
        let refusal = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            context().unreachable(&refusal).to_string(),
            "error: no answer from 127.0.0.1:7700: connection refused\nhint: claviger serve, or --endpoint URL"
        );
        assert_eq!(
            context().timeout(false).to_string(),
            "error: no answer from 127.0.0.1:7700 within 10s\nhint: --timeout sets a longer wait"
        );
    }

    #[test]
    fn a_change_without_an_answer_may_have_been_made() {
        let status = Status::deadline_exceeded("");
        let failure = context().failed(&status, true);
        assert!(failure.to_string().contains("may have been made or not"));
    }

    #[test]
    fn only_time_that_ran_out_is_a_timeout() {
        let by_message = Status::cancelled("Timeout expired");
        let by_cause = Status::from_error(Box::new(TimeoutExpired(())));
        assert_eq!(by_cause.code(), Code::Cancelled);
        for status in [Status::deadline_exceeded(""), by_message, by_cause] {
            assert!(
                failed(&status).to_string().contains("within 10s"),
                "{status}"
            );
        }
        let shown = failed(&Status::cancelled("the server stops")).to_string();
        assert_eq!(shown, "error: the server stops");
    }

    #[test]
    fn a_cancellation_with_a_cause_is_a_broken_connection() {
        let mut status = Status::cancelled("operation was canceled");
        status.set_source(std::sync::Arc::new(io::Error::other("reset")));
        assert_eq!(
            context().failed(&status, true).to_string(),
            "error: the connection to http://127.0.0.1:7700 broke: reset\n\
             hint: the change may have been made or not: check before you repeat it"
        );
    }

    #[test]
    fn the_servers_words_cannot_drive_the_terminal() {
        let shown = failed(&Status::not_found("no \x1b[31mrealm\n")).to_string();
        assert_eq!(shown, "error: no \\u{1b}[31mrealm\\n");
    }
}
