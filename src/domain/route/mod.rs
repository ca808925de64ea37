//! Routes: what each path of an API needs.
//!
//! The rules stand in an order, and the first that matches counts. They are looked up in a tree that prefers what is more
//! particular (a word before a parameter before `**`), which is the same thing, because rules in any other order are refused:
//! a rule that comes after one that takes its paths would never be asked.

mod table;
mod template;

use std::borrow::Borrow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use table::{Matched, RouteTable, Wanted};
pub use template::PathTemplate;

use super::ids::ScopeName;
use super::violation::Violations;

/// How many rules a realm may have.
pub const MAX_ROUTES: usize = 1_000;

/// How many different methods a realm's rules may name. Each has a tree of its own.
const MAX_METHODS: usize = 32;

/// One rule: which requests it is about, and what they need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// For which methods; none is for every method.
    pub methods: BTreeSet<Method>,
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
    /// All of these it must hold.
    pub scopes: BTreeSet<ScopeName>,
    /// At least one of these it must hold, if there are any.
    pub any_scopes: BTreeSet<ScopeName>,
}

/// What a key must reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// What is partner-wide: a partner key.
    Partner,
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
            Self::Partner | Self::OwnProject | Self::Any => None,
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

impl Borrow<str> for Method {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Route {
    fn shares_a_method(&self, other: &Self) -> bool {
        self.methods.is_empty()
            || other.methods.is_empty()
            || !self.methods.is_disjoint(&other.methods)
    }
}

/// Which of the rules for the very same paths leaves nothing to this one. "GET needs this, and all else that" leaves something:
/// one path may stand there more than once, as long as each rule has methods of its own.
fn taken_by(route: &Route, earlier: &[Route]) -> Option<usize> {
    let same = || {
        let rules = earlier.iter().enumerate();
        rules.filter(|(_, rule)| rule.path.is_same(&route.path))
    };
    let takes_all = |rule: &Route| rule.methods.is_empty();
    let takes = |method| same().any(|(_, rule)| rule.methods.contains(method));
    let left = !same().any(|(_, rule)| takes_all(rule))
        && (route.methods.is_empty() || !route.methods.iter().all(takes));
    if left {
        return None;
    }
    same()
        .find(|(_, rule)| rule.shares_a_method(route))
        .map(|(place, _)| place)
}

/// Notes what breaks the rules that hold between routes.
pub fn check(routes: &[Route], bad: &mut Violations) {
    if routes.len() > MAX_ROUTES {
        bad.add("realm.routes", "must be 1,000 at the most");
        return;
    }
    let methods: BTreeSet<_> = routes.iter().flat_map(|route| &route.methods).collect();
    if methods.len() > MAX_METHODS {
        bad.add("realm.routes", "must name 32 different methods at the most");
        return;
    }
    for (i, route) in routes.iter().enumerate() {
        let earlier = routes[..i].iter().position(|earlier| {
            earlier.shares_a_method(route)
                && earlier.path.meets(&route.path)
                && !earlier.path.is_before(&route.path)
                && !earlier.path.is_same(&route.path)
        });
        let earlier = earlier.or_else(|| taken_by(route, &routes[..i]));
        if let Some(earlier) = earlier {
            bad.add(
                format!("realm.routes[{i}].path"),
                format!("comes too late: routes[{earlier}] takes its paths; put what is more particular first"),
            );
        }
        if let Need::Key(need) = &route.need
            && let Some(parameter) = need.reach.parameter()
            && !route.path.has_parameter(parameter)
        {
            bad.add(
                format!("realm.routes[{i}].project"),
                "must be one of the path's parameters",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::access::Ladder;
    use crate::domain::path::CanonicalPath;

    fn route(methods: &[&str], path: &str) -> Route {
        Route {
            methods: methods
                .iter()
                .map(|method| Method::parse(method).unwrap())
                .collect(),
            path: PathTemplate::parse(path).unwrap(),
            need: Need::Public,
        }
    }

    fn problems(routes: &[Route]) -> Vec<String> {
        let mut bad = Violations::default();
        check(routes, &mut bad);
        bad.finish(Some(()))
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    fn found(routes: &[Route], method: &str, path: &str) -> Option<usize> {
        let path = CanonicalPath::of_target(path).unwrap();
        RouteTable::new(routes, &Ladder::default())
            .find(method, path)
            .map(|matched| matched.place)
    }

    #[test]
    fn a_path_finds_the_first_rule_that_matches() {
        let routes = [
            route(&["POST"], "/api/v1/projects/{project}/apiKeys"),
            route(&["GET"], "/api/v1/projects/{project}"),
            route(&[], "/api/v1/projects/{project}/**"),
            route(&[], "/api/v1/**"),
            route(&[], "/"),
        ];
        assert_eq!(problems(&routes), [""; 0]);
        for (method, path, expected) in [
            ("POST", "/api/v1/projects/p/apiKeys", Some(0)),
            ("GET", "/api/v1/projects/p/apiKeys", Some(2)),
            ("POST", "/api/v1/projects/p/apiKeys/7", Some(2)),
            ("GET", "/api/v1/projects/p", Some(1)),
            ("PATCH", "/api/v1/projects/p", Some(2)),
            ("get", "/api/v1/projects/p", None),
            ("Post", "/api/v1/projects/p/apiKeys", None),
            ("", "/", None),
            ("GET", "/api/v1/projects", Some(3)),
            ("GET", "/api/v1", Some(3)),
            ("GET", "/api/v2", None),
            ("GET", "/api", None),
            ("GET", "/api/v1x", None),
            ("GET", "/", Some(4)),
        ] {
            assert_eq!(found(&routes, method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_parameter_is_one_whole_segment_and_told_decoded() {
        let table = RouteTable::new(&[route(&[], "/p/{project}/x")], &Ladder::default());
        let at = |path| {
            let path = CanonicalPath::of_target(path).unwrap();
            let matched = table.find("GET", path)?;
            Some(matched.parameter("project")?.to_owned())
        };
        assert_eq!(at("/p/mtKDhe1U/x").as_deref(), Some("mtKDhe1U"));
        assert_eq!(at("/p/a%40b/x").as_deref(), Some("a@b"));
        assert_eq!(at("/p/a/b/x"), None);
        assert_eq!(at("/p/x"), None);
    }

    /// Seen red with the tree asked about the path as it was sent.
    #[test]
    fn a_word_is_the_same_word_however_it_is_encoded() {
        let routes = [route(&[], "/v1/keys:revoke"), route(&[], "/v1/{x}")];
        for path in ["/v1/keys:revoke", "/v1/keys%3Arevoke", "/v1/keys%3arevoke"] {
            assert_eq!(found(&routes, "GET", path), Some(0), "{path}");
        }
    }

    /// Seen red with the parameters' own names in the tree.
    #[test]
    fn what_a_parameter_is_called_makes_no_difference() {
        for [m, a, z] in [["m", "a", "z"], ["z", "a", "m"], ["a", "z", "m"]] {
            let first = format!("/{{{m}}}/{{{a}}}/b");
            let second = format!("/{{{a}}}/{{{z}}}/{{{m}}}");
            let routes = [route(&[], &first), route(&[], &second)];
            assert_eq!(problems(&routes), [""; 0]);
            assert_eq!(found(&routes, "GET", "/q/q/b"), Some(0), "{first} {second}");
            assert_eq!(found(&routes, "GET", "/q/q/c"), Some(1), "{first} {second}");
        }
    }

    #[test]
    fn methods_are_not_made_up_without_end() {
        let methods: Vec<_> = (0..33)
            .map(|i| "M".repeat(1 + i % 17) + &"X".repeat(i / 17))
            .collect();
        let many: Vec<_> = methods
            .iter()
            .map(|method| route(&[method.as_str()], "/a"))
            .collect();
        assert_eq!(problems(&many[..32]), [""; 0]);
        assert_eq!(problems(&many), ["realm.routes"]);
    }

    #[test]
    fn a_rule_that_would_never_be_asked_is_refused() {
        for routes in [
            vec![route(&[], "/a/**"), route(&[], "/a/b")],
            vec![route(&[], "/a/{x}"), route(&[], "/a/b")],
            vec![route(&[], "/a/{x}"), route(&[], "/a/{y}")],
            vec![route(&[], "/a"), route(&["GET"], "/a")],
            vec![route(&["GET", "PUT"], "/{a}/b"), route(&["PUT"], "/c/{d}")],
            vec![route(&["GET", "PUT"], "/a"), route(&["PUT"], "/a")],
        ] {
            assert_eq!(problems(&routes), ["realm.routes[1].path"], "{routes:?}");
        }
        for routes in [
            vec![
                route(&[], "/a/b"),
                route(&[], "/a/{x}"),
                route(&[], "/a/**"),
            ],
            vec![route(&["GET"], "/a/{x}"), route(&["PUT"], "/a/b")],
            vec![route(&[], "/a"), route(&[], "/a/**"), route(&[], "/**")],
            vec![route(&["PUT"], "/c/{d}"), route(&["GET", "PUT"], "/{a}/b")],
            vec![route(&["GET"], "/a/**"), route(&[], "/a/**")],
            vec![route(&["GET"], "/a/{x}"), route(&[], "/a/{y}")],
            vec![route(&["GET"], "/a"), route(&["GET", "PUT"], "/a")],
        ] {
            assert_eq!(problems(&routes), [""; 0], "{routes:?}");
        }
        let together = [
            route(&["GET"], "/a"),
            route(&["PUT"], "/a"),
            route(&["GET", "PUT"], "/a"),
        ];
        assert_eq!(problems(&together), ["realm.routes[2].path"]);
    }

    #[test]
    fn one_path_may_need_one_thing_to_read_and_another_for_all_else() {
        let routes = [route(&["GET", "HEAD"], "/v1/**"), route(&[], "/v1/**")];
        for (method, path, place) in [
            ("GET", "/v1/a", 0),
            ("HEAD", "/v1", 0),
            ("POST", "/v1/a", 1),
            ("PUT", "/v1", 1),
        ] {
            assert_eq!(found(&routes, method, path), Some(place), "{method} {path}");
        }
    }

    fn segment() -> impl Strategy<Value = &'static str> {
        prop_oneof![3 => Just("a"), 3 => Just("b"), 2 => Just("{x}")]
    }

    fn template() -> impl Strategy<Value = String> {
        let names = prop_oneof![
            Just(["a", "m", "z", "q"]),
            Just(["z", "a", "m", "q"]),
            Just(["m", "z", "q", "a"])
        ];
        let segments = proptest::collection::vec(segment(), 0..4);
        (segments, any::<bool>(), names).prop_map(|(segments, rest, names)| {
            let mut seen = 0;
            let mut text: String = segments
                .iter()
                .map(|segment| {
                    seen += 1;
                    if *segment == "{x}" {
                        format!("/{{{}}}", names[seen - 1])
                    } else {
                        format!("/{segment}")
                    }
                })
                .collect();
            if rest {
                text.push_str("/**");
            }
            if text.is_empty() {
                text.push('/');
            }
            text
        })
    }

    /// The tree and the order agree, for all rules that are not refused: seen red with `check` letting everything through.
    #[test]
    fn the_tree_finds_what_reading_the_rules_in_order_would() {
        let methods = prop_oneof![
            Just(vec![]),
            Just(vec!["GET"]),
            Just(vec!["PUT"]),
            Just(vec!["GET", "PUT"])
        ];
        let rules = proptest::collection::vec((methods, template()), 1..6);
        let path = proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 0..5);
        proptest!(ProptestConfig::with_cases(4_000), |(rules in rules, path in path)| {
            let routes: Vec<_> = rules.iter().map(|(methods, path)| route(methods, path)).collect();
            if problems(&routes).is_empty() {
                let path = format!("/{}", path.join("/"));
                for method in ["GET", "PUT", "POST"] {
                    let first = routes.iter().position(|route| {
                        (route.methods.is_empty() || route.methods.iter().any(|own| own.as_str() == method))
                            && reads(&route.path, &path)
                    });
                    prop_assert_eq!(found(&routes, method, &path), first, "{} {}", method, path);
                }
            }
        });
    }

    /// Matching as one would do it by hand.
    fn reads(template: &PathTemplate, path: &str) -> bool {
        let parts = |text: &'_ str| -> Vec<String> {
            let parts = text[1..].split('/').filter(|part| !part.is_empty());
            parts.map(ToOwned::to_owned).collect()
        };
        let path = parts(path);
        let mut i = 0;
        for part in parts(template.as_str()) {
            match (part.as_str(), path.get(i)) {
                ("**", _) => return true,
                (_, None) => return false,
                (word, Some(own)) if !word.starts_with('{') && word != own => return false,
                _ => i += 1,
            }
        }
        i == path.len()
    }
}
