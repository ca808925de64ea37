//! How the keys of a realm, a partner or a project are used, and who may know it.

use std::collections::BTreeMap;

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use tonic::{Code, Status};

use super::{WRITE_OFTEN, await_allowed, counts, totals};
use crate::fixtures::{
    Api, Engine, HOUR, IssuedKey, NOW, Service, TestStore, after, authority_key_request,
    delegating_realm, delegating_service_with, eventually, get, issue, issue_request_with,
    list_keys, on_both_engines, refused, refused_field, strings, verify_request,
};

/// What makes a request another one.
type Ask = fn(&mut pb::GetUsageRequest);

/// How keys of the realm `demo` were used in the last day.
async fn usage_of(
    api: &mut Api,
    change: impl FnOnce(&mut pb::GetUsageRequest),
) -> Result<pb::GetUsageResponse, Status> {
    let mut request = pb::GetUsageRequest {
        realm: "demo".to_owned(),
        ..Default::default()
    };
    change(&mut request);
    api.keys
        .get_usage(request)
        .await
        .map(tonic::Response::into_inner)
}

/// The answer if nothing was used.
fn nothing() -> pb::GetUsageResponse {
    pb::GetUsageResponse {
        ranked_by: pb::UsageRank::Presentations.into(),
        ..Default::default()
    }
}

/// Each owner with the number of times that its keys were presented.
fn owners(usage: &pb::GetUsageResponse) -> Vec<(String, u64)> {
    let sum = |owner: &pb::OwnerUsage| owner.counts.iter().map(|count| count.count).sum();
    usage
        .owners
        .iter()
        .map(|owner| (format!("{}/{}", owner.partner, owner.project), sum(owner)))
        .collect()
}

fn expected(owners: &[(&str, u64)]) -> Vec<(String, u64)> {
    owners
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// A key of this owner, presented so often.
async fn used(
    api: &mut Api,
    (partner, project, environment): (&str, &str, &str),
    scope: &str,
    times: u64,
) -> IssuedKey {
    let key = issue(
        api,
        issue_request_with(|new| {
            partner.clone_into(&mut new.partner);
            project.clone_into(&mut new.project);
            if !project.is_empty() {
                new.level = pb::KeyLevel::Project.into();
            }
            environment.clone_into(&mut new.environment);
            new.scopes = strings(&[scope]);
        }),
    )
    .await;
    for _ in 0..times {
        let request = pb::VerifyRequest {
            environment: environment.to_owned(),
            target: Some(pb::verify_request::Target::AnyTarget(true)),
            ..verify_request(&key.plain_key)
        };
        let answer = api.verify.verify(request).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::Allowed);
    }
    if times > 0 {
        await_allowed(api, &key.id, times).await;
    }
    key
}

/// Presents a key that lacks the scope, so often.
async fn deny(api: &mut Api, key: &IssuedKey, environment: &str, times: u64) {
    for _ in 0..times {
        let request = pb::VerifyRequest {
            environment: environment.to_owned(),
            target: Some(pb::verify_request::Target::AnyTarget(true)),
            scopes: strings(&["write"]),
            ..verify_request(&key.plain_key)
        };
        let answer = api.verify.verify(request).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::ScopeMissing);
    }
    eventually("the denials are written down", async || {
        let totals = totals(api, &key.id).await;
        (totals.get(&Verdict::ScopeMissing) == Some(&times)).then_some(())
    })
    .await;
}

/// Each key with the numbers of times that it was allowed and denied.
fn keys(usage: &pb::GetUsageResponse) -> Vec<(String, u64, u64)> {
    let keys = usage.keys.iter().map(|key| {
        let counts = counts(&key.counts);
        let of = |verdict| counts.get(&verdict).copied().unwrap_or(0);
        (
            key.key_id.clone(),
            of(Verdict::Allowed),
            of(Verdict::ScopeMissing),
        )
    });
    keys.collect()
}

/// Deletes the partner `umbrella`, which has no keys, and its project.
async fn delete_umbrella(root: &mut Api) {
    let delete = pb::DeleteProjectRequest {
        realm: "demo".to_owned(),
        project: "three".to_owned(),
        ..Default::default()
    };
    root.realms.delete_project(delete).await.unwrap();
    let delete = pb::DeletePartnerRequest {
        realm: "demo".to_owned(),
        partner: "umbrella".to_owned(),
        ..Default::default()
    };
    root.realms.delete_partner(delete).await.unwrap();
}

async fn used_keys(engine: Engine) -> (Service, Api) {
    let (service, mut root) = delegating_service_with(engine, &WRITE_OFTEN).await;
    for (owner, times) in [
        (("acme", "", "production"), 2),
        (("acme", "one", "production"), 5),
        (("acme", "two", "staging"), 1),
        (("umbrella", "", "production"), 9),
    ] {
        used(&mut root, owner, "read", times).await;
    }
    (service, root)
}

on_both_engines! {
    async fn usage_is_told_by_partner_and_for_a_partner_by_project(engine: Engine) {
        let (service, mut root) = used_keys(engine).await;
        let all = usage_of(&mut root, |_| ()).await.unwrap();
        assert_eq!(owners(&all), expected(&[("umbrella/", 9), ("acme/", 8)]));
        assert_eq!(counts(&all.totals), BTreeMap::from([(Verdict::Allowed, 17)]));
        assert!(!all.more_owners);
        let in_hours: u64 = all.buckets.iter().flat_map(|bucket| &bucket.counts).map(|count| count.count).sum();
        assert_eq!(in_hours, 17);

        let first = usage_of(&mut root, |asked| asked.top = 1).await.unwrap();
        assert_eq!((owners(&first), first.more_owners), (expected(&[("umbrella/", 9)]), true));
        assert_eq!(first.totals, all.totals, "the totals are of all");

        let acme = usage_of(&mut root, |asked| "acme".clone_into(&mut asked.partner)).await.unwrap();
        assert_eq!(owners(&acme), expected(&[("acme/one", 5), ("acme/", 2), ("acme/two", 1)]));
        let one = usage_of(&mut root, |asked| "one".clone_into(&mut asked.project)).await.unwrap();
        assert_eq!(owners(&one), expected(&[("acme/one", 5)]));
        let staging = usage_of(&mut root, |asked| "staging".clone_into(&mut asked.environment)).await.unwrap();
        assert_eq!(owners(&staging), expected(&[("acme/", 1)]));
        let nobody = usage_of(&mut root, |asked| "ghost".clone_into(&mut asked.partner)).await.unwrap();
        assert_eq!(nobody, nothing());
        let before = usage_of(&mut root, |asked| {
            asked.end_time = Some(prost_types::Timestamp { seconds: HOUR / 1_000_000, nanos: 0 });
        });
        assert_eq!(before.await.unwrap(), nothing());
        service.stop().await;
    }

    async fn the_usage_of_deleted_keys_and_partners_stays(engine: Engine) {
        let (service, mut root) = used_keys(engine).await;
        let before = usage_of(&mut root, |_| ()).await.unwrap();
        let filter = pb::KeyFilter {
            realm: "demo".to_owned(),
            partner: "umbrella".to_owned(),
            ..Default::default()
        };
        let delete = pb::DeleteKeysRequest { filter: Some(filter), ..Default::default() };
        root.keys.delete_keys(delete).await.unwrap();
        delete_umbrella(&mut root).await;
        assert_eq!(usage_of(&mut root, |_| ()).await.unwrap(), before);
        service.stop().await;
    }

    /// Seen red without `narrow_owner`.
    async fn a_partner_sees_its_own_usage_only(engine: Engine) {
        let (service, mut root) = used_keys(engine).await;
        let acme = used(&mut root, ("acme", "", "production"), "keys", 0).await;
        let one = used(&mut root, ("acme", "one", "production"), "keys", 0).await;
        let staging = used(&mut root, ("acme", "", "staging"), "keys", 0).await;
        for (key, own) in [
            (&acme, &[("acme/one", 5), ("acme/", 2)][..]),
            (&one, &[("acme/one", 5)]),
            (&staging, &[("acme/two", 1)]),
        ] {
            let mut api = service.api_as(&key.plain_key);
            let usage = usage_of(&mut api, |_| ()).await.unwrap();
            assert_eq!(owners(&usage), expected(own));
            let sum: u64 = own.iter().map(|(_, count)| count).sum();
            assert_eq!(counts(&usage.totals), BTreeMap::from([(Verdict::Allowed, sum)]));
        }
        let beyond: [(&IssuedKey, Ask); 5] = [
            (&acme, |asked| "umbrella".clone_into(&mut asked.partner)),
            (&acme, |asked| "ghost".clone_into(&mut asked.partner)),
            (&acme, |asked| "staging".clone_into(&mut asked.environment)),
            (&acme, |asked| "claviger".clone_into(&mut asked.realm)),
            (&one, |asked| "two".clone_into(&mut asked.project)),
        ];
        for (key, ask) in beyond {
            let refusal = refused(usage_of(&mut service.api_as(&key.plain_key), ask).await);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        // A project of another partner is one that the caller has no keys of.
        let mut api = service.api_as(&acme.plain_key);
        let foreign = usage_of(&mut api, |asked| "three".clone_into(&mut asked.project));
        assert_eq!(foreign.await.unwrap(), nothing());
        service.stop().await;
    }

    /// Seen red without the time of the partner's creation.
    async fn a_new_partner_does_not_see_the_usage_of_an_earlier_one_with_its_id(engine: Engine) {
        let clock = Clock::manual(NOW);
        let service = Service::start_with(TestStore::on(engine), clock.clone(), "", &WRITE_OFTEN).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(delegating_realm()).await;
        let gone = used(&mut root, ("umbrella", "", "production"), "read", 4).await;
        root.delete(&gone.id).await.unwrap();
        delete_umbrella(&mut root).await;
        clock.set(after(2 * HOUR));
        root.put_partner("umbrella", false).await;
        let new = used(&mut root, ("umbrella", "", "production"), "keys", 3).await;
        let told = usage_of(&mut service.api_as(&new.plain_key), |_| ()).await.unwrap();
        assert_eq!(owners(&told), expected(&[("umbrella/", 3)]));
        let all = usage_of(&mut root, |_| ()).await.unwrap();
        assert_eq!(owners(&all), expected(&[("umbrella/", 7)]), "an operator sees both");
        service.stop().await;
    }

    /// Seen red with the ranks of presentations.
    async fn keys_and_owners_are_ranked_by_presentations_or_denials(engine: Engine) {
        let (service, mut root) = delegating_service_with(engine, &WRITE_OFTEN).await;
        let often = used(&mut root, ("acme", "", "production"), "read", 5).await;
        let rarely = used(&mut root, ("acme", "one", "production"), "read", 1).await;
        let other = used(&mut root, ("umbrella", "", "production"), "read", 2).await;
        deny(&mut root, &rarely, "production", 3).await;
        deny(&mut root, &other, "production", 1).await;

        let plain = usage_of(&mut root, |_| ()).await.unwrap();
        assert_eq!((plain.keys.len(), plain.more_keys), (0, false), "only on request");
        assert_eq!(plain.ranked_by(), pb::UsageRank::Presentations);
        let all = usage_of(&mut root, |asked| asked.with_keys = true).await.unwrap();
        let (often, rarely, other) = (&often.id, &rarely.id, &other.id);
        let row = |id: &String, allowed, denied| (id.clone(), allowed, denied);
        assert_eq!(keys(&all), [row(often, 5, 0), row(rarely, 1, 3), row(other, 2, 1)]);
        let key = &all.keys[1];
        let listed = get(&mut root, rarely).await;
        assert_eq!(
            [&key.name, &key.realm, &key.partner, &key.project, &key.environment, &key.hint],
            [&listed.name, "demo", "acme", "one", "production", &listed.hint]
        );
        let denied: Ask = |asked| {
            asked.with_keys = true;
            asked.rank_by = pb::UsageRank::Denials.into();
        };
        let by_denials = usage_of(&mut root, denied).await.unwrap();
        assert_eq!(by_denials.ranked_by(), pb::UsageRank::Denials);
        assert_eq!(keys(&by_denials), [row(rarely, 1, 3), row(other, 2, 1)]);
        assert_eq!(owners(&by_denials), expected(&[("acme/", 9), ("umbrella/", 3)]));
        assert_eq!(by_denials.totals, all.totals, "the totals are of all");
        let first = usage_of(&mut root, |asked| { denied(asked); asked.top = 1; }).await.unwrap();
        assert_eq!((keys(&first).len(), first.more_keys, first.more_owners), (1, true, true));
        let two = usage_of(&mut root, |asked| { denied(asked); asked.top = 2; }).await.unwrap();
        assert_eq!((keys(&two).len(), two.more_keys, two.more_owners), (2, false, false));

        root.delete(rarely).await.unwrap();
        let after = usage_of(&mut root, denied).await.unwrap();
        assert_eq!(keys(&after), [row(other, 2, 1)], "a deleted key is not among them");
        assert_eq!(after.owners, by_denials.owners, "but its owner keeps the counts");
        let never = usage_of(&mut root, |asked| { denied(asked); "staging".clone_into(&mut asked.environment); });
        let never = never.await.unwrap();
        assert_eq!((never.keys.len(), never.owners.len()), (0, 0));
        service.stop().await;
    }

    /// The same keys as a list shows. Seen red without the partner, the project and the environment in the search for keys.
    async fn a_caller_sees_the_usage_of_the_keys_that_it_may_list(engine: Engine) {
        let (service, mut root) = used_keys(engine).await;
        let reader = issue(&mut root, authority_key_request("read", "demo")).await;
        let acme = used(&mut root, ("acme", "", "production"), "keys", 1).await;
        let one = used(&mut root, ("acme", "one", "production"), "keys", 1).await;
        let staging = used(&mut root, ("acme", "", "staging"), "keys", 1).await;
        for (key, seen) in [(&service.operator, 7), (&reader.plain_key, 7), (&acme.plain_key, 4), (&one.plain_key, 2),
            (&staging.plain_key, 2)]
        {
            let mut api = service.api_as(key);
            let usage = usage_of(&mut api, |asked| asked.with_keys = true).await.unwrap();
            let mut used: Vec<_> = usage.keys.into_iter().map(|key| key.key_id).collect();
            let mut listed = list_keys(&mut api, |_| ()).await.unwrap();
            used.sort_unstable();
            listed.sort_unstable();
            assert_eq!(used.len(), seen);
            assert_eq!(used, listed);
        }
        let mut api = service.api_as(&acme.plain_key);
        let foreign = usage_of(&mut api, |asked| {
            asked.with_keys = true;
            "three".clone_into(&mut asked.project);
        });
        assert_eq!(foreign.await.unwrap().keys, []);
        service.stop().await;
    }

    async fn a_wrong_request_names_its_field(engine: Engine) {
        let (service, mut root) = delegating_service_with(engine, &WRITE_OFTEN).await;
        let wrong: [(&str, Ask); 7] = [
            ("realm", |asked| asked.realm.clear()),
            ("partner", |asked| "a b".clone_into(&mut asked.partner)),
            ("project", |asked| "a/b".clone_into(&mut asked.project)),
            ("environment", |asked| "A B".clone_into(&mut asked.environment)),
            ("top", |asked| asked.top = 1_001),
            ("rank_by", |asked| asked.rank_by = 3),
            ("end_time", |asked| {
                asked.start_time = Some(prost_types::Timestamp { seconds: 7_200, nanos: 0 });
                asked.end_time = Some(prost_types::Timestamp { seconds: 3_600, nanos: 0 });
            }),
        ];
        for (field, change) in wrong {
            refused_field(usage_of(&mut root, change).await, field);
        }
        let unknown = refused(usage_of(&mut root, |asked| "ghost".clone_into(&mut asked.realm)).await);
        assert_eq!(unknown.code, Code::NotFound);
        service.stop().await;
    }

    async fn the_key_of_an_operator_belongs_to_no_partner(engine: Engine) {
        let (service, mut root) = delegating_service_with(engine, &WRITE_OFTEN).await;
        let request = pb::VerifyRequest {
            realm: "claviger".to_owned(),
            environment: String::new(),
            target: Some(pb::verify_request::Target::AnyTarget(true)),
            ..verify_request(&service.operator)
        };
        let answer = root.verify.verify(request).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::Allowed);
        eventually("it is written down", async || {
            let usage = usage_of(&mut root, |asked| "claviger".clone_into(&mut asked.realm)).await.unwrap();
            (owners(&usage) == expected(&[("/", 1)])).then_some(())
        })
        .await;
        service.stop().await;
    }
}
