//! The four partner APIs behind real gateways: the real claviger, the real Envoy, nginx and Caddy with the configurations of
//! `examples/`, and a server behind them that tells what reached it.

mod cases;
mod credentials;
mod documented;
mod gate;
mod keys;
mod management;
mod odd;
mod projects;
mod readings;
mod wire;
mod world;

use cases::Outcome;
use claviger::pb::claviger::v1 as pb;
use gate::Way;
use wire::{Answer, Seen};
use world::{PARTNERO, SITES, Site, World};

use super::fixtures::eventually;

/// Runs a test on each way in, under its name.
macro_rules! on_each_way {
    ($($(#[$attribute:meta])* async fn $name:ident($way:ident: Way) $body:block)*) => {
        $(async fn $name($way: Way) $body)*

        on_each_way!(@ envoy_raw, EnvoyRaw, $($name)*);
        on_each_way!(@ envoy_joined, EnvoyJoined, $($name)*);
        on_each_way!(@ envoy_normalising, EnvoyNormalising, $($name)*);
        on_each_way!(@ envoy_http, EnvoyHttp, $($name)*);
        on_each_way!(@ nginx, Nginx, $($name)*);
        on_each_way!(@ caddy, Caddy, $($name)*);
    };
    (@ $module:ident, $way:ident, $($name:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Way::$way).await;
            })*
        }
    };
}

on_each_way! {
    async fn each_request_becomes_what_its_api_documents(way: Way) {
        let world = World::on(way).await;
        let cases = cases::all();
        let mut wrong = Vec::new();
        for case in &cases {
            let outcome = case.outcome_on(way);
            let (answer, seen) = world.request(case.site, &case.line, &case.headers).await;
            let what = format!("{}: {}", case.site.realm, case.what);
            if let Err(found) = judge(way, case.site, outcome, &answer, &seen, &case.line) {
                wrong.push(format!("{what}: should be {outcome:?}, {found}"));
                continue;
            }
            let key = match outcome {
                Outcome::Passes(name) => Some(&world.key(case.site, name).key),
                _ => None,
            };
            for seen in &seen {
                world.check_seen(&what, seen, key);
            }
        }
        assert!(wrong.is_empty(), "{way:?}, {} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        println!("{way:?}: {} cases", cases.len());
    }

    /// Written from the documents alone.
    async fn each_request_becomes_what_its_document_says(way: Way) {
        let world = World::on(way).await;
        let mut wrong = Vec::new();
        for case in documented::ALL.iter().chain(documented::FOUND) {
            let headers: Vec<_> = case.headers.iter().map(ToString::to_string).collect();
            let (answer, seen) = world.request(case.site, case.line, &headers).await;
            let documented::Documented { source, says, line, .. } = case;
            let what = format!("{source}: {says}: {line} {headers:?}");
            if let Err(found) = judge(way, case.site, case.outcome, &answer, &seen, line) {
                wrong.push(format!("{what}: should be {:?}, {found}", case.outcome));
            } else if let Outcome::Passes(name) = case.outcome {
                world.check_seen(&what, &seen[0], Some(&world.key(case.site, name).key));
            }
        }
        let count = documented::ALL.len() + documented::FOUND.len();
        assert!(wrong.is_empty(), "{way:?}, {} of {count}:\n{}", wrong.len(), wrong.join("\n"));
        println!("{way:?}: {count} cases of the documents");
    }

    /// A preflight for everybody, as its rule comes first; paths with a slash at the end; and an encoded slash that is data.
    async fn what_ordinary_apis_need_can_be_said(way: Way) {
        let world = World::on(way).await;
        world
            .put_realm(PARTNERO, |realm| {
                realm.trailing_slash = pb::TrailingSlash::Significant.into();
                realm.encoded_characters = pb::EncodedCharacters::Keep.into();
                let preflight = pb::Route {
                    methods: vec!["OPTIONS".to_owned()],
                    path: "/**".to_owned(),
                    target: Some(pb::route::Target::Public(true)),
                    ..Default::default()
                };
                let users = pb::Route {
                    path: "/v1/users/".to_owned(),
                    target: Some(pb::route::Target::OwnProject(true)),
                    scopes: vec!["write".to_owned()],
                    ..Default::default()
                };
                realm.routes.splice(0..0, [preflight, users]);
            })
            .await;
        for (line, key, outcome) in [
            ("OPTIONS /v1/partners", "", Outcome::Public),
            ("OPTIONS /nowhere", "", Outcome::Public),
            ("GET /v1/partners", "", Outcome::Denied(401)),
            ("GET /v1/users/", "good", Outcome::Passes("good")),
            ("GET /v1/users/", "read", Outcome::Denied(403)),
            ("GET /v1/users", "read", Outcome::Passes("read")),
            ("GET /v1/queues/a%2Fb/messages", "good", Outcome::Passes("good")),
            ("GET /v1/users%3Bx/", "read", Outcome::Denied(403)),
        ] {
            if way == Way::EnvoyNormalising && line.contains("%2F") {
                // It makes a slash of it before it asks.
                continue;
            }
            let header = format!("Authorization: Bearer {{{key}}}");
            let headers = if key.is_empty() { vec![] } else { vec![header] };
            let (answer, seen) = world.request(PARTNERO, line, &headers).await;
            judge(way, PARTNERO, outcome, &answer, &seen, line)
                .unwrap_or_else(|found| panic!("{way:?} {line} with {key:?}: {found}"));
        }
    }

    async fn a_key_reaches_exactly_its_own_projects_wherever_a_path_names_them(way: Way) {
        let world = World::on(way).await;
        projects::send(&world, 9 + way as u64, 1_000).await;
    }

    async fn what_is_odd_is_refused_or_made_plain(way: Way) {
        let world = World::on(way).await;
        let count = odd::send_all(&world).await;
        println!("{way:?}: {count} odd requests");
    }

    async fn no_reading_of_a_path_reaches_what_its_key_is_not_good_for(way: Way) {
        let world = World::on(way).await;
        let count = readings::send_all(&world).await;
        println!("{way:?}: {count} requests under each way of reading paths");
    }

    /// Seen red with `failure_mode_allow: true` in Envoy's configuration.
    async fn without_claviger_nothing_passes_and_with_it_again_everything_does(way: Way) {
        let mut world = World::on(way).await;
        let ask = async |world: &World, site, key: &str| {
            let headers = credentials::headers(site, key);
            world.request(site, cases::plain_request(site), &headers).await
        };
        for site in SITES {
            let (answer, seen) = ask(&world, site, cases::good_key(site)).await;
            assert_eq!((answer.status, seen.len()), (200, 1), "{way:?}");
        }
        world.stop_claviger();
        for site in SITES {
            for key in [cases::good_key(site), "nonsense"] {
                let (answer, seen) = ask(&world, site, key).await;
                assert_eq!((answer.status, seen.len()), (503, 0), "{way:?} {site:?} {answer:?}");
            }
        }
        let (answer, seen) = world.request(PARTNERO, "GET /health", &[]).await;
        assert_eq!((answer.status, seen.len()), (503, 0), "not even an open path");
        world.start_claviger();
        for site in SITES {
            eventually("requests pass again", async || {
                let (answer, seen) = ask(&world, site, cases::good_key(site)).await;
                assert!(matches!(answer.status, 200 | 503), "{way:?} {answer:?}");
                (answer.status == 200 && seen.len() == 1).then_some(())
            })
            .await;
            let (answer, _) = ask(&world, site, "nonsense").await;
            assert_eq!(answer.status, 401, "{way:?}");
        }
    }
}

/// Also those for which Envoy's protocol has no name, such as 418: it takes the number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_status_that_a_realm_may_deny_with_reaches_the_client_through_envoy() {
    let world = World::on(Way::EnvoyRaw).await;
    for status in 400..500 {
        world.put_denial(PARTNERO, status).await;
        let (answer, seen) = world.request(PARTNERO, "GET /v1/partners", &[]).await;
        let told = u32::from(answer.status);
        assert_eq!((told, seen.len()), (status, 0), "{answer:?}");
    }
}

/// Whether a request became what it should.
fn judge(
    way: Way,
    site: Site,
    outcome: Outcome,
    answer: &Answer,
    seen: &[Seen],
    line: &str,
) -> Result<(), String> {
    let refused = seen.is_empty() && (400..500).contains(&answer.status);
    let method = line.split(' ').next().unwrap_or_default();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let passed = answer.status == 200
        && matches!(seen, [only] if only.line.starts_with(&format!("{method} "))
            && way.passes_on(target, only.target()));
    let right = match outcome {
        Outcome::Passes(_) | Outcome::Public => passed,
        Outcome::Refused => refused,
        Outcome::Denied(status) => {
            seen.is_empty() && answer.status == status && is_told(way, site, line, answer)
        }
    };
    if right {
        Ok(())
    } else {
        let Answer {
            status,
            headers,
            body,
        } = answer;
        Err(format!(
            "is {status} {body:?} {headers:?}; behind: {seen:?}"
        ))
    }
}

/// Whether a denial is told as the realm has it.
fn is_told(way: Way, site: Site, line: &str, answer: &Answer) -> bool {
    let body = site.body(answer.status);
    let bodied = match body {
        // Where there is none, nginx writes a page of its own.
        "" => way == Way::Nginx || answer.body.is_empty(),
        body => {
            line.starts_with("HEAD ")
                || (answer.body == body
                    && answer.header("content-type") == Some("application/json"))
        }
    };
    let challenge = format!("realm=\"{}\"", site.realm);
    let challenged = answer
        .header("www-authenticate")
        .is_some_and(|told| told.contains(&challenge));
    bodied && (answer.status != 401 || challenged)
}
