//! What clients asked of several servers and what they were answered, and whether the answers keep the promises.
//!
//! A client knows only its own times: it asked after it took the first, and was answered before it took the second. So a question
//! counts as asked *after* an acknowledgement only if it surely was. At the same time is after it, since each time was taken on the
//! far side of what happened.
//!
//! What the promises mean, the model of the protocol and these tests have in common: [`claviger_model::promises`].

mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use claviger_model::promises::{self, Time, Verdict};
use pb::Wait;

/// When something was asked, and when the answer was there. Since the beginning of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) asked: Duration,
    pub(super) answered: Duration,
}

/// One run of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Server {
    pub(super) replica: usize,
    /// How often the replica had been started again.
    pub(super) restarts: usize,
}

/// The number of a key in a history.
pub(super) type KeyNumber = usize;

/// An acknowledged issue.
#[derive(Clone, Debug)]
pub(super) struct Issue {
    pub(super) span: Span,
    pub(super) server: Server,
    pub(super) key: KeyNumber,
    pub(super) revision: u64,
}

/// A Verify.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) span: Span,
    pub(super) server: Server,
    pub(super) key: KeyNumber,
    pub(super) min_revision: u64,
    pub(super) answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    Verdict {
        verdict: pb::Verdict,
        revision: u64,
    },
    /// An error with this reason.
    Refused(Refused),
    /// No answer, or none from the server itself.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refused {
    LeaseLapsed,
    BehindMinRevision,
    RevisionLost,
    /// `UNAVAILABLE` with another reason, such as a server that is loading.
    Unavailable,
    /// What a Verify of the workload should never be answered.
    Otherwise,
}

/// A request to revoke a key.
#[derive(Clone, Debug)]
pub(super) struct Revocation {
    pub(super) span: Span,
    pub(super) server: Server,
    pub(super) key: KeyNumber,
    pub(super) wait: Wait,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged {
        revision: u64,
        confirmed: bool,
    },
    /// The server says that nothing was changed.
    NotMade,
    /// Nobody knows.
    Unknown,
}

impl Outcome {
    /// What is known of a key that was to be revoked twice.
    pub(super) fn or(self, other: Self) -> Self {
        let rank = |outcome| match outcome {
            Self::Acknowledged { .. } => 2,
            Self::Unknown => 1,
            Self::NotMade => 0,
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }

    pub(super) fn is_unconfirmed(self) -> bool {
        matches!(
            self,
            Self::Acknowledged {
                confirmed: false,
                ..
            }
        )
    }
}

/// Everything that was asked and answered.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) issues: Vec<Issue>,
    pub(super) questions: Vec<Question>,
    pub(super) revocations: Vec<Revocation>,
}

/// What the servers promise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promises {
    /// How long after its acknowledgement a revocation is in force everywhere, whatever happened.
    pub(super) bound: Duration,
    /// Whether a failover may have lost commits.
    pub(super) may_lose_commits: bool,
}

impl Promises {
    /// All runs of a replica as one, unless commits may be lost: a server that starts afterwards does not know them.
    fn known_by(self, server: Server) -> Server {
        if self.may_lose_commits {
            return server;
        }
        Server {
            restarts: 0,
            ..server
        }
    }
}

/// An answer that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) promise: Promise,
    /// What was asked and answered.
    pub(super) evidence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Promise {
    /// A key that was revoked with `WAIT_EVERYWHERE` and `confirmed` is accepted by nobody who is asked afterwards.
    ConfirmedIsEverywhere,
    /// A key that was revoked is accepted by nobody who is asked later than the bound.
    Bound,
    /// A key that was issued is known to the server that acknowledged it, and one that was revoked is not accepted there.
    InForceWhereAcknowledged,
    /// A server that has said that a key is revoked does not accept it again.
    RevokedStaysRevoked,
    /// An answer to a question with `min_revision` takes everything up to this revision into account.
    MinRevision,
    /// A `min_revision` is lost only if commits may be.
    RevisionsAreKept,
    /// Each change has a revision of its own.
    RevisionsAreUnique,
    /// A question of the workload is answered with a verdict that its key can have, or with an error that says to try again.
    Sensible,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.evidence)
    }
}

impl Question {
    /// The question and its answer as the promises speak of them. Which process answered, the caller compares.
    fn told(&self) -> promises::Answer {
        promises::Answer {
            process: 0,
            asked_at: nanos(self.span.asked),
            answered_at: nanos(self.span.answered),
            verdict: match self.answer {
                Answer::Verdict { verdict, .. } => match verdict {
                    pb::Verdict::Allowed => Verdict::Allowed,
                    pb::Verdict::Expired => Verdict::Expired,
                    _ => Verdict::Denied,
                },
                Answer::Refused(_) | Answer::Nothing => Verdict::Unavailable,
            },
        }
    }

    fn is_answered(&self, verdict: pb::Verdict) -> bool {
        matches!(self.answer, Answer::Verdict { verdict: said, .. } if said == verdict)
    }

    fn is_accepted(&self) -> bool {
        self.is_answered(pb::Verdict::Allowed)
    }
}

impl Revocation {
    /// An acknowledged revocation as the promises speak of it.
    fn made(&self) -> promises::Revocation {
        let acknowledged = nanos(self.span.answered);
        let is_everywhere = matches!(
            (self.wait, self.outcome),
            (
                Wait::Everywhere,
                Outcome::Acknowledged {
                    confirmed: true,
                    ..
                }
            )
        );
        promises::Revocation {
            acknowledged_at: Some(acknowledged),
            everywhere_at: is_everywhere.then_some(acknowledged),
        }
    }
}

fn nanos(time: Duration) -> Time {
    time.as_nanos() as Time
}

/// What concerns one key.
#[derive(Default)]
struct OfKey<'h> {
    issue: Option<&'h Issue>,
    questions: Vec<&'h Question>,
    revocation: Option<&'h Revocation>,
}

impl History {
    /// Every answer that breaks a promise.
    pub(super) fn violations(&self, promises: Promises) -> Vec<Violation> {
        let mut found = Vec::new();
        for of_key in self.by_key().values() {
            of_key.after_revocation(promises, &mut found);
            of_key.stays_revoked(promises, &mut found);
            of_key.min_revision(promises, &mut found);
        }
        self.unique_revisions(&mut found);
        found
    }

    /// What is known of each key. A revocation that was acknowledged is what counts.
    fn by_key(&self) -> BTreeMap<KeyNumber, OfKey<'_>> {
        let mut keys: BTreeMap<KeyNumber, OfKey<'_>> = BTreeMap::new();
        for issue in &self.issues {
            keys.entry(issue.key).or_default().issue = Some(issue);
        }
        for question in &self.questions {
            keys.entry(question.key)
                .or_default()
                .questions
                .push(question);
        }
        for revocation in &self.revocations {
            if matches!(revocation.outcome, Outcome::Acknowledged { .. }) {
                keys.entry(revocation.key).or_default().revocation = Some(revocation);
            }
        }
        keys
    }

    fn unique_revisions(&self, found: &mut Vec<Violation>) {
        let mut changes: BTreeMap<u64, String> = BTreeMap::new();
        let issues = self.issues.iter();
        let issues = issues.map(|issue| (issue.revision, format!("{issue:?}")));
        let mut asked: BTreeMap<KeyNumber, usize> = BTreeMap::new();
        for revocation in &self.revocations {
            *asked.entry(revocation.key).or_default() += 1;
        }
        // One that is repeated may find nothing to change, and is answered with the revision that it read.
        let once = self.revocations.iter().filter(|made| asked[&made.key] == 1);
        let revocations = once.filter_map(|revocation| {
            let Outcome::Acknowledged { revision, .. } = revocation.outcome else {
                return None;
            };
            Some((revision, format!("{revocation:?}")))
        });
        for (revision, change) in issues.chain(revocations) {
            if let Some(other) = changes.get(&revision) {
                let evidence = format!("{other}, and {change}");
                found.push(Promise::RevisionsAreUnique.broken(evidence));
            }
            changes.insert(revision, change);
        }
    }

    /// How long after the acknowledgement of each revocation with this wait the key was still accepted anywhere: the time of the
    /// last question that was. Nothing if none was.
    pub(super) fn last_acceptances(&self, wait: Wait) -> Distribution {
        let keys = self.by_key();
        let times = keys.values().filter_map(|of_key| {
            let revocation = of_key.revocation.filter(|made| made.wait == wait)?;
            let accepted = of_key.questions.iter().filter(|asked| asked.is_accepted());
            let last = accepted.map(|question| question.span.asked).max();
            Some(
                last.unwrap_or_default()
                    .saturating_sub(revocation.span.answered),
            )
        });
        times.collect()
    }

    /// How long acknowledged revocations with this wait took.
    pub(super) fn times_to_acknowledge(&self, wait: Wait) -> Distribution {
        let made = self.revocations.iter().filter(|made| {
            made.wait == wait && matches!(made.outcome, Outcome::Acknowledged { .. })
        });
        made.map(|made| made.span.answered.saturating_sub(made.span.asked))
            .collect()
    }

    /// How often each answer came.
    pub(super) fn count_answers(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for question in &self.questions {
            let answer = match question.answer {
                Answer::Verdict { verdict, .. } => verdict.as_str_name().to_owned(),
                Answer::Refused(refused) => format!("{refused:?}"),
                Answer::Nothing => "no answer".to_owned(),
            };
            *counts.entry(answer).or_default() += 1;
        }
        counts
    }

    /// How many acknowledged revocations each replica was asked about, with any answer, after the acknowledgement.
    pub(super) fn asked_about_after(&self, replica: usize) -> usize {
        let keys = self.by_key();
        let asked = keys.values().filter(|of_key| {
            of_key.revocation.is_some_and(|made| {
                let mut questions = of_key.questions.iter();
                questions.any(|question| {
                    question.server.replica == replica
                        && question.span.asked > made.span.answered
                        && question.answer != Answer::Nothing
                })
            })
        });
        asked.count()
    }
}

impl OfKey<'_> {
    /// Who accepts the key although it was revoked.
    fn after_revocation(&self, promises: Promises, found: &mut Vec<Violation>) {
        let Some(revocation) = self.revocation else {
            return;
        };
        let made = revocation.made();
        for question in &self.questions {
            let answer = question.told();
            let is_denied_within = |bound| promises::denied_after_lease(&made, &answer, bound);
            let is_where_acknowledged =
                promises.known_by(question.server) == promises.known_by(revocation.server);
            let promise = if !promises::denied_after_everywhere(&made, &answer) {
                Promise::ConfirmedIsEverywhere
            } else if is_where_acknowledged && !is_denied_within(0) {
                Promise::InForceWhereAcknowledged
            } else if !is_denied_within(nanos(promises.bound)) {
                Promise::Bound
            } else {
                continue;
            };
            let late = question.span.asked.saturating_sub(revocation.span.answered);
            let evidence = format!(
                "accepted {late:?} after the acknowledgement: {revocation:?}, {question:?}"
            );
            found.push(promise.broken(evidence));
        }
    }

    /// Which server accepts the key after it has said that it is revoked.
    fn stays_revoked(&self, promises: Promises, found: &mut Vec<Violation>) {
        let mut revoked: BTreeMap<Server, &Question> = BTreeMap::new();
        for &question in &self.questions {
            if question.is_answered(pb::Verdict::Revoked) {
                let first = revoked
                    .entry(promises.known_by(question.server))
                    .or_insert(question);
                if question.span.answered < first.span.answered {
                    *first = question;
                }
            }
        }
        for question in self.questions.iter().filter(|asked| asked.is_accepted()) {
            let Some(before) = revoked.get(&promises.known_by(question.server)) else {
                continue;
            };
            if !promises::stays_denied(&before.told(), &question.told(), None) {
                let evidence = format!("{before:?}, and then {question:?}");
                found.push(Promise::RevokedStaysRevoked.broken(evidence));
            }
        }
    }

    /// Whether the server that is asked had acknowledged the issue.
    fn was_issued_by_it(&self, question: &Question, promises: Promises) -> bool {
        self.issue.is_some_and(|issue| {
            promises.known_by(issue.server) == promises.known_by(question.server)
                && question.span.asked > issue.span.answered
        })
    }

    /// Which questions with a `min_revision` were answered from an older state, and which were answered as none should be.
    fn min_revision(&self, promises: Promises, found: &mut Vec<Violation>) {
        for question in &self.questions {
            let promise = match question.answer {
                Answer::Verdict { verdict, revision } => {
                    let covers_the_issue = self.issue.is_some_and(|issue| {
                        question.min_revision >= issue.revision
                            && question.span.asked > issue.span.answered
                    });
                    match verdict {
                        _ if !promises::contains_its_token(
                            revision >= question.min_revision,
                            &question.told(),
                        ) =>
                        {
                            Promise::MinRevision
                        }
                        pb::Verdict::Unknown if covers_the_issue => Promise::MinRevision,
                        pb::Verdict::Unknown if self.was_issued_by_it(question, promises) => {
                            Promise::InForceWhereAcknowledged
                        }
                        pb::Verdict::Allowed | pb::Verdict::Revoked | pb::Verdict::Unknown => {
                            continue;
                        }
                        _ => Promise::Sensible,
                    }
                }
                Answer::Refused(Refused::RevisionLost) if !promises.may_lose_commits => {
                    Promise::RevisionsAreKept
                }
                Answer::Refused(Refused::Otherwise) => Promise::Sensible,
                Answer::Refused(_) | Answer::Nothing => continue,
            };
            let evidence = format!("{:?}, {question:?}", self.issue);
            found.push(promise.broken(evidence));
        }
    }
}

impl Promise {
    fn broken(self, evidence: String) -> Violation {
        Violation {
            promise: self,
            evidence,
        }
    }
}

/// Some times in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Distribution(Vec<Duration>);

impl FromIterator<Duration> for Distribution {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }
}

impl Distribution {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// The least time that so many of a hundred do not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100);
        let time = self.0.get(rank.saturating_sub(1));
        time.copied().unwrap_or_default()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        write!(
            f,
            "p50 {p50:.1?}, p99 {p99:.1?}, max {:.1?} of {}",
            self.max(),
            self.len()
        )
    }
}
