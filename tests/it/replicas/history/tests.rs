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

    fn question(mut self, span: Span, server: Server, min_revision: u64, answer: Answer) -> Self {
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
    let before = revoked.clone().answered(199, 5_000, B, 0, Allowed);
    assert_eq!(before.broken(), []);
    let after = revoked.asked(200, B, Allowed);
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
    for server in [A, server(0, 1)] {
        let accepted = revoked.clone().asked(201, server, Allowed);
        assert_eq!(accepted.broken(), [Promise::InForceWhereAcknowledged]);
    }
}

#[test]
fn an_issued_key_is_known_at_once_where_it_was_acknowledged() {
    assert_eq!(issued().asked(11, B, Unknown).broken(), []);
    assert_eq!(issued().asked(10, A, Unknown).broken(), []);
    let unknown = issued().asked(11, A, Unknown);
    assert_eq!(unknown.broken(), [Promise::InForceWhereAcknowledged]);
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
    let at_once = told.clone().answered(100, 900, B, 0, Allowed);
    assert_eq!(at_once.broken(), []);
    let again = told.asked(101, B, Allowed);
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
    // A repetition is answered with the revision that it read.
    let repeated = history.clone().revoked(300, 400, Wait::Committed, false);
    assert_eq!(repeated.broken(), []);
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
