//! The access of a key: its granted scopes, and the hierarchy in which a scope of a realm implies others.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::ids::ScopeName;

/// A permission that a key can hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The name.
    pub name: ScopeName,
    /// The scopes that this scope implies. Each of them may imply others.
    pub implies: BTreeSet<ScopeName>,
    /// A description for people.
    pub description: String,
    /// The scope that this one is about to replace, while a renaming is unfinished. It is then the only one that this one implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ScopeName>,
}

/// The access that a key was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Every scope of the realm, also those that the realm will get.
    Full,
    /// These scopes and the scopes that they imply. An empty set is no access.
    Scopes(BTreeSet<ScopeName>),
}

impl Access {
    /// Returns the scopes that were granted by name.
    pub fn granted(&self) -> impl Iterator<Item = &ScopeName> {
        match self {
            Self::Full => None,
            Self::Scopes(scopes) => Some(scopes.iter()),
        }
        .into_iter()
        .flatten()
    }

    /// Returns whether every scope was granted.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

/// The maximum number of scopes of a realm.
pub const MAX_SCOPES: usize = 256;

const WORDS: usize = MAX_SCOPES / 64;

/// A set of scopes of one realm, by their indexes in its [`ScopeHierarchy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet([u64; WORDS]);

impl ScopeSet {
    /// Adds the scope with this index.
    pub fn insert(&mut self, index: ScopeIndex) {
        self.0[usize::from(index.0) / 64] |= 1 << (index.0 % 64);
    }

    /// Returns whether the set contains the scope with this index.
    pub fn contains(&self, index: ScopeIndex) -> bool {
        self.0[usize::from(index.0) / 64] & (1 << (index.0 % 64)) != 0
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// Returns the scopes that are in at least one of the two sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// Returns the scopes that are in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Returns the scopes that are in this set and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// Returns whether the two sets have a scope in common.
    pub fn meets(self, other: Self) -> bool {
        (0..WORDS).any(|word| self.0[word] & other.0[word] != 0)
    }

    /// Returns whether a set that [`reach`] returned contains the scope at this place in the list.
    pub fn contains_index(&self, place: usize) -> bool {
        u8::try_from(place).is_ok_and(|place| self.contains(ScopeIndex(place)))
    }

    fn indexes(self) -> impl Iterator<Item = ScopeIndex> {
        self.0
            .into_iter()
            .zip((0_u8..).step_by(64))
            .flat_map(|(mut word, first)| {
                // The loop visits only the bits that are set: most sets are nearly empty, and this runs on every request.
                std::iter::from_fn(move || {
                    let bit = word.trailing_zeros() as u8;
                    word &= word.checked_sub(1)?;
                    Some(ScopeIndex(first + bit))
                })
            })
    }
}

/// The index of a scope in the [`ScopeSet`]s of its realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeIndex(u8);

/// The scopes of a realm, prepared for decisions: each scope has an index, and each index the set of scopes that it implies.
#[derive(Clone, Debug, Default)]
pub struct ScopeHierarchy {
    indexes: HashMap<ScopeName, ScopeIndex>,
    /// The scopes in alphabetical order.
    alphabetical: Vec<(ScopeName, ScopeIndex)>,
    /// By index: the scope itself and all scopes that it implies.
    implied: Vec<ScopeSet>,
    all: ScopeSet,
}

impl ScopeHierarchy {
    /// Builds the hierarchy of `scopes`. While a scope is renamed, its two names imply each other.
    ///
    /// A scope that `previous` contains keeps its index, so that the sets of `previous` remain valid.
    ///
    /// No realm can be stored with more than [`MAX_SCOPES`] scopes. If there are more, the rest is ignored.
    pub fn new(scopes: &[Scope], previous: Option<&Self>) -> Self {
        let kept: HashMap<ScopeName, ScopeIndex> = scopes
            .iter()
            .filter_map(|scope| {
                Some((scope.name.clone(), previous?.index_of(scope.name.as_str())?))
            })
            .collect();
        // An index that has just been freed is used last: a request may still use the previous hierarchy, and must not
        // confuse the new scope with the old one.
        let before = previous.map_or_else(ScopeSet::default, |previous| previous.all);
        let kept_indexes = collect(kept.values().copied());
        let all_indexes = || (0..=u8::MAX).map(ScopeIndex);
        let fresh = all_indexes().filter(|index| !before.contains(*index));
        let freed =
            all_indexes().filter(|index| before.contains(*index) && !kept_indexes.contains(*index));
        let mut free = fresh.chain(freed);
        let indexed: Vec<ScopeIndex> = scopes
            .iter()
            .map_while(|scope| kept.get(&scope.name).copied().or_else(|| free.next()))
            .collect();

        let mut implied = vec![ScopeSet::default(); MAX_SCOPES];
        let reach = reach(&with_equal_names(scopes));
        for ((index, below), i) in indexed.iter().zip(reach).zip(0..) {
            let mut all = collect(
                below
                    .indexes()
                    .filter_map(|ScopeIndex(j)| indexed.get(usize::from(j)).copied()),
            );
            all.insert(indexed[i]);
            implied[usize::from(index.0)] = all;
        }
        let names = scopes.iter().map(|scope| scope.name.clone());
        let mut alphabetical: Vec<_> = names.zip(indexed.iter().copied()).collect();
        alphabetical.sort();
        Self {
            indexes: alphabetical.iter().cloned().collect(),
            alphabetical,
            implied,
            all: collect(indexed.into_iter()),
        }
    }

    /// Returns the index of the scope with this name, if the realm has it.
    pub fn index_of(&self, name: &str) -> Option<ScopeIndex> {
        self.indexes.get(name).copied()
    }

    /// Returns these scopes and all scopes that they imply.
    pub fn effective(&self, granted: ScopeSet) -> ScopeSet {
        granted
            .indexes()
            .filter_map(|index| self.implied.get(usize::from(index.0)))
            .fold(ScopeSet::default(), |all, implied| all.union(*implied))
    }

    /// Returns the scopes of which this set also has every scope that they imply.
    #[must_use]
    pub fn closed_within(&self, set: ScopeSet) -> ScopeSet {
        let is_closed = |index: &ScopeIndex| {
            let implied = self.implied.get(usize::from(index.0));
            implied.is_some_and(|implied| implied.without(set).is_empty())
        };
        collect(set.intersection(self.all).indexes().filter(is_closed))
    }

    /// Returns every scope of the realm.
    pub fn all(&self) -> ScopeSet {
        self.all
    }

    /// Returns the scopes that a key with this access holds.
    pub fn effective_access(&self, access: &Access) -> ScopeSet {
        match access {
            Access::Full => self.all,
            Access::Scopes(_) => self.effective(self.granted(access)),
        }
    }

    /// Returns the set of these scopes, without those that the realm does not have.
    pub fn set<'s>(&self, names: impl IntoIterator<Item = &'s ScopeName>) -> ScopeSet {
        collect(
            names
                .into_iter()
                .filter_map(|name| self.index_of(name.as_str())),
        )
    }

    /// Returns the set of the granted scopes. A scope that the realm does not have grants nothing and is left out.
    pub fn granted(&self, access: &Access) -> ScopeSet {
        self.set(access.granted())
    }

    /// Returns the names of these scopes, in alphabetical order.
    pub fn names(&self, set: ScopeSet) -> impl Iterator<Item = &ScopeName> {
        self.alphabetical
            .iter()
            .filter(move |(_, index)| set.contains(*index))
            .map(|(name, _)| name)
    }
}

/// The scopes, in which each one that is renamed implies the scope that replaces it. The other way round it is so in the definition.
fn with_equal_names(scopes: &[Scope]) -> Cow<'_, [Scope]> {
    let renamings = || {
        let both = |new: &Scope| Some((new.replaces.clone()?, new.name.clone()));
        scopes.iter().filter_map(both)
    };
    if renamings().next().is_none() {
        return Cow::Borrowed(scopes);
    }
    let mut equal = scopes.to_vec();
    for (old, new) in renamings() {
        if let Some(old) = equal.iter_mut().find(|scope| scope.name == old) {
            old.implies.insert(new);
        }
    }
    Cow::Owned(equal)
}

/// Returns for each scope, by its place in the list, the places of all scopes that it implies over any number of steps.
///
/// The algorithm is Warshall's. A scope that implies itself is part of a cycle. If there are more than [`MAX_SCOPES`] scopes,
/// the rest is ignored.
pub fn reach(scopes: &[Scope]) -> Vec<ScopeSet> {
    let place: HashMap<&ScopeName, ScopeIndex> = scopes
        .iter()
        .map(|scope| &scope.name)
        .zip((0..=u8::MAX).map(ScopeIndex))
        .collect();
    let mut reach: Vec<ScopeSet> = scopes
        .iter()
        .take(MAX_SCOPES)
        .map(|scope| {
            collect(
                scope
                    .implies
                    .iter()
                    .filter_map(|name| place.get(name).copied()),
            )
        })
        .collect();
    for (i, middle) in (0..reach.len()).zip((0..=u8::MAX).map(ScopeIndex)) {
        let beyond = reach[i];
        for below in &mut reach {
            if below.contains(middle) {
                *below = below.union(beyond);
            }
        }
    }
    reach
}

fn collect(indexes: impl Iterator<Item = ScopeIndex>) -> ScopeSet {
    indexes.fold(ScopeSet::default(), |mut set, index| {
        set.insert(index);
        set
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: &str, implies: &[&str]) -> Scope {
        Scope {
            name: ScopeName::parse(name).unwrap(),
            implies: implies
                .iter()
                .map(|name| ScopeName::parse(name).unwrap())
                .collect(),
            description: String::new(),
            replaces: None,
        }
    }

    fn held(hierarchy: &ScopeHierarchy, granted: &[&str]) -> Vec<String> {
        let access = Access::Scopes(
            granted
                .iter()
                .map(|name| ScopeName::parse(name).unwrap())
                .collect(),
        );
        hierarchy
            .names(hierarchy.effective_access(&access))
            .map(ToString::to_string)
            .collect()
    }

    /// Seen red with the intersection itself.
    #[test]
    fn a_scope_is_closed_within_a_set_that_has_all_that_it_implies() {
        let scopes = [
            scope("admin", &["write"]),
            scope("write", &["read"]),
            scope("read", &[]),
            scope("billing", &[]),
        ];
        let hierarchy = ScopeHierarchy::new(&scopes, None);
        let closed = |names: &[&str]| -> Vec<String> {
            let names = names.iter().map(|name| ScopeName::parse(name).unwrap());
            let set = hierarchy.set(&names.collect::<Vec<_>>());
            let closed = hierarchy.closed_within(set);
            hierarchy.names(closed).map(ToString::to_string).collect()
        };
        assert_eq!(closed(&["admin", "write", "billing"]), ["billing"]);
        assert_eq!(closed(&["admin", "read"]), ["read"]);
        assert_eq!(closed(&["write", "read"]), ["read", "write"]);
        assert!(closed(&[]).is_empty());
    }

    #[test]
    fn a_scope_implies_all_scopes_below_it() {
        let hierarchy = ScopeHierarchy::new(
            &[
                scope("admin", &["write"]),
                scope("write", &["read"]),
                scope("read", &[]),
                scope("billing", &[]),
            ],
            None,
        );
        assert_eq!(held(&hierarchy, &["admin"]), ["admin", "read", "write"]);
        assert_eq!(
            held(&hierarchy, &["write", "billing"]),
            ["billing", "read", "write"]
        );
        assert_eq!(held(&hierarchy, &[]), [""; 0]);
        assert_eq!(hierarchy.names(hierarchy.all()).count(), 4);
    }

    #[test]
    fn an_index_survives_a_change_of_the_hierarchy_and_is_not_given_twice() {
        let before = ScopeHierarchy::new(&[scope("b", &[]), scope("d", &[])], None);
        let after = ScopeHierarchy::new(
            &[scope("a", &[]), scope("d", &[]), scope("e", &["d"])],
            Some(&before),
        );
        assert_eq!(after.index_of("d"), before.index_of("d"));
        let indexes: std::collections::HashSet<_> = ["a", "d", "e"]
            .map(|name| after.index_of(name).unwrap())
            .into();
        assert_eq!(indexes.len(), 3);
        assert_eq!(held(&after, &["e"]), ["d", "e"]);
    }

    #[test]
    fn a_set_returns_its_indexes_in_order() {
        let every_third: Vec<ScopeIndex> = (0..=u8::MAX).step_by(3).map(ScopeIndex).collect();
        assert_eq!(
            collect(every_third.iter().copied())
                .indexes()
                .collect::<Vec<_>>(),
            every_third
        );
        let ends = [
            ScopeIndex(0),
            ScopeIndex(63),
            ScopeIndex(64),
            ScopeIndex(255),
        ];
        assert!(collect(ends.into_iter()).indexes().eq(ends));
        assert_eq!(ScopeSet::default().indexes().count(), 0);
    }

    #[test]
    fn a_freed_index_is_not_used_while_there_is_another() {
        let before = ScopeHierarchy::new(&[scope("a", &[])], None);
        let after = ScopeHierarchy::new(&[scope("b", &[])], Some(&before));
        assert_ne!(after.index_of("b"), before.index_of("a"));
    }

    #[test]
    fn all_256_scopes_have_an_index_and_can_be_replaced_by_others() {
        let names = |letter: char| {
            (0..256)
                .map(|i| scope(&format!("{letter}{i}"), &[]))
                .collect::<Vec<_>>()
        };
        let first = ScopeHierarchy::new(&names('a'), None);
        let second = ScopeHierarchy::new(&names('b'), Some(&first));
        assert_eq!(second.names(second.all()).count(), 256);
    }
}
