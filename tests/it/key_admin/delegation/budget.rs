//! How many changes the keys of a partner make.

use claviger::pb::claviger::v1 as pb;
use pb::KeyState;
use tonic::Code;
use tonic_types::StatusExt;

use crate::fixtures::{
    Engine, Refusal, delegating_service, get, issue, issue_request, issue_request_with,
    on_both_engines, refused, revoke_keys, rotate, strings, update,
};

on_both_engines! {
    /// Seen red without `charge`, with each change charged, and with one budget for all partners.
    async fn a_partners_own_keys_spend_a_budget_that_is_not_for_what_takes_access_away(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let admin_of = |partner: &'static str| issue_request_with(move |request| {
            partner.clone_into(&mut request.partner);
            request.scopes = strings(&["owner"]);
        });
        let admin = issue(&mut root, admin_of("acme")).await;
        let other_admin = issue(&mut root, admin_of("umbrella")).await;
        let keys = [
            issue(&mut root, issue_request()).await,
            issue(&mut root, issue_request()).await,
            issue(&mut root, issue_request()).await,
        ];
        let mut acme = service.api_as(&admin.plain_key);
        let mut made = 0;
        let mut refusal = None;
        while refusal.is_none() && made < 200 {
            let renamed = update(&mut acme, &keys[0].id, &["name"], |key| key.name = made.to_string()).await;
            refusal = renamed.err();
            made += usize::from(refusal.is_none());
        }
        let refusal = refusal.expect("the budget ends");
        // The hour goes on meanwhile: one more every six seconds.
        assert!((60..80).contains(&made), "{made} changes");
        let details = refusal.get_error_details();
        let wait = details.retry_info().unwrap().retry_delay.unwrap();
        assert!(wait.as_secs() < 7, "{wait:?}");
        let refusal = Refusal::of(&refusal);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted, "CHANGE_BUDGET_SPENT"));
        let key_id = keys[0].id.clone();
        let enable = pb::EnableKeyRequest { key_id: key_id.clone(), ..Default::default() };
        for refusal in [
            refused(acme.keys.issue_key(issue_request()).await),
            refused(rotate(&mut acme, &key_id, 0).await),
            refused(acme.keys.enable_key(enable).await),
        ] {
            assert_eq!(refusal.reason, "CHANGE_BUDGET_SPENT");
        }
        // Reading is no change.
        get(&mut acme, &key_id).await;

        // A key that is in wrong hands can be stopped all the same.
        let disable = pb::DisableKeyRequest { key_id, ..Default::default() };
        acme.keys.disable_key(disable).await.unwrap();
        acme.revoke(&keys[1].id).await.unwrap();
        acme.delete(&keys[2].id).await.unwrap();
        // Others have budgets of their own, or none.
        let mut umbrella = service.api_as(&other_admin.plain_key);
        issue(&mut umbrella, issue_request_with(|request| "umbrella".clone_into(&mut request.partner))).await;
        update(&mut root, &keys[0].id, &["name"], |key| "by an operator".clone_into(&mut key.name)).await.unwrap();
        revoke_keys(&mut acme, |_| ()).await.unwrap();
        assert_eq!(get(&mut root, &keys[0].id).await.state(), KeyState::Revoked);
        service.stop().await;
    }
}
