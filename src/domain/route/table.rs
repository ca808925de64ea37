//! The routes of a realm, ready to be looked up.

use std::collections::HashMap;

use super::template::Place;
use super::trie::RouteTrie;
use super::{KeyNeed, Method, Need, Reach, Route};
use crate::domain::access::{ScopeHierarchy, ScopeSet};
use crate::domain::path::{PathRules, RequestPath};

/// A realm's rules, ready to be looked up.
pub struct RouteTable {
    trie: RouteTrie,
    rules: Box<[Rule]>,
    /// The rules as people read them, one after the other.
    texts: Box<str>,
    /// What the rules ask, each once: most ask the same.
    requirements: Box<[Requirement]>,
}

/// What a rule needs, as a decision asks for it.
struct Rule {
    /// The index of what it asks; none if the route is public.
    requirement: Option<u16>,
    /// Where the project stands that the rule names.
    project: Option<Place>,
    /// Whether its template ends with a verb.
    has_verb: bool,
    /// Where its text ends.
    text_end: u32,
}

/// What a rule asks of a key, in the indexes of the realm's scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The level that the key must have.
    pub level: RequiredLevel,
    /// All of these it must hold.
    pub scopes: ScopeSet,
    /// At least one of these it must hold, if there are any.
    pub any_scopes: ScopeSet,
}

/// The level that a rule asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequiredLevel {
    /// Either.
    Any,
    /// A partner key.
    Partner,
    /// A partner key, unless the path names projects.
    PartnerOrNamedProject,
    /// A project key.
    Project,
}

/// The rule that counts for a request.
#[derive(Clone, Debug)]
pub struct Matched<'t, 'p> {
    /// Its number.
    pub rule: usize,
    /// What it asks of a key; none if the route is public.
    pub requirement: Option<&'t Requirement>,
    /// The projects that the request names, all of which the key must reach.
    pub projects: Vec<&'p str>,
}

/// Why no rule counts for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No rule matches its method and path.
    Unmatched,
    /// The rule of this number matches only for servers that cut a segment at `;`.
    Semicolon(usize),
}

impl RouteTable {
    /// The table of rules that were checked, with their trie.
    pub fn new(trie: RouteTrie, routes: &[Route], hierarchy: &ScopeHierarchy) -> Self {
        let mut requirements = Vec::new();
        let mut known = HashMap::new();
        let mut index_of = |requirement| {
            *known.entry(requirement).or_insert_with(|| {
                requirements.push(requirement);
                requirements.len() as u16 - 1
            })
        };
        let mut texts = String::new();
        let rules = routes.iter().map(|route| {
            let need = match &route.need {
                Need::Public => None,
                Need::Key(need) => Some(need),
            };
            let parameter = need.and_then(|need| need.reach.parameter());
            describe(route, &mut texts);
            Rule {
                requirement: need.map(|need| index_of(Requirement::of(need, hierarchy))),
                project: parameter.map(|name| route.path.place_of(name).unwrap_or(Place::Nowhere)),
                has_verb: route.path.has_verb(),
                text_end: texts.len() as u32,
            }
        });
        let rules = rules.collect();
        Self {
            trie,
            rules,
            requirements: requirements.into(),
            texts: texts.into(),
        }
    }

    /// A rule as people read it, such as `GET|HEAD /v1/**`.
    pub fn text(&self, rule: usize) -> Option<&str> {
        let end = self.rules.get(rule)?.text_end as usize;
        let before = rule
            .checked_sub(1)
            .and_then(|before| self.rules.get(before));
        let start = before.map_or(0, |before| before.text_end as usize);
        self.texts.get(start..end)
    }

    /// The memory that it takes, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let own = size_of_val(&*self.rules) + size_of_val(&*self.requirements);
        own + self.texts.len() + self.trie.size()
    }

    /// All rules as people read them.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        (0..self.rules.len()).filter_map(|rule| self.text(rule))
    }

    /// The rule for a request. A method that is not in capitals has none, because some servers read it as if it were.
    pub fn find<'t, 'p>(
        &'t self,
        method: &str,
        path: &'p RequestPath<'_>,
        rules: &PathRules,
    ) -> Result<Matched<'t, 'p>, NoRoute> {
        if !Method::fits(method) {
            return Err(NoRoute::Unmatched);
        }
        let found = self.trie.find(method, path).ok_or(NoRoute::Unmatched)?;
        if !found.exact {
            return Err(NoRoute::Semicolon(found.rule));
        }
        let rule = &self.rules[found.rule];
        let requirement = rule
            .requirement
            .map(|index| &self.requirements[usize::from(index)]);
        let projects = match requirement {
            Some(_) => rule.projects(path, rules),
            None => Vec::new(),
        };
        Ok(Matched {
            rule: found.rule,
            requirement,
            projects,
        })
    }
}

fn describe(route: &Route, texts: &mut String) {
    match route.methods.as_slice() {
        [] => texts.push_str("any method"),
        [first, others @ ..] => {
            texts.push_str(first.as_str());
            for method in others {
                texts.push('|');
                texts.push_str(method.as_str());
            }
        }
    }
    texts.push(' ');
    texts.push_str(route.path.as_str());
}

impl Rule {
    /// The projects that a path names: in the place that the rule says, and after each project segment of the realm.
    fn projects<'p>(&self, path: &'p RequestPath<'_>, rules: &PathRules) -> Vec<&'p str> {
        let own = self.project.map(|place| {
            let index = match place {
                Place::FromStart(index) => Some(usize::from(index)),
                Place::FromEnd(index) => path.last_index().checked_sub(usize::from(index)),
                Place::Nowhere => None,
            };
            // No project has an empty name, so that no key reaches it.
            index.map_or((0, ""), |index| (index, path.segment(index).unwrap_or("")))
        });
        if own.is_none() && rules.project_segments.is_empty() {
            return Vec::new();
        }
        let named = own.into_iter().chain(rules.projects(path));
        named
            .map(|(index, name)| match name.rsplit_once(':') {
                Some((name, _verb)) if self.has_verb && index == path.last_index() => name,
                _ => name,
            })
            .collect()
    }
}

impl Requirement {
    fn of(need: &KeyNeed, hierarchy: &ScopeHierarchy) -> Self {
        Self {
            level: match need.reach {
                Reach::Partner => RequiredLevel::PartnerOrNamedProject,
                Reach::PartnerKey | Reach::ProjectByPartner(_) => RequiredLevel::Partner,
                Reach::OwnProject => RequiredLevel::Project,
                Reach::Project(_) | Reach::Any => RequiredLevel::Any,
            },
            scopes: hierarchy.set(&need.scopes),
            any_scopes: hierarchy.set(&need.any_scopes),
        }
    }
}
