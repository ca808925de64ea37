//! What stays away after the store's history was rewritten: the part of the index that merges what it knew before.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::index::Index;
use super::key_facts::{PackedEntry, PackedFacts};
use super::realm::{MirroredRealm, environments};
use crate::domain::access::ScopeSet;
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, PartnerId, ProjectId, RealmId};

impl Index {
    /// Marks every key as revoked that was revoked in `before`. Returns the number of keys that are not revoked in the store.
    pub(crate) fn keep_revoked(&self, before: &Self) -> usize {
        let keys = self.keys.pin();
        let mut kept = 0;
        for (id, entry) in &before.keys.pin() {
            if let (PackedEntry::Key(old), Some(PackedEntry::Key(new))) = (entry, keys.get(id))
                && old.is_revoked()
                && !new.is_revoked()
            {
                keys.insert(*id, PackedEntry::Key(new.revoked(&self.interner)));
                kept += 1;
            }
        }
        kept
    }

    /// Takes from keys and partners what they did not have in `before`, which is of a history that was lost after the revision
    /// `fork`: a key has no more than it had, a key that was deleted is revoked, and a suspended partner stays suspended. Returns the
    /// number of keys and partners that have more in the store.
    pub(super) fn hold_back(&self, before: &Self, fork: Revision) -> usize {
        let (keys, known) = (self.keys.pin(), before.keys.pin());
        let mut held = 0;
        for (id, entry) in &keys {
            let PackedEntry::Key(new) = entry else {
                continue;
            };
            let restricted = match known.get(id) {
                Some(PackedEntry::Key(old)) => self.restricted(new, old, before),
                Some(PackedEntry::Corrupt) => None,
                None => (new.created_revision() <= fork && !new.is_revoked())
                    .then(|| new.revoked(&self.interner)),
            };
            if let Some(restricted) = restricted {
                keys.insert(*id, PackedEntry::Key(restricted));
                self.held.pin().insert(*id, ());
                held += 1;
            }
        }
        for (id, realm) in &self.realms().by_id {
            let Some(realm_before) = before.realm(id.as_str()) else {
                continue;
            };
            for (id, partner_before) in &realm_before.members.partners.pin() {
                if let Some(partner) = realm.members.partners.pin().get(id)
                    && partner_before.is_suspended()
                    && (partner_before.is_held() || !partner.is_suspended())
                {
                    partner.held.store(true, Ordering::Release);
                    partner.suspended.store(true, Ordering::Release);
                    held += 1;
                }
            }
        }
        held
    }

    /// The facts without what the key did not have in an index, or `None` if it had everything.
    pub(super) fn restricted(
        &self,
        facts: &PackedFacts,
        before: &PackedFacts,
        index_before: &Self,
    ) -> Option<PackedFacts> {
        let realm = self.realm(facts.realm().as_str())?;
        let realm_before = index_before.realm(before.realm().as_str())?;
        // The same scope may have another index in the other hierarchy.
        let mut effective_before = ScopeSet::default();
        let held_before = before.effective(&realm_before.hierarchy);
        for name in realm_before.hierarchy.names(held_before) {
            if let Some(index) = realm.hierarchy.index_of(name.as_str()) {
                effective_before.insert(index);
            }
        }
        let effective = facts.effective(&realm.hierarchy);
        facts.restricted_by(before, effective, effective_before, &self.interner)
    }

    /// Whether the key has less than the store says, because the history in which it lost it is lost.
    pub fn is_held(&self, id: KeyId) -> bool {
        !self.held.is_empty() && self.held.pin().contains_key(&id)
    }

    /// Whether the partner stays suspended, because the history in which it was suspended is lost.
    pub fn is_partner_held(&self, realm: &RealmId, id: &PartnerId) -> bool {
        self.realm(realm.as_str()).is_some_and(|realm| {
            let partners = realm.members.partners.pin();
            partners.get(id).is_some_and(|partner| partner.is_held())
        })
    }

    /// Puts the definition and the routes that a realm had in `before`, if that has the realm.
    pub(super) fn put_realm_as_before(&self, id: &RealmId, before: &Self) {
        let Some(known) = before.realm(id.as_str()) else {
            return;
        };
        let mut realms = self.realms().as_ref().clone();
        let realm = MirroredRealm {
            definition: known.definition.clone(),
            hierarchy: known.hierarchy.clone(),
            routes: Arc::clone(&known.routes),
            environments: environments(&known.definition, None),
            members: Arc::default(),
        };
        realms.by_id.insert(id.clone(), Arc::new(realm));
        self.set_realms(realms);
    }

    /// Whether the realm has this project.
    pub(super) fn has_project(&self, realm: &RealmId, id: &ProjectId) -> bool {
        self.realm(realm.as_str())
            .is_some_and(|realm| realm.members.projects.pin().contains_key(id))
    }
}
