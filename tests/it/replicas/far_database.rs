//! Servers that are far from their database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;

use super::rig::Rig;
use crate::fixtures::{Api, Cluster, Database, eventually, from_env, import, import_entry};

/// What the way to the database takes, and the way back.
const ONE_WAY: Duration = Duration::from_micros(1_500);

const LEASE: Duration = Duration::from_secs(4);

/// In a build without optimization on a busy machine, a thousand keys are written for longer than a second.
const FLAGS: [&str; 2] = ["--database-timeout", "10s"];

/// The most keys of one import.
const AT_ONCE: usize = 1_000;

/// How many keys each server can revoke during the import of a thousand.
const ISSUED: usize = 20;

/// How many keys each server revokes at least.
const FEWEST: usize = 5;

/// Between two revocations.
const PAUSE: Duration = Duration::from_millis(10);

/// `CLAVIGER_TEST_FAR_IMPORT=10000` is a long run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_revoked_at_every_server_during_an_import() {
    let imported = from_env("CLAVIGER_TEST_FAR_IMPORT", AT_ONCE);
    let database = Arc::new(Database::new_in(Arc::new(Cluster::start())));
    let rig = Rig::start_with(database, 3, LEASE, &FLAGS).await;
    let mut apis: Vec<Api> = rig.replicas.iter().map(|replica| replica.api().1).collect();
    let mut issued = Vec::new();
    for _ in 0..apis.len() * ISSUED * imported.div_ceil(AT_ONCE) {
        issued.push(apis[0].issue().await);
    }
    for replica in &rig.replicas {
        replica.network.set_delay(ONE_WAY);
    }
    let mut first = apis[0].clone();
    let importing = tokio::spawn(async move {
        let began = Instant::now();
        for from in (0..imported).step_by(AT_ONCE) {
            let entries = (from..imported.min(from + AT_ONCE)).map(entry).collect();
            let outcomes = import(&mut first, entries).await;
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        }
        began.elapsed()
    });
    let mut times = vec![Vec::new(); apis.len()];
    let mut revoked = Vec::new();
    for (number, key) in issued.into_iter().enumerate() {
        if importing.is_finished() && number >= apis.len() * FEWEST {
            break;
        }
        let server = number % apis.len();
        let began = Instant::now();
        let answer = apis[server].revoke(&key.key.unwrap().id).await;
        answer.expect("the key is revoked");
        times[server].push(began.elapsed());
        revoked.push(key.plain_key);
        tokio::time::sleep(PAUSE).await;
    }
    let took = importing.await.unwrap();
    for (server, times) in times.iter_mut().enumerate() {
        times.sort();
        println!(
            "{imported} keys imported in {took:.1?}; server {server} revoked {} keys meanwhile: p50 {:.2?}, p99 {:.2?}, at most {:.2?}",
            times.len(),
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            times[times.len() - 1]
        );
    }
    for mut api in apis {
        eventually("every key is revoked", async || {
            for key in &revoked {
                if api.verdict(key).await != Verdict::Revoked {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }
}

fn entry(number: usize) -> pb::ImportEntry {
    import_entry(&format!("far.s3fzXw8Rk2VbN5yLm9Qp4TdH{number:08}"))
}
