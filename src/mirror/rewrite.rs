//! What stays away after the store's history was rewritten: what the index knows of the history that is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ceiling::Ceiling;
use super::index::Index;
use super::key_facts::{PackedEntry, PackedFacts};
use super::realm::{MirroredRealm, environments};
use crate::domain::access::ScopeSet;
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, ProjectId, RealmId, ScopeName};

/// How many keys and partners have less than the store says.
#[derive(Default)]
pub(super) struct HeldBack {
    /// Keys that were revoked.
    pub(super) revoked: usize,
    /// Other keys, and partners.
    pub(super) others: usize,
}

/// The names of the scopes that keys have, of which most keys have the same ones.
struct ScopeNames<'i> {
    index: &'i Index,
    known: HashMap<(RealmId, ScopeSet), Arc<[ScopeName]>>,
}

impl ScopeNames<'_> {
    fn of(&mut self, facts: &PackedFacts) -> Arc<[ScopeName]> {
        let Some(realm) = self.index.realm(facts.realm().as_str()) else {
            return Arc::default();
        };
        let effective = facts.effective(&realm.hierarchy);
        let names = self.known.entry((facts.realm().clone(), effective));
        let names = names.or_insert_with(|| realm.hierarchy.names(effective).cloned().collect());
        Arc::clone(names)
    }
}

impl Index {
    /// Takes from keys and partners what they did not have in `before`, the index that this one replaces.
    ///
    /// If the history is the same, only revoked keys stay as they were. `lost_after` is the last revision of the history of `before`
    /// that the store still has, if the rest of it is lost: then a key has no more than it had, a key that was deleted is revoked,
    /// and a suspended partner stays suspended.
    pub(super) fn hold_back(&self, before: &Self, lost_after: Option<Revision>) -> HeldBack {
        let mut held_back = HeldBack::default();
        let (keys, known, held) = (self.keys.pin(), before.keys.pin(), self.held.pin());
        let mut scopes = ScopeNames {
            index: before,
            known: HashMap::new(),
        };
        for (id, old) in &known {
            let PackedEntry::Key(old) = old else {
                continue;
            };
            let was_revoked = old.is_revoked();
            if !was_revoked && lost_after.is_none() {
                continue;
            }
            let ceiling = if was_revoked {
                Ceiling::Revoked
            } else {
                Ceiling::Facts {
                    facts: old.clone(),
                    scopes: scopes.of(old),
                }
            };
            match keys.get(id) {
                Some(PackedEntry::Key(new)) => {
                    let Some(restricted) = self.restricted(new, &ceiling) else {
                        continue;
                    };
                    keys.insert(*id, PackedEntry::Key(restricted));
                    if was_revoked {
                        held_back.revoked += 1;
                    } else {
                        held_back.others += 1;
                    }
                }
                // Its row may be readable again.
                Some(PackedEntry::Corrupt) => {}
                // A later state of the lost history may be put back.
                None if lost_after.is_some() => {}
                None => continue,
            }
            held.insert(*id, ceiling);
        }
        for (id, new) in &keys {
            if let Some(last) = lost_after
                && let PackedEntry::Key(new) = new
                && new.created_revision() <= last
                && !new.is_revoked()
                && known.get(id).is_none()
            {
                keys.insert(*id, PackedEntry::Key(new.revoked(&self.interner)));
                held.insert(*id, Ceiling::Revoked);
                held_back.others += 1;
            }
        }
        held_back.others += self.hold_back_partners(before, lost_after.is_some());
        held_back
    }

    fn hold_back_partners(&self, before: &Self, is_lost: bool) -> usize {
        let mut held = 0;
        for (id, realm) in &self.realms().by_id {
            let Some(realm_before) = before.realm(id.as_str()) else {
                continue;
            };
            for (id, was) in &realm_before.members.partners.pin() {
                if let Some(partner) = realm.members.partners.pin().get(id)
                    && (was.is_held() || is_lost && was.is_suspended() && !partner.is_suspended())
                {
                    partner.held.store(true, Ordering::Release);
                    partner.suspended.store(true, Ordering::Release);
                    held += 1;
                }
            }
        }
        held
    }

    /// The facts of a key without what it must not have, whatever the store says.
    pub(super) fn below_ceiling(&self, id: KeyId, facts: PackedFacts) -> PackedFacts {
        if self.held.is_empty() {
            return facts;
        }
        let held = self.held.pin();
        let restricted = held
            .get(&id)
            .and_then(|ceiling| self.restricted(&facts, ceiling));
        restricted.unwrap_or(facts)
    }

    /// The facts without what is above the ceiling, or `None` if nothing is.
    fn restricted(&self, facts: &PackedFacts, ceiling: &Ceiling) -> Option<PackedFacts> {
        match ceiling {
            Ceiling::Revoked => (!facts.is_revoked()).then(|| facts.revoked(&self.interner)),
            Ceiling::Facts {
                facts: most,
                scopes,
            } => {
                let realm = self.realm(facts.realm().as_str())?;
                facts.restricted_by(most, scopes, &realm.hierarchy, &self.interner)
            }
        }
    }

    /// Whether the key may have less than the store says, because the history in which it lost it is lost.
    pub fn is_held(&self, id: KeyId) -> bool {
        !self.held.is_empty() && self.held.pin().contains_key(&id)
    }

    /// Puts the definition and the routes that a realm had in `before`. Returns `false` if that does not have the realm.
    pub(super) fn put_realm_as_before(&self, id: &RealmId, before: &Self) -> bool {
        let Some(known) = before.realm(id.as_str()) else {
            return false;
        };
        let mut realms = self.realms().as_ref().clone();
        let realm = MirroredRealm {
            definition: known.definition.clone(),
            hierarchy: known.hierarchy.clone(),
            routes: Arc::clone(&known.routes),
            environments: environments(&known.definition, None),
            members: Arc::default(),
            decisions: self.decisions_of(id),
        };
        realms.by_id.insert(id.clone(), Arc::new(realm));
        self.set_realms(realms);
        true
    }

    /// Whether the realm has this project.
    pub(super) fn has_project(&self, realm: &RealmId, id: &ProjectId) -> bool {
        self.realm(realm.as_str())
            .is_some_and(|realm| realm.members.projects.pin().contains_key(id))
    }
}
