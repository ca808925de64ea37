//! Routes: what each path of an API needs.
//!
//! The rules have an order, and the first one that matches a request counts. [`RouteTrie`] finds it without trying them one by
//! one.

#[cfg(test)]
mod differential;
mod table;
mod template;
mod trie;

use serde::{Deserialize, Serialize};

pub use table::{Matched, NoRoute, RequiredLevel, Requirement, RouteTable};
pub use template::{PathTemplate, is_literal};
pub use trie::RouteTrie;

use super::ids::ScopeName;
use super::path::{PathRules, TrailingSlash};
use super::violation::Violations;

/// How many rules a realm may have.
pub const MAX_ROUTES: usize = 1_000;

/// How many segments the templates of a realm may have together, which bounds the memory of their trie.
const MAX_TOTAL_SEGMENTS: usize = 16_000;

/// How many positions of the trie a path may keep alive at once, which bounds the time of a look-up.
const MAX_WIDTH: usize = 64;

/// One rule: which requests it is about, and what they need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// For which methods, sorted and each once; none is for every method.
    pub methods: Vec<Method>,
    /// For which paths.
    pub path: PathTemplate,
    /// What a request needs.
    pub need: Need,
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Nothing: no key is looked at.
    Public,
    /// A key that is good for this.
    Key(KeyNeed),
}

/// What a key must be good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyNeed {
    /// What it must reach.
    pub reach: Reach,
    /// All of these it must hold. Sorted, each once.
    pub scopes: Vec<ScopeName>,
    /// At least one of these it must hold, if there are any. Sorted, each once.
    pub any_scopes: Vec<ScopeName>,
}

/// What a key must reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// What is partner-wide: a partner key. Where the path names projects by the realm's project segments, those.
    Partner,
    /// The same, by a partner key only.
    PartnerKey,
    /// The project that this parameter of the path names.
    Project(String),
    /// The same, by a partner key only.
    ProjectByPartner(String),
    /// The project that it is bound to: a project key.
    OwnProject,
    /// Nothing in particular: a key of either level.
    Any,
}

impl Reach {
    /// The parameter of the path that it reads.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Project(name) | Self::ProjectByPartner(name) => Some(name),
            Self::Partner | Self::PartnerKey | Self::OwnProject | Self::Any => None,
        }
    }
}

/// A method of HTTP, such as `GET`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Method(String);

impl Method {
    /// Checks that it could be one. Case counts (RFC 9110, section 9.1), and all that are in use are in capitals.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if Self::fits(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be a method in capitals, such as GET")
        }
    }

    fn fits(text: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
        (1..=32).contains(&text.len()) && text.bytes().all(plain)
    }

    /// The method itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Notes what breaks the rules that hold between routes.
pub fn check(routes: &[Route], rules: &PathRules, bad: &mut Violations) {
    let mut methods: Vec<_> = routes.iter().flat_map(|route| &route.methods).collect();
    methods.sort();
    methods.dedup();
    if methods.len() > trie::MAX_METHODS {
        bad.add("realm.routes", "must name at most 32 different methods");
        return;
    }
    let mut segments = 0;
    for (i, route) in routes.iter().enumerate() {
        segments += check_route(i, route, rules, bad);
    }
    if segments > MAX_TOTAL_SEGMENTS {
        bad.add(
            "realm.routes",
            "must have at most 16,000 segments in all paths together",
        );
    }
    if !bad.is_empty() {
        return;
    }
    let trie = RouteTrie::new(routes, rules);
    if trie.width() > MAX_WIDTH {
        bad.add(
            "realm.routes",
            "can match one path in more than 64 ways at once: use fewer rules with two **, or fewer parameters beside literals",
        );
        return;
    }
    for (i, route) in routes.iter().enumerate() {
        let template = route.path.normalized(rules);
        if let Some(earlier) = trie.covered_by(i, route, &template) {
            bad.add(
                format!("realm.routes[{i}].path"),
                format!("can never win: routes[{earlier}] comes before it and matches all its requests; put it first"),
            );
        }
    }
}

/// Notes what is wrong with one route, and counts its segments.
fn check_route(i: usize, route: &Route, rules: &PathRules, bad: &mut Violations) -> usize {
    let path = || format!("realm.routes[{i}].path");
    let segments = route.path.segments().count();
    if segments > template::MAX_TEMPLATE_SEGMENTS + usize::from(route.path.ends_with_slash()) {
        bad.add(path(), "must have at most 32 segments");
    }
    if route.path.ends_with_slash() && rules.trailing_slash == TrailingSlash::Deny {
        bad.add(
            path(),
            "ends with a slash, and no such path is let through: set realm.trailing_slash to SIGNIFICANT or IGNORED, or leave the slash out",
        );
    }
    if let Need::Key(need) = &route.need
        && let Some(parameter) = need.reach.parameter()
    {
        let project = || format!("realm.routes[{i}].project");
        if !route.path.has_parameter(parameter) {
            bad.add(project(), "must be one of the path's parameters");
        } else if route.path.place_of(parameter).is_none() {
            bad.add(
                project(),
                "stands between two **, where it could be several segments: name the segment before it in realm.project_segments instead",
            );
        }
    }
    segments
}

#[cfg(test)]
mod tests;
