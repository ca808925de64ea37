//! Delegation: what partners do with keys of their own that hold the realm's admin scope.

use std::sync::LazyLock;

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::KeyLevel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::fixtures::{Api, Engine, Service, demo_realm, on_both_engines, verify_request};

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

/// So many seconds after the tests began: the same instant whenever it is asked for.
fn in_seconds(seconds: i64) -> prost_types::Timestamp {
    static BEGIN: LazyLock<i64> = LazyLock::new(|| Clock::system().now().as_micros() / 1_000_000);
    prost_types::Timestamp {
        seconds: *BEGIN + seconds,
        nanos: 0,
    }
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

pub(crate) async fn world(engine: Engine) -> (Service, Api) {
    let service = Service::start(engine).await;
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

type Change = fn(&mut pb::IssueKeyRequest);

fn plain(_: &mut pb::IssueKeyRequest) {}

fn ending(key: &mut pb::IssueKeyRequest) {
    key.expire_time = Some(in_seconds(HOUR));
}

fn at_home(key: &mut pb::IssueKeyRequest) {
    key.allowed_cidrs = words(&["127.0.0.0/8", "::1/128"]);
}

fn of_project(key: &mut pb::IssueKeyRequest) {
    key.level = KeyLevel::Project.into();
    "one".clone_into(&mut key.project);
}

/// What the server says when a key that was issued as `holder` asks for one as `asked`.
async fn outcome(service: &Service, holder: Change, asked: Change) -> Result<(), Status> {
    let (holder, asked) = (wanted(holder), wanted(asked));
    let (_, holder) = issue(&mut service.api(), holder).await;
    let answer = service.api_as(&holder).keys.issue_key(asked).await;
    answer.map(drop)
}

async fn list(
    api: &mut Api,
    change: impl FnOnce(&mut pb::ListKeysRequest),
) -> Result<Vec<String>, Status> {
    let mut request = pb::ListKeysRequest {
        realm: "demo".to_owned(),
        ..Default::default()
    };
    change(&mut request);
    let listed = api.keys.list_keys(request).await?.into_inner().keys;
    Ok(listed.into_iter().map(|key| key.id).collect())
}

/// Every way in which a key can be named, and what each says of this one.
async fn refusals(api: &mut Api, id: &str) -> Vec<Option<Status>> {
    let key_id = || id.to_owned();
    let get = pb::GetKeyRequest { key_id: key_id() };
    let scopes = pb::GetKeyScopesRequest { key_id: key_id() };
    let disable = pb::DisableKeyRequest {
        key_id: key_id(),
        ..Default::default()
    };
    let enable = pb::EnableKeyRequest {
        key_id: key_id(),
        ..Default::default()
    };
    vec![
        api.keys.get_key(get).await.err(),
        api.keys.get_key_scopes(scopes).await.err(),
        api.keys.disable_key(disable).await.err(),
        api.keys.enable_key(enable).await.err(),
        api.revoke(id).await.err(),
        api.delete(id).await.err(),
    ]
}

on_both_engines! {
    /// Each line is an incident of the kind that other key systems had: the key that a partner holds, what it asks for, and the
    /// field that goes too far.
    async fn nobody_gives_more_than_they_hold(engine: Engine) {
        let incidents: [(&str, Change, Change, &str); 11] = [
            (
                "a scope that it does not hold",
                plain,
                |key| key.scopes = words(&["read", "billing"]),
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
                "an end that is later by a microsecond",
                ending,
                |key| {
                    ending(key);
                    key.expire_time.as_mut().unwrap().nanos = 1_000;
                },
                "expire_time",
            ),
            (
                "a range of the other family",
                at_home,
                |key| key.allowed_cidrs = words(&["::/0"]),
                "allowed_cidrs",
            ),
            (
                "a later end",
                ending,
                |key| key.expire_time = Some(in_seconds(2 * HOUR)),
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
        ];
        let (service, _) = world(engine).await;
        for (incident, holder, asked, field) in incidents {
            let refused = outcome(&service, holder, asked).await.expect_err(incident);
            let expected = (
                Code::PermissionDenied,
                "EXCEEDS_CALLER".to_owned(),
                field.to_owned(),
            );
            assert_eq!(reason(&refused), expected, "{incident}");
        }
        service.stop().await;
    }

    async fn nobody_issues_keys_of_others(engine: Engine) {
        let incidents: [(&str, Change, Change); 6] = [
            ("another partner's key", plain, |key| {
                "umbrella".clone_into(&mut key.partner);
            }),
            ("the key of a partner that is not there", plain, |key| {
                "nobody".clone_into(&mut key.partner);
            }),
            ("another environment", plain, |key| {
                "staging".clone_into(&mut key.environment);
            }),
            ("another realm", plain, |key| {
                "claviger".clone_into(&mut key.realm);
            }),
            ("a partner key, from a project key", of_project, plain),
            (
                "another project's key, from a project key",
                of_project,
                |key| {
                    key.level = KeyLevel::Project.into();
                    "two".clone_into(&mut key.project);
                },
            ),
        ];
        let (service, _) = world(engine).await;
        for (incident, holder, asked) in incidents {
            let refused = outcome(&service, holder, asked).await.expect_err(incident);
            let expected = (
                Code::PermissionDenied,
                "NOT_ALLOWED".to_owned(),
                String::new(),
            );
            assert_eq!(reason(&refused), expected, "{incident}");
        }
        service.stop().await;
    }

    async fn what_one_holds_can_be_given(engine: Engine) {
        let gifts: [(&str, Change, Change); 9] = [
            ("its like", plain, plain),
            ("less", plain, |key| key.scopes = words(&["read"])),
            ("nothing", plain, |key| key.scopes.clear()),
            ("an end of its own", plain, ending),
            ("the same end, to the microsecond", ending, ending),
            ("a range of its own", plain, at_home),
            ("a range within its own", at_home, |key| {
                key.allowed_cidrs = words(&["127.3.0.0/16"]);
            }),
            ("a key of one of its projects", plain, of_project),
            ("a key of its own project", of_project, of_project),
        ];
        let (service, _) = world(engine).await;
        for (gift, holder, asked) in gifts {
            let issued = outcome(&service, holder, asked).await;
            assert!(issued.is_ok(), "{gift}: {issued:?}");
        }
        service.stop().await;
    }

    /// Where keys without scopes get everything by the realm's own word, nothing is asked for and everything would be given.
    async fn what_the_realm_fills_in_counts_like_what_is_asked_for(engine: Engine) {
        let (service, mut root) = world(engine).await;
        let (_, holder) = issue(&mut root, wanted(plain)).await;
        root.put_realm(pb::Realm {
            unscoped_keys: pb::UnscopedKeys::FullAccess.into(),
            ..realm()
        })
        .await;
        let asked = wanted(|key| key.scopes.clear());
        let refused = service.api_as(&holder).keys.issue_key(asked).await.err();
        assert_eq!(reason(&refused.expect("a refusal")).2, "full_access");
        service.stop().await;
    }

    async fn what_is_not_ones_own_does_not_exist(engine: Engine) {
        let (service, mut root) = world(engine).await;
        let (own, partner) = issue(&mut root, wanted(plain)).await;
        let (_, bound) = issue(&mut root, wanted(of_project)).await;
        let (sibling, _) = issue(&mut root, wanted(of_project)).await;
        let two = |key: &mut pb::IssueKeyRequest| {
            of_project(key);
            "two".clone_into(&mut key.project);
        };
        let (other_project, _) = issue(&mut root, wanted(two)).await;
        let staging = |key: &mut pb::IssueKeyRequest| "staging".clone_into(&mut key.environment);
        let (staging, _) = issue(&mut root, wanted(staging)).await;
        let foreign = |key: &mut pb::IssueKeyRequest| "umbrella".clone_into(&mut key.partner);
        let (foreign, _) = issue(&mut root, wanted(foreign)).await;
        let never_was = format!("00000000{}", &own[8..]);
        let mut partner = service.api_as(&partner);
        let mut bound = service.api_as(&bound);

        let seen = list(&mut partner, |_| ()).await.unwrap();
        assert!(
            [&own, &sibling, &other_project]
                .iter()
                .all(|id| seen.contains(id))
        );
        assert_eq!(seen.len(), 4, "{seen:?}");
        let seen = list(&mut bound, |_| ()).await.unwrap();
        assert!(seen.contains(&sibling) && seen.len() == 2, "{seen:?}");

        let beyond_partner = vec![&staging, &foreign, &never_was];
        let beyond_project = vec![&own, &other_project, &staging, &foreign, &never_was];
        for (api, ids) in [(&mut partner, beyond_partner), (&mut bound, beyond_project)] {
            for id in ids {
                // All the same, so that nothing can be learnt from them.
                for refusal in refusals(api, id).await {
                    let refusal = refusal.expect("a refusal");
                    assert_eq!(refusal.message(), "the key does not exist");
                    assert_eq!(reason(&refusal).0, Code::NotFound);
                }
            }
        }
        // Asking for another's list by name is refused, whether or not there is such another.
        for change in [
            (|list| "umbrella".clone_into(&mut list.partner)) as fn(&mut pb::ListKeysRequest),
            |list| "nobody".clone_into(&mut list.partner),
            |list| "staging".clone_into(&mut list.environment),
            |list| "claviger".clone_into(&mut list.realm),
        ] {
            let refused = list(&mut partner, change).await.unwrap_err();
            assert_eq!(reason(&refused).0, Code::PermissionDenied);
        }
        partner.revoke(&sibling).await.unwrap();
        partner.delete(&other_project).await.unwrap();
        service.stop().await;
    }

    async fn keys_are_all_that_is_delegated(engine: Engine) {
        let (service, mut root) = world(engine).await;
        let (_, partner) = issue(&mut root, wanted(plain)).await;
        let (_, without) = issue(&mut root, wanted(|key| key.scopes = words(&["write"]))).await;
        let mut partner = service.api_as(&partner);
        let realm_id = || "demo".to_owned();
        let get = pb::GetRealmRequest {
            realm_id: realm_id(),
        };
        let put = pb::PutRealmRequest {
            realm: Some(realm()),
            ..Default::default()
        };
        let put_partner = pb::PutPartnerRequest {
            partner: Some(pb::Partner {
                realm: realm_id(),
                id: "acme".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let put_project = pb::PutProjectRequest {
            project: Some(pb::Project {
                realm: realm_id(),
                id: "more".to_owned(),
                partner: "acme".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let events = pb::ListEventsRequest {
            realm: realm_id(),
            partner: "acme".to_owned(),
            ..Default::default()
        };
        let realms = pb::ListRealmsRequest::default();
        for refusal in [
            partner.realms.get_realm(get).await.err(),
            partner.realms.list_realms(realms).await.err(),
            partner.realms.put_realm(put).await.err(),
            partner.realms.put_partner(put_partner).await.err(),
            partner.realms.put_project(put_project).await.err(),
            partner.keys.list_events(events).await.err(),
            // A key without the admin scope is known, and may nothing here.
            list(&mut service.api_as(&without), |_| ()).await.err(),
        ] {
            let refusal = refusal.expect("a refusal");
            assert_eq!(reason(&refusal).0, Code::PermissionDenied);
        }
        // To ask about keys takes one of the authority's own realm.
        let question = verify_request(&service.operator);
        let refused = partner.verify.verify(question).await.unwrap_err();
        assert_eq!(reason(&refused).0, Code::Unauthenticated);
        service.stop().await;
    }

    /// Whoever runs the API must be able to stop a key although its partner holds another.
    async fn what_an_operator_switched_off_its_partner_does_not_switch_on(engine: Engine) {
        let (service, mut root) = world(engine).await;
        let (key, _) = issue(&mut root, wanted(plain)).await;
        let (_, sibling) = issue(&mut root, wanted(plain)).await;
        let mut sibling = service.api_as(&sibling);
        let disable = || pb::DisableKeyRequest {
            key_id: key.clone(),
            ..Default::default()
        };
        let enable = || pb::EnableKeyRequest {
            key_id: key.clone(),
            ..Default::default()
        };
        sibling.keys.disable_key(disable()).await.unwrap();
        sibling.keys.enable_key(enable()).await.unwrap();
        // Also if the partner had switched it off before, or does so again.
        sibling.keys.disable_key(disable()).await.unwrap();
        root.keys.disable_key(disable()).await.unwrap();
        sibling.keys.disable_key(disable()).await.unwrap();
        let refused = sibling.keys.enable_key(enable()).await.unwrap_err();
        assert_eq!(reason(&refused).1, "NOT_ALLOWED");
        root.keys.enable_key(enable()).await.unwrap();
        sibling.keys.disable_key(disable()).await.unwrap();
        sibling.keys.enable_key(enable()).await.unwrap();
        service.stop().await;
    }

    /// Seen red with the look before the hash left out.
    async fn what_is_refused_makes_no_work(engine: Engine) {
        let (service, _) = world(engine).await;
        let before = service.roots.made();
        let refusals: [(&str, Change); 6] = [
            ("a scope beyond its own", |key| {
                key.scopes = words(&["billing"]);
            }),
            ("a scope that is not there", |key| {
                key.scopes = words(&["ghost"]);
            }),
            ("no environment", |key| key.environment.clear()),
            ("another partner", |key| "umbrella".clone_into(&mut key.partner)),
            ("another partner's project", |key| {
                of_project(key);
                "three".clone_into(&mut key.project);
            }),
            ("a level that does not fit", |key| {
                of_project(key);
                key.level = KeyLevel::Partner.into();
            }),
        ];
        let callers = refusals.len() as u64;
        for (what, asked) in refusals {
            assert!(outcome(&service, plain, asked).await.is_err(), "{what}");
        }
        assert_eq!(
            service.roots.made() - before,
            callers,
            "only the callers' own keys have roots"
        );
        service.stop().await;
    }

    /// A key that cannot be read belongs to nobody that a partner knows; those who run the API hear that something is wrong.
    async fn a_row_that_cannot_be_read_does_not_exist_for_a_partner(engine: Engine) {
        let (service, mut root) = world(engine).await;
        let (foreign, _) = issue(&mut root, wanted(|key| "umbrella".clone_into(&mut key.partner))).await;
        let (_, partner) = issue(&mut root, wanted(plain)).await;
        let spoil =
            "UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"') WHERE partner = 'umbrella'";
        service.place.meddle(&[spoil]).await;
        for refusal in refusals(&mut service.api_as(&partner), &foreign).await {
            assert_eq!(reason(&refusal.expect("a refusal")).0, Code::NotFound);
        }
        let get = pb::GetKeyRequest { key_id: foreign };
        let told = root.keys.get_key(get).await.unwrap_err();
        assert_eq!(reason(&told).0, Code::Internal);
        service.stop().await;
    }

    async fn a_partner_fills_the_authority_only_so_far(engine: Engine) {
        let (service, mut root) = world(engine).await;
        let (_, partner) = issue(&mut root, wanted(plain)).await;
        let mut partner = service.api_as(&partner);
        for _ in 1..1_000 {
            issue(&mut root, wanted(plain)).await;
        }
        let refused = partner.keys.issue_key(wanted(plain)).await.err();
        assert_eq!(
            reason(&refused.expect("a refusal")).1,
            "TOO_MANY_KEYS".to_owned()
        );
        // Room can be made.
        let some = list(&mut partner, |_| ()).await.unwrap();
        partner.delete(&some[0]).await.unwrap();
        issue(&mut partner, wanted(plain)).await;
        service.stop().await;
    }

    /// The wider key was switched off by somebody who could; to switch it on again is to give it.
    async fn a_key_is_not_switched_on_by_one_that_holds_less(engine: Engine) {
        let (service, mut root) = world(engine).await;
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
            operator(|key| key.expire_time = Some(in_seconds(HOUR))),
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
}
