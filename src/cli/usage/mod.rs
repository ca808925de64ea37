//! The `usage` command, and what it shares with the usage of a key.

mod chart;
mod counts;
mod range;
mod ranked;

use clap::{Args, ValueEnum};

pub(super) use counts::{count_rows, totals_line};
pub(super) use range::{Range, RangeFlags};
pub(super) use ranked::{keys, owners_denied};

use chart::{Bar, Chart};
use counts::count_bar;

use super::client::Client;
use super::connect::Connection;
use super::failure::Failure;
use super::output::{self, Output, Screen};
use super::realm_flag::RealmFlag;
use super::style::Tone;
use super::text;
use super::unknown::Names;
use super::width::{spread, wrap};
use crate::pb::claviger::v1::{
    GetUsageRequest, GetUsageResponse, OwnerUsage, UsageBucket, UsageRank, VerdictCount,
};

/// The number of columns without a terminal.
const DEFAULT_WIDTH: usize = 80;

/// Show how often the keys of a realm were presented, and who presented most: which owners, and which keys.
///
/// Times are in UTC. The owners are partners; with --partner, they are the projects of the partner. Requests that did not prove a
/// key, such as those with a wrong secret, are not counted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger usage --since 7d
  claviger usage --denied --since 1h
  claviger usage --partner acme --since 30d --over-time")]
pub struct Usage {
    #[command(flatten)]
    realm: RealmFlag,
    /// Only keys of this partner.
    #[arg(long)]
    partner: Option<String>,
    /// Only keys that are bound to this project.
    #[arg(long)]
    project: Option<String>,
    /// Only keys of this environment.
    #[arg(long)]
    environment: Option<String>,
    #[command(flatten)]
    range: RangeFlags,
    /// Compare only owners, or only keys [default: both].
    #[arg(long, value_name = "WHAT")]
    by: Option<By>,
    /// Show what was denied most and why, and leave out what was never denied.
    #[arg(long)]
    denied: bool,
    /// How many owners and keys are compared, those with the most requests.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    top: u32,
    /// Show hours or days instead of owners and keys.
    #[arg(long, conflicts_with_all = ["top", "by", "denied"])]
    over_time: bool,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Owner,
    Key,
}

impl Usage {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let range = self.range.range();
        let client = connection.connect().await?;
        let request = GetUsageRequest {
            realm: self.realm.resolve(&client).await?,
            partner: self.partner.clone().unwrap_or_default(),
            project: self.project.clone().unwrap_or_default(),
            environment: self.environment.clone().unwrap_or_default(),
            start_time: Some(range.start()),
            end_time: range.end(),
            top: self.top,
            rank_by: if self.denied {
                UsageRank::Denials.into()
            } else {
                UsageRank::Unspecified.into()
            },
            with_keys: !self.over_time && self.by != Some(By::Owner),
        };
        let is_by_project = !(request.partner.is_empty() && request.project.is_empty());
        let place = place(&request);
        let names = Names {
            realm: request.realm.clone(),
            partner: request.partner.clone(),
            project: request.project.clone(),
            environment: request.environment.clone(),
            scopes: Vec::new(),
        };
        let answer = self.ask(&client, request).await;
        // Keys of an owner that was deleted since may have been used.
        let answer = names
            .known_or(&client, answer, |answer| answer.buckets.is_empty())
            .await?;
        let is_new = self.denied || self.by == Some(By::Key);
        if is_new && answer.ranked_by() == UsageRank::Unspecified {
            return Err(Failure::failed(
                "the server is older: it compares only owners, by requests",
            )
            .hint("upgrade the server, or leave out --denied and --by"));
        }
        let screen = output.screen();
        output.show(&answer, |answer| {
            let heading = match screen {
                None => text::facts(count_rows(&answer.totals)),
                Some(screen) => heading([&place, &range.title()], &answer.totals, screen),
            };
            if self.over_time {
                let chart = range.chart(&answer.buckets, screen.is_some());
                return shown(&heading, &answer.buckets, &chart, screen);
            }
            let mut parts = vec![self.owners(heading, answer, is_by_project, screen)];
            if self.by != Some(By::Owner) {
                parts.extend(keys(answer, screen));
            }
            if self.denied && answer.keys.is_empty() && answer.owners.is_empty() {
                parts.push("Nothing was denied.".to_owned());
            }
            parts.join("\n\n")
        })
    }

    /// Asks for the usage. If keys take too long to compare and the user did not ask for them, owners alone are compared.
    async fn ask(
        &self,
        client: &Client,
        request: GetUsageRequest,
    ) -> Result<GetUsageResponse, Failure> {
        let ask = async |request| client.ask(client.keys().get_usage(request)).await;
        let answer = ask(request.clone()).await;
        let is_too_broad = answer.as_ref().is_err_and(Failure::is_too_broad);
        if !(is_too_broad && request.with_keys && self.by.is_none()) {
            return answer;
        }
        let answer = ask(GetUsageRequest {
            with_keys: false,
            ..request
        })
        .await?;
        output::print_error(
            "warning: comparing the keys takes too long, so only owners are shown; name a partner or a shorter range",
        );
        Ok(answer)
    }

    /// The heading, and the owners unless only keys are wanted.
    fn owners(
        &self,
        heading: String,
        answer: &GetUsageResponse,
        is_by_project: bool,
        screen: Option<Screen>,
    ) -> String {
        if self.by == Some(By::Key) {
            return heading;
        }
        if self.denied {
            let table = owners_denied(answer, is_by_project, screen);
            return table.map_or(heading.clone(), |table| format!("{heading}\n\n{table}"));
        }
        let chart = Chart {
            bars: owners(answer, is_by_project),
            unit: "owner",
        };
        shown(&heading, &answer.buckets, &chart, screen)
    }
}

/// What the usage is of, for a heading.
fn place(request: &GetUsageRequest) -> String {
    let realm = format!("realm {}", request.realm);
    let parts = [
        &realm,
        &request.partner,
        &request.project,
        &request.environment,
    ];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.map(String::as_str).collect::<Vec<_>>().join(" / ")
}

/// What a screen shows above a chart: two texts, and the counts as a sentence.
pub(super) fn heading([left, right]: [&str; 2], totals: &[VerdictCount], screen: Screen) -> String {
    let (left, right) = (text::plain(left), text::plain(right));
    let first = [(&*left, Tone::Strong), (&*right, Tone::Plain)];
    let first = spread(first, screen.width, screen.width);
    let second = wrap(&totals_line(totals), screen.width);
    format!("{first}\n{}", second.join("\n"))
}

/// The heading, and the chart unless nothing was counted.
pub(super) fn shown(
    heading: &str,
    buckets: &[UsageBucket],
    chart: &Chart,
    screen: Option<Screen>,
) -> String {
    if buckets.is_empty() {
        return heading.to_owned();
    }
    let width = screen.map_or(DEFAULT_WIDTH, |screen| screen.width);
    format!("{heading}\n\n{}", chart.text(width, screen.is_some()))
}

/// Returns one bar for each owner, and one for all others.
fn owners(answer: &GetUsageResponse, is_by_project: bool) -> Vec<Bar> {
    let bar = |label: String, counts: &[VerdictCount]| {
        let mut bar = Bar {
            label,
            ..Bar::default()
        };
        count_bar(&mut bar, counts);
        bar
    };
    let label = |owner: &OwnerUsage| owner_name(answer, owner, is_by_project);
    let mut bars: Vec<_> = answer
        .owners
        .iter()
        .map(|owner| bar(label(owner), &owner.counts))
        .collect();
    if answer.more_owners {
        let mut others = bar("(others)".to_owned(), &answer.totals);
        for bar in &bars {
            // The server reads both in one snapshot, so nothing is below zero.
            others.allowed = others.allowed.saturating_sub(bar.allowed);
            others.denied = others.denied.saturating_sub(bar.denied);
        }
        bars.push(others);
    }
    bars
}

/// The name of one of the owners of an answer.
fn owner_name(answer: &GetUsageResponse, owner: &OwnerUsage, is_by_project: bool) -> String {
    // The key of a partner always gets its projects.
    let is_by_project =
        is_by_project || answer.owners.iter().any(|owner| !owner.project.is_empty());
    match (&*owner.partner, &*owner.project) {
        ("", _) => "(no partner)".to_owned(),
        (_, "") if is_by_project => "(keys of the partner)".to_owned(),
        (partner, "") => partner.to_owned(),
        (_, project) => project.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::claviger::v1::Verdict;

    fn counts(allowed: u64, revoked: u64) -> Vec<VerdictCount> {
        let count = |verdict: Verdict, count| VerdictCount {
            verdict: verdict.into(),
            count,
        };
        vec![
            count(Verdict::Allowed, allowed),
            count(Verdict::Revoked, revoked),
        ]
    }

    fn owner(partner: &str, project: &str, allowed: u64) -> OwnerUsage {
        OwnerUsage {
            partner: partner.to_owned(),
            project: project.to_owned(),
            counts: counts(allowed, 1),
        }
    }

    fn bars(
        owners: Vec<OwnerUsage>,
        is_by_project: bool,
        more_owners: bool,
    ) -> Vec<(String, u64, u64)> {
        let answer = GetUsageResponse {
            totals: counts(100, 10),
            owners,
            more_owners,
            ..GetUsageResponse::default()
        };
        let bars = super::owners(&answer, is_by_project).into_iter();
        bars.map(|bar| (bar.label, bar.allowed, bar.denied))
            .collect()
    }

    #[test]
    fn each_owner_has_a_bar_and_all_others_have_one_together() {
        let partners = vec![owner("acme", "", 60), owner("", "", 20)];
        assert_eq!(
            bars(partners, false, true),
            [
                ("acme".to_owned(), 60, 1),
                ("(no partner)".to_owned(), 20, 1),
                ("(others)".to_owned(), 20, 8),
            ]
        );
        let projects = vec![owner("acme", "web", 60), owner("acme", "", 20)];
        assert_eq!(
            bars(projects, false, false),
            [
                ("web".to_owned(), 60, 1),
                ("(keys of the partner)".to_owned(), 20, 1),
            ]
        );
        let whole = vec![owner("acme", "", 60)];
        let named = bars(whole, true, true);
        assert_eq!(named[0].0, "(keys of the partner)");
    }
}
