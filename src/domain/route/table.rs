//! The routes of a realm as a tree.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use wayfind::{Router, RouterBuilder};

use super::{Method, Need, Reach, Route};
use crate::domain::access::{Ladder, ScopeSet};
use crate::domain::path::{CanonicalPath, decoded};

/// The routes of a realm, ready to be looked up.
pub struct RouteTable {
    of_method: HashMap<Method, Router<usize>>,
    of_others: Router<usize>,
    wanted: Vec<Option<Wanted>>,
    names: Vec<Vec<String>>,
}

/// What a key is asked for, in the ranks of the realm's ladder.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it must reach.
    pub reach: Reach,
    /// All of these it must hold.
    pub scopes: ScopeSet,
    /// At least one of these it must hold, if there are any.
    pub any_scopes: ScopeSet,
}

/// The rule that counts for a request.
#[derive(Debug)]
pub struct Matched<'t, 'p> {
    /// Its place among the rules.
    pub place: usize,
    /// What it wants of a key; none if the route is public.
    pub wanted: Option<&'t Wanted>,
    names: &'t [String],
    /// What stands in the places of its parameters.
    found: Vec<Cow<'p, str>>,
}

impl Matched<'_, '_> {
    /// What the path says in this parameter's place, decoded.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let place = self.names.iter().position(|own| own == name)?;
        self.found.get(place).map(AsRef::as_ref)
    }
}

impl RouteTable {
    /// Makes the tree of rules that were checked.
    pub fn new(routes: &[Route], ladder: &Ladder) -> Self {
        let methods: BTreeSet<&Method> = routes.iter().flat_map(|route| &route.methods).collect();
        Self {
            of_method: methods
                .into_iter()
                .map(|method| {
                    let tree = tree(routes, |route| {
                        route.methods.is_empty() || route.methods.contains(method)
                    });
                    (method.clone(), tree)
                })
                .collect(),
            of_others: tree(routes, |route| route.methods.is_empty()),
            names: routes.iter().map(|route| route.path.parameters()).collect(),
            wanted: routes
                .iter()
                .map(|route| match &route.need {
                    Need::Public => None,
                    Need::Key(need) => Some(Wanted {
                        reach: need.reach.clone(),
                        scopes: ladder.set(&need.scopes),
                        any_scopes: ladder.set(&need.any_scopes),
                    }),
                })
                .collect(),
        }
    }

    /// The rule for this request, if there is one. A method that is not in capitals is none: some servers would read it as if
    /// it were, and so go by another rule. A path is read as what it stands for, as the servers behind do.
    pub fn find<'t, 'p>(
        &'t self,
        method: &str,
        path: CanonicalPath<'p>,
    ) -> Option<Matched<'t, 'p>> {
        if !Method::fits(method) {
            return None;
        }
        let tree = self.of_method.get(method).unwrap_or(&self.of_others);
        // No slash is encoded in it, so that it has the same segments as before.
        let (place, found) = match decoded(path.as_str())? {
            Cow::Borrowed(path) => {
                let found = tree.search(path)?;
                let values = found.parameters().iter();
                (
                    *found.data(),
                    values.map(|(_, value)| Cow::Borrowed(*value)).collect(),
                )
            }
            Cow::Owned(path) => {
                let found = tree.search(&path)?;
                let values = found.parameters().iter();
                let owned = |value: &str| Cow::Owned(value.to_owned());
                (
                    *found.data(),
                    values.map(|(_, value)| owned(value)).collect(),
                )
            }
        };
        Some(Matched {
            place,
            wanted: self.wanted.get(place)?.as_ref(),
            names: self.names.get(place)?,
            found,
        })
    }
}

fn tree(routes: &[Route], has_method: impl Fn(&Route) -> bool) -> Router<usize> {
    let mut tree = RouterBuilder::new();
    for (i, route) in routes.iter().enumerate() {
        if has_method(route) {
            for template in route.path.for_tree() {
                // What is there already is a rule before this one: for the same paths with methods of its own, or for the
                // place where this one's `**` stands for nothing. What is before counts.
                let _ = tree.insert(&template, i);
            }
        }
    }
    tree.build()
}
