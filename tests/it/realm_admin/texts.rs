//! Texts that not every database can store.

use claviger::pb::claviger::v1 as pb;

use crate::fixtures::{Engine, Service, demo_realm, issue_request, on_both_engines, refused_field};

/// U+0000 is a character of UTF-8, but PostgreSQL stores no text with it.
const NUL: &str = "a\0b";

on_both_engines! {
    /// Seen red without the check of the body.
    async fn a_text_with_a_zero_is_the_clients_fault(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        let put = |denial| pb::PutRealmRequest {
            realm: Some(pb::Realm { denials: vec![denial], ..demo_realm() }),
            ..Default::default()
        };
        let denial = || pb::Denial {
            denial_class: pb::DenialClass::Forbidden.into(),
            ..Default::default()
        };
        let body = pb::Denial { body: NUL.to_owned(), ..denial() };
        refused_field(api.realms.put_realm(put(body)).await, "realm.denials[0].body");
        let headers = [("x-why".to_owned(), NUL.to_owned())].into();
        let header = pb::Denial { headers, ..denial() };
        refused_field(api.realms.put_realm(put(header)).await, "realm.denials[0].headers[\"x-why\"]");

        let named = pb::PutPartnerRequest {
            partner: Some(pb::Partner {
                realm: "demo".to_owned(),
                id: "acme".to_owned(),
                display_name: NUL.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        refused_field(api.realms.put_partner(named).await, "partner.display_name");
        let named = pb::IssueKeyRequest { name: NUL.to_owned(), ..issue_request() };
        refused_field(api.keys.issue_key(named).await, "name");
        let labels = [("a".to_owned(), NUL.to_owned())].into();
        let labelled = pb::IssueKeyRequest { labels, ..issue_request() };
        refused_field(api.keys.issue_key(labelled).await, "labels");
        let issued = api.issue().await;
        let revoked = pb::RevokeKeyRequest {
            key_id: issued.key.unwrap().id,
            reason: NUL.to_owned(),
            ..Default::default()
        };
        refused_field(api.keys.revoke_key(revoked).await, "reason");
        service.stop().await;
    }
}
