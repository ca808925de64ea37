//! The `explain` command: why a key, or a whole HTTP request, is allowed or denied.

use std::io::{self, IsTerminal as _};

use clap::Args;

use super::connect::Connection;
use super::failure::Failure;
use super::output::{self, Output, Screen};
use super::redact;
use super::style::Tone;
use super::table::{self, Cell, Column, Row, Table};
use super::text;
use super::verify::{VerifyFlags, exit_code, reason};
use super::width::wrap;
use crate::pb::claviger::v1::explain_request::Question;
use crate::pb::claviger::v1::{
    Check, CheckOutcome, ExplainRequest, ExplainResponse, HttpHeader, HttpQuestion,
};

/// The placeholder in a header for the API key to test.
const KEY_PLACEHOLDER: &str = "{key}";

/// Show every check of a verification, or of a whole HTTP request, and which check decided.
///
/// The caller needs an operator key. With --path, the realm's routes decide, as for a gateway that receives such a
/// request; without it, the command takes the flags of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes, as of `verify`: 0 allowed, 2 incorrect usage, 3 denied, 4 no verdict.

Examples:
  claviger explain --scope write < demo.key
  claviger explain --method POST --path /v1/items \\
      --header 'authorization: Bearer {key}' < demo.key")]
pub struct Explain {
    #[command(flatten)]
    question: VerifyFlags,
    /// The method of the request.
    #[arg(long, default_value = "GET", requires = "path")]
    method: String,
    /// The path of the request, with its query if any.
    #[arg(
        long,
        conflicts_with_all = ["TargetFlags", "partner", "scope", "any_scope", "min_revision"]
    )]
    path: Option<String>,
    /// A header of the request, as `name: value`; can be repeated. `{key}` in it is replaced by the key to test, which is
    /// read as by `verify`.
    // `question` parses the headers: clap would repeat a wrong one in its error, with the key in it.
    #[arg(long, value_name = "HEADER", requires = "path")]
    header: Vec<String>,
    /// Show all checks, also on a terminal, which shows those that failed.
    #[arg(long)]
    all: bool,
}

impl Explain {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let realm = self.question.realm.clone();
        let environment = self.question.environment.clone();
        let (all, screen) = (self.all, output.screen());
        // A route says what a request touches.
        let has_target = self.path.is_some() || self.question.has_target();
        let mut question = self.question()?;
        let client = connection.connect().await?;
        let realm = realm.resolve(&client).await?;
        let environment = environment.resolve(&client, &realm);
        match &mut question {
            Question::Verify(question) => {
                question.realm = realm;
                question.environment = environment;
            }
            Question::Http(question) => {
                question.realm = realm;
                question.environment = environment;
            }
        }
        let request = ExplainRequest {
            question: Some(question),
        };
        let answer = client.ask(client.verify().explain(request)).await?;
        output.show(&answer, |answer| shown(answer, has_target, all, screen))?;
        Ok(exit_code(answer.allowed))
    }

    /// The question, without its realm and environment.
    fn question(self) -> Result<Question, Failure> {
        let Self {
            mut question,
            method,
            path,
            header,
            all: _,
        } = self;
        let Some(target) = path else {
            return question.request().map(Question::Verify);
        };
        let headers: Vec<_> = header
            .iter()
            .map(|text| parse_header(text))
            .collect::<Result<_, _>>()?;
        let has_key = headers
            .iter()
            .any(|(_, value)| value.contains(KEY_PLACEHOLDER));
        warn_of_shown_keys(&headers);
        if !has_key && (question.has_key() || has_input()) {
            output::print_error(
                "warning: the API key is not used, because no --header has {key}, which stands for it: --header \
                 'authorization: Bearer {key}'",
            );
        }
        let key = has_key.then(|| question.key()).transpose()?;
        let key = key.as_ref().map_or("", |key| key.reveal());
        Ok(Question::Http(HttpQuestion {
            realm: String::new(),
            environment: String::new(),
            method,
            target,
            headers: headers
                .into_iter()
                .map(|(name, value)| HttpHeader {
                    name,
                    value: value.replace(KEY_PLACEHOLDER, key),
                })
                .collect(),
            client_ip: question.client_ip,
        }))
    }
}

/// Warns if a header seems to have an API key, which has no need to be on the command line.
fn warn_of_shown_keys(headers: &[(String, String)]) {
    let is_shown = |value: &str| redact::mask_keys(value, &[]) != value;
    for (name, _) in headers.iter().filter(|(_, value)| is_shown(value)) {
        output::print_error(&format!(
            "warning: every user of this machine can see the API key in --header {}: write {{key}} in its place, and give the key \
             on standard input",
            text::plain(name)
        ));
    }
}

/// Whether standard input has something that nobody typed. It is not read: it may belong to another program.
fn has_input() -> bool {
    let stdin = io::stdin();
    !stdin.is_terminal() && rustix::io::ioctl_fionread(&stdin).is_ok_and(|bytes| bytes > 0)
}

/// Parses a header as HTTP writes it: a space may follow the colon.
fn parse_header(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = text.split_once(':').ok_or_else(|| {
        Failure::usage(
            "--header must look like \"name: value\"; the value is not shown because it may contain an API key",
        )
    })?;
    Ok((
        name.to_owned(),
        value.strip_prefix(' ').unwrap_or(value).to_owned(),
    ))
}

/// The columns of the checks.
const CHECKS: [Column; 3] = [
    Column::whole("CHECK", 3),
    Column::whole("OUTCOME", 2),
    Column::wrapped("DETAIL", 1, 20),
];

/// Formats the answer. On a screen, without `all`, the checks that failed stand for all.
pub(super) fn shown(
    answer: &ExplainResponse,
    has_target: bool,
    all: bool,
    screen: Option<Screen>,
) -> String {
    let failed = |check: &&Check| check.outcome() == CheckOutcome::Failed;
    let all = all || screen.is_none();
    // The one that decided is the first that failed, and what is to be mended stands first.
    let mut checks: Vec<_> = answer.checks.iter().filter(failed).collect();
    let others = answer.checks.len() - checks.len();
    if screen.is_none() {
        checks = answer.checks.iter().collect();
    } else if all {
        checks.extend(answer.checks.iter().filter(|check| !failed(check)));
    }
    let mut table = Table::new(CHECKS);
    for check in &checks {
        let (outcome, tone) = match check.outcome() {
            CheckOutcome::Passed => ("passed", Tone::Good),
            CheckOutcome::Failed => ("FAILED", Tone::Bad),
            CheckOutcome::Skipped => ("skipped", Tone::Dim),
            CheckOutcome::Unspecified => ("?", Tone::Warning),
        };
        table.push(Row {
            cells: vec![
                Cell::new(&check.name),
                Cell::toned(outcome, tone),
                Cell::new(&check.detail),
            ],
            ..Row::default()
        });
    }
    let mut parts = vec![headline(answer, has_target, screen)];
    let facts = facts(answer, screen);
    if !facts.is_empty() {
        parts.push(facts);
    }
    if !checks.is_empty() {
        parts.push(table.shown(screen.map(|screen| screen.width)).text());
    }
    if !all && others > 0 {
        let checks = if others == 1 { "check" } else { "checks" };
        parts.push(format!("{others} {checks} did not fail: --all shows them."));
    }
    parts.join("\n\n")
}

/// The first line. On a screen it has the reason in words, and elsewhere the names that programs compare.
fn headline(answer: &ExplainResponse, has_target: bool, screen: Option<Screen>) -> String {
    if answer.allowed {
        return Tone::Good.paint_on(screen.is_some(), "allowed");
    }
    let Some(screen) = screen else {
        return format!(
            "denied by \"{}\": {}, HTTP {}",
            answer.decided_by,
            answer.verdict().as_str_name(),
            answer.http_status
        );
    };
    let line = format!(
        "denied ({}): {}",
        answer.http_status,
        reason(answer.verdict(), has_target)
    );
    let line = wrap(&line, screen.width).join("\n");
    match line.strip_prefix("denied") {
        Some(rest) => format!("{}{rest}", Tone::Bad.paint("denied")),
        None => line,
    }
}

/// What was asked about. The checks on a screen have the missing scopes.
fn facts(answer: &ExplainResponse, screen: Option<Screen>) -> String {
    let key = answer.key.clone().unwrap_or_default();
    let Some(screen) = screen else {
        return text::facts([
            ("route", answer.route.clone()),
            ("missing scopes", answer.missing_scopes.join(", ")),
            ("key id", key.id),
            ("partner", key.partner),
        ]);
    };
    let owner = [key.partner, key.project];
    let owner: Vec<_> = owner.into_iter().filter(|part| !part.is_empty()).collect();
    let facts = [
        ("key", key.name),
        ("owner", owner.join("/")),
        ("id", key.id),
        ("route", answer.route.clone()),
    ];
    table::facts(&facts, screen.width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let header = |text| parse_header(text).unwrap();
        assert_eq!(
            header("x-api-key: k"),
            ("x-api-key".to_owned(), "k".to_owned())
        );
        assert_eq!(header("a:b:c"), ("a".to_owned(), "b:c".to_owned()));
        assert_eq!(header("a:  b"), ("a".to_owned(), " b".to_owned()));
    }

    #[test]
    fn a_header_without_a_colon_is_not_repeated() {
        let failure = parse_header("authorization Bearer secret").unwrap_err();
        assert!(failure.is_usage());
        assert_eq!(
            failure.to_string(),
            "error: --header must look like \"name: value\"; the value is not shown because it may contain an API key"
        );
    }
}
