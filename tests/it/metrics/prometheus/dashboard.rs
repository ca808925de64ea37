//! The dashboard for Grafana: each of its queries, sent as Grafana would send it, returns series of servers in use.

use std::collections::BTreeSet;

use serde_json::Value;

use super::causes::BusyServer;
use super::rules::OF_A_BUSY_MACHINE;
use super::{Prometheus, Target, example};
use crate::fixtures::eventually;
use crate::tls::TlsServer;

/// What returns nothing while all is well, and why.
const EMPTY: [(&str, &str); 1] = [("Starts", "no server has started anew")];

fn dashboard() -> Value {
    serde_json::from_str(&example("grafana/claviger.json")).unwrap()
}

/// The panels without the rows' titles.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

/// The queries of the dashboard, each with the title of its panel, its variable or its annotation.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        queries.push((text(&annotation["name"]), text(&annotation["expr"])));
    }
    for variable in variables(dashboard) {
        // `label_values(METRIC, LABEL)` is Grafana's own.
        let query = text(&variable["query"]["query"]);
        let arguments = query.strip_prefix("label_values(").unwrap();
        let (metric, label) = arguments.trim_end_matches(')').rsplit_once(", ").unwrap();
        queries.push((
            text(&variable["name"]),
            format!("count by ({label}) ({metric})"),
        ));
    }
    queries
}

/// The variables apart from the one of the data source.
fn variables(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    variables
        .iter()
        .filter(|variable| variable["type"] == "query")
}

/// A query with Grafana's values of the variables: a regular expression of what is chosen.
fn filled(query: &str, instances: &[&str], realms: &[&str]) -> String {
    let chosen = |values: &[&str]| {
        let values: Vec<_> = values
            .iter()
            .map(|value| value.replace('.', "\\\\."))
            .collect();
        match values.as_slice() {
            [one] => one.clone(),
            several => format!("({})", several.join("|")),
        }
    };
    query
        .replace("$instance", &chosen(instances))
        .replace("$realm", &chosen(realms))
        // Four scrapes.
        .replace("$__rate_interval", "4s")
}

/// Seen red with a metric renamed in a panel, with a label that a metric does not have, and with an alert about any lag at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_query_returns_series_of_servers_in_use_and_no_alert_does() {
    let server = BusyServer::start().await;
    let tls = TlsServer::start(&["--gateway", "nginx"]);
    let http = server.server.instance();
    let targets = [Target::plain(http), Target::with_tls(&tls)];
    let prometheus = Prometheus::scraping(&targets).await;
    let dashboard = dashboard();
    let all = (vec![http, tls.http_address()], vec!["claviger", "demo"]);
    let one = (vec![http], vec!["demo"]);
    let tls_alone = (vec![tls.http_address()], vec!["claviger"]);

    let clients = async {
        loop {
            server.use_well().await;
        }
    };
    let all_are_answered = async {
        for (title, query) in queries(&dashboard) {
            let is_empty = EMPTY.iter().any(|(empty, _)| *empty == title);
            let first = if title.starts_with("Certificate") {
                &tls_alone
            } else {
                &one
            };
            for (instances, realms) in [first, &all] {
                let filled = filled(&query, instances, realms);
                assert!(!filled.contains('$'), "{title}: {filled}");
                if is_empty {
                    assert_eq!(
                        prometheus.query(&filled).await.len(),
                        0,
                        "{title}: {filled}"
                    );
                    continue;
                }
                eventually(&format!("{title} has numbers: {filled}"), async || {
                    let series = prometheus.query(&filled).await;
                    let has_number = |series: &Value| series["value"][1] != "NaN";
                    series.iter().any(has_number).then_some(())
                })
                .await;
            }
        }
        for rule in prometheus.rules().await {
            assert_eq!(rule["health"], "ok", "{rule}");
            let series = prometheus.query(rule["query"].as_str().unwrap()).await;
            let is_alert = rule["type"] == "alerting";
            if OF_A_BUSY_MACHINE.iter().any(|name| rule["name"] == *name) {
                continue;
            }
            assert_eq!(series.is_empty(), is_alert, "{rule}: {series:?}");
        }
    };
    tokio::select! {
        () = clients => {}
        () = all_are_answered => {}
    }
}

/// Seen red without a description, and with two panels that overlap.
#[test]
fn each_panel_has_a_place_a_unit_and_an_explanation() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    assert!(panels.len() <= 25, "{}", panels.len());
    let source = serde_json::json!({"type": "prometheus", "uid": "${datasource}"});
    let all = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = all
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), all.len(), "each id is there once");
    let mut taken = BTreeSet::new();
    for panel in all {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|at| panel["gridPos"][at].as_u64().unwrap());
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cell.0 < 24 && taken.insert(cell), "{panel}");
        }
    }
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(panel["datasource"], source, "{title}");
        for text in [
            &panel["description"],
            &panel["fieldConfig"]["defaults"]["unit"],
        ] {
            assert!(
                text.as_str().is_some_and(|text| !text.is_empty()),
                "{title}"
            );
        }
    }
    let names: Vec<_> = variables(&dashboard)
        .map(|variable| &variable["name"])
        .collect();
    assert_eq!(names, ["instance", "realm"]);
}
