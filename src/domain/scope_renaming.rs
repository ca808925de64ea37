//! The renaming of a scope, also on the keys that hold it.
//!
//! A realm and its keys cannot all change at once. So the realm first gets the new scope beside the old one
//! ([`begin`](ScopeRenaming::begin)). Until the renaming is finished, the two imply each other: a key with either name holds both.
//! Then each key gets the new name in place of the old one ([`rename_in`](ScopeRenaming::rename_in)). When no key has the old name, the
//! new scope takes the place of the old one ([`finish`](ScopeRenaming::finish)). So no key loses access at any moment.

use std::collections::BTreeSet;
use std::{fmt, mem};

use super::access::{Access, Scope};
use super::ids::ScopeName;
use super::realm::Realm;
use super::route::{KeyNeed, Need};

/// The two names of a scope that is renamed.
#[derive(Clone, Debug)]
pub struct ScopeRenaming {
    /// The name that the scope has.
    pub old: ScopeName,
    /// The name that it gets.
    pub new: ScopeName,
}

/// How far the renaming of a scope has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenamingStage {
    /// The realm has only the old scope.
    NotBegun,
    /// The realm has both scopes, and the new one replaces the old one.
    Unfinished,
    /// The realm has only the new scope.
    Finished,
}

/// Why a scope cannot be renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenamingConflict {
    /// The realm has neither scope.
    NoScope,
    /// The realm has another scope with the new name.
    NameTaken,
    /// An unfinished renaming of this scope to this name is in the way.
    Other(ScopeName, ScopeName),
}

impl fmt::Display for ScopeRenaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.old, self.new)
    }
}

impl ScopeRenaming {
    /// Returns how far the renaming has come in this realm.
    ///
    /// # Errors
    /// Why the renaming can neither begin nor go on.
    pub fn stage(&self, realm: &Realm) -> Result<RenamingStage, RenamingConflict> {
        let find = |name: &ScopeName| realm.scopes.iter().find(|scope| scope.name == *name);
        match (find(&self.old), find(&self.new)) {
            (None, None) => Err(RenamingConflict::NoScope),
            (None, Some(_)) => Ok(RenamingStage::Finished),
            (Some(old), Some(new)) if new.replaces.as_ref() == Some(&old.name) => {
                Ok(RenamingStage::Unfinished)
            }
            // The other way round.
            (Some(old), Some(new)) if old.replaces.as_ref() == Some(&new.name) => {
                Err(RenamingConflict::Other(new.name.clone(), old.name.clone()))
            }
            (Some(_), Some(_)) => Err(RenamingConflict::NameTaken),
            (Some(old), None) => match other_renaming(&realm.scopes, old) {
                Some((from, to)) => Err(RenamingConflict::Other(from, to)),
                None => Ok(RenamingStage::NotBegun),
            },
        }
    }

    /// Begins the renaming in a realm in which it has not begun: adds the new scope.
    pub fn begin(&self, realm: &mut Realm) {
        let scopes = &mut realm.scopes;
        let Some(place) = scopes.iter().position(|scope| scope.name == self.old) else {
            return;
        };
        let new = Scope {
            name: self.new.clone(),
            implies: BTreeSet::from([self.old.clone()]),
            description: scopes[place].description.clone(),
            replaces: Some(self.old.clone()),
        };
        scopes.insert(place + 1, new);
    }

    /// Finishes the renaming, or makes it at once if it has not begun: the new scope takes the place of the old one, with its
    /// implications, wherever the realm names it.
    pub fn finish(&self, realm: &mut Realm) {
        let place = |scopes: &[Scope], name: &ScopeName| {
            scopes.iter().position(|scope| scope.name == *name)
        };
        if let Some(new) = place(&realm.scopes, &self.new) {
            // People may have described the new scope meanwhile.
            let description = realm.scopes.remove(new).description;
            if let Some(old) = place(&realm.scopes, &self.old) {
                realm.scopes[old].description = description;
            }
        }
        let Realm {
            scopes,
            admin_scope,
            routes,
            // None of these names a scope.
            id: _,
            prefix: _,
            environments: _,
            unscoped_keys: _,
            levels: _,
            max_cache: _,
            max_lifetime: _,
            credentials: _,
            paths: _,
            denials: _,
            identity_labels: _,
            self_rotation: _,
            record_addresses: _,
        } = realm;
        for scope in scopes {
            self.rename(&mut scope.name);
            self.rename_in_set(&mut scope.implies);
        }
        if let Some(admin_scope) = admin_scope {
            self.rename(admin_scope);
        }
        for route in routes {
            if let Need::Key(KeyNeed {
                reach: _,
                scopes,
                any_scopes,
            }) = &mut route.need
            {
                self.rename_in_list(scopes);
                self.rename_in_list(any_scopes);
            }
        }
    }

    /// Puts the new name in the place of the old one among the granted scopes of a key.
    pub fn rename_in(&self, access: &mut Access) {
        if let Access::Scopes(scopes) = access {
            self.rename_in_set(scopes);
        }
    }

    fn rename(&self, name: &mut ScopeName) {
        if *name == self.old {
            name.clone_from(&self.new);
        }
    }

    fn rename_in_set(&self, names: &mut BTreeSet<ScopeName>) {
        if names.remove(&self.old) {
            names.insert(self.new.clone());
        }
    }

    /// Renames in the list of a route, which is sorted and has no duplicates.
    fn rename_in_list(&self, names: &mut Vec<ScopeName>) {
        if names.contains(&self.old) {
            let mut renamed: BTreeSet<_> = mem::take(names).into_iter().collect();
            self.rename_in_set(&mut renamed);
            names.extend(renamed);
        }
    }
}

/// Returns the old and the new name of the unfinished renaming that this scope is part of.
fn other_renaming(scopes: &[Scope], scope: &Scope) -> Option<(ScopeName, ScopeName)> {
    let is_part =
        |other: &&Scope| other.name == scope.name || other.replaces.as_ref() == Some(&scope.name);
    let mut parts = scopes.iter().filter(is_part);
    parts.find_map(|new| Some((new.replaces.clone()?, new.name.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::ScopeHierarchy;
    use crate::domain::violation::Violations;

    fn name(name: &str) -> ScopeName {
        ScopeName::parse(name).unwrap()
    }

    fn names(list: &str) -> BTreeSet<ScopeName> {
        list.split_whitespace().map(name).collect()
    }

    fn renaming(old: &str, new: &str) -> ScopeRenaming {
        ScopeRenaming {
            old: name(old),
            new: name(new),
        }
    }

    /// A realm in which `admin` implies `write`, which implies `read`, and whose routes demand `write`.
    fn realm() -> Realm {
        let scope = |scope: &str, implies: &str| Scope {
            name: name(scope),
            implies: names(implies),
            description: format!("may {scope}"),
            replaces: None,
        };
        let route = r#"[{"path": "/a", "methods": [],
            "need": {"key": {"reach": "any", "scopes": ["read", "write"], "any_scopes": ["admin", "write"]}}}]"#;
        Realm {
            scopes: vec![
                scope("admin", "write"),
                scope("write", "read"),
                scope("read", ""),
            ],
            admin_scope: Some(name("write")),
            routes: serde_json::from_str(route).unwrap(),
            ..Realm::built_in()
        }
    }

    fn is_valid(realm: &Realm) -> bool {
        let mut bad = Violations::default();
        realm.check(&mut bad);
        bad.is_empty()
    }

    /// What the scopes imply, in their order.
    fn scopes(realm: &Realm) -> Vec<String> {
        let scopes = realm.scopes.iter().map(|scope| {
            let implies: Vec<_> = scope.implies.iter().map(ScopeName::as_str).collect();
            format!("{}: {}", scope.name, implies.join(" "))
        });
        scopes.collect()
    }

    /// Seen red without the equality of both names in `ScopeHierarchy::new`.
    #[test]
    fn a_key_with_either_name_holds_both_until_the_renaming_is_finished() {
        let renaming = renaming("write", "edit");
        let mut realm = realm();
        assert_eq!(renaming.stage(&realm), Ok(RenamingStage::NotBegun));
        renaming.begin(&mut realm);
        assert!(is_valid(&realm));
        assert_eq!(renaming.stage(&realm), Ok(RenamingStage::Unfinished));
        assert_eq!(
            scopes(&realm),
            ["admin: write", "write: read", "edit: write", "read: "]
        );
        let held = |realm: &Realm, granted: &str| {
            let hierarchy = ScopeHierarchy::new(&realm.scopes, None);
            let held = hierarchy.effective_access(&Access::Scopes(names(granted)));
            hierarchy.names(held).cloned().collect::<BTreeSet<_>>()
        };
        assert_eq!(held(&realm, "write"), names("edit read write"));
        assert_eq!(held(&realm, "edit"), names("edit read write"));
        assert_eq!(held(&realm, "admin"), names("admin edit read write"));
        assert_eq!(held(&realm, "read"), names("read"));
        assert_eq!(realm.scopes[2].description, "may write");
        assert_eq!(realm.admin_scope, Some(name("write")));

        realm.scopes[2].description = "may edit".to_owned();
        renaming.finish(&mut realm);
        assert!(is_valid(&realm));
        assert_eq!(renaming.stage(&realm), Ok(RenamingStage::Finished));
        assert_eq!(scopes(&realm), ["admin: edit", "edit: read", "read: "]);
        assert_eq!(held(&realm, "edit"), names("edit read"));
        assert_eq!(realm.scopes[1].description, "may edit");
        assert_eq!(realm.scopes[1].replaces, None);
    }

    /// Seen red with the lists of routes left unsorted, and with the admin scope left as it was.
    #[test]
    fn a_finished_renaming_is_the_same_as_one_that_is_made_at_once() {
        let renaming = renaming("write", "edit");
        let mut at_once = realm();
        renaming.finish(&mut at_once);
        let mut by_steps = realm();
        renaming.begin(&mut by_steps);
        renaming.finish(&mut by_steps);
        assert_eq!(at_once, by_steps);
        assert_eq!(at_once.admin_scope, Some(name("edit")));
        let Need::Key(need) = &at_once.routes[0].need else {
            panic!("the route demands a key");
        };
        assert_eq!(need.scopes, [name("edit"), name("read")]);
        assert_eq!(need.any_scopes, [name("admin"), name("edit")]);
    }

    /// A scope that implies another one is not about to replace it. Seen red without the comparison of `replaces`.
    #[test]
    fn a_renaming_never_takes_another_scope_for_its_own() {
        let realm = realm();
        let conflict = |old, new| renaming(old, new).stage(&realm).unwrap_err();
        assert_eq!(conflict("read", "write"), RenamingConflict::NameTaken);
        assert_eq!(conflict("ghost", "other"), RenamingConflict::NoScope);
        let mut unfinished = realm.clone();
        renaming("write", "edit").begin(&mut unfinished);
        assert_eq!(
            renaming("edit", "write").stage(&unfinished),
            Err(RenamingConflict::Other(name("write"), name("edit")))
        );
        assert_eq!(
            renaming("ghost", "read").stage(&realm),
            Ok(RenamingStage::Finished)
        );
    }

    /// Seen red without each of the two conditions of `other_renaming`.
    #[test]
    fn a_scope_is_part_of_one_renaming_at_a_time() {
        let mut realm = realm();
        renaming("write", "edit").begin(&mut realm);
        let other = RenamingConflict::Other(name("write"), name("edit"));
        for (old, new) in [("write", "change"), ("edit", "change")] {
            assert_eq!(renaming(old, new).stage(&realm), Err(other.clone()));
        }
        renaming("read", "see").begin(&mut realm);
        assert!(is_valid(&realm), "another scope can be renamed");
        renaming("write", "edit").finish(&mut realm);
        renaming("read", "see").finish(&mut realm);
        assert_eq!(scopes(&realm), ["admin: edit", "edit: see", "see: "]);
    }

    #[test]
    fn a_key_gets_the_new_name_once() {
        let renamed = |granted: &str| {
            let mut access = Access::Scopes(names(granted));
            renaming("write", "edit").rename_in(&mut access);
            access
        };
        assert_eq!(renamed("read write"), Access::Scopes(names("edit read")));
        assert_eq!(renamed("edit write"), Access::Scopes(names("edit")));
        assert_eq!(renamed("read"), Access::Scopes(names("read")));
    }
}
