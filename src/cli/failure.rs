//! Errors of a command, with hints on what to do.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use super::arguments::{Arguments, folded};
use super::text::plain;

/// The width of the lines of a command to type, which fit any terminal.
const COMMAND_WIDTH: usize = 78;

/// The error of a command. It never contains an API key.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    message: String,
    /// The part of the command that failed, such as one of several realms.
    part: Option<String>,
    /// What to do about the error.
    hint: Option<String>,
    /// The words of the command to type, after the hint.
    command: Vec<String>,
    /// Ctrl-C ended the command.
    is_interrupted: bool,
    /// The `ErrorInfo` reason of the server, for programs.
    reason: Option<String>,
    /// The facts that the server tells beside the reason, for programs.
    metadata: BTreeMap<String, String>,
    violations: Vec<Violation>,
    /// The arguments of the command, which name the fields.
    arguments: Option<Box<Arguments>>,
    /// Lines below the message, such as the keys that it is about.
    details: Vec<String>,
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
            command: Vec::new(),
            is_interrupted: false,
            reason: None,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            arguments: None,
            details: Vec::new(),
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

    /// Adds the facts that the server tells beside the reason.
    pub(super) fn metadata(self, metadata: HashMap<String, String>) -> Self {
        Self {
            metadata: metadata.into_iter().collect(),
            ..self
        }
    }

    /// Adds the reason, for programs.
    pub(super) fn reason(self, reason: &str) -> Self {
        Self {
            reason: Some(reason.to_owned()),
            ..self
        }
    }

    /// Adds lines below the message.
    pub(super) fn details(self, lines: impl IntoIterator<Item = String>) -> Self {
        Self {
            details: lines.into_iter().collect(),
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

    /// Adds the words of the command to type, after the hint.
    pub(super) fn command(self, command: Vec<String>) -> Self {
        Self { command, ..self }
    }

    /// Adds what follows from the failure to the message.
    pub(super) fn with_note(self, note: &str) -> Self {
        Self {
            message: format!("{}; {note}", self.message),
            ..self
        }
    }

    /// Sets that Ctrl-C ended the command.
    pub(super) fn interrupted(self) -> Self {
        Self {
            is_interrupted: true,
            ..self
        }
    }

    /// Whether Ctrl-C ended the command.
    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted
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

    /// Whether the state of something is in the way.
    pub(super) fn is_precondition(&self) -> bool {
        self.code == Code::FailedPrecondition
    }

    /// Whether the server gave a search up because it took too long.
    pub(super) fn is_too_broad(&self) -> bool {
        self.reason.as_deref() == Some("FILTER_TOO_BROAD")
    }

    /// Whether the server could not do what it should, such as read stored data.
    pub(super) fn is_fault(&self) -> bool {
        matches!(self.code, Code::Internal | Code::DataLoss)
    }

    /// Whether a limit on the number of calls refused this one.
    pub(super) fn is_too_many(&self) -> bool {
        self.code == Code::ResourceExhausted
    }

    /// Whether the caller may not do this.
    pub(super) fn is_forbidden(&self) -> bool {
        self.code == Code::PermissionDenied
    }

    /// Whether another caller changed the item since it was read.
    pub(super) fn is_changed_meanwhile(&self) -> bool {
        self.code == Code::Aborted
    }

    /// Names fields by the arguments of the command that failed, if the failure names any.
    pub(super) fn of_command(self, arguments: impl FnOnce() -> Option<Arguments>) -> Self {
        if self.violations.is_empty() {
            return self;
        }
        Self {
            arguments: arguments().map(Box::new),
            ..self
        }
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
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        if !self.metadata.is_empty() {
            error["metadata"] = json!(self.metadata);
        }
        let hint = self.hint.as_ref().map(|hint| {
            let words = std::iter::once(hint).chain(&self.command);
            words.map(String::as_str).collect::<Vec<_>>().join(" ")
        });
        for (name, text) in [("hint", &hint), ("reason", &self.reason)] {
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
            let description = in_words(description);
            let description = plain(&description);
            match setter(&field, self.arguments.as_deref()) {
                Some(setter) => write!(formatter, "\n  {setter} ({field}): {description}")?,
                None => write!(formatter, "\n  {field}: {description}")?,
            }
        }
        for line in &self.details {
            write!(formatter, "\n  {}", plain(line))?;
        }
        if let Some(hint) = &self.hint {
            write!(formatter, "\nhint: {}", plain(hint))?;
        }
        if !self.command.is_empty() {
            write!(formatter, "\n{}", folded(&self.command, COMMAND_WIDTH))?;
        }
        Ok(())
    }
}

/// A rule of the server in words: its regular expressions are those of identifiers, `[a-z][a-z0-9-]{0,31}`.
fn in_words(description: &str) -> Cow<'_, str> {
    let words = || {
        let (before, rule) = description.split_once("must match [")?;
        let (first, rest) = rule.split_once(']')?;
        let (others, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => (first, rest),
        };
        let (least, most) = rest.strip_prefix('{')?.strip_suffix('}')?.split_once(',')?;
        let lead = usize::from(rule.contains("]["));
        let least = least.parse::<usize>().ok()? + lead;
        let most = most.parse::<usize>().ok()? + lead;
        let length = if least > 1 {
            format!("{least} to {most} characters")
        } else {
            format!("at most {most} characters")
        };
        let start = if lead > 0 {
            format!(
                "must begin with {}, and may have",
                characters(first, " or ", "a ")
            )
        } else {
            "may only have".to_owned()
        };
        let others = characters(others, ", ", "");
        Some(format!("{before}{start} {others}; {length}"))
    };
    words().map_or(Cow::Borrowed(description), Cow::Owned)
}

/// A class of characters in words: `A-Za-z0-9._-` is `letters, digits, . _ -`.
fn characters(class: &str, between: &str, article: &str) -> String {
    let plural = if article.is_empty() { "s" } else { "" };
    let mut kinds = Vec::new();
    let mut rest = class;
    for (range, kind) in [
        ("A-Za-z", "letter"),
        ("a-z", "lower-case letter"),
        ("0-9", "digit"),
    ] {
        if let Some(after) = rest.strip_prefix(range) {
            kinds.push(format!("{article}{kind}{plural}"));
            rest = after;
        }
    }
    let signs: Vec<_> = rest.chars().map(String::from).collect();
    if !signs.is_empty() {
        kinds.push(signs.join(" "));
    }
    kinds.join(between)
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
pub(super) const FLAGS: [(&str, &str); 47] = [
    ("actor", "--actor"),
    ("admin_scope", "--admin-scope"),
    ("allowed_cidrs", "--allow-cidr"),
    ("any_scopes", "--any-scope"),
    ("any_target", "--any-target"),
    ("beyond_max_lifetime", "--beyond-max-lifetime"),
    ("client_ip", "--client-ip"),
    ("created_by", "--created-by"),
    ("display_name", "--display-name"),
    ("end_time", "--until"),
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
    ("kinds", "--kind"),
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
    ("start_time", "--since"),
    ("states", "--state"),
    ("top", "--top"),
    ("unused_for", "--unused-for"),
    ("unscoped_keys", "--unscoped-keys"),
    ("wait", "--wait"),
];

/// Returns what sets a field: a flag, or a positional argument. A path such as `realm.environments[0].tag` belongs to the flag of its
/// list.
fn setter(field: &str, arguments: Option<&Arguments>) -> Option<String> {
    let path = field.split('[').next().unwrap_or(field);
    let leaf = path.rsplit('.').next().unwrap_or(path);
    let flags = FLAGS
        .iter()
        .find_map(|(field, flag)| (*field == leaf).then_some(*flag));
    match arguments {
        Some(arguments) => arguments.setter(leaf, flags),
        None => flags.map(str::to_owned),
    }
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
    fn rules_are_told_in_words() {
        for (rule, words) in [
            (
                "must match [a-z][a-z0-9-]{0,31}",
                "must begin with a lower-case letter, and may have lower-case letters, digits, -; at most 32 characters",
            ),
            (
                "is required and must match [a-z][a-z0-9]{1,15}",
                "is required and must begin with a lower-case letter, and may have lower-case letters, digits; 2 to 16 characters",
            ),
            (
                "must match [a-z0-9]{1,12}",
                "may only have lower-case letters, digits; at most 12 characters",
            ),
            (
                "must match [A-Za-z0-9][A-Za-z0-9._@|+:=-]{0,127}",
                "must begin with a letter or a digit, and may have letters, digits, . _ @ | + : = -; at most 128 characters",
            ),
            ("must match the other", "must match the other"),
            ("must match [a", "must match [a"),
        ] {
            assert_eq!(in_words(rule), words);
        }
    }

    #[test]
    fn codes_are_written_as_grpc_does() {
        assert_eq!(name(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(name(Code::NotFound), "NOT_FOUND");
    }
}
