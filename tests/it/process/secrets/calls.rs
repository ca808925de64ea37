//! Every call, and every way to fail, with keys planted as canaries.

use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use prost::Message;
use tonic::Status;

use super::canaries::Canaries;
use crate::fixtures::{
    Api, Program, authority_key_request, demo_realm, envoy_check, forward_auth, header_source,
    issue_request, verify_request,
};

pub(super) async fn use_every_call(
    api: &mut Api,
    address: &str,
    canaries: &mut Canaries,
    errors: &mut Vec<Status>,
) {
    let mut keys = Vec::new();
    for _ in 0..4 {
        let issued = api.issue().await;
        canaries.plant_key("an issued key", &issued.plain_key);
        keys.push((issued.key.unwrap().id, issued.plain_key));
    }
    let key_id = |i: usize| keys[i].0.clone();
    api.keys
        .get_key(pb::GetKeyRequest {
            key_id: key_id(0),
            ..Default::default()
        })
        .await
        .unwrap();
    api.keys
        .get_key_scopes(pb::GetKeyScopesRequest {
            key_id: key_id(0),
            ..Default::default()
        })
        .await
        .unwrap();
    api.authority
        .list_replicas(pb::ListReplicasRequest {})
        .await
        .unwrap();
    let no_lease = pb::SetLeaseRequest::default();
    errors.push(api.authority.set_lease(no_lease).await.unwrap_err());
    let list = keys_of("demo");
    api.keys.list_keys(list).await.unwrap();
    api.keys
        .disable_key(pb::DisableKeyRequest {
            key_id: key_id(1),
            ..Default::default()
        })
        .await
        .unwrap();
    api.keys
        .enable_key(pb::EnableKeyRequest {
            key_id: key_id(1),
            ..Default::default()
        })
        .await
        .unwrap();
    api.revoke(&key_id(2)).await.unwrap();
    api.delete(&key_id(3)).await.unwrap();
    let enable = pb::EnableKeyRequest {
        key_id: key_id(2),
        ..Default::default()
    };
    errors.push(api.keys.enable_key(enable).await.unwrap_err());
    for (_, key) in &keys {
        api.ask(key).await;
        // A wrong secret for each, which must not show up either.
        let wrong = canaries.plant("a key with one character changed", &with_another_end(key));
        api.ask(&wrong).await;
    }
    let requests = keys.iter().map(|(_, key)| verify_request(key)).collect();
    api.verify
        .verify_batch(pb::VerifyBatchRequest { requests })
        .await
        .unwrap();
    api.keys
        .list_events(pb::ListEventsRequest::default())
        .await
        .unwrap();

    // A caller that may not.
    let mut partner = Api::new(address, &keys[0].1);
    errors.push(
        partner
            .keys
            .get_key(pb::GetKeyRequest {
                key_id: key_id(0),
                ..Default::default()
            })
            .await
            .unwrap_err(),
    );
    errors.push(
        partner
            .verify
            .verify(verify_request(&keys[1].1))
            .await
            .unwrap_err(),
    );
    errors.push(
        api.realms
            .list_realms(pb::ListRealmsRequest {
                page_token: "x".to_owned(),
                page_size: 0,
            })
            .await
            .unwrap_err(),
    );
    for realm in ["demo", "claviger"] {
        let delete = pb::DeleteRealmRequest {
            realm_id: realm.to_owned(),
            ..Default::default()
        };
        errors.push(api.realms.delete_realm(delete).await.unwrap_err());
    }
}

/// Declares a key, and an API key in the place of its hash.
async fn declare(api: &mut Api, canaries: &mut Canaries, errors: &mut Vec<Status>) {
    let declared = canaries.plant("a declared key", "claviger-Xq7mZ2vK9pLw4RtY8bNc5HdJ");
    let hash = claviger::hashing::ImportHash::of(&declared);
    canaries.plant_bytes("the SHA-256 of a declared key", hash.secret().expose());
    for (sha256, dry_run) in [
        (hash.hex(), true),
        (hash.hex(), false),
        (hash.hex(), true),
        (declared.clone(), false),
    ] {
        let key = pb::DeclaredKey {
            sha256,
            partner: "demo".to_owned(),
            scopes: vec!["verify".to_owned()],
            ..Default::default()
        };
        let state = pb::DeclaredState {
            keys: vec![key],
            ..Default::default()
        };
        let request = pb::ApplyRequest {
            state: Some(state),
            dry_run,
            ..Default::default()
        };
        match api.authority.apply(request).await {
            Ok(applied) => {
                let applied = prost::Message::encode_to_vec(&applied.into_inner());
                canaries.assert_absent("an applied state", &applied);
            }
            Err(status) => errors.push(status),
        }
    }
    api.with_key(&declared).ask("demo_live_x").await;
}

/// Calls that change keys after their issue, and imports of keys of another system.
pub(super) async fn live_on(api: &mut Api, canaries: &mut Canaries, errors: &mut Vec<Status>) {
    let issued = api.issue().await;
    canaries.plant_key("a key that is rotated", &issued.plain_key);
    let key_id = issued.key.unwrap().id;
    let rotate = pb::RotateKeyRequest {
        key_id: key_id.clone(),
        overlap: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        request_id: "0192f0c1-2345-7abc-8def-0123456789ab".to_owned(),
        ..Default::default()
    };
    let rotated = api
        .keys
        .rotate_key(rotate.clone())
        .await
        .unwrap()
        .into_inner();
    canaries.plant_key("a rotated key", &rotated.plain_key);
    let again = api.keys.rotate_key(rotate).await.unwrap().into_inner();
    assert!(again.replayed && again.plain_key.is_empty());
    api.ask(&rotated.plain_key).await;

    let plain_key = canaries.plant(
        "an imported key",
        "TtgGcQFq.s3fzK1pQ9mZx7LwR2vTn5YbC8dHj4aEu",
    );
    let short = canaries.plant("a key that is too short", "another-systems-key");
    let hash = <sha2::Sha256 as sha2::Digest>::digest(b"a key that nobody here has seen");
    canaries.plant_bytes("the SHA-256 of a key", &hash);
    let digits: Vec<_> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash_of_plain_key = <sha2::Sha256 as sha2::Digest>::digest(plain_key.as_bytes());
    canaries.plant_bytes("the SHA-256 of an imported key", &hash_of_plain_key);
    let entries = [
        Secret::PlainKey(plain_key.clone()),
        Secret::PlainKey(plain_key.clone()),
        Secret::PlainKey(short.clone()),
        Secret::Sha256(digits.concat()),
        Secret::Sha256(plain_key.clone()),
    ];
    let import = pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries: entries
            .into_iter()
            .map(|secret| pb::ImportEntry {
                secret: Some(secret),
                partner: "acme".to_owned(),
                level: pb::KeyLevel::Partner.into(),
                environment: "production".to_owned(),
                ..Default::default()
            })
            .collect(),
        request_id: "0192f0c1-2345-7abc-8def-0123456789ac".to_owned(),
        ..Default::default()
    };
    let imported = api.keys.import_keys(import).await.unwrap().into_inner();
    let imported = format!("{imported:?}");
    canaries.assert_absent("the outcome of an import", imported.as_bytes());
    assert_eq!(api.verdict(&plain_key).await, pb::Verdict::Allowed);
    api.ask(&short).await;

    declare(api, canaries, errors).await;

    // To be found. Both answers are the key without its API key.
    let sought = pb::find_key_request::Key::PlainKey(plain_key.clone());
    let find = pb::FindKeyRequest { key: Some(sought) };
    let found = api.keys.find_key(find).await.unwrap().into_inner();
    canaries.assert_absent("a key that was found", format!("{found:?}").as_bytes());
    let sought = pb::find_key_request::Key::Hint(plain_key.clone());
    let find = pb::FindKeyRequest { key: Some(sought) };
    errors.push(api.keys.find_key(find).await.unwrap_err());

    // In the wrong places.
    let update = pb::UpdateKeyRequest {
        key_id: plain_key.clone(),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![plain_key.clone()],
        }),
        request_id: plain_key.clone(),
        ..Default::default()
    };
    errors.push(api.keys.update_key(update).await.unwrap_err());
    by_filters(api, &plain_key, errors).await;
    let mut holder = api.with_key(&plain_key);
    rotate_itself(api, &mut holder, canaries, errors).await;
    let own = pb::RevokeSelfRequest::default();
    holder.keys.revoke_self(own).await.unwrap();
    errors.push(
        holder
            .keys
            .get_key(pb::GetKeyRequest {
                key_id,
                ..Default::default()
            })
            .await
            .unwrap_err(),
    );
}

/// A key reads and rotates itself.
async fn rotate_itself(
    api: &mut Api,
    holder: &mut Api,
    canaries: &mut Canaries,
    errors: &mut Vec<Status>,
) {
    let realm = pb::Realm {
        self_rotation: true,
        ..demo_realm()
    };
    api.put_realm(realm).await;
    let own = pb::GetSelfRequest {};
    let own = holder.keys.get_self(own).await.unwrap().into_inner();
    canaries.assert_absent("the own key", format!("{own:?}").as_bytes());
    let rotate = pb::RotateSelfRequest {
        overlap: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        request_id: "0192f0c1-2345-7abc-8def-0123456789ad".to_owned(),
        ..Default::default()
    };
    let rotated = holder.keys.rotate_self(rotate.clone()).await.unwrap();
    let rotated = rotated.into_inner();
    canaries.plant_key("a key that rotated itself", &rotated.plain_key);
    let key = format!("{:?}", rotated.key);
    canaries.assert_absent("a key that rotated itself", key.as_bytes());
    let again = holder.keys.rotate_self(rotate).await.unwrap().into_inner();
    assert!(again.replayed && again.plain_key.is_empty());
    let old = pb::RotateSelfRequest {
        overlap: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..Default::default()
    };
    errors.push(holder.keys.rotate_self(old).await.err().expect("a refusal"));
}

/// People paste keys into the wrong fields.
pub(super) async fn send_keys_to_wrong_places(
    api: &mut Api,
    canaries: &mut Canaries,
    errors: &mut Vec<Status>,
) {
    let issued = api.issue().await.plain_key;
    canaries.plant_key("a key in the wrong place", &issued);
    let key = || issued.clone();
    errors.push(
        api.keys
            .get_key(pb::GetKeyRequest {
                key_id: key(),
                ..Default::default()
            })
            .await
            .unwrap_err(),
    );
    errors.push(api.revoke(&issued).await.unwrap_err());
    let list = keys_of(&issued);
    errors.push(api.keys.list_keys(list).await.unwrap_err());
    let list = pb::ListEventsRequest {
        kind: key(),
        key_id: key(),
        page_token: key(),
        ..Default::default()
    };
    errors.push(api.keys.list_events(list).await.unwrap_err());
    for request in [
        pb::IssueKeyRequest {
            realm: key(),
            ..issue_request()
        },
        pb::IssueKeyRequest {
            partner: key(),
            ..issue_request()
        },
        pb::IssueKeyRequest {
            level: 0,
            project: key(),
            ..issue_request()
        },
        pb::IssueKeyRequest {
            environment: key(),
            ..issue_request()
        },
        pb::IssueKeyRequest {
            scopes: vec![key()],
            ..issue_request()
        },
        pb::IssueKeyRequest {
            allowed_cidrs: vec![key()],
            ..issue_request()
        },
    ] {
        errors.push(api.keys.issue_key(request).await.err().expect("a refusal"));
    }
    for request in [
        pb::VerifyRequest {
            realm: key(),
            ..verify_request(&issued)
        },
        pb::VerifyRequest {
            environment: key(),
            ..verify_request(&issued)
        },
        pb::VerifyRequest {
            scopes: vec![key()],
            ..verify_request(&issued)
        },
        pb::VerifyRequest {
            client_ip: key(),
            ..verify_request(&issued)
        },
        pb::VerifyRequest {
            min_revision: u64::MAX,
            ..verify_request(&issued)
        },
    ] {
        errors.push(api.verify.verify(request).await.unwrap_err());
    }
    let get = pb::GetPartnerRequest {
        realm: "demo".to_owned(),
        partner: key(),
    };
    errors.push(api.realms.get_partner(get).await.unwrap_err());
    let delete = pb::DeleteProjectRequest {
        realm: "demo".to_owned(),
        project: key(),
        ..Default::default()
    };
    errors.push(api.realms.delete_project(delete).await.unwrap_err());
    let realm = pb::Realm {
        prefix: key(),
        admin_scope: key(),
        ..demo_realm()
    };
    let put = pb::PutRealmRequest {
        realm: Some(realm),
        ..Default::default()
    };
    errors.push(api.realms.put_realm(put).await.unwrap_err());
    let rename = rename_request(key(), key());
    errors.push(api.realms.rename_scope(rename).await.unwrap_err());
}

fn rename_request(scope: String, new_name: String) -> pb::RenameScopeRequest {
    pb::RenameScopeRequest {
        realm: "demo".to_owned(),
        scope,
        new_name,
        ..Default::default()
    }
}

fn keys_of(realm: &str) -> pb::ListKeysRequest {
    pb::ListKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: realm.to_owned(),
            ..Default::default()
        }),
        page_size: 1,
        ..Default::default()
    }
}

/// A typing error that is one, whatever the key ends in.
fn with_another_end(key: &str) -> String {
    let end = if key.ends_with('x') { "y" } else { "x" };
    format!("{}{end}", &key[..key.len() - 1])
}

/// Whole requests, with keys that are good, wrong, doubled and in the wrong places, on each way in that gateways have.
pub(super) async fn ask_as_gateways(
    api: &mut Api,
    program: &Program,
    canaries: &mut Canaries,
    errors: &mut Vec<Status>,
) {
    let realm = pb::Realm {
        credentials: Some(pb::Credentials {
            sources: vec![header_source("x-api-key", "")],
            partner_header: "x-api-user".to_owned(),
        }),
        ..demo_realm()
    };
    api.put_realm(realm).await;
    let good = api.issue().await.plain_key;
    canaries.plant_key("a key at the gateways", &good);
    let wrong = canaries.plant("a wrong key at the gateways", &with_another_end(&good));
    let gateway = authority_key_request("verify", "demo");
    let gateway = api.keys.issue_key(gateway).await.unwrap().into_inner();
    let gateway = gateway.plain_key;
    canaries.plant_key("a gateway's own key", &gateway);
    let path = format!("/x/{good}?key={wrong}");

    for headers in [
        vec![("x-api-key", good.as_str())],
        vec![("x-api-key", &wrong)],
        vec![("x-api-key", &good), ("x-api-key", &wrong)],
        vec![("x-api-key", &good), ("x-api-user", &good)],
        vec![("authorization", &good), ("cookie", &wrong)],
    ] {
        let question = pb::HttpQuestion {
            realm: "demo".to_owned(),
            environment: "production".to_owned(),
            method: "GET".to_owned(),
            target: path.clone(),
            headers: headers
                .iter()
                .map(|(name, value)| pb::HttpHeader {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            client_ip: String::new(),
        };
        let request = pb::ExplainRequest {
            question: Some(pb::explain_request::Question::Http(question)),
        };
        let answer = api.verify.explain(request).await.unwrap().into_inner();
        canaries.assert_absent("an explanation", format!("{answer:?}").as_bytes());

        // A gateway with a key of its own, and one that presents a client's, as a confused one does.
        for caller in [&gateway, &good] {
            let check = envoy_check(&program.address, caller, "demo", &path, &headers);
            match check.await {
                Ok(answer) => {
                    canaries.assert_absent("the answer to Envoy", &answer.encode_to_vec());
                }
                Err(error) => errors.push(error),
            }
            let answer = forward_auth(&program.http, caller, "demo", &path, &headers).await;
            canaries.assert_absent("the answer to nginx", &answer);
        }
    }
}

/// Ends many keys, with the API key in each text of the filter.
async fn by_filters(api: &mut Api, plain_key: &str, errors: &mut Vec<Status>) {
    let many = pb::RevokeKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "demo".to_owned(),
            partner: plain_key.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    errors.push(api.keys.revoke_keys(many).await.unwrap_err());
    for set in [
        |filter: &mut pb::KeyFilter, text: String| filter.name = text,
        |filter: &mut pb::KeyFilter, text: String| filter.hint = text,
        |filter: &mut pb::KeyFilter, text: String| filter.created_by = text,
        |filter: &mut pb::KeyFilter, text: String| filter.external_id = text,
    ] {
        let mut filter = pb::KeyFilter {
            realm: "demo".to_owned(),
            ..Default::default()
        };
        set(&mut filter, plain_key.to_owned());
        let revocation = pb::RevokeKeysRequest {
            filter: Some(filter.clone()),
            ..Default::default()
        };
        let deletion = pb::DeleteKeysRequest {
            filter: Some(filter),
            ..Default::default()
        };
        errors.extend(api.keys.revoke_keys(revocation).await.err());
        errors.extend(api.keys.delete_keys(deletion).await.err());
    }
}
