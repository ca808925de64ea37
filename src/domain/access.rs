//! What a key may do: its granted scopes, and the hierarchy by which a realm lets one scope imply others.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::ids::ScopeName;

/// A word that says what a key may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The word.
    pub name: ScopeName,
    /// Who holds this holds these too, and what they imply.
    pub implies: BTreeSet<ScopeName>,
    /// For people.
    pub description: String,
}

/// What a key was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Every scope of its realm, also those that the realm will get.
    Full,
    /// These scopes and what they imply; none of them is no access.
    Scopes(BTreeSet<ScopeName>),
}

impl Access {
    /// The scopes that were granted by name.
    pub fn granted(&self) -> impl Iterator<Item = &ScopeName> {
        match self {
            Self::Full => None,
            Self::Scopes(scopes) => Some(scopes.iter()),
        }
        .into_iter()
        .flatten()
    }

    /// Whether every scope was granted.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

/// The most scopes that a realm may have.
pub const MAX_SCOPES: usize = 256;

const WORDS: usize = MAX_SCOPES / 64;

/// A set of one realm's scopes, by the indexes that its [`ScopeHierarchy`] gave them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet([u64; WORDS]);

impl ScopeSet {
    /// Adds the scope of this index.
    pub fn insert(&mut self, index: ScopeIndex) {
        self.0[usize::from(index.0) / 64] |= 1 << (index.0 % 64);
    }

    /// Whether the scope of this index is among them.
    pub fn contains(&self, index: ScopeIndex) -> bool {
        self.0[usize::from(index.0) / 64] & (1 << (index.0 % 64)) != 0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// What is in this and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// Whether something is in both.
    pub fn meets(self, other: Self) -> bool {
        (0..WORDS).any(|word| self.0[word] & other.0[word] != 0)
    }

    /// Whether the scope at this place is among them, in a set that [`reach`] made.
    pub fn contains_place(&self, place: usize) -> bool {
        u8::try_from(place).is_ok_and(|place| self.contains(ScopeIndex(place)))
    }

    fn indexes(self) -> impl Iterator<Item = ScopeIndex> {
        self.0
            .into_iter()
            .zip((0_u8..).step_by(64))
            .flat_map(|(mut word, first)| {
                // From bit to bit: most sets are nearly empty, and this runs on every request.
                std::iter::from_fn(move || {
                    let bit = word.trailing_zeros() as u8;
                    word &= word.checked_sub(1)?;
                    Some(ScopeIndex(first + bit))
                })
            })
    }
}

/// Where a scope stands in the [`ScopeSet`]s of its realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeIndex(u8);

/// A realm's scopes, ready for decisions: each has a index, and each index knows all that it implies.
#[derive(Clone, Debug, Default)]
pub struct ScopeHierarchy {
    indexes: HashMap<ScopeName, ScopeIndex>,
    /// The scopes in alphabetical order.
    alphabetical: Vec<(ScopeName, ScopeIndex)>,
    /// By index: the scope itself and everything that it implies.
    implied: Vec<ScopeSet>,
    all: ScopeSet,
}

impl ScopeHierarchy {
    /// Builds the hierarchy of `scopes`. Those that `previous` had keep their index, so that the sets made by it stay right.
    ///
    /// Of more than [`MAX_SCOPES`], which no realm can be put with, the rest is left out.
    pub fn new(scopes: &[Scope], previous: Option<&Self>) -> Self {
        let kept: HashMap<ScopeName, ScopeIndex> = scopes
            .iter()
            .filter_map(|scope| {
                Some((scope.name.clone(), previous?.index_of(scope.name.as_str())?))
            })
            .collect();
        // A index that was just freed is given out last: who still holds the hierarchy of before must not take the one scope
        // for the other.
        let before = previous.map_or_else(ScopeSet::default, |previous| previous.all);
        let kept_ranks = collect(kept.values().copied());
        let all_ranks = || (0..=u8::MAX).map(ScopeIndex);
        let fresh = all_ranks().filter(|index| !before.contains(*index));
        let freed =
            all_ranks().filter(|index| before.contains(*index) && !kept_ranks.contains(*index));
        let mut free = fresh.chain(freed);
        let ranked: Vec<ScopeIndex> = scopes
            .iter()
            .map_while(|scope| kept.get(&scope.name).copied().or_else(|| free.next()))
            .collect();

        let mut implied = vec![ScopeSet::default(); MAX_SCOPES];
        for ((index, below), i) in ranked.iter().zip(reach(scopes)).zip(0..) {
            let mut all = collect(
                below
                    .indexes()
                    .filter_map(|ScopeIndex(j)| ranked.get(usize::from(j)).copied()),
            );
            all.insert(ranked[i]);
            implied[usize::from(index.0)] = all;
        }
        let names = scopes.iter().map(|scope| scope.name.clone());
        let mut alphabetical: Vec<_> = names.zip(ranked.iter().copied()).collect();
        alphabetical.sort();
        Self {
            indexes: alphabetical.iter().cloned().collect(),
            alphabetical,
            implied,
            all: collect(ranked.into_iter()),
        }
    }

    /// The index of the scope of this name, if the realm knows it.
    pub fn index_of(&self, name: &str) -> Option<ScopeIndex> {
        self.indexes.get(name).copied()
    }

    /// These scopes and all that they imply.
    pub fn effective(&self, granted: ScopeSet) -> ScopeSet {
        granted
            .indexes()
            .filter_map(|index| self.implied.get(usize::from(index.0)))
            .fold(ScopeSet::default(), |all, implied| all.union(*implied))
    }

    /// Every scope of the realm.
    pub fn all(&self) -> ScopeSet {
        self.all
    }

    /// What a key with this access holds.
    pub fn effective_access(&self, access: &Access) -> ScopeSet {
        match access {
            Access::Full => self.all,
            Access::Scopes(_) => self.effective(self.granted(access)),
        }
    }

    /// These scopes, as far as the realm knows them.
    pub fn set<'s>(&self, names: impl IntoIterator<Item = &'s ScopeName>) -> ScopeSet {
        collect(
            names
                .into_iter()
                .filter_map(|name| self.index_of(name.as_str())),
        )
    }

    /// The granted scopes as a set. One that the realm does not know is left out: it gives nothing.
    pub fn granted(&self, access: &Access) -> ScopeSet {
        self.set(access.granted())
    }

    /// The names of these scopes, in alphabetical order.
    pub fn names(&self, set: ScopeSet) -> impl Iterator<Item = &ScopeName> {
        self.alphabetical
            .iter()
            .filter(move |(_, index)| set.contains(*index))
            .map(|(name, _)| name)
    }
}

/// By the place of each scope in the list: the places of all that it implies, over any number of steps (Warshall's
/// algorithm). A scope that implies itself is in a circle. Of more than [`MAX_SCOPES`] the rest is left out.
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
    for (over, middle) in (0..reach.len()).zip((0..=u8::MAX).map(ScopeIndex)) {
        let beyond = reach[over];
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

    #[test]
    fn a_scope_holds_all_below_it() {
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
    fn a_rank_outlives_a_change_of_the_ladder_and_is_not_given_twice() {
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
    fn a_set_tells_its_ranks_in_order_whatever_they_are() {
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
    fn a_freed_rank_is_not_given_out_while_there_is_another() {
        let before = ScopeHierarchy::new(&[scope("a", &[])], None);
        let after = ScopeHierarchy::new(&[scope("b", &[])], Some(&before));
        assert_ne!(after.index_of("b"), before.index_of("a"));
    }

    #[test]
    fn all_256_scopes_have_a_rank_and_can_be_replaced_by_others() {
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
