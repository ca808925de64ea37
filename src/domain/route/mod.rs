//! Routes: the rules that define what a request to an API requires.
//!
//! The routes of a realm have an order, and the first route that matches a request decides. [`RouteTrie`] finds this route
//! without a test of each route.

#[cfg(test)]
mod differential;
mod table;
mod template;
mod trie;

use serde::{Deserialize, Serialize};

pub use table::{Matched, NoRoute, RequiredLevel, Requirement, RouteAccess, RouteTable};
pub use template::{PathTemplate, is_literal};
pub use trie::RouteTrie;

use super::ids::ScopeName;
use super::path::{PathRules, TrailingSlash};
use super::violation::Violations;

/// The maximum number of routes of a realm.
pub const MAX_ROUTES: usize = 1_000;

/// The maximum number of segments in all templates of a realm together. It bounds the memory of their trie.
const MAX_TOTAL_SEGMENTS: usize = 16_000;

/// The maximum number of positions of the trie that are active at once for a path. It bounds the time of a look-up.
const MAX_WIDTH: usize = 64;

/// One rule of a realm: the requests that it matches, and what they require.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The methods, sorted and without duplicates. Empty: every method.
    pub methods: Vec<Method>,
    /// The paths.
    pub path: PathTemplate,
    /// The requirement.
    pub need: Need,
}

/// The requirement of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// No key is required or checked.
    Public,
    /// No key is required. A key that is presented must be good, at either level.
    OptionalKey,
    /// A key that meets this requirement.
    Key(KeyNeed),
}

/// The requirement of a route for a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyNeed {
    /// The partner or project that the key must reach.
    pub reach: Reach,
    /// The key must hold all of these scopes. Sorted, without duplicates.
    pub scopes: Vec<ScopeName>,
    /// If not empty, the key must hold at least one of these scopes. Sorted, without duplicates.
    pub any_scopes: Vec<ScopeName>,
}

/// The partner or project that a key must reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The whole partner, so that a partner key is required. If the path names projects by the realm's project segments: those
    /// projects, and a key of either level can reach them.
    Partner,
    /// As [`Reach::Partner`], but always with a partner key.
    PartnerKey,
    /// The project that this parameter of the path names.
    Project(String),
    /// As [`Reach::Project`], but with a partner key only.
    ProjectByPartner(String),
    /// The project that the key is bound to, so that a project key is required.
    OwnProject,
    /// No partner or project in particular. A key of either level is accepted.
    Any,
}

impl Reach {
    /// Returns the parameter of the path that names the project.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Project(name) | Self::ProjectByPartner(name) => Some(name),
            Self::Partner | Self::PartnerKey | Self::OwnProject | Self::Any => None,
        }
    }
}

/// An HTTP method, such as `GET`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Method(String);

impl Method {
    /// Parses a method. Methods are case-sensitive (RFC 9110, section 9.1), and all methods in use are in capitals.
    ///
    /// # Errors
    /// The rule, if the text does not match it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if Self::fits(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be an HTTP method in capitals, such as GET")
        }
    }

    fn fits(text: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
        (1..=32).contains(&text.len()) && text.bytes().all(plain)
    }

    /// Returns the method as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks the rules between routes and adds a violation for each broken one.
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
            "can match one path in more than 64 ways at once: use fewer routes with two **, or fewer parameters beside literals",
        );
        return;
    }
    for (i, route) in routes.iter().enumerate() {
        let template = route.path.normalized(rules);
        if let Some(earlier) = trie.covered_by(i, route, &template) {
            bad.add(
                format!("realm.routes[{i}].path"),
                format!("can never win: earlier routes, such as routes[{earlier}], match all its requests; move it before them"),
            );
        }
    }
}

/// Checks one route, adds a violation for each broken rule, and returns the number of segments of its template.
fn check_route(i: usize, route: &Route, rules: &PathRules, bad: &mut Violations) -> usize {
    let path = || format!("realm.routes[{i}].path");
    let segments = route.path.segments().count();
    if segments > template::MAX_TEMPLATE_SEGMENTS + usize::from(route.path.ends_with_slash()) {
        bad.add(path(), "must have at most 32 segments");
    }
    if route.path.ends_with_slash() && rules.trailing_slash == TrailingSlash::Deny {
        bad.add(
            path(),
            "ends with a slash, but the realm denies such paths: set realm.trailing_slash to SIGNIFICANT or IGNORED, or remove the slash",
        );
    }
    if let Need::Key(need) = &route.need
        && let Some(parameter) = need.reach.parameter()
    {
        let project = || format!("realm.routes[{i}].project");
        if !route.path.has_parameter(parameter) {
            bad.add(project(), "must be a parameter of the path");
        } else if route.path.index_of(parameter).is_none() {
            bad.add(
                project(),
                "is between two ** and could be one of several segments: add the segment before it to realm.project_segments instead",
            );
        }
    }
    segments
}

#[cfg(test)]
mod tests;
