//! Counts by verdict, for people.

use std::fmt::Write as _;

use super::chart::Bar;
use crate::cli::text;
use crate::pb::claviger::v1::{Verdict, VerdictCount};

/// Adds counts to a bar.
pub(super) fn count_bar(bar: &mut Bar, counts: &[VerdictCount]) {
    for count in counts {
        if count.verdict() == Verdict::Allowed {
            bar.allowed = bar.allowed.saturating_add(count.count);
        } else {
            bar.denied = bar.denied.saturating_add(count.count);
        }
    }
}

/// The sum of all counts, and each count with the name of its verdict.
pub(in crate::cli) fn count_rows(totals: &[VerdictCount]) -> Vec<(String, String)> {
    let all = totals
        .iter()
        .fold(0_u64, |all, total| all.saturating_add(total.count));
    let counts = totals
        .iter()
        .map(|total| (verdict(total), text::grouped(total.count)));
    [("presented".to_owned(), text::grouped(all))]
        .into_iter()
        .chain(counts)
        .collect()
}

/// The counts as a sentence: all, those that were allowed, and why the others were denied, most frequent first.
pub(in crate::cli) fn totals_line(totals: &[VerdictCount]) -> String {
    let mut bar = Bar::default();
    count_bar(&mut bar, totals);
    let all = bar.allowed.saturating_add(bar.denied);
    let mut line = format!(
        "{} presented   {} allowed",
        text::grouped(all),
        text::grouped(bar.allowed)
    );
    if bar.denied > 0 {
        let _ = write!(
            line,
            "   {} denied ({}): {}",
            text::grouped(bar.denied),
            text::percent(bar.denied, all),
            denials(totals)
        );
    }
    line
}

/// Why requests were denied, if there is only one reason: `scope missing`.
pub(super) fn only_denial(counts: &[VerdictCount]) -> Option<String> {
    let counts = counts.iter();
    let mut denied = counts.filter(|count| count.verdict() != Verdict::Allowed);
    denied
        .next()
        .filter(|_| denied.next().is_none())
        .map(verdict)
}

/// Why requests were denied, and how often, most frequent first: `scope missing 41, revoked 3`.
pub(super) fn denials(counts: &[VerdictCount]) -> String {
    let counts = counts.iter();
    let mut denied: Vec<_> = counts
        .filter(|count| count.verdict() != Verdict::Allowed)
        .collect();
    denied.sort_by_key(|count| std::cmp::Reverse(count.count));
    let why: Vec<_> = denied
        .into_iter()
        .map(|count| format!("{} {}", verdict(count), text::grouped(count.count)))
        .collect();
    why.join(", ")
}

fn verdict(count: &VerdictCount) -> String {
    Verdict::try_from(count.verdict).map_or_else(
        |_| format!("verdict {} (not known here)", count.verdict),
        |verdict| text::enum_value(verdict.as_str_name(), "VERDICT_").replace('-', " "),
    )
}
