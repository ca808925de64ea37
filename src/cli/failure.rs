//! What went wrong, in sentences that say what to do next.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use super::text::plain;

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
    /// When the server wants to be asked again.
    retry_after: Option<Duration>,
    /// It is a change that may have been made all the same.
    is_open: bool,
}

/// What is wrong with one thing.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) field: String,
    pub(super) description: String,
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

    /// By the code that the server gave, or would have given.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            reason: None,
            violations: Vec::new(),
            retry_after: None,
            is_open: false,
        }
    }

    /// With what the server said for programs.
    pub(super) fn told(
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

    /// Of a change that may have been made all the same.
    pub(super) fn open(self, is_open: bool) -> Self {
        Self { is_open, ..self }
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

    /// Whether it is a change that may have been made all the same.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// After which time the same may work, if it ever may; nothing if the server did not say when.
    pub(super) fn retry(&self) -> Option<Duration> {
        match self.code {
            Code::Unavailable => Some(self.retry_after.unwrap_or_default()),
            // Without a time it is a limit that stays, such as the size of a message.
            Code::ResourceExhausted => self.retry_after,
            _ => None,
        }
    }

    /// Whether the thing that was asked for does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// What went wrong, without what to do about it.
    pub(super) fn message(&self) -> String {
        plain(&self.message).into_owned()
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

/// The code as gRPC writes it: `INVALID_ARGUMENT`.
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

/// The flags that fill the requests' fields.
pub(super) const FLAGS: [(&str, &str); 39] = [
    ("admin_scope", "--admin-scope"),
    ("allowed_cidrs", "--allow-cidr"),
    ("any_scopes", "--any-scope"),
    ("any_target", "--any-target"),
    ("client_ip", "--client-ip"),
    ("display_name", "--display-name"),
    ("end_time", "--until or --to"),
    ("entries", "--batch"),
    ("environment", "--environment"),
    ("environments", "--environment"),
    ("expire_time", "--expires-in or --expires-at"),
    ("expires_within", "--expires-within"),
    ("full_access", "--full-access"),
    ("if_revision", "--if-revision"),
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
    ("unused_for", "--unused-for"),
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
    use super::*;

    #[test]
    fn codes_are_written_as_grpc_does() {
        assert_eq!(name(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(name(Code::NotFound), "NOT_FOUND");
    }
}
