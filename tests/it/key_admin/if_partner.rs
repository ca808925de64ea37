//! Operations on a key on the condition that a partner owns it. The server of an API passes on the ids that its clients name, and no
//! client may reach another one's keys by them.

use claviger::pb::claviger::v1 as pb;
use pb::KeepSecret;
use tonic::{Code, Status};

use crate::fixtures::{
    Api, DemoService, Engine, authority_key_request, issue, issue_request, on_both_engines,
    refused, refused_field, rotate_request, strings,
};

/// Each operation on a key. The later ones can follow the earlier ones.
const METHODS: [&str; 10] = [
    "GetKey",
    "GetKeyScopes",
    "GetKeyUsage",
    "UpdateKey",
    "RotateKey",
    "EndRotation",
    "DisableKey",
    "EnableKey",
    "RevokeKey",
    "DeleteKey",
];

/// Calls a method.
#[expect(
    clippy::needless_update,
    reason = "some of the requests have no other fields"
)]
async fn call(api: &mut Api, method: &str, key_id: &str, if_partner: &str) -> Result<(), Status> {
    let (key_id, if_partner) = (key_id.to_owned(), if_partner.to_owned());
    let keys = &mut api.keys;
    macro_rules! answer {
        ($call:ident, $request:ident $(, $field:ident)*) => {
            keys.$call(pb::$request { key_id, if_partner, $($field,)* ..Default::default() }).await.map(drop)
        };
    }
    match method {
        "GetKey" => answer!(get_key, GetKeyRequest),
        "GetKeyScopes" => answer!(get_key_scopes, GetKeyScopesRequest),
        "GetKeyUsage" => answer!(get_key_usage, GetKeyUsageRequest),
        "UpdateKey" => {
            let update_mask = Some(prost_types::FieldMask {
                paths: strings(&["name"]),
            });
            let name = "renamed".to_owned();
            answer!(update_key, UpdateKeyRequest, update_mask, name)
        }
        "RotateKey" => {
            let request = pb::RotateKeyRequest {
                if_partner,
                ..rotate_request(&key_id, 60)
            };
            keys.rotate_key(request).await.map(drop)
        }
        "EndRotation" => {
            let keep = KeepSecret::New.into();
            answer!(end_rotation, EndRotationRequest, keep)
        }
        "DisableKey" => answer!(disable_key, DisableKeyRequest),
        "EnableKey" => answer!(enable_key, EnableKeyRequest),
        "RevokeKey" => answer!(revoke_key, RevokeKeyRequest),
        "DeleteKey" => answer!(delete_key, DeleteKeyRequest),
        other => unreachable!("{other}"),
    }
}

on_both_engines! {
    /// Seen red without the partner in `visible` and in the look-up of a deleted key.
    async fn an_operation_reaches_a_key_of_the_named_partner_only(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let manager = issue(root, authority_key_request("manage", "demo")).await;
        let key = issue(root, issue_request()).await;
        let mut api = root.with_key(&manager.plain_key);
        let nobody = "01234567-89ab-7def-8123-456789abcdef";
        for method in METHODS {
            let unknown = call(&mut api, method, nobody, "acme").await.unwrap_err();
            assert_eq!(unknown.code(), Code::NotFound, "{method}");
            let of_another = call(&mut api, method, &key.id, "umbrella").await.unwrap_err();
            let told = |status: &Status| (status.code(), status.message().to_owned(), status.details().to_vec());
            assert_eq!(told(&of_another), told(&unknown), "{method}");
            refused_field(call(&mut api, method, &key.id, "a/b").await, "if_partner");
            call(&mut api, method, &key.id, "acme").await.unwrap();
        }
        // The usage of a deleted key can still be read.
        let deleted = refused(call(&mut api, "GetKeyUsage", &key.id, "umbrella").await);
        assert_eq!(deleted.code, Code::NotFound);
        call(&mut api, "GetKeyUsage", &key.id, "acme").await.unwrap();
        demo.service.stop().await;
    }
}
