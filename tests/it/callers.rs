//! Callers: what they may not make of themselves.

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use tonic::Code;

use super::fixtures::Service;

fn in_hours(hours: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: Clock::system().now().as_micros() / 1_000_000 + hours * 3_600,
        nanos: 0,
    }
}

fn operator(hours: Option<i64>, cidrs: &[&str]) -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        realm: "claviger".to_owned(),
        scopes: vec!["operator".to_owned()],
        expire_time: hours.map(in_hours),
        allowed_cidrs: cidrs.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_operator_makes_no_caller_that_lasts_longer_or_reaches_further() {
    let service = Service::start().await;
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
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().starts_with(field),
            "{}",
            refused.message()
        );
    }
    let within = operator(Some(1), &["127.0.0.1/32"]);
    assert!(bounded.keys.issue_key(within).await.is_ok());
    // Keys of other realms are not callers, and not bounded by the operator's own.
    root.make_demo().await;
    bounded.issue().await;
    service.stop().await;
}

#[tokio::test]
async fn a_caller_that_was_revoked_changes_nothing_any_more() {
    let service = Service::start().await;
    let mut root = service.api();
    root.make_demo().await;
    let other = root
        .keys
        .issue_key(operator(None, &[]))
        .await
        .unwrap()
        .into_inner();
    let mut caller = service.api_as(&other.plain_key);
    caller.issue().await;
    root.revoke(&other.key.unwrap().id).await.unwrap();
    let refused = caller
        .keys
        .issue_key(super::fixtures::issue_request())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused.message().contains("revoked"),
        "{}",
        refused.message()
    );
    service.stop().await;
}
