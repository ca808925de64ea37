//! Explain: every check of a question, and the one that decided.

use claviger::pb::claviger::v1 as pb;
use pb::explain_request::Question;
use pb::{CheckOutcome, Verdict};
use tonic::Code;

use crate::fixtures::{
    Api, Engine, Service, authority_key_request, demo_realm, header_source, issue_request,
    on_both_engines, verify_request,
};

/// The realm `demo`, at gateways.
fn realm() -> pb::Realm {
    let route = |path: &str, target| pb::Route {
        path: path.to_owned(),
        target,
        ..Default::default()
    };
    pb::Realm {
        credentials: Some(pb::Credentials {
            sources: vec![header_source("authorization", "Bearer")],
            partner_header: String::new(),
        }),
        routes: vec![
            route("/open", Some(pb::route::Target::Public(true))),
            route(
                "/p/{id}/**",
                Some(pb::route::Target::Project("id".to_owned())),
            ),
            pb::Route {
                scopes: vec!["admin".to_owned()],
                ..route("/admin", None)
            },
        ],
        ..demo_realm()
    }
}

async fn explain(api: &mut Api, question: Question) -> pb::ExplainResponse {
    let request = pb::ExplainRequest {
        question: Some(question),
    };
    api.verify.explain(request).await.unwrap().into_inner()
}

fn http(key: &str, target: &str) -> Question {
    Question::Http(pb::HttpQuestion {
        realm: "demo".to_owned(),
        environment: "production".to_owned(),
        method: "GET".to_owned(),
        target: target.to_owned(),
        headers: vec![pb::HttpHeader {
            name: "Authorization".to_owned(),
            value: key.to_owned(),
        }],
        client_ip: String::new(),
    })
}

fn outcome(answer: &pb::ExplainResponse, name: &str) -> CheckOutcome {
    let mut checks = answer.checks.iter();
    let check = checks.find(|check| check.name == name);
    check
        .unwrap_or_else(|| panic!("there is no check {name}"))
        .outcome()
}

on_both_engines! {
    async fn a_question_is_explained_as_it_is_answered(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let issued = api.issue().await;
        let id = issued.key.unwrap().id;
        let good = issued.plain_key;
        let end = if good.ends_with('x') { "y" } else { "x" };
        let typo = format!("{}{end}", &good[..good.len() - 1]);
        let wanting = pb::VerifyRequest {
            scopes: vec!["admin".to_owned()],
            environment: "staging".to_owned(),
            partner: "umbrella".to_owned(),
            ..verify_request(&good)
        };
        for (question, decided_by) in [
            (verify_request(&good), ""),
            (verify_request(&typo), "form"),
            (verify_request("someone_elses"), "secret"),
            (wanting.clone(), "environment_mismatch"),
        ] {
            let verdict = api.verify.verify(question.clone()).await.unwrap().into_inner().verdict();
            let answer = explain(&mut api, Question::Verify(question)).await;
            assert_eq!(answer.decided_by, decided_by);
            assert_eq!(answer.verdict(), verdict);
            assert_eq!(answer.allowed, verdict == Verdict::Allowed);
        }
        // All that speaks against it is told, not only what decided.
        let answer = explain(&mut api, Question::Verify(wanting.clone())).await;
        for name in ["environment_mismatch", "partner_mismatch", "scope_missing"] {
            assert_eq!(outcome(&answer, name), CheckOutcome::Failed, "{name}");
        }
        assert_eq!(outcome(&answer, "revoked"), CheckOutcome::Passed);
        assert_eq!(answer.missing_scopes, ["admin"]);

        api.revoke(&id).await.unwrap();
        let answer = explain(&mut api, Question::Verify(wanting)).await;
        assert_eq!(answer.decided_by, "revoked");
        assert_eq!(answer.http_status, 401);
        service.stop().await;
    }

    /// Verify writes the fields of a key one by one, and Explain sends the generated message. Seen red with the tag of another
    /// field for the scopes, and without the expiry.
    async fn an_answer_shows_each_fact_of_a_key(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let labels = |count| (0..count).map(|i| (format!("label{i}"), "v".repeat(4 * i))).collect();
        for request in [
            issue_request(),
            pb::IssueKeyRequest {
                name: "a näme".to_owned(),
                labels: labels(16),
                expire_time: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 1_000 }),
                ..issue_request()
            },
            pb::IssueKeyRequest {
                level: pb::KeyLevel::Project.into(),
                project: "one".to_owned(),
                environment: "staging".to_owned(),
                labels: labels(1),
                scopes: Vec::new(),
                full_access: true,
                ..issue_request()
            },
        ] {
            let issued = api.keys.issue_key(request).await.unwrap().into_inner();
            let question = pb::VerifyRequest {
                // Denied for a reason of its own, so that there are missing scopes too.
                scopes: vec!["admin".to_owned()],
                environment: issued.key.as_ref().unwrap().environment.clone(),
                target: Some(pb::verify_request::Target::AnyTarget(true)),
                ..verify_request(&issued.plain_key)
            };
            let answer = api.verify.verify(question.clone()).await.unwrap().into_inner();
            let explained = explain(&mut api, Question::Verify(question)).await;
            assert_eq!(answer.key, explained.key);
            assert_eq!(answer.missing_scopes, explained.missing_scopes);
            let (shown, key) = (answer.key.unwrap(), issued.key.unwrap());
            assert_eq!((&shown.id, &shown.name, &shown.labels), (&key.id, &key.name, &key.labels));
            assert_eq!((shown.level, shown.expire_time), (key.level, key.expire_time));
        }
        service.stop().await;
    }

    async fn a_request_is_explained_from_its_path_on(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        api.put_realm(realm()).await;
        let key = format!("Bearer {}", api.issue().await.plain_key);
        for (authorization, target, decided_by, status) in [
            (key.as_str(), "/p/one/x?y", "", 200),
            (&key, "/open", "", 200),
            ("", "/open", "credentials", 401),
            (&key, "/p/three/x", "project_mismatch", 403),
            (&key, "/admin", "scope_missing", 403),
            (&key, "/else", "route", 403),
            (&key, "/p//x", "path", 403),
            ("Basic x", "/p/one/x", "credentials", 401),
            ("Bearer x", "/else", "secret", 401),
        ] {
            let answer = explain(&mut api, http(authorization, target)).await;
            let told = (answer.decided_by.as_str(), answer.http_status, answer.allowed);
            assert_eq!(told, (decided_by, status, status == 200), "{authorization} {target}");
        }
        for target in ["/else", "/p//x", "/p/one/"] {
            let answer = explain(&mut api, http(&key, target)).await;
            assert_eq!(answer.verdict(), Verdict::NoRoute, "{target}");
        }
        let answer = explain(&mut api, http(&key, "/p/one/x")).await;
        assert_eq!(answer.route, "routes[1] any method /p/{id}/**");
        service.stop().await;
    }

    /// Seen red without findings.
    async fn a_check_tells_what_was_compared(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        api.put_realm(realm()).await;
        let end = prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 };
        let bound = pb::IssueKeyRequest {
            allowed_cidrs: vec!["10.0.0.0/8".to_owned(), "2001:db8::/32".to_owned()],
            expire_time: Some(end),
            ..issue_request()
        };
        let bound = api.keys.issue_key(bound).await.unwrap().into_inner().plain_key;
        let of_project = pb::IssueKeyRequest {
            level: pb::KeyLevel::Project.into(),
            project: "one".to_owned(),
            ..issue_request()
        };
        let of_project = api.keys.issue_key(of_project).await.unwrap().into_inner().plain_key;
        let ask = |key: &str, target: &str, client_ip: &str| match http(&format!("Bearer {key}"), target) {
            Question::Http(question) => Question::Http(pb::HttpQuestion {
                client_ip: client_ip.to_owned(),
                ..question
            }),
            other @ Question::Verify(_) => other,
        };
        for (key, target, client, name, told) in [
            (&bound, "/p/one", "198.51.100.1", "address_denied", "198.51.100.1 is in none of 10.0.0.0/8, 2001:db8::/32"),
            (&bound, "/p/one", "10.1.2.3", "address_denied", "10.1.2.3 is in one of 10.0.0.0/8, 2001:db8::/32"),
            (&bound, "/p/one", "", "address_denied", "the client's address is not known"),
            (&bound, "/p/one", "", "expired", "the key expires at 2096-10-02T07:06:40Z"),
            (&bound, "/admin", "", "scope_missing", "the key has read, write; the request needs admin"),
            (&bound, "/p/one", "", "scope_missing", "the request needs no scope"),
            (&bound, "/p/unknown", "", "project_mismatch", "the key is a partner key, the request names a project that acme does not have"),
            (&of_project, "/p/two", "", "project_mismatch", "the key is bound to the project one, the request names the project two"),
            (&of_project, "/admin", "", "project_mismatch", "the key is bound to the project one, the request needs a partner key"),
            (&of_project, "/p/one", "", "expired", "the key never expires"),
        ] {
            let answer = explain(&mut api, ask(key, target, client)).await;
            let check = answer.checks.iter().find(|check| check.name == name).unwrap();
            assert!(check.detail.starts_with(told), "{target} {client} {name}: {check:?}");
        }
        let other = pb::VerifyRequest {
            environment: "staging".to_owned(),
            partner: bound.clone(),
            ..verify_request(&bound)
        };
        let answer = explain(&mut api, Question::Verify(other)).await;
        let detail = |name: &str| &answer.checks.iter().find(|check| check.name == name).unwrap().detail;
        assert_eq!(detail("environment_mismatch"), "the key is for production, the request is to staging");
        // An API key in the wrong place is not repeated.
        assert_eq!(detail("partner_mismatch"), "the key belongs to acme, the request names another partner");
        let in_path = explain(&mut api, ask(&of_project, &format!("/p/{bound}"), "")).await;
        assert!(!format!("{:?}", in_path.checks).contains(&bound));
        service.stop().await;
    }

    async fn only_operators_may_look_behind_the_answers(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let gateway = authority_key_request("verify", "demo");
        let gateway = api.keys.issue_key(gateway).await.unwrap().into_inner();
        let question = Question::Verify(verify_request("k"));
        let request = pb::ExplainRequest { question: Some(question) };
        let mut gateway = service.api_as(&gateway.plain_key);
        let refused = gateway.verify.explain(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let nothing = pb::ExplainRequest { question: None };
        let refused = api.verify.explain(nothing).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        service.stop().await;
    }
}
