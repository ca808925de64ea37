//! A server that was suspended does not know that time has passed, and answers what waited for it.

use std::sync::Arc;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::{Verdict, Wait};
use tokio::task::JoinSet;

use super::faults::{any_seed, check_promises, verdict_of};
use super::history::{Answer, Outcome, Promises};
use super::rig::Rig;
use super::workload::{Clients, WorkloadKey};
use crate::fixtures::{Cluster, Database, Random, Traffic, eventually, from_env};

/// The shortest that there is.
const LEASE: Duration = Duration::from_secs(1);

/// How often a suspended server is asked.
const PACE: Duration = Duration::from_millis(10);

/// `CLAVIGER_TEST_SUSPENSIONS=100` is a long run. Seen red with `Lease::left` always a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_resumed_accepts_nothing_that_was_revoked_meanwhile() {
    let tries = from_env("CLAVIGER_TEST_SUSPENSIONS", 4);
    let seed = from_env("CLAVIGER_TEST_SEED", any_seed());
    println!("CLAVIGER_TEST_SEED={seed}");
    let mut random = Random(seed as u64);
    let database = Arc::new(Database::new_in(Arc::new(Cluster::start())));
    let rig = Rig::start(database, 3, LEASE).await;
    let clients = Clients::of(&rig);
    let mut waited = 0;
    for wait in [Wait::Everywhere, Wait::Committed]
        .into_iter()
        .cycle()
        .take(tries)
    {
        let key = eventually("a key is issued", async || {
            clients.issue(rig.replicas[0].api()).await
        })
        .await;
        for replica in &rig.replicas {
            let verdict = verdict_of(&clients, replica, &key, key.revision).await;
            assert_eq!(verdict, Verdict::Allowed);
        }
        // A server that reaches the database has the revocation a moment later. The others have only their leases to go by.
        let is_cut_off = wait == Wait::Everywhere || random.below(2) == 0;
        for replica in &rig.replicas[1..] {
            replica.signal("STOP");
            if is_cut_off {
                replica.network.set(Traffic::Held);
            }
        }
        let questions = Questions::ask(&clients, &rig, &key);
        let outcome = clients.revoke(rig.replicas[0].api(), &key, wait).await;
        let Outcome::Acknowledged {
            revision,
            confirmed,
        } = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!(confirmed, wait == Wait::Everywhere);
        // Of one that is nowhere confirmed the leases are about to lapse, or have just lapsed.
        let resumed = clients.now()
            + match wait {
                Wait::Everywhere => random.millis(50, 200),
                _ => rig.lease.mul_f32(0.9) + random.millis(0, 300),
            };
        eventually("the servers are to be resumed", async || {
            (clients.now() >= resumed).then_some(())
        })
        .await;
        for replica in &rig.replicas[1..] {
            replica.signal("CONT");
        }
        waited += questions.answers().await;
        for replica in &rig.replicas[1..] {
            replica.network.set(Traffic::Flows);
        }
        for replica in &rig.replicas {
            let verdict = verdict_of(&clients, replica, &key, revision).await;
            assert_eq!(verdict, Verdict::Revoked);
        }
    }
    println!("{waited} questions waited for servers that were suspended");
    let history = clients.history();
    let promises = Promises {
        bound: rig.bound(),
        may_lose_commits: false,
    };
    check_promises(&history, promises);
    assert!(waited > tries * 20, "too few questions waited: {waited}");
}

/// Questions about a key that are asked again and again, whether they are answered or not.
struct Questions {
    stop: tokio::sync::oneshot::Sender<()>,
    asking: tokio::task::JoinHandle<JoinSet<Answer>>,
}

impl Questions {
    /// Asks every server but the first.
    fn ask(clients: &Arc<Clients>, rig: &Arc<Rig>, key: &WorkloadKey) -> Self {
        let (stop, mut is_stopped) = tokio::sync::oneshot::channel();
        let (clients, rig, key) = (Arc::clone(clients), Arc::clone(rig), key.clone());
        let asking = tokio::spawn(async move {
            let mut asked = JoinSet::new();
            while is_stopped.try_recv().is_err() {
                for replica in &rig.replicas[1..] {
                    let (clients, key, called) = (Arc::clone(&clients), key.clone(), replica.api());
                    asked.spawn(async move { clients.ask(called, &key, 0).await });
                }
                tokio::time::sleep(PACE).await;
            }
            asked
        });
        Self { stop, asking }
    }

    /// Waits for the answers, and returns their number.
    async fn answers(self) -> usize {
        let _ = self.stop.send(());
        let answers = self.asking.await.unwrap().join_all().await;
        let answered = answers.iter().filter(|answer| **answer != Answer::Nothing);
        answered.count()
    }
}
