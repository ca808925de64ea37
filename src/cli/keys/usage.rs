//! The `keys usage` command.

use clap::Args;

use super::key::KeyId;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::text;
use crate::cli::usage::{Range, RangeFlags, count_rows, legend, width};
use crate::pb::claviger::v1::{GetKeyUsageRequest, GetKeyUsageResponse};

/// Show how often a key was presented and with which verdicts, by hour or by day.
///
/// Times are in UTC. Requests that did not prove the key, such as those with a wrong secret, are not counted.
#[derive(Debug, Args)]
pub struct Usage {
    #[command(flatten)]
    key: KeyId,
    #[command(flatten)]
    range: RangeFlags,
}

impl Usage {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let range = self.range.range();
        let request = GetKeyUsageRequest {
            key_id: self.key.id,
            start_time: Some(range.start()),
            end_time: range.end(),
            ..GetKeyUsageRequest::default()
        };
        let client = connection.connect().await?;
        let answer = client.ask(client.keys().get_key_usage(request)).await?;
        output.show(&answer, |answer| shown(answer, range, width(output)))
    }
}

fn shown(answer: &GetKeyUsageResponse, range: Range, width: usize) -> String {
    let last_used = answer
        .last_used_time
        .as_ref()
        .map_or_else(|| "never".to_owned(), text::time);
    let facts = [("last used".to_owned(), last_used)];
    let facts = text::facts(facts.into_iter().chain(count_rows(&answer.totals)));
    if answer.buckets.is_empty() {
        return facts;
    }
    format!("{facts}\n\n{}", legend(&range.bars(&answer.buckets), width))
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
            shown(&answer, range, 80),
            "last used                    never\n\
             presented                    1,235\n\
             allowed                      1,200\n\
             scope missing                34\n\
             verdict 99 (not known here)  1"
        );
    }
}
