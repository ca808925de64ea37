//! Nothing that was acknowledged is lost when the process is killed.
//!
//! Seen red with the acknowledgement before the commit: with `change.commit(..)` in `Authority::finish` moved into a task
//! that the answer does not wait for, the first cycles already lose keys.

use std::collections::HashMap;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use tonic::Code;

use super::fixtures::{Api, Engine, Place, Program, from_env};

const WRITERS: usize = 8;

/// What the clients know of a key: what was acknowledged, and what was asked for without an answer.
#[derive(Clone, Debug, Default)]
struct Journal {
    text: String,
    revoked: Known,
    deleted: Known,
    revision: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Known {
    #[default]
    No,
    /// Asked for, and the answer never came: either is right.
    Open,
    Yes,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill_at_any_moment() {
    let cycles = from_env("CLAVIGER_TEST_KILLS", 200);
    let place = Place::on(Engine::Sqlite);
    let mut journal: HashMap<String, Journal> = HashMap::new();
    let mut program = Program::serve(&place, &["--log", "error,claviger=info"]);
    program.api().make_demo().await;
    for cycle in 0..cycles {
        let api = program.api();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(api.clone(), cycle * WRITERS + writer)))
            .collect();
        // Some cycles die while the first keys are made, others in full swing.
        let moment = Duration::from_micros(1_000 + (cycle as u64 * 79_193) % 250_000);
        tokio::time::sleep(moment).await;
        program.kill();
        let mut touched = Vec::new();
        for writer in writers {
            for (id, entry) in writer.await.unwrap() {
                touched.push(id.clone());
                journal.insert(id, entry);
            }
        }
        program = Program::serve(&place, &["--log", "error,claviger=info"]);
        let mut api = program.api();
        for id in &touched {
            check(&mut api, id, &journal[id]).await;
        }
    }
    // Once more all of them, after every crash.
    let mut api = program.api();
    let (mut revoked, mut deleted) = (0, 0);
    for (id, entry) in &journal {
        check(&mut api, id, entry).await;
        revoked += usize::from(entry.revoked == Known::Yes);
        deleted += usize::from(entry.deleted == Known::Yes);
    }
    program.kill();
    let store = place.open().await.store;
    let (events, first, last) = store.snapshot().await.unwrap().history().await.unwrap();
    assert_eq!(
        (first.as_u64(), last.as_u64()),
        (1, events),
        "revisions have gaps"
    );
    println!(
        "{cycles} kills: {} keys issued, {revoked} revoked and {deleted} deleted with an answer; {events} events; 0 lost",
        journal.len()
    );
    assert!(
        journal.len() > cycles && revoked > cycles / 4 && deleted > cycles / 4,
        "too little was written"
    );
}

/// Issues, revokes and deletes until the server is gone; answers with what it knows.
async fn write(mut api: Api, seed: usize) -> Vec<(String, Journal)> {
    let mut known = Vec::new();
    for step in seed.. {
        let Ok(issued) = api.keys.issue_key(super::fixtures::issue_request()).await else {
            break;
        };
        let issued = issued.into_inner();
        let id = issued.key.unwrap().id;
        let mut entry = Journal {
            text: issued.plain_key,
            revision: issued.revision,
            ..Default::default()
        };
        let answered = match step % 3 {
            0 => true,
            1 => {
                entry.revoked = Known::Open;
                let answer = api.revoke(&id).await;
                if let Ok(revoked) = &answer {
                    entry.revoked = Known::Yes;
                    entry.revision = revoked.revision;
                }
                answer.is_ok()
            }
            _ => {
                entry.deleted = Known::Open;
                let answer = api.delete(&id).await;
                if let Ok(deleted) = &answer {
                    entry.deleted = Known::Yes;
                    entry.revision = deleted.revision;
                }
                answer.is_ok()
            }
        };
        known.push((id, entry));
        if !answered {
            break;
        }
    }
    known
}

/// Holds the server to what it acknowledged.
async fn check(api: &mut Api, id: &str, entry: &Journal) {
    let answer = api.ask(&entry.text).await;
    assert!(
        answer.revision >= entry.revision,
        "the history became shorter: {entry:?}"
    );
    let allowed: &[Verdict] = match (entry.revoked, entry.deleted) {
        (_, Known::Yes) => &[Verdict::Unknown],
        (_, Known::Open) => &[Verdict::Unknown, Verdict::Allowed],
        (Known::Yes, _) => &[Verdict::Revoked],
        (Known::Open, _) => &[Verdict::Revoked, Verdict::Allowed],
        (Known::No, Known::No) => &[Verdict::Allowed],
    };
    assert!(
        allowed.contains(&answer.verdict()),
        "{id}: {:?}, {:?} {:?}",
        answer.verdict(),
        entry.revoked,
        entry.deleted
    );
    let found = api
        .keys
        .get_key(pb::GetKeyRequest {
            key_id: id.to_owned(),
        })
        .await;
    match (found, entry.deleted) {
        (Ok(_), Known::No | Known::Open) => {}
        (Err(status), Known::Yes | Known::Open) if status.code() == Code::NotFound => {}
        (other, _) => panic!("{id}: {other:?}"),
    }
}
