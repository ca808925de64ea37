//! What a delegate may not know of does not exist for it.

use claviger::pb::claviger::v1 as pb;
use pb::KeepSecret;
use tonic::{Code, Status};

use super::{Change, delegate, of_project, plain, reason, request};
use crate::fixtures::{
    Api, Engine, IssuedKey, delegating_realm, delegating_service, end_rotation, issue, list_keys,
    on_both_engines, rotate, strings, update, verify_request,
};

/// Every way in which a key can be named, and what each says of this one.
async fn refusals(api: &mut Api, id: &str) -> Vec<Option<Status>> {
    let key_id = || id.to_owned();
    let get = pb::GetKeyRequest {
        key_id: key_id(),
        ..Default::default()
    };
    let scopes = pb::GetKeyScopesRequest {
        key_id: key_id(),
        ..Default::default()
    };
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

/// The message for a key that does not exist, and for one that the caller may not know of.
const NO_SUCH_KEY: &str =
    "the key does not exist, or the caller may not administer it: check the key id";

on_both_engines! {
    async fn what_is_not_ones_own_does_not_exist(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let (own, partner) = issue(&mut root, delegate(plain)).await.into_parts();
        let (_, bound) = issue(&mut root, delegate(of_project)).await.into_parts();
        let (sibling, _) = issue(&mut root, delegate(of_project)).await.into_parts();
        let two = |key: &mut pb::IssueKeyRequest| {
            of_project(key);
            "two".clone_into(&mut key.project);
        };
        let (other_project, _) = issue(&mut root, delegate(two)).await.into_parts();
        let staging = |key: &mut pb::IssueKeyRequest| "staging".clone_into(&mut key.environment);
        let (staging, _) = issue(&mut root, delegate(staging)).await.into_parts();
        let foreign = |key: &mut pb::IssueKeyRequest| "umbrella".clone_into(&mut key.partner);
        let (foreign, _) = issue(&mut root, delegate(foreign)).await.into_parts();
        let never_was = format!("00000000{}", &own[8..]);
        let mut partner = service.api_as(&partner);
        let mut bound = service.api_as(&bound);

        let seen = list_keys(&mut partner, |_| ()).await.unwrap();
        assert!(
            [&own, &sibling, &other_project]
                .iter()
                .all(|id| seen.contains(id))
        );
        assert_eq!(seen.len(), 4, "{seen:?}");
        let seen = list_keys(&mut bound, |_| ()).await.unwrap();
        assert!(seen.contains(&sibling) && seen.len() == 2, "{seen:?}");

        let beyond_partner = vec![&staging, &foreign, &never_was];
        let beyond_project = vec![&own, &other_project, &staging, &foreign, &never_was];
        for (api, ids) in [(&mut partner, beyond_partner), (&mut bound, beyond_project)] {
            for id in ids {
                // All the same, so that nothing can be learnt from them.
                for refusal in refusals(api, id).await {
                    let refusal = refusal.expect("a refusal");
                    assert_eq!(refusal.message(), NO_SUCH_KEY);
                    assert_eq!(reason(&refusal).0, Code::NotFound);
                }
            }
        }
        // Asking for another's list by name is refused, whether or not there is such another.
        for change in [
            (|list| "umbrella".clone_into(&mut list.filter.get_or_insert_default().partner)) as fn(&mut pb::ListKeysRequest),
            |list| "nobody".clone_into(&mut list.filter.get_or_insert_default().partner),
            |list| "staging".clone_into(&mut list.filter.get_or_insert_default().environment),
            |list| "claviger".clone_into(&mut list.filter.get_or_insert_default().realm),
        ] {
            let refused = list_keys(&mut partner, change).await.unwrap_err();
            assert_eq!(reason(&refused).0, Code::PermissionDenied);
        }
        partner.revoke(&sibling).await.unwrap();
        partner.delete(&other_project).await.unwrap();
        service.stop().await;
    }

    async fn keys_are_all_that_is_delegated(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let (_, partner) = issue(&mut root, delegate(plain)).await.into_parts();
        let (_, without) = issue(&mut root, delegate(|key| key.scopes = strings(&["write"]))).await.into_parts();
        let mut partner = service.api_as(&partner);
        let realm_id = || "demo".to_owned();
        let get = pb::GetRealmRequest {
            realm_id: realm_id(),
        };
        let put = pb::PutRealmRequest {
            realm: Some(delegating_realm()),
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
            list_keys(&mut service.api_as(&without), |_| ()).await.err(),
        ] {
            let refusal = refusal.expect("a refusal");
            assert_eq!(reason(&refusal).0, Code::PermissionDenied);
        }
        // To ask about keys takes one of the authority's own realm.
        let question = verify_request(&service.operator);
        let refused = partner.verify.verify(question).await.unwrap_err();
        assert_eq!(reason(&refused).0, Code::PermissionDenied);
        service.stop().await;
    }

    /// A key that cannot be read belongs to nobody that a partner knows; those who run the API hear that something is wrong.
    async fn a_row_that_cannot_be_read_does_not_exist_for_a_partner(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let (foreign, _) = issue(&mut root, delegate(|key| "umbrella".clone_into(&mut key.partner))).await.into_parts();
        let (_, partner) = issue(&mut root, delegate(plain)).await.into_parts();
        let spoil =
            "UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"') WHERE partner = 'umbrella'";
        service.test_store.execute_sql(&[spoil]).await;
        for refusal in refusals(&mut service.api_as(&partner), &foreign).await {
            assert_eq!(reason(&refusal.expect("a refusal")).0, Code::NotFound);
        }
        let get = pb::GetKeyRequest { key_id: foreign, ..Default::default() };
        let told = root.keys.get_key(get).await.unwrap_err();
        assert_eq!(reason(&told).0, Code::Internal);
        service.stop().await;
    }

    async fn what_is_not_ones_own_is_neither_changed_nor_looked_at(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let caller = issue(&mut root, request(&["owner"], plain)).await;
        let mut api = service.api_as(&caller.plain_key);
        let foreign: Change = |key| "umbrella".clone_into(&mut key.partner);
        let staging: Change = |key| "staging".clone_into(&mut key.environment);
        let IssuedKey { id: foreign, .. } = issue(&mut root, request(&["read"], foreign)).await;
        let IssuedKey { id: staging, .. } = issue(&mut root, request(&["read"], staging)).await;
        for id in [&foreign, &staging] {
            rotate(&mut root, id, 600).await.unwrap();
        }
        let never_was = format!("00000000{}", &foreign[8..]);
        for id in [&foreign, &staging, &never_was] {
            let usage = pb::GetKeyUsageRequest {
                key_id: id.clone(),
                ..Default::default()
            };
            let refusals = [
                update(&mut api, id, &["name"], |_| ()).await.err(),
                rotate(&mut api, id, 0).await.err(),
                end_rotation(&mut api, id, KeepSecret::New).await.err(),
                api.keys.get_key_usage(usage).await.err(),
            ];
            for refusal in refusals {
                let refusal = refusal.expect("a refusal");
                // All the same, so that nothing can be learnt from them.
                let told = (refusal.code(), refusal.message());
                assert_eq!(told, (Code::NotFound, NO_SUCH_KEY));
            }
        }
        service.stop().await;
    }
}
