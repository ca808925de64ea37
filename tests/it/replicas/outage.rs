//! The database goes away and comes back, while clients ask every server.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1 as pb;
use futures_util::future::join_all;
use pb::{Verdict, Wait};
use tokio::task::JoinHandle;
use tonic::Code;

use super::rig::Rig;
use crate::fixtures::{
    Api, Cluster, Database, Traffic, eventually, from_env, issue_request, verify_request,
};

/// Between two questions of a client.
const PACE: Duration = Duration::from_millis(20);

/// The time over which queries of the servers are counted.
const WHILE: Duration = Duration::from_secs(1);

/// How many times the servers may send more queries than usual when the database comes back.
const MOST: u64 = 2;

/// The longest time until verdicts are back: far more than what is measured, which the output has.
const MOST_TO_RECOVER: Duration = Duration::from_secs(15);

/// What is answered about a key.
type Answer = Result<Verdict, Code>;

/// The keys that clients ask about, and what each answer is with a lease and without.
struct Keys([(String, Answer, Answer); 4]);

impl Keys {
    async fn make(api: &mut Api) -> Self {
        let good = issue(api).await;
        let revoked = issue(api).await;
        let revoke = pb::RevokeKeyRequest {
            key_id: revoked.key.unwrap().id,
            wait: pb::Wait::Everywhere.into(),
            ..Default::default()
        };
        assert!(
            api.keys
                .revoke_key(revoke)
                .await
                .unwrap()
                .get_ref()
                .confirmed
        );
        let unknown = issue(api).await;
        let delete = pb::DeleteKeyRequest {
            key_id: unknown.key.unwrap().id,
            wait: pb::Wait::Everywhere.into(),
            ..Default::default()
        };
        assert!(
            api.keys
                .delete_key(delete)
                .await
                .unwrap()
                .get_ref()
                .confirmed
        );
        let undecided = Err(Code::Unavailable);
        let mistyped = format!("{}x", good.plain_key);
        let as_before = |verdict| (Ok(verdict), Ok(verdict));
        let keys = [
            (good.plain_key, (Ok(Verdict::Allowed), undecided)),
            (revoked.plain_key, as_before(Verdict::Revoked)),
            (unknown.plain_key, (Ok(Verdict::Unknown), undecided)),
            (mistyped, as_before(Verdict::Malformed)),
        ];
        Self(keys.map(|(key, (with_lease, without))| (key, with_lease, without)))
    }

    /// The answers of a server about all keys.
    async fn ask(&self, api: &mut Api) -> Answers {
        let asked = Instant::now();
        let mut answers = Vec::new();
        for (key, ..) in &self.0 {
            let answer = api.verify.verify(verify_request(key)).await;
            let answer = answer.map(|answer| answer.into_inner().verdict());
            answers.push(answer.map_err(|status| status.code()));
        }
        let all = |expected: fn(&(String, Answer, Answer)) -> Answer| {
            self.0.iter().map(expected).eq(answers.iter().copied())
        };
        let kind = if all(|(_, with_lease, _)| *with_lease) {
            Kind::WithLease
        } else if all(|(.., without)| *without) {
            Kind::WithoutLease
        } else {
            Kind::Other
        };
        Answers {
            asked,
            answered: Instant::now(),
            all: answers,
            kind,
        }
    }
}

async fn issue(api: &mut Api) -> pb::IssueKeyResponse {
    let request = pb::IssueKeyRequest {
        wait: Wait::Everywhere.into(),
        ..issue_request()
    };
    api.keys.issue_key(request).await.unwrap().into_inner()
}

/// What a server answered about all keys, one after the other.
struct Answers {
    asked: Instant,
    answered: Instant,
    all: Vec<Answer>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    WithLease,
    WithoutLease,
    /// Of both kinds, as when the lease lapses between two answers, or wrong.
    Other,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.fmt(f)
    }
}

/// A client of each server that asks about all keys again and again.
struct Asking {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Answers>>>,
}

impl Asking {
    fn start(rig: &Rig, keys: &Arc<Keys>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let clients = rig.replicas.iter().map(|replica| {
            let (_, mut api) = replica.api();
            let (keys, is_over) = (Arc::clone(keys), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut all = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    all.push(keys.ask(&mut api).await);
                    tokio::time::sleep(PACE).await;
                }
                all
            })
        });
        Self {
            clients: clients.collect(),
            is_over,
        }
    }

    async fn stop(self) -> Vec<Vec<Answers>> {
        self.is_over.store(true, Ordering::Relaxed);
        let clients = join_all(self.clients).await;
        clients.into_iter().map(Result::unwrap).collect()
    }
}

/// How many queries all servers send in each of so many seconds.
async fn queries(rig: &Rig, seconds: usize) -> Vec<u64> {
    let count = || -> u64 { rig.replicas.iter().map(|each| each.network.queries()).sum() };
    let mut counts = Vec::new();
    for _ in 0..seconds {
        let before = count();
        tokio::time::sleep(WHILE).await;
        counts.push(count() - before);
    }
    counts
}

/// How often the projects were read so far. Nothing reads them here but the load of a server.
fn loads(rig: &Rig) -> u64 {
    let reads = "SELECT seq_scan + coalesce(idx_scan, 0)
                 FROM pg_stat_user_tables WHERE relname = 'projects'";
    rig.database.ask(reads).trim().parse().unwrap()
}

/// `CLAVIGER_TEST_LEASE_SECONDS=30` is a long run, with outages of 10 and of 60 seconds. Seen red with a feed that loads everything after
/// a poll that failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_may_be_away_for_as_long_as_a_lease_and_is_not_overrun_when_it_is_back() {
    let lease = from_env("CLAVIGER_TEST_LEASE_SECONDS", 3);
    let lease = Duration::from_secs(lease as u64);
    let database = Arc::new(Database::new_in(Arc::new(Cluster::start())));
    let rig = Rig::start(database, 3, lease).await;
    let mut apis: Vec<_> = rig.replicas.iter().map(|replica| replica.api().1).collect();
    let keys = Arc::new(Keys::make(&mut apis[0]).await);
    for (traffic, lasts) in [(Traffic::Held, lease / 3), (Traffic::Cut, lease * 2)] {
        outage(&rig, &keys, traffic, lasts).await;
    }
}

async fn outage(rig: &Arc<Rig>, keys: &Arc<Keys>, traffic: Traffic, lasts: Duration) {
    let mut apis: Vec<_> = rig.replicas.iter().map(|replica| replica.api().1).collect();
    for api in &mut apis {
        eventually("there is a lease", async || {
            (keys.ask(api).await.kind == Kind::WithLease).then_some(())
        })
        .await;
    }
    let steady = queries(rig, 3).await;
    let loaded = loads(rig);
    let asking = Asking::start(rig, keys);
    let away = Instant::now();
    rig.replicas
        .iter()
        .for_each(|each| each.network.set(traffic));
    tokio::time::sleep(lasts).await;
    let back = Instant::now();
    rig.replicas
        .iter()
        .for_each(|each| each.network.set(Traffic::Flows));
    let after = queries(rig, 5).await;
    let answers = asking.stop().await;

    // A busy machine may delay the last heartbeat before the outage.
    let right_until = away + rig.shortest_lease().saturating_sub(rig.lease / 3);
    let lapsed_from = away + rig.bound();
    let (mut first_refused, mut recovered) = (None::<Duration>, back);
    for each in answers.iter().flatten() {
        for (answer, (_, with_lease, without)) in each.all.iter().zip(&keys.0) {
            assert!([with_lease, without].contains(&answer), "{each:?}");
        }
        if each.answered < right_until {
            assert_eq!(each.kind, Kind::WithLease, "{each:?}");
        }
        if each.asked > lapsed_from && each.answered < back {
            assert_eq!(each.kind, Kind::WithoutLease, "{each:?}");
        }
        if each.kind == Kind::WithLease {
            continue;
        }
        let after = each.answered.saturating_duration_since(away);
        first_refused = Some(first_refused.unwrap_or(after).min(after));
        if each.answered > back {
            recovered = recovered.max(each.answered);
        }
    }
    let recovered = recovered - back;
    println!(
        "{traffic:?} for {lasts:?} with leases of {:?}: first without a lease after {first_refused:.2?}, again with one {recovered:.2?} after \
         the return; queries per second before {steady:?}, after {after:?}",
        rig.lease
    );
    assert_eq!(first_refused.is_some(), lasts > rig.bound());
    assert!(recovered < MOST_TO_RECOVER, "{recovered:?}");
    for count in after {
        let steady: u64 = steady.iter().sum::<u64>() / steady.len() as u64;
        assert!(
            count <= MOST * steady,
            "{count} queries in a second instead of {steady}"
        );
    }
    assert_eq!(loads(rig), loaded);
}
