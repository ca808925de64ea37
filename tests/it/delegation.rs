//! Delegation: what partners do with keys of their own that hold the realm's admin scope.

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::KeyLevel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::fixtures::{Api, Service, demo_realm};

pub(crate) const HOUR: i64 = 3_600;

/// The realm `demo` with `keys` as its admin scope, which is apart from what the keys are for.
pub(crate) fn realm() -> pb::Realm {
    let scope = |name: &str, implies: &[&str]| pb::Scope {
        name: name.to_owned(),
        implies: implies.iter().map(ToString::to_string).collect(),
        description: String::new(),
    };
    pb::Realm {
        scopes: vec![
            scope("read", &[]),
            scope("write", &["read"]),
            scope("billing", &[]),
            scope("keys", &[]),
            scope("owner", &["write", "billing", "keys"]),
        ],
        admin_scope: "keys".to_owned(),
        ..demo_realm()
    }
}

/// Asks for a key in production that holds the admin scope and may do a little.
fn wanted(change: impl FnOnce(&mut pb::IssueKeyRequest)) -> pb::IssueKeyRequest {
    let mut request = pb::IssueKeyRequest {
        realm: "demo".to_owned(),
        partner: "acme".to_owned(),
        level: KeyLevel::Partner.into(),
        environment: "production".to_owned(),
        scopes: vec!["write".to_owned(), "keys".to_owned()],
        ..Default::default()
    };
    change(&mut request);
    request
}

fn in_seconds(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: Clock::system().now().as_micros() / 1_000_000 + seconds,
        nanos: 0,
    })
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

pub(crate) async fn world() -> (Service, Api) {
    let service = Service::start().await;
    let mut root = service.api();
    root.make_demo().await;
    root.put_realm(realm()).await;
    (service, root)
}

async fn issue(api: &mut Api, request: pb::IssueKeyRequest) -> (String, String) {
    let issued = api.keys.issue_key(request).await.unwrap().into_inner();
    (issued.key.unwrap().id, issued.plain_key)
}

/// What the refusal says for programs, and the first field that it blames.
fn reason(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let field = details
        .bad_request()
        .and_then(|bad| bad.field_violations.first())
        .map_or_else(String::new, |violation| violation.field.clone());
    let info = details.error_info().expect("every error has one");
    assert_eq!(info.domain, "claviger");
    (status.code(), info.reason.clone(), field)
}

/// Each line is an incident of the kind that other key systems had: the key that a partner holds, what it asks for, and the
/// field that goes too far.
#[tokio::test]
async fn nobody_gives_more_than_they_hold() {
    type Change = fn(&mut pb::IssueKeyRequest);
    let plain: Change = |_| ();
    let ending: Change = |key| key.expire_time = in_seconds(HOUR);
    let at_home: Change = |key| key.allowed_cidrs = words(&["127.0.0.0/8", "::1/128"]);
    let of_project: Change = |key| {
        key.level = KeyLevel::Project.into();
        key.project = "one".to_owned();
    };
    let (service, mut root) = world().await;
    for (incident, holder, asked, field) in [
        (
            "a scope that it does not hold",
            plain,
            (|key| key.scopes = words(&["read", "billing"])) as Change,
            "scopes",
        ),
        (
            "a scope that implies one that it does not hold",
            plain,
            |key| key.scopes = words(&["owner"]),
            "scopes",
        ),
        (
            "everything",
            plain,
            |key| {
                key.scopes.clear();
                key.full_access = true;
            },
            "full_access",
        ),
        (
            "everything, by holding every scope of today",
            |key| key.scopes = words(&["owner"]),
            |key| {
                key.scopes.clear();
                key.full_access = true;
            },
            "full_access",
        ),
        (
            "a key without an end, from one that has one",
            ending,
            plain,
            "expire_time",
        ),
        (
            "a later end",
            ending,
            |key| key.expire_time = in_seconds(2 * HOUR),
            "expire_time",
        ),
        (
            "a key for everywhere, from one that is bound",
            at_home,
            plain,
            "allowed_cidrs",
        ),
        (
            "a wider range",
            at_home,
            |key| key.allowed_cidrs = words(&["126.0.0.0/7"]),
            "allowed_cidrs",
        ),
        (
            "another range beside its own",
            at_home,
            |key| key.allowed_cidrs = words(&["127.0.0.1/32", "10.0.0.0/8"]),
            "allowed_cidrs",
        ),
    ] {
        let (_, holder) = issue(&mut root, wanted(holder)).await;
        let refused = service.api_as(&holder).keys.issue_key(wanted(asked)).await;
        assert_eq!(
            reason(&refused.err().expect(incident)),
            (
                Code::PermissionDenied,
                "EXCEEDS_CALLER".to_owned(),
                field.to_owned()
            ),
            "{incident}"
        );
    }
    for (incident, holder, asked) in [
        (
            "another partner's key",
            plain,
            (|key| key.partner = "umbrella".to_owned()) as Change,
        ),
        ("the key of a partner that is not there", plain, |key| {
            key.partner = "nobody".to_owned();
        }),
        ("another environment", plain, |key| {
            key.environment = "staging".to_owned();
        }),
        ("another realm", plain, |key| {
            key.realm = "claviger".to_owned();
        }),
        ("a partner key, from a project key", of_project, plain),
        (
            "another project's key, from a project key",
            of_project,
            |key| {
                key.level = KeyLevel::Project.into();
                key.project = "two".to_owned();
            },
        ),
    ] {
        let (_, holder) = issue(&mut root, wanted(holder)).await;
        let refused = service.api_as(&holder).keys.issue_key(wanted(asked)).await;
        assert_eq!(
            reason(&refused.err().expect(incident)),
            (
                Code::PermissionDenied,
                "NOT_ALLOWED".to_owned(),
                String::new()
            ),
            "{incident}"
        );
    }
    for (what, holder, asked) in [
        ("its like", plain, plain),
        (
            "less",
            plain,
            (|key| key.scopes = words(&["read"])) as Change,
        ),
        ("nothing", plain, |key| key.scopes.clear()),
        ("an end of its own", plain, ending),
        ("the same end, to the microsecond", ending, ending),
        ("a range of its own", plain, at_home),
        ("a range within its own", at_home, |key| {
            key.allowed_cidrs = words(&["127.3.0.0/16"]);
        }),
        ("a key of one of its projects", plain, of_project),
        ("a key of its own project", of_project, of_project),
    ] {
        let holder = wanted(holder);
        let mut asked = wanted(asked);
        if holder.expire_time.is_some() {
            asked.expire_time = holder.expire_time;
        }
        let (_, holder) = issue(&mut root, holder).await;
        let issued = service.api_as(&holder).keys.issue_key(asked).await;
        assert!(issued.is_ok(), "{what}: {issued:?}", issued = issued.err());
    }
    // Where keys without scopes get everything by the realm's own word, nothing is asked for and everything is given.
    let open = pb::Realm {
        unscoped_keys: pb::UnscopedKeys::FullAccess.into(),
        ..realm()
    };
    let (_, holder) = issue(&mut root, wanted(plain)).await;
    root.put_realm(open).await;
    let asked = wanted(|key| key.scopes.clear());
    let refused = service.api_as(&holder).keys.issue_key(asked).await;
    assert_eq!(reason(&refused.err().expect("a refusal")).2, "full_access");
    service.stop().await;
}

#[tokio::test]
async fn a_delegate_sees_and_touches_the_keys_of_its_own_partner_and_no_others() {
    let (service, mut root) = world().await;
    let project = |name: &'static str| {
        move |key: &mut pb::IssueKeyRequest| {
            key.level = KeyLevel::Project.into();
            key.project = name.to_owned();
        }
    };
    let (own, partner_key) = issue(&mut root, wanted(|_| ())).await;
    let (_, project_key) = issue(&mut root, wanted(project("one"))).await;
    let (sibling, _) = issue(&mut root, wanted(project("one"))).await;
    let (other_project, _) = issue(&mut root, wanted(project("two"))).await;
    let (staging, _) = issue(
        &mut root,
        wanted(|key| key.environment = "staging".to_owned()),
    )
    .await;
    let (foreign, _) = issue(&mut root, wanted(|key| key.partner = "umbrella".to_owned())).await;
    let operators = service.operator.clone();
    let list = |api: &mut Api| {
        let mut keys = api.keys.clone();
        async move {
            let request = pb::ListKeysRequest {
                realm: "demo".to_owned(),
                ..Default::default()
            };
            let listed = keys.list_keys(request).await.unwrap().into_inner().keys;
            listed.into_iter().map(|key| key.id).collect::<Vec<_>>()
        }
    };

    let mut partner = service.api_as(&partner_key);
    let mut bound = service.api_as(&project_key);
    let seen = list(&mut partner).await;
    assert!(seen.contains(&own) && seen.contains(&sibling) && seen.contains(&other_project));
    assert!(!seen.contains(&staging) && !seen.contains(&foreign));
    let seen = list(&mut bound).await;
    assert!(seen.contains(&sibling) && seen.len() == 2, "{seen:?}");

    let mut never_was = own.clone();
    never_was.replace_range(0..8, "00000000");
    for (api, ids) in [
        (&mut partner, vec![&staging, &foreign, &never_was]),
        (
            &mut bound,
            vec![&own, &other_project, &staging, &foreign, &never_was],
        ),
    ] {
        for id in ids {
            let key_id = id.clone();
            let get = pb::GetKeyRequest {
                key_id: key_id.clone(),
            };
            let scopes = pb::GetKeyScopesRequest {
                key_id: key_id.clone(),
            };
            let disable = pb::DisableKeyRequest {
                key_id: key_id.clone(),
                ..Default::default()
            };
            let enable = pb::EnableKeyRequest {
                key_id,
                ..Default::default()
            };
            let refusals = [
                api.keys.get_key(get).await.err(),
                api.keys.get_key_scopes(scopes).await.err(),
                api.keys.disable_key(disable).await.err(),
                api.keys.enable_key(enable).await.err(),
                api.revoke(id).await.err(),
                api.delete(id).await.err(),
            ];
            // All the same, so that nothing can be learnt from them.
            for refusal in refusals {
                let refusal = refusal.expect("a refusal");
                assert_eq!(refusal.message(), "the key does not exist");
                assert_eq!(reason(&refusal).0, Code::NotFound);
            }
        }
    }
    // What is administered with keys of the built-in realm only.
    let realm_id = "demo".to_owned();
    let get = pb::GetRealmRequest {
        realm_id: realm_id.clone(),
    };
    let put = pb::PutPartnerRequest {
        partner: Some(pb::Partner {
            realm: realm_id.clone(),
            id: "acme".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let put_realm = pb::PutRealmRequest {
        realm: Some(realm()),
        ..Default::default()
    };
    let put_project = pb::PutProjectRequest {
        project: Some(pb::Project {
            realm: realm_id.clone(),
            id: "more".to_owned(),
            partner: "acme".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let events = pb::ListEventsRequest {
        realm: realm_id,
        partner: "acme".to_owned(),
        ..Default::default()
    };
    for refusal in [
        partner.realms.get_realm(get).await.err(),
        partner.realms.put_realm(put_realm).await.err(),
        partner.realms.put_partner(put).await.err(),
        partner.realms.put_project(put_project).await.err(),
        partner
            .realms
            .list_realms(pb::ListRealmsRequest::default())
            .await
            .err(),
        partner.keys.list_events(events).await.err(),
    ] {
        assert_eq!(
            reason(&refusal.expect("a refusal")).0,
            Code::PermissionDenied
        );
    }
    // Asking for another's list by name is refused, whether or not there is such another.
    for (partner_id, environment, project) in [
        ("umbrella", "", ""),
        ("nobody", "", ""),
        ("", "staging", ""),
    ] {
        let request = pb::ListKeysRequest {
            realm: "demo".to_owned(),
            partner: partner_id.to_owned(),
            environment: environment.to_owned(),
            project: project.to_owned(),
            ..Default::default()
        };
        let refused = partner.keys.list_keys(request).await.unwrap_err();
        assert_eq!(reason(&refused).0, Code::PermissionDenied);
    }

    partner.revoke(&sibling).await.unwrap();
    partner.delete(&other_project).await.unwrap();
    // A key without the admin scope is known, and may nothing here; it may not ask about keys either.
    let (_, plain) = issue(&mut root, wanted(|key| key.scopes = words(&["write"]))).await;
    let mut plain = service.api_as(&plain);
    let refused = plain.keys.issue_key(wanted(|_| ())).await.err();
    assert_eq!(
        reason(&refused.expect("a refusal")).0,
        Code::PermissionDenied
    );
    let question = super::fixtures::verify_request(&operators);
    let refused = partner.verify.verify(question).await.unwrap_err();
    assert_eq!(reason(&refused).0, Code::Unauthenticated);
    service.stop().await;
}

/// The wider key was switched off by somebody who could; to switch it on again is to give it.
#[tokio::test]
async fn a_key_is_not_switched_on_by_one_that_holds_less() {
    let (service, mut root) = world().await;
    let (wider, _) = issue(&mut root, wanted(|key| key.scopes = words(&["owner"]))).await;
    let (_, lesser) = issue(&mut root, wanted(|_| ())).await;
    let mut lesser = service.api_as(&lesser);
    let enable = || pb::EnableKeyRequest {
        key_id: wider.clone(),
        ..Default::default()
    };
    // It may be taken from, as the keys of the same partner.
    let disable = pb::DisableKeyRequest {
        key_id: wider.clone(),
        ..Default::default()
    };
    lesser.keys.disable_key(disable).await.unwrap();
    let refused = lesser.keys.enable_key(enable()).await.unwrap_err();
    assert_eq!(reason(&refused).1, "EXCEEDS_CALLER");
    root.keys.enable_key(enable()).await.unwrap();

    // Among operators it is the same.
    let operator = |change: fn(&mut pb::IssueKeyRequest)| {
        let mut request = pb::IssueKeyRequest {
            realm: "claviger".to_owned(),
            scopes: words(&["operator"]),
            ..Default::default()
        };
        change(&mut request);
        request
    };
    let (unbounded, _) = issue(&mut root, operator(|_| ())).await;
    let (_, ending) = issue(
        &mut root,
        operator(|key| key.expire_time = in_seconds(HOUR)),
    )
    .await;
    let mut ending = service.api_as(&ending);
    let disable = pb::DisableKeyRequest {
        key_id: unbounded.clone(),
        ..Default::default()
    };
    ending.keys.disable_key(disable).await.unwrap();
    let enable = pb::EnableKeyRequest {
        key_id: unbounded,
        ..Default::default()
    };
    let refused = ending.keys.enable_key(enable).await.unwrap_err();
    assert_eq!(reason(&refused).2, "expire_time");
    service.stop().await;
}
