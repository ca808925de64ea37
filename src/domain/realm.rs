//! A realm: one protected API, as data.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::{Access, Scope, reach};
use super::credential::Credentials;
use super::denial::Denials;
use super::ids::{EnvironmentName, Prefix, RealmId, ScopeName, Tag};
use super::key::LevelKind;
use super::path::{MAX_PROJECT_SEGMENTS, PathRules};
use super::route::{self, KeyNeed, Need, Route};
use super::violation::Violations;

/// The longest time for which a realm may let gateways reuse an answer.
pub const MAX_CACHE_LIMIT: Duration = Duration::from_hours(24);

/// The most environments that a realm may have.
pub const MAX_ENVIRONMENTS: usize = 64;

/// One protected API: what its keys look like and what they can be granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Realm {
    /// Its name.
    pub id: RealmId,
    /// What the text of its keys begins with.
    pub prefix: Prefix,
    /// At least one.
    pub environments: Vec<Environment>,
    /// The hierarchy of scopes.
    pub scopes: Vec<Scope>,
    /// The scope whose holders administer the keys of their own partner.
    pub admin_scope: Option<ScopeName>,
    /// What a key gets that is issued without scopes.
    pub unscoped_keys: UnscopedKeys,
    /// The levels that keys may be issued at; at least one.
    pub levels: BTreeSet<LevelKind>,
    /// For how long a gateway may reuse an answer.
    pub max_cache: Duration,
    /// How long a new key may live.
    pub max_lifetime: Option<Duration>,
    /// Where its requests carry their key.
    #[serde(default)]
    pub credentials: Credentials,
    /// What each route needs; the first that matches counts.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// How its server reads paths.
    #[serde(default)]
    pub paths: PathRules,
    /// What denials look like.
    #[serde(default)]
    pub denials: Denials,
}

/// One of a realm's environments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// What stands for it in a key's text.
    pub tag: Tag,
}

/// What a key gets that is issued without scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnscopedKeys {
    /// No scope.
    NoAccess,
    /// Every scope.
    FullAccess,
}

impl UnscopedKeys {
    /// What this comes to for a key that is issued now.
    pub fn access(self) -> Access {
        match self {
            Self::NoAccess => Access::Scopes(BTreeSet::new()),
            Self::FullAccess => Access::Full,
        }
    }
}

impl Realm {
    /// Notes what breaks the rules that hold between the realm's parts.
    pub fn check(&self, bad: &mut Violations) {
        if self.environments.is_empty() {
            bad.add(
                "realm.environments",
                "at least one is needed, such as name \"production\" and tag \"live\"",
            );
        }
        let mut names = HashSet::new();
        let mut tags = HashSet::new();
        for (i, environment) in self.environments.iter().enumerate() {
            if !names.insert(&environment.name) {
                bad.add(
                    format!("realm.environments[{i}].name"),
                    "stands there twice",
                );
            }
            if !tags.insert(&environment.tag) {
                bad.add(format!("realm.environments[{i}].tag"), "stands there twice");
            }
        }
        self.check_scopes(bad);
        self.check_gateways(bad);
        if self.max_cache > MAX_CACHE_LIMIT {
            bad.add("realm.max_cache", "must be a day at the most");
        }
    }

    fn check_scopes(&self, bad: &mut Violations) {
        let mut names = HashSet::new();
        for (i, scope) in self.scopes.iter().enumerate() {
            if !names.insert(&scope.name) {
                bad.add(format!("realm.scopes[{i}].name"), "stands there twice");
            }
        }
        let reach = reach(&self.scopes);
        for (i, scope) in self.scopes.iter().enumerate() {
            let field = || format!("realm.scopes[{i}].implies");
            if scope.implies.iter().any(|implied| !names.contains(implied)) {
                bad.add(field(), "names a scope that the realm does not have");
            } else if reach[i].contains_place(i) {
                bad.add(field(), "leads back to the scope itself");
            }
        }
        if self
            .admin_scope
            .as_ref()
            .is_some_and(|admin| !names.contains(admin))
        {
            bad.add("realm.admin_scope", "must be one of the realm's scopes");
        }
    }

    fn check_gateways(&self, bad: &mut Violations) {
        let mut names: Vec<_> = self.credentials.names().collect();
        names.sort();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            bad.add("realm.credentials", "names a header twice");
        }
        self.check_project_segments(bad);
        route::check(&self.routes, &self.paths, bad);
        let names: HashSet<_> = self.scopes.iter().map(|scope| &scope.name).collect();
        for (i, route) in self.routes.iter().enumerate() {
            let Need::Key(KeyNeed {
                scopes, any_scopes, ..
            }) = &route.need
            else {
                continue;
            };
            for (field, wanted) in [("scopes", scopes), ("any_scopes", any_scopes)] {
                if !wanted.iter().all(|wanted| names.contains(wanted)) {
                    bad.add(
                        format!("realm.routes[{i}].{field}"),
                        "names a scope that the realm does not have",
                    );
                }
            }
        }
    }

    fn check_project_segments(&self, bad: &mut Violations) {
        let segments = &self.paths.project_segments;
        if segments.len() > MAX_PROJECT_SEGMENTS {
            bad.add("realm.project_segments", "must have at most 16 entries");
            return;
        }
        for (i, segment) in segments.iter().enumerate() {
            let field = || format!("realm.project_segments[{i}]");
            if !route::is_literal(segment) {
                bad.add(
                    field(),
                    "must be a literal segment of a path, such as projects",
                );
            }
            if segments[..i].contains(segment) {
                bad.add(field(), "stands there twice");
            }
        }
    }

    /// The environment of this name.
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments
            .iter()
            .find(|environment| environment.name.as_str() == name)
    }

    /// The environment of this name, or the only one if none is named.
    ///
    /// # Errors
    /// A sentence that says what to name.
    pub fn environment_or_only(&self, name: &str) -> Result<&Environment, &'static str> {
        match (name, self.environments.as_slice()) {
            ("", [only]) => Ok(only),
            ("", _) => Err("is required, as the realm has more than one"),
            _ => self
                .environment(name)
                .ok_or("is not an environment of the realm"),
        }
    }

    /// The built-in realm of the authority itself. Its definition is fixed.
    pub fn built_in() -> Self {
        let word = |name| ScopeName::parse(name).expect("a scope by the rule");
        let scope = |name, implies: &[&'static str], description: &str| Scope {
            name: word(name),
            implies: implies.iter().map(|name| word(name)).collect(),
            description: description.to_owned(),
        };
        Self {
            id: RealmId::built_in(),
            prefix: Prefix::parse("claviger").expect("a prefix by the rule"),
            environments: vec![Environment {
                name: EnvironmentName::parse("main").expect("an environment by the rule"),
                tag: Tag::parse("main").expect("a tag by the rule"),
            }],
            scopes: vec![
                scope(
                    scopes::OPERATOR,
                    &[scopes::MANAGE, scopes::VERIFY],
                    "everything, in every realm",
                ),
                scope(
                    scopes::MANAGE,
                    &[],
                    "the keys, partners and projects of one realm, and its definition",
                ),
                scope(scopes::VERIFY, &[], "to ask about the keys of one realm"),
            ],
            admin_scope: None,
            unscoped_keys: UnscopedKeys::NoAccess,
            levels: BTreeSet::from([LevelKind::Partner]),
            max_cache: Duration::ZERO,
            max_lifetime: None,
            credentials: Credentials::default(),
            routes: Vec::new(),
            paths: PathRules::default(),
            denials: Denials::new(),
        }
    }
}

/// The scopes of the built-in realm.
pub mod scopes {
    /// Everything, in every realm.
    pub const OPERATOR: &str = "operator";
    /// The administration of one realm.
    pub const MANAGE: &str = "manage";
    /// Asking about the keys of one realm.
    pub const VERIFY: &str = "verify";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Realm)) -> Vec<String> {
        let mut realm = Realm::built_in();
        change(&mut realm);
        let mut bad = Violations::default();
        realm.check(&mut bad);
        match bad.finish(Some(())) {
            Ok(()) => Vec::new(),
            Err(violations) => violations
                .into_iter()
                .map(|violation| violation.field)
                .collect(),
        }
    }

    #[test]
    fn the_built_in_realm_keeps_its_own_rules() {
        assert_eq!(problems(|_| ()), [""; 0]);
    }

    #[test]
    fn what_does_not_hold_together_is_named() {
        assert_eq!(
            problems(|realm| realm.environments.clear()),
            ["realm.environments"]
        );
        assert_eq!(
            problems(|realm| realm.environments.push(realm.environments[0].clone())),
            ["realm.environments[1].name", "realm.environments[1].tag"]
        );
        assert_eq!(
            problems(|realm| realm.scopes.push(realm.scopes[2].clone())),
            ["realm.scopes[3].name"]
        );
        assert_eq!(
            problems(|realm| realm.scopes[1].implies =
                BTreeSet::from([ScopeName::parse("ghost").unwrap()])),
            ["realm.scopes[1].implies"]
        );
        assert_eq!(
            problems(|realm| realm.admin_scope = Some(ScopeName::parse("ghost").unwrap())),
            ["realm.admin_scope"]
        );
        assert_eq!(
            problems(|realm| realm.max_cache = MAX_CACHE_LIMIT + Duration::from_nanos(1)),
            ["realm.max_cache"]
        );
    }

    #[test]
    fn a_ladder_that_leads_back_is_refused_at_each_of_its_steps() {
        assert_eq!(
            problems(
                |realm| realm.scopes[2].implies = BTreeSet::from([realm.scopes[0].name.clone()])
            ),
            ["realm.scopes[0].implies", "realm.scopes[2].implies"]
        );
        assert_eq!(
            problems(
                |realm| realm.scopes[2].implies = BTreeSet::from([realm.scopes[2].name.clone()])
            ),
            ["realm.scopes[0].implies", "realm.scopes[2].implies"][1..]
        );
    }

    #[test]
    fn the_only_environment_need_not_be_named() {
        let mut realm = Realm::built_in();
        assert!(realm.environment_or_only("").is_ok());
        assert!(realm.environment_or_only("main").is_ok());
        assert!(realm.environment_or_only("other").is_err());
        realm.environments.push(Environment {
            name: EnvironmentName::parse("other").unwrap(),
            tag: Tag::parse("o").unwrap(),
        });
        assert!(realm.environment_or_only("").is_err());
    }
}
