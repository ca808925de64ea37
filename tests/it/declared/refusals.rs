//! States that are refused as a whole.

use std::iter;

use claviger::hashing::ImportHash;
use claviger::pb::claviger::v1 as pb;
use pb::{DeclaredKey, DeclaredKind, DeclaredState};
use tonic::Code;

use super::{apply, apply_request, key, partner, plan, project, realm};
use crate::fixtures::{
    Api, DemoService, Engine, MINUTE, after, import_entry, issue, issue_request, on_both_engines,
    proto_time, refused, rotate_request, strings,
};

const PLAIN_KEY: &str = "claviger-test-0123456789-abcdefghij";
const REVOKED: &str = "claviger-test-0123456789-abcdefghij-revoked";
const ROTATED: &str = "claviger-test-0123456789-abcdefghij-rotated";
const FOREIGN: &str = "claviger-test-0123456789-abcdefghij-foreign";

async fn revision(api: &mut Api) -> u64 {
    let listed = api
        .realms
        .list_realms(pb::ListRealmsRequest::default())
        .await;
    listed.unwrap().into_inner().revision
}

async fn get_demo(api: &mut Api) -> pb::Realm {
    let request = pb::GetRealmRequest {
        realm_id: "demo".to_owned(),
    };
    let got = api.realms.get_realm(request).await.unwrap().into_inner();
    let mut demo = got.realm.unwrap();
    (demo.revision, demo.create_time) = (0, None);
    demo
}

fn keys(keys: Vec<DeclaredKey>) -> DeclaredState {
    DeclaredState {
        keys,
        ..Default::default()
    }
}

/// States that contradict themselves or the demo, and the field that is wrong.
fn contradictions(demo: &pb::Realm) -> Vec<(DeclaredState, &'static str)> {
    let partners = |partners| DeclaredState {
        partners,
        ..Default::default()
    };
    let projects = |projects| DeclaredState {
        projects,
        ..Default::default()
    };
    let realms = |realms| DeclaredState {
        realms,
        ..Default::default()
    };
    let with_prefix = |id: &str, prefix: &str| pb::Realm {
        prefix: prefix.to_owned(),
        ..realm(id)
    };
    vec![
        (
            realms(vec![pb::Realm {
                prefix: "!".to_owned(),
                ..realm("new")
            }]),
            "realms[0].prefix",
        ),
        (
            realms(vec![realm("new"), realm("claviger")]),
            "realms[1].id",
        ),
        (realms(vec![realm("new"), realm("new")]), "realms[1].id"),
        (
            realms(vec![
                with_prefix("new", "other"),
                with_prefix("newer", "other"),
            ]),
            "realms[1].prefix",
        ),
        (
            realms(vec![demo.clone(), with_prefix("new", "demo")]),
            "realms[1].prefix",
        ),
        (
            partners(vec![partner("demo", "new"), partner("ghost", "new")]),
            "partners[1].realm",
        ),
        (
            partners(vec![partner("demo", "new"), partner("claviger", "new")]),
            "partners[1].realm",
        ),
        (
            partners(vec![partner("demo", "new"), partner("demo", "new")]),
            "partners[1].id",
        ),
        (partners(vec![partner("demo", "a b")]), "partners[0].id"),
        (
            projects(vec![
                project("demo", "acme", "new"),
                project("demo", "ghost", "newer"),
            ]),
            "projects[1].partner",
        ),
        (
            projects(vec![project("demo", "umbrella", "one")]),
            "projects[0].id",
        ),
        (
            projects(vec![project("claviger", "demo", "new")]),
            "projects[0].partner",
        ),
    ]
}

/// The same of keys.
fn contradictions_of_keys() -> Vec<(DeclaredState, &'static str)> {
    let with_sha256 = |sha256: &str| DeclaredKey {
        sha256: sha256.to_owned(),
        ..key("", "demo", "verify")
    };
    vec![
        (
            keys(vec![key(PLAIN_KEY, "ghost", "verify")]),
            "keys[0].partner",
        ),
        (keys(vec![key(PLAIN_KEY, "", "verify")]), "keys[0].partner"),
        (
            keys(vec![key(PLAIN_KEY, "demo", "operator")]),
            "keys[0].partner",
        ),
        (
            keys(vec![key(PLAIN_KEY, "demo", "ghost")]),
            "keys[0].scopes[0]",
        ),
        (
            keys(vec![DeclaredKey {
                scopes: vec![],
                ..key(PLAIN_KEY, "demo", "")
            }]),
            "keys[0].scopes",
        ),
        (keys(vec![with_sha256("abc")]), "keys[0].sha256"),
        (
            keys(vec![
                key(PLAIN_KEY, "demo", "verify"),
                key(PLAIN_KEY, "demo", "read"),
            ]),
            "keys[1].sha256",
        ),
        (keys(vec![key(REVOKED, "demo", "verify")]), "keys[0].sha256"),
        (keys(vec![key(ROTATED, "demo", "verify")]), "keys[0].sha256"),
        (keys(vec![key(FOREIGN, "demo", "verify")]), "keys[0].sha256"),
    ]
}

/// Makes keys whose API keys cannot be declared any more.
async fn make_used_keys(root: &mut Api) {
    let declared = keys(vec![
        key(REVOKED, "demo", "verify"),
        key(ROTATED, "demo", "verify"),
    ]);
    let made = apply(root, apply_request(declared)).await.unwrap();
    root.revoke(&made.changes[0].key_id).await.unwrap();
    let rotated = rotate_request(&made.changes[1].key_id, 0);
    root.keys.rotate_key(rotated).await.unwrap();
    let foreign = pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries: vec![import_entry(FOREIGN)],
        ..Default::default()
    };
    root.keys.import_keys(foreign).await.unwrap();
}

on_both_engines! {
    /// Seen red with partners of realms that do not exist.
    async fn what_contradicts_is_refused_as_a_whole_and_named(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        make_used_keys(root).await;
        let before = revision(root).await;
        let definition = get_demo(root).await;
        for (mut state, field) in contradictions(&definition).into_iter().chain(contradictions_of_keys()) {
            // Something that is right stands beside it.
            state.realms.push(realm("right"));
            state.partners.push(partner("right", "new"));
            for dry_run in [true, false] {
                let request = pb::ApplyRequest { dry_run, ..apply_request(state.clone()) };
                let refusal = refused(apply(root, request).await);
                assert_eq!(refusal.code, Code::InvalidArgument, "{field}: {refusal:?}");
                assert!(refusal.names_field(field), "{refusal:?} instead of {field}");
            }
        }
        assert_eq!(revision(root).await, before, "nothing was changed");
        demo.service.stop().await;
    }

    async fn what_keys_depend_on_neither_changes_nor_goes(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        issue(root, issue_request()).await;
        let definition = get_demo(root).await;
        let change = |change: fn(&mut pb::Realm)| {
            let mut realm = definition.clone();
            change(&mut realm);
            realm
        };
        let before = revision(root).await;
        for frozen in [
            change(|realm| "demos".clone_into(&mut realm.prefix)),
            change(|realm| "prod".clone_into(&mut realm.environments[0].tag)),
            change(|realm| drop(realm.environments.remove(0))),
            change(|realm| realm.scopes.retain(|scope| scope.name == "read")),
        ] {
            let state = DeclaredState { realms: vec![realm("new"), frozen], ..Default::default() };
            let answer = apply(root, apply_request(state)).await;
            let message = answer.as_ref().err().unwrap().message().to_owned();
            assert!(message.starts_with("realm \"demo\": "), "{message}");
            assert_eq!(refused(answer).reason, "STILL_HAS_KEYS");
        }
        for (kind, state) in [
            (DeclaredKind::Realm, DeclaredState::default()),
            (DeclaredKind::Partner, DeclaredState { realms: vec![definition.clone()], ..Default::default() }),
        ] {
            let request = pb::ApplyRequest { prune: vec![kind.into()], ..apply_request(state) };
            let refusal = refused(apply(root, request).await);
            assert_eq!(refusal.reason, "STILL_HAS_KEYS", "{kind:?}");
        }
        assert_eq!(revision(root).await, before, "nothing was changed");
        demo.service.stop().await;
    }

    /// Seen red without the check.
    async fn nobody_takes_its_own_role_away(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let declared = |scope: &str, partner: &str| keys(vec![key(PLAIN_KEY, partner, scope)]);
        apply(&mut demo.root, apply_request(declared("operator", ""))).await.unwrap();
        let mut own = demo.root.with_key(PLAIN_KEY);
        let only_reads = apply_request(declared("read", ""));
        let elsewhere = DeclaredKey { allowed_cidrs: strings(&["10.0.0.0/8"]), ..key(PLAIN_KEY, "", "operator") };
        let elsewhere = apply_request(keys(vec![elsewhere]));
        let deleted = pb::ApplyRequest { prune: vec![DeclaredKind::Key.into()], ..apply_request(DeclaredState::default()) };
        for request in [only_reads, elsewhere, deleted] {
            assert_eq!(plan(&mut own, &request).await.unwrap().changes.len(), 1);
            assert_eq!(refused(apply(&mut own, request.clone()).await).reason, "LOCKS_OUT_CALLER");
            // Another operator may, and the first one stays: nobody has declared it.
            apply(&mut demo.root, request).await.unwrap();
            apply(&mut demo.root, apply_request(declared("operator", ""))).await.unwrap();
        }
        demo.service.stop().await;
    }

    async fn a_key_is_given_no_more_than_its_declarer_has(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let bound = DeclaredKey { allowed_cidrs: strings(&["127.0.0.0/8"]), ..key(PLAIN_KEY, "", "operator") };
        apply(&mut demo.root, apply_request(keys(vec![bound]))).await.unwrap();
        let mut own = demo.root.with_key(PLAIN_KEY);
        let gateway = |cidrs: &[&str]| {
            let gateway = DeclaredKey { allowed_cidrs: strings(cidrs), ..key(FOREIGN, "demo", "verify") };
            apply_request(keys(vec![gateway]))
        };
        let refusal = refused(apply(&mut own, gateway(&[])).await);
        assert_eq!(refusal.code, Code::PermissionDenied, "{refusal:?}");
        apply(&mut own, gateway(&["127.0.0.0/16"])).await.unwrap();
        let refusal = refused(apply(&mut own, gateway(&[])).await);
        assert_eq!(refusal.code, Code::PermissionDenied, "{refusal:?}");
        apply(&mut own, gateway(&["127.0.0.0/24"])).await.unwrap();
        demo.service.stop().await;
    }

    /// Seen red with an end of the key alone.
    async fn an_earlier_end_is_also_that_of_a_secret_that_is_replaced(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let declared = |minutes: Option<i64>| {
            let expire_time = minutes.map(|minutes| proto_time(after(minutes * MINUTE)));
            apply_request(keys(vec![DeclaredKey { expire_time, ..key(PLAIN_KEY, "demo", "verify") }]))
        };
        let made = apply(root, declared(None)).await.unwrap();
        root.keys.rotate_key(rotate_request(&made.changes[0].key_id, 7200)).await.unwrap();
        apply(root, declared(Some(10))).await.unwrap();
        apply(root, declared(None)).await.unwrap();
        demo.clock.set(after(11 * MINUTE));
        let mut old = root.with_key(PLAIN_KEY);
        assert!(old.keys.get_self(pb::GetSelfRequest::default()).await.is_err());
        demo.service.stop().await;
    }

    async fn one_call_makes_a_bounded_number_of_changes(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let partners = |count| {
            let ids = iter::successors(Some(0), |id| Some(id + 1)).take(count);
            DeclaredState {
                partners: ids.map(|id| partner("demo", &format!("new-{id}"))).collect(),
                ..Default::default()
            }
        };
        let refusal = refused(apply(root, apply_request(partners(1_001))).await);
        assert_eq!(refusal.reason, "TOO_MANY_DIFFERENCES");
        let made = apply(root, apply_request(partners(1_000))).await.unwrap();
        assert_eq!(made.changes.len(), 1_000);
        let made = apply(root, apply_request(partners(1_001))).await.unwrap();
        assert_eq!(made.changes.len(), 1);
        demo.service.stop().await;
    }

    async fn nothing_is_applied_while_anything_is_held(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let sha256 = match engine {
            Engine::Sqlite => "x'00'",
            Engine::Postgres => "'\\x00'",
        };
        let hold = format!("INSERT INTO holds (epoch, held, sha256, hold) VALUES (1, 'x', {sha256}, '{{}}')");
        demo.service.test_store.execute_sql(&[&hold]).await;
        let request = apply_request(DeclaredState { realms: vec![realm("new")], ..Default::default() });
        for dry_run in [true, false] {
            let request = pb::ApplyRequest { dry_run, ..request.clone() };
            assert_eq!(refused(apply(&mut demo.root, request).await).reason, "HISTORY_REWRITTEN");
        }
        demo.service.stop().await;
    }

    /// The hash of an operator's key, for which the server must not see the API key.
    async fn the_built_in_realm_takes_hashes_from_operators_only(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let request = |secret, partner: &str, scope: &str| pb::ImportKeysRequest {
            realm: "claviger".to_owned(),
            entries: vec![pb::ImportEntry {
                secret: Some(secret),
                partner: partner.to_owned(),
                scopes: strings(&[scope]),
                ..Default::default()
            }],
            ..Default::default()
        };
        let hash = || pb::import_entry::Secret::Sha256(ImportHash::of(PLAIN_KEY).hex());
        let text = pb::import_entry::Secret::PlainKey(PLAIN_KEY.to_owned());
        let import = async |api: &mut Api, request| {
            let answer = api.keys.import_keys(request).await.map(tonic::Response::into_inner);
            answer.map(|mut answer| crate::fixtures::import_outcome(answer.results.remove(0)))
        };
        let manager = apply(&mut demo.root, apply_request(keys(vec![key(REVOKED, "demo", "manage")]))).await;
        manager.unwrap();
        let mut manager = demo.root.with_key(REVOKED);
        let refusal = refused(import(&mut manager, request(hash(), "demo", "verify")).await);
        assert_eq!(refusal.code, Code::PermissionDenied);
        let outcome = import(&mut demo.root, request(text, "", "operator")).await.unwrap();
        assert!(outcome.unwrap_err().names_field("plain_key"));
        import(&mut demo.root, request(hash(), "", "operator")).await.unwrap().unwrap();
        let mut own = demo.root.with_key(PLAIN_KEY);
        own.realms.list_realms(pb::ListRealmsRequest::default()).await.unwrap();
        demo.service.stop().await;
    }
}
