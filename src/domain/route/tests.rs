//! Tests of the rule that is found for a request, and of the rules that are refused.

use super::*;
use crate::domain::access::ScopeHierarchy;
use crate::domain::path::{EncodedCharacters, RequestPath};

fn route(methods: &[&str], path: &str) -> Route {
    let mut methods: Vec<_> = methods
        .iter()
        .map(|method| Method::parse(method).unwrap())
        .collect();
    methods.sort();
    Route {
        methods,
        path: PathTemplate::parse(path).unwrap(),
        need: Need::Public,
    }
}

fn needing(path: &str, reach: Reach) -> Route {
    Route {
        need: Need::Key(KeyNeed {
            reach,
            scopes: Vec::new(),
            any_scopes: Vec::new(),
        }),
        ..route(&[], path)
    }
}

fn strict() -> PathRules {
    PathRules::default()
}

fn lenient() -> PathRules {
    PathRules {
        lenient: true,
        ..strict()
    }
}

fn keep() -> PathRules {
    PathRules {
        encoded_characters: EncodedCharacters::Keep,
        ..strict()
    }
}

fn slashes(trailing_slash: TrailingSlash) -> PathRules {
    PathRules {
        trailing_slash,
        ..strict()
    }
}

fn repeated(count: usize, segment: impl Fn(usize) -> String) -> String {
    (0..count).map(segment).collect::<Vec<_>>().concat()
}

/// Returns the fields with a violation.
fn problems(routes: &[Route], rules: &PathRules) -> Vec<String> {
    let mut bad = Violations::default();
    check(routes, rules, &mut bad);
    let violations = bad.finish(Some(())).err().unwrap_or_default();
    let kept = violations.kept().iter();
    kept.map(|bad| bad.field.clone()).collect()
}

fn table(routes: &[Route], rules: &PathRules) -> RouteTable {
    let trie = RouteTrie::new(routes, rules);
    RouteTable::new(trie, routes, &ScopeHierarchy::default())
}

fn found(
    routes: &[Route],
    rules: &PathRules,
    method: &str,
    target: &str,
) -> Result<usize, NoRoute> {
    let path = RequestPath::parse(target, rules).unwrap();
    let table = table(routes, rules);
    let found = table.find(method, &path, rules);
    found.map(|matched| matched.rule)
}

fn projects(routes: &[Route], rules: &PathRules, target: &str) -> Vec<String> {
    let path = RequestPath::parse(target, rules).unwrap();
    let table = table(routes, rules);
    let matched = table.find("GET", &path, rules).unwrap();
    matched.projects.iter().map(ToString::to_string).collect()
}

const NONE: Result<usize, NoRoute> = Err(NoRoute::Unmatched);

#[test]
fn the_first_rule_that_matches_decides() {
    let routes = [
        route(&["POST"], "/api/v1/projects/{project}/apiKeys"),
        route(&["GET"], "/api/v1/projects/{project}"),
        route(&[], "/api/v1/projects/{project}/**"),
        route(&[], "/api/v1/**"),
        route(&[], "/"),
    ];
    assert_eq!(problems(&routes, &strict()), [""; 0]);
    for (method, path, expected) in [
        ("POST", "/api/v1/projects/p/apiKeys", Ok(0)),
        ("GET", "/api/v1/projects/p/apiKeys", Ok(2)),
        ("POST", "/api/v1/projects/p/apiKeys/7", Ok(2)),
        ("GET", "/api/v1/projects/p", Ok(1)),
        ("PATCH", "/api/v1/projects/p", Ok(2)),
        ("get", "/api/v1/projects/p", NONE),
        ("Post", "/api/v1/projects/p/apiKeys", NONE),
        ("", "/", NONE),
        ("GET", "/api/v1/projects", Ok(3)),
        ("GET", "/api/v1", Ok(3)),
        ("GET", "/api/v2", NONE),
        ("GET", "/api", NONE),
        ("GET", "/api/v1x", NONE),
        ("GET", "/", Ok(4)),
    ] {
        let found = found(&routes, &strict(), method, path);
        assert_eq!(found, expected, "{method} {path}");
    }
}

/// A more specific rule does not precede an earlier one.
#[test]
fn the_lowest_number_wins_in_every_set_of_rules() {
    let routes = [
        route(&["OPTIONS"], "/**"),
        route(&["GET"], "/api/{x}/b"),
        route(&[], "/api/**"),
        route(&["PUT"], "/api/a/b"),
        route(&[], "/health"),
    ];
    assert_eq!(problems(&routes, &strict()), ["realm.routes[3].path"]);
    for (method, path, expected) in [
        ("OPTIONS", "/api/a/b", Ok(0)),
        ("OPTIONS", "/", Ok(0)),
        ("GET", "/api/a/b", Ok(1)),
        ("PUT", "/api/a/b", Ok(2)),
        ("OPTIONS", "/health", Ok(0)),
        ("GET", "/health", Ok(4)),
    ] {
        let found = found(&routes, &strict(), method, path);
        assert_eq!(found, expected, "{method} {path}");
    }
}

#[test]
fn a_rest_can_be_anywhere_and_can_match_no_segment() {
    let routes = [
        route(&[], "/v1/**/projects/{p}/**/keys"),
        route(&[], "/v1/*/x"),
        route(&[], "/**/y/**"),
    ];
    assert_eq!(problems(&routes, &strict()), [""; 0]);
    for (path, expected) in [
        ("/v1/projects/p/keys", Ok(0)),
        ("/v1/a/b/projects/p/c/d/keys", Ok(0)),
        ("/v1/projects/projects/p/keys", Ok(0)),
        ("/v1/projects/keys", NONE),
        ("/v1/keys/x", Ok(1)),
        ("/v1/x", NONE),
        ("/y", Ok(2)),
        ("/v1/projects/y/keys", Ok(0)),
        ("/v1/y/x", Ok(1)),
        ("/v1/z/y/x", Ok(2)),
    ] {
        assert_eq!(found(&routes, &strict(), "GET", path), expected, "{path}");
    }
}

#[test]
fn a_verb_follows_the_last_colon_of_the_last_segment() {
    let routes = [
        needing("/jobs/{job}:cancel", Reach::Project("job".to_owned())),
        route(&[], "/jobs/{job}"),
    ];
    for (path, expected) in [
        ("/jobs/7:cancel", 0),
        ("/jobs/a:b:cancel", 0),
        ("/jobs/7%3Acancel", 0),
        ("/jobs/7:CANCEL", 1),
        ("/jobs/:cancel", 1),
        ("/jobs/7:cancel:x", 1),
        ("/jobs/7", 1),
    ] {
        let found = found(&routes, &strict(), "GET", path);
        assert_eq!(found, Ok(expected), "{path}");
    }
    for (path, job) in [("/jobs/7:CANCEL.json", "7"), ("/jobs/A:b:cancel", "A:b")] {
        assert_eq!(projects(&routes, &lenient(), path), [job], "{path}");
    }
}

#[test]
fn a_literal_matches_in_every_encoding() {
    let routes = [route(&[], "/v1/keys:revoke"), route(&[], "/v1/{x}")];
    for path in [
        "/v1/keys:revoke",
        "/v1/keys%3Arevoke",
        "/v1/%6Beys%3arevoke",
    ] {
        assert_eq!(found(&routes, &strict(), "GET", path), Ok(0), "{path}");
    }
}

#[test]
fn a_lenient_realm_ignores_case_and_extensions() {
    let routes = [route(&[], "/v1/API-keys/**"), route(&[], "/v1/**")];
    for (path, exactly, leniently) in [
        ("/v1/API-keys", 0, 0),
        ("/v1/api-keys/7", 1, 0),
        ("/V1/api-keys", 2, 0),
        ("/v1/api-keys.json", 1, 0),
        ("/v1/API-KEYS.json", 1, 0),
        ("/v1/api-keys.7", 1, 0),
        ("/v1/api-keys.", 1, 0),
        ("/v1/api-keys.tar.gz", 1, 0),
        ("/v1/api-%E2%84%AAey%C5%BF", 1, 0),
        ("/v1/api-keysx", 1, 1),
        ("/v1/.api-keys", 1, 1),
    ] {
        let expect = |rule| if rule == 2 { NONE } else { Ok(rule) };
        let strictly = found(&routes, &strict(), "GET", path);
        assert_eq!(strictly, expect(exactly), "{path}");
        let found = found(&routes, &lenient(), "GET", path);
        assert_eq!(found, expect(leniently), "{path}");
    }
    let same = [route(&[], "/Users"), route(&[], "/users")];
    assert_eq!(problems(&same, &strict()), [""; 0]);
    assert_eq!(problems(&same, &lenient()), ["realm.routes[1].path"]);
    let longer = [route(&[], "/v1/**"), route(&[], "/v1.2/**")];
    assert_eq!(problems(&longer, &strict()), [""; 0]);
    assert_eq!(problems(&longer, &lenient()), ["realm.routes[1].path"]);
    // In a lenient realm, `/b:stop` also matches `b:stop.x:y`.
    let verbs = [route(&[], "/{a}:stop"), route(&[], "/b:stop")];
    assert_eq!(problems(&verbs, &strict()), ["realm.routes[1].path"]);
    assert_eq!(problems(&verbs, &lenient()), [""; 0]);
}

#[test]
fn a_slash_at_the_end_is_significant_only_if_the_realm_says_so() {
    let significant = slashes(TrailingSlash::Significant);
    let ignored = slashes(TrailingSlash::Ignored);
    let routes = [
        route(&["GET"], "/users/"),
        route(&["GET"], "/users"),
        route(&["GET"], "/users/{id}"),
        route(&[], "/files/**"),
    ];
    assert_eq!(problems(&routes, &strict()), ["realm.routes[0].path"]);
    assert_eq!(problems(&routes, &significant), [""; 0]);
    assert_eq!(problems(&routes, &ignored), ["realm.routes[1].path"]);
    for (path, distinguished, treated_alike) in [
        ("/users/", Ok(0), Ok(0)),
        ("/users", Ok(1), Ok(0)),
        ("/users/7", Ok(2), Ok(2)),
        ("/users/7/", NONE, Ok(2)),
        ("/files/", Ok(3), Ok(3)),
        ("/files/a/", Ok(3), Ok(3)),
    ] {
        let apart = found(&routes, &significant, "GET", path);
        assert_eq!(apart, distinguished, "{path}");
        let alike = found(&routes, &ignored, "GET", path);
        assert_eq!(alike, treated_alike, "{path}");
    }
}

/// A server that cuts at `;` must not read a path that another rule matches.
#[test]
fn a_semicolon_is_accepted_only_where_there_is_no_literal() {
    let routes = [
        route(&["GET"], "/files/{name}"),
        route(&[], "/jobs/{job}:stop"),
        route(&[], "/admin/**"),
        route(&[], "/**/log/{x}"),
        route(&[], "/**"),
    ];
    for (path, expected) in [
        ("/files/a;v=1", Ok(0)),
        ("/files/a%3Bv", Ok(0)),
        ("/files;v/a", Err(NoRoute::Semicolon(0))),
        ("/admin;v/users", Err(NoRoute::Semicolon(2))),
        ("/admin%3Bv/users", Err(NoRoute::Semicolon(2))),
        ("/admin/users;v", Ok(2)),
        ("/x;y/admin", Ok(4)),
        ("/log;v/log/a", Ok(3)),
        ("/a%2Fb/log;v/x", Err(NoRoute::Semicolon(3))),
        ("/jobs/7;v:stop", Err(NoRoute::Semicolon(1))),
        ("/jobs/7:stop;v", Err(NoRoute::Semicolon(1))),
        ("/jobs/7%3Bv", Ok(4)),
    ] {
        assert_eq!(found(&routes, &keep(), "GET", path), expected, "{path}");
    }
}

#[test]
fn the_projects_are_those_of_the_rule_and_of_the_realm() {
    let rules = PathRules {
        project_segments: vec!["projects".to_owned()],
        ..strict()
    };
    let routes = [
        needing("/own/{p}", Reach::Project("p".to_owned())),
        needing("/by/**/{p}/x", Reach::ProjectByPartner("p".to_owned())),
        route(&[], "/open/**"),
        needing("/projects/{p}:close", Reach::Any),
        needing("/**", Reach::Partner),
    ];
    assert_eq!(problems(&routes, &rules), [""; 0]);
    for (path, named) in [
        ("/own/a%40b", &["a@b"][..]),
        ("/by/projects/b/a/x", &["a", "b"]),
        ("/open/projects/a", &[]),
        ("/x/projects/a/projects/b", &["a", "b"]),
        ("/x/projects", &[]),
        ("/projects/a:close", &["a"]),
        ("/projects/a:close/x", &["a:close"]),
    ] {
        assert_eq!(projects(&routes, &rules, path), named, "{path}");
    }
}

#[test]
fn a_rule_that_can_never_win_is_refused_and_no_other() {
    for routes in [
        vec![route(&[], "/a/**"), route(&[], "/a/b")],
        vec![route(&[], "/a/{x}"), route(&[], "/a/b")],
        vec![route(&[], "/a/{x}"), route(&[], "/a/{y}")],
        vec![route(&[], "/a/*"), route(&[], "/a/{x}:stop")],
        vec![route(&[], "/a/{x}:stop"), route(&[], "/a/b:stop")],
        vec![route(&[], "/**/b"), route(&[], "/a/**/{x}/b")],
        vec![route(&[], "/a"), route(&["GET"], "/a")],
        vec![route(&["GET", "PUT"], "/a"), route(&["PUT"], "/a")],
    ] {
        let problems = problems(&routes, &strict());
        assert_eq!(problems, ["realm.routes[1].path"], "{routes:?}");
    }
    for routes in [
        vec![route(&["GET"], "/a/{x}"), route(&["PUT"], "/a/b")],
        vec![route(&["GET", "PUT"], "/{a}/b"), route(&["PUT"], "/c/{d}")],
        vec![route(&["GET"], "/a/**"), route(&[], "/a/**")],
        vec![route(&["GET"], "/a"), route(&["GET", "PUT"], "/a")],
        vec![route(&["OPTIONS"], "/**"), route(&[], "/api/**")],
        vec![route(&[], "/a/{x}:stop"), route(&[], "/a/{x}")],
        vec![route(&[], "/a/**/b"), route(&[], "/a/**")],
    ] {
        assert_eq!(problems(&routes, &strict()), [""; 0], "{routes:?}");
    }
    let together = [
        route(&["GET"], "/a/**"),
        route(&["PUT"], "/a/{x}"),
        route(&["GET", "PUT"], "/a/b"),
    ];
    assert_eq!(problems(&together, &strict()), ["realm.routes[2].path"]);
}

#[test]
fn the_routes_of_a_realm_are_bounded() {
    let methods: Vec<_> = (0..33)
        .map(|i| "M".repeat(1 + i % 17) + &"X".repeat(i / 17))
        .collect();
    let many: Vec<_> = methods
        .iter()
        .map(|method| route(&[method.as_str()], "/a"))
        .collect();
    assert_eq!(problems(&many[..32], &strict()), [""; 0]);
    assert_eq!(problems(&many, &strict()), ["realm.routes"]);

    let deep = |segments: usize| route(&[], &"/a".repeat(segments));
    assert_eq!(problems(&[deep(32)], &strict()), [""; 0]);
    assert_eq!(problems(&[deep(33)], &strict()), ["realm.routes[0].path"]);

    let long = |count: usize, segments: usize| -> Vec<_> {
        (0..count)
            .map(|i| route(&[], &format!("/{i}{}", "/*/b".repeat(segments / 2))))
            .collect()
    };
    assert_eq!(problems(&long(640, 24), &strict()), [""; 0]);
    assert_eq!(problems(&long(700, 24), &strict()), ["realm.routes"]);
}

/// The sizes of the definitions are those on the wire, which are the smallest possible.
#[test]
fn a_table_is_not_larger_than_three_times_its_definition() {
    let names = repeated(31, |number| format!("/{{p{number}}}"));
    let own = |i: usize| repeated(32, |depth| format!("/segment{i}-{depth}"));
    let kinds: [Vec<Route>; 4] = [
        (0..500)
            .map(|i| route(&[["GET", "PUT", "POST"][i % 3]], &format!("/r{i}{names}")))
            .collect(),
        (0..500).map(|i| route(&[], &own(i))).collect(),
        (0..1_000)
            .map(|i| route(&["GET"], &format!("/{i}/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o")))
            .collect(),
        (0..60)
            .map(|i| route(&["GET"], &format!("/**/resource{i}/**")))
            .collect(),
    ];
    for routes in kinds {
        assert_eq!(problems(&routes, &strict()), [""; 0]);
        let wire: usize = routes
            .iter()
            .map(|route| {
                let methods = route.methods.iter().map(|method| 2 + method.as_str().len());
                // The tags and lengths, and `public`.
                methods.sum::<usize>() + route.path.as_str().len() + 8
            })
            .sum();
        let size = table(&routes, &strict()).size();
        assert!(size <= 3 * wire, "{size} bytes for {wire}");
    }
}

#[test]
fn the_number_of_active_positions_is_bounded() {
    let width = |routes: &[Route], rules: &PathRules| RouteTrie::new(routes, rules).width();
    let flat: Vec<_> = (0..1_000)
        .map(|i| route(&[], &format!("/api/{i}/{{x}}/**")))
        .collect();
    assert_eq!(width(&flat, &strict()), 2, "one literal at a time");
    let ways: Vec<_> = (0..16)
        .map(|i| {
            let bit = |place: i32| if i >> place & 1 == 0 { "/a" } else { "/*" };
            route(
                &[],
                &format!("{}{}{}{}/{i}", bit(0), bit(1), bit(2), bit(3)),
            )
        })
        .collect();
    assert_eq!(width(&ways, &strict()), 16);
    let open = |count: usize| -> Vec<_> {
        (0..count)
            .map(|i| route(&[], &format!("/**/{i}/**")))
            .collect()
    };
    // The root, its `**`, one literal, and each `**` after a literal.
    assert_eq!(width(&open(20), &strict()), 23);
    assert_eq!(problems(&open(60), &strict()), [""; 0]);
    assert_eq!(problems(&open(64), &strict()), ["realm.routes"]);
    let both = [route(&[], "/a.json/x"), route(&[], "/a/y")];
    assert_eq!(width(&both, &strict()), 1);
    assert_eq!(width(&both, &lenient()), 2);
}

/// Such rules may have been stored before there was a bound. They deny the request, so that the time remains bounded.
#[test]
fn a_path_with_too_many_active_positions_matches_no_rule() {
    let open = |count: usize| -> Vec<_> {
        (0..count)
            .map(|i| route(&[], &format!("/**/{i}/**/x")))
            .collect()
    };
    let all = |count| format!("{}/x", repeated(count, |i| format!("/{i}")));
    assert_eq!(found(&open(25), &strict(), "GET", &all(25)), Ok(0));
    assert_eq!(found(&open(70), &strict(), "GET", &all(25)), Ok(0));
    assert_eq!(found(&open(70), &strict(), "GET", &all(70)), NONE);
}

/// The bound is never too low, and at most twice the maximum over all short paths.
#[test]
fn no_path_has_more_active_positions_than_the_bound() {
    let sets: [&[&str]; 6] = [
        &["/**/a/**", "/**/b/**", "/a/b"],
        &["/**/a/b/a", "/*/b/**/a"],
        &["/a/*/**/b/{x}:a", "/**/*/*"],
        &["/*/*/*", "/a/a/a", "/*/a/*", "/a/*/a"],
        &["/**/a/**/b/**/a", "/b/**"],
        &["/a.b/*", "/a/b", "/*/b"],
    ];
    for templates in sets {
        for rules in [strict(), lenient(), keep()] {
            let routes: Vec<_> = templates.iter().map(|path| route(&[], path)).collect();
            let trie = RouteTrie::new(&routes, &rules);
            let most = max_active(&trie, &mut Vec::new(), &rules);
            let width = trie.width();
            assert!(most <= width, "{templates:?}: {most} of {width}");
            assert!(width <= 2 * most, "{templates:?}: {most} of {width}");
        }
    }
}

fn max_active(trie: &RouteTrie, path: &mut Vec<&'static str>, rules: &PathRules) -> usize {
    let target = format!("/{}", path.join("/"));
    let mut most = trie.active_count(&RequestPath::parse(&target, rules).unwrap());
    if path.len() < 6 {
        let odd = if rules.encoded_characters == EncodedCharacters::Keep {
            "c:a;x:a"
        } else {
            "c:a"
        };
        for segment in ["a", "b", "a.b", odd] {
            path.push(segment);
            most = most.max(max_active(trie, path, rules));
            path.pop();
        }
    }
    most
}
