//! Errors of a command, with hints on what to do.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use super::text::plain;

/// The error of a command. It never contains an API key.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    message: String,
    /// The part of the command that failed, such as one of several realms.
    part: Option<String>,
    /// What to do about the error.
    hint: Option<String>,
    /// The `ErrorInfo` reason of the server, for programs.
    reason: Option<String>,
    violations: Vec<Violation>,
    /// When the server allows a retry.
    retry_after: Option<Duration>,
    /// The call was a change, and the change may have been made.
    is_outcome_unknown: bool,
}

/// One violation: a field or subject, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) field: String,
    pub(super) description: String,
}

impl Failure {
    /// Incorrect usage of the command.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// A failure on this side.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// A change that was refused because another caller changed the item, with the server's code and reason.
    pub(super) fn changed_meanwhile(message: impl Into<String>) -> Self {
        Self {
            reason: Some("CHANGED_MEANWHILE".to_owned()),
            ..Self::new(Code::Aborted, message)
        }
    }

    /// A failure with the code that the server returned, or would have returned.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            part: None,
            hint: None,
            reason: None,
            violations: Vec::new(),
            retry_after: None,
            is_outcome_unknown: false,
        }
    }

    /// Adds the details of the server's error.
    pub(super) fn with_details(
        self,
        reason: Option<String>,
        violations: Vec<Violation>,
        retry_after: Option<Duration>,
    ) -> Self {
        Self {
            reason,
            violations,
            retry_after,
            ..self
        }
    }

    /// Sets whether the change may have been made.
    pub(super) fn outcome_unknown(self, is_outcome_unknown: bool) -> Self {
        Self {
            is_outcome_unknown,
            ..self
        }
    }

    /// Adds which part of the command failed.
    pub(super) fn within(self, part: impl Into<String>) -> Self {
        Self {
            part: Some(part.into()),
            ..self
        }
    }

    /// Adds a hint on what to do.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Whether the request itself is wrong, so that a repetition cannot help.
    pub(super) fn is_usage(&self) -> bool {
        self.code == Code::InvalidArgument
    }

    /// Whether the call was a change that may have been made.
    pub(super) fn is_outcome_unknown(&self) -> bool {
        self.is_outcome_unknown
    }

    /// When a retry may succeed: after zero if the server sent no delay, `None` if a retry cannot help.
    pub(super) fn retry(&self) -> Option<Duration> {
        match self.code {
            Code::Unavailable => Some(self.retry_after.unwrap_or_default()),
            // Without a delay the limit is permanent, such as the size of a message.
            Code::ResourceExhausted => self.retry_after,
            _ => None,
        }
    }

    /// Whether the same request will fail again, until somebody changes something else.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self.code,
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::FailedPrecondition
                | Code::Unimplemented
        )
    }

    /// Whether no answer came in time.
    pub(super) fn is_timeout(&self) -> bool {
        self.code == Code::DeadlineExceeded
    }

    /// Whether the requested item does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// Whether the same call may succeed later, because the server could not be reached, or was too slow or too busy.
    pub(super) fn is_outage(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted
        )
    }

    /// Whether the caller may not do this.
    pub(super) fn is_forbidden(&self) -> bool {
        self.code == Code::PermissionDenied
    }

    /// Whether another caller changed the item since it was read.
    pub(super) fn is_changed_meanwhile(&self) -> bool {
        self.code == Code::Aborted
    }

    /// The message, without the hint.
    pub(super) fn message(&self) -> String {
        plain(&self.message).into_owned()
    }

    /// The message, with the part that failed.
    fn message_of_part(&self) -> String {
        match &self.part {
            Some(part) => format!("{part}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// The error as JSON.
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
            "message": self.message_of_part(),
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

/// The error for people. Text of the server is escaped, so that it cannot control the terminal.
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The server's message repeats what the violations say.
        let fields_alone = matches!(self.code, Code::InvalidArgument | Code::AlreadyExists);
        if fields_alone && !self.violations.is_empty() {
            formatter.write_str("error: ")?;
            if let Some(part) = &self.part {
                write!(formatter, "{}: ", plain(part))?;
            }
            formatter.write_str("the server rejected the request:")?;
        } else {
            write!(formatter, "error: {}", plain(&self.message_of_part()))?;
            let fields_follow = self.code == Code::PermissionDenied;
            if fields_follow && !self.violations.is_empty() {
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

/// The name of a code as gRPC writes it: `INVALID_ARGUMENT`.
pub(super) fn name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

/// The fields of the requests, and the flags that set them.
pub(super) const FLAGS: [(&str, &str); 46] = [
    ("actor", "--actor"),
    ("admin_scope", "--admin-scope"),
    ("allowed_cidrs", "--allow-cidr"),
    ("any_scopes", "--any-scope"),
    ("any_target", "--any-target"),
    ("beyond_max_lifetime", "--beyond-max-lifetime"),
    ("client_ip", "--client-ip"),
    ("created_by", "--created-by"),
    ("display_name", "--display-name"),
    ("end_time", "--until or --to"),
    ("entries", "--batch"),
    ("environment", "--environment"),
    ("environments", "--environment"),
    ("expire_time", "--expires-in or --expires-at"),
    ("expires_within", "--expires-within"),
    ("external_id", "--external-id"),
    ("full_access", "--full-access"),
    ("hint", "--hint"),
    ("if_revision", "--if-revision"),
    ("issued_after", "--issued-after"),
    ("issued_before", "--issued-before"),
    ("kind", "--kind"),
    ("labels", "--label"),
    ("level", "--level"),
    ("levels", "--level"),
    ("max_cache", "--max-cache"),
    ("max_lifetime", "--max-lifetime"),
    ("min_revision", "--min-revision"),
    ("name", "--name"),
    ("overlap", "--overlap"),
    ("own_project", "--own-project"),
    ("page_size", "--page-size"),
    ("page_token", "--page-token"),
    ("partner", "--partner"),
    ("prefix", "--prefix"),
    ("project", "--project"),
    ("realm", "--realm"),
    ("reason", "--reason"),
    ("request_id", "--request-id"),
    ("scopes", "--scope"),
    ("start_time", "--since or --from"),
    ("states", "--state"),
    ("top", "--top"),
    ("unused_for", "--unused-for"),
    ("unscoped_keys", "--unscoped-keys"),
    ("wait", "--wait"),
];

/// Returns the flag that sets a field. A path such as `realm.environments[0].tag` belongs to the flag of its list.
fn flag(field: &str) -> Option<&'static str> {
    let path = field.split('[').next().unwrap_or(field);
    let leaf = path.rsplit('.').next().unwrap_or(path);
    FLAGS
        .iter()
        .find_map(|(field, flag)| (*field == leaf).then_some(*flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_a_part_names_the_part() {
        let failure = Failure::new(Code::FailedPrecondition, "too broad").within("realm demo");
        assert_eq!(failure.to_string(), "error: realm demo: too broad");
        assert_eq!(failure.json()["error"]["message"], "realm demo: too broad");
        let violation = Violation {
            field: "filter.hint".to_owned(),
            description: "is wrong".to_owned(),
        };
        let failure = Failure::usage("wrong")
            .with_details(None, vec![violation], None)
            .within("realm demo");
        assert_eq!(
            failure.to_string(),
            "error: realm demo: the server rejected the request:\n  --hint (filter.hint): is wrong"
        );
    }

    #[test]
    fn codes_are_written_as_grpc_does() {
        assert_eq!(name(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(name(Code::NotFound), "NOT_FOUND");
    }
}
