//! Who may enable a disabled key.

use claviger::pb::claviger::v1 as pb;

use super::{delegate, plain, reason};
use crate::fixtures::{
    Engine, HOUR, delegating_service, issue, on_both_engines, since_start, strings,
};

on_both_engines! {
    /// Whoever runs the API must be able to stop a key although its partner holds another.
    async fn what_an_operator_switched_off_its_partner_does_not_switch_on(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let (key, _) = issue(&mut root, delegate(plain)).await.into_parts();
        let (_, sibling) = issue(&mut root, delegate(plain)).await.into_parts();
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

    /// The wider key was switched off by somebody who could; to switch it on again is to give it.
    async fn a_key_is_not_switched_on_by_one_that_holds_less(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let (wider, _) = issue(&mut root, delegate(|key| key.scopes = strings(&["owner"]))).await.into_parts();
        let (_, lesser) = issue(&mut root, delegate(|_| ())).await.into_parts();
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
                scopes: strings(&["operator"]),
                ..Default::default()
            };
            change(&mut request);
            request
        };
        let (unbounded, _) = issue(&mut root, operator(|_| ())).await.into_parts();
        let (_, ending) = issue(
            &mut root,
            operator(|key| key.expire_time = Some(since_start(HOUR))),
        )
        .await.into_parts();
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
