//! The facts that many keys have in common, in memory once.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

use super::realm::{EnvironmentFacts, MirroredPartner};
use crate::domain::access::ScopeSet;
use crate::domain::ids::ProjectId;

/// The facts of a key that many keys have in common. Equal ones are one value, which each of these keys refers to.
#[derive(Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as the store has them"
)]
pub(super) struct SharedFacts {
    pub(super) environment_facts: ById<EnvironmentFacts>,
    pub(super) partner: ById<MirroredPartner>,
    /// The project that the key is bound to; `None` for a partner key.
    pub(super) project: Option<ProjectId>,
    /// The scopes that the key was granted by name.
    pub(super) granted: ScopeSet,
    pub(super) full_access: bool,
    pub(super) disabled: bool,
    /// Whether the key was revoked individually, as opposed to by a bulk revocation.
    pub(super) revoked: bool,
    /// The version of the pepper of the newest secret's digest.
    pub(super) pepper: u32,
    /// Whether the newest secret belongs to an imported API key.
    pub(super) imported: bool,
}

/// A shared value that equals only itself. A partner that was deleted and created again is another partner, also if all its
/// facts are the same.
pub(super) struct ById<T>(Arc<T>);

impl<T> From<&Arc<T>> for ById<T> {
    fn from(shared: &Arc<T>) -> Self {
        Self(Arc::clone(shared))
    }
}

impl<T> Deref for ById<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for ById<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for ById<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for ById<T> {}

impl<T> Hash for ById<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The address stays the same, and no other value gets it, while this reference exists.
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// Finds the one value that equals given facts. Only the feed uses it, so nothing waits for its lock.
#[derive(Default)]
pub(super) struct Interner(Mutex<Known>);

#[derive(Default)]
struct Known {
    facts: HashSet<Arc<SharedFacts>, RandomState>,
    /// The number of facts at which those are dropped that no key has any more.
    sweep_at: usize,
}

impl Interner {
    /// The number of facts below which there is no sweep.
    pub(super) const SMALL: usize = 1_024;

    /// The one value that equals these facts.
    ///
    /// Facts that no key has any more are dropped whenever their number may have doubled. So a sweep costs little for each new
    /// fact, and at most half of the facts are unused. They cannot be dropped with the last key that has them, because a reader
    /// may still hold the key's old entry.
    pub(super) fn intern(&self, facts: SharedFacts) -> Arc<SharedFacts> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.facts.get(&facts) {
            return Arc::clone(same);
        }
        if known.facts.len() >= known.sweep_at {
            known.facts.retain(|facts| Arc::strong_count(facts) > 1);
            known.sweep_at = (2 * known.facts.len()).max(Self::SMALL);
            let room = known.sweep_at;
            known.facts.shrink_to(room);
        }
        let new = Arc::new(facts);
        known.facts.insert(Arc::clone(&new));
        new
    }

    /// The number of different facts.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().facts.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::domain::ids::PartnerId;
    use crate::domain::realm::Realm;
    use crate::mirror::realm::environments;
    use crate::mirror::revocation_watermarks::RevocationWatermarks;

    fn facts() -> SharedFacts {
        SharedFacts {
            environment_facts: ById::from(&environments(&Realm::built_in(), None)[0]),
            partner: ById::from(&Arc::new(MirroredPartner {
                id: PartnerId::parse("acme").unwrap(),
                suspended: AtomicBool::new(false),
                unreadable: AtomicBool::new(false),
                watermarks: RevocationWatermarks::default(),
            })),
            project: None,
            granted: ScopeSet::default(),
            full_access: false,
            disabled: false,
            revoked: false,
            pepper: 1,
            imported: false,
        }
    }

    /// Seen red with `SMALL` as the only bound of `sweep_at`: the sweep then runs for each new fact.
    #[test]
    fn facts_that_keys_have_are_kept_and_swept_seldom() {
        let interner = Interner::default();
        let first = facts();
        let mut kept = Vec::new();
        let mut sweeps = 0;
        for pepper in 0..20_000 {
            let before = interner.0.lock().unwrap().sweep_at;
            kept.push(interner.intern(SharedFacts {
                pepper,
                ..first.clone()
            }));
            sweeps += usize::from(interner.0.lock().unwrap().sweep_at != before);
        }
        assert_eq!(interner.len(), kept.len());
        assert_eq!(
            sweeps, 6,
            "at 0, 1,024, 2,048, 4,096, 8,192 and 16,384 facts"
        );
    }
}
