//! What stays taken away although the change that took it is lost: each thing has what both histories give it.
//!
//! A history was rewritten if the store lost changes that the mirror contains, as after a failover to a standby that lacked them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::holds::Holds;
use super::index::Index;
use super::key_facts::{PackedEntry, PackedFacts};
use crate::domain::event::Revision;
use crate::domain::hold::{Ceiling, Hold, Holdable};
use crate::domain::ids::{KeyId, ProjectId, RealmId};
use crate::store::{ProjectRow, RealmRow};

impl Holds {
    /// Adds the realms that `before` had with another definition, and the projects that it did not have any more. `known` is the last
    /// revision of its history, and `last` the last one that the store still has.
    pub(super) fn add_definitions<'r>(
        &mut self,
        before: &Index,
        known: Revision,
        last: Revision,
        realms: impl Iterator<Item = &'r RealmRow>,
        projects: impl Iterator<Item = &'r ProjectRow>,
    ) {
        for row in realms {
            let id = &row.value.id;
            // The built-in realm belongs to the program, and the operator who accepts the loss needs it. An earlier hold stays in
            // force, and so does a conflict with it.
            if id.is_built_in() || self.realm(id).is_some() || before.has_unreadable_realm(id) {
                continue;
            }
            let realm_before = before.realm(id.as_str());
            let definition = realm_before.map(|realm| realm.whole_definition());
            if let Some(definition) = definition.filter(|definition| *definition != row.value) {
                self.add(Hold::Realm {
                    known,
                    last,
                    definition: Box::new(definition),
                });
            }
        }
        for row in projects {
            let (realm, id) = (&row.value.realm, &row.value.id);
            // A realm that is new has new projects.
            let was_deleted = row.revision <= last
                && before.realm(realm.as_str()).is_some()
                && !before.has_project(realm, id);
            if was_deleted {
                self.add(Hold::Project {
                    realm: realm.clone(),
                    id: id.clone(),
                });
            }
        }
    }
}

impl Index {
    /// Takes from keys and partners what they did not have in `before`, the index that this one replaces, and holds it.
    ///
    /// If the history is the same, only revoked keys stay as they were. `lost_after` is the last revision of the history of `before`
    /// that the store still has, if the rest of it is lost: then a key has no more than it had, a key that was deleted is revoked,
    /// and a suspended partner stays suspended.
    pub(super) fn hold_back(&self, before: &Self, lost_after: Option<Revision>) {
        let mut holds = Holds::clone(&self.holds());
        self.hold_back_keys(before, lost_after, &mut holds);
        if lost_after.is_some() {
            self.hold_back_partners(before, &mut holds);
        }
        self.set_holds(holds);
    }

    fn hold_back_keys(&self, before: &Self, lost_after: Option<Revision>, holds: &mut Holds) {
        let (keys, known) = (self.keys.pin(), before.keys.pin());
        for (id, old) in &known {
            let PackedEntry::Key(old) = old else {
                continue;
            };
            let ceiling = if old.is_revoked() {
                Ceiling::Revoked
            } else if lost_after.is_some() {
                let realm = before.realm(old.realm().as_str());
                let Some(realm) = realm else { continue };
                Ceiling::Had(Box::new(old.had(&realm.hierarchy)))
            } else {
                continue;
            };
            match keys.get(id) {
                Some(PackedEntry::Key(new)) => {
                    let Some(restricted) = self.restricted(new, &ceiling) else {
                        continue;
                    };
                    keys.insert(*id, PackedEntry::Key(restricted));
                }
                // Its row may be readable again.
                Some(PackedEntry::Corrupt) => {}
                // A later state of the lost history may be put back.
                None if lost_after.is_some() => {}
                None => continue,
            }
            holds.add(Hold::Key {
                id: *id,
                at_most: ceiling,
            });
        }
        let Some(last) = lost_after else { return };
        for (id, new) in &keys {
            if let PackedEntry::Key(new) = new
                && new.created_revision() <= last
                && !new.is_revoked()
                && known.get(id).is_none()
            {
                keys.insert(*id, PackedEntry::Key(new.revoked(&self.interner)));
                holds.add(Hold::Key {
                    id: *id,
                    at_most: Ceiling::Revoked,
                });
            }
        }
    }

    fn hold_back_partners(&self, before: &Self, holds: &mut Holds) {
        for (id, realm) in &self.realms().by_id {
            let Some(realm_before) = before.realm(id.as_str()) else {
                continue;
            };
            for (partner, was) in &realm_before.members.partners.pin() {
                if let Some(now) = realm.members.partners.pin().get(partner)
                    && was.is_suspended()
                    && !now.is_suspended()
                {
                    now.suspended.store(true, Ordering::Release);
                    holds.add(Hold::Partner {
                        realm: id.clone(),
                        id: partner.clone(),
                    });
                }
            }
        }
    }

    /// The facts of a key without what it must not have, whatever the store says.
    pub(super) fn below_ceiling(&self, id: KeyId, facts: PackedFacts) -> PackedFacts {
        let holds = self.holds();
        holds.ceilings(id).iter().fold(facts, |facts, ceiling| {
            self.restricted(&facts, ceiling).unwrap_or(facts)
        })
    }

    /// The facts without what is above the ceiling, or `None` if nothing is.
    fn restricted(&self, facts: &PackedFacts, ceiling: &Ceiling) -> Option<PackedFacts> {
        match ceiling {
            Ceiling::Revoked => (!facts.is_revoked()).then(|| facts.revoked(&self.interner)),
            Ceiling::Had(most) => {
                let realm = self.realm(facts.realm().as_str())?;
                facts.restricted_by(most, &realm.hierarchy, &self.interner)
            }
        }
    }

    /// Whether this has less than the store says, because a lost change took more from it.
    pub fn is_held(&self, what: &Holdable) -> bool {
        self.holds().has(what)
    }

    /// How many keys, partners, projects and realms have less than the store says.
    pub fn held(&self) -> usize {
        self.holds().len()
    }

    /// The holds of this index that are not among these.
    pub(super) fn holds_beside<'h>(&self, others: impl Iterator<Item = &'h Hold>) -> Vec<Hold> {
        let text = |hold: &Hold| serde_json::to_string(hold).expect("a hold can be serialized");
        let others: HashSet<String> = others.map(text).collect();
        let holds = Arc::clone(&self.holds());
        holds
            .all()
            .filter(|hold| !others.contains(&text(hold)))
            .collect()
    }

    /// Whether a key of the realm is held.
    pub(super) fn has_held_key(&self, realm: &RealmId) -> bool {
        let keys = self.keys.pin();
        let is_of_realm = |id: KeyId| match keys.get(&id) {
            Some(PackedEntry::Key(key)) => key.realm() == realm,
            Some(PackedEntry::Corrupt) => true,
            None => false,
        };
        self.holds().keys().any(is_of_realm)
    }

    /// Whether the realm has this project.
    fn has_project(&self, realm: &RealmId, id: &ProjectId) -> bool {
        self.realm(realm.as_str())
            .is_some_and(|realm| realm.members.projects.pin().contains_key(id))
    }
}
