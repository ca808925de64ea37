//! The replicated database does to commits what one in production would.

use std::sync::Arc;

use crate::fixtures::{Database, ReplicatedDatabase, Replication, Traffic, eventually};

/// The numbers in the table of these tests.
fn numbers(database: &Database) -> String {
    let numbers = database.ask("SELECT string_agg(n::text, ' ' ORDER BY n) FROM numbers");
    numbers.trim().to_owned()
}

fn is_standby(database: &Database) -> bool {
    database.ask("SELECT pg_is_in_recovery()").trim() == "t"
}

/// Commits a number in the background, since the commit may wait.
fn insert(database: &Arc<ReplicatedDatabase>, number: u32) -> tokio::task::JoinHandle<bool> {
    let database = Arc::clone(database);
    let statement = format!("INSERT INTO numbers VALUES ({number})");
    tokio::task::spawn_blocking(move || database.primary.try_execute(&statement))
}

/// Waits until a session of the primary waits for the standby.
async fn a_commit_waits(database: &ReplicatedDatabase) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually("a commit waits for the standby", async || {
        (database.primary.ask(waits).trim() == "1").then_some(())
    })
    .await;
}

/// Seen red with `Replication::Asynchronous`: no commit then waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_on_the_synchronous_standby_when_it_is_answered() {
    let database = Arc::new(ReplicatedDatabase::start(Replication::Synchronous).await);
    database.primary.execute("CREATE TABLE numbers (n int)");
    for number in 1..=20 {
        assert!(insert(&database, number).await.unwrap());
    }
    let all = numbers(&database.primary);
    // The standby has them on its disk, and shows them a moment later.
    database.follows(Replication::Synchronous).await;
    assert_eq!(numbers(&database.standby), all);

    database.between.set(Traffic::Held);
    let commit = insert(&database, 21);
    a_commit_waits(&database).await;
    // A row for which a commit still waits is not shown, and nothing else is in the way of readers.
    assert_eq!(numbers(&database.primary), all);
    assert!(!commit.is_finished());
    database.between.set(Traffic::Flows);
    assert!(commit.await.unwrap(), "the commit is answered");
    assert!(numbers(&database.primary).ends_with(" 21"));
}

/// Seen red with `Replication::Asynchronous`: the old primary then commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_can_be_read_and_commits_nothing_without_its_synchronous_standby() {
    let database = Arc::new(ReplicatedDatabase::start(Replication::Synchronous).await);
    database.primary.execute("CREATE TABLE numbers (n int)");
    assert!(insert(&database, 1).await.unwrap());
    database.between.set(Traffic::Cut);
    let commit = insert(&database, 2);
    a_commit_waits(&database).await;
    database.promote();
    assert!(!is_standby(&database.standby));
    database
        .standby
        .execute("INSERT INTO numbers VALUES (3); INSERT INTO numbers VALUES (4)");
    assert_eq!(numbers(&database.standby), "1 3 4");
    assert_eq!(numbers(&database.primary), "1");
    // The network is whole again. The two stay apart: the promoted one does not follow.
    database.between.set(Traffic::Flows);
    assert_eq!(numbers(&database.primary), "1");
    assert!(!commit.is_finished());
    // It ends when the server does, and is there afterwards although nobody was told so.
    database.primary.cluster.crash();
    assert!(!commit.await.unwrap());
    database.primary.cluster.start_server();
    assert_eq!(numbers(&database.primary), "1 2");
}

/// Seen red without the cut: the standby then has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asynchronous_standby_that_was_cut_off_lacks_the_last_commits() {
    let database = ReplicatedDatabase::start(Replication::Asynchronous).await;
    let primary = &database.primary;
    primary.execute("CREATE TABLE numbers (n int); INSERT INTO numbers VALUES (1)");
    database.follows(Replication::Asynchronous).await;
    assert!(is_standby(&database.standby) && !is_standby(primary));
    database.between.set(Traffic::Cut);
    primary.execute("INSERT INTO numbers VALUES (2)");
    database.promote();
    database.standby.execute("INSERT INTO numbers VALUES (3)");
    assert_eq!(numbers(&database.standby), "1 3");
    assert_eq!(numbers(primary), "1 2");
    let timeline = "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";
    assert_eq!(primary.ask(timeline).trim(), "00000001");
    assert_eq!(database.standby.ask(timeline).trim(), "00000002");
}

/// Seen red without `suspend`, and with `suspend` in place of `suspend_sessions`: a new session is then not served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_server_says_nothing_until_it_is_resumed() {
    let database = Arc::new(ReplicatedDatabase::start(Replication::Asynchronous).await);
    database.primary.execute("CREATE TABLE numbers (n int)");
    let cluster = &database.primary.cluster;
    cluster.suspend();
    let commit = insert(&database, 1);
    // The standby is another host, and answers although its primary does not.
    for _ in 0..20 {
        assert!(is_standby(&database.standby));
        assert!(!commit.is_finished());
    }
    cluster.resume();
    assert!(commit.await.unwrap());

    let statement = "SELECT pg_sleep(0.5); INSERT INTO numbers VALUES (2)";
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let sleeping = Arc::clone(&database);
    let sleeping = tokio::task::spawn_blocking(move || sleeping.primary.try_execute(statement));
    eventually("a session sleeps", async || {
        (database.primary.ask(sleeps).trim() == "1").then_some(())
    })
    .await;
    cluster.suspend_sessions();
    assert!(
        insert(&database, 3).await.unwrap(),
        "a new session is served"
    );
    assert_eq!(numbers(&database.primary), "1 3");
    cluster.resume();
    assert!(sleeping.await.unwrap());
    assert_eq!(numbers(&database.primary), "1 2 3");
}

/// A crash loses nothing, and the standby finds its way back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_crashes_is_followed_again() {
    let database = ReplicatedDatabase::start(Replication::Synchronous).await;
    let primary = &database.primary;
    primary.execute("CREATE TABLE numbers (n int); INSERT INTO numbers VALUES (1)");
    primary.cluster.crash();
    assert!(!primary.try_execute("SELECT 1"));
    primary.cluster.start_server();
    database.follows(Replication::Synchronous).await;
    primary.execute("INSERT INTO numbers VALUES (2)");
    assert_eq!(numbers(primary), "1 2");
}
