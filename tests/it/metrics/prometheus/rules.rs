//! The files of the example, as `promtool` judges them.

use std::process::Command;

use super::{example, quickened};
use crate::fixtures::installed;

/// The alerts that may be about a server that is well while its machine runs all other tests too.
pub(super) const OF_A_BUSY_MACHINE: [&str; 2] = ["ClavigerDown", "ClavigerSlow"];

/// What `promtool` says in the folder of the example, when all is well.
fn promtool(args: &[&str]) -> String {
    let output = Command::new(installed("promtool", &[]))
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prometheus"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {said}\n{complaint}");
    said
}

/// Seen red with a bracket left out of an expression.
#[test]
fn promtool_accepts_the_configuration_and_the_rules() {
    let said = promtool(&["check", "config", "--lint-fatal", "prometheus.yml"]);
    assert!(said.contains("1 rule files found"), "{said}");
    promtool(&["check", "rules", "--lint-fatal", "alerts.yml"]);
}

/// Seen red with another threshold, selector or time for each alert, in both directions, and with a case left out.
#[test]
fn each_alert_fires_in_its_case_and_not_in_one_that_is_nearly_the_same() {
    promtool(&["test", "rules", "alerts_test.yml"]);
    let tests = example("prometheus/alerts_test.yml");
    for alert in alerts() {
        let test = format!("        alertname: {alert}\n        exp_alerts:");
        let outcomes = || tests.split(&test).skip(1);
        assert!(
            outcomes().any(|outcome| outcome.starts_with('\n')),
            "{alert} fires"
        );
        assert!(
            outcomes().any(|outcome| outcome.starts_with(" []")),
            "{alert} does not"
        );
    }
}

/// The names of the alerts.
pub(super) fn alerts() -> Vec<String> {
    let rules = example("prometheus/alerts.yml");
    let names = rules
        .lines()
        .filter_map(|line| line.strip_prefix("      - alert: "));
    let names: Vec<_> = names.map(str::to_owned).collect();
    assert!(names.len() > 20, "{names:?}");
    names
}

#[test]
fn windows_and_times_are_quickened_and_nothing_else() {
    let rules = "for: 5m\nsum(rate(x{a=~\"[.]5m\"}[15m] offset 1h)) > 14 * 86400 # in 5m\n";
    let expected = "for: 5s\nsum(rate(x{a=~\"[.]5m\"}[15s] offset 1m)) > 14 * 86400 # in 5m\n";
    assert_eq!(quickened(rules), expected);
}
