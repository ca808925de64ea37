//! Servers and their database are killed while clients change things at all of them.

use std::sync::Arc;
use std::time::Duration;

use super::episodes::blocking;
use super::faults::{any_seed, check_every_key, check_promises, recovered};
use super::history::Promises;
use super::rig::Rig;
use super::workload::Workload;
use crate::fixtures::{Cluster, Database, Random, eventually, from_env};

const LEASE: Duration = Duration::from_secs(2);

/// `CLAVIGER_TEST_REPLICA_KILLS=200` is a long run. What loses acknowledged changes is shown red in `process/crash.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_by_any_server_is_lost_or_doubled_by_kills() {
    let cycles = from_env("CLAVIGER_TEST_REPLICA_KILLS", 5);
    let seed = from_env("CLAVIGER_TEST_SEED", any_seed());
    println!("CLAVIGER_TEST_SEED={seed}");
    let mut random = Random(seed as u64);
    let database = Arc::new(Database::new_in(Arc::new(Cluster::start())));
    let rig = Rig::start(database, 3, LEASE).await;
    let workload = Workload::start(&rig, seed as u64);
    for cycle in 0..cycles {
        // In full swing, and at any moment.
        let revoked = workload.clients.revoked();
        eventually("keys are revoked again", async || {
            (workload.clients.revoked() >= revoked + 10).then_some(())
        })
        .await;
        tokio::time::sleep(random.millis(0, 300)).await;
        // A server or two, the database, or both.
        let first = random.below(3);
        let killed = match cycle % 4 {
            1 => vec![],
            2 => vec![first, (first + 1) % 3],
            _ => vec![first],
        };
        let crashes = cycle % 2 == 1;
        println!(
            "{:8.3} s: replicas {killed:?} are killed{}",
            workload.clients.now().as_secs_f64(),
            if crashes {
                ", the database crashes"
            } else {
                ""
            }
        );
        let again = killed.clone();
        blocking(&rig, move |rig| {
            for number in killed {
                rig.replicas[number].kill();
            }
            if crashes {
                rig.database.cluster.crash();
                rig.database.cluster.start_server();
            }
        })
        .await;
        blocking(&rig, move |rig| {
            for number in again {
                rig.replicas[number].start_again();
            }
        })
        .await;
    }
    let clients = recovered(&rig, workload).await;
    let promises = Promises {
        bound: rig.bound(),
        may_lose_commits: false,
    };
    check_promises(&clients.history(), promises);
    check_every_key(&rig, &clients, &rig.database).await;
}
