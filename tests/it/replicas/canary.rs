//! `claviger canary` with several servers on one database.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::rig::Rig;
use crate::fixtures::{Cluster, Database, Traffic, claviger, outcome};

const LEASE: Duration = Duration::from_secs(2);

/// Two servers, with the realm and the partner of the canary.
async fn two_servers() -> Arc<Rig> {
    let database = Arc::new(Database::new_in(Arc::new(Cluster::start())));
    let rig = Rig::start(database, 2, LEASE).await;
    for line in [
        "realm put canary --prefix canary --environment production=live",
        "partner put canary --realm canary --wait everywhere",
    ] {
        let (_, code, complaint) = run(&rig, line).await;
        assert_eq!(code, Some(0), "{line}: {complaint}");
    }
    rig
}

/// What an operator's command prints at the first server, its exit code, and what it says on standard error.
async fn run(rig: &Rig, line: &str) -> (String, Option<i32>, String) {
    let words: Vec<_> = line.split_whitespace().collect();
    let mut command = claviger(&words);
    command.env("CLAVIGER_KEY", rig.replicas[0].operator());
    if words[0] != "canary" {
        command.env("CLAVIGER_ENDPOINT", &rig.replicas[0].addresses()[0]);
    }
    let output = tokio::task::spawn_blocking(move || outcome(&mut command));
    let output = output.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        output.status.code(),
        text(output.stderr),
    )
}

/// The lines of a canary at both servers.
async fn canary(rig: &Rig, flags: &str) -> (Vec<Value>, Option<i32>, String) {
    let [first, second] = [0, 1].map(|number: usize| rig.replicas[number].addresses()[0].clone());
    let line = format!("canary --json --endpoint {first} --endpoint {second} {flags}");
    let (said, code, complaint) = run(rig, &line).await;
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), code, complaint)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_measures_each_server_of_one_database() {
    let rig = two_servers().await;
    let (lines, code, complaint) = canary(&rig, "--rounds 4 --every 0s").await;
    assert_eq!(code, Some(0), "{complaint}\n{lines:?}");
    let (summary, rounds) = lines.split_last().unwrap();
    assert_eq!(rounds.len(), 4, "no violations: {lines:?}");
    for round in rounds {
        assert_eq!(round["error"], Value::Null, "{round}");
        for endpoint in round["endpoints"].as_array().unwrap() {
            assert!(endpoint["revoke_to_deny_seconds"].is_f64(), "{round}");
        }
    }
    // They take turns.
    assert_ne!(rounds[0]["changed_at"], rounds[1]["changed_at"]);
    assert_eq!(summary["violations"], 0, "{summary}");
    for (number, endpoint) in summary["endpoints"].as_array().unwrap().iter().enumerate() {
        let address = &rig.replicas[number].addresses()[0];
        assert_eq!(endpoint["endpoint"], format!("http://{address}"));
        for wait in endpoint["revoke_to_deny_seconds"].as_array().unwrap() {
            assert_eq!(wait["count"], 2, "{summary}");
        }
    }
}

/// Seen red without the delay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_tells_which_server_lags() {
    const DELAY: Duration = Duration::from_millis(200);
    let rig = two_servers().await;
    rig.replicas[1].network.set_delay(DELAY);
    let admin = &rig.replicas[0].addresses()[0];
    let flags = format!("--rounds 2 --every 0s --wait committed --admin-endpoint {admin}");
    let (lines, code, complaint) = canary(&rig, &flags).await;
    assert_eq!(code, Some(0), "{complaint}\n{lines:?}");
    let (summary, rounds) = lines.split_last().unwrap();
    assert_eq!(summary["violations"], 0, "{summary}");
    for round in rounds {
        let took = |endpoint: usize| {
            round["endpoints"][endpoint]["revoke_to_deny_seconds"]
                .as_f64()
                .unwrap()
        };
        // The change travels to the second server for as long as the delay.
        let least = DELAY.as_secs_f64() / 2.0;
        assert!(took(1) > least && took(1) > took(0), "{round}");
    }
}

/// Seen red without the held network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_names_the_server_whose_lease_has_lapsed() {
    let rig = two_servers().await;
    rig.replicas[1].network.set(Traffic::Held);
    let [admin, lapsed] = [0, 1].map(|number: usize| rig.replicas[number].addresses()[0].clone());
    let flags = format!("--rounds 1 --admin-endpoint {admin} --timeout 4s");
    let (lines, code, complaint) = canary(&rig, &flags).await;
    // No round succeeded, so nothing was measured.
    assert_eq!(code, Some(1), "{complaint}\n{lines:?}");
    let [round, summary] = &lines[..] else {
        panic!("no promise is broken: {lines:?}");
    };
    let error = &round["error"];
    assert_eq!(error["code"], "UNAVAILABLE", "{round}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("http://{lapsed} ")),
        "{message}"
    );
    assert!(message.contains("longer than its lease"), "{message}");
    let of = |endpoint: usize, name: &str| summary["endpoints"][endpoint][name].as_u64().unwrap();
    assert_eq!([of(0, "unavailable"), of(0, "violations")], [0, 0]);
    assert!(of(1, "unavailable") > 0, "{summary}");
    assert_eq!(of(1, "violations"), 0, "{summary}");
}
