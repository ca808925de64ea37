//! One round: a key is issued, asked about everywhere, revoked, and denied everywhere.

use std::pin::pin;
use std::time::{Duration, Instant};

use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior, sleep, timeout_at};
use tonic::Code;

use super::judgement::{Acknowledgement, Answer, Record, Violation};
use super::open_keys::OpenKeys;
use crate::cli::client::Client;
use crate::cli::connect::Server;
use crate::cli::failure::Failure;
use crate::cli::request_id;
use crate::cli::text;
use crate::pb::claviger::v1::verify_request::Target;
use crate::pb::claviger::v1::{
    IssueKeyRequest, IssueKeyResponse, RevokeKeyRequest, RevokeKeyResponse, Verdict, VerifyRequest,
    Wait,
};

/// The pause between two questions to one endpoint.
const ASK_INTERVAL: Duration = Duration::from_millis(5);
/// The same after a question without a verdict.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// How long every endpoint is still asked after the last one has denied the key, to see that the denials last.
const ASK_AFTERWARDS: Duration = Duration::from_millis(500);
/// How many answers may wait to be judged.
const QUEUED_ANSWERS: usize = 64;

/// What all rounds have in common.
pub(super) struct Plan {
    /// The servers that are asked.
    pub(super) endpoints: Vec<Server>,
    /// The request for a key, without its expiry and id.
    pub(super) issue: IssueKeyRequest,
    /// How long after its acknowledgement a server may not know of a revocation.
    pub(super) bound: Duration,
    /// How long after the acknowledgement of the revocation the endpoints are asked at most.
    pub(super) limit: Duration,
}

/// An answer that broke a promise.
pub(super) struct BrokenPromise<'a> {
    pub(super) violation: Violation,
    pub(super) endpoint: &'a str,
    pub(super) key_id: &'a str,
    pub(super) answer: Answer,
    pub(super) acknowledgement: Option<Acknowledgement>,
    pub(super) denied: Option<Duration>,
}

/// What a round has found. It may have failed at any point.
#[derive(Default)]
pub(super) struct RoundResult {
    /// The id of the key; empty if none was issued.
    pub(super) key_id: String,
    pub(super) revocation: Option<Revocation>,
    /// The judged answers of each endpoint.
    pub(super) records: Vec<Record>,
    /// Why the round is not complete.
    pub(super) failure: Option<Failure>,
}

/// A revocation that was answered.
pub(super) struct Revocation {
    pub(super) acknowledgement: Acknowledgement,
    /// How long the call took.
    pub(super) took: Duration,
    pub(super) effective_everywhere_time: Option<Timestamp>,
}

/// Performs a round, with the changes made by `changer`. `report` gets each broken promise at once.
pub(super) async fn run(
    plan: &Plan,
    changer: &Server,
    wait: Wait,
    issue: IssueKeyRequest,
    keys: &mut OpenKeys,
    report: &mut dyn FnMut(BrokenPromise<'_>),
) -> RoundResult {
    let client = changer.client();
    let start = Instant::now();
    let issued = match keys.issue(&client, issue).await {
        Ok(issued) => issued,
        Err(failure) => {
            return RoundResult {
                failure: Some(failure),
                ..RoundResult::default()
            };
        }
    };
    let mut round = Round::start(plan, start, &issued, report);
    let failure = round.perform(changer, &client, wait, keys).await.err();
    RoundResult {
        failure,
        key_id: round.key_id,
        revocation: round.revocation,
        records: round.records,
    }
}

/// A round with an issued key. The endpoints are asked until it is dropped.
struct Round<'a> {
    plan: &'a Plan,
    start: Instant,
    key_id: String,
    records: Vec<Record>,
    /// The last answer of each endpoint that was neither an acceptance nor a denial for ever.
    problems: Vec<Option<Problem>>,
    revocation: Option<Revocation>,
    report: &'a mut dyn FnMut(BrokenPromise<'_>),
    answers: mpsc::Receiver<(usize, Answer, Option<Problem>)>,
    _askers: JoinSet<()>,
}

/// An answer that does not help.
enum Problem {
    Failed(Box<Failure>),
    Denied(i32),
}

impl<'a> Round<'a> {
    /// Begins to ask all endpoints.
    fn start(
        plan: &'a Plan,
        start: Instant,
        issued: &IssueKeyResponse,
        report: &'a mut dyn FnMut(BrokenPromise<'_>),
    ) -> Self {
        let (sender, answers) = mpsc::channel(QUEUED_ANSWERS);
        let question = VerifyRequest {
            key: issued.plain_key.clone(),
            realm: plan.issue.realm.clone(),
            environment: plan.issue.environment.clone(),
            target: Some(Target::AnyTarget(true)),
            min_revision: issued.revision,
            ..VerifyRequest::default()
        };
        let mut askers = JoinSet::new();
        for (index, server) in plan.endpoints.iter().enumerate() {
            askers.spawn(ask(
                server.clone(),
                question.clone(),
                start,
                index,
                sender.clone(),
            ));
        }
        let count = plan.endpoints.len();
        Self {
            plan,
            start,
            key_id: issued
                .key
                .as_ref()
                .map(|key| key.id.clone())
                .unwrap_or_default(),
            records: (0..count).map(|_| Record::default()).collect(),
            problems: (0..count).map(|_| None).collect(),
            revocation: None,
            report,
            answers,
            _askers: askers,
        }
    }

    async fn perform(
        &mut self,
        changer: &Server,
        client: &Client,
        wait: Wait,
        keys: &mut OpenKeys,
    ) -> Result<(), Failure> {
        self.wait_until_all(
            "allow the new key",
            |record| record.has_allowed,
            changer.timeout(),
            Self::fail_if_hopeless,
        )
        .await?;

        let sent = self.start.elapsed();
        let client = match wait {
            // The server waits for the slowest server, and for one that does not answer until its lease is over.
            Wait::Everywhere => {
                let longest = changer.timeout().saturating_add(self.plan.bound);
                &changer.clone().with_timeout(longest).client()
            }
            _ => client,
        };
        let revoked = self
            .judge_during(revoke(client, &self.key_id.clone(), wait))
            .await?;
        let at = self.start.elapsed();
        keys.set_revoked(&self.key_id);
        self.revocation = Some(Revocation {
            acknowledgement: Acknowledgement {
                at,
                confirmed: revoked.confirmed,
            },
            took: at.saturating_sub(sent),
            effective_everywhere_time: revoked.effective_everywhere_time,
        });
        self.wait_until_all(
            "deny the revoked key",
            |record| record.denied.is_some(),
            self.plan.limit,
            |_, _| Ok(()),
        )
        .await?;
        self.judge_during(sleep(ASK_AFTERWARDS)).await;
        Ok(())
    }

    /// Judges answers until every endpoint has done something. Fails after the longest time, or as soon as `check` fails for the
    /// endpoint of an answer.
    async fn wait_until_all(
        &mut self,
        what: &str,
        have_done: fn(&Record) -> bool,
        longest: Duration,
        check: fn(&mut Self, usize) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let deadline = time::Instant::now() + longest;
        while let Some(waiting) = self.records.iter().position(|record| !have_done(record)) {
            let received = timeout_at(deadline, self.answers.recv()).await;
            let Some((index, answer, problem)) = received.ok().flatten() else {
                let what = format!("did not {what} within {}", text::span(longest));
                return Err(self.incomplete(waiting, &what));
            };
            self.judge(index, answer, problem);
            check(self, index)?;
        }
        Ok(())
    }

    /// Fails if an endpoint can never allow the key.
    fn fail_if_hopeless(&mut self, index: usize) -> Result<(), Failure> {
        if self.records[index].denied.is_some() {
            return Err(self.incomplete(
                index,
                "denies the new key as revoked: somebody else revoked it",
            ));
        }
        match self.problems[index].take() {
            Some(Problem::Failed(failure)) if failure.is_final() => Err(*failure),
            problem => {
                self.problems[index] = problem;
                Ok(())
            }
        }
    }

    /// Judges the answers that come in the meantime.
    async fn judge_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some((index, answer, problem)) = self.answers.recv() => self.judge(index, answer, problem),
            }
        }
    }

    fn judge(&mut self, index: usize, answer: Answer, problem: Option<Problem>) {
        let acknowledgement = self
            .revocation
            .as_ref()
            .map(|revocation| revocation.acknowledgement);
        let record = &mut self.records[index];
        let denied = record.denied;
        if let Some(violation) = record.add(&answer, acknowledgement, self.plan.bound) {
            (self.report)(BrokenPromise {
                violation,
                endpoint: self.plan.endpoints[index].name(),
                key_id: &self.key_id,
                answer,
                acknowledgement,
                denied,
            });
        }
        self.problems[index] = problem;
    }

    /// The failure of a round in which an endpoint did not do something in time.
    fn incomplete(&self, index: usize, what: &str) -> Failure {
        let why = match &self.problems[index] {
            None => String::new(),
            Some(Problem::Failed(failure)) => format!(": {}", failure.message()),
            Some(Problem::Denied(verdict)) => match Verdict::try_from(*verdict) {
                Ok(verdict) => format!(": it answers {}", verdict.as_str_name()),
                Err(_) => format!(": it answers verdict {verdict}"),
            },
        };
        let endpoint = self.plan.endpoints[index].name();
        Failure::new(Code::Unavailable, format!("{endpoint} {what}{why}"))
    }
}

async fn revoke(client: &Client, key_id: &str, wait: Wait) -> Result<RevokeKeyResponse, Failure> {
    let request = RevokeKeyRequest {
        key_id: key_id.to_owned(),
        reason: "canary".to_owned(),
        wait: wait as i32,
        request_id: request_id::fresh(),
        ..RevokeKeyRequest::default()
    };
    client.change(client.keys().revoke_key(request)).await
}

/// Asks one endpoint the same question again and again, on a connection of its own.
async fn ask(
    server: Server,
    question: VerifyRequest,
    start: Instant,
    index: usize,
    answers: mpsc::Sender<(usize, Answer, Option<Problem>)>,
) {
    let mut client = server.client();
    let mut ticks = time::interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = start.elapsed();
        let said = client.ask(client.verify().verify(question.clone())).await;
        let answered = start.elapsed();
        let (verdict, problem) = match said {
            Ok(said) if matches!(said.verdict(), Verdict::Allowed | Verdict::Revoked) => {
                (Some(said.verdict), None)
            }
            Ok(said) => (Some(said.verdict), Some(Problem::Denied(said.verdict))),
            Err(failure) => {
                if failure.is_timeout() {
                    // A connection on which nothing arrives any more would be used until the system gives it up.
                    client = server.client();
                }
                ticks.reset_after(RETRY_INTERVAL);
                (None, Some(Problem::Failed(Box::new(failure))))
            }
        };
        let answer = Answer {
            asked,
            answered,
            verdict,
        };
        if answers.send((index, answer, problem)).await.is_err() {
            return;
        }
    }
}
