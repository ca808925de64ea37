//! The standby becomes the primary while the old primary runs on and can be read.

use std::sync::Arc;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::{Verdict, Wait};

use super::clock::{make_clock_settable, set_clock_of};
use super::faults::{any_seed, check_every_key, check_promises, recovered, verdict_of};
use super::history::{Outcome, Promises};
use super::rig::Rig;
use super::workload::{Workload, WorkloadKey};
use crate::fixtures::{
    ReplicatedDatabase, Replication, Traffic, eventually, from_env, issue, issue_request,
    verify_request,
};

const LEASE: Duration = Duration::from_secs(2);

/// Servers whose database is promoted while clients are at work.
struct Failover {
    database: Arc<ReplicatedDatabase>,
    rig: Arc<Rig>,
    workload: Workload,
    /// A key that everybody knew before.
    key: WorkloadKey,
}

impl Failover {
    /// The standby is promoted, and nothing has told the servers so.
    async fn start(seed: u64) -> Self {
        let database = Arc::new(ReplicatedDatabase::start(Replication::Synchronous).await);
        let rig = Rig::start(Arc::clone(&database.primary), 3, LEASE).await;
        let workload = Workload::start(&rig, seed);
        let clients = &workload.clients;
        eventually("keys are revoked", async || {
            (clients.revoked() >= 30).then_some(())
        })
        .await;
        let key = eventually("a key is issued", async || {
            clients.issue(rig.replicas[0].api()).await
        })
        .await;
        for replica in &rig.replicas {
            let verdict = verdict_of(clients, replica, &key, key.revision).await;
            assert_eq!(verdict, Verdict::Allowed);
        }
        database.between.set(Traffic::Cut);
        let promoted = Arc::clone(&database);
        tokio::task::spawn_blocking(move || promoted.promote())
            .await
            .unwrap();
        Self {
            database,
            rig,
            workload,
            key,
        }
    }

    /// The address of the database moves for one server. Its connections stay where they are.
    fn move_address(&self, replica: usize) {
        let network = &self.rig.replicas[replica].network;
        network.lead_to(self.database.standby.cluster.socket());
    }

    /// A server's connections end, so that all of them are made again.
    fn reconnect(&self, replica: usize) {
        let network = &self.rig.replicas[replica].network;
        network.set(Traffic::Cut);
        network.set(Traffic::Flows);
    }

    /// The new primary takes a revocation of the key from the first server.
    async fn revoke(&self) -> Outcome {
        let (clients, server) = (&self.workload.clients, &self.rig.replicas[0]);
        eventually("the new primary takes a revocation", async || {
            let outcome = clients.revoke(server.api(), &self.key, Wait::Everywhere);
            let outcome = outcome.await;
            matches!(outcome, Outcome::Acknowledged { .. }).then_some(outcome)
        })
        .await
    }
}

/// One server goes to the new primary at once. One keeps the connections to the old primary that still answer, since only a commit
/// hangs there; its new connections lead to the new primary. One hears of the new address later than the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_accepted_after_its_revocation_when_the_synchronous_standby_is_promoted() {
    let seed = from_env("CLAVIGER_TEST_SEED", any_seed());
    println!("CLAVIGER_TEST_SEED={seed}");
    let failover = Failover::start(seed as u64).await;
    failover.move_address(0);
    failover.move_address(1);
    failover.reconnect(0);
    // Acknowledged by the server at the new primary, while others can still read the old one.
    let outcome = failover.revoke().await;
    assert!(!outcome.is_unconfirmed(), "{outcome:?}");
    let old = failover.database.primary.ask("SELECT 1");
    assert_eq!(old.trim(), "1", "the old primary can be read");
    let clients = Arc::clone(&failover.workload.clients);
    let (revoked, until) = (
        clients.revoked(),
        clients.now() + failover.rig.longest_wait(),
    );
    failover.move_address(2);
    eventually("keys are revoked again, for long enough", async || {
        (clients.revoked() >= revoked + 30 && clients.now() > until).then_some(())
    })
    .await;
    for replica in [1, 2] {
        failover.reconnect(replica);
    }
    let Failover {
        rig,
        workload,
        key,
        database,
    } = failover;
    let clients = recovered(&rig, workload).await;
    let promises = Promises {
        bound: rig.bound(),
        // What was not acknowledged may have been seen at the old primary.
        may_lose_commits: true,
    };
    check_promises(&clients.history(), promises);
    check_every_key(&rig, &clients, &database.standby).await;
    for replica in &rig.replicas {
        let verdict = verdict_of(&clients, replica, &key, key.revision).await;
        assert_eq!(verdict, Verdict::Revoked);
    }
}

/// The clock of the promoted server is ahead, so by its times no heartbeat is younger than a lease. Seen red with a wait that believes the
/// times of heartbeats in the database instead of its own clock, and that does not wait for the leases of an earlier timeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_time_of_a_database_shortens_a_wait() {
    let lease = Duration::from_secs(8);
    let database = ReplicatedDatabase::start(Replication::Synchronous).await;
    make_clock_settable(&database.primary);
    let rig = Rig::start(Arc::clone(&database.primary), 2, lease).await;
    let [near, far] = [0, 1].map(|number| &rig.replicas[number]);
    let key = issue(&mut near.api().1, issue_request()).await;
    let ask = async || {
        let mut api = far.api().1;
        let answer = api.verify.verify(verify_request(&key.plain_key)).await;
        answer.ok().map(|answer| answer.get_ref().verdict())
    };
    eventually("the far server knows the key", async || {
        (ask().await == Some(Verdict::Allowed)).then_some(())
    })
    .await;

    database.between.set(Traffic::Cut);
    far.network.set(Traffic::Cut);
    let database = Arc::new(database);
    let promoted = Arc::clone(&database);
    tokio::task::spawn_blocking(move || promoted.promote())
        .await
        .unwrap();
    set_clock_of(&database.standby, 30);
    near.network.lead_to(database.standby.cluster.socket());
    near.network.set(Traffic::Cut);
    near.network.set(Traffic::Flows);
    let mut api = near.api().1;
    let revoked = eventually("the new primary takes a revocation", async || {
        let request = pb::RevokeKeyRequest {
            key_id: key.id.clone(),
            wait: Wait::Everywhere.into(),
            ..Default::default()
        };
        api.keys.revoke_key(request).await.ok()
    })
    .await;
    assert!(revoked.get_ref().confirmed);
    assert_eq!(ask().await, None, "the far server says that it cannot tell");
}

/// A server whose feed still reads the old primary gets no lease, since its heartbeats tell changes of the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_stays_with_the_old_primary() {
    let failover = Failover::start(any_seed() as u64).await;
    for replica in [0, 1, 2] {
        failover.move_address(replica);
    }
    failover.reconnect(0);
    failover.revoke().await;
    let Failover { rig, workload, .. } = failover;
    recovered(&rig, workload).await;
}
