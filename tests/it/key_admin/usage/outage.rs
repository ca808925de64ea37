//! Counts while the store cannot be written, over a stop, and over a crash.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};

use super::{WRITE_OFTEN, await_allowed, counts, totals, usage};
use crate::fixtures::{
    DemoService, Engine, Program, Service, TestStore, eventually, issue, issue_request,
    on_both_engines,
};

/// A transaction of another client that keeps the server from writing its counts.
enum Blockade {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Blockade {
    async fn on(test_store: &TestStore, engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let file = test_store.data().join("claviger.db");
                let options = SqliteConnectOptions::new().filename(file);
                let mut connection = options.connect().await.unwrap();
                let begin = sqlx::raw_sql("BEGIN IMMEDIATE");
                begin.execute(&mut connection).await.unwrap();
                Self::Sqlite(connection)
            }
            Engine::Postgres => {
                let url = test_store.database().url("postgres");
                let mut connection = PgConnection::connect(&url).await.unwrap();
                let begin = sqlx::raw_sql("BEGIN; LOCK TABLE usage IN EXCLUSIVE MODE");
                begin.execute(&mut connection).await.unwrap();
                Self::Postgres(connection)
            }
        }
    }

    async fn release(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }
}

on_both_engines! {
    /// Seen red with the backlog forgotten after a write that failed.
    async fn what_cannot_be_written_down_is_kept_and_hurts_no_verification(engine: Engine) {
        let flags = [&WRITE_OFTEN[..], &["--poll-interval", "1h", "--database-timeout", "300ms"]].concat();
        let service = Service::start_with(TestStore::on(engine), Clock::system(), "", &flags).await;
        let mut api = service.api();
        api.make_demo().await;
        let (id, plain_key) = issue(&mut api, issue_request()).await.into_parts();
        assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
        await_allowed(&mut api, &id, 1).await;

        // Somebody holds on to the table: on PostgreSQL until the writer gives up, again and again.
        let held = Blockade::on(&service.test_store, engine).await;
        for _ in 0..100 {
            assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
        }
        assert_eq!(totals(&mut api, &id).await[&Verdict::Allowed], 1);
        held.release().await;
        await_allowed(&mut api, &id, 101).await;

        // Nothing can be written at all, and is tried all the time.
        service.test_store.execute_sql(&["ALTER TABLE usage RENAME TO hidden"]).await;
        for _ in 0..3 {
            let tried = service.store.sessions();
            for _ in 0..50 {
                assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
            }
            eventually("it is tried again", async || {
                (service.store.sessions() > tried + 1).then_some(())
            })
            .await;
        }
        service.test_store.execute_sql(&["ALTER TABLE hidden RENAME TO usage"]).await;
        await_allowed(&mut api, &id, 251).await;
        service.stop().await;
    }

    async fn a_crash_loses_what_was_not_written_down_and_nothing_else(engine: Engine) {
        let test_store = TestStore::on(engine);
        let mut program = Program::serve(&test_store, &WRITE_OFTEN);
        let mut api = program.api();
        api.make_demo().await;
        let (id, plain_key) = issue(&mut api, issue_request()).await.into_parts();
        for _ in 0..300 {
            assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
        }
        await_allowed(&mut api, &id, 300).await;
        for _ in 0..200 {
            assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
        }
        program.kill();
        let program = Program::serve(&test_store, &WRITE_OFTEN);
        let mut api = program.api();
        let counted = totals(&mut api, &id).await[&Verdict::Allowed];
        assert!((300..=500).contains(&counted), "{counted}");
        // And it goes on from there.
        assert_eq!(api.verdict(&plain_key).await, Verdict::Allowed);
        await_allowed(&mut api, &id, counted + 1).await;
    }

    /// Seen red without the last writing down when the server stops.
    async fn what_was_counted_is_written_down_when_the_server_stops(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, issue_request()).await;
        for _ in 0..3 {
            root.ask(&key.plain_key).await;
        }
        let mut demo = demo.restarted().await;
        let told = usage(&mut demo.root, &key.id).await;
        assert_eq!(counts(&told.totals), BTreeMap::from([(Verdict::Allowed, 3)]));
        demo.root.ask(&key.plain_key).await;
        let mut demo = demo.restarted().await;
        let told = usage(&mut demo.root, &key.id).await;
        assert_eq!(counts(&told.totals), BTreeMap::from([(Verdict::Allowed, 4)]), "they add up");
        demo.service.stop().await;
    }
}

/// Seen red with the warning given each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_logged_once() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--usage-interval", "1ms"]);
    let mut api = program.api();
    api.make_demo().await;
    let (id, plain_key) = issue(&mut api, issue_request()).await.into_parts();
    let logged = |what: &str| {
        let log = String::from_utf8_lossy(&program.log.lock().unwrap()).into_owned();
        log.matches(what).count()
    };
    for outage in 1..=2 {
        test_store
            .execute_sql(&["ALTER TABLE usage RENAME TO hidden"])
            .await;
        let mut asked = 0;
        eventually("the outage is noticed", async || {
            asked += 1;
            api.verdict(&plain_key).await;
            (logged("usage not written") >= outage).then_some(())
        })
        .await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            api.verdict(&plain_key).await;
        }
        assert_eq!(logged("usage not written"), outage);
        test_store
            .execute_sql(&["ALTER TABLE hidden RENAME TO usage"])
            .await;
        eventually("the end of it is told", async || {
            (logged("usage written again") == outage).then_some(())
        })
        .await;
        assert!(totals(&mut api, &id).await[&Verdict::Allowed] >= asked);
    }
}
