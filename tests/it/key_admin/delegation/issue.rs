//! What a delegate may issue.

use claviger::pb::claviger::v1 as pb;
use pb::KeyLevel;
use tonic::{Code, Status};

use super::{Change, at_home, delegate, ending, of_project, plain, reason};
use crate::fixtures::{
    Engine, HOUR, Service, delegating_realm, delegating_service, issue, list_keys, on_both_engines,
    since_start, strings,
};

/// What the server says when a key that was issued as `holder` asks for one as `asked`.
async fn outcome(service: &Service, holder: Change, asked: Change) -> Result<(), Status> {
    let (holder, asked) = (delegate(holder), delegate(asked));
    let holder = issue(&mut service.api(), holder).await;
    let answer = service
        .api_as(&holder.plain_key)
        .keys
        .issue_key(asked)
        .await;
    answer.map(drop)
}

on_both_engines! {
    /// Each line is an incident of the kind that other key systems had: the key that a partner holds, what it asks for, and the
    /// field that goes too far.
    async fn nobody_gives_more_than_they_hold(engine: Engine) {
        let incidents: [(&str, Change, Change, &str); 11] = [
            (
                "a scope that it does not hold",
                plain,
                |key| key.scopes = strings(&["read", "billing"]),
                "scopes",
            ),
            (
                "a scope that implies one that it does not hold",
                plain,
                |key| key.scopes = strings(&["owner"]),
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
                |key| key.scopes = strings(&["owner"]),
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
                |key| key.allowed_cidrs = strings(&["::/0"]),
                "allowed_cidrs",
            ),
            (
                "a later end",
                ending,
                |key| key.expire_time = Some(since_start(3 * HOUR)),
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
                |key| key.allowed_cidrs = strings(&["126.0.0.0/7"]),
                "allowed_cidrs",
            ),
            (
                "another range beside its own",
                at_home,
                |key| key.allowed_cidrs = strings(&["127.0.0.1/32", "10.0.0.0/8"]),
                "allowed_cidrs",
            ),
        ];
        let (service, _) = delegating_service(engine).await;
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
        let (service, _) = delegating_service(engine).await;
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
            ("less", plain, |key| key.scopes = strings(&["read"])),
            ("nothing", plain, |key| key.scopes.clear()),
            ("an end of its own", plain, ending),
            ("the same end, to the microsecond", ending, ending),
            ("a range of its own", plain, at_home),
            ("a range within its own", at_home, |key| {
                key.allowed_cidrs = strings(&["127.3.0.0/16"]);
            }),
            ("a key of one of its projects", plain, of_project),
            ("a key of its own project", of_project, of_project),
        ];
        let (service, _) = delegating_service(engine).await;
        for (gift, holder, asked) in gifts {
            let issued = outcome(&service, holder, asked).await;
            assert!(issued.is_ok(), "{gift}: {issued:?}");
        }
        service.stop().await;
    }

    /// Where keys without scopes get everything by the realm's own word, nothing is asked for and everything would be given.
    async fn what_the_realm_fills_in_counts_like_what_is_asked_for(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let (_, holder) = issue(&mut root, delegate(plain)).await.into_parts();
        root.put_realm(pb::Realm {
            unscoped_keys: pb::UnscopedKeys::FullAccess.into(),
            ..delegating_realm()
        })
        .await;
        let asked = delegate(|key| key.scopes.clear());
        let refused = service.api_as(&holder).keys.issue_key(asked).await.err();
        assert_eq!(reason(&refused.expect("a refusal")).2, "full_access");
        service.stop().await;
    }

    /// Seen red with the look before the hash left out.
    async fn what_is_refused_makes_no_work(engine: Engine) {
        let (service, _) = delegating_service(engine).await;
        let before = service.roots.made();
        let refusals: [(&str, Change); 6] = [
            ("a scope beyond its own", |key| {
                key.scopes = strings(&["billing"]);
            }),
            ("a scope that is not there", |key| {
                key.scopes = strings(&["ghost"]);
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

    async fn a_partner_fills_the_authority_only_so_far(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let (_, partner) = issue(&mut root, delegate(plain)).await.into_parts();
        let mut partner = service.api_as(&partner);
        for _ in 1..1_000 {
            issue(&mut root, delegate(plain)).await;
        }
        let refused = partner.keys.issue_key(delegate(plain)).await.err();
        assert_eq!(
            reason(&refused.expect("a refusal")).1,
            "TOO_MANY_KEYS".to_owned()
        );
        // Room can be made.
        let some = list_keys(&mut partner, |_| ()).await.unwrap();
        partner.delete(&some[0]).await.unwrap();
        issue(&mut partner, delegate(plain)).await;
        service.stop().await;
    }
}
