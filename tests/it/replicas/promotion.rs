//! The standby becomes the primary while the old primary runs on and can be read.

use std::sync::Arc;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::{Verdict, Wait};

use super::faults::{any_seed, check_promises, recovered, verdict_of};
use super::history::{Outcome, Promises};
use super::rig::Rig;
use super::workload::Workload;
use crate::fixtures::{ReplicatedDatabase, Replication, Traffic, eventually, from_env};

const LEASE: Duration = Duration::from_secs(2);

/// The address of the database moves to the promoted standby. One server is cut off from the old primary then, one keeps its
/// connections to it, which can read and not commit, and one gets the new address later than the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_accepted_after_its_revocation_when_the_synchronous_standby_is_promoted() {
    let seed = from_env("CLAVIGER_TEST_SEED", any_seed());
    println!("CLAVIGER_TEST_SEED={seed}");
    let database = Arc::new(ReplicatedDatabase::start(Replication::Synchronous).await);
    let rig = Rig::start(Arc::clone(&database.primary), 3, LEASE).await;
    let workload = Workload::start(&rig, seed as u64);
    let clients = Arc::clone(&workload.clients);
    eventually("keys are revoked", async || {
        (clients.revoked() >= 30).then_some(())
    })
    .await;
    let before = eventually("a key is issued", async || {
        clients.issue(rig.replicas[0].api()).await
    })
    .await;

    database.between.set(Traffic::Cut);
    let promoted = Arc::clone(&database);
    tokio::task::spawn_blocking(move || promoted.promote())
        .await
        .unwrap();
    println!("{:8.3} s: promoted", clients.now().as_secs_f64());
    let standby = database.standby.cluster.socket();
    let [cut, kept, late] = [0, 1, 2].map(|number| &rig.replicas[number].network);
    for network in [cut, kept] {
        network.lead_to(standby.clone());
    }
    cut.set(Traffic::Cut);
    cut.set(Traffic::Flows);

    // Acknowledged by the server at the new primary, while others can still read the old one.
    let outcome = eventually("the new primary takes a revocation", async || {
        let outcome = clients
            .revoke(rig.replicas[0].api(), &before, Wait::Everywhere)
            .await;
        matches!(outcome, Outcome::Acknowledged { .. }).then_some(outcome)
    })
    .await;
    println!("{:8.3} s: {outcome:?}", clients.now().as_secs_f64());
    late.lead_to(standby);
    let revoked = clients.revoked();
    eventually("keys are revoked again", async || {
        (clients.revoked() >= revoked + 30).then_some(())
    })
    .await;
    println!("{:8.3} s: revoked again", clients.now().as_secs_f64());
    let clients = recovered(&rig, workload).await;
    println!("{:8.3} s: recovered", clients.now().as_secs_f64());
    let promises = Promises {
        bound: rig.bound(),
        // What was not acknowledged may have been seen at the old primary.
        may_lose_commits: true,
    };
    check_promises(&clients.history(), promises);
    for replica in &rig.replicas {
        let verdict = verdict_of(&clients, replica, &before, before.revision).await;
        assert_eq!(verdict, Verdict::Revoked);
    }
}
