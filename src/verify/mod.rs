//! The decision: is this key good for this?
//!
//! Everything it needs is handed to it; it reads no clock, waits for nothing and stores nothing.

use std::net::IpAddr;

use crate::domain::access::ScopeSet;
use crate::domain::ids::EnvironmentName;
use crate::domain::key_text;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::verdict::Verdict;
use crate::hashing::{Peppers, TextHash};
use crate::mirror::{Entry, KeyFacts, MirroredRealm, MirroredSecret, View};

/// What is asked.
pub struct Question<'q> {
    /// The API key as it was presented.
    pub plain_key: &'q str,
    /// The realm that was called.
    pub realm: &'q MirroredRealm,
    /// The environment that was called.
    pub environment: &'q EnvironmentName,
    /// What the request touches.
    pub target: Target<'q>,
    /// Projects that it touches besides.
    pub projects: &'q [&'q str],
    /// The owner that the request names; empty is none.
    pub partner: &'q str,
    /// All of these are wanted.
    pub scopes: ScopeSet,
    /// At least one of these is wanted, if there are any.
    pub any_scopes: ScopeSet,
    /// Where the request comes from.
    pub client: Option<IpAddr>,
}

/// What a request touches.
#[derive(Clone, Copy, Debug)]
pub enum Target<'q> {
    /// What is partner-wide: only a partner key will do.
    Partner,
    /// This project.
    Project(&'q str),
    /// The project that the key is bound to.
    OwnProject,
    /// What either level may do.
    Any,
    /// What no rule of the realm matches.
    NoRoute,
}

/// What was decided.
pub struct Decision<'k> {
    /// Allowed, or the first reason why not.
    pub verdict: Verdict,
    /// The key and its secret, if the text proved them.
    pub proven: Option<(&'k KeyFacts, &'k MirroredSecret)>,
    /// Which wanted scopes are not held.
    pub missing: ScopeSet,
}

/// Why there is no decision. Nothing that the presenter of a key sends can bring it about, except to name such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// What is stored of the key cannot be read.
    Corrupt,
    /// The pepper file does not hold the version under which the key was digested.
    PepperMissing,
}

/// Decides. `now` is read once, by the caller.
pub fn decide<'k>(
    question: &Question<'_>,
    view: &'k View<'_>,
    peppers: &Peppers,
    now: Timestamp,
) -> Result<Decision<'k>, VerifyError> {
    let denied = |verdict| Decision {
        verdict,
        proven: None,
        missing: ScopeSet::default(),
    };
    let (key, secret) = match prove(question.plain_key, view, peppers)? {
        Proof::Of(key, secret) if *key.realm() == question.realm.definition.id => (key, secret),
        Proof::Of(..) | Proof::OfNothing => return Ok(denied(Verdict::Unknown)),
        Proof::Malformed => return Ok(denied(Verdict::Malformed)),
    };
    let missing = missing(question, key);
    Ok(Decision {
        verdict: judge(&Case {
            question,
            key,
            secret,
            missing,
            now,
        }),
        proven: Some((key, secret)),
        missing,
    })
}

/// What a text proves by itself, whatever it is presented for.
pub enum Proof<'k> {
    /// That its holder holds this secret of this key, which may be long over.
    Of(&'k KeyFacts, &'k MirroredSecret),
    /// Nothing: there is no such key, or the secret is wrong.
    OfNothing,
    /// Nothing: it cannot be a key.
    Malformed,
}

/// What a text proves. Of the many texts that prove nothing none makes more work than two digests.
pub fn prove<'k>(
    text: &str,
    view: &'k View<'_>,
    peppers: &Peppers,
) -> Result<Proof<'k>, VerifyError> {
    if key_text::screen(text).is_err() {
        return Ok(Proof::Malformed);
    }
    let own = prove_own(text, view, peppers)?;
    if matches!(own, Proof::Of(..)) || !view.has_imports() {
        return Ok(own);
    }
    // Last, since another system's texts may look like anything, also like those of this authority.
    Ok(prove_imported(text, view, peppers)?.unwrap_or(own))
}

/// What a text proves if it is one of this authority's own, which names its key.
fn prove_own<'k>(
    text: &str,
    view: &'k View<'_>,
    peppers: &Peppers,
) -> Result<Proof<'k>, VerifyError> {
    if !key_text::prefix(text).is_some_and(|prefix| view.knows_prefix(prefix)) {
        return Ok(Proof::OfNothing);
    }
    let Ok(text) = key_text::parse(text) else {
        return Ok(Proof::Malformed);
    };
    let key = match view.key(text.id) {
        Some(Entry::Key(key)) if key.is_written(text.prefix, text.tag) => key,
        Some(Entry::Corrupt) => return Err(VerifyError::Corrupt),
        _ => return Ok(Proof::OfNothing),
    };
    let mut missing_pepper = false;
    for secret in key.secrets().filter(|secret| !secret.imported) {
        match peppers.proves(&secret.digest, text.id, &text.secret) {
            Some(true) => return Ok(Proof::Of(key, secret)),
            Some(false) => {}
            None => missing_pepper = true,
        }
    }
    if missing_pepper {
        Err(VerifyError::PepperMissing)
    } else {
        Ok(Proof::OfNothing)
    }
}

/// What a text of another system proves, if it was imported: its digest, under whichever pepper, leads to its key.
fn prove_imported<'k>(
    text: &str,
    view: &'k View<'_>,
    peppers: &Peppers,
) -> Result<Option<Proof<'k>>, VerifyError> {
    let hash = TextHash::of(text);
    for digest in peppers.digests_of_import(&hash) {
        let key = match view.key_of_import(&digest) {
            Some(Entry::Key(key)) => key,
            Some(Entry::Corrupt) => return Err(VerifyError::Corrupt),
            None => continue,
        };
        let mut secrets = key.secrets();
        if let Some(secret) = secrets.find(|secret| secret.imported && secret.digest == digest) {
            return Ok(Some(Proof::Of(key, secret)));
        }
    }
    Ok(None)
}

/// The wanted scopes that the key does not hold.
fn missing(question: &Question<'_>, key: &KeyFacts) -> ScopeSet {
    if question.scopes.is_empty() && question.any_scopes.is_empty() {
        return ScopeSet::default();
    }
    let held = key.effective(&question.realm.hierarchy);
    let missing = question.scopes.without(held);
    if question.any_scopes.is_empty() || question.any_scopes.meets(held) {
        missing
    } else {
        missing.union(question.any_scopes)
    }
}

/// A proven key and what is asked of it.
struct Case<'c> {
    question: &'c Question<'c>,
    key: &'c KeyFacts,
    secret: &'c MirroredSecret,
    missing: ScopeSet,
    now: Timestamp,
}

/// Whether something speaks against a key.
type Objection = fn(&Case<'_>) -> bool;

/// What can speak against a proven key, in the order that the contract lays down.
const OBJECTIONS: [(Verdict, Objection); 10] = [
    (Verdict::Revoked, |case| case.key.is_revoked()),
    (Verdict::Disabled, |case| case.key.disabled),
    (Verdict::Expired, |case| {
        case.key.expires_at.is_over(case.now) || case.secret.expires_at.is_over(case.now)
    }),
    (Verdict::EnvironmentMismatch, |case| {
        case.key.environment() != case.question.environment
    }),
    (Verdict::PartnerMismatch, |case| {
        let named = case.question.partner;
        !named.is_empty() && case.key.partner.id.as_str() != named
    }),
    (Verdict::PartnerSuspended, |case| {
        case.key.partner.is_suspended()
    }),
    (Verdict::ProjectMismatch, |case| {
        !reaches(case.key, case.question)
    }),
    (Verdict::AddressDenied, |case| {
        !case.key.admits(case.question.client)
    }),
    (Verdict::ScopeMissing, |case| !case.missing.is_empty()),
    (Verdict::NoRoute, |case| {
        matches!(case.question.target, Target::NoRoute)
    }),
];

/// The first reason against a proven key.
fn judge(case: &Case<'_>) -> Verdict {
    OBJECTIONS
        .iter()
        .find(|(_, speaks_against)| speaks_against(case))
        .map_or(Verdict::Allowed, |(verdict, _)| *verdict)
}

/// Everything that could speak against the key that a decision proved, and whether it does. For people who want to know why.
pub fn objections(
    question: &Question<'_>,
    decision: &Decision<'_>,
    now: Timestamp,
) -> Vec<(Verdict, bool)> {
    let Some((key, secret)) = decision.proven else {
        return Vec::new();
    };
    let case = Case {
        question,
        key,
        secret,
        missing: decision.missing,
        now,
    };
    OBJECTIONS
        .iter()
        .map(|(verdict, speaks_against)| (*verdict, speaks_against(&case)))
        .collect()
}

/// Whether the key's level and project reach what the request touches.
fn reaches(key: &KeyFacts, question: &Question<'_>) -> bool {
    let reaches_project = |wanted: &str| {
        let bound = key.project.as_ref();
        bound.is_none_or(|bound| bound.as_str() == wanted)
            && question.realm.owns(&key.partner.id, wanted)
    };
    let reaches_target = match question.target {
        Target::Any | Target::NoRoute => true,
        Target::Partner => key.project.is_none(),
        Target::OwnProject => key.project.is_some(),
        Target::Project(wanted) => reaches_project(wanted),
    };
    reaches_target
        && question
            .projects
            .iter()
            .all(|project| reaches_project(project))
}

impl Decision<'_> {
    /// When this decision may turn out otherwise by the mere passing of time.
    pub fn expires_at(&self) -> Expiry {
        match self.proven {
            Some((key, secret)) => match (key.expires_at, secret.expires_at) {
                (Expiry::At(key), Expiry::At(secret)) => Expiry::At(key.min(secret)),
                (Expiry::Never, end) | (end, Expiry::Never) => end,
            },
            None => Expiry::Never,
        }
    }
}

#[cfg(test)]
mod tests;
