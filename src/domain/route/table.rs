//! The route table of a realm.

use std::collections::HashMap;

use super::template::ParameterIndex;
use super::trie::RouteTrie;
use super::{KeyNeed, Method, Need, Reach, Route};
use crate::domain::access::{ScopeHierarchy, ScopeSet};
use crate::domain::path::{PathRules, RequestPath};

/// The routes of a realm, prepared for look-ups.
pub struct RouteTable {
    trie: RouteTrie,
    rules: Box<[Rule]>,
    /// The texts of all rules for people, one after the other.
    texts: Box<str>,
    /// The requirements without duplicates, because most rules have the same ones.
    requirements: Box<[Requirement]>,
}

/// A rule, prepared for decisions.
struct Rule {
    access: RuleAccess,
    /// The index of the segment with the project that the rule names.
    project: Option<ParameterIndex>,
    /// Whether the template ends with a verb.
    has_verb: bool,
    /// The end of the rule's text in the texts of the table.
    text_end: u32,
}

/// What a rule asks for.
enum RuleAccess {
    Public,
    OptionalKey,
    /// The index of the requirement.
    Key(u16),
}

/// The requirement of a rule for a key. Scopes are indexes of the realm's scope hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The level that the key must have.
    pub level: RequiredLevel,
    /// The key must hold all of these scopes.
    pub scopes: ScopeSet,
    /// If not empty, the key must hold at least one of these scopes.
    pub any_scopes: ScopeSet,
}

/// The level that a rule requires of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequiredLevel {
    /// A key of either level.
    Any,
    /// A partner key.
    Partner,
    /// A partner key, unless the path names projects.
    PartnerOrNamedProject,
    /// A project key.
    Project,
}

/// The rule that decides about a request.
#[derive(Clone, Debug)]
pub struct Matched<'t, 'p> {
    /// The index of the rule.
    pub rule: usize,
    /// What the rule asks for.
    pub access: RouteAccess<'t>,
    /// The projects that the request names. The key must reach all of them.
    pub projects: Vec<&'p str>,
}

/// What a rule asks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAccess<'t> {
    /// Nothing.
    Public,
    /// Nothing, but a key that is presented must be good, at either level.
    OptionalKey,
    /// A key that meets this requirement.
    Key(&'t Requirement),
}

/// The reason why no rule decides about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No rule matches the method and path.
    Unmatched,
    /// The rule with this index matches only for servers that cut a segment at `;`.
    Semicolon(usize),
}

impl RouteTable {
    /// Builds the table of checked routes and their trie.
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
            let (access, parameter) = match &route.need {
                Need::Public => (RuleAccess::Public, None),
                Need::OptionalKey => (RuleAccess::OptionalKey, None),
                Need::Key(need) => (
                    RuleAccess::Key(index_of(Requirement::of(need, hierarchy))),
                    need.reach.parameter(),
                ),
            };
            describe(route, &mut texts);
            Rule {
                access,
                project: parameter.map(|name| {
                    let index = route.path.index_of(name);
                    index.unwrap_or(ParameterIndex::Unknown)
                }),
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

    /// Returns the text of a rule for people, such as `GET|HEAD /v1/**`.
    pub fn text(&self, rule: usize) -> Option<&str> {
        let end = self.rules.get(rule)?.text_end as usize;
        let before = rule
            .checked_sub(1)
            .and_then(|before| self.rules.get(before));
        let start = before.map_or(0, |before| before.text_end as usize);
        self.texts.get(start..end)
    }

    /// Returns the memory that the table uses, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let own = size_of_val(&*self.rules) + size_of_val(&*self.requirements);
        own + self.texts.len() + self.trie.size()
    }

    /// Returns the texts of all rules for people.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        (0..self.rules.len()).filter_map(|rule| self.text(rule))
    }

    /// Finds the rule for a request.
    ///
    /// No rule matches a method that is not in capitals, because some servers treat it like the method in capitals.
    ///
    /// # Errors
    /// The reason why no rule decides about the request.
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
        let (access, projects) = match rule.access {
            RuleAccess::Public => (RouteAccess::Public, Vec::new()),
            RuleAccess::OptionalKey => (RouteAccess::OptionalKey, Vec::new()),
            RuleAccess::Key(index) => (
                RouteAccess::Key(&self.requirements[usize::from(index)]),
                rule.projects(path, rules),
            ),
        };
        Ok(Matched {
            rule: found.rule,
            access,
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
    /// Returns the projects that a path names: the one at the index that the rule defines, and those after each project
    /// segment of the realm.
    fn projects<'p>(&self, path: &'p RequestPath<'_>, rules: &PathRules) -> Vec<&'p str> {
        let own = self.project.map(|project| {
            let index = match project {
                ParameterIndex::FromStart(index) => Some(usize::from(index)),
                ParameterIndex::FromEnd(index) => path.last_index().checked_sub(usize::from(index)),
                ParameterIndex::Unknown => None,
            };
            // No project has an empty id, so no key reaches an unknown project.
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
