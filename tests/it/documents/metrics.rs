//! The page about the metrics explains each of them, and no other.

use std::collections::BTreeSet;

use super::{quoted, table};
use crate::tls::scrape_with_everything;

/// Seen red with a metric that the page leaves out, and with one that a server does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_explains_each_metric_of_a_real_scrape() {
    let headings = [
        "## Decisions",
        "## Calls",
        "## Gateways over HTTP",
        "## The server",
        "## The lease",
        "## Limits",
        "## The store",
        "## Certificates",
        "## The process",
    ];
    let rows = headings.map(|heading| table("docs/metrics.md", heading));
    let explained: BTreeSet<String> = rows
        .iter()
        .flatten()
        .map(|row| quoted(&row[0]).remove(0))
        .collect();
    let scrape = scrape_with_everything().await;
    let exposed = scrape.names().into_iter().map(|name| {
        let suffix = match scrape.kind(name) {
            "counter" => "_total",
            _ => "",
        };
        match scrape.labels(name).join(",") {
            labels if labels.is_empty() => format!("{name}{suffix}"),
            labels => format!("{name}{suffix}{{{labels}}}"),
        }
    });
    assert_eq!(explained, exposed.collect());
    // What to do stands beside what it means.
    for row in rows.iter().flatten() {
        assert!(
            row.len() == 3 && !row[1].is_empty() && !row[2].is_empty(),
            "{row:?}"
        );
    }
}
