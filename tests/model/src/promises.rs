//! The promises to clients, as predicates over what a client can see: when it asked, and what it was told.
//!
//! The models' properties use these predicates, and so can a test that records real calls. Times are of one clock in any
//! unit, for example microseconds of the recorder's monotonic clock or a model's ticks. A recorder takes [`Answer::asked_at`]
//! *before* it sends the question, and the times of a [`Revocation`] *after* it has received the acknowledgement. So equal
//! times count as "asked after".
//!
//! Each predicate is `true` when the promise is kept.

use std::fmt;

/// A point in time.
pub type Time = u64;

/// What was said of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The key is good.
    Allowed,
    /// The key is not good: revoked, disabled, or its realm or route is closed.
    Denied,
    /// The key's time is over.
    Expired,
    /// An error: the process cannot answer now.
    Unavailable,
}

/// An answered question about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The process that answered. A restarted process is another one.
    pub process: u32,
    /// When the question was sent.
    pub asked_at: Time,
    /// When the answer was received.
    pub answered_at: Time,
    /// The answer.
    pub verdict: Verdict,
}

/// A change that takes away: it ends the key or narrows what the key may do, so that the question must be denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Revocation {
    /// When the change was acknowledged, in whichever way.
    pub acknowledged_at: Option<Time>,
    /// When the change was acknowledged as effective on every replica.
    pub everywhere_at: Option<Time>,
}

/// I1. No question that was asked after a revocation was acknowledged as effective everywhere is answered "allowed".
pub fn denied_after_everywhere(revocation: &Revocation, answer: &Answer) -> bool {
    answer.verdict != Verdict::Allowed
        || revocation
            .everywhere_at
            .is_none_or(|at| answer.asked_at < at)
}

/// I2. No question that was asked later than `bound` after a revocation was acknowledged is answered "allowed".
///
/// The bound is the lease's length and the allowance for clocks: `L + L/100 + 1 s`.
pub fn denied_after_lease(revocation: &Revocation, answer: &Answer, bound: Time) -> bool {
    answer.verdict != Verdict::Allowed
        || revocation
            .acknowledged_at
            .is_none_or(|at| answer.asked_at <= at.saturating_add(bound))
}

/// I3. A question that names a change is answered from facts that contain the change, or with an error.
///
/// `contained` says whether the facts of the answer contain the change. A recorder that sees only numbers can compare the
/// answer's revision with the question's `min_revision`.
pub fn contains_its_token(contained: bool, answer: &Answer) -> bool {
    contained || answer.verdict == Verdict::Unavailable
}

/// I4. What one process has denied, it does not allow later, unless somebody gave it back in between.
///
/// `given_back_at` is when a change that gives (or the acceptance of a rewritten history) was *requested*, if one was.
pub fn stays_denied(earlier: &Answer, later: &Answer, given_back_at: Option<Time>) -> bool {
    let gone_back = earlier.verdict == Verdict::Denied
        && later.verdict == Verdict::Allowed
        && earlier.process == later.process
        && earlier.answered_at <= later.asked_at;
    !gone_back || given_back_at.is_some_and(|at| at <= later.answered_at)
}

/// I5. What any process has called expired, no process allows when it is asked later than `bound` afterwards.
///
/// The bound is a heartbeat and a round trip for a replica that is in touch with the database, and the lease's length more
/// for one that is not.
pub fn stays_expired(earlier: &Answer, later: &Answer, bound: Time) -> bool {
    earlier.verdict != Verdict::Expired
        || later.verdict != Verdict::Allowed
        || later.asked_at <= earlier.answered_at.saturating_add(bound)
}

/// A broken promise, and the answers that show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// I1 is broken by this answer.
    AllowedAfterEverywhere(Answer),
    /// I2 is broken by this answer.
    AllowedAfterLease(Answer),
    /// I4 is broken by the second answer.
    AllowedAfterDenied(Answer, Answer),
    /// I5 is broken by the second answer.
    AllowedAfterExpired(Answer, Answer),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowedAfterEverywhere(answer) => {
                write!(
                    f,
                    "allowed, asked after the revocation was acknowledged everywhere: {answer:?}"
                )
            }
            Self::AllowedAfterLease(answer) => {
                write!(f, "allowed, asked later than a lease lasts: {answer:?}")
            }
            Self::AllowedAfterDenied(earlier, later) => {
                write!(f, "denied, then allowed: {earlier:?}, {later:?}")
            }
            Self::AllowedAfterExpired(earlier, later) => {
                write!(f, "expired, then allowed: {earlier:?}, {later:?}")
            }
        }
    }
}

/// The broken promises in a recording of one key that was revoked once and never given back.
///
/// `bound` is that of [`denied_after_lease`] and [`stays_expired`]. Answers may be in any order.
pub fn breaches(revocation: &Revocation, answers: &[Answer], bound: Time) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for later in answers
        .iter()
        .filter(|answer| answer.verdict == Verdict::Allowed)
    {
        if !denied_after_everywhere(revocation, later) {
            breaches.push(Breach::AllowedAfterEverywhere(*later));
        }
        if !denied_after_lease(revocation, later, bound) {
            breaches.push(Breach::AllowedAfterLease(*later));
        }
        for earlier in answers {
            if !stays_denied(earlier, later, None) {
                breaches.push(Breach::AllowedAfterDenied(*earlier, *later));
            }
            if !stays_expired(earlier, later, bound) {
                breaches.push(Breach::AllowedAfterExpired(*earlier, *later));
            }
        }
    }
    breaches
}
