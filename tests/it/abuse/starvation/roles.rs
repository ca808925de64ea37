//! The roles, and the most expensive calls that each may make.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use claviger::pb::claviger::v1 as pb;
use claviger::pb::envoy::service::auth::v3 as envoy;
use claviger::protobuf::Encoded;
use envoy::attribute_context::{self, HttpRequest};
use pb::import_entry::Secret;
use pb::key_verify_client::KeyVerifyClient;
use pb::{KeyLevel, KeyState};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1 as reflection;

use super::attackers::Attack;
use crate::abuse::connection::Connection;
use crate::abuse::isolation::put;
use crate::fixtures::realm_definitions::largest_definitions;
use crate::fixtures::{
    Program, authority_key_request, delegating_realm, from_env, hex_of, import, import_entry_of,
    issue, issue_request_with, revoke_keys, rotate, rotate_request, strings, verify_request,
};

/// The most entries of an import, and the most keys on a page.
const MOST: u32 = 1_000;

/// The most questions of a batch.
const BATCH: usize = 100;

/// The most scopes that a question may name.
const SCOPES: usize = 64;

/// The keys that the partner `acme` has at first. It may have a thousand.
const KEYS_OF_PARTNER: u32 = 900;

/// The keys of the other partner, in imports of as many as one may have.
const IMPORTS_OF_OTHERS: u32 = 3;

/// How often the keys of the partner were revoked at once, by each of four selections.
const BULK_REVOCATIONS: usize = 10;

const ISSUE_KEY: &str = "claviger.v1.KeyAdmin/IssueKey";
const GET_KEY: &str = "claviger.v1.KeyAdmin/GetKey";
const GET_KEY_USAGE: &str = "claviger.v1.KeyAdmin/GetKeyUsage";
const GET_USAGE: &str = "claviger.v1.KeyAdmin/GetUsage";
const GET_SELF: &str = "claviger.v1.KeyAdmin/GetSelf";
const ROTATE_SELF: &str = "claviger.v1.KeyAdmin/RotateSelf";
const DELETE_KEYS: &str = "claviger.v1.KeyAdmin/DeleteKeys";
const RENAME_SCOPE: &str = "claviger.v1.RealmAdmin/RenameScope";
const LIST_KEYS: &str = "claviger.v1.KeyAdmin/ListKeys";
const UPDATE_KEY: &str = "claviger.v1.KeyAdmin/UpdateKey";
const DISABLE_KEY: &str = "claviger.v1.KeyAdmin/DisableKey";
const ROTATE_KEY: &str = "claviger.v1.KeyAdmin/RotateKey";
const REVOKE_KEY: &str = "claviger.v1.KeyAdmin/RevokeKey";
const REVOKE_KEYS: &str = "claviger.v1.KeyAdmin/RevokeKeys";
const REVOKE_SELF: &str = "claviger.v1.KeyAdmin/RevokeSelf";
const IMPORT_KEYS: &str = "claviger.v1.KeyAdmin/ImportKeys";
const PUT_REALM: &str = "claviger.v1.RealmAdmin/PutRealm";
const VERIFY: &str = "claviger.v1.KeyVerify/Verify";
const VERIFY_BATCH: &str = "claviger.v1.KeyVerify/VerifyBatch";
const EXPLAIN: &str = "claviger.v1.KeyVerify/Explain";
const CHECK: &str = "envoy.service.auth.v3.Authorization/Check";

/// A role, and its attacks.
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) key: Option<String>,
    pub(super) attacks: Vec<Attack>,
}

/// The keys of an authority that is attacked.
pub(super) struct World {
    /// The key of a gateway, and an API key that is good.
    pub(super) gateway_key: String,
    pub(super) plain_key: String,
    /// The keys of the attackers.
    wrong: String,
    verify: String,
    delegate: String,
    manage: String,
    /// A key that may rotate itself, and the old secret of another one.
    holder: String,
    old_secret: String,
    /// The ids of keys of the partner.
    key_ids: Vec<String>,
    /// The ids of keys of the other partner.
    others: Vec<String>,
}

impl World {
    /// Makes the realm `demo` with thousands of keys and many bulk revocations.
    pub(super) async fn make(program: &Program) -> Self {
        let mut api = program.api();
        api.make_demo().await;
        api.put_realm(attacked_realm()).await;
        for _ in 0..BULK_REVOCATIONS {
            issue(&mut api, issue_request_with(|_| ())).await;
            // The narrower ones first: a selection whose keys are all revoked already is none.
            for (project, environment) in [
                ("one", "production"),
                ("one", ""),
                ("", "production"),
                ("", ""),
            ] {
                let revoked = revoke_keys(&mut api, |keys| {
                    keys.filter = Some(filter_of_partner(project, environment));
                });
                revoked.await.unwrap();
            }
        }
        let mut key_ids = Vec::new();
        for outcome in import(&mut api, entries(0, KEYS_OF_PARTNER, "acme")).await {
            key_ids.push(outcome.unwrap());
        }
        let mut others = Vec::new();
        for number in 1..=IMPORTS_OF_OTHERS {
            for outcome in import(&mut api, entries(number, MOST, "umbrella")).await {
                others.push(outcome.unwrap());
            }
        }
        let all_scopes = issue_request_with(|key| {
            key.scopes.clear();
            key.full_access = true;
        });
        let delegate = issue_request_with(|key| key.scopes = strings(&["write", "keys"]));
        let wrong = issue(&mut api, authority_key_request("verify", "demo")).await;
        rotate(&mut api, &wrong.id, 0).await.unwrap();
        let rotated = issue(&mut api, issue_request_with(|_| ())).await;
        rotate(&mut api, &rotated.id, 3_600).await.unwrap();
        let mut issued = async |request| issue(&mut api, request).await.plain_key;
        Self {
            gateway_key: issued(authority_key_request("verify", "demo")).await,
            plain_key: issued(all_scopes).await,
            wrong: wrong.plain_key,
            verify: issued(authority_key_request("verify", "demo")).await,
            delegate: issued(delegate).await,
            manage: issued(authority_key_request("manage", "demo")).await,
            holder: issued(issue_request_with(|_| ())).await,
            old_secret: rotated.plain_key,
            key_ids,
            others,
        }
    }

    pub(super) fn roles(&self) -> Vec<Role> {
        vec![
            self.no_credential(),
            self.wrong_key(),
            self.verify(),
            self.reads_of_delegate(),
            self.changes_of_delegate(),
            self.reads_of_manager(),
            self.new_keys_of_manager(),
            self.revocations_of_manager(),
            self.imports_and_realms_of_manager(),
            self.holder(),
            self.holder_of_old_secret(),
            self.searches_of_manager(),
        ]
    }

    fn no_credential(&self) -> Role {
        let mut attacks = vec![
            Attack::new("reflection", 64, |connection, _| reflect(connection)),
            Attack::new("watches of health", 64, |connection, _| watch(connection)),
            Attack::new("large headers", 64, |connection, _| {
                large_headers(connection)
            })
            .unproven(),
        ];
        let unproven = [
            (REVOKE_SELF, 64, Vec::new()),
            (VERIFY, 64, verify_request(&self.plain_key).encode_to_vec()),
            (VERIFY_BATCH, 32, self.batch()),
            (PUT_REALM, 4, largest_realms().swap_remove(1)),
        ];
        for (method, at_once, request) in unproven {
            attacks.push(Attack::repeat(method, at_once, request).unproven());
        }
        Role {
            name: "no credential",
            key: None,
            attacks,
        }
    }

    fn wrong_key(&self) -> Role {
        let calls = [
            (VERIFY, 90, verify_request(&self.plain_key).encode_to_vec()),
            (VERIFY_BATCH, 32, self.batch()),
            (CHECK, 16, self.check()),
            (REVOKE_SELF, 64, Vec::new()),
            (REVOKE_KEYS, 90, dry_run("")),
            (DELETE_KEYS, 90, delete_keys("acme", "nobody's")),
            (ROTATE_SELF, 64, rotate_self()),
            (IMPORT_KEYS, 4, import_of(0, MOST, "acme", sha256)),
            (PUT_REALM, 4, largest_realms().swap_remove(1)),
        ];
        let attack =
            |(method, at_once, request)| Attack::repeat(method, at_once, request).unproven();
        Role {
            name: "wrong key",
            key: Some(self.wrong.clone()),
            attacks: calls.map(attack).into(),
        }
    }

    fn verify(&self) -> Role {
        let unknown = pb::VerifyBatchRequest {
            requests: vec![verify_request(&"x".repeat(500)); BATCH],
        };
        let question = pb::ExplainRequest {
            question: Some(pb::explain_request::Question::Verify(self.question())),
        };
        let question = question.encode_to_vec();
        let one = self.question();
        Role {
            name: "verify",
            key: Some(self.verify.clone()),
            attacks: vec![
                Attack::repeat(VERIFY, 90, one.encode_to_vec()),
                Attack::repeat(VERIFY_BATCH, 32, self.batch()),
                Attack::repeat(VERIFY_BATCH, 16, unknown.encode_to_vec()),
                Attack::new("VerifyStream", 16, move |connection, _| {
                    verify_stream(connection, one.clone())
                }),
                Attack::repeat(CHECK, 16, self.check()),
                Attack::repeat(EXPLAIN, 16, question).refused(Code::PermissionDenied),
                Attack::repeat(LIST_KEYS, 16, list_keys("")).refused(Code::PermissionDenied),
                Attack::repeat(REVOKE_KEYS, 16, dry_run("")).refused(Code::PermissionDenied),
            ],
        }
    }

    fn reads_of_delegate(&self) -> Role {
        let key_id = &self.key_ids[0];
        let get = pb::GetKeyRequest {
            key_id: key_id.clone(),
            ..Default::default()
        };
        let usage = pb::GetKeyUsageRequest {
            key_id: key_id.clone(),
            ..Default::default()
        };
        Role {
            name: "delegate, reads",
            key: Some(self.delegate.clone()),
            attacks: vec![
                Attack::repeat(REVOKE_KEYS, 90, dry_run("acme")),
                Attack::repeat(LIST_KEYS, 32, list_keys("acme")),
                Attack::repeat(GET_KEY, 16, get.encode_to_vec()).limited(),
                Attack::repeat(GET_KEY_USAGE, 16, usage.encode_to_vec()).limited(),
                Attack::repeat(GET_USAGE, 16, get_usage("acme")).limited(),
            ],
        }
    }

    fn changes_of_delegate(&self) -> Role {
        let [updated, rotated, disabled, revoked] = [0, 1, 2, 3].map(|n| self.key_ids[n].clone());
        let disable = pb::DisableKeyRequest {
            key_id: disabled,
            ..Default::default()
        };
        let issue = issue_request_with(|key| {
            key.level = KeyLevel::Project.into();
            "one".clone_into(&mut key.project);
        });
        let revoke_project = pb::RevokeKeysRequest {
            filter: Some(filter_of_partner("one", "production")),
            ..Default::default()
        };
        Role {
            name: "delegate, changes",
            key: Some(self.delegate.clone()),
            attacks: vec![
                Attack::with_number(UPDATE_KEY, 16, move |n| rename(&updated, n)).limited(),
                Attack::repeat(ROTATE_KEY, 16, rotate_request(&rotated, 0).encode_to_vec())
                    .limited(),
                Attack::repeat(ISSUE_KEY, 16, issue.encode_to_vec()).limited(),
                Attack::repeat(REVOKE_KEYS, 16, revoke_project.encode_to_vec()),
                Attack::repeat(DELETE_KEYS, 16, delete_keys("acme", "nobody's")),
                Attack::with_number(REVOKE_KEYS, 16, |n| revoke_named(&format!("number {n}"))),
                Attack::repeat(DISABLE_KEY, 16, disable.encode_to_vec()),
                Attack::repeat(REVOKE_KEY, 16, revoke(revoked)),
            ],
        }
    }

    fn reads_of_manager(&self) -> Role {
        Role {
            name: "manage, reads",
            key: Some(self.manage.clone()),
            attacks: vec![
                Attack::repeat(REVOKE_KEYS, 180, dry_run("")),
                Attack::repeat(LIST_KEYS, 90, list_keys("")),
            ],
        }
    }

    fn new_keys_of_manager(&self) -> Role {
        let issue = issue_request_with(|_| ()).encode_to_vec();
        Role {
            name: "manage, new keys",
            key: Some(self.manage.clone()),
            attacks: vec![Attack::repeat(ISSUE_KEY, 665, issue)],
        }
    }

    fn revocations_of_manager(&self) -> Role {
        let key_ids = self.others.clone();
        let revoke = move |n: u32| revoke(key_ids[n as usize % key_ids.len()].clone());
        Role {
            name: "manage, revocations",
            key: Some(self.manage.clone()),
            attacks: vec![Attack::with_number(REVOKE_KEY, 90, revoke)],
        }
    }

    fn imports_and_realms_of_manager(&self) -> Role {
        let realms = largest_realms();
        Role {
            name: "manage, imports and realms",
            key: Some(self.manage.clone()),
            attacks: vec![
                Attack::with_number(IMPORT_KEYS, 2, |_| next_import(plain_key)),
                Attack::with_number(IMPORT_KEYS, 2, |_| next_import(sha256)),
                Attack::with_number(PUT_REALM, 4, move |n| realms[n as usize % 3].clone()),
            ],
        }
    }

    /// Searches over all keys, and changes of all that they find.
    fn searches_of_manager(&self) -> Role {
        Role {
            name: "manage, searches",
            key: Some(self.manage.clone()),
            attacks: vec![
                Attack::with_number(DELETE_KEYS, 32, |n| {
                    delete_keys("umbrella", &format!("{n}"))
                }),
                Attack::with_number(REVOKE_KEYS, 32, |n| revoke_named(&format!("{n}"))),
                Attack::new(RENAME_SCOPE, 4, rename_scope),
                Attack::repeat(GET_USAGE, 64, get_usage("")),
            ],
        }
    }

    /// Each call rotates the key with the API key that the call before returned.
    fn holder(&self) -> Role {
        let newest = Arc::new(Mutex::new(self.holder.clone()));
        Role {
            name: "holder",
            key: Some(self.holder.clone()),
            attacks: vec![
                Attack::new(ROTATE_SELF, 16, move |connection, _| {
                    rotate_newest(connection, Arc::clone(&newest))
                })
                .limited(),
                Attack::repeat(GET_SELF, 64, Vec::new()).limited(),
            ],
        }
    }

    fn holder_of_old_secret(&self) -> Role {
        Role {
            name: "holder, old secret",
            key: Some(self.old_secret.clone()),
            attacks: vec![
                Attack::repeat(ROTATE_SELF, 64, rotate_self()).refused(Code::FailedPrecondition),
                Attack::repeat(GET_SELF, 16, Vec::new()).limited(),
            ],
        }
    }

    /// A question with as many scopes as one may have.
    fn question(&self) -> pb::VerifyRequest {
        pb::VerifyRequest {
            scopes: scope_names(),
            any_scopes: scope_names(),
            ..verify_request(&self.plain_key)
        }
    }

    /// A batch that has as many questions as one may have.
    fn batch(&self) -> Vec<u8> {
        let request = pb::VerifyBatchRequest {
            requests: vec![self.question(); BATCH],
        };
        let batch = request.encode_to_vec();
        assert!(batch.len() <= 64 * 1024, "{} bytes", batch.len());
        batch
    }

    /// The question of Envoy about a request of nearly 256 KiB.
    fn check(&self) -> Vec<u8> {
        let header = |number| (format!("x-header-{number}"), "x".repeat(1_000));
        let mut headers: BTreeMap<_, _> = (0..240).map(header).collect();
        let bearer = format!("Bearer {}", self.plain_key);
        headers.insert("authorization".to_owned(), bearer);
        let http = HttpRequest {
            method: "GET".to_owned(),
            path: format!("/{}", "a/".repeat(1_000)),
            headers,
            ..Default::default()
        };
        let extensions = [("realm", "demo"), ("environment", "production")];
        let request = envoy::CheckRequest {
            attributes: Some(envoy::AttributeContext {
                request: Some(attribute_context::Request { http: Some(http) }),
                context_extensions: extensions
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                ..Default::default()
            }),
        };
        request.encode_to_vec()
    }
}

impl Role {
    /// Nobody attacks.
    pub(super) fn nobody() -> Self {
        Self {
            name: "nobody",
            key: None,
            attacks: Vec::new(),
        }
    }
}

/// The realm `demo`, which delegates, with many scopes.
fn attacked_realm() -> pb::Realm {
    let mut realm = delegating_realm();
    realm.self_rotation = true;
    realm
        .scopes
        .extend(scope_names().into_iter().map(|name| pb::Scope {
            name,
            ..Default::default()
        }));
    realm
}

/// Names of two characters, so that as many questions as a batch may have fit into a message.
fn scope_names() -> Vec<String> {
    let name = |number: usize| format!("{}{:x}", ["a", "b", "c", "d"][number / 16], number % 16);
    (0..SCOPES).map(name).collect()
}

fn largest_realms() -> Vec<Vec<u8>> {
    let largest = largest_definitions("demo").map(|realm| {
        put(pb::Realm {
            routes: realm.routes,
            ..attacked_realm()
        })
    });
    largest.into()
}

fn filter_of_partner(project: &str, environment: &str) -> pb::KeyFilter {
    pb::KeyFilter {
        realm: "demo".to_owned(),
        partner: "acme".to_owned(),
        project: project.to_owned(),
        environment: environment.to_owned(),
        ..Default::default()
    }
}

fn dry_run(partner: &str) -> Vec<u8> {
    let request = pb::RevokeKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "demo".to_owned(),
            partner: partner.to_owned(),
            ..Default::default()
        }),
        dry_run: true,
        ..Default::default()
    };
    request.encode_to_vec()
}

/// Asks for the largest page with every filter that all keys pass.
fn list_keys(partner: &str) -> Vec<u8> {
    use KeyState::{Active, Disabled, Expired, Revoked};
    let request = pb::ListKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "demo".to_owned(),
            partner: partner.to_owned(),
            environment: "production".to_owned(),
            states: [Active, Disabled, Expired, Revoked].map(Into::into).into(),
            unused_for: Some(prost_types::Duration {
                seconds: 0,
                nanos: 1_000,
            }),
            never_expires: true,
            ..Default::default()
        }),
        with_total: true,
        page_size: MOST as i32,
        ..Default::default()
    };
    request.encode_to_vec()
}

fn filter_of_name(partner: &str, name: &str) -> pb::KeyFilter {
    pb::KeyFilter {
        realm: "demo".to_owned(),
        partner: partner.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    }
}

fn delete_keys(partner: &str, name: &str) -> Vec<u8> {
    let request = pb::DeleteKeysRequest {
        filter: Some(filter_of_name(partner, name)),
        ..Default::default()
    };
    request.encode_to_vec()
}

fn revoke_named(name: &str) -> Vec<u8> {
    let request = pb::RevokeKeysRequest {
        filter: Some(filter_of_name("acme", name)),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// Renames a scope that most keys hold, or renames it back, whichever is next.
async fn rename_scope(connection: Connection, number: u32) -> Result<(), Status> {
    let mut names = ["write", "written"];
    names.rotate_left(number as usize % 2);
    let request = pb::RenameScopeRequest {
        realm: "demo".to_owned(),
        scope: names[0].to_owned(),
        new_name: names[1].to_owned(),
        ..Default::default()
    };
    match connection
        .call(RENAME_SCOPE, &request.encode_to_vec())
        .await
    {
        // Another call has renamed it, or is about to.
        Err(status) if [Code::NotFound, Code::FailedPrecondition].contains(&status.code()) => {
            Ok(())
        }
        answer => answer,
    }
}

fn get_usage(partner: &str) -> Vec<u8> {
    let request = pb::GetUsageRequest {
        realm: "demo".to_owned(),
        partner: partner.to_owned(),
        top: MOST,
        with_keys: true,
        ..Default::default()
    };
    request.encode_to_vec()
}

fn rotate_self() -> Vec<u8> {
    let request = pb::RotateSelfRequest {
        overlap: Some(prost_types::Duration {
            seconds: 3_600,
            nanos: 0,
        }),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// Rotates a key with its newest API key, and remembers the next one.
async fn rotate_newest(
    mut connection: Connection,
    newest: Arc<Mutex<String>>,
) -> Result<(), Status> {
    let mut newest = newest.lock().await;
    connection.key = Some(newest.clone());
    let rotated: pb::RotateSelfResponse = connection.ask(ROTATE_SELF, rotate_self()).await?;
    *newest = rotated.plain_key;
    Ok(())
}

fn rename(key_id: &str, number: u32) -> Vec<u8> {
    let request = pb::UpdateKeyRequest {
        key_id: key_id.to_owned(),
        update_mask: Some(prost_types::FieldMask {
            paths: strings(&["name"]),
        }),
        name: format!("number {number}"),
        ..Default::default()
    };
    request.encode_to_vec()
}

fn sha256(import: u32, entry: u32) -> Secret {
    let hash = Sha256::digest([import.to_be_bytes(), entry.to_be_bytes()].concat());
    Secret::Sha256(hex_of(&hash))
}

fn plain_key(import: u32, entry: u32) -> Secret {
    let Secret::Sha256(hash) = sha256(import, entry) else {
        unreachable!()
    };
    Secret::PlainKey(format!("other_{hash}"))
}

fn entries_of(
    number: u32,
    count: u32,
    partner: &str,
    secret: fn(u32, u32) -> Secret,
) -> Vec<pb::ImportEntry> {
    let entry = |entry| pb::ImportEntry {
        partner: partner.to_owned(),
        ..import_entry_of(secret(number, entry))
    };
    (0..count).map(entry).collect()
}

/// An import of keys that no import with another number has.
fn import_of(number: u32, count: u32, partner: &str, secret: fn(u32, u32) -> Secret) -> Vec<u8> {
    let request = pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries: entries_of(number, count, partner, secret),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// An import of keys that no other import has. The server of the tests is not optimized: an import of a thousand keys would hold the
/// open change for seconds on a busy machine.
fn next_import(secret: fn(u32, u32) -> Secret) -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(100);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let entries = from_env("CLAVIGER_TEST_STARVE_IMPORT", 200) as u32;
    import_of(number, entries.min(MOST), "acme", secret)
}

fn revoke(key_id: String) -> Vec<u8> {
    let request = pb::RevokeKeyRequest {
        key_id,
        ..Default::default()
    };
    request.encode_to_vec()
}

/// Asks on one stream for the files that describe all services.
async fn reflect(connection: Connection) -> Result<(), Status> {
    use reflection::server_reflection_request::MessageRequest::FileContainingSymbol;
    let mut client =
        reflection::server_reflection_client::ServerReflectionClient::new(connection.channel);
    let request = reflection::ServerReflectionRequest {
        message_request: Some(FileContainingSymbol("claviger.v1.KeyAdmin".to_owned())),
        ..Default::default()
    };
    let requests = tokio_stream::iter(vec![request; 4]);
    let mut answers = client.server_reflection_info(requests).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

/// Watches the health of the server until it is told.
async fn watch(connection: Connection) -> Result<(), Status> {
    let mut client = HealthClient::new(connection.channel);
    let request = HealthCheckRequest::default();
    let mut told = client.watch(request).await?.into_inner();
    told.message().await.map(drop)
}

/// A call with headers as large as they may be.
async fn large_headers(connection: Connection) -> Result<(), Status> {
    let mut request = connection.request(Encoded::new(Vec::new()));
    let large = "x".repeat(7_000).parse().unwrap();
    request.metadata_mut().insert("x-large", large);
    connection
        .send::<Encoded<()>>(GET_KEY, request)
        .await
        .map(drop)
}

/// Asks as many questions on a stream as a batch may have.
async fn verify_stream(connection: Connection, question: pb::VerifyRequest) -> Result<(), Status> {
    let question = pb::VerifyStreamRequest {
        request: Some(question),
    };
    let questions = tokio_stream::iter(vec![question; BATCH]);
    let request = connection.request(questions);
    let mut client = KeyVerifyClient::new(connection.channel);
    let mut answers = client.verify_stream(request).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

fn entries(number: u32, count: u32, partner: &str) -> Vec<pb::ImportEntry> {
    entries_of(number, count, partner, sha256)
}
