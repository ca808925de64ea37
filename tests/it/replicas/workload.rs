//! Clients of several servers: they issue keys, ask about them everywhere and revoke them, and record what they were answered.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1 as pb;
use pb::Wait;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Request, Response, Status};
use tonic_types::{RpcStatusExt, StatusExt};

use super::history::{
    Answer, History, Issue, KeyNumber, Outcome, Question, Refused, Revocation, Server, Span,
};
use super::rig::{Replica, Rig};
use crate::fixtures::{Api, Random, issue_request, verify_request};

/// How many keys are good at any time.
const LIVE: usize = 48;
const ISSUERS: usize = 6;
const REVOKERS: usize = 24;
/// How many clients ask each replica.
const CLIENTS: usize = 1;
/// How many keys a client asks about with each second call. With the others it asks about one.
const BATCH: usize = 16;
/// How many calls of one client may be without an answer: a server that is suspended finds them when it is resumed.
const UNANSWERED: usize = 60;
/// After this time without an answer a client asks the next question.
const IMPATIENCE: Duration = Duration::from_millis(25);
/// The longest time that a client waits after a change that was not acknowledged, before it tries another. It doubles with each in
/// a row, as with any well-behaved client: thirty that try again at once keep a server busy that has too little processor time to
/// answer within its own limits.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// How long a client pauses before it asks again.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a client waits for the answer to a change. More than the longest wait of a revocation.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client waits for a verdict. More than any server is suspended.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(15);

/// A key of the workload.
#[derive(Clone)]
pub(super) struct WorkloadKey {
    pub(super) number: KeyNumber,
    pub(super) id: String,
    pub(super) plain_key: String,
    /// The revision of its issue.
    pub(super) revision: u64,
}

/// What the clients share.
pub(super) struct Clients {
    rig: Arc<Rig>,
    began: Instant,
    history: Mutex<History>,
    keys: Mutex<Keys>,
    /// How many issues were asked for without an answer.
    issued_perhaps: AtomicUsize,
    revoked: AtomicUsize,
    /// Whether no more changes are begun.
    changes_are_over: AtomicBool,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Keys {
    all: Vec<WorkloadKey>,
    /// Those that nobody has begun to revoke.
    live: Vec<KeyNumber>,
    /// Those that somebody has, and until when questions about them are of interest.
    watched: Vec<(KeyNumber, Duration)>,
}

impl Keys {
    /// A key to ask about.
    fn any(&mut self, random: &mut Random, now: Duration) -> Option<WorkloadKey> {
        self.watched.retain(|(_, until)| *until > now);
        let (live, watched) = (self.live.len(), self.watched.len());
        // Three of four questions are about keys that are revoked, since those are what the promises are about.
        let number = if watched > 0 && (live == 0 || random.below(4) > 0) {
            self.watched[random.below(watched)].0
        } else if live > 0 {
            self.live[random.below(live)]
        } else {
            return None;
        };
        Some(self.all[number].clone())
    }

    /// Keys to ask about, each without a `min_revision` or with that of its issue.
    fn some(&mut self, random: &mut Random, now: Duration) -> Vec<(WorkloadKey, u64)> {
        let count = random.one_of(&[1, BATCH]);
        let mut keys = Vec::new();
        for _ in 0..count {
            if let Some(key) = self.any(random, now) {
                let min_revision = random.one_of(&[0, key.revision]);
                keys.push((key, min_revision));
            }
        }
        keys
    }

    /// A key to revoke, about which clients ask from now on until they are told when to stop.
    fn take(&mut self, random: &mut Random) -> Option<WorkloadKey> {
        // Not the last ones, so that there is always one that is good.
        if self.live.len() < LIVE / 4 {
            return None;
        }
        let number = self.live.swap_remove(random.below(self.live.len()));
        self.watched.push((number, Duration::MAX));
        Some(self.all[number].clone())
    }

    fn watch_until(&mut self, number: KeyNumber, until: Duration) {
        let mut watched = self.watched.iter_mut();
        let watched = watched.find(|(watched, _)| *watched == number);
        watched.expect("it was taken").1 = until;
    }
}

/// The clients at work.
pub(super) struct Workload {
    pub(super) clients: Arc<Clients>,
    working: Vec<JoinHandle<()>>,
}

impl Workload {
    pub(super) fn start(rig: &Arc<Rig>, seed: u64) -> Self {
        let clients = Clients::of(rig);
        let mut working = Vec::new();
        let mut seeds = Random(seed);
        let mut random = || Random(seeds.below(usize::MAX) as u64);
        for _ in 0..ISSUERS {
            working.push(tokio::spawn(issue(Arc::clone(&clients), random())));
        }
        for _ in 0..REVOKERS {
            working.push(tokio::spawn(revoke(Arc::clone(&clients), random())));
        }
        for replica in &rig.replicas {
            for _ in 0..CLIENTS {
                let asking = ask(Arc::clone(&clients), Arc::clone(replica), random());
                working.push(tokio::spawn(asking));
            }
        }
        Self { clients, working }
    }

    /// Lets the clients begin no more changes; they go on asking. Revocations come before all other changes, so on a server that
    /// cannot keep up with them nobody else gets a turn.
    pub(super) fn stop_changes(&self) {
        let clients = &self.clients;
        clients.changes_are_over.store(true, Ordering::Relaxed);
    }

    /// Waits until the clients have their last answers.
    pub(super) async fn stop(self) -> Arc<Clients> {
        self.stop_changes();
        self.clients.is_over.store(true, Ordering::Relaxed);
        for working in self.working {
            working.await.unwrap();
        }
        self.clients
    }
}

impl Clients {
    /// Clients that do only what they are told.
    pub(super) fn of(rig: &Arc<Rig>) -> Arc<Self> {
        Arc::new(Self {
            rig: Arc::clone(rig),
            began: Instant::now(),
            history: Mutex::default(),
            keys: Mutex::default(),
            issued_perhaps: AtomicUsize::new(0),
            revoked: AtomicUsize::new(0),
            changes_are_over: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }

    /// The time of the history.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// How many revocations were acknowledged so far.
    pub(super) fn revoked(&self) -> usize {
        self.revoked.load(Ordering::Relaxed)
    }

    /// How many issues nobody knows about.
    pub(super) fn issued_perhaps(&self) -> usize {
        self.issued_perhaps.load(Ordering::Relaxed)
    }

    pub(super) fn keys(&self) -> Vec<WorkloadKey> {
        self.locked_keys().all.clone()
    }

    pub(super) fn history(&self) -> History {
        self.recorded().clone()
    }

    fn locked_keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn changes_are_over(&self) -> bool {
        self.changes_are_over.load(Ordering::Relaxed)
    }

    fn any_replica(&self, random: &mut Random) -> &Arc<Replica> {
        &self.rig.replicas[random.below(self.rig.replicas.len())]
    }

    /// Calls, and takes the times.
    async fn timed<T>(
        &self,
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> (Span, Result<T, Status>) {
        let asked = self.now();
        // The server knows the time too, and answers in time; only one that does not answer at all is given up.
        let answer = tokio::time::timeout(timeout + Duration::from_secs(1), call).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
        let span = Span {
            asked,
            answered: self.now(),
        };
        (span, answer.map(Response::into_inner))
    }

    /// Asks a server about a key, and records the answer.
    pub(super) async fn ask(
        &self,
        (server, mut api): (Server, Api),
        key: &WorkloadKey,
        min_revision: u64,
    ) -> Answer {
        let request = verify_request_from(key, min_revision);
        let call = api.verify.verify(with_timeout(request, VERIFY_TIMEOUT));
        let (span, answer) = self.timed(VERIFY_TIMEOUT, call).await;
        let answer = answer.map_or_else(|status| answer_of(&status), |told| verdict_in(&told));
        self.record(server, span, [(key, min_revision, answer)]);
        answer
    }

    /// Asks a server about several keys at once, and records the answers. Returns whether there were any.
    async fn ask_batch(
        &self,
        (server, mut api): (Server, Api),
        keys: &[(WorkloadKey, u64)],
    ) -> bool {
        let requests = keys.iter();
        let requests = requests.map(|(key, min_revision)| verify_request_from(key, *min_revision));
        let request = pb::VerifyBatchRequest {
            requests: requests.collect(),
        };
        let call = api
            .verify
            .verify_batch(with_timeout(request, VERIFY_TIMEOUT));
        let (span, answer) = self.timed(VERIFY_TIMEOUT, call).await;
        let answers = match answer {
            Ok(batch) => batch.results.into_iter().map(answer_in).collect(),
            Err(status) => vec![answer_of(&status); keys.len()],
        };
        assert_eq!(answers.len(), keys.len(), "one result for each request");
        let is_answered = answers.iter().any(|answer| *answer != Answer::Nothing);
        let asked = keys.iter().zip(answers);
        let asked = asked.map(|((key, min_revision), answer)| (key, *min_revision, answer));
        self.record(server, span, asked);
        is_answered
    }

    fn record<'k>(
        &self,
        server: Server,
        span: Span,
        asked: impl IntoIterator<Item = (&'k WorkloadKey, u64, Answer)>,
    ) {
        let questions = asked.into_iter();
        let questions = questions.map(|(key, min_revision, answer)| Question {
            span,
            server,
            key: key.number,
            min_revision,
            answer,
        });
        self.recorded().questions.extend(questions);
    }

    /// Issues a key at a server, and records it.
    pub(super) async fn issue(&self, (server, mut api): (Server, Api)) -> Option<WorkloadKey> {
        let call = api
            .keys
            .issue_key(with_timeout(issue_request(), CHANGE_TIMEOUT));
        let (span, answer) = self.timed(CHANGE_TIMEOUT, call).await;
        let issued = match answer {
            Ok(issued) => issued,
            Err(status) => {
                let perhaps = usize::from(!was_not_made(&status));
                self.issued_perhaps.fetch_add(perhaps, Ordering::Relaxed);
                return None;
            }
        };
        let mut keys = self.locked_keys();
        let key = WorkloadKey {
            number: keys.all.len(),
            id: issued.key.expect("an issued key").id,
            plain_key: issued.plain_key,
            revision: issued.revision,
        };
        keys.all.push(key.clone());
        keys.live.push(key.number);
        self.recorded().issues.push(Issue {
            span,
            server,
            key: key.number,
            revision: key.revision,
        });
        Some(key)
    }

    /// Revokes a key at a server, and records what became of it.
    pub(super) async fn revoke(
        &self,
        (server, mut api): (Server, Api),
        key: &WorkloadKey,
        wait: Wait,
    ) -> Outcome {
        let request = pb::RevokeKeyRequest {
            key_id: key.id.clone(),
            reason: "a test".to_owned(),
            wait: wait.into(),
            ..Default::default()
        };
        let call = api.keys.revoke_key(with_timeout(request, CHANGE_TIMEOUT));
        let (span, answer) = self.timed(CHANGE_TIMEOUT, call).await;
        let outcome = match answer {
            Ok(revoked) => Outcome::Acknowledged {
                revision: revoked.revision,
                confirmed: revoked.confirmed,
            },
            Err(status) if was_not_made(&status) => Outcome::NotMade,
            Err(_) => Outcome::Unknown,
        };
        self.recorded().revocations.push(Revocation {
            span,
            server,
            key: key.number,
            wait,
            outcome,
        });
        if matches!(outcome, Outcome::Acknowledged { .. }) {
            self.revoked.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

/// Keeps enough keys good.
async fn issue(clients: Arc<Clients>, mut random: Random) {
    let mut backoff = IMPATIENCE;
    while !clients.changes_are_over() {
        let enough = clients.locked_keys().live.len() >= LIVE;
        if enough {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let called = clients.any_replica(&mut random).api();
        if clients.issue(called).await.is_some() {
            backoff = IMPATIENCE;
        } else {
            back_off(&mut backoff).await;
        }
    }
}

/// Revokes one key after the other, with either wait.
async fn revoke(clients: Arc<Clients>, mut random: Random) {
    let mut backoff = IMPATIENCE;
    while !clients.changes_are_over() {
        let key = clients.locked_keys().take(&mut random);
        let Some(key) = key else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let called = clients.any_replica(&mut random).api();
        let wait = random.one_of(&[Wait::Committed, Wait::Everywhere]);
        let outcome = clients.revoke(called, &key, wait).await;
        let until = clients.now() + clients.rig.longest_wait();
        clients.locked_keys().watch_until(key.number, until);
        if matches!(outcome, Outcome::Acknowledged { .. }) {
            backoff = IMPATIENCE;
        } else {
            back_off(&mut backoff).await;
        }
    }
}

/// Waits, the next time for twice as long.
async fn back_off(backoff: &mut Duration) {
    tokio::time::sleep(*backoff).await;
    *backoff = LONGEST_BACKOFF.min(*backoff * 2);
}

/// Asks one replica about one key after the other. A question without an answer does not hold up the next for long.
async fn ask(clients: Arc<Clients>, replica: Arc<Replica>, mut random: Random) {
    let permits = Arc::new(Semaphore::new(UNANSWERED));
    let mut unanswered = JoinSet::new();
    while !clients.is_over() {
        let keys = clients.locked_keys().some(&mut random, clients.now());
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        if !keys.is_empty() {
            let asking = Arc::clone(&clients);
            let called = replica.api();
            let question = async move {
                let is_answered = match &keys[..] {
                    [(key, min_revision)] => {
                        asking.ask(called, key, *min_revision).await != Answer::Nothing
                    }
                    keys => asking.ask_batch(called, keys).await,
                };
                drop(permit);
                is_answered
            };
            unanswered.spawn(question);
        }
        // Whichever question is answered, there is room for the next.
        let answered = tokio::time::timeout(IMPATIENCE, unanswered.join_next()).await;
        if matches!(answered, Ok(Some(Ok(false)))) {
            tokio::time::sleep(IMPATIENCE).await;
        }
        while unanswered.try_join_next().is_some() {}
        tokio::time::sleep(PAUSE).await;
    }
    while unanswered.join_next().await.is_some() {}
}

fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Whether the server itself says that nothing was changed.
fn was_not_made(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason);
    let reasons = ["STORE_UNAVAILABLE", "LEASE_LAPSED"];
    status.code() == Code::Unavailable && reason.is_some_and(|reason| reasons.contains(&&*reason))
}

fn verify_request_from(key: &WorkloadKey, min_revision: u64) -> pb::VerifyRequest {
    pb::VerifyRequest {
        min_revision,
        ..verify_request(&key.plain_key)
    }
}

fn verdict_in(told: &pb::VerifyResponse) -> Answer {
    Answer::Verdict {
        verdict: told.verdict(),
        revision: told.revision,
    }
}

/// What a batch says about one of its keys.
fn answer_in(result: pb::VerifyBatchResult) -> Answer {
    match result.result.expect("each request has a result") {
        pb::verify_batch_result::Result::Response(told) => verdict_in(&told),
        pb::verify_batch_result::Result::Error(error) => {
            let reason = error.get_details_error_info().map(|info| info.reason);
            refused(Code::from(error.code), reason)
        }
    }
}

/// An error as the answer to a question.
fn answer_of(status: &Status) -> Answer {
    let reason = status.get_details_error_info().map(|info| info.reason);
    refused(status.code(), reason)
}

fn refused(code: Code, reason: Option<String>) -> Answer {
    let Some(reason) = reason else {
        // Not from the server, but from the client's own connection.
        return Answer::Nothing;
    };
    Answer::Refused(match (code, &*reason) {
        (Code::Unavailable, "LEASE_LAPSED") => Refused::LeaseLapsed,
        (Code::Unavailable, "BEHIND_MIN_REVISION") => Refused::BehindMinRevision,
        (Code::FailedPrecondition, "REVISION_LOST") => Refused::RevisionLost,
        (Code::Unavailable, _) => Refused::Unavailable,
        (Code::DeadlineExceeded, _) => return Answer::Nothing,
        _ => Refused::Otherwise,
    })
}
