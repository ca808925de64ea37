//! A feed that finds very many changes applies each of them, and loads nothing anew.

use std::sync::Arc;

use claviger::domain::clock::Clock;
use claviger::mirror::Feed;

use crate::fixtures::{
    Engine, Service, eventually, from_env, issue, issue_request, on_both_engines,
};

/// Statements that copy the only key of `demo`, and that revoke or delete each copy in a change of its own.
struct Statements {
    copy: &'static str,
    end: &'static str,
}

/// Each engine makes up ids in its own way.
fn statements(engine: Engine) -> Statements {
    match engine {
        Engine::Sqlite => Statements {
            copy: "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < MANY),
                 ids (id, hex) AS MATERIALIZED (SELECT id, lower(hex(id)) FROM (SELECT randomblob(16) AS id FROM numbers))
             INSERT INTO keys (id, facts, revision)
             SELECT ids.id, replace(k.facts, 'ID', substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-' || substr(hex, 13, 4)
                 || '-' || substr(hex, 17, 4) || '-' || substr(hex, 21)), 1
             FROM (SELECT facts FROM keys WHERE realm = 'demo') AS k, ids",
            end: "INSERT INTO events (revision, stamp, time, peer, kind, realm, partner, key_id, detail)
             SELECT a.revision + row_number() OVER (), random(), a.clock, '',
                 CASE WHEN hex(k.id) < '8' THEN 'key.revoked' ELSE 'key.deleted' END, 'demo', 'acme', k.id, '{}'
             FROM keys AS k, authority AS a WHERE k.realm = 'demo' AND k.revision = 1;
             UPDATE keys SET facts = replace(facts, '\"revocation\":null', '\"revocation\":{\"at\":1,\"reason\":\"\"}')
                 WHERE realm = 'demo' AND revision = 1 AND hex(id) < '8';
             DELETE FROM keys WHERE realm = 'demo' AND revision = 1 AND hex(id) >= '8'",
        },
        Engine::Postgres => Statements {
            copy: "INSERT INTO keys (id, facts, revision)
             SELECT new, replace(facts, 'ID', new::text), 1
             FROM (SELECT facts, gen_random_uuid() AS new FROM keys, generate_series(1, MANY) WHERE realm = 'demo') AS many",
            end: "INSERT INTO events (revision, stamp, time, peer, kind, realm, partner, key_id, detail)
             SELECT a.revision + row_number() OVER (), (random() * 1e15)::bigint, a.clock, '',
                 CASE WHEN k.id::text < '8' THEN 'key.revoked' ELSE 'key.deleted' END, 'demo', 'acme', k.id, '{}'
             FROM keys AS k, authority AS a WHERE k.realm = 'demo' AND k.revision = 1;
             UPDATE keys SET facts = replace(facts, '\"revocation\":null', '\"revocation\":{\"at\":1,\"reason\":\"\"}')
                 WHERE realm = 'demo' AND revision = 1 AND id::text < '8';
             DELETE FROM keys WHERE realm = 'demo' AND revision = 1 AND id::text >= '8'",
        },
    }
}

on_both_engines! {
    /// Seen red with a full load when there are more than 10,000 new events.
    async fn any_number_of_changes_is_applied_without_a_full_load(engine: Engine) {
        let many = from_env("CLAVIGER_TEST_MANY", 100_000);
        let service = Service::start(engine).await;
        let operator = service.operator.clone();
        let mut api = service.api();
        api.make_demo().await;
        let key = issue(&mut api, issue_request()).await;
        let Statements { copy, end } = statements(engine);
        let copy = copy.replace("MANY", &many.to_string()).replace("ID", &key.id);
        service.test_store.execute_sql(&[&copy]).await;
        let test_store = service.stop().await;

        let service = Service::start_with(test_store, Clock::system(), &operator, &[]).await;
        let index = service.mirror.index().clone();
        assert!(index.len() > many, "{} keys", index.len());
        // All at once, so that the feed has them all before it.
        let end = format!(
            "BEGIN; {end}; UPDATE authority SET revision = revision + {many}, clock = clock + {many}; COMMIT"
        );
        service.test_store.execute_sql(&[&end]).await;
        let last = service.store.snapshot().await.unwrap().revision().await.unwrap();
        eventually("the feed has applied them", async || {
            (index.revision() == last).then_some(())
        })
        .await;
        assert!(Arc::ptr_eq(&index, &service.mirror.index()), "it was loaded anew");
        let mut fresh = Feed::new(service.store.clone(), Clock::system(), std::time::Duration::from_secs(1));
        fresh.load().await.unwrap();
        let loaded = fresh.mirror().index().clone();
        assert!((many / 3..2 * many / 3).contains(&loaded.len()), "about half were deleted");
        assert!(index.describe() == loaded.describe(), "the mirror differs from a fresh load");
        service.stop().await;
    }
}
