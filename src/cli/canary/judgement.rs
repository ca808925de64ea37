//! The judgement about the answers of one endpoint: whether a promise was broken.

use std::time::Duration;

use crate::pb::claviger::v1::Verdict;

/// What an endpoint answered to one question. The times are since the canary asked for its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) asked: Duration,
    pub(super) answered: Duration,
    /// The number of the verdict; `None` if there was none.
    pub(super) verdict: Option<i32>,
}

impl Answer {
    fn is(&self, verdict: Verdict) -> bool {
        self.verdict == Some(verdict as i32)
    }

    /// Whether the key was accepted.
    pub(super) fn is_allowed(&self) -> bool {
        self.is(Verdict::Allowed)
    }

    /// Whether the key was denied for ever.
    pub(super) fn is_revoked(&self) -> bool {
        self.is(Verdict::Revoked)
    }
}

/// The answer to the revocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgement {
    /// When it came, on the same clock as the times of an [`Answer`].
    pub(super) at: Duration,
    /// Whether every server has confirmed that it no longer accepts the key.
    pub(super) confirmed: bool,
}

/// A promise of the authority that an answer can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// Allowed, although every server had confirmed the revocation when the question was asked.
    AllowedAfterConfirmed,
    /// Allowed by an endpoint that had denied the key as revoked before.
    AllowedAfterDenial,
    /// Allowed, although longer than the bound had passed between the answer to the revocation and the question.
    AllowedAfterBound,
    /// Unknown to an endpoint that must have the change that issued the key.
    Unknown,
}

/// The number of promises.
pub(super) const VIOLATIONS: usize = 4;

impl Violation {
    /// The name for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AllowedAfterConfirmed => "allowed_after_confirmed",
            Self::AllowedAfterDenial => "allowed_after_denial",
            Self::AllowedAfterBound => "allowed_after_bound",
            Self::Unknown => "unknown",
        }
    }

    /// What is wrong, for people.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::AllowedAfterConfirmed => "allowed after every server confirmed the revocation",
            Self::AllowedAfterDenial => "allowed after it was denied as revoked",
            Self::AllowedAfterBound => "allowed later than the bound after the revocation",
            Self::Unknown => "unknown, though issued at a revision that the endpoint has",
        }
    }
}

/// The judged answers of one endpoint in one round.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// How many questions were answered with a verdict.
    pub(super) answers: u64,
    /// How many questions were not.
    pub(super) unavailable: u64,
    /// Whether the endpoint has accepted the key.
    pub(super) has_allowed: bool,
    /// When the endpoint first answered that the key is revoked.
    pub(super) denied: Option<Duration>,
    /// How many answers broke each promise.
    violations: [u64; VIOLATIONS],
}

impl Record {
    /// Judges the next answer. Returns the promise that it breaks, if it is the first answer that breaks it.
    pub(super) fn add(
        &mut self,
        answer: &Answer,
        acknowledgement: Option<Acknowledgement>,
        bound: Duration,
    ) -> Option<Violation> {
        let violation = judge(answer, self.denied, acknowledgement, bound);
        match answer.verdict {
            Some(_) => self.answers += 1,
            None => self.unavailable += 1,
        }
        self.has_allowed |= answer.is_allowed();
        if answer.is_revoked() && self.denied.is_none() {
            self.denied = Some(answer.answered);
        }
        let violation = violation?;
        let count = &mut self.violations[violation as usize];
        *count += 1;
        (*count == 1).then_some(violation)
    }

    /// How many answers broke a promise.
    pub(super) fn violations(&self) -> u64 {
        self.violations.iter().sum()
    }

    /// How long after the acknowledgement the first denial came; zero if it came before.
    pub(super) fn revoke_to_deny(&self, acknowledgement: Acknowledgement) -> Option<Duration> {
        let denied = self.denied?;
        Some(denied.saturating_sub(acknowledgement.at))
    }
}

/// Returns the promise that an answer breaks. `denied` is when the same endpoint first answered that the key is revoked;
/// `bound` is for how long after its acknowledgement a server may not know of a revocation.
fn judge(
    answer: &Answer,
    denied: Option<Duration>,
    acknowledgement: Option<Acknowledgement>,
    bound: Duration,
) -> Option<Violation> {
    if answer.is(Verdict::Unknown) {
        return Some(Violation::Unknown);
    }
    if !answer.is_allowed() {
        return None;
    }
    // A question that was on its way at that moment may have been decided before it.
    let is_asked_after = |moment: Option<Duration>| moment.is_some_and(|at| answer.asked > at);
    let confirmed = acknowledgement.filter(|acknowledgement| acknowledgement.confirmed);
    let bound = acknowledgement.and_then(|acknowledgement| acknowledgement.at.checked_add(bound));
    if is_asked_after(confirmed.map(|acknowledgement| acknowledgement.at)) {
        Some(Violation::AllowedAfterConfirmed)
    } else if is_asked_after(denied) {
        Some(Violation::AllowedAfterDenial)
    } else if is_asked_after(bound) {
        Some(Violation::AllowedAfterBound)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(1);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// An answer that took 2 ms.
    fn answer(asked: u64, verdict: Verdict) -> Answer {
        Answer {
            asked: millis(asked),
            answered: millis(asked + 2),
            verdict: Some(verdict as i32),
        }
    }

    /// The revocation is acknowledged at 100 ms.
    fn acknowledged(confirmed: bool) -> Acknowledgement {
        Acknowledgement {
            at: millis(100),
            confirmed,
        }
    }

    /// What answers in their order are judged to be.
    fn judged(
        acknowledgement: Option<Acknowledgement>,
        answers: &[(u64, Verdict)],
    ) -> Vec<Option<Violation>> {
        let mut record = Record::default();
        answers
            .iter()
            .map(|(asked, verdict)| record.add(&answer(*asked, *verdict), acknowledgement, BOUND))
            .collect()
    }

    #[test]
    fn answers_in_the_promised_order_break_nothing() {
        for confirmed in [false, true] {
            let answers = [
                (50, Verdict::Allowed),
                (100, Verdict::Allowed),
                (105, Verdict::Revoked),
                (110, Verdict::Revoked),
            ];
            assert_eq!(judged(Some(acknowledged(confirmed)), &answers), [None; 4]);
        }
        let before = [(10, Verdict::Allowed), (95, Verdict::Revoked)];
        assert_eq!(judged(None, &before), [None; 2]);
    }

    #[test]
    fn a_committed_revocation_may_be_unknown_elsewhere_until_the_bound() {
        let answers = [
            (101, Verdict::Allowed),
            (1_100, Verdict::Allowed),
            (1_101, Verdict::Allowed),
        ];
        let late = Some(Violation::AllowedAfterBound);
        assert_eq!(
            judged(Some(acknowledged(false)), &answers),
            [None, None, late]
        );
        assert_eq!(judged(None, &answers), [None; 3]);
    }

    #[test]
    fn a_question_asked_after_the_confirmation_is_not_allowed() {
        let answers = [(100, Verdict::Allowed), (101, Verdict::Allowed)];
        let confirmed = Some(Violation::AllowedAfterConfirmed);
        assert_eq!(
            judged(Some(acknowledged(true)), &answers),
            [None, confirmed]
        );
    }

    #[test]
    fn a_denial_is_for_ever() {
        let answers = [(50, Verdict::Revoked), (55, Verdict::Allowed)];
        let again = Some(Violation::AllowedAfterDenial);
        assert_eq!(judged(None, &answers), [None, again]);
        assert_eq!(judged(Some(acknowledged(false)), &answers), [None, again]);
        // Only being revoked is for ever.
        for other in [Verdict::Disabled, Verdict::PartnerSuspended] {
            assert_eq!(
                judged(None, &[(50, other), (55, Verdict::Allowed)]),
                [None; 2]
            );
        }
    }

    #[test]
    fn a_key_that_is_there_is_not_unknown() {
        let unknown = Some(Violation::Unknown);
        assert_eq!(judged(None, &[(1, Verdict::Unknown)]), [unknown]);
        assert_eq!(
            judged(Some(acknowledged(true)), &[(200, Verdict::Unknown)]),
            [unknown]
        );
    }

    #[test]
    fn each_promise_is_reported_once_and_each_answer_counted() {
        let mut record = Record::default();
        let mut reported = Vec::new();
        for asked in [200, 205, 210] {
            reported.extend(record.add(
                &answer(asked, Verdict::Allowed),
                Some(acknowledged(true)),
                BOUND,
            ));
        }
        reported.extend(record.add(
            &answer(215, Verdict::Unknown),
            Some(acknowledged(true)),
            BOUND,
        ));
        assert_eq!(
            reported,
            [Violation::AllowedAfterConfirmed, Violation::Unknown]
        );
        assert_eq!((record.violations(), record.answers), (4, 4));
    }

    #[test]
    fn an_error_is_neither_a_denial_nor_a_violation() {
        let error = Answer {
            verdict: None,
            ..answer(5_000, Verdict::Allowed)
        };
        let mut record = Record::default();
        assert_eq!(record.add(&error, Some(acknowledged(true)), BOUND), None);
        assert_eq!((record.answers, record.unavailable), (0, 1));
        assert_eq!(record.revoke_to_deny(acknowledged(true)), None);
    }

    #[test]
    fn the_time_to_the_denial_begins_with_the_acknowledgement() {
        for (asked, expected) in [(60, 0), (97, 0), (99, 1), (150, 52)] {
            let mut record = Record::default();
            record.add(&answer(asked, Verdict::Revoked), None, BOUND);
            record.add(&answer(asked + 5, Verdict::Revoked), None, BOUND);
            let acknowledgement = acknowledged(false);
            assert_eq!(
                record.revoke_to_deny(acknowledgement),
                Some(millis(expected))
            );
        }
    }
}
