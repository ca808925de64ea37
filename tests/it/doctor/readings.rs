//! How the report is read: by people at 80 columns, by programs, and by those who look a check up.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use crate::documents::table;
use crate::fixtures::Engine;

use super::{BAD_CONFIGURATION, authority, examine, examine_with};

/// Seen red with a row taken out of the page, and with two rows in another order.
#[test]
fn every_check_is_explained_and_no_other() {
    let report = examine(&authority(Engine::Sqlite), &[]);
    let ids: Vec<_> = report
        .checks()
        .iter()
        .map(|check| check["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    let explained: Vec<_> = table("docs/doctor.md", "## Checks")
        .into_iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    assert_eq!(explained, ids);
}

/// Seen red with `WIDTH` of 81, and with the worst at the end.
#[test]
fn the_screen_fits_80_columns_and_begins_with_what_failed() {
    let test_store = authority(Engine::Sqlite);
    fs::write(test_store.data().join("operator.key"), "key").unwrap();
    fs::write(test_store.pepper(), "no pepper").unwrap();
    let report = examine(
        &test_store,
        &["--verify-threads=1024", "--client-ca=absent"],
    );
    let lines: Vec<_> = report.text.lines().collect();
    for line in &lines {
        // A path is not broken.
        let is_one_word = line.trim_start_matches("  -> ").split_whitespace().count() == 1;
        assert!(line.chars().count() <= 80 || is_one_word, "{line}");
    }
    assert_eq!(lines[0], "FAILED   configuration");
    let order = [
        "FAILED   pepper-file",
        "WARNING  operator-key",
        "passed   data-directory",
    ];
    let places = order.map(|start| {
        lines
            .iter()
            .position(|line| line.starts_with(start))
            .unwrap()
    });
    assert!(places.is_sorted(), "{}", report.text);
    let summary = report.text.rsplit("\n\n").next().unwrap();
    assert!(
        summary.starts_with(
            "2 failed (configuration, pepper-file), 2 warnings (operator-key, threads), "
        ),
        "{summary}"
    );
    assert_eq!(report.code, BAD_CONFIGURATION);
}

/// Programs read these names. Seen red with another name of a field.
#[test]
fn the_document_has_a_stable_form() {
    let report = examine(&authority(Engine::Sqlite), &["--verify-threads=1024"]);
    let document = &report.document;
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["summary"]["failed"], 0);
    assert_eq!(document["summary"]["warnings"], 1);
    assert_eq!(
        document["checks"][0],
        json!({
            "id": "configuration",
            "outcome": "passed",
            "findings": [{"outcome": "passed", "found": "correct", "advice": ""}],
        })
    );
    let sum: u64 = ["failed", "warnings", "passed", "skipped"]
        .iter()
        .map(|name| document["summary"][name].as_u64().unwrap())
        .sum();
    assert_eq!(sum, report.checks().len() as u64);
}

/// Seen red with the errors on standard error only.
#[test]
fn settings_that_cannot_work_end_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("claviger.toml");
    fs::write(&file, "listen = 7700\nlissen = \"127.0.0.1:7700\"\n").unwrap();
    let config = format!("--config={}", file.display());
    let report = examine_with(&[&config, "--listen=127.0.0.1:0"]);
    report.has(&["configuration"], &[]);
    report.says(
        "configuration",
        "unknown setting `lissen`",
        "did you mean `listen`?",
    );
    assert_eq!(report.ids("passed"), [""; 0]);

    let test_store = authority(Engine::Sqlite);
    let flags = ["--listen=127.0.0.1:17700", "--http-listen=127.0.0.1:17700"];
    examine(&test_store, &flags).failed("configuration", "are the same", "choose another port");
    let flags = ["--listen=0.0.0.0:0"];
    let report = examine(&test_store, &flags);
    report.has(&["configuration"], &["listen"]);
    report.says(
        "configuration",
        "can be reached from other machines",
        "set --tls-cert",
    );
}
