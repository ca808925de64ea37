//! The `explain` command: why a key, or a whole HTTP request, is allowed or denied.

use std::io::{self, IsTerminal as _};

use clap::Args;

use super::connect::Connection;
use super::failure::Failure;
use super::output::{self, Output};
use super::redact;
use super::text;
use super::verify::{VerifyFlags, exit_code};
use crate::pb::claviger::v1::explain_request::Question;
use crate::pb::claviger::v1::{
    CheckOutcome, ExplainRequest, ExplainResponse, HttpHeader, HttpQuestion,
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
  claviger explain --realm demo --scope write < demo.key

  claviger explain --realm demo --environment production --method POST --path /v1/partners \\
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
}

impl Explain {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let realm = self.question.realm.clone();
        let environment = self.question.environment.clone();
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
        output.show(&answer, shown)?;
        Ok(exit_code(answer.allowed))
    }

    /// The question, without its realm and environment.
    fn question(self) -> Result<Question, Failure> {
        let Self {
            mut question,
            method,
            path,
            header,
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

fn shown(answer: &ExplainResponse) -> String {
    let verdict = answer.verdict().as_str_name();
    let headline = match (answer.allowed, answer.decided_by.as_str()) {
        (true, _) => "allowed".to_owned(),
        (false, by) => format!("denied by \"{by}\": {verdict}, HTTP {}", answer.http_status),
    };
    let checks = answer.checks.iter().map(|check| {
        let outcome = match check.outcome() {
            CheckOutcome::Passed => "passed",
            CheckOutcome::Failed => "FAILED",
            CheckOutcome::Skipped => "skipped",
            CheckOutcome::Unspecified => "?",
        };
        vec![check.name.clone(), outcome.to_owned(), check.detail.clone()]
    });
    let key = answer.key.as_ref();
    let facts = text::facts([
        ("route", answer.route.clone()),
        ("missing scopes", answer.missing_scopes.join(", ")),
        ("key id", key.map(|key| key.id.clone()).unwrap_or_default()),
        (
            "partner",
            key.map(|key| key.partner.clone()).unwrap_or_default(),
        ),
    ]);
    let table = text::table(&["CHECK", "OUTCOME", "DETAIL"], checks);
    if facts.is_empty() {
        format!("{headline}\n\n{table}")
    } else {
        format!("{headline}\n\n{facts}\n\n{table}")
    }
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
