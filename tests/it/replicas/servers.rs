//! A server of claviger with several URLs, whose connections all lead to the primary.

use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use claviger::readiness::Readiness;
use pb::Verdict;

use crate::fixtures::{
    Api, DATABASE_PASSWORD, Database, Engine, Pooler, Program, Proxy, ReplicatedDatabase,
    Replication, Service, TestStore, Traffic, claviger, eventually, issue_request, outcome,
    verify_request,
};

const LEASE: Duration = Duration::from_secs(2);

/// What a busy machine may add to any of the times here.
const SLACK: Duration = Duration::from_secs(15);

/// The exit code of a configuration that cannot work.
const BAD_CONFIGURATION: i32 = 78;

/// A server whose database has a standby, with a network of its own to each of the two.
struct Failover {
    database: ReplicatedDatabase,
    to_primary: Proxy,
    to_standby: Proxy,
    service: Service,
    /// A key that was issued before anything failed.
    key: pb::IssueKeyResponse,
}

impl Failover {
    /// The URL of the primary is listed first.
    async fn start(replication: Replication) -> Self {
        let database = ReplicatedDatabase::start(replication).await;
        let to_primary = Proxy::to(database.primary.cluster.socket()).await;
        let to_standby = Proxy::to(database.standby.cluster.socket()).await;
        let test_store = TestStore::of(&database.primary).through(&to_primary);
        let founder = server(&test_store, "", &[]).await;
        founder.api().make_demo().await;
        let operator = founder.operator.clone();
        founder.stop().await;
        let micros = LEASE.as_micros();
        database.primary.execute(&format!(
            "UPDATE authority SET lease = {micros}, longest_lease = {micros}"
        ));
        let second = url_flag(&database.standby, &to_standby);
        let service = server(&test_store, &operator, &[&second]).await;
        let key = service.api().issue().await;
        database.follows(replication).await;
        Self {
            database,
            to_primary,
            to_standby,
            service,
            key,
        }
    }

    async fn promote(&self) {
        let standby = Arc::clone(&self.database.standby.cluster);
        tokio::task::spawn_blocking(move || standby.promote())
            .await
            .unwrap();
    }

    /// Waits until the server serves from the new primary, with everything it does.
    async fn serves_from_the_new_primary(&self) {
        let issued = eventually("a key is issued at the new primary", async || {
            let answer = self.service.api().keys.issue_key(issue_request()).await;
            let issued = answer.ok()?.into_inner();
            let id = &issued.key.as_ref()?.id;
            let there = format!("SELECT count(*) FROM keys WHERE id = '{id}'");
            (self.database.standby.ask(&there).trim() == "1").then_some(issued)
        })
        .await;
        for key in [&self.key, &issued] {
            is_allowed(&mut self.service.api(), &key.plain_key).await;
        }
        eventually("the server is ready", async || {
            (*self.service.readiness.borrow() == Readiness::Ready).then_some(())
        })
        .await;
    }

    /// Waits until no connection leads to the old primary, except those whose commit waits there for its standby.
    async fn left_the_old_primary(&self) {
        let sessions = "SELECT count(*) FROM pg_stat_activity
                        WHERE application_name = 'claviger' AND wait_event IS DISTINCT FROM 'SyncRep'";
        eventually("no connection is left", async || {
            (self.database.primary.ask(sessions).trim() == "0").then_some(())
        })
        .await;
    }
}

async fn server(test_store: &Arc<TestStore>, operator: &str, flags: &[&str]) -> Service {
    let flags = [&["--database-timeout", "500ms"], flags].concat();
    Service::start_with(Arc::clone(test_store), Clock::system(), operator, &flags).await
}

fn url_flag(database: &Database, proxy: &Proxy) -> String {
    format!("--database-url={}", database.url_at(proxy.address))
}

async fn is_allowed(api: &mut Api, key: &str) {
    eventually("the key is allowed", async || {
        let answer = api.verify.verify(verify_request(key)).await;
        let is_allowed = answer.is_ok_and(|answer| answer.get_ref().verdict() == Verdict::Allowed);
        is_allowed.then_some(())
    })
    .await;
}

/// The primary says nothing any more, to no client and to no new connection.
///
/// Seen red without `choose` in `HeartbeatConnection::connect`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promoted_standby_is_used_when_the_primary_is_gone() {
    let failover = Failover::start(Replication::Synchronous).await;
    failover.database.primary.cluster.suspend();
    failover.promote().await;
    failover.serves_from_the_new_primary().await;
    failover.database.primary.cluster.resume();
    failover.service.stop().await;
}

/// The old primary can be read by whoever can reach it, is listed first, and only commits wait there for ever.
///
/// Seen red without `moved` in `DatabaseLock::lost`, when its connection stays there; with connections kept in `Connections::lock_idle`
/// whatever their generation is, when nothing can be changed; and without the check of the timeline in `Choice::judge`, when the server
/// goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_can_be_read_is_left_and_never_used_again() {
    let failover = Failover::start(Replication::Synchronous).await;
    failover.database.between.set(Traffic::Cut);
    failover.promote().await;
    failover.serves_from_the_new_primary().await;
    failover.left_the_old_primary().await;

    failover.to_standby.set(Traffic::Cut);
    let readiness = &failover.service.readiness;
    eventually("the lease lapses", async || {
        (*readiness.borrow() == Readiness::LeaseLapsed).then_some(())
    })
    .await;
    let until = Instant::now() + 2 * LEASE;
    while Instant::now() < until {
        assert_eq!(*readiness.borrow(), Readiness::LeaseLapsed);
        let answer = failover.service.api().keys.issue_key(issue_request()).await;
        assert!(answer.is_err(), "nothing is changed at the old primary");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(failover.database.primary.ask("SELECT 1").trim(), "1");
    failover.to_standby.set(Traffic::Flows);
    failover.serves_from_the_new_primary().await;
    failover.service.stop().await;
}

/// The old primary commits as before, because it waits for no standby, so that each heartbeat is answered there.
///
/// Seen red without `look_around`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_still_commits_is_left() {
    let failover = Failover::start(Replication::Asynchronous).await;
    failover.database.between.set(Traffic::Cut);
    failover.promote().await;
    // Before that, a change would be made at the old primary, and lost.
    failover.left_the_old_primary().await;
    failover.serves_from_the_new_primary().await;
    failover.service.stop().await;
}

/// An old primary comes back, and nothing tells that it was replaced but its timeline.
///
/// Seen red with `min` in place of `max` in `Choice::settle`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_uses_the_new_primary_although_the_old_one_is_listed_first() {
    let failover = Failover::start(Replication::Synchronous).await;
    failover.database.between.set(Traffic::Cut);
    failover.promote().await;
    failover.serves_from_the_new_primary().await;
    let operator = failover.service.operator.clone();
    let second = url_flag(&failover.database.standby, &failover.to_standby);
    let Failover {
        service,
        to_primary,
        database,
        ..
    } = failover;
    let test_store = service.stop().await;
    let answered = to_primary.answered();
    let service = server(&test_store, &operator, &[&second]).await;
    assert!(to_primary.answered() > answered, "the old one was asked");
    let issued = service.api().issue().await;
    let id = issued.key.unwrap().id;
    let there = format!("SELECT count(*) FROM keys WHERE id = '{id}'");
    assert_eq!(database.standby.ask(&there).trim(), "1");
    service.stop().await;
}

/// Seen red with `grace` as long as `limit`: the start then takes the whole deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_that_is_listed_first_costs_no_deadline() {
    let direct = TestStore::on(Engine::Postgres);
    let hole = Proxy::to(direct.database().cluster.socket()).await;
    hole.set(Traffic::Held);
    let network = Proxy::to(direct.database().cluster.socket()).await;
    let url = url_flag(direct.database(), &network);
    let through_hole = direct.through(&hole);
    let program = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let flags = ["--database-timeout", "50s", &url];
        let program = Program::serve(&through_hole, &flags);
        assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
        program
    })
    .await
    .unwrap();
    program.api().make_demo().await;
    let key = program.api().issue().await;
    is_allowed(&mut program.api(), &key.plain_key).await;
}

/// Seen red without the check of the authority in `Choice::judge`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_another_authority_is_never_used() {
    let other = TestStore::on(Engine::Postgres);
    Service::start_with(Arc::clone(&other), Clock::system(), "", &[])
        .await
        .stop()
        .await;
    let state = "SELECT authority::text, (SELECT count(*) FROM replicas) FROM authority";
    let before = other.database().ask(state);
    let direct = TestStore::on(Engine::Postgres);
    let network = Proxy::to(direct.database().cluster.socket()).await;
    let to_other = Proxy::to(other.database().cluster.socket()).await;
    let (store, second) = (
        direct.through(&network),
        url_flag(other.database(), &to_other),
    );
    let founder = server(&store, "", &[]).await;
    founder.api().make_demo().await;
    founder.stop().await;
    let micros = LEASE.as_micros();
    direct.database().execute(&format!(
        "UPDATE authority SET lease = {micros}, longest_lease = {micros}"
    ));
    let program = tokio::task::spawn_blocking(move || {
        Program::serve(&store, &["--database-timeout", "500ms", &second])
    })
    .await
    .unwrap();
    let logged = || String::from_utf8_lossy(&program.log.lock().unwrap()).into_owned();
    eventually("the other authority is logged", async || {
        let is_logged = logged().contains("the database is of another authority");
        is_logged.then_some(())
    })
    .await;
    network.set(Traffic::Cut);
    eventually("the lease lapses", async || {
        logged().contains("lease lapsed").then_some(())
    })
    .await;
    tokio::time::sleep(LEASE).await;
    network.set(Traffic::Flows);
    eventually("the heartbeats are answered again", async || {
        logged().contains("heartbeats answered again").then_some(())
    })
    .await;
    let after = other.database().ask(state);
    assert_eq!(after, before, "nothing was written there");
    let reasons = logged().matches("of another authority").count();
    assert!(reasons < 5, "logged again and again: {}", logged());
}

/// What a server says that is started with a pooler between it and its database, and its exit code.
fn start_through_pooler(settings: &str) -> (Option<i32>, String) {
    let test_store = TestStore::on(Engine::Postgres);
    let pooler = Pooler::before(test_store.database(), settings);
    let url = test_store.database().url_at(pooler.address);
    let data = format!("--data-dir={}", test_store.data().display());
    let pepper = format!("--pepper-file={}", test_store.pepper().display());
    let mut command = claviger(&["migrate", "--database-url", &url, &data]);
    let migrated = outcome(&mut command);
    let mut command = claviger(&["serve", "--init", "--database-url", &url, &data, &pepper]);
    command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    let served = outcome(&mut command);
    assert_eq!(migrated.status.code(), served.status.code());
    let said = String::from_utf8(served.stderr).unwrap();
    assert!(!said.contains(DATABASE_PASSWORD), "{said}");
    (served.status.code(), said)
}

/// Seen red without `has_own_session`.
#[test]
fn a_pooler_that_gives_a_connection_to_each_transaction_is_refused() {
    let passed = "ignore_startup_parameters = extra_float_digits, options";
    for settings in [
        "pool_mode = transaction",
        "pool_mode = transaction\nserver_round_robin = 1",
        "pool_mode = transaction\ndefault_pool_size = 1",
        "pool_mode = statement",
    ] {
        let (code, said) = start_through_pooler(&format!("{settings}\n{passed}"));
        assert!(said.contains("PostgreSQL directly"), "{settings}: {said}");
        assert_eq!(code, Some(BAD_CONFIGURATION), "{settings}: {said}");
    }
    // Without that setting it does not even connect.
    let (code, said) = start_through_pooler("pool_mode = transaction");
    assert!(said.contains("PostgreSQL directly"), "{said}");
    assert_eq!(code, Some(1), "{said}");
}
