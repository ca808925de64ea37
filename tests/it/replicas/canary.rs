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
            // After a revocation that every server has confirmed, the next question is denied.
            if round["wait"] == "WAIT_EVERYWHERE" {
                let took = endpoint["revoke_to_deny_seconds"].as_f64().unwrap();
                println!("everywhere: {took}");
            }
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

/// A server that is cut off from the database answers until its lease has lapsed, and does not know of what happens meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_tells_which_server_lags_and_that_it_breaks_no_promise() {
    let rig = two_servers().await;
    rig.replicas[1].network.set(Traffic::Held);
    let admin = &rig.replicas[0].addresses()[0];
    let flags =
        format!("--rounds 1 --admin-endpoint {admin} --bound 3040ms --limit 6s --timeout 3s");
    let (lines, code, complaint) = canary(&rig, &flags).await;
    println!("{lines:#?}\n{code:?}\n{complaint}");
    rig.replicas[1].network.set(Traffic::Flows);
}
