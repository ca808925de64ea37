//! Whatever fails, and whenever it does: no key is accepted after its revocation is in force, and nothing acknowledged is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use futures_util::future::join_all;
use pb::{Verdict, Wait};
use tokio::task::JoinSet;

use super::episodes::Director;
use super::history::{Answer, History, KeyNumber, Outcome, Promises};
use super::rig::Rig;
use super::workload::{Clients, Workload, WorkloadKey};
use crate::fixtures::{Cluster, Database, eventually, from_env};

/// How many servers there are.
const REPLICAS: usize = 3;

/// The length of the leases.
const LEASE: Duration = Duration::from_secs(2);

const WAITS: [Wait; 2] = [Wait::Committed, Wait::Everywhere];

/// `CLAVIGER_TEST_REVOCATIONS=20000 CLAVIGER_TEST_EPISODES=200` is a long run. `CLAVIGER_TEST_LOGS` names a directory for the logs of
/// the servers. Seen red with `Lease::left` always a second: keys are then accepted after the bound, and after confirmations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_accepted_after_its_revocation_whatever_fails() {
    let enough = from_env("CLAVIGER_TEST_REVOCATIONS", 300);
    let episodes = from_env("CLAVIGER_TEST_EPISODES", 6);
    let replicas = from_env("CLAVIGER_TEST_REPLICAS", REPLICAS);
    let seed = from_env("CLAVIGER_TEST_SEED", any_seed());
    println!("CLAVIGER_TEST_SEED={seed}");

    let database = Arc::new(Database::new_in(Arc::new(Cluster::start())));
    let rig = Rig::start(database, replicas, LEASE).await;
    let workload = Workload::start(&rig, seed as u64);
    let mut director = Director::new(seed as u64, replicas);
    let clients = Arc::clone(&workload.clients);
    let mut done = 0;
    while done < episodes {
        let now = director.next();
        done += now.len();
        let mut running = JoinSet::new();
        for episode in now {
            let (now, revoked) = (clients.now().as_secs_f64(), clients.revoked());
            println!("{now:8.3} s, {revoked} revoked: {episode}");
            running.spawn(episode.run(Arc::clone(&rig)));
        }
        running.join_all().await;
        tokio::time::sleep(director.pause()).await;
        // Each episode has its share of the revocations, most of which are made around it.
        let share = enough * done.min(episodes) / episodes;
        while clients.revoked() < share {
            let some = share.min(clients.revoked() + 10);
            eventually("keys are revoked again", async || {
                (clients.revoked() >= some).then_some(())
            })
            .await;
        }
    }
    println!(
        "{:8.3} s: {done} episodes are over",
        clients.now().as_secs_f64()
    );
    let clients = recovered(&rig, workload).await;
    let promises = Promises {
        bound: rig.bound(),
        may_lose_commits: false,
    };
    check_promises(&clients.history(), promises);
    check_coverage(&rig, &clients.history(), enough);
    check_every_key(&rig, &clients, &rig.database).await;
}

pub(super) fn any_seed() -> usize {
    (Clock::system().now().as_micros() % 1_000_000_000) as usize
}

/// Waits until every server answers again, and the clients have seen for long enough that what was revoked stays so.
pub(super) async fn recovered(rig: &Arc<Rig>, workload: Workload) -> Arc<Clients> {
    workload.stop_changes();
    for replica in &rig.replicas {
        let key = eventually("keys are issued again", async || {
            workload.clients.issue(replica.api()).await
        })
        .await;
        for asked in &rig.replicas {
            verdict_of(&workload.clients, asked, &key, key.revision).await;
        }
    }
    let until = workload.clients.now() + rig.longest_wait();
    eventually("the last revocations are everywhere", async || {
        (workload.clients.now() > until).then_some(())
    })
    .await;
    workload.stop().await
}

/// A verdict, as soon as there is one.
pub(super) async fn verdict_of(
    clients: &Clients,
    replica: &super::rig::Replica,
    key: &WorkloadKey,
    min_revision: u64,
) -> Verdict {
    eventually("there is a verdict", async || {
        let answer = clients.ask(replica.api(), key, min_revision).await;
        match answer {
            Answer::Verdict { verdict, .. } => Some(verdict),
            _ => None,
        }
    })
    .await
}

/// Holds the answers to the promises.
pub(super) fn check_promises(history: &History, promises: Promises) {
    for wait in WAITS {
        println!(
            "{}: acknowledged in {}; last accepted after that: {}",
            wait.as_str_name(),
            history.times_to_acknowledge(wait),
            history.last_acceptances(wait),
        );
    }
    let unconfirmed = Outcome::is_unconfirmed;
    let revocations = history.revocations.iter();
    let everywhere = revocations.filter(|made| made.wait == Wait::Everywhere);
    println!(
        "{} issues, {} revocations, of which {} everywhere without a confirmation; {} questions: {:?}",
        history.issues.len(),
        history.revocations.len(),
        everywhere.filter(|made| unconfirmed(made.outcome)).count(),
        history.questions.len(),
        history.count_answers()
    );
    let violations = history.violations(promises);
    for violation in violations.iter().take(20) {
        println!("{violation}");
    }
    assert_eq!(violations.len(), 0, "answers that break a promise");
}

/// Holds a history to its purpose: there is enough in it to tell.
fn check_coverage(rig: &Rig, history: &History, enough: usize) {
    let acknowledged = WAITS.map(|wait| history.times_to_acknowledge(wait).len());
    for count in acknowledged {
        assert!(count >= enough / 5, "too few: {acknowledged:?}");
    }
    let acknowledged: usize = acknowledged.iter().sum();
    for replica in &rig.replicas {
        let asked = history.asked_about_after(replica.number);
        assert!(
            asked * 2 > acknowledged,
            "replica {} was asked about {asked} of {acknowledged}",
            replica.number
        );
    }
}

/// Nothing acknowledged is lost or done twice: each key is what its clients were told, at every server and in the database.
pub(super) async fn check_every_key(rig: &Rig, clients: &Clients, database: &Database) {
    let history = clients.history();
    let mut outcomes: HashMap<KeyNumber, Outcome> = HashMap::new();
    for made in &history.revocations {
        let outcome = outcomes.entry(made.key).or_insert(made.outcome);
        *outcome = outcome.or(made.outcome);
    }
    let keys = clients.keys();
    let checks = rig.replicas.iter().map(async |replica| {
        for key in &keys {
            let verdict = verdict_of(clients, replica, key, key.revision).await;
            let outcome = outcomes.get(&key.number);
            let allowed: &[Verdict] = match outcome {
                Some(Outcome::Acknowledged { .. }) => &[Verdict::Revoked],
                Some(Outcome::Unknown) => &[Verdict::Revoked, Verdict::Allowed],
                Some(Outcome::NotMade) | None => &[Verdict::Allowed],
            };
            let number = replica.number;
            assert!(
                allowed.contains(&verdict),
                "replica {number}: {verdict:?}, where {outcome:?} of {}",
                key.id
            );
        }
    });
    join_all(checks).await;
    let count = |question: &str| -> usize { database.ask(question).trim().parse().unwrap() };
    let stored = count("SELECT count(*) FROM keys WHERE realm = 'demo'");
    let perhaps = clients.issued_perhaps();
    assert!(
        (keys.len()..=keys.len() + perhaps).contains(&stored),
        "{stored} keys, where {} were issued, and {perhaps} perhaps",
        keys.len()
    );
    // The high bits are the epoch.
    let gaps = count("SELECT max(revision % (1::bigint << 48)) - count(*) FROM events");
    assert_eq!(gaps, 0, "revisions have gaps");
    println!(
        "{} keys issued and {perhaps} perhaps, {stored} stored; 0 lost, 0 doubled",
        keys.len()
    );
}
