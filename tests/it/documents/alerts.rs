//! The page about the alerts explains each of them, and the examples use only metrics that are explained.

use std::collections::BTreeSet;

use super::pages::anchors;
use super::{quoted, read, root, table};

const RULES: &str = "examples/prometheus/alerts.yml";

/// The values of a key in the rules, in their order.
fn values(key: &str) -> Vec<String> {
    let rules = read(RULES);
    let lines = rules.lines().map(str::trim_start);
    let values = lines.filter_map(|line| line.strip_prefix(key));
    values.map(str::to_owned).collect()
}

/// Seen red with a row left out, and with another severity.
#[test]
fn the_page_says_what_to_do_about_each_alert() {
    let rows = table("examples/prometheus/README.md", "## Alerts");
    let explained: Vec<_> = rows
        .iter()
        .map(|row| {
            assert!(row.len() == 3 && !row[2].is_empty(), "{row:?}");
            (quoted(&row[0]).remove(0), row[1].clone())
        })
        .collect();
    let severities = values("labels: {severity: ");
    let severities = severities
        .iter()
        .map(|severity| severity.trim_end_matches('}').to_owned());
    let alerts: Vec<_> = values("- alert: ").into_iter().zip(severities).collect();
    assert_eq!(explained, alerts);
}

/// Seen red with a heading that does not exist.
#[test]
fn each_runbook_is_there() {
    let runbooks = values("runbook: ");
    assert_eq!(runbooks.len(), values("- alert: ").len());
    for runbook in runbooks {
        let (page, anchor) = runbook.split_once('#').unwrap();
        assert!(root().join(page).exists(), "{runbook}");
        assert!(anchors(page).contains(anchor), "{runbook}");
    }
}

/// Seen red with a metric renamed in an alert and in a panel.
#[test]
fn alerts_and_dashboard_use_only_metrics_that_are_explained() {
    let page = read("docs/metrics.md");
    let explained: BTreeSet<_> = quoted(&page)
        .into_iter()
        .map(|name| name.split('{').next().unwrap().to_owned())
        .collect();
    for file in [RULES, "examples/grafana/claviger.json"] {
        let text = read(file);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let names: BTreeSet<_> = text
            .split(|c| !is_part(c))
            .filter(|name| {
                let starts = ["claviger_", "grpc_server_", "process_"];
                starts.iter().any(|start| name.starts_with(start))
            })
            .map(|name| {
                let suffixes = ["_bucket", "_count", "_sum"];
                let suffix = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
                suffix.unwrap_or(name)
            })
            .collect();
        assert!(names.len() > 12, "{file}: {names:?}");
        for name in names {
            assert!(explained.contains(name), "{file}: {name}");
        }
    }
}
