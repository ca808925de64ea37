//! The four partner APIs behind real gateways: the real claviger, the real Envoy, nginx and Caddy with the configurations
//! that it prints for them, and a server behind them that tells what reached it.

mod cases;
mod client_addresses;
mod credentials;
mod denials;
mod documented;
mod envoy_proto;
mod fixture;
mod gateway_process;
mod http1;
mod keys;
mod odd_requests;
mod path_readings;
mod places;
mod projects;
mod several;
mod websockets;

use cases::Outcome;
use claviger::pb::claviger::v1 as pb;
use fixture::{GatewayFixture, PARTNERO, SITES, Site};
pub(crate) use gateway_process::{GatewayApi, GatewayKind, GatewayProcess, add_api, envoy_program};
use http1::UpstreamRequest;
pub(crate) use http1::{Answer, Upstream, send};
pub(crate) use keys::gateway_key;

use crate::fixtures::eventually;

/// Makes a test of each for every kind of gateway, under the same name.
macro_rules! on_each_gateway {
    ($($(#[$attribute:meta])* async fn $name:ident($kind:ident: GatewayKind) $body:block)*) => {
        $(async fn $name($kind: GatewayKind) $body)*

        on_each_gateway!(@ envoy_raw, EnvoyRaw, $($name)*);
        on_each_gateway!(@ envoy_joined, EnvoyJoined, $($name)*);
        on_each_gateway!(@ envoy_normalising, EnvoyNormalising, $($name)*);
        on_each_gateway!(@ envoy_http, EnvoyHttp, $($name)*);
        on_each_gateway!(@ nginx, Nginx, $($name)*);
        on_each_gateway!(@ caddy, Caddy, $($name)*);
    };
    (@ $module:ident, $kind:ident, $($name:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::GatewayKind::$kind).await;
            })*
        }
    };
}

on_each_gateway! {
    async fn each_request_becomes_what_its_api_documents(kind: GatewayKind) {
        let fixture = GatewayFixture::on(kind).await;
        let cases = cases::all();
        let mut wrong = Vec::new();
        for case in &cases {
            let outcome = case.outcome_on(kind);
            let (answer, seen) = fixture.request(case.site, &case.line, &case.headers).await;
            let what = format!("{}: {}", case.site.realm, case.what);
            if let Err(found) = judge(kind, case.site, outcome, &answer, &seen, &case.line) {
                wrong.push(format!("{what}: should be {outcome:?}, {found}"));
                continue;
            }
            let key = match outcome {
                Outcome::Passes(name) => Some(&fixture.key(case.site, name).key),
                _ => None,
            };
            for seen in &seen {
                fixture.check_seen(&what, seen, key);
            }
        }
        assert!(wrong.is_empty(), "{kind:?}, {} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        println!("{kind:?}: {} cases", cases.len());
    }

    /// Written from the documents alone.
    async fn each_request_becomes_what_its_document_says(kind: GatewayKind) {
        let fixture = GatewayFixture::on(kind).await;
        let mut wrong = Vec::new();
        for case in documented::ALL.iter().chain(documented::FOUND) {
            let headers: Vec<_> = case.headers.iter().map(ToString::to_string).collect();
            let (answer, seen) = fixture.request(case.site, case.line, &headers).await;
            let documented::Documented { source, says, line, .. } = case;
            let what = format!("{source}: {says}: {line} {headers:?}");
            if let Err(found) = judge(kind, case.site, case.outcome, &answer, &seen, line) {
                wrong.push(format!("{what}: should be {:?}, {found}", case.outcome));
            } else if let Outcome::Passes(name) = case.outcome {
                fixture.check_seen(&what, &seen[0], Some(&fixture.key(case.site, name).key));
            }
        }
        let count = documented::ALL.len() + documented::FOUND.len();
        assert!(wrong.is_empty(), "{kind:?}, {} of {count}:\n{}", wrong.len(), wrong.join("\n"));
        println!("{kind:?}: {count} cases of the documents");
    }

    /// A preflight for everybody, as its rule comes first; paths with a slash at the end; and an encoded slash that is data.
    async fn what_ordinary_apis_need_can_be_said(kind: GatewayKind) {
        let fixture = GatewayFixture::on(kind).await;
        fixture
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
            if kind == GatewayKind::EnvoyNormalising && line.contains("%2F") {
                // It makes a slash of it before it asks.
                continue;
            }
            let header = format!("Authorization: Bearer {{{key}}}");
            let headers = if key.is_empty() { vec![] } else { vec![header] };
            let (answer, seen) = fixture.request(PARTNERO, line, &headers).await;
            judge(kind, PARTNERO, outcome, &answer, &seen, line)
                .unwrap_or_else(|found| panic!("{kind:?} {line} with {key:?}: {found}"));
        }
    }

    async fn a_key_reaches_exactly_its_own_projects_wherever_a_path_names_them(kind: GatewayKind) {
        let fixture = GatewayFixture::on(kind).await;
        projects::send(&fixture, 9 + kind as u64, 1_000).await;
    }

    async fn what_is_odd_is_refused_or_made_plain(kind: GatewayKind) {
        let fixture = GatewayFixture::on(kind).await;
        let count = odd_requests::send_all(&fixture).await;
        println!("{kind:?}: {count} odd requests");
    }

    async fn no_reading_of_a_path_reaches_what_its_key_is_not_good_for(kind: GatewayKind) {
        let fixture = GatewayFixture::on(kind).await;
        let count = path_readings::send_all(&fixture).await;
        println!("{kind:?}: {count} requests under each way of reading paths");
    }

    async fn a_denial_is_the_realms_whatever_is_in_it(kind: GatewayKind) {
        let mut fixture = GatewayFixture::on(kind).await;
        denials::check_all(&mut fixture).await;
    }

    async fn the_first_place_with_a_key_decides_and_no_place_passes_it_on(kind: GatewayKind) {
        let mut fixture = GatewayFixture::on(kind).await;
        places::check_all(&mut fixture).await;
    }

    async fn websockets_pass_and_no_other_upgrade_does(kind: GatewayKind) {
        let fixture = GatewayFixture::on(kind).await;
        websockets::send_all(&fixture).await;
    }

    /// Seen red with `failure_mode_allow: true` in Envoy's configuration, and without `handle_errors` in Caddy's, which logged keys.
    async fn without_claviger_nothing_passes_and_with_it_again_everything_does(kind: GatewayKind) {
        let mut fixture = GatewayFixture::on(kind).await;
        let ask = async |fixture: &GatewayFixture, site, key: &str| {
            let headers = credentials::headers(site, key);
            fixture.request(site, cases::plain_request(site), &headers).await
        };
        for site in SITES {
            let (answer, seen) = ask(&fixture, site, cases::good_key(site)).await;
            assert_eq!((answer.status, seen.len()), (200, 1), "{kind:?}");
        }
        fixture.stop_claviger();
        for site in SITES {
            for key in [cases::good_key(site), "nonsense"] {
                let (answer, seen) = ask(&fixture, site, key).await;
                assert_eq!((answer.status, seen.len()), (503, 0), "{kind:?} {site:?} {answer:?}");
            }
        }
        let (answer, seen) = fixture.request(PARTNERO, "GET /health", &[]).await;
        assert_eq!((answer.status, seen.len()), (503, 0), "not even an open path");
        fixture.start_claviger();
        for site in SITES {
            eventually("requests pass again", async || {
                let (answer, seen) = ask(&fixture, site, cases::good_key(site)).await;
                assert!(matches!(answer.status, 200 | 503), "{kind:?} {answer:?}");
                (answer.status == 200 && seen.len() == 1).then_some(())
            })
            .await;
            let (answer, _) = ask(&fixture, site, "nonsense").await;
            assert_eq!(answer.status, 401, "{kind:?}");
        }
        // A server behind that is down is told apart, but by Envoy only in words.
        fixture.stop_upstream();
        for site in SITES {
            let (answer, _) = ask(&fixture, site, cases::good_key(site)).await;
            let status = if kind.is_envoy() { 503 } else { 502 };
            assert_eq!(answer.status, status, "{kind:?} {site:?} {answer:?}");
        }
        fixture.check_logs();
    }
}

/// Also those for which Envoy's protocol has no name, such as 418: it takes the number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_status_that_a_realm_may_deny_with_reaches_the_client_through_envoy() {
    let fixture = GatewayFixture::on(GatewayKind::EnvoyRaw).await;
    for status in 400..500 {
        fixture.put_denial(PARTNERO, status).await;
        let (answer, seen) = fixture.request(PARTNERO, "GET /v1/partners", &[]).await;
        let told = u32::from(answer.status);
        assert_eq!((told, seen.len()), (status, 0), "{answer:?}");
    }
}

/// nginx obeys some headers of an answer, `X-Accel-Redirect` for one, and lets such a request through. Seen red with the realm's
/// headers in claviger's answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_gets_no_header_of_a_denial_but_the_challenge_and_the_verdict() {
    let fixture = GatewayFixture::on(GatewayKind::Nginx).await;
    fixture
        .put_realm(PARTNERO, |realm| {
            realm.denials = vec![pb::Denial {
                denial_class: pb::DenialClass::Unauthenticated.into(),
                headers: [("x-help".to_owned(), "here".to_owned())].into(),
                ..Default::default()
            }];
        })
        .await;
    let answer = fixture.ask_as_nginx(PARTNERO, "/v1/partners").await;
    let names: Vec<_> = answer
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split(':').next().unwrap_or_default())
        .collect();
    assert_eq!(
        names,
        [
            "www-authenticate",
            "x-claviger-verdict",
            "x-claviger-reason",
            "content-length",
            "date"
        ],
        "{answer}"
    );
}

/// Whether a request became what it should.
fn judge(
    kind: GatewayKind,
    site: Site,
    outcome: Outcome,
    answer: &Answer,
    seen: &[UpstreamRequest],
    line: &str,
) -> Result<(), String> {
    let refused = seen.is_empty() && (400..500).contains(&answer.status);
    let method = line.split(' ').next().unwrap_or_default();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let passed = answer.status == 200
        && matches!(seen, [only] if only.line.starts_with(&format!("{method} "))
            && kind.passes_on(target, only.target()));
    let right = match outcome {
        Outcome::Passes(_) | Outcome::Public => passed,
        Outcome::Refused => refused,
        Outcome::Denied(status) => {
            seen.is_empty() && answer.status == status && is_told(site, line, answer)
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
fn is_told(site: Site, line: &str, answer: &Answer) -> bool {
    let body = site.body(answer.status);
    let bodied = match body {
        "" => answer.body.is_empty(),
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
