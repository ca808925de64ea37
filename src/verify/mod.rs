//! The decision on one API key: whether the key is allowed to do what a request needs.
//!
//! The functions are pure: they get every input as an argument, wait for nothing and store nothing. Only [`Moment::read`] reads clocks.

use std::net::IpAddr;
use std::time::Duration;

use crate::domain::access::ScopeSet;
use crate::domain::clock::Clock;
use crate::domain::ids::{EnvironmentName, ProjectId};
use crate::domain::key_text;
use crate::domain::lease::Lease;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::verdict::Verdict;
use crate::hashing::{ImportHash, Peppers};
use crate::mirror::{Entry, KeyFacts, MirroredRealm, MirroredSecret, View};

/// What a request needs of its key.
pub struct Question<'q> {
    /// The realm that the request calls.
    pub realm: &'q MirroredRealm,
    /// The environment that the request calls.
    pub environment: &'q EnvironmentName,
    /// What the request touches.
    pub target: Target<'q>,
    /// Further projects that the request touches.
    pub projects: &'q [&'q str],
    /// The partner that the request names; empty if it names none.
    pub partner: &'q str,
    /// The scopes that the key must hold, all of them.
    pub scopes: ScopeSet,
    /// The scopes of which the key must hold at least one, unless the set is empty.
    pub any_scopes: ScopeSet,
    /// The client address.
    pub client: Option<IpAddr>,
}

/// What a request touches.
#[derive(Clone, Copy, Debug)]
pub enum Target<'q> {
    /// The whole partner, which only a partner key reaches.
    Partner,
    /// This project.
    Project(&'q str),
    /// The project that the key is bound to, which only a project key reaches.
    OwnProject,
    /// Something that a key of either level reaches.
    Any,
    /// A request that matches no route of the realm.
    NoRoute,
}

/// The answer to a [`Question`].
pub struct Decision<'k> {
    /// Allowed, or the first reason against the key.
    pub verdict: Verdict,
    /// The key and its secret, if the API key proves them.
    pub proven: Option<(KeyFacts<'k>, MirroredSecret)>,
    /// The required scopes that the key does not hold.
    pub missing: ScopeSet,
}

/// The reason why there is no decision. A client cannot cause the error, except by presenting an API key of a key that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The stored row of the key, or of the realm, partner or project that the decision depends on, cannot be read.
    Corrupt,
    /// The pepper file does not contain the version under which the key was digested.
    PepperMissing,
    /// The lease of this server has lapsed: it may not know what was taken away since.
    LeaseLapsed,
}

/// The time of a decision, and how long this server may say "allowed" from then on.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    now: Timestamp,
    lease_left: Duration,
}

impl Moment {
    /// Reads the clock and the lease, for one request.
    ///
    /// The facts must be read afterwards. The lease was renewed when they contained everything that its renewal stands for, so they
    /// do now.
    pub fn read(clock: &Clock, lease: &Lease) -> Self {
        Self {
            now: clock.now(),
            lease_left: lease.left(),
        }
    }

    /// A time at which the lease does not matter.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            lease_left: Duration::MAX,
        }
    }

    /// The time.
    pub fn now(self) -> Timestamp {
        self.now
    }

    /// How much of the lease is left, which an answer must not be cached for longer than.
    pub fn lease_left(self) -> Duration {
        self.lease_left
    }

    /// Checks that this server may answer with what a change may have taken away.
    ///
    /// # Errors
    /// [`VerifyError::LeaseLapsed`].
    pub fn check_lease(self) -> Result<(), VerifyError> {
        if self.lease_left.is_zero() {
            Err(VerifyError::LeaseLapsed)
        } else {
            Ok(())
        }
    }

    /// Whether a verdict may be told. This is the one switch that every "allowed" goes through.
    ///
    /// A malformed key stays malformed, and a revoked one revoked. Every other verdict may have changed since the lease has lapsed.
    fn admit(self, decision: Decision<'_>) -> Result<Decision<'_>, VerifyError> {
        match decision.verdict {
            Verdict::Malformed | Verdict::Revoked => Ok(decision),
            _ => self.check_lease().map(|()| decision),
        }
    }
}

/// Decides a question about an API key as the client presented it. The caller reads the moment once for each request.
///
/// # Errors
/// If the key's row or pepper is unusable, or the lease has lapsed. Such a key is neither allowed nor denied.
///
/// # Examples
///
/// A new authority decides about its first operator key.
///
/// ```
/// # use clap::Parser;
/// # use claviger::config::StoreArgs;
/// # #[derive(Parser)]
/// # struct Line {
/// #     #[command(flatten)]
/// #     store: StoreArgs,
/// # }
/// use std::time::Duration;
///
/// use claviger::domain::access::ScopeSet;
/// use claviger::domain::clock::Clock;
/// use claviger::domain::key_text::PlainKey;
/// use claviger::domain::verdict::Verdict;
/// use claviger::mirror::Feed;
/// use claviger::open::{IfEmpty, OpenedStore};
/// use claviger::store::LockMode;
/// use claviger::verify::{Moment, Question, Target, decide};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data = format!("--data-dir={}", dir.path().join("data").display());
/// # let args = Line::parse_from(["", &data, "--argon2-memory=8", "--argon2-passes=1"]).store;
/// let mut operator_key = String::new();
/// let mut keep = |key: &PlainKey| {
///     key.expose().clone_into(&mut operator_key);
///     Ok(())
/// };
/// let opened = OpenedStore::open(
///     &args,
///     LockMode::Exclusive,
///     Clock::system(),
///     IfEmpty::Create(&mut keep),
/// )
/// .await?;
/// let mut feed = Feed::new(opened.store.clone(), opened.clock.clone(), Duration::from_secs(1));
/// feed.load().await?;
///
/// let mirror = feed.mirror();
/// let index = mirror.index();
/// let view = index.view();
/// let realm = view.realm("claviger").unwrap();
/// let question = Question {
///     realm,
///     environment: &realm.definition.environments[0].name,
///     target: Target::Partner,
///     projects: &[],
///     partner: "",
///     scopes: ScopeSet::default(),
///     any_scopes: ScopeSet::default(),
///     client: None,
/// };
/// let moment = Moment::at(opened.clock.now());
/// let decision = decide(&operator_key, &question, &view, &opened.peppers, moment).unwrap();
/// assert_eq!(decision.verdict, Verdict::Allowed);
/// # Ok(())
/// # }
/// ```
pub fn decide<'k>(
    plain_key: &str,
    question: &Question<'_>,
    view: &'k View<'_>,
    peppers: &Peppers,
    moment: Moment,
) -> Result<Decision<'k>, VerifyError> {
    let denied = |verdict| {
        moment.admit(Decision {
            verdict,
            proven: None,
            missing: ScopeSet::default(),
        })
    };
    match prove(plain_key, view, peppers)? {
        Proof::Key(key, secret) if *key.realm() == question.realm.definition.id => {
            judge(question, key, secret, moment)
        }
        Proof::Key(..) | Proof::Unknown => denied(Verdict::Unknown),
        Proof::Malformed => denied(Verdict::Malformed),
    }
}

/// Decides a question about a key of the question's realm whose secret is proven.
///
/// # Errors
/// If the stored partner or project cannot be read that the decision depends on, or the lease has lapsed.
pub fn judge<'k>(
    question: &Question<'_>,
    key: KeyFacts<'k>,
    secret: MirroredSecret,
    moment: Moment,
) -> Result<Decision<'k>, VerifyError> {
    if depends_on_unreadable(question, key) {
        return Err(VerifyError::Corrupt);
    }
    let missing = missing(question, key);
    moment.admit(Decision {
        verdict: first_objection(&ObjectionInput {
            question,
            key,
            secret,
            missing,
            now: moment.now,
        }),
        proven: Some((key, secret)),
        missing,
    })
}

/// Whether the stored partner of the key, or a project that it or the question names, cannot be read.
fn depends_on_unreadable(question: &Question<'_>, key: KeyFacts<'_>) -> bool {
    let wanted = match question.target {
        Target::Project(wanted) => Some(wanted),
        Target::Partner | Target::OwnProject | Target::Any | Target::NoRoute => None,
    };
    let own = key.project().map(ProjectId::as_str);
    key.partner().is_unreadable()
        || own
            .into_iter()
            .chain(wanted)
            .chain(question.projects.iter().copied())
            .any(|project| question.realm.has_unreadable_project(project))
}

/// What an API key proves by itself, independent of the request.
pub enum Proof<'k> {
    /// The secret of this key, which may be expired or revoked.
    Key(KeyFacts<'k>, MirroredSecret),
    /// Nothing: there is no such key, or the secret is wrong.
    Unknown,
    /// Nothing: the string cannot be an API key.
    Malformed,
}

/// Returns what an API key proves. A string that proves nothing costs at most two digests.
///
/// # Errors
/// If the row of the key that the string names cannot be read, or its pepper is missing.
pub fn prove<'k>(
    plain_key: &str,
    view: &'k View<'_>,
    peppers: &Peppers,
) -> Result<Proof<'k>, VerifyError> {
    if key_text::screen(plain_key).is_err() {
        return Ok(Proof::Malformed);
    }
    let issued = prove_issued(plain_key, view, peppers)?;
    if matches!(issued, Proof::Key(..)) || !view.has_imports() {
        return Ok(issued);
    }
    // Last, because an imported API key can have any form, even that of an issued API key.
    Ok(prove_imported(plain_key, view, peppers)?.unwrap_or(issued))
}

/// Returns what an API key proves if this authority issued it. Such an API key contains its key id.
fn prove_issued<'k>(
    plain_key: &str,
    view: &'k View<'_>,
    peppers: &Peppers,
) -> Result<Proof<'k>, VerifyError> {
    if !key_text::prefix(plain_key).is_some_and(|prefix| view.knows_prefix(prefix)) {
        return Ok(Proof::Unknown);
    }
    let Ok(parsed) = key_text::parse(plain_key) else {
        return Ok(Proof::Malformed);
    };
    let key = match view.key(parsed.id) {
        Some(Entry::Key(key)) if key.has_prefix_and_tag(parsed.prefix, parsed.tag) => key,
        Some(Entry::Corrupt) => return Err(VerifyError::Corrupt),
        _ => return Ok(Proof::Unknown),
    };
    let mut missing_pepper = false;
    for secret in key.secrets().filter(|secret| !secret.imported) {
        match peppers.proves(&secret.digest, parsed.id, &parsed.secret) {
            Some(true) => return Ok(Proof::Key(key, secret)),
            Some(false) => {}
            None => missing_pepper = true,
        }
    }
    if missing_pepper {
        Err(VerifyError::PepperMissing)
    } else {
        Ok(Proof::Unknown)
    }
}

/// Returns what an API key proves if it was imported. The key is found by the digest of the API key under each pepper.
fn prove_imported<'k>(
    plain_key: &str,
    view: &'k View<'_>,
    peppers: &Peppers,
) -> Result<Option<Proof<'k>>, VerifyError> {
    let hash = ImportHash::of(plain_key);
    for digest in peppers.digests_of_import(&hash) {
        let key = match view.key_of_import(&digest) {
            Some(Entry::Key(key)) => key,
            Some(Entry::Corrupt) => return Err(VerifyError::Corrupt),
            None => continue,
        };
        let mut secrets = key.secrets();
        if let Some(secret) = secrets.find(|secret| secret.imported && secret.digest == digest) {
            return Ok(Some(Proof::Key(key, secret)));
        }
    }
    Ok(None)
}

/// The required scopes that the key does not hold.
fn missing(question: &Question<'_>, key: KeyFacts<'_>) -> ScopeSet {
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

/// The input of an objection: a proven key and the question about it.
struct ObjectionInput<'c> {
    question: &'c Question<'c>,
    key: KeyFacts<'c>,
    secret: MirroredSecret,
    missing: ScopeSet,
    now: Timestamp,
}

/// A condition that speaks against a key; returns whether it holds.
type Objection = fn(&ObjectionInput<'_>) -> bool;

/// The objections to a proven key, in the order that the API contract defines.
const OBJECTIONS: [(Verdict, Objection); 10] = [
    (Verdict::Revoked, |case| case.key.is_revoked()),
    (Verdict::Disabled, |case| case.key.is_disabled()),
    (Verdict::Expired, |case| {
        case.key.expires_at().is_over(case.now) || case.secret.expires_at.is_over(case.now)
    }),
    (Verdict::EnvironmentMismatch, |case| {
        case.key.environment() != case.question.environment
    }),
    (Verdict::PartnerMismatch, |case| {
        let named = case.question.partner;
        !named.is_empty() && case.key.partner().id.as_str() != named
    }),
    (Verdict::PartnerSuspended, |case| {
        case.key.partner().is_suspended()
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

/// The verdict of the first objection that holds, or [`Verdict::Allowed`].
fn first_objection(input: &ObjectionInput<'_>) -> Verdict {
    OBJECTIONS
        .iter()
        .find(|(_, holds)| holds(input))
        .map_or(Verdict::Allowed, |(verdict, _)| *verdict)
}

/// Every objection to the key that a decision proved, and whether the objection holds. Explain shows them. Empty if the decision
/// proved no key.
pub fn objections(
    question: &Question<'_>,
    decision: &Decision<'_>,
    now: Timestamp,
) -> Vec<(Verdict, bool)> {
    let Some((key, secret)) = decision.proven else {
        return Vec::new();
    };
    let input = ObjectionInput {
        question,
        key,
        secret,
        missing: decision.missing,
        now,
    };
    OBJECTIONS
        .iter()
        .map(|(verdict, holds)| (*verdict, holds(&input)))
        .collect()
}

/// Whether the key's level and project reach what the request touches.
fn reaches(key: KeyFacts<'_>, question: &Question<'_>) -> bool {
    let reaches_project = |wanted: &str| {
        let bound = key.project();
        bound.is_none_or(|bound| bound.as_str() == wanted)
            && question.realm.owns(&key.partner().id, wanted)
    };
    let reaches_target = match question.target {
        Target::Any | Target::NoRoute => true,
        Target::Partner => key.project().is_none(),
        Target::OwnProject => key.project().is_some(),
        Target::Project(wanted) => reaches_project(wanted),
    };
    reaches_target
        && question
            .projects
            .iter()
            .all(|project| reaches_project(project))
}

impl Decision<'_> {
    /// When the decision can change without any change in the store: the earlier expiry of the key and its secret.
    pub fn expires_at(&self) -> Expiry {
        match self.proven {
            Some((key, secret)) => match (key.expires_at(), secret.expires_at) {
                (Expiry::At(key), Expiry::At(secret)) => Expiry::At(key.min(secret)),
                (Expiry::Never, end) | (end, Expiry::Never) => end,
            },
            None => Expiry::Never,
        }
    }
}

#[cfg(test)]
mod tests;
