//! What clients asked of several servers and what they were answered, and whether the answers keep the promises.
//!
//! A client knows only its own times: it asked after it took the first, and was answered before it took the second. So a question
//! counts as asked *after* an acknowledgement only if it surely was.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
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

/// A request to revoke a key. Of a key there is at most one that was acknowledged.
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
    /// A key that was revoked is not accepted any more by the server that acknowledged it.
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
    fn is_answered(&self, verdict: pb::Verdict) -> bool {
        matches!(self.answer, Answer::Verdict { verdict: said, .. } if said == verdict)
    }

    fn is_accepted(&self) -> bool {
        self.is_answered(pb::Verdict::Allowed)
    }
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
        let revocations = self.revocations.iter().filter_map(|revocation| {
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
        let acknowledged = revocation.span.answered;
        let everywhere = matches!(
            (revocation.wait, revocation.outcome),
            (
                Wait::Everywhere,
                Outcome::Acknowledged {
                    confirmed: true,
                    ..
                }
            )
        );
        for question in &self.questions {
            let asked = question.span.asked;
            if !question.is_accepted() || asked <= acknowledged {
                continue;
            }
            let promise = if everywhere {
                Promise::ConfirmedIsEverywhere
            } else if question.server == revocation.server {
                Promise::InForceWhereAcknowledged
            } else if asked > acknowledged + promises.bound {
                Promise::Bound
            } else {
                continue;
            };
            let late = asked.saturating_sub(acknowledged);
            let evidence = format!(
                "accepted {late:?} after the acknowledgement: {revocation:?}, {question:?}"
            );
            found.push(promise.broken(evidence));
        }
    }

    /// Which server accepts the key after it has said that it is revoked.
    fn stays_revoked(&self, promises: Promises, found: &mut Vec<Violation>) {
        let mut revoked: BTreeMap<Server, &Question> = BTreeMap::new();
        // A server that starts again after commits were lost does not know them.
        let known_by = |server: Server| Server {
            restarts: if promises.may_lose_commits {
                server.restarts
            } else {
                0
            },
            ..server
        };
        for &question in &self.questions {
            if question.is_answered(pb::Verdict::Revoked) {
                let first = revoked.entry(known_by(question.server)).or_insert(question);
                if question.span.answered < first.span.answered {
                    *first = question;
                }
            }
        }
        for question in self.questions.iter().filter(|asked| asked.is_accepted()) {
            let before = revoked.get(&known_by(question.server));
            if let Some(before) = before.filter(|told| told.span.answered < question.span.asked) {
                let evidence = format!("{before:?}, and then {question:?}");
                found.push(Promise::RevokedStaysRevoked.broken(evidence));
            }
        }
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
                        _ if revision < question.min_revision => Promise::MinRevision,
                        pb::Verdict::Unknown if covers_the_issue => Promise::MinRevision,
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

mod tests {
    //! Each promise is broken by a history that is made up, and kept by its neighbour.

    use super::*;

    const PROMISES: Promises = Promises {
        bound: Duration::from_secs(3),
        may_lose_commits: false,
    };

    const A: Server = server(0, 0);
    const B: Server = server(1, 0);
    const ISSUED: u64 = 7;

    const fn server(replica: usize, restarts: usize) -> Server {
        Server { replica, restarts }
    }

    /// From and to these milliseconds.
    fn span(asked: u64, answered: u64) -> Span {
        Span {
            asked: Duration::from_millis(asked),
            answered: Duration::from_millis(answered),
        }
    }

    /// A history of the key 1, which A issued from 0 to 10 ms.
    fn issued() -> History {
        let issue = Issue {
            span: span(0, 10),
            server: A,
            key: 1,
            revision: ISSUED,
        };
        History {
            issues: vec![issue],
            ..Default::default()
        }
    }

    impl History {
        fn revoked(mut self, asked: u64, answered: u64, wait: Wait, confirmed: bool) -> Self {
            self.revocations.push(Revocation {
                span: span(asked, answered),
                server: A,
                key: 1,
                wait,
                outcome: Outcome::Acknowledged {
                    revision: 8,
                    confirmed,
                },
            });
            self
        }

        /// A question that is answered a millisecond later.
        fn asked(self, asked: u64, server: Server, verdict: pb::Verdict) -> Self {
            self.answered(asked, asked + 1, server, 0, verdict)
        }

        fn answered(
            self,
            asked: u64,
            answered: u64,
            server: Server,
            min_revision: u64,
            verdict: pb::Verdict,
        ) -> Self {
            let answer = Answer::Verdict {
                verdict,
                revision: ISSUED,
            };
            self.question(span(asked, answered), server, min_revision, answer)
        }

        fn question(
            mut self,
            span: Span,
            server: Server,
            min_revision: u64,
            answer: Answer,
        ) -> Self {
            self.questions.push(Question {
                span,
                server,
                key: 1,
                min_revision,
                answer,
            });
            self
        }

        fn broken(&self) -> Vec<Promise> {
            self.broken_of(PROMISES)
        }

        fn broken_of(&self, promises: Promises) -> Vec<Promise> {
            let violations = self.violations(promises).into_iter();
            violations.map(|violation| violation.promise).collect()
        }
    }

    use pb::Verdict::{Allowed, Expired, Revoked, Unknown};

    #[test]
    fn a_confirmed_revocation_is_everywhere_when_it_is_acknowledged() {
        let revoked = issued().revoked(100, 200, Wait::Everywhere, true);
        // Asked before the acknowledgement, and answered after it.
        let before = revoked.clone().answered(200, 5_000, B, 0, Allowed);
        assert_eq!(before.broken(), []);
        let after = revoked.asked(201, B, Allowed);
        assert_eq!(after.broken(), [Promise::ConfirmedIsEverywhere]);
        let unconfirmed = issued().revoked(100, 200, Wait::Everywhere, false);
        assert_eq!(unconfirmed.asked(201, B, Allowed).broken(), []);
    }

    #[test]
    fn every_revocation_is_everywhere_after_the_bound() {
        for (wait, confirmed) in [
            (Wait::Committed, false),
            (Wait::Committed, true),
            (Wait::Everywhere, false),
        ] {
            let revoked = issued().revoked(100, 200, wait, confirmed);
            let in_time = revoked.clone().answered(3_200, 9_000, B, 0, Allowed);
            assert_eq!(in_time.broken(), []);
            let late = revoked.asked(3_201, B, Allowed);
            assert_eq!(late.broken(), [Promise::Bound]);
        }
    }

    #[test]
    fn a_revocation_is_in_force_at_once_where_it_was_acknowledged() {
        let revoked = issued().revoked(100, 200, Wait::Committed, false);
        assert_eq!(revoked.clone().asked(201, B, Allowed).broken(), []);
        assert_eq!(revoked.clone().asked(199, A, Allowed).broken(), []);
        let accepted = revoked.asked(201, A, Allowed);
        assert_eq!(accepted.broken(), [Promise::InForceWhereAcknowledged]);
    }

    #[test]
    fn a_revocation_that_was_not_acknowledged_promises_nothing() {
        for outcome in [Outcome::NotMade, Outcome::Unknown] {
            let mut history = issued().revoked(100, 200, Wait::Everywhere, true);
            history.revocations[0].outcome = outcome;
            assert_eq!(history.asked(9_000, A, Allowed).broken(), []);
        }
    }

    #[test]
    fn a_key_stays_revoked_at_a_server() {
        let told = issued().asked(100, B, Revoked);
        // Elsewhere the revocation may come later, and a question may have been asked before the answer.
        assert_eq!(told.clone().asked(500, A, Allowed).broken(), []);
        let at_once = told.clone().answered(101, 900, B, 0, Allowed);
        assert_eq!(at_once.broken(), []);
        let again = told.asked(102, B, Allowed);
        assert_eq!(again.broken(), [Promise::RevokedStaysRevoked]);
        // The first of its answers counts, in whatever order they are recorded.
        let disordered = issued()
            .asked(900, B, Revoked)
            .asked(500, B, Allowed)
            .asked(100, B, Revoked);
        assert_eq!(disordered.broken(), [Promise::RevokedStaysRevoked]);
    }

    #[test]
    fn a_key_stays_revoked_over_a_restart_unless_commits_are_lost() {
        let restarted = issued()
            .asked(100, B, Revoked)
            .asked(500, server(1, 1), Allowed);
        assert_eq!(restarted.broken(), [Promise::RevokedStaysRevoked]);
        let promises = Promises {
            may_lose_commits: true,
            ..PROMISES
        };
        assert_eq!(restarted.broken_of(promises), []);
    }

    #[test]
    fn an_issued_key_is_known_to_who_is_asked_with_its_revision() {
        let at = |min_revision| issued().answered(11, 12, B, min_revision, Unknown);
        assert_eq!(at(0).broken(), []);
        assert_eq!(at(ISSUED - 1).broken(), []);
        assert_eq!(at(ISSUED).broken(), [Promise::MinRevision]);
        // Asked by somebody who was not told of the key yet.
        let early = issued().answered(10, 12, B, ISSUED, Unknown);
        assert_eq!(early.broken(), []);
        // The answer itself says that it is from an older state.
        let older = issued().answered(11, 12, B, ISSUED + 1, Allowed);
        assert_eq!(older.broken(), [Promise::MinRevision]);
    }

    #[test]
    fn a_revision_is_lost_only_with_commits() {
        let lost = Answer::Refused(Refused::RevisionLost);
        let lost = issued().question(span(11, 12), B, ISSUED, lost);
        assert_eq!(lost.broken(), [Promise::RevisionsAreKept]);
        let promises = Promises {
            may_lose_commits: true,
            ..PROMISES
        };
        assert_eq!(lost.broken_of(promises), []);
    }

    #[test]
    fn each_change_has_a_revision_of_its_own() {
        let mut history = issued().revoked(100, 200, Wait::Committed, false);
        assert_eq!(history.broken(), []);
        history.issues[0].revision = 8;
        assert_eq!(history.broken(), [Promise::RevisionsAreUnique]);
        // Nothing is known of one that was not acknowledged.
        history.revocations[0].outcome = Outcome::Unknown;
        assert_eq!(history.broken(), []);
    }

    #[test]
    fn other_verdicts_and_errors_are_not_sensible() {
        assert_eq!(
            issued().asked(100, A, Expired).broken(),
            [Promise::Sensible]
        );
        for refused in [
            Refused::LeaseLapsed,
            Refused::BehindMinRevision,
            Refused::Unavailable,
        ] {
            let answer = Answer::Refused(refused);
            let history = issued().question(span(100, 101), A, 0, answer);
            assert_eq!(history.broken(), []);
        }
        let otherwise = Answer::Refused(Refused::Otherwise);
        let history = issued().question(span(100, 101), A, 0, otherwise);
        assert_eq!(history.broken(), [Promise::Sensible]);
    }

    #[test]
    fn the_last_acceptance_is_measured_from_the_acknowledgement() {
        let mut history = issued()
            .revoked(100, 200, Wait::Committed, false)
            .asked(150, B, Allowed)
            .asked(700, B, Allowed)
            .asked(900, B, Revoked);
        let times = history.last_acceptances(Wait::Committed);
        assert_eq!(times.max(), Duration::from_millis(500));
        assert_eq!(history.last_acceptances(Wait::Everywhere).len(), 0);
        history.questions.truncate(1);
        let times = history.last_acceptances(Wait::Committed);
        assert_eq!((times.len(), times.max()), (1, Duration::ZERO));
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Distribution = (1..=200).rev().map(Duration::from_millis).collect();
        let of = |percent| times.percentile(percent).as_millis();
        assert_eq!((of(50), of(99), of(100)), (100, 198, 200));
        let none = Distribution::from_iter([]);
        assert_eq!((none.percentile(50), none.max()), Default::default());
    }
}
