//! Which role may make which call.

use std::collections::BTreeSet;

use claviger::pb::claviger::v1 as pb;
use claviger::pb::claviger::v1::find_key_request::Key as Sought;
use pb::KeepSecret;
use prost::Message;
use tonic::{Code, Status};

use crate::fixtures::{
    Api, Engine, IssuedKey, Service, TestStore, authority_key_request, delegating_realm,
    end_rotation, get, get_self, import_entry, in_seconds, issue, issue_request,
    issue_request_with, list_keys, on_both_engines, request_id, revoke_keys, revoke_self, rotate,
    rotate_self, strings, update, verify_request,
};
use claviger::domain::clock::Clock;

/// The columns of the table. An auditor reads every realm; a reader, a manager and a gateway serve `demo`. A delegate is a partner's
/// key that administers keys, and a leaf is one that does not.
const ROLES: [&str; 7] = [
    "operator", "auditor", "manager", "reader", "delegate", "gateway", "leaf",
];

/// What becomes of each call. `+`: it is answered. `-`: `PERMISSION_DENIED`. `0`: `NOT_FOUND`, because what is named does not exist
/// or the caller may not know of it. `*`: it is refused because of the state of the authority, or answered, but not denied.
///
/// The part of a name after a space tells variants of a call apart.
const TABLE: &[(&str, &str)] = &[
    ("KeyAdmin.IssueKey", "+-+-+--"),
    ("KeyAdmin.GetKey", "+++++--"),
    ("KeyAdmin.GetKey of another realm", "++000--"),
    ("KeyAdmin.GetKey of an operator", "++000--"),
    ("KeyAdmin.ListKeys", "+++++--"),
    ("KeyAdmin.ListKeys of another realm", "++-----"),
    ("KeyAdmin.ListKeys of claviger", "++-----"),
    ("KeyAdmin.FindKey", "+++++--"),
    ("KeyAdmin.FindKey by hint", "+++++--"),
    ("KeyAdmin.GetKeyScopes", "+++++--"),
    ("KeyAdmin.UpdateKey", "+-+-+--"),
    ("KeyAdmin.DisableKey", "+-+-+--"),
    ("KeyAdmin.EnableKey", "+-+-+--"),
    ("KeyAdmin.RotateKey", "+-+-+--"),
    ("KeyAdmin.EndRotation", "+-+-+--"),
    ("KeyAdmin.RevokeKey", "+-+-+--"),
    ("KeyAdmin.RevokeKeys", "+-+-+--"),
    ("KeyAdmin.RevokeKeys dry", "+-+-+--"),
    ("KeyAdmin.RevokeKeys by name", "+-+-+--"),
    ("KeyAdmin.DeleteKeys", "+-+-+--"),
    ("KeyAdmin.DeleteKeys dry", "+-+-+--"),
    ("KeyAdmin.GetSelf", "+++++++"),
    ("KeyAdmin.RotateSelf", "-+-++++"),
    ("KeyAdmin.RevokeSelf", "+++++++"),
    ("KeyAdmin.DeleteKey", "+-+-+--"),
    ("KeyAdmin.ImportKeys", "+-+----"),
    ("KeyAdmin.ImportKeys dry", "+-+----"),
    ("KeyAdmin.GetKeyUsage", "+++++--"),
    ("KeyAdmin.GetUsage", "+++++--"),
    ("KeyAdmin.GetUsage of another realm", "++-----"),
    ("KeyAdmin.GetUsage of claviger", "++-----"),
    ("KeyAdmin.ListEvents", "++++---"),
    ("KeyAdmin.ListEvents of all realms", "++-----"),
    ("KeyAdmin.ListEvents of claviger", "++-----"),
    ("RealmAdmin.PutRealm", "+-+----"),
    ("RealmAdmin.RenameScope", "+-+----"),
    ("RealmAdmin.RenameScope dry", "+-+----"),
    ("RealmAdmin.RenameScope of another", "+------"),
    ("RealmAdmin.GetRealm", "++++---"),
    ("RealmAdmin.GetRealm claviger", "++-----"),
    ("RealmAdmin.GetRealm of another", "++-----"),
    ("RealmAdmin.ListRealms", "++++---"),
    ("RealmAdmin.DeleteRealm", "0------"),
    ("RealmAdmin.PutPartner", "+-+----"),
    ("RealmAdmin.GetPartner", "++++---"),
    ("RealmAdmin.ListPartners", "++++---"),
    ("RealmAdmin.DeletePartner", "0-0----"),
    ("RealmAdmin.PutProject", "+-+----"),
    ("RealmAdmin.ListProjects", "++++---"),
    ("RealmAdmin.DeleteProject", "0-0----"),
    ("KeyVerify.Verify", "+----+-"),
    ("KeyVerify.VerifyBatch", "+----+-"),
    ("KeyVerify.VerifyStream", "+----+-"),
    ("KeyVerify.Explain", "+------"),
    ("AuthorityAdmin.ListReplicas", "++-----"),
    ("AuthorityAdmin.SetLease", "*------"),
    ("AuthorityAdmin.AcceptHistory", "*------"),
    ("AuthorityAdmin.SetClock", "*------"),
    ("AuthorityAdmin.Apply", "+------"),
    ("AuthorityAdmin.Apply dry", "++-----"),
];

/// An authority in which each call has something to be about.
struct World {
    service: Service,
    root: Api,
    operator_id: String,
    elsewhere: IssuedKey,
}

impl World {
    async fn on(engine: Engine) -> Self {
        let clock = Clock::system();
        // Each call of a partner's keys is a change of its budget.
        let flags = ["--delegated-changes-per-hour", "100000"];
        let service = Service::start_with(TestStore::on(engine), clock, "", &flags).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(realm()).await;
        root.put_realm(pb::Realm {
            id: "other".to_owned(),
            prefix: "other".to_owned(),
            ..realm()
        })
        .await;
        let partner = pb::Partner {
            realm: "other".to_owned(),
            id: "acme".to_owned(),
            ..Default::default()
        };
        let put = pb::PutPartnerRequest {
            partner: Some(partner),
            ..Default::default()
        };
        root.realms.put_partner(put).await.unwrap();
        let elsewhere = issue_request_with(|key| "other".clone_into(&mut key.realm));
        let elsewhere = issue(&mut root, elsewhere).await;
        let operator_id = get_self(&mut root).await.unwrap().id;
        Self {
            service,
            root,
            operator_id,
            elsewhere,
        }
    }

    /// A new caller with this role.
    async fn caller(&mut self, role: &str) -> Api {
        let request = match role {
            "operator" => authority_key_request("operator", ""),
            "auditor" => authority_key_request("read", ""),
            "manager" => authority_key_request("manage", "demo"),
            "reader" => authority_key_request("read", "demo"),
            "gateway" => authority_key_request("verify", "demo"),
            "delegate" => issue_request_with(|key| key.scopes = strings(&["write", "keys"])),
            _ => issue_request(),
        };
        let issued = issue(&mut self.root, request).await;
        self.service.api_as(&issued.plain_key)
    }

    /// A new key of `acme`, which a delegate reaches.
    async fn target(&mut self) -> IssuedKey {
        issue(&mut self.root, issue_request()).await
    }

    async fn call(&mut self, api: &mut Api, call: &str) -> Result<(), Status> {
        let (service, _) = call.split_once('.').unwrap();
        match service {
            "KeyAdmin" if call.contains("Self") => call_on_self(api, call).await,
            "KeyAdmin" if READS.iter().any(|read| call.contains(read)) => {
                self.read_keys(api, call).await
            }
            "KeyAdmin" => self.change_keys(api, call).await,
            "RealmAdmin" if call.contains("RenameScope") => rename_scope(api, call).await,
            "RealmAdmin" => call_realms(api, call).await,
            "KeyVerify" => self.verify(api, call).await,
            _ => call_authority(api, call).await,
        }
    }

    async fn read_keys(&mut self, api: &mut Api, call: &str) -> Result<(), Status> {
        let target = self.target().await;
        let key_id = match call {
            "KeyAdmin.GetKey of another realm" => self.elsewhere.id.clone(),
            "KeyAdmin.GetKey of an operator" => self.operator_id.clone(),
            _ => target.id,
        };
        let realm = if call.ends_with("of another realm") {
            "other"
        } else if call.ends_with("of claviger") {
            "claviger"
        } else if call.ends_with("of all realms") {
            ""
        } else {
            "demo"
        };
        match call.split(' ').next().unwrap() {
            "KeyAdmin.GetKey" => {
                let request = pb::GetKeyRequest {
                    key_id,
                    ..Default::default()
                };
                api.keys.get_key(request).await.map(drop)
            }
            "KeyAdmin.GetKeyScopes" => {
                let request = pb::GetKeyScopesRequest {
                    key_id,
                    ..Default::default()
                };
                api.keys.get_key_scopes(request).await.map(drop)
            }
            "KeyAdmin.GetKeyUsage" => {
                let request = pb::GetKeyUsageRequest {
                    key_id,
                    ..Default::default()
                };
                api.keys.get_key_usage(request).await.map(drop)
            }
            "KeyAdmin.GetUsage" => {
                let request = pb::GetUsageRequest {
                    realm: realm.to_owned(),
                    ..Default::default()
                };
                api.keys.get_usage(request).await.map(drop)
            }
            "KeyAdmin.ListKeys" => list_keys(api, |list| {
                realm.clone_into(&mut list.filter.get_or_insert_default().realm);
            })
            .await
            .map(drop),
            "KeyAdmin.FindKey" => {
                let sought = if call.ends_with("by hint") {
                    Sought::Hint(target.key.hint.clone())
                } else {
                    Sought::PlainKey(target.plain_key)
                };
                let request = pb::FindKeyRequest { key: Some(sought) };
                api.keys.find_key(request).await.map(drop)
            }
            "KeyAdmin.ListEvents" => {
                let request = pb::ListEventsRequest {
                    realm: realm.to_owned(),
                    ..Default::default()
                };
                api.keys.list_events(request).await.map(drop)
            }
            _ => unknown(call),
        }
    }

    async fn change_keys(&mut self, api: &mut Api, call: &str) -> Result<(), Status> {
        let IssuedKey { id, .. } = self.target().await;
        let id = id.as_str();
        let dry_run = call.ends_with(" dry");
        match call.split(' ').next().unwrap() {
            "KeyAdmin.IssueKey" => api.keys.issue_key(issue_request()).await.map(drop),
            "KeyAdmin.UpdateKey" => update(api, id, &["name"], |key| "x".clone_into(&mut key.name))
                .await
                .map(drop),
            "KeyAdmin.DisableKey" => {
                let request = pb::DisableKeyRequest {
                    key_id: id.to_owned(),
                    ..Default::default()
                };
                api.keys.disable_key(request).await.map(drop)
            }
            "KeyAdmin.EnableKey" => {
                let request = pb::EnableKeyRequest {
                    key_id: id.to_owned(),
                    ..Default::default()
                };
                api.keys.enable_key(request).await.map(drop)
            }
            "KeyAdmin.RotateKey" => rotate(api, id, 60).await.map(drop),
            "KeyAdmin.EndRotation" => {
                rotate(&mut self.root, id, 60).await.unwrap();
                end_rotation(api, id, KeepSecret::New).await.map(drop)
            }
            "KeyAdmin.RevokeKey" => api.revoke(id).await.map(drop),
            "KeyAdmin.RevokeKeys" => revoke_keys(api, |keys| {
                keys.dry_run = dry_run;
                let filter = keys.filter.get_or_insert_default();
                "acme".clone_into(&mut filter.partner);
                "production".clone_into(&mut filter.environment);
                // Before every key here.
                filter.issued_before = Some(in_seconds(-3600));
            })
            .await
            .map(drop),
            "KeyAdmin.RevokeKeys by name" => revoke_keys(api, |keys| {
                let filter = keys.filter.get_or_insert_default();
                "no key has this name".clone_into(&mut filter.name);
            })
            .await
            .map(drop),
            "KeyAdmin.DeleteKeys" => {
                let request = pb::DeleteKeysRequest {
                    filter: Some(pb::KeyFilter {
                        realm: "demo".to_owned(),
                        name: "no key has this name".to_owned(),
                        ..Default::default()
                    }),
                    dry_run,
                    ..Default::default()
                };
                api.keys.delete_keys(request).await.map(drop)
            }
            "KeyAdmin.DeleteKey" => api.delete(id).await.map(drop),
            "KeyAdmin.ImportKeys" => {
                let plain_key = format!("another-systems-key-{}", request_id());
                let request = pb::ImportKeysRequest {
                    realm: "demo".to_owned(),
                    entries: vec![import_entry(&plain_key)],
                    dry_run,
                    ..Default::default()
                };
                api.keys.import_keys(request).await.map(drop)
            }
            _ => unknown(call),
        }
    }

    async fn verify(&mut self, api: &mut Api, call: &str) -> Result<(), Status> {
        let request = verify_request(&self.target().await.plain_key);
        let outcome = match call {
            "KeyVerify.Verify" => return api.verify.verify(request).await.map(drop),
            "KeyVerify.VerifyBatch" => {
                let batch = pb::VerifyBatchRequest {
                    requests: vec![request],
                };
                let mut answer = api.verify.verify_batch(batch).await?.into_inner();
                match answer.results.remove(0).result.unwrap() {
                    pb::verify_batch_result::Result::Response(_) => None,
                    pb::verify_batch_result::Result::Error(error) => Some(error),
                }
            }
            "KeyVerify.VerifyStream" => {
                let question = pb::VerifyStreamRequest {
                    request: Some(request),
                };
                let questions = tokio_stream::iter([question]);
                let mut answers = api.verify.verify_stream(questions).await?.into_inner();
                match answers.message().await?.unwrap().result.unwrap() {
                    pb::verify_stream_response::Result::Response(_) => None,
                    pb::verify_stream_response::Result::Error(error) => Some(error),
                }
            }
            "KeyVerify.Explain" => {
                let question = pb::explain_request::Question::Verify(request);
                let request = pb::ExplainRequest {
                    question: Some(question),
                };
                return api.verify.explain(request).await.map(drop);
            }
            _ => unknown(call),
        };
        match outcome {
            None => Ok(()),
            Some(error) => Err(Status::new(error.code.into(), error.message)),
        }
    }
}

/// What the names of the calls that read keys and events contain.
const READS: [&str; 3] = ["Get", "List", "Find"];

fn unknown<T>(call: &str) -> T {
    panic!("{call} is in the table, but nothing here makes it")
}

fn realm() -> pb::Realm {
    pb::Realm {
        self_rotation: true,
        ..delegating_realm()
    }
}

/// Calls of a new caller, whose key they may rotate or revoke.
async fn call_on_self(api: &mut Api, call: &str) -> Result<(), Status> {
    match call {
        "KeyAdmin.GetSelf" => get_self(api).await.map(drop),
        "KeyAdmin.RotateSelf" => rotate_self(api, 3600).await.map(drop),
        "KeyAdmin.RevokeSelf" => revoke_self(api, "").await.map(drop),
        _ => unknown(call),
    }
}

/// Renames a scope, and leaves the old one, so that the next caller can call it again.
async fn rename_scope(api: &mut Api, call: &str) -> Result<(), Status> {
    let realm = if call.ends_with("of another") {
        "other"
    } else {
        "demo"
    };
    let request = pb::RenameScopeRequest {
        realm: realm.to_owned(),
        scope: "billing".to_owned(),
        new_name: "accounting".to_owned(),
        keep_old_scope: true,
        dry_run: call.ends_with("dry"),
        ..Default::default()
    };
    api.realms.rename_scope(request).await.map(drop)
}

async fn call_realms(api: &mut Api, call: &str) -> Result<(), Status> {
    let demo = || "demo".to_owned();
    let project = || pb::Project {
        realm: demo(),
        id: "one".to_owned(),
        partner: "acme".to_owned(),
        ..Default::default()
    };
    match call {
        "RealmAdmin.PutRealm" => {
            let request = pb::PutRealmRequest {
                realm: Some(realm()),
                ..Default::default()
            };
            api.realms.put_realm(request).await.map(drop)
        }
        "RealmAdmin.GetRealm"
        | "RealmAdmin.GetRealm claviger"
        | "RealmAdmin.GetRealm of another" => {
            let realm_id = match call.rsplit(' ').next().unwrap() {
                "claviger" => "claviger",
                "another" => "other",
                _ => "demo",
            };
            let request = pb::GetRealmRequest {
                realm_id: realm_id.to_owned(),
            };
            api.realms.get_realm(request).await.map(drop)
        }
        "RealmAdmin.ListRealms" => {
            let request = pb::ListRealmsRequest::default();
            api.realms.list_realms(request).await.map(drop)
        }
        "RealmAdmin.DeleteRealm" => {
            let request = pb::DeleteRealmRequest {
                realm_id: "ghost".to_owned(),
                ..Default::default()
            };
            api.realms.delete_realm(request).await.map(drop)
        }
        "RealmAdmin.PutPartner" => {
            let partner = pb::Partner {
                realm: demo(),
                id: "acme".to_owned(),
                suspended: Some(false),
                ..Default::default()
            };
            let request = pb::PutPartnerRequest {
                partner: Some(partner),
                ..Default::default()
            };
            api.realms.put_partner(request).await.map(drop)
        }
        "RealmAdmin.GetPartner" => {
            let request = pb::GetPartnerRequest {
                realm: demo(),
                partner: "acme".to_owned(),
            };
            api.realms.get_partner(request).await.map(drop)
        }
        "RealmAdmin.ListPartners" => {
            let request = pb::ListPartnersRequest {
                realm: demo(),
                ..Default::default()
            };
            api.realms.list_partners(request).await.map(drop)
        }
        "RealmAdmin.DeletePartner" => {
            let request = pb::DeletePartnerRequest {
                realm: demo(),
                partner: "ghost".to_owned(),
                ..Default::default()
            };
            api.realms.delete_partner(request).await.map(drop)
        }
        "RealmAdmin.PutProject" => {
            let request = pb::PutProjectRequest {
                project: Some(project()),
                ..Default::default()
            };
            api.realms.put_project(request).await.map(drop)
        }
        "RealmAdmin.ListProjects" => {
            let request = pb::ListProjectsRequest {
                realm: demo(),
                ..Default::default()
            };
            api.realms.list_projects(request).await.map(drop)
        }
        "RealmAdmin.DeleteProject" => {
            let request = pb::DeleteProjectRequest {
                realm: demo(),
                project: "ghost".to_owned(),
                ..Default::default()
            };
            api.realms.delete_project(request).await.map(drop)
        }
        _ => unknown(call),
    }
}

async fn call_authority(api: &mut Api, call: &str) -> Result<(), Status> {
    match call {
        "AuthorityAdmin.ListReplicas" => {
            let request = pb::ListReplicasRequest {};
            api.authority.list_replicas(request).await.map(drop)
        }
        "AuthorityAdmin.SetLease" => {
            let request = pb::SetLeaseRequest {
                lease: Some(prost_types::Duration {
                    seconds: 10,
                    nanos: 0,
                }),
                ..Default::default()
            };
            api.authority.set_lease(request).await.map(drop)
        }
        "AuthorityAdmin.AcceptHistory" => {
            let request = pb::AcceptHistoryRequest {
                epoch: 1,
                ..Default::default()
            };
            api.authority.accept_history(request).await.map(drop)
        }
        "AuthorityAdmin.SetClock" => {
            let request = pb::SetClockRequest {
                time: Some(in_seconds(0)),
                ..Default::default()
            };
            api.authority.set_clock(request).await.map(drop)
        }
        "AuthorityAdmin.Apply" | "AuthorityAdmin.Apply dry" => {
            let request = pb::ApplyRequest {
                state: Some(pb::DeclaredState::default()),
                dry_run: call.ends_with("dry"),
                ..Default::default()
            };
            api.authority.apply(request).await.map(drop)
        }
        _ => unknown(call),
    }
}

fn outcome(answer: &Result<(), Status>) -> char {
    match answer.as_ref().map_or_else(Status::code, |()| Code::Ok) {
        Code::Ok => '+',
        Code::PermissionDenied => '-',
        Code::NotFound => '0',
        Code::FailedPrecondition => '*',
        other => panic!("{other:?}: {answer:?}"),
    }
}

/// A new RPC needs a row.
#[test]
fn the_table_has_every_rpc() {
    let descriptors = prost_types::FileDescriptorSet::decode(claviger::pb::DESCRIPTORS).unwrap();
    let services = descriptors
        .file
        .iter()
        .filter(|file| file.package() == "claviger.v1")
        .flat_map(|file| &file.service);
    let rpcs: BTreeSet<_> = services
        .flat_map(|service| {
            let methods = service.method.iter();
            methods.map(|method| format!("{}.{}", service.name(), method.name()))
        })
        .collect();
    let rows = TABLE
        .iter()
        .map(|(call, _)| call.split(' ').next().unwrap());
    assert_eq!(rows.map(str::to_owned).collect::<BTreeSet<_>>(), rpcs);
}

on_both_engines! {
    /// Seen red with `Power::Read` in `may_manage`, and with operators that rotate themselves.
    async fn each_role_may_make_its_calls_and_no_other(engine: Engine) {
        let mut world = World::on(engine).await;
        let mut callers = Vec::new();
        for role in ROLES {
            callers.push(world.caller(role).await);
        }
        let mut wrong = Vec::new();
        for (call, expected) in TABLE {
            let mut found = String::new();
            let mut answers = Vec::new();
            for ((role, caller), expected) in ROLES.iter().zip(&callers).zip(expected.chars()) {
                // A call of this kind may end the caller's key.
                let mut api = if call.contains("Self") {
                    world.caller(role).await
                } else {
                    caller.clone()
                };
                let answer = world.call(&mut api, call).await;
                let is = outcome(&answer);
                found.push(if expected == '*' && is != '-' { '*' } else { is });
                answers.push(answer);
            }
            if found != *expected {
                wrong.push(format!("{call}: {found} instead of {expected}: {answers:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        world.service.stop().await;
    }

    /// Seen red with a key of `verify` and `read` that may have no partner.
    async fn only_operators_and_readers_have_no_realm(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        for scopes in [&["verify"][..], &["manage"], &["read", "verify"], &["read", "manage"], &[]] {
            let request = pb::IssueKeyRequest {
                realm: "claviger".to_owned(),
                scopes: strings(scopes),
                ..Default::default()
            };
            crate::fixtures::refused_field(root.keys.issue_key(request).await, "partner");
        }
        let auditor = issue(&mut root, authority_key_request("read", "")).await;
        crate::fixtures::refused_field(
            update(&mut root, &auditor.id, &["scopes"], |key| key.scopes = strings(&["verify"])).await,
            "partner",
        );
        let mut auditor_api = service.api_as(&auditor.plain_key);
        let realms = auditor_api.realms.list_realms(pb::ListRealmsRequest::default()).await.unwrap();
        let realms: Vec<_> = realms.into_inner().realms.into_iter().map(|realm| realm.id).collect();
        assert_eq!(realms, ["claviger", "demo"]);
        // It reads the realm of the authority too, and its own key there.
        assert_eq!(get(&mut auditor_api, &auditor.id).await.scopes, ["read"]);
        let reader = issue(&mut root, authority_key_request("read", "demo")).await;
        let mut reader = service.api_as(&reader.plain_key);
        let realms = reader.realms.list_realms(pb::ListRealmsRequest::default()).await.unwrap();
        let realms: Vec<_> = realms.into_inner().realms.into_iter().map(|realm| realm.id).collect();
        assert_eq!(realms, ["demo"]);
        service.stop().await;
    }
}
