//! Why a key, or a whole request, is let through or not.

use clap::Args;

use crate::pb::claviger::v1::explain_request::Question;
use crate::pb::claviger::v1::{
    CheckOutcome, ExplainRequest, ExplainResponse, HttpHeader, HttpQuestion,
};

use super::connect::Connection;
use super::failure::Failure;
use super::output::Output;
use super::text;
use super::verify::{Asked, exit_code};

/// What stands in a header for the key to test.
const PLACE_OF_KEY: &str = "{key}";

/// Tell every check of a question, or of a whole HTTP request, and which one decided.
///
/// It takes an operator's key. With --path the question is the one that a gateway would ask about such a request, by the
/// realm's routes; otherwise it is that of `verify`, with the same flags.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 allowed, 3 denied, 4 could not decide, 2 wrong use; as those of `verify`.

Examples:
  claviger explain --realm demo --scope write < demo.key

  claviger explain --realm demo --environment production --method POST --path /v1/partners \\
      --header 'authorization: Bearer {key}' < demo.key")]
pub struct Explain {
    #[command(flatten)]
    asked: Asked,
    /// The method of the request.
    #[arg(long, default_value = "GET", requires = "path")]
    method: String,
    /// The path of the request, with its query if it has one.
    #[arg(
        long,
        conflicts_with_all = ["TargetFlags", "partner", "scope", "any_scope", "min_revision"]
    )]
    path: Option<String>,
    /// A header of the request, as `name: value`; can be repeated. `{key}` in it stands for the key to test, which is
    /// then read like that of `verify`.
    #[arg(long, value_name = "HEADER", requires = "path", value_parser = header)]
    header: Vec<(String, String)>,
}

impl Explain {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let question = self.question()?;
        let client = connection.connect().await?;
        let request = ExplainRequest {
            question: Some(question),
        };
        let answer = client.ask(client.verify().explain(request)).await?;
        output.show(&answer, shown)?;
        Ok(exit_code(answer.allowed))
    }

    fn question(self) -> Result<Question, Failure> {
        let Self {
            mut asked,
            method,
            path,
            header,
        } = self;
        let Some(target) = path else {
            return asked.request().map(Question::Verify);
        };
        let has_key = header.iter().any(|(_, value)| value.contains(PLACE_OF_KEY));
        let key = has_key.then(|| asked.key()).transpose()?;
        let key = key.as_ref().map_or("", |key| key.reveal());
        Ok(Question::Http(HttpQuestion {
            realm: asked.realm,
            environment: asked.environment,
            method,
            target,
            headers: header
                .into_iter()
                .map(|(name, value)| HttpHeader {
                    name,
                    value: value.replace(PLACE_OF_KEY, key),
                })
                .collect(),
            client_ip: asked.client_ip,
        }))
    }
}

/// A header as it is written in a request: a space may follow the colon.
fn header(text: &str) -> Result<(String, String), String> {
    // The complaint does not repeat it: it may hold a key.
    let (name, value) = text.split_once(':').ok_or("write it as 'name: value'")?;
    Ok((
        name.to_owned(),
        value.strip_prefix(' ').unwrap_or(value).to_owned(),
    ))
}

fn shown(answer: &ExplainResponse) -> String {
    let verdict = answer.verdict().as_str_name();
    let first = match (answer.allowed, answer.decided_by.as_str()) {
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
    let table = text::table(&["CHECK", "OUTCOME", "WHAT WAS FOUND"], checks);
    if facts.is_empty() {
        format!("{first}\n\n{table}")
    } else {
        format!("{first}\n\n{facts}\n\n{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let header = |text| header(text).unwrap();
        assert_eq!(
            header("x-api-key: k"),
            ("x-api-key".to_owned(), "k".to_owned())
        );
        assert_eq!(header("a:b:c"), ("a".to_owned(), "b:c".to_owned()));
        assert_eq!(header("a:  b"), ("a".to_owned(), " b".to_owned()));
        assert!(super::header("secret").unwrap_err().contains("name: value"));
    }
}
