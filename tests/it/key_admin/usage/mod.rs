//! How keys are used: counted exactly, whatever the store does meanwhile, told by hour and verdict, and forgotten when the time
//! to retain it is over.

mod addresses;
mod counting;
mod filters;
mod hours;
mod last_use;
mod outage;
mod owners;
mod retention;

use std::collections::BTreeMap;

use claviger::domain::event::{Actor, Event, EventKind, Subject};
use claviger::domain::ids::{KeyId, RealmId};
use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use claviger::store::Change;
use pb::Verdict;
use tonic::Status;

use crate::fixtures::{Api, eventually, parse_time};

/// The flags of a server that writes its counts all the time.
const WRITE_OFTEN: [&str; 2] = ["--usage-interval", "10ms"];

/// How a key was used between two times, by default in the last day.
async fn usage_within(
    api: &mut Api,
    key_id: &str,
    start_time: Option<prost_types::Timestamp>,
    end_time: Option<prost_types::Timestamp>,
) -> Result<pb::GetKeyUsageResponse, Status> {
    let request = pb::GetKeyUsageRequest {
        key_id: key_id.to_owned(),
        start_time,
        end_time,
        ..Default::default()
    };
    let answer = api.keys.get_key_usage(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn usage(api: &mut Api, key_id: &str) -> pb::GetKeyUsageResponse {
    usage_within(api, key_id, None, None).await.unwrap()
}

fn counts(counts: &[pb::VerdictCount]) -> BTreeMap<Verdict, u64> {
    let counts = counts.iter().map(|count| (count.verdict(), count.count));
    counts.collect()
}

/// How often each verdict was given in the last day.
async fn totals(api: &mut Api, key_id: &str) -> BTreeMap<Verdict, u64> {
    counts(&usage(api, key_id).await.totals)
}

fn total_uses(usage: &pb::GetKeyUsageResponse) -> u64 {
    usage.totals.iter().map(|count| count.count).sum()
}

/// Waits until the written counts say that a key was allowed this often.
async fn await_allowed(api: &mut Api, key_id: &str, allowed: u64) {
    eventually("it is written down", async || {
        let totals = totals(api, key_id).await;
        (totals.get(&Verdict::Allowed) == Some(&allowed)).then_some(())
    })
    .await;
}

/// Waits until at least this many uses of a key are written.
async fn await_uses(api: &mut Api, key_id: &str, uses: u64) -> pb::GetKeyUsageResponse {
    eventually("the uses are written down", async || {
        let usage = usage(api, key_id).await;
        (total_uses(&usage) >= uses).then_some(usage)
    })
    .await
}

/// Whether a use was told that was made at this time, give or take what a clock that stands still is pushed on by changes.
fn is_about(told: Option<&prost_types::Timestamp>, at: Timestamp) -> bool {
    told.is_some_and(|told| parse_time(told) >= at && parse_time(told).since(at).as_millis() < 100)
}

/// Records a change that brings a key's new state round.
pub(super) async fn record(change: Change, key: KeyId) {
    let event = Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind: EventKind::KeyEnabled,
        subject: Subject {
            realm: RealmId::parse("demo").unwrap(),
            partner: None,
            project: None,
            key: Some(key),
        },
        detail: BTreeMap::new(),
    };
    change.commit(&event).await.unwrap();
}
