//! The rules that bulk revocations leave in the store: what they apply to, how many there are, and what it costs to read them.

use std::time::Duration;

use claviger::domain::event::Revision;
use claviger::pb::claviger::v1 as pb;
use pb::{KeyState, Verdict};

use crate::fixtures::{
    Api, DemoService, Engine, MINUTE, Service, TestStore, after, get, issue, issue_request,
    issue_request_with, list_in_states, on_both_engines, revoke_keys, time,
};

/// How many rules are stored.
async fn rules(service: &Service) -> usize {
    let mut snapshot = service.store.snapshot().await.unwrap();
    let all = snapshot.bulk_revocations(Revision::default()).await;
    all.unwrap().len()
}

async fn bulk_revocations(api: &mut Api) -> Vec<pb::Event> {
    let request = pb::ListEventsRequest {
        kind: "keys.revoked".to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    let listed = api.keys.list_events(request).await.unwrap();
    listed.into_inner().events
}

fn of_partner(partner: &str) -> impl FnOnce(&mut pb::RevokeKeysRequest) {
    let partner = partner.to_owned();
    move |keys| keys.filter.get_or_insert_default().partner = partner
}

on_both_engines! {
    /// A row of a key that cannot be read has no columns to find it by. Seen red with the rule written only if a key is found.
    async fn a_key_whose_row_cannot_be_read_is_revoked_too(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let key = issue(&mut demo.root, issue_request()).await;
        let break_rows = "UPDATE keys SET facts = replace(facts, '\"realm\"', '\"reaml\"') WHERE realm = 'demo'";
        let mend_rows = "UPDATE keys SET facts = replace(facts, '\"reaml\"', '\"realm\"')";
        demo.service.test_store.execute_sql(&[break_rows]).await;
        revoke_keys(&mut demo.root, |_| ()).await.unwrap();
        demo.service.test_store.execute_sql(&[mend_rows]).await;
        let mut demo = demo.restarted().await;
        assert_eq!(demo.root.verdict(&key.plain_key).await, Verdict::Revoked);
        assert_eq!(get(&mut demo.root, &key.id).await.state(), KeyState::Revoked);
        demo.service.stop().await;
    }

    /// Seen red with each call taken for a change, with none taken for one when there is a rule, and with all events looked at and not
    /// the first 1,000.
    async fn a_revocation_that_adds_nothing_is_no_change(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request()).await;
        let first = revoke_keys(root, |_| ()).await.unwrap();
        // Changes that bring no key into being.
        root.put_partner("umbrella", true).await;
        for narrower in ["", "acme", "umbrella"] {
            let again = revoke_keys(root, of_partner(narrower)).await.unwrap();
            assert!(again.revision > first.revision, "the revision of the state that was read");
        }
        assert_eq!((rules(&demo.service).await, bulk_revocations(root).await.len()), (1, 1));
        assert_eq!(get(root, &key.id).await.revoke_time, get(root, &key.id).await.revoke_time);

        // A key that was issued since is revoked.
        let later = issue(root, issue_request()).await;
        let other = issue(root, pb::IssueKeyRequest { partner: "umbrella".to_owned(), ..issue_request() }).await;
        revoke_keys(root, of_partner("acme")).await.unwrap();
        assert_eq!(root.verdict(&later.plain_key).await, Verdict::Revoked);
        assert_eq!(rules(&demo.service).await, 2);
        revoke_keys(root, |_| ()).await.unwrap();
        assert_eq!(get(root, &other.id).await.state(), KeyState::Revoked);
        // Also after more events than are looked at.
        for n in 0..1_000 {
            root.put_partner("umbrella", n % 2 == 0).await;
        }
        let last = issue(root, issue_request()).await;
        revoke_keys(root, |_| ()).await.unwrap();
        assert_eq!(root.verdict(&last.plain_key).await, Verdict::Revoked);
        demo.service.stop().await;
    }

    /// Seen red with the events after the rule's last revision looked at too, and with a first revision that is taken for deleted.
    async fn a_revocation_of_the_time_before_a_partner_had_keys_is_no_change(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let later = |minutes: i64| demo.clock.set(after(minutes * MINUTE));
        for minutes in 1..=5 {
            later(minutes);
            issue(root, issue_request()).await;
        }
        later(6);
        let late = issue(root, issue_request_with(|key| "umbrella".clone_into(&mut key.partner))).await;
        later(8);
        let mut revoke = async |minutes: i64| {
            let revoked = revoke_keys(root, |keys| {
                let filter = keys.filter.get_or_insert_default();
                "umbrella".clone_into(&mut filter.partner);
                filter.issued_before = time(minutes * MINUTE);
            });
            revoked.await.unwrap().revision
        };
        let before = revoke(1).await;
        for minutes in 2..=6 {
            assert_eq!(revoke(minutes).await, before, "{minutes}");
        }
        assert_eq!(rules(&demo.service).await, 0);
        assert_eq!(revoke(7).await, before + 1);
        assert_eq!(root.verdict(&late.plain_key).await, Verdict::Revoked);
        demo.service.stop().await;
    }

    /// Seen red without the deletion of the oldest, and with the newest deleted in its place.
    async fn however_many_rules_are_made_few_are_kept_and_all_stay_in_force(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let mut keys = Vec::new();
        for n in 0..40 {
            keys.push(issue(root, issue_request()).await);
            let revoked = revoke_keys(root, |keys| {
                keys.reason = format!("number {n}");
                "acme".clone_into(&mut keys.filter.get_or_insert_default().partner);
            });
            revoked.await.unwrap();
        }
        // Of another selection there is one.
        revoke_keys(root, |_| ()).await.unwrap();
        assert_eq!(rules(&demo.service).await, 17);
        let mut demo = demo.restarted().await;
        let root = &mut demo.root;
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(root.verdict(&key.plain_key).await, Verdict::Revoked, "{n}");
            let reason = get(root, &key.id).await.revoke_reason;
            assert_eq!(reason, format!("number {}", n.max(24)), "the first that is kept");
        }
        assert_eq!(list_in_states(root, "demo", &[KeyState::Revoked]).await.len(), keys.len());
        assert_eq!(bulk_revocations(root).await.len(), 41, "the audit trail has all");
        demo.service.stop().await;
    }
}

/// The plan of the statement was made when there were no rules, and is kept. Seen red with whole tables read where that seems cheap,
/// with the names of a rule looked for in
/// lists, and without the index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_keys_looks_at_few_rules_however_many_there_are() {
    const RULES: u64 = 51_000;
    let test_store = TestStore::on(Engine::Postgres);
    let demo = DemoService::in_store(test_store).await;
    let database = demo.service.test_store.database();
    database
        .execute("ALTER TABLE revocations SET (autovacuum_enabled = false); ANALYZE revocations");
    let mut root = demo.root.clone();
    let mut keys = Vec::new();
    for _ in 0..51 {
        let key = issue(&mut root, issue_request()).await;
        get(&mut root, &key.id).await;
        keys.push(key);
    }
    database.execute(&format!(
        "INSERT INTO revocations (revision, realm, partner, project, environment, before_revision, time, reason)
         SELECT -n, 'demo', 'partner-' || n, '', '', 1000000, 1, 'many' FROM generate_series(1, {RULES}) AS n"
    ));
    let rows_read = || -> u64 {
        let read = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'revocations'";
        database.ask(read).trim().parse().unwrap()
    };
    // A session reports what it has read at most once a second.
    let settled = async |root: &mut Api| {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            get(root, &keys[0].id).await;
        }
        rows_read()
    };
    let before = settled(&mut root).await;
    for key in &keys {
        get(&mut root, &key.id).await;
    }
    let listed = list_in_states(&mut root, "demo", &[KeyState::Active]).await;
    assert_eq!(listed.len(), keys.len());
    let read = settled(&mut root).await - before;
    assert!(read < 2_000, "{read} rows of rules were read");
    demo.service.stop().await;
}
