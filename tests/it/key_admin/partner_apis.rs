//! The management operations that the documents of the four partner APIs name, as calls of `KeyAdmin` with a `manage` key of the
//! realm, and with the fields that the documents promise. `examples/README.md` has the same as a table.
//!
//! The server of an API passes on the key ids that its clients name. So each call that names a key has the client's partner as
//! `if_partner`, and is first made for another partner.

use std::sync::Arc;

use claviger::domain::ids::KeyId;
use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use pb::verify_request::Target;
use pb::{KeyState, Verdict};
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::fixtures::{
    Api, Engine, IssuedKey, Program, TestStore, authority_key_request, events_of, eventually, get,
    hex_of, import_into, in_seconds, issue, put_partner_realms, refused, seconds, strings,
};

/// The server of an API, which manages the keys of its clients. The client is `acme`.
struct ApiServer {
    /// With the key that holds `manage` for the realm.
    api: Api,
    root: Api,
    realm: &'static str,
    _program: Program,
    _test_store: Arc<TestStore>,
}

/// Makes a call about a key of `acme`. The same call for `umbrella` comes first: it must find no key and change nothing.
macro_rules! call {
    ($server:expr, $method:ident, $request:expr) => {{
        let mut request = $request;
        let before = $server.state(&request.key_id).await;
        "umbrella".clone_into(&mut request.if_partner);
        let refusal = refused($server.api.keys.$method(request.clone()).await);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::NotFound, "NOT_FOUND")
        );
        assert_eq!($server.state(&request.key_id).await, before);
        "acme".clone_into(&mut request.if_partner);
        $server
            .api
            .keys
            .$method(request)
            .await
            .unwrap()
            .into_inner()
    }};
}

impl ApiServer {
    async fn of(realm: &'static str) -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, &["--usage-interval", "100ms"]);
        let mut root = program.api();
        put_partner_realms(&program, &mut root).await;
        let manager = issue(&mut root, authority_key_request("manage", realm)).await;
        Self {
            api: root.with_key(&manager.plain_key),
            root,
            realm,
            _program: program,
            _test_store: test_store,
        }
    }

    /// Issues a key in the realm.
    async fn issue(&mut self, request: pb::IssueKeyRequest) -> IssuedKey {
        let realm = self.realm.to_owned();
        issue(&mut self.api, pb::IssueKeyRequest { realm, ..request }).await
    }

    /// The keys of a partner that the filter lets through.
    async fn list(&mut self, partner: &str, filter: pb::KeyFilter) -> Vec<pb::Key> {
        let request = pb::ListKeysRequest {
            filter: Some(pb::KeyFilter {
                realm: self.realm.to_owned(),
                partner: partner.to_owned(),
                ..filter
            }),
            ..Default::default()
        };
        self.api
            .keys
            .list_keys(request)
            .await
            .unwrap()
            .into_inner()
            .keys
    }

    /// The keys of `acme`.
    async fn keys(&mut self) -> Vec<pb::Key> {
        self.list("acme", pb::KeyFilter::default()).await
    }

    /// What a call about the key could change: the key without its times of last use, and its events.
    async fn state(&mut self, key_id: &str) -> (pb::Key, Vec<String>) {
        let mut key = get(&mut self.root, key_id).await;
        key.last_used_time = None;
        for secret in &mut key.secrets {
            secret.last_used_time = None;
        }
        (key, events_of(&mut self.root, key_id).await)
    }

    /// Whether an API key is good for `acme`, in this environment and for this target.
    async fn verdict(
        &mut self,
        plain_key: &str,
        environment: &str,
        target: Option<Target>,
    ) -> Verdict {
        let question = pb::VerifyRequest {
            key: plain_key.to_owned(),
            realm: self.realm.to_owned(),
            environment: environment.to_owned(),
            partner: "acme".to_owned(),
            target,
            ..Default::default()
        };
        self.root
            .verify
            .verify(question)
            .await
            .unwrap()
            .into_inner()
            .verdict()
    }

    /// Revokes a key, which is then denied in this environment and for this target.
    async fn revoke(&mut self, key: &IssuedKey, environment: &str, target: Option<Target>) {
        assert_eq!(
            self.verdict(&key.plain_key, environment, target.clone())
                .await,
            Verdict::Allowed
        );
        let request = pb::RevokeKeyRequest {
            key_id: key.id.clone(),
            ..Default::default()
        };
        let revoked = call!(self, revoke_key, request).key.unwrap();
        assert_eq!(revoked.state(), KeyState::Revoked);
        assert!(revoked.revoke_time.is_some());
        assert_eq!(
            self.verdict(&key.plain_key, environment, target).await,
            Verdict::Revoked
        );
        let listed = self.keys().await;
        let listed = listed.iter().find(|listed| listed.id == key.id).unwrap();
        assert_eq!(listed.state(), KeyState::Revoked);
    }

    /// Deletes a key: it is then unknown, and not listed any more.
    async fn delete(&mut self, key_id: &str) {
        let request = pb::DeleteKeyRequest {
            key_id: key_id.to_owned(),
            ..Default::default()
        };
        let deleted = call!(self, delete_key, request).key.unwrap();
        assert_eq!(deleted.id, key_id);
        assert!(self.keys().await.iter().all(|key| key.id != key_id));
    }
}

fn project(id: &str) -> Target {
    Target::Project(id.to_owned())
}

/// Seen red with the `expire_time` left out of the answer, and with `if_partner` ignored in `visible`, as each test here.
#[tokio::test]
async fn peaka_creates_a_projects_key_with_a_name_and_perhaps_an_end() {
    let mut server = ApiServer::of("peaka").await;
    // Only the project is in the path of the request. It names the partner.
    let request = pb::IssueKeyRequest {
        project: "mtKDhe1U".to_owned(),
        name: "dashboard".to_owned(),
        ..Default::default()
    };
    let issued = server.issue(request.clone()).await;
    let (key, api_key) = (&issued.key, &issued.plain_key);
    assert_eq!(
        (key.partner.as_str(), key.project.as_str()),
        ("acme", "mtKDhe1U")
    );
    assert_eq!(key.name, "dashboard");
    assert_eq!(key.level(), pb::KeyLevel::Project);
    assert_eq!(key.expire_time, None, "without expiresAt it never expires");
    assert!(KeyId::parse(&key.id).is_ok(), "apiKeyId is a UUID");
    assert!(
        api_key.starts_with("peaka_live_"),
        "apiKey is the full value"
    );
    assert_eq!(
        server.verdict(api_key, "", Some(project("mtKDhe1U"))).await,
        Verdict::Allowed
    );
    assert_eq!(
        server.verdict(api_key, "", Some(project("nQ2vXs8B"))).await,
        Verdict::ProjectMismatch
    );

    let end = in_seconds(86_400);
    let ending = pb::IssueKeyRequest {
        expire_time: Some(end),
        ..request.clone()
    };
    assert_eq!(server.issue(ending).await.key.expire_time, Some(end));

    // The full value is shown once: what is listed has a hint.
    let listed = server.keys().await;
    assert_eq!(listed.len(), 2);
    assert!(!format!("{listed:?}").contains(api_key));

    // A client creates no key in a project of another one.
    let realm = "peaka".to_owned();
    let foreign = pb::IssueKeyRequest {
        realm,
        partner: "umbrella".to_owned(),
        ..request
    };
    assert_eq!(
        refused(server.api.keys.issue_key(foreign).await).code,
        Code::NotFound
    );

    server.revoke(&issued, "", Some(project("mtKDhe1U"))).await;
    server.delete(&issued.id).await;
}

/// The document names the two types and leaves the management of partner keys to another page.
///
/// Seen red with a realm that allows only project keys.
#[tokio::test]
async fn peaka_creates_a_partners_key_that_reaches_every_project() {
    let mut server = ApiServer::of("peaka").await;
    let request = pb::IssueKeyRequest {
        partner: "acme".to_owned(),
        level: pb::KeyLevel::Partner.into(),
        ..Default::default()
    };
    let issued = server.issue(request).await;
    assert_eq!(
        (issued.key.level(), issued.key.project.as_str()),
        (pb::KeyLevel::Partner, "")
    );
    for target in [None, Some(project("mtKDhe1U")), Some(project("nQ2vXs8B"))] {
        assert_eq!(
            server.verdict(&issued.plain_key, "", target).await,
            Verdict::Allowed
        );
    }
    server.revoke(&issued, "", None).await;
}

/// Seen red with an import without the external id, and with a list that does not look at `filter.external_id`.
#[tokio::test]
async fn peaka_takes_over_its_keys_and_clients_name_them_by_their_old_ids() {
    const API_KEY: &str = "TtgGcQFq.s3fzROFoop8uHG4pS2LYhoqn1rLb6oW6";
    const API_KEY_ID: &str = "21fd1a8d-88d5-4295-b792-5b2113138057";
    const HASHED: &str = "qPw7ZxKd.Vb9LmR2cT4yHjU8sNf1GaE6kXo3DiQ5W";
    const HASHED_ID: &str = "7c0e4f52-0b1d-4e8a-9a57-3f6d2c81be90";
    let mut server = ApiServer::of("peaka").await;
    let end = in_seconds(86_400);
    let of_project = pb::ImportEntry {
        secret: Some(Secret::PlainKey(API_KEY.to_owned())),
        project: "mtKDhe1U".to_owned(),
        name: "test".to_owned(),
        expire_time: Some(end),
        external_id: API_KEY_ID.to_owned(),
        ..Default::default()
    };
    let of_partner = pb::ImportEntry {
        secret: Some(Secret::Sha256(hex_of(&Sha256::digest(HASHED)))),
        partner: "acme".to_owned(),
        level: pb::KeyLevel::Partner.into(),
        external_id: HASHED_ID.to_owned(),
        ..Default::default()
    };
    let imported = import_into(&mut server.api, "peaka", vec![of_project, of_partner]).await;
    let ids: Vec<_> = imported.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        server.verdict(API_KEY, "", Some(project("mtKDhe1U"))).await,
        Verdict::Allowed
    );
    assert_eq!(server.verdict(HASHED, "", None).await, Verdict::Allowed);

    // The client sends its `apiKeyId`. The server finds the client's key, and no other client's.
    let by_id = |id: &str| pb::KeyFilter {
        external_id: id.to_owned(),
        ..Default::default()
    };
    let found = server.list("acme", by_id(API_KEY_ID)).await;
    let [key] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (key.id.as_str(), key.external_id.as_str()),
        (ids[0].as_str(), API_KEY_ID)
    );
    assert_eq!((key.name.as_str(), key.expire_time), ("test", Some(end)));
    assert_eq!(
        (key.partner.as_str(), key.project.as_str()),
        ("acme", "mtKDhe1U")
    );
    assert_eq!(server.list("umbrella", by_id(API_KEY_ID)).await, []);
    let found = server.list("acme", by_id(HASHED_ID)).await;
    assert_eq!((found.len(), &found[0].id), (1, &ids[1]));

    // Nobody gets the `apiKeyId` of another key.
    let second = pb::ImportEntry {
        secret: Some(Secret::PlainKey(HASHED.replace("Vb9", "aB8"))),
        partner: "umbrella".to_owned(),
        level: pb::KeyLevel::Partner.into(),
        external_id: API_KEY_ID.to_owned(),
        ..Default::default()
    };
    let refusal = import_into(&mut server.api, "peaka", vec![second])
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(refusal.reason, "EXTERNAL_ID_TAKEN");

    // Its holder gets a key of claviger's form when it wants one, and keeps the `apiKeyId`.
    let request = pb::RotateKeyRequest {
        key_id: ids[0].clone(),
        overlap: seconds(600),
        ..Default::default()
    };
    let rotated = call!(server, rotate_key, request);
    assert_eq!(rotated.key.unwrap().external_id, API_KEY_ID);
    for plain_key in [API_KEY, &rotated.plain_key] {
        assert_eq!(
            server
                .verdict(plain_key, "", Some(project("mtKDhe1U")))
                .await,
            Verdict::Allowed
        );
    }
    let hashed = IssuedKey {
        id: ids[1].clone(),
        plain_key: HASHED.to_owned(),
        key: found[0].clone(),
    };
    server.revoke(&hashed, "", None).await;
    server.delete(&ids[0]).await;
    assert_eq!(
        server.verdict(API_KEY, "", Some(project("mtKDhe1U"))).await,
        Verdict::Unknown
    );
}

/// A key of Partna's client in this environment.
fn till(environment: &str) -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        partner: "acme".to_owned(),
        environment: environment.to_owned(),
        name: "till".to_owned(),
        ..Default::default()
    }
}

/// Seen red with keys that work in every environment, and with a revocation and a deletion that write nothing.
#[tokio::test]
async fn partna_generates_lists_shows_scopes_invalidates_and_deletes() {
    let mut server = ApiServer::of("partna").await;
    let staging = server.issue(till("staging")).await;
    let production = server.issue(till("production")).await;
    assert!(
        staging.plain_key.starts_with("partna_test_"),
        "staging shows in the key"
    );
    assert!(production.plain_key.starts_with("partna_live_"));
    assert_eq!(staging.key.level(), pb::KeyLevel::Partner);
    for (key, good, bad) in [
        (&staging, "staging", "production"),
        (&production, "production", "staging"),
    ] {
        assert_eq!(
            server.verdict(&key.plain_key, good, None).await,
            Verdict::Allowed
        );
        assert_eq!(
            server.verdict(&key.plain_key, bad, None).await,
            Verdict::EnvironmentMismatch
        );
    }

    let listed = server.keys().await;
    let told: Vec<_> = listed
        .iter()
        .map(|key| {
            (
                &key.id,
                key.name.as_str(),
                key.environment.as_str(),
                key.state(),
            )
        })
        .collect();
    let expected = [
        (&production.id, "till", "production", KeyState::Active),
        (&staging.id, "till", "staging", KeyState::Active),
    ];
    assert_eq!(told, expected);
    let last_four = &staging.plain_key[staging.plain_key.len() - 4..];
    assert_eq!(listed[1].hint, format!("partna_test_…{last_four}"));
    let of_staging = pb::KeyFilter {
        environment: "staging".to_owned(),
        ..Default::default()
    };
    assert_eq!(server.list("acme", of_staging).await.len(), 1);
    assert_eq!(server.list("umbrella", pb::KeyFilter::default()).await, []);

    let request = pb::GetKeyScopesRequest {
        key_id: staging.id.clone(),
        ..Default::default()
    };
    let scopes = call!(server, get_key_scopes, request);
    assert!(scopes.full_access, "a key is good for all of its account");
    assert_eq!(
        (scopes.granted, scopes.effective),
        (strings(&[]), strings(&[])),
        "the realm has no scopes"
    );

    server.revoke(&staging, "staging", None).await;
    server.delete(&staging.id).await;
    assert_eq!(
        server.verdict(&staging.plain_key, "staging", None).await,
        Verdict::Unknown
    );
    // An active key can be deleted too.
    server.delete(&production.id).await;
    assert_eq!(
        server
            .verdict(&production.plain_key, "production", None)
            .await,
        Verdict::Unknown
    );
    assert_eq!(server.keys().await, []);
}

/// Seen red with an overlap of zero.
#[tokio::test]
async fn partna_rotates_in_one_call_where_it_took_three_steps() {
    let mut server = ApiServer::of("partna").await;
    // As the document says it: a new key, then the update of the integration, then the end of the old key.
    let old = server.issue(till("production")).await;
    let new = server.issue(till("production")).await;
    assert_eq!(
        server.verdict(&new.plain_key, "production", None).await,
        Verdict::Allowed
    );
    server.revoke(&old, "production", None).await;
    assert_eq!(
        server.verdict(&new.plain_key, "production", None).await,
        Verdict::Allowed
    );

    let request = pb::RotateKeyRequest {
        key_id: new.id.clone(),
        overlap: seconds(86_400),
        ..Default::default()
    };
    let rotated = call!(server, rotate_key, request);
    let key = rotated.key.unwrap();
    assert_eq!(
        (&key.id, &key.name),
        (&new.id, &new.key.name),
        "the key stays the same"
    );
    let [old, newest] = key.secrets.as_slice() else {
        panic!("{key:?}")
    };
    assert!(old.expire_time.is_some() && newest.expire_time.is_none());
    // Both work while the integration is updated.
    for plain_key in [&new.plain_key, &rotated.plain_key] {
        assert_eq!(
            server.verdict(plain_key, "production", None).await,
            Verdict::Allowed
        );
    }
    let request = pb::EndRotationRequest {
        key_id: new.id,
        keep: pb::KeepSecret::New.into(),
        ..Default::default()
    };
    assert_eq!(
        call!(server, end_rotation, request)
            .key
            .unwrap()
            .secrets
            .len(),
        1
    );
    assert_eq!(
        server.verdict(&new.plain_key, "production", None).await,
        Verdict::Unknown
    );
    assert_eq!(
        server.verdict(&rotated.plain_key, "production", None).await,
        Verdict::Allowed
    );
}

/// Seen red with a realm whose `unscoped_keys` gives no access.
#[tokio::test]
async fn bullseye_creates_with_and_without_scopes_lists_and_revokes() {
    let mut server = ApiServer::of("bullseye").await;
    let request = pb::IssueKeyRequest {
        partner: "acme".to_owned(),
        name: "reports".to_owned(),
        ..Default::default()
    };
    let full = server.issue(request.clone()).await;
    assert!(
        full.key.full_access,
        "without explicit scopes it has full access"
    );
    assert!(
        full.plain_key.starts_with("bullseye_live_"),
        "plainKey is the full value"
    );
    assert_eq!(full.key.expire_time, None);
    let end = in_seconds(300);
    let mut keys = vec![full];
    for (scope, effective) in [
        ("read", strings(&["read"])),
        ("write", strings(&["read", "write"])),
        ("admin", strings(&["admin", "read", "write"])),
    ] {
        let request = pb::IssueKeyRequest {
            scopes: strings(&[scope]),
            expire_time: Some(end),
            ..request.clone()
        };
        let issued = server.issue(request).await;
        assert_eq!(
            (&issued.key.scopes, issued.key.full_access),
            (&strings(&[scope]), false)
        );
        assert_eq!(issued.key.expire_time, Some(end));
        let request = pb::GetKeyScopesRequest {
            key_id: issued.id.clone(),
            ..Default::default()
        };
        let scopes = call!(server, get_key_scopes, request);
        assert_eq!(
            (scopes.granted, scopes.effective),
            (strings(&[scope]), effective)
        );
        keys.push(issued);
    }

    let listed = server.keys().await;
    let ids = |keys: &mut dyn Iterator<Item = &String>| keys.cloned().collect::<Vec<_>>();
    assert_eq!(
        ids(&mut listed.iter().map(|key| &key.id)),
        ids(&mut keys.iter().rev().map(|key| &key.id))
    );
    for key in &keys {
        // `plainKey` is returned only once.
        assert!(!format!("{listed:?}").contains(&key.plain_key));
    }
    server.revoke(&keys[0], "", None).await;
    let active = pb::KeyFilter {
        states: vec![KeyState::Active.into()],
        ..Default::default()
    };
    assert_eq!(server.list("acme", active).await.len(), 3);

    // Periodically: a new secret for the same key, and the old one ends at once.
    let request = pb::RotateKeyRequest {
        key_id: keys[1].id.clone(),
        ..Default::default()
    };
    let rotated = call!(server, rotate_key, request);
    assert_eq!(
        server.verdict(&keys[1].plain_key, "", None).await,
        Verdict::Unknown
    );
    assert_eq!(
        server.verdict(&rotated.plain_key, "", None).await,
        Verdict::Allowed
    );
}

/// Seen red with a usage that counts every outcome as allowed.
#[tokio::test]
async fn bullseye_monitors_how_often_a_key_was_used_with_which_outcome_and_when_last() {
    let mut server = ApiServer::of("bullseye").await;
    let request = pb::IssueKeyRequest {
        partner: "acme".to_owned(),
        scopes: strings(&["read"]),
        ..Default::default()
    };
    let issued = server.issue(request).await;
    for scope in ["read", "read", "write"] {
        let question = pb::VerifyRequest {
            key: issued.plain_key.clone(),
            realm: "bullseye".to_owned(),
            scopes: strings(&[scope]),
            ..Default::default()
        };
        server.root.verify.verify(question).await.unwrap();
    }
    let request = pb::GetKeyUsageRequest {
        key_id: issued.id.clone(),
        ..Default::default()
    };
    let usage = eventually("the calls are written down", async || {
        let usage = call!(server, get_key_usage, request.clone());
        let count: u64 = usage.totals.iter().map(|total| total.count).sum();
        (count == 3).then_some(usage)
    })
    .await;
    let by_count = |counts: &[pb::VerdictCount]| {
        let mut counts: Vec<_> = counts
            .iter()
            .map(|each| (each.verdict(), each.count))
            .collect();
        counts.sort_by_key(|(_, count)| *count);
        counts
    };
    assert_eq!(
        by_count(&usage.totals),
        [(Verdict::ScopeMissing, 1), (Verdict::Allowed, 2)]
    );
    let of_hours: u64 = usage
        .buckets
        .iter()
        .flat_map(|hour| &hour.counts)
        .map(|each| each.count)
        .sum();
    assert_eq!(of_hours, 3, "the hours have the same");
    assert!(usage.last_used_time.is_some());

    // A compromised key is revoked immediately.
    server.revoke(&issued, "", None).await;
}

/// Seen red with a realm that also allows partner keys.
#[tokio::test]
async fn partnero_creates_a_key_of_one_program_for_each_environment() {
    let mut server = ApiServer::of("partnero").await;
    let mut keys = Vec::new();
    for (environment, tag) in [
        ("development", "dev"),
        ("staging", "test"),
        ("production", "live"),
    ] {
        // The program names the partner.
        let request = pb::IssueKeyRequest {
            project: "mtKDhe1U".to_owned(),
            environment: environment.to_owned(),
            name: format!("shop, {environment}"),
            ..Default::default()
        };
        let issued = server.issue(request).await;
        assert_eq!(
            (issued.key.partner.as_str(), issued.key.project.as_str()),
            ("acme", "mtKDhe1U")
        );
        assert_eq!(
            issued.key.name,
            format!("shop, {environment}"),
            "a descriptive name"
        );
        assert!(issued.plain_key.starts_with(&format!("partnero_{tag}_")));
        let own = Some(Target::OwnProject(true));
        assert_eq!(
            server.verdict(&issued.plain_key, environment, own).await,
            Verdict::Allowed
        );
        let other = server
            .verdict(&issued.plain_key, environment, Some(project("nQ2vXs8B")))
            .await;
        assert_eq!(
            other,
            Verdict::ProjectMismatch,
            "a key is scoped to one program"
        );
        keys.push((issued, environment));
    }
    let without = pb::IssueKeyRequest {
        realm: "partnero".to_owned(),
        partner: "acme".to_owned(),
        environment: "production".to_owned(),
        ..Default::default()
    };
    let refusal = refused(server.api.keys.issue_key(without).await);
    assert!(
        refusal.names_field("project"),
        "each key belongs to a program: {refusal:?}"
    );
    let of_program = pb::KeyFilter {
        project: "mtKDhe1U".to_owned(),
        ..Default::default()
    };
    assert_eq!(server.list("acme", of_program).await.len(), 3);

    // Regularly: a new key, and the old one is revoked. Or one rotation of the same key.
    let (production, environment) = keys.pop().unwrap();
    let request = pb::RotateKeyRequest {
        key_id: production.id.clone(),
        overlap: seconds(600),
        ..Default::default()
    };
    let rotated = call!(server, rotate_key, request);
    let own = Some(Target::OwnProject(true));
    for plain_key in [&production.plain_key, &rotated.plain_key] {
        assert_eq!(
            server.verdict(plain_key, environment, own.clone()).await,
            Verdict::Allowed
        );
    }
    for (key, environment) in &keys {
        server.revoke(key, environment, own.clone()).await;
    }
}
