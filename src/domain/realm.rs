//! A realm: the definition of one protected API.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::{Access, Scope, ScopeHierarchy, reach};
use super::credential::{CredentialSource, Credentials, HeaderName};
use super::denial::Denials;
use super::ids::{EnvironmentName, Prefix, RealmId, ScopeName, Tag};
use super::key::{LevelKind, OPERATOR_LABELS};
use super::path::{MAX_PROJECT_SEGMENTS, PathRules};
use super::route::{self, KeyNeed, Need, Route};
use super::violation::Violations;

/// The maximum time for which a realm may let gateways cache an answer.
pub const MAX_CACHE_LIMIT: Duration = Duration::from_hours(24);

/// The maximum number of labels of a key that a server behind a gateway gets.
pub const MAX_IDENTITY_LABELS: usize = 8;

/// The maximum number of environments of a realm.
pub const MAX_ENVIRONMENTS: usize = 64;

/// One protected API: its environments, scopes, credentials, routes and denials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Realm {
    /// The realm's identifier.
    pub id: RealmId,
    /// The prefix of the realm's API keys.
    pub prefix: Prefix,
    /// The environments; at least one.
    pub environments: Vec<Environment>,
    /// The scopes, each with the scopes that it implies.
    pub scopes: Vec<Scope>,
    /// The scope whose holders administer the keys of their own partner.
    pub admin_scope: Option<ScopeName>,
    /// The access of a key that is issued without scopes.
    pub unscoped_keys: UnscopedKeys,
    /// The levels at which keys may be issued; at least one.
    pub levels: BTreeSet<LevelKind>,
    /// The time for which a gateway may cache an answer.
    pub max_cache: Duration,
    /// The maximum lifetime of a new key.
    pub max_lifetime: Option<Duration>,
    /// The places that carry the credentials of a request.
    #[serde(default)]
    pub credentials: Credentials,
    /// The routes in their order. The first route that matches a request decides.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// How the realm's server reads paths.
    #[serde(default)]
    pub paths: PathRules,
    /// The HTTP responses for denials, by class.
    #[serde(default)]
    pub denials: Denials,
    /// The labels of a key that the server behind a gateway gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity_labels: Vec<IdentityLabel>,
    /// Whether the realm's keys may rotate themselves. The built-in realm has a rule of its own: see
    /// [`Realm::lets_rotate_itself`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub self_rotation: bool,
    /// Whether the client address of the last use of each secret is recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record_addresses: bool,
}

/// A label of a key that the server behind a gateway gets in a separate header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentityLabel {
    name: String,
    header: String,
}

impl IdentityLabel {
    /// Parses the name of a label.
    ///
    /// # Errors
    /// The rule, if the name does not match it.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        if !(1..=40).contains(&name.len()) || !name.bytes().all(fits) {
            return Err(
                "must be the name of a label, of 1 to 40 letters, digits and characters of ._/-",
            );
        }
        let plain = name.to_ascii_lowercase().replace(['.', '_', '/'], "-");
        if plain.starts_with("operator-") && !name.starts_with(OPERATOR_LABELS) {
            return Err(
                "must not have the same header as a label of the operator: begin it with operator/ or with another word",
            );
        }
        Ok(Self {
            name: name.to_owned(),
            header: format!("x-claviger-label-{plain}"),
        })
    }

    /// Returns the name of the label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of the header, in lower case.
    pub fn header(&self) -> &str {
        &self.header
    }
}

impl TryFrom<String> for IdentityLabel {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name)
    }
}

impl From<IdentityLabel> for String {
    fn from(label: IdentityLabel) -> Self {
        label.name
    }
}

/// An environment of a realm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The name.
    pub name: EnvironmentName,
    /// The tag of the environment in API keys.
    pub tag: Tag,
}

/// The access of a key that is issued without scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnscopedKeys {
    /// No scope.
    NoAccess,
    /// Every scope.
    FullAccess,
}

impl UnscopedKeys {
    /// Returns the access for a key that is issued now.
    pub fn access(self) -> Access {
        match self {
            Self::NoAccess => Access::Scopes(BTreeSet::new()),
            Self::FullAccess => Access::Full,
        }
    }
}

impl Realm {
    /// Checks the rules between the realm's parts and adds a violation for each broken one.
    pub fn check(&self, bad: &mut Violations) {
        if self.environments.is_empty() {
            bad.add(
                "realm.environments",
                "must have at least one entry, such as name \"production\" and tag \"live\"",
            );
        }
        let mut names = HashSet::new();
        let mut tags = HashSet::new();
        for (i, environment) in self.environments.iter().enumerate() {
            if !names.insert(&environment.name) {
                bad.add(format!("realm.environments[{i}].name"), "must be unique");
            }
            if !tags.insert(&environment.tag) {
                bad.add(format!("realm.environments[{i}].tag"), "must be unique");
            }
        }
        self.check_scopes(bad);
        self.check_gateways(bad);
        if self.max_cache > MAX_CACHE_LIMIT {
            bad.add("realm.max_cache", "must be at most one day");
        }
    }

    /// Returns the names of the fields in which another definition of the realm differs, as the proto message `Realm` names them.
    pub fn changed_fields(&self, after: &Self) -> Vec<&'static str> {
        let Self {
            id: _,
            prefix,
            environments,
            scopes,
            admin_scope,
            unscoped_keys,
            levels,
            max_cache,
            max_lifetime,
            credentials,
            routes,
            paths:
                PathRules {
                    project_segments,
                    lenient,
                    trailing_slash,
                    encoded_characters,
                },
            denials,
            identity_labels,
            self_rotation,
            record_addresses,
        } = self;
        [
            ("prefix", *prefix != after.prefix),
            ("environments", *environments != after.environments),
            ("scopes", *scopes != after.scopes),
            ("admin_scope", *admin_scope != after.admin_scope),
            ("unscoped_keys", *unscoped_keys != after.unscoped_keys),
            ("levels", *levels != after.levels),
            ("max_cache", *max_cache != after.max_cache),
            ("max_lifetime", *max_lifetime != after.max_lifetime),
            ("credentials", *credentials != after.credentials),
            ("routes", *routes != after.routes),
            ("denials", *denials != after.denials),
            (
                "project_segments",
                *project_segments != after.paths.project_segments,
            ),
            ("lenient_paths", *lenient != after.paths.lenient),
            (
                "trailing_slash",
                *trailing_slash != after.paths.trailing_slash,
            ),
            (
                "encoded_characters",
                *encoded_characters != after.paths.encoded_characters,
            ),
            ("identity_labels", *identity_labels != after.identity_labels),
            ("self_rotation", *self_rotation != after.self_rotation),
            (
                "record_addresses",
                *record_addresses != after.record_addresses,
            ),
        ]
        .into_iter()
        .filter_map(|(field, is_changed)| is_changed.then_some(field))
        .collect()
    }

    fn check_scopes(&self, bad: &mut Violations) {
        let mut names = HashSet::new();
        for (i, scope) in self.scopes.iter().enumerate() {
            if !names.insert(&scope.name) {
                bad.add(format!("realm.scopes[{i}].name"), "must be unique");
            }
        }
        let reach = reach(&self.scopes);
        for (i, scope) in self.scopes.iter().enumerate() {
            let field = || format!("realm.scopes[{i}].implies");
            if scope.implies.iter().any(|implied| !names.contains(implied)) {
                bad.add(field(), "must name only scopes of the realm");
            } else if reach[i].contains_index(i) {
                bad.add(
                    field(),
                    "must not imply the scope itself, not even indirectly",
                );
            }
        }
        self.check_renamings(bad);
        if self
            .admin_scope
            .as_ref()
            .is_some_and(|admin| !names.contains(admin))
        {
            bad.add("realm.admin_scope", "must be one of the realm's scopes");
        }
    }

    /// Checks what is known of unfinished renamings.
    fn check_renamings(&self, bad: &mut Violations) {
        let mut replaced = HashSet::new();
        for (i, scope) in self.scopes.iter().enumerate() {
            let Some(old) = &scope.replaces else { continue };
            let mut refuse = |rule| bad.add(format!("realm.scopes[{i}].replaces"), rule);
            if !scope.implies.iter().eq([old]) {
                refuse("must be the one scope that the scope implies");
            }
            if !replaced.insert(old) {
                refuse("must be unique: no two scopes replace the same one");
            }
            let is_new_too = |other: &Scope| other.name == *old && other.replaces.is_some();
            if self.scopes.iter().any(is_new_too) {
                refuse("must not be a scope that replaces another one: finish that renaming first");
            }
        }
    }

    fn check_gateways(&self, bad: &mut Violations) {
        self.check_credentials(bad);
        if self.identity_labels.len() > MAX_IDENTITY_LABELS {
            bad.add("realm.identity_labels", "must have at most 8 entries");
        }
        let mut headers = HashSet::new();
        for (i, label) in self.identity_labels.iter().enumerate() {
            if !headers.insert(label.header()) {
                bad.add(
                    format!("realm.identity_labels[{i}]"),
                    format!(
                        "must not have the same header as another label: {}",
                        label.header()
                    ),
                );
            }
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
                        "must name only scopes of the realm",
                    );
                }
            }
        }
    }

    fn check_credentials(&self, bad: &mut Violations) {
        let Credentials { sources, partner } = &self.credentials;
        let own = sources.iter().filter(|source| !source.shares_its_header());
        let mut names: Vec<_> = own
            .map(CredentialSource::header)
            .chain(partner.iter().map(HeaderName::as_str))
            .collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            bad.add("realm.credentials", "must name each header only once");
        }
        for (i, source) in sources.iter().enumerate() {
            if sources[..i].iter().any(|other| source.overlaps(other)) {
                bad.add(
                    format!("realm.credentials.sources[{i}]"),
                    "must not find what another source finds: the same cookie, or a protocol whose prefix begins with another prefix",
                );
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
                bad.add(field(), "must be a literal path segment, such as projects");
            }
            if segments[..i].contains(segment) {
                bad.add(field(), "must be unique");
            }
        }
    }

    /// Returns the environment with this name.
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments
            .iter()
            .find(|environment| environment.name.as_str() == name)
    }

    /// Returns the environment with this name, or the only environment if `name` is empty.
    ///
    /// # Errors
    /// Why the name does not select an environment.
    pub fn environment_or_only(&self, name: &str) -> Result<&Environment, &'static str> {
        match (name, self.environments.as_slice()) {
            ("", [only]) => Ok(only),
            ("", _) => Err("is required because the realm has more than one environment"),
            _ => self
                .environment(name)
                .ok_or("must be an environment of the realm"),
        }
    }

    /// Whether some of the realm's keys may rotate themselves.
    pub fn has_self_rotation(&self) -> bool {
        self.self_rotation || self.id.is_built_in()
    }

    /// Whether a key of this realm with this access may rotate itself. In the built-in realm, keys of gateways and readers may.
    /// Keys that administer may not: who steals such a key must not be able to keep it.
    pub fn lets_rotate_itself(&self, access: &Access) -> bool {
        if !self.id.is_built_in() {
            return self.self_rotation;
        }
        let hierarchy = ScopeHierarchy::new(&self.scopes, None);
        let held = hierarchy.effective_access(access);
        let holds = |scope| {
            hierarchy
                .index_of(scope)
                .is_some_and(|index| held.contains(index))
        };
        let administers = holds(scopes::OPERATOR) || holds(scopes::MANAGE);
        !administers && (holds(scopes::VERIFY) || holds(scopes::READ))
    }

    /// Returns the built-in realm of the authority itself. Its definition is fixed.
    pub fn built_in() -> Self {
        let scope_name = |name| ScopeName::parse(name).expect("a valid scope name");
        let scope = |name, implies: &[&'static str], description: &str| Scope {
            name: scope_name(name),
            implies: implies.iter().map(|name| scope_name(name)).collect(),
            description: description.to_owned(),
            replaces: None,
        };
        Self {
            id: RealmId::built_in(),
            prefix: Prefix::parse("claviger").expect("a valid prefix"),
            environments: vec![Environment {
                name: EnvironmentName::parse("main").expect("a valid environment name"),
                tag: Tag::parse("main").expect("a valid tag"),
            }],
            scopes: vec![
                scope(
                    scopes::OPERATOR,
                    &[scopes::MANAGE, scopes::READ, scopes::VERIFY],
                    "everything in every realm",
                ),
                scope(
                    scopes::MANAGE,
                    &[],
                    "the keys, partners and projects of one realm, and its definition",
                ),
                scope(
                    scopes::VERIFY,
                    &[],
                    "the verification of the keys of one realm",
                ),
                // `manage` does not imply it: a key that holds `manage` and has no partner must not read every realm.
                scope(
                    scopes::READ,
                    &[],
                    "the reading of everything in one realm, or of every realm if the key has no partner",
                ),
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
            identity_labels: Vec::new(),
            // Not stored, so that servers of the version before can read the definition.
            self_rotation: false,
            record_addresses: false,
        }
    }
}

/// The scopes of the built-in realm.
pub mod scopes {
    /// Everything in every realm.
    pub const OPERATOR: &str = "operator";
    /// The administration of one realm.
    pub const MANAGE: &str = "manage";
    /// The verification of the keys of one realm.
    pub const VERIFY: &str = "verify";
    /// The reading of everything in one realm, or in every realm.
    pub const READ: &str = "read";
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
                .kept()
                .iter()
                .map(|violation| violation.field.clone())
                .collect(),
        }
    }

    /// Seen red without `max_lifetime` in the list.
    #[test]
    fn each_changed_field_is_named_as_in_the_proto() {
        fn from<T: serde::de::DeserializeOwned>(json: &str) -> T {
            serde_json::from_str(json).unwrap()
        }
        type Change<'c> = &'c dyn Fn(&mut Realm);
        let changes: [(&str, Change<'_>); 18] = [
            ("prefix", &|realm| realm.prefix = from("\"other\"")),
            ("environments", &|realm| realm.environments.clear()),
            ("scopes", &|realm| {
                realm.scopes[0].description.clear();
            }),
            ("admin_scope", &|realm| {
                realm.admin_scope = from("\"operator\"");
            }),
            ("unscoped_keys", &|realm| {
                realm.unscoped_keys = UnscopedKeys::FullAccess;
            }),
            ("levels", &|realm| realm.levels.clear()),
            ("max_cache", &|realm| realm.max_cache = MAX_CACHE_LIMIT),
            ("max_lifetime", &|realm| {
                realm.max_lifetime = Some(MAX_CACHE_LIMIT);
            }),
            ("credentials", &|realm| {
                realm.credentials.partner = from("\"x-api-user\"");
            }),
            ("routes", &|realm| {
                realm.routes = from(r#"[{"path": "/a", "methods": [], "need": "public"}]"#);
            }),
            ("denials", &|realm| {
                realm.denials =
                    from(r#"{"forbidden": {"status": 404, "headers": {}, "body": ""}}"#);
            }),
            ("project_segments", &|realm| {
                realm.paths.project_segments.push("projects".to_owned());
            }),
            ("lenient_paths", &|realm| realm.paths.lenient = true),
            ("trailing_slash", &|realm| {
                realm.paths.trailing_slash = from("\"ignored\"");
            }),
            ("encoded_characters", &|realm| {
                realm.paths.encoded_characters = from("\"keep\"");
            }),
            ("identity_labels", &|realm| {
                realm.identity_labels = from("[\"plan\"]");
            }),
            ("self_rotation", &|realm| realm.self_rotation = true),
            ("record_addresses", &|realm| realm.record_addresses = true),
        ];
        let before = Realm::built_in();
        assert_eq!(before.changed_fields(&before), [""; 0]);
        let mut after = before.clone();
        for (field, change) in changes {
            let mut other = before.clone();
            change(&mut other);
            assert_eq!(before.changed_fields(&other), [field]);
            change(&mut after);
        }
        let all = changes.map(|(field, _)| field);
        assert_eq!(before.changed_fields(&after), all);
    }

    /// Seen red without the check of `administers`.
    #[test]
    fn keys_that_administer_the_authority_do_not_rotate_themselves() {
        let built_in = Realm::built_in();
        let access = |granted: &[&str]| {
            let granted = granted.iter().map(|scope| ScopeName::parse(scope).unwrap());
            Access::Scopes(granted.collect())
        };
        for granted in [&["verify"][..], &["read"], &["read", "verify"]] {
            assert!(built_in.lets_rotate_itself(&access(granted)), "{granted:?}");
        }
        for granted in [&["operator"][..], &["manage"], &["manage", "verify"], &[]] {
            assert!(
                !built_in.lets_rotate_itself(&access(granted)),
                "{granted:?}"
            );
        }
        assert!(!built_in.lets_rotate_itself(&Access::Full));
        let json = serde_json::to_string(&built_in).unwrap();
        assert!(!json.contains("self_rotation"), "{json}");
    }

    #[test]
    fn the_built_in_realm_keeps_its_own_rules() {
        assert_eq!(problems(|_| ()), [""; 0]);
    }

    #[test]
    fn each_broken_rule_names_its_field() {
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
            ["realm.scopes[4].name"]
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

    /// Seen red without each of the three rules.
    #[test]
    fn a_scope_replaces_the_one_that_it_implies_and_no_other() {
        let replacing = |renamings: &[(&str, &str, &str)]| {
            let name = |name: &str| ScopeName::parse(name).unwrap();
            problems(|realm| {
                let new = renamings.iter().map(|(new, implied, old)| Scope {
                    name: name(new),
                    implies: implied.split_whitespace().map(name).collect(),
                    description: String::new(),
                    replaces: Some(name(old)),
                });
                realm.scopes.extend(new);
            })
        };
        let refused = ["realm.scopes[4].replaces"];
        assert_eq!(replacing(&[("new", "read", "read")]), [""; 0]);
        assert_eq!(replacing(&[("new", "read", "verify")]), refused);
        assert_eq!(replacing(&[("new", "read verify", "read")]), refused);
        assert_eq!(replacing(&[("new", "", "ghost")]), refused);
        let twice = [("new", "read", "read"), ("other", "read", "read")];
        assert_eq!(replacing(&twice), ["realm.scopes[5].replaces"]);
        let chain = [("newer", "new", "new"), ("new", "read", "read")];
        assert_eq!(replacing(&chain), refused);
    }

    /// Seen red without each of the two checks.
    #[test]
    fn no_two_places_or_labels_are_taken_for_each_other() {
        let sources = |json: &str| {
            problems(|realm| realm.credentials.sources = serde_json::from_str(json).unwrap())
        };
        assert_eq!(
            sources(
                r#"[{"websocket_protocol": {"prefix": "x."}}, {"websocket_protocol": {"prefix": "x.y."}}]"#
            ),
            ["realm.credentials.sources[1]"]
        );
        let same =
            r#"[{"cookie": {"name": "a"}}, {"cookie": {"name": "b"}}, {"cookie": {"name": "a"}}]"#;
        assert_eq!(sources(same), ["realm.credentials.sources[2]"]);
        let both = r#"[{"cookie": {"name": "x."}}, {"websocket_protocol": {"prefix": "x."}}]"#;
        assert_eq!(sources(both), [""; 0]);

        for like_operators in [
            "operator-plan",
            "Operator/plan",
            "operator.plan",
            "OPERATOR_a",
        ] {
            assert!(
                IdentityLabel::parse(like_operators).is_err(),
                "{like_operators}"
            );
        }
        for own in ["operator/plan", "operator", "operators-plan", "plan"] {
            assert!(IdentityLabel::parse(own).is_ok(), "{own}");
        }
        let labels = ["plan", "PLAN"].map(|name| IdentityLabel::parse(name).unwrap());
        let twice = problems(|realm| realm.identity_labels = labels.into());
        assert_eq!(twice, ["realm.identity_labels[1]"]);
    }

    #[test]
    fn a_cycle_in_the_scope_hierarchy_is_refused_at_each_of_its_scopes() {
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
