//! The tour of the page about JSON, with the real curl.

use std::process::Command;

use serde_json::Value;

use super::JsonServer;

/// The first block of commands.
fn tour() -> &'static str {
    let page = include_str!("../../../docs/json.md");
    let (_, rest) = page.split_once("```sh\n").expect("the block's begin");
    let (block, _) = rest.split_once("```").expect("the block's end");
    block
}

/// Seen red with the revocation taken out of the page.
#[test]
fn the_tour_by_curl_is_true_as_it_stands() {
    let server = JsonServer::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    // The address is the only thing that is not as it stands there.
    let tour = tour().replace("127.0.0.1:7701", &server.program.http);
    let output = Command::new("bash")
        .args(["-e", "-c", &tour])
        .current_dir(directory.path())
        .env("CLAVIGER_KEY", server.operator.trim_end())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaints.is_empty() && output.status.success(),
        "{complaints}"
    );
    let answers: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let calls = tour.lines().filter(|line| line.starts_with("call "));
    let kept = tour.matches("> issued.json").count() + tour.matches("> rotated.json").count();
    assert_eq!(
        answers.len(),
        calls.count() - kept,
        "one line for each call"
    );
    for answer in &answers {
        assert!(answer.get("code").is_none(), "{answer}");
    }
    let verdicts: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer["verdict"].as_str())
        .collect();
    assert_eq!(
        verdicts,
        ["VERDICT_ALLOWED", "VERDICT_ALLOWED", "VERDICT_REVOKED"]
    );
    assert!(said.contains("\"verdict\":\"VERDICT_MALFORMED\""), "{said}");
    assert!(said.contains("\"name\":\"renamed\""), "{said}");
    assert!(said.contains("\"state\":\"KEY_STATE_DISABLED\""), "{said}");
    let events = &answers[answers.len() - 2]["events"];
    assert_eq!(events[0]["kind"], "key.revoked", "{events}");
    assert_eq!(
        events[0]["detail"]["reason"], "the tour is over",
        "{events}"
    );
}
