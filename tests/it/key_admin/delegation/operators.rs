//! What an operator whose own key is bounded may issue.

use claviger::pb::claviger::v1 as pb;
use tonic::Code;

use crate::fixtures::{Engine, HOUR, Service, authority_key_request, on_both_engines, since_start};

fn operator(hours: Option<i64>, cidrs: &[&str]) -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        expire_time: hours.map(|hours| since_start(hours * HOUR)),
        allowed_cidrs: cidrs.iter().map(ToString::to_string).collect(),
        ..authority_key_request("operator", "")
    }
}

on_both_engines! {
    async fn an_operator_makes_no_key_of_the_authority_that_lasts_longer_or_reaches_further(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        let bounded = operator(Some(2), &["127.0.0.0/8", "::1/128"]);
        let bounded = root
            .keys
            .issue_key(bounded)
            .await
            .unwrap()
            .into_inner()
            .plain_key;
        let mut bounded = service.api_as(&bounded);
        for (request, field) in [
            (operator(None, &["127.0.0.1/32"]), "expire_time"),
            (operator(Some(3), &["127.0.0.1/32"]), "expire_time"),
            (operator(Some(1), &[]), "allowed_cidrs"),
            (
                operator(Some(1), &["127.0.0.1/32", "10.0.0.0/8"]),
                "allowed_cidrs",
            ),
            (operator(Some(1), &["0.0.0.0/0"]), "allowed_cidrs"),
        ] {
            let refused = bounded
                .keys
                .issue_key(request)
                .await
                .err()
                .expect("a refusal");
            assert_eq!(refused.code(), Code::PermissionDenied);
            assert!(refused.message().contains(field), "{}", refused.message());
        }
        let within = operator(Some(1), &["127.0.0.1/32"]);
        assert!(bounded.keys.issue_key(within).await.is_ok());
        // Keys of other realms are not bounded by the operator's own, even if they may administer there.
        root.make_demo().await;
        bounded.issue().await;
        service.stop().await;
    }
}
