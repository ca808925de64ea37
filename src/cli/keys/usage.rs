//! The `keys usage` command.

use clap::Args;

use super::key::{handle, title};
use super::named::{KeyArg, Several};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Screen};
use crate::cli::text;
use crate::cli::usage::{self, Range, RangeFlags, count_rows};
use crate::cli::when;
use crate::domain::ids::RealmId;
use crate::pb::claviger::v1::{GetKeyRequest, GetKeyUsageRequest, GetKeyUsageResponse, Key};

/// Show how often a key was presented and with which verdicts, by hour or by day.
///
/// Times are in UTC. Requests that did not prove the key, such as those with a wrong secret, are not counted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys usage ci --since 7d")]
pub struct Usage {
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    range: RangeFlags,
}

impl Usage {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let range = self.range.range();
        let client = connection.connect().await?;
        let screen = output.screen();
        let ask = async |key_id: String| {
            let request = GetKeyUsageRequest {
                key_id: key_id.clone(),
                start_time: Some(range.start()),
                end_time: range.end(),
                ..GetKeyUsageRequest::default()
            };
            let usage = async { client.ask(client.keys().get_key_usage(request)).await };
            let key = async {
                let request = GetKeyRequest {
                    key_id: key_id.clone(),
                    ..GetKeyRequest::default()
                };
                // Only a screen says which key it is.
                screen?;
                client.ask(client.keys().get_key(request)).await.ok()?.key
            };
            let (answer, key) = tokio::join!(usage, key);
            let note = key.as_ref().map(note).unwrap_or_default();
            let title = key.map_or(key_id, |key| title(&key));
            Ok((answer?, title, note))
        };
        let (answer, title, note) = self.key.call(&client, Several::LivingWins, ask).await?;
        output.show(&answer, |answer| {
            shown(answer, &title, range, screen) + &note
        })
    }
}

/// What the counts do not have: the calls of those who administer.
fn note(key: &Key) -> String {
    if key.realm != RealmId::BUILT_IN {
        return String::new();
    }
    format!(
        "\n\nIts calls of claviger itself are not counted: claviger events --all-realms --actor {}",
        handle(key)
    )
}

pub(in crate::cli) fn shown(
    answer: &GetKeyUsageResponse,
    title: &str,
    range: Range,
    screen: Option<Screen>,
) -> String {
    let last_used = answer.last_used_time.as_ref();
    let heading = match screen {
        None => {
            let last_used = last_used.map_or_else(|| "never".to_owned(), text::time);
            let facts = [("last used".to_owned(), last_used)];
            text::facts(facts.into_iter().chain(count_rows(&answer.totals)))
        }
        Some(screen) => {
            let last_used = last_used.map_or_else(
                || "never used".to_owned(),
                |at| format!("last used {}", when::ago(at, &screen.now)),
            );
            let heading = usage::heading([title, &last_used], &answer.totals, screen);
            format!("{heading}\n{}", range.title())
        }
    };
    let chart = range.chart(&answer.buckets, screen.is_some());
    usage::shown(&heading, &answer.buckets, &chart, screen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::claviger::v1::{Verdict, VerdictCount};

    #[test]
    fn the_totals_stand_above_the_bars() {
        let answer = GetKeyUsageResponse {
            totals: vec![
                VerdictCount {
                    verdict: Verdict::Allowed as i32,
                    count: 1_200,
                },
                VerdictCount {
                    verdict: Verdict::ScopeMissing as i32,
                    count: 34,
                },
                VerdictCount {
                    verdict: 99,
                    count: 1,
                },
            ],
            buckets: Vec::new(),
            last_used_time: None,
        };
        let range = Range::between(0, 86_400);
        assert_eq!(
            shown(&answer, "", range, None),
            "last used                    never\n\
             presented                    1,235\n\
             allowed                      1,200\n\
             scope missing                34\n\
             verdict 99 (not known here)  1"
        );
    }
}
