//! Faults of the store and of its database.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::fixtures::{
    Engine, Pooler, Program, Proxy, ReplicatedDatabase, Replication, TestStore, Traffic,
    eventually, on_both_engines,
};

use super::{authority, examine, examine_with};

on_both_engines! {
    /// Seen red with every schema taken for the right one, without the look at holds, and with the recorded time left out.
    async fn a_store_that_needs_somebody_is_found(engine: Engine) {
        let test_store = authority(engine);
        let is_true = match engine { Engine::Sqlite => "1", Engine::Postgres => "TRUE" };
        let newer = format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (99, 'later', {is_true}, (SELECT checksum FROM _sqlx_migrations WHERE version = 1), 0)"
        );
        test_store.execute_sql(&[&newer]).await;
        let report = examine(&test_store, &[]);
        report.failed("schema", "version 99 of a newer claviger", "start the newer program");
        assert_eq!(report.check("peppers")["outcome"], "skipped");
        test_store.execute_sql(&[
            "DELETE FROM _sqlx_migrations WHERE version = 99",
            "UPDATE _sqlx_migrations SET version = -8 WHERE version = 8",
        ]).await;
        let restored = "UPDATE _sqlx_migrations SET version = 8 WHERE version = -8";
        // Sorted before the others, so that only the last is missing.
        let lacks = "DELETE FROM _sqlx_migrations WHERE version = -8";
        let kept = "CREATE TABLE kept AS SELECT * FROM _sqlx_migrations WHERE version = -8";
        test_store.execute_sql(&[kept, lacks]).await;
        examine(&test_store, &[]).warned("schema", "version 7, and this program needs 8", "claviger migrate");
        test_store.execute_sql(&["INSERT INTO _sqlx_migrations SELECT * FROM kept", "DROP TABLE kept", restored]).await;

        test_store.execute_sql(&[
            "INSERT INTO forks (epoch, last_revision) VALUES (1, 1)",
            match engine {
                Engine::Sqlite => "INSERT INTO holds (epoch, held, sha256, hold) VALUES (1, 'partner demo/acme', x'00', '{}')",
                Engine::Postgres => "INSERT INTO holds (epoch, held, sha256, hold) VALUES (1, 'partner demo/acme', '', '{}')",
            },
        ]).await;
        examine(&test_store, &[]).warned("holds", "1 thing held", "accept-history");
        test_store.execute_sql(&["DELETE FROM holds"]).await;

        match engine {
            Engine::Sqlite => {
                test_store.execute_sql(&["UPDATE authority SET clock = clock + 600000000"]).await;
                let report = examine(&test_store, &[]);
                report.failed("clock", "behind the latest time", "--trust-clock");
                test_store.execute_sql(&["UPDATE authority SET clock = clock - 590000000"]).await;
                examine(&test_store, &[]).warned("clock", "behind the latest time", "set the clock");
                test_store.execute_sql(&["UPDATE authority SET clock = clock - 10000000"]).await;
            }
            Engine::Postgres => {
                test_store.execute_sql(&["UPDATE authority SET clock_ahead = 600000000"]).await;
                let report = examine(&test_store, &[]);
                report.warned("clock", "ahead of the database's clock", "set-clock");
                test_store.execute_sql(&["UPDATE authority SET clock_ahead = 0"]).await;
            }
        }
        examine(&test_store, &[]).is_healthy(&["schema", "holds", "clock", "durability", "peppers"]);
    }
}

/// Overwrites the page in which a table begins.
async fn damage(test_store: &TestStore, table: &str) {
    let file = test_store.data().join("claviger.db");
    let options = SqliteConnectOptions::new().filename(&file);
    let mut connection = options.connect().await.unwrap();
    let (page, size): (i64, i64) = sqlx::query_as(
        "SELECT rootpage, (SELECT page_size FROM pragma_page_size()) FROM sqlite_schema WHERE name = $1",
    )
    .bind(table)
    .fetch_one(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let file = fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(&[0xaa; 512], ((page - 1) * size) as u64)
        .unwrap();
}

/// Seen red with every answer of the check taken for a good one, and without the look at the head of the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_changed_file_is_found() {
    let test_store = authority(Engine::Sqlite);
    let file = test_store.data().join("claviger.db");
    test_store
        .execute_sql(&["PRAGMA journal_mode = delete"])
        .await;
    examine(&test_store, &[]).warned("durability", "no write-ahead log", "restart the server");
    test_store.execute_sql(&["PRAGMA journal_mode = wal"]).await;
    damage(&test_store, "tombstones").await;
    examine(&test_store, &[]).failed(
        "integrity",
        "the database is damaged",
        "restore the database from its backup",
    );
    fs::write(&file, "junk ".repeat(1_000)).unwrap();
    let report = examine(&test_store, &[]);
    report.has(&["store"], &["durability"]);
    report.says(
        "store",
        "file is not a database",
        "Restore the database from its backup",
    );
    fs::write(&file, "").unwrap();
    let report = examine(&test_store, &[]);
    report.has(&["store", "durability"], &[]);
    report.says("store", "there is no authority", "--init");
    // As in a copy of a running server's files, without the index.
    fs::write(file.with_extension("db-wal"), "log").unwrap();
    examine(&test_store, &[]).says("store", "is there without", "Start the server");
}

/// A row of a server that has just sent a heartbeat.
fn replica(name: &str, version: &str, seconds_ago: i64, lease_left: i64, warning: &str) -> String {
    format!(
        "INSERT INTO replicas VALUES (gen_random_uuid()::text, '{name}', '{version}', 'serving', 1, 1, 1, {lease_left},
         (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - {seconds_ago} * 1000000, '{warning}')"
    )
}

/// Seen red for each with its judgement left out.
#[test]
fn what_the_rows_of_the_servers_tell_is_found() {
    let test_store = authority(Engine::Postgres);
    let database = test_store.database();
    let good = replica("one", "0.1.0", 0, 1_000_000, "");
    for (others, found, advice) in [
        (
            vec![replica("two", "0.2.0", 0, 1_000_000, "")],
            "different versions: 0.1.0, 0.2.0",
            "end the upgrade",
        ),
        (
            vec![replica("one", "0.1.0", 0, 1_000_000, "")],
            "two servers have the name one",
            "--replica-name",
        ),
        (
            vec![replica("two", "0.1.0", 100, 1_000_000, "")],
            "two has been silent for 1min 40s",
            "look whether it runs",
        ),
        (
            vec![replica("two", "0.1.0", 0, 1_000_000, "fsync is off")],
            "two warns: fsync is off",
            "docs/replicas.md",
        ),
        (
            vec![replica("two", "0.1.0", 0, 0, "")],
            "two has no lease",
            "look into its log",
        ),
    ] {
        database.execute(&[vec![good.clone()], others].concat().join(";"));
        examine(&test_store, &[]).warned("replicas", found, advice);
        database.execute("DELETE FROM replicas");
    }
    // More of them than the database allows connections for.
    let many: Vec<_> = (0..20)
        .map(|n| replica(&n.to_string(), "0.1.0", 0, 1_000_000, ""))
        .collect();
    database.execute(&many.join(";"));
    let report = examine(&test_store, &[]);
    report.failed("connections", "max_connections allows", "raise the limit");
}

/// Seen red for each with its judgement left out.
#[test]
fn settings_and_rights_of_the_database_are_found() {
    let test_store = authority(Engine::Postgres);
    let (database, name) = (test_store.database(), &test_store.database().name);
    for (setting, id, found, advice) in [
        (
            "synchronous_commit = off",
            "durability",
            "synchronous_commit=off",
            "refuses to start",
        ),
        (
            "default_transaction_read_only = on",
            "durability",
            "no heartbeat can be written",
            "set it off",
        ),
    ] {
        database.execute(&format!("ALTER DATABASE {name} SET {setting}"));
        examine(&test_store, &[]).failed(id, found, advice);
        let setting = setting.split(' ').next().unwrap();
        // By a session in which it is not in force.
        database.execute(&format!(
            "SET default_transaction_read_only = off; ALTER DATABASE {name} RESET {setting}"
        ));
    }
    let role = format!("server_of_{name}");
    let as_role = test_store.as_role(&role);
    let password = crate::fixtures::DATABASE_PASSWORD;
    database.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{password}' CONNECTION LIMIT 6;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    examine(&as_role, &[]).failed(
        "connections",
        "the role allows 6 connections, and 14 are needed (1 server)",
        "raise the limit",
    );
    database.execute(&format!(
        "ALTER ROLE {role} CONNECTION LIMIT -1; REVOKE UPDATE ON usage FROM {role}"
    ));
    examine(&as_role, &[]).failed("rights", "may not read and write usage", "GRANT");
    database.execute(&format!("REVOKE ALL ON authority FROM {role}"));
    examine(&as_role, &[]).failed("store", "permission denied", "Give the role its rights");
    // It writes nothing, so it needs no right to.
    database.execute(&format!(
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    examine(&as_role, &[]).failed("rights", "may not read and write authority, ", "GRANT");
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    examine(&test_store, &[]).is_healthy(&["rights", "durability", "connections"]);
}

/// Seen red with a pooler taken for the database, and with no limit on round trips.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_far_or_behind_a_pooler_is_found() {
    let test_store = authority(Engine::Postgres);
    let pepper = format!("--pepper-file={}", test_store.pepper().display());
    let with = |url: String| {
        let url = format!("--database-url={url}");
        tokio::task::block_in_place(|| examine_with(&[&url, &pepper]))
    };
    let report = with("postgres://claviger@127.0.0.1:1/claviger".to_owned());
    report.failed(
        "store",
        "the database cannot be reached",
        "Check that PostgreSQL runs",
    );
    assert_eq!(report.check("schema")["outcome"], "skipped");
    let pooler = Pooler::before(
        test_store.database(),
        "pool_mode = transaction\nignore_startup_parameters = extra_float_digits,options",
    );
    let report = with(test_store.database().url_at(pooler.address));
    report.failed(
        "store",
        "leads to a connection pooler",
        "connect to PostgreSQL directly",
    );

    let proxy = Proxy::to(test_store.database().cluster.socket()).await;
    let far = test_store.through(&proxy);
    let examine =
        |flags: &'static [&'static str]| tokio::task::block_in_place(|| examine(&far, flags));
    examine(&[]).is_healthy(&["latency"]);
    let lease = |millis: u32| {
        let set = format!("UPDATE authority SET lease = {millis}000, longest_lease = {millis}000");
        test_store.database().execute(&set);
    };
    proxy.set_delay(Duration::from_millis(30));
    lease(590);
    examine(&[]).warned(
        "latency",
        "the lease is 590ms, so heartbeats are late",
        "set-lease",
    );
    lease(170);
    examine(&[]).failed(
        "latency",
        "no heartbeat is answered in time",
        "nearer to its database",
    );
    lease(1_000);
    proxy.set_delay(Duration::ZERO);

    // A server that has lost its lease, while the database answers others.
    let program = tokio::task::block_in_place(|| Program::serve(&far, &["--replica-name=far"]));
    proxy.set(Traffic::Held);
    eventually("the lease has lapsed", async || {
        let log = String::from_utf8_lossy(&program.log.lock().unwrap()).into_owned();
        log.contains("lease lapsed").then_some(())
    })
    .await;
    let flags = [
        format!("--listen={}", program.address),
        format!("--http-listen={}", program.http),
    ];
    let flags = flags.each_ref().map(String::as_str);
    let report = tokio::task::block_in_place(|| super::examine(&test_store, &flags));
    assert_eq!(
        report.ids("failed"),
        ["listen", "http-listen"],
        "{}",
        report.text
    );
    report.says("listen", "NOT_SERVING", "look into its log");
    report.says("http-listen", "lease lapsed", "look into its log");
}

/// Seen red with every standby taken for a server that cannot be used, and for each with its judgement left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_the_database_that_cannot_be_used_are_found() {
    let database = ReplicatedDatabase::start(Replication::Asynchronous).await;
    let primary = TestStore::of(&database.primary);
    tokio::task::block_in_place(|| drop(Program::serve(&primary, &[])));
    fs::remove_file(primary.data().join("operator.key")).unwrap();
    database.primary.execute("DELETE FROM replicas");
    let examine_with = |flags: &[&str]| tokio::task::block_in_place(|| examine_with(flags));
    let pepper = format!("--pepper-file={}", primary.pepper().display());
    let url = |database: &crate::fixtures::Database| {
        format!("--database-url={}", database.url("postgres"))
    };
    let (first, second) = (url(&database.primary), url(&database.standby));

    let report = examine_with(&[&second, &pepper]);
    report.failed("store", "the server is a standby", "promote it");
    let report = examine_with(&[&first, &second, &pepper]);
    report.warned(
        "durability",
        "follow asynchronously",
        "set synchronous_standby_names",
    );
    database
        .primary
        .execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
    database.primary.execute("SELECT pg_reload_conf()");
    database.follows(Replication::Synchronous).await;
    examine_with(&[&first, &second, &pepper]).is_healthy(&["store", "durability"]);
    database.primary.execute(&format!(
        "ALTER DATABASE {} SET synchronous_commit = local",
        database.primary.name
    ));
    examine_with(&[&first, &pepper]).warned(
        "durability",
        "synchronous_commit=local",
        "synchronous_commit=on",
    );
    database.primary.execute(&format!(
        "ALTER DATABASE {} RESET synchronous_commit",
        database.primary.name
    ));

    let standby = Arc::clone(&database.standby);
    tokio::task::block_in_place(|| standby.cluster.crash());
    eventually("the standby is gone", async || {
        (database
            .primary
            .ask("SELECT count(*) FROM pg_stat_replication")
            .trim()
            == "0")
            .then_some(())
    })
    .await;
    let report = examine_with(&[&first, &second, &pepper, "--database-timeout=1s"]);
    report.has(&[], &["store", "durability"]);
    report.says("store", "cannot be used", "take it out of --database-url");
    report.says("durability", "no standby follows", "start the standby");
    database
        .primary
        .execute("ALTER SYSTEM RESET synchronous_standby_names");
    database.primary.execute("ALTER SYSTEM SET fsync = off");
    database.primary.execute("SELECT pg_reload_conf()");
    eventually("fsync is off", async || {
        (database.primary.ask("SHOW fsync").trim() == "off").then_some(())
    })
    .await;
    let report = examine_with(&[&first, &pepper]);
    report.failed("durability", "fsync=off", "set fsync=on");
}
