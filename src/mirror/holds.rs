//! The holds in memory: what has less than the store says, because a lost change took more from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::domain::event::Revision;
use crate::domain::hold::{Ceiling, Hold, Holdable};
use crate::domain::ids::{KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::realm::Realm;
use crate::store::RealmRow;

/// All holds, by what they are about.
#[derive(Clone, Default)]
pub(super) struct Holds {
    keys: HashMap<KeyId, Vec<Ceiling>>,
    partners: HashSet<(RealmId, PartnerId)>,
    projects: HashSet<(RealmId, ProjectId)>,
    /// The hold of the server that knew the most.
    realms: HashMap<RealmId, HeldRealm>,
}

/// The definition that a realm keeps.
#[derive(Clone)]
pub(super) struct HeldRealm {
    pub(super) definition: Arc<Realm>,
    /// The revision up to which changes were applied by the server that knew the definition.
    known: Revision,
    /// The last of them that the history still has.
    last: Revision,
}

impl HeldRealm {
    /// Whether somebody has changed the stored realm without knowledge of the hold. Then neither definition has all that was taken
    /// away.
    pub(super) fn conflicts_with(&self, row: &RealmRow) -> bool {
        row.revision > self.last
    }
}

impl Holds {
    pub(super) fn add(&mut self, new: Hold) {
        match new {
            Hold::Key { id, at_most } => {
                let ceilings = self.keys.entry(id).or_default();
                if !ceilings.contains(&at_most) {
                    ceilings.push(at_most);
                }
            }
            Hold::Partner { realm, id } => {
                self.partners.insert((realm, id));
            }
            Hold::Project { realm, id } => {
                self.projects.insert((realm, id));
            }
            Hold::Realm {
                known,
                last,
                definition,
            } => {
                let other = self.realms.get(&definition.id);
                if other.is_none_or(|other| other.known < known) {
                    let id = definition.id.clone();
                    let held = HeldRealm {
                        definition: definition.into(),
                        known,
                        last,
                    };
                    self.realms.insert(id, held);
                }
            }
        }
    }

    /// All holds. Of a realm, the one that is in force.
    pub(super) fn all(&self) -> impl Iterator<Item = Hold> {
        let keys = self.keys.iter().flat_map(|(id, ceilings)| {
            ceilings.iter().map(|at_most| Hold::Key {
                id: *id,
                at_most: at_most.clone(),
            })
        });
        let partners = self.partners.iter().cloned();
        let partners = partners.map(|(realm, id)| Hold::Partner { realm, id });
        let projects = self.projects.iter().cloned();
        let projects = projects.map(|(realm, id)| Hold::Project { realm, id });
        let realms = self.realms.values().map(|held| Hold::Realm {
            known: held.known,
            last: held.last,
            definition: Box::new(Realm::clone(&held.definition)),
        });
        keys.chain(partners).chain(projects).chain(realms)
    }

    /// What a key has at most: each of these.
    pub(super) fn ceilings(&self, key: KeyId) -> &[Ceiling] {
        self.keys.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The keys that are held.
    pub(super) fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.keys.keys().copied()
    }

    /// The definition that a realm keeps.
    pub(super) fn realm(&self, id: &RealmId) -> Option<&HeldRealm> {
        self.realms.get(id)
    }

    pub(super) fn has_partner(&self, realm: &RealmId, id: &PartnerId) -> bool {
        !self.partners.is_empty() && self.partners.contains(&(realm.clone(), id.clone()))
    }

    pub(super) fn has_project(&self, realm: &RealmId, id: &ProjectId) -> bool {
        !self.projects.is_empty() && self.projects.contains(&(realm.clone(), id.clone()))
    }

    pub(super) fn has(&self, what: &Holdable) -> bool {
        match what {
            Holdable::Key(id) => self.keys.contains_key(id),
            Holdable::Partner(realm, id) => self.has_partner(realm, id),
            Holdable::Project(realm, id) => self.has_project(realm, id),
            Holdable::Realm(id) => self.realms.contains_key(id),
        }
    }

    /// How many keys, partners, projects and realms are held.
    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.partners.len() + self.projects.len() + self.realms.len()
    }
}

impl FromIterator<Hold> for Holds {
    fn from_iter<I: IntoIterator<Item = Hold>>(holds: I) -> Self {
        let mut all = Self::default();
        for hold in holds {
            all.add(hold);
        }
        all
    }
}
