//! Servers that share a database have its time, whatever the clocks of the machines do.
//!
//! The clock of a real PostgreSQL is set here by a function that stands before its own in the search path.

use std::sync::Arc;

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;

use crate::fixtures::{
    Api, Database, Engine, NOW, SECOND, Service, TestStore, after, claviger, eventually,
    in_seconds, issue_request, proto_time, refused_by_state, refused_field, verify_request,
};

const HOUR: i64 = 3_600;

/// Lets the clock of a database be set.
pub(super) fn make_clock_settable(database: &Database) {
    database.execute(
        "CREATE SCHEMA wrong_clock;
         CREATE TABLE wrong_clock.ahead (seconds BIGINT);
         INSERT INTO wrong_clock.ahead VALUES (0);
         CREATE FUNCTION wrong_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
             'SELECT pg_catalog.clock_timestamp() + seconds * interval ''1 second'' FROM wrong_clock.ahead';
         GRANT USAGE ON SCHEMA wrong_clock TO PUBLIC;
         GRANT SELECT ON wrong_clock.ahead TO PUBLIC;
         DO $$ BEGIN
             EXECUTE format('ALTER DATABASE %I SET search_path = public, wrong_clock, pg_catalog', current_database());
         END $$;",
    );
}

pub(super) fn set_clock_of(database: &Database, seconds: i64) {
    database.execute(&format!("UPDATE wrong_clock.ahead SET seconds = {seconds}"));
}

async fn server(test_store: &Arc<TestStore>, operator: &str, name: &str) -> Service {
    let flags = ["--replica-name", name];
    Service::start_with(Arc::clone(test_store), Clock::system(), operator, &flags).await
}

/// How far the time of a server is ahead of the real time, in seconds, as its answers tell; `None` without a lease.
async fn ahead(api: &Api, key: &str) -> Option<i64> {
    let answer = api.clone().verify.verify(verify_request(key)).await;
    let as_of = answer.ok()?.into_inner().as_of.unwrap();
    let now = Clock::system().now().as_micros();
    Some((as_of.seconds * 1_000_000 + i64::from(as_of.nanos / 1_000) - now) / 1_000_000)
}

async fn is_ahead_by(api: &Api, key: &str, seconds: i64) {
    let what = format!("the server's time is {seconds} s ahead");
    eventually(&what, async || {
        let off = ahead(api, key).await? - seconds;
        (off.abs() <= 2).then_some(())
    })
    .await;
}

/// Issues a key that expires then.
async fn issue_until(api: &Api, expire_time: prost_types::Timestamp) -> String {
    let request = pb::IssueKeyRequest {
        expire_time: Some(expire_time),
        ..issue_request()
    };
    let mut keys = api.keys.clone();
    keys.issue_key(request)
        .await
        .unwrap()
        .into_inner()
        .plain_key
}

/// The warnings of all servers; `None` while the lease has ended because the clock was set.
async fn warnings(api: &Api) -> Option<Vec<String>> {
    let request = pb::ListReplicasRequest {};
    let listed = api.authority.clone().list_replicas(request).await.ok()?;
    let replicas = listed.into_inner().replicas.into_iter();
    Some(replicas.map(|replica| replica.warning).collect())
}

async fn set_clock(
    api: &Api,
    time: prost_types::Timestamp,
) -> Result<tonic::Response<pb::SetClockResponse>, tonic::Status> {
    let request = pb::SetClockRequest {
        time: Some(time),
        ..Default::default()
    };
    api.authority.clone().set_clock(request).await
}

/// Seen red with the machine's clock instead of one that follows the database, with a time at the start that is not ahead of the database's
/// clock, and with a time that stays ahead when the database's clock has been corrected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_clock_is_set_back_makes_no_expired_key_valid_again() {
    let test_store = TestStore::on(Engine::Postgres);
    make_clock_settable(test_store.database());
    // The database's time is that of the authority, also if it differs from that of the machine.
    set_clock_of(test_store.database(), 5 * HOUR);
    let first = server(&test_store, "", "first").await;
    first.api().make_demo().await;
    let operator = first.operator.clone();
    let second = server(&test_store, &operator, "second").await;
    let (a, b) = (first.api(), second.api());
    let key = issue_until(&a, in_seconds(7 * 24 * HOUR)).await;
    let expired = issue_until(&a, in_seconds(5 * HOUR + 2)).await;
    for api in [&a, &b] {
        is_ahead_by(api, &key, 5 * HOUR).await;
        eventually("the key has expired", async || {
            (api.clone().verdict(&expired).await == Verdict::Expired).then_some(())
        })
        .await;
    }

    set_clock_of(test_store.database(), 4 * HOUR);
    eventually("every server warns", async || {
        let warnings = warnings(&a).await?;
        let warned = |text: &String| text.contains("ahead of the database's clock");
        (warnings.len() == 2 && warnings.iter().all(warned)).then_some(())
    })
    .await;
    for api in [&a, &b] {
        assert_eq!(api.clone().verdict(&expired).await, Verdict::Expired);
        is_ahead_by(api, &key, 5 * HOUR).await;
    }
    second.stop().await;
    first.stop().await;
    // As if the servers had been stopped for two hours.
    let passed = "UPDATE authority SET clock = clock - 7200000000";
    test_store.database().execute(passed);
    let first = server(&test_store, &operator, "first").await;
    let second = server(&test_store, &operator, "second").await;
    let (a, b) = (first.api(), second.api());
    for api in [&a, &b] {
        let off = ahead(api, &key).await.unwrap() - 5 * HOUR;
        assert!(off.abs() <= 2, "{off} s after the start");
        assert_eq!(api.clone().verdict(&expired).await, Verdict::Expired);
    }

    // The time of a database that was corrected is the right one.
    set_clock_of(test_store.database(), 5 * HOUR);
    eventually("no server warns", async || {
        warnings(&a)
            .await?
            .iter()
            .all(String::is_empty)
            .then_some(())
    })
    .await;
    for api in [&a, &b] {
        is_ahead_by(api, &key, 5 * HOUR).await;
    }
    eventually("the stored time follows", async || {
        let ahead = test_store
            .database()
            .ask("SELECT clock_ahead < 5000000 FROM authority");
        (ahead.trim() == "t").then_some(())
    })
    .await;
    second.stop().await;
    first.stop().await;
}

/// Seen red with clocks that keep their mark when the time is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_was_far_ahead_is_set_back_without_a_stop() {
    let test_store = TestStore::on(Engine::Postgres);
    make_clock_settable(test_store.database());
    let first = server(&test_store, "", "first").await;
    first.api().make_demo().await;
    let operator = first.operator.clone();
    let second = server(&test_store, &operator, "second").await;
    let (a, b) = (first.api(), second.api());
    let key = issue_until(&a, in_seconds(HOUR / 2)).await;

    set_clock_of(test_store.database(), HOUR);
    for api in [&a, &b] {
        eventually("the key looks expired", async || {
            // The lease ends for a moment.
            let answer = api.clone().verify.verify(verify_request(&key)).await;
            answer
                .is_ok_and(|answer| answer.get_ref().verdict() == Verdict::Expired)
                .then_some(())
        })
        .await;
    }
    let real = || proto_time(Clock::system().now());
    // While the database's clock is wrong, the time cannot be set to it.
    let refused = refused_by_state(set_clock(&a, real()).await);
    assert_eq!(refused.reason, "CLOCK_DISAGREES");
    refused_field(
        a.authority
            .clone()
            .set_clock(pb::SetClockRequest::default())
            .await,
        "time",
    );

    set_clock_of(test_store.database(), 0);
    issue_until(&b, in_seconds(2 * HOUR)).await;
    assert_eq!(b.clone().verdict(&key).await, Verdict::Expired);
    let endpoint = format!("http://{}", first.address);
    let mut command = claviger(&["replicas", "set-clock", "--yes", "--endpoint", &endpoint]);
    command.env("CLAVIGER_KEY", &operator);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("Set the time from "), "{said}");
    // A change on a server that does not know it yet.
    issue_until(&b, in_seconds(2 * HOUR)).await;
    for api in [&a, &b] {
        eventually("the key is valid again", async || {
            (api.clone().verdict(&key).await == Verdict::Allowed).then_some(())
        })
        .await;
        is_ahead_by(api, &key, 0).await;
    }
    let stored = "SELECT abs(clock / 1000000 - extract(epoch FROM pg_catalog.clock_timestamp())) < 60 FROM authority";
    assert_eq!(test_store.database().ask(stored).trim(), "t");
    let again = set_clock(&b, real()).await.unwrap().into_inner();
    let head = set_clock(&a, real()).await.unwrap().into_inner();
    assert_eq!(again.revision, head.revision, "nothing had to change");
    second.stop().await;
    first.stop().await;
}

/// Seen red with a clock that keeps its mark.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_an_embedded_database_is_set_back_without_a_stop() {
    let clock = Clock::manual(NOW);
    let service = Service::start_with(TestStore::on(Engine::Sqlite), clock.clone(), "", &[]).await;
    let mut api = service.api();
    api.make_demo().await;
    let key = issue_until(&api, proto_time(after(HOUR / 2 * SECOND))).await;
    clock.set(after(HOUR * SECOND));
    api.issue().await;
    assert_eq!(api.verdict(&key).await, Verdict::Expired);
    clock.set(NOW);
    assert_eq!(api.verdict(&key).await, Verdict::Expired);

    let now = proto_time(NOW);
    let answer = set_clock(&api, now).await.unwrap().into_inner();
    assert_eq!(answer.time.unwrap(), now);
    assert!(answer.time_before.unwrap().seconds >= now.seconds + HOUR);
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);
    api.issue().await;
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);
    service.stop().await;
}
