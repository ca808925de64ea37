//! Nothing that was acknowledged is lost when the process is killed.
//!
//! Seen red with the acknowledgement before the commit: with `change.commit(..)` in `Authority::finish` moved into a task
//! that the answer does not wait for, the first cycles already lose keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use claviger::domain::clock::Clock;
use claviger::domain::ids::RealmId;
use claviger::mirror::Feed;
use claviger::pb::claviger::v1 as pb;
use claviger::store::Store;
use pb::Verdict;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::fixtures::{
    Api, Cluster, Engine, Program, Service, TestStore, eventually, from_env, issue_request,
    on_both_engines,
};

const WRITERS: usize = 8;

/// What the clients know.
#[derive(Debug, Default)]
struct Journal {
    keys: HashMap<String, Known>,
    /// Keys that were asked for, and it is open whether they were made.
    issued_perhaps: usize,
}

/// What the clients know of a key: what was acknowledged, and what was asked for without an answer.
#[derive(Clone, Debug, Default)]
struct Known {
    plain_key: String,
    revoked: Done,
    deleted: Done,
    revision: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Done {
    #[default]
    No,
    /// Asked for, and the answer never came: either is right.
    Perhaps,
    Yes,
}

impl Done {
    fn after<T>(answer: &Result<T, Status>) -> Self {
        match answer {
            Ok(_) => Self::Yes,
            Err(status) if was_not_made(status) => Self::No,
            Err(_) => Self::Perhaps,
        }
    }
}

/// Whether the server itself says that nothing was changed.
fn was_not_made(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason);
    status.code() == Code::Unavailable && reason.as_deref() == Some("STORE_UNAVAILABLE")
}

on_both_engines! {
    async fn nothing_acknowledged_is_lost_by_a_kill_at_any_moment(engine: Engine) {
        let cycles = match engine {
            Engine::Sqlite => from_env("CLAVIGER_TEST_KILLS", 80),
            Engine::Postgres => from_env("CLAVIGER_TEST_KILLS_ON_POSTGRES", 40),
        };
        let test_store = TestStore::on(engine);
        let flags = ["--log", "error,claviger=info"];
        let mut journal = Journal::default();
        let mut program = Program::serve(&test_store, &flags);
        program.api().make_demo().await;
        for cycle in 0..cycles {
            let writers = Writers::start(&program.api(), cycle);
            writers.moment(cycle).await;
            program.kill();
            let touched = writers.finish(&mut journal).await;
            program = Program::serve(&test_store, &flags);
            check_each(&mut program.api(), &touched, &journal).await;
        }
        let all: Vec<_> = journal.keys.keys().cloned().collect();
        check_each(&mut program.api(), &all, &journal).await;
        program.kill();
        let opened = test_store.open().await;
        check_history(&opened.store, &journal, cycles, "kills of the server").await;
    }
}

/// The server goes on, and must find its way back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_database_crashes_at_any_moment() {
    let cycles = from_env("CLAVIGER_TEST_DATABASE_CRASHES", 40);
    let cluster = Arc::new(Cluster::start());
    let test_store = TestStore::in_cluster(&cluster);
    let service = Service::start_with(test_store, Clock::system(), "", &[]).await;
    let mut api = service.api();
    api.make_demo().await;
    let first = api.issue().await.plain_key;
    let mut journal = Journal::default();
    for cycle in 0..cycles {
        let writers = Writers::start(&api, cycle);
        writers.moment(cycle).await;
        cluster.crash();
        assert_eq!(
            api.verdict(&first).await,
            Verdict::Allowed,
            "it verifies from memory"
        );
        cluster.start_server();
        // A change that was committed, and not yet read back, is answered now.
        let touched = writers.finish(&mut journal).await;
        let issued = eventually("keys are issued again", async || {
            let issued = service.api().keys.issue_key(issue_request()).await;
            match issued {
                Ok(issued) => Some(issued.into_inner()),
                Err(status) => {
                    journal.issued_perhaps += usize::from(!was_not_made(&status));
                    None
                }
            }
        })
        .await;
        let known = Known {
            plain_key: issued.plain_key,
            revision: issued.revision,
            ..Default::default()
        };
        journal.keys.insert(issued.key.unwrap().id, known);
        check_each(&mut api, &touched, &journal).await;
    }
    let all: Vec<_> = journal.keys.keys().cloned().collect();
    check_each(&mut api, &all, &journal).await;
    // The one from before the first crash.
    journal.issued_perhaps += 1;
    check_history(&service.store, &journal, cycles, "crashes of the database").await;
    let mut fresh = Feed::new(
        service.store.clone(),
        Clock::system(),
        Duration::from_secs(1),
    );
    fresh.load().await.unwrap();
    assert_eq!(
        service.mirror.index().describe(),
        fresh.mirror().index().describe(),
        "the mirror is what the store says"
    );
    service.stop().await;
}

/// Clients that change things until they are hindered, or told to stop.
struct Writers {
    writing: Vec<JoinHandle<Journal>>,
    stop: Arc<AtomicBool>,
    /// How many changes were answered.
    answered: Arc<AtomicUsize>,
}

impl Writers {
    fn start(api: &Api, cycle: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let write = |writer| {
            let seed = cycle * WRITERS + writer;
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(write(api.clone(), seed, stop, answered))
        };
        Self {
            writing: (0..WRITERS).map(write).collect(),
            stop,
            answered,
        }
    }

    /// Waits for the moment at which this cycle is to end: some while the first keys are made, others in full swing. It is
    /// told by the answers, since a machine may be slow, and by a little time on top, so that it falls anywhere between two.
    async fn moment(&self, cycle: usize) {
        let answers = [0, 3, 11, 29][cycle % 4];
        eventually("enough changes are answered", async || {
            (self.answered.load(Ordering::Relaxed) >= answers).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_micros((cycle as u64 * 79_193) % 20_000)).await;
    }

    /// Waits until all have stopped, and notes what they know; answers with the keys that they touched.
    async fn finish(self, journal: &mut Journal) -> Vec<String> {
        // A server that is away for a moment only may hinder nobody.
        self.stop.store(true, Ordering::Relaxed);
        let mut touched = Vec::new();
        for writer in self.writing {
            let Journal {
                keys,
                issued_perhaps,
            } = writer.await.unwrap();
            touched.extend(keys.keys().cloned());
            journal.keys.extend(keys);
            journal.issued_perhaps += issued_perhaps;
        }
        touched
    }
}

/// Issues, revokes and deletes until it is not answered or told to stop; answers with what it knows.
async fn write(
    mut api: Api,
    seed: usize,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
) -> Journal {
    let mut journal = Journal::default();
    for step in seed.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let issued = match api.keys.issue_key(issue_request()).await {
            Ok(issued) => issued.into_inner(),
            Err(status) => {
                journal.issued_perhaps = usize::from(!was_not_made(&status));
                break;
            }
        };
        answers.fetch_add(1, Ordering::Relaxed);
        let id = issued.key.unwrap().id;
        let mut known = Known {
            plain_key: issued.plain_key,
            revision: issued.revision,
            ..Default::default()
        };
        let answered = match step % 3 {
            0 => true,
            1 => {
                let answer = api.revoke(&id).await;
                known.revoked = Done::after(&answer);
                known.revision = answer.map_or(known.revision, |revoked| revoked.revision);
                known.revoked == Done::Yes
            }
            _ => {
                let answer = api.delete(&id).await;
                known.deleted = Done::after(&answer);
                known.revision = answer.map_or(known.revision, |deleted| deleted.revision);
                known.deleted == Done::Yes
            }
        };
        journal.keys.insert(id, known);
        if !answered {
            break;
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
    journal
}

/// The revisions have no gaps, and there is not a key too many.
async fn check_history(store: &Store, journal: &Journal, cycles: usize, of_what: &str) {
    let mut snapshot = store.snapshot().await.unwrap();
    let (events, first, last) = snapshot.history().await.unwrap();
    assert_eq!(
        (first.as_u64(), last.as_u64()),
        (1, events),
        "revisions have gaps"
    );
    let demo = RealmId::parse("demo").unwrap();
    let stored = snapshot.count_keys(&demo, None, None).await.unwrap() as usize;
    let count =
        |what: fn(&Known) -> bool| journal.keys.values().filter(|known| what(known)).count();
    let revoked = count(|known| known.revoked == Done::Yes);
    let deleted = count(|known| known.deleted == Done::Yes);
    let kept = journal.keys.len() - deleted;
    let perhaps_deleted = count(|known| known.deleted == Done::Perhaps);
    assert!(
        (kept - perhaps_deleted..=kept + journal.issued_perhaps).contains(&stored),
        "{stored} keys, where {kept} were made and kept, {perhaps_deleted} of them perhaps deleted, and {} perhaps made",
        journal.issued_perhaps
    );
    println!(
        "{cycles} {of_what}: {} keys issued, {revoked} revoked and {deleted} deleted with an answer, {} perhaps issued; \
         {events} events; 0 lost, 0 doubled",
        journal.keys.len(),
        journal.issued_perhaps
    );
    assert!(
        journal.keys.len() > cycles && revoked > cycles / 4 && deleted > cycles / 4,
        "too little was written"
    );
}

async fn check_each(api: &mut Api, ids: &[String], journal: &Journal) {
    for id in ids {
        check(api, id, &journal.keys[id]).await;
    }
}

/// Holds the server to what it acknowledged.
async fn check(api: &mut Api, id: &str, known: &Known) {
    let answer = api.ask(&known.plain_key).await;
    assert!(
        answer.revision >= known.revision,
        "the history became shorter: {known:?}"
    );
    let allowed: &[Verdict] = match (known.revoked, known.deleted) {
        (_, Done::Yes) => &[Verdict::Unknown],
        (_, Done::Perhaps) => &[Verdict::Unknown, Verdict::Allowed],
        (Done::Yes, _) => &[Verdict::Revoked],
        (Done::Perhaps, _) => &[Verdict::Revoked, Verdict::Allowed],
        (Done::No, Done::No) => &[Verdict::Allowed],
    };
    assert!(
        allowed.contains(&answer.verdict()),
        "{id}: {:?}, {:?} {:?}",
        answer.verdict(),
        known.revoked,
        known.deleted
    );
    let found = api
        .keys
        .get_key(pb::GetKeyRequest {
            key_id: id.to_owned(),
            ..Default::default()
        })
        .await;
    match (found, known.deleted) {
        (Ok(_), Done::No | Done::Perhaps) => {}
        (Err(status), Done::Yes | Done::Perhaps) if status.code() == Code::NotFound => {}
        (other, _) => panic!("{id}: {other:?}"),
    }
}
