//! What only a shared database can do to a server: be away, be slow, be somebody else's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger::domain::clock::Clock;
use claviger::domain::event::Revision;
use claviger::pb::claviger::v1 as pb;
use claviger::server::ServeError;
use claviger::store::EventFilter;
use pb::Verdict;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::fixtures::{
    DATABASE_PASSWORD, Engine, Program, Proxy, Service, TestStore, Traffic, claviger, eventually,
    issue_request, outcome,
};

const BAD_CONFIGURATION: i32 = 78;

/// What the database may take over an answer here. Not less: a busy machine must still get through its first load.
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// A change fails within this: it may wait for its turn and for one answer, each up to the timeout. The rest is for a machine
/// that is busy.
const BOUND: Duration = Duration::from_secs(15);

/// A server behind a network that can fail.
struct Remote {
    service: Service,
    proxy: Proxy,
    direct: Arc<TestStore>,
}

impl Remote {
    async fn start() -> Self {
        let direct = TestStore::on(Engine::Postgres);
        let proxy = Proxy::to(direct.database().cluster.socket()).await;
        let test_store = direct.through(&proxy);
        let flags = ["--database-timeout", "1500ms"];
        let service = Service::start_with(test_store, Clock::system(), "", &flags).await;
        service.api().make_demo().await;
        Self {
            service,
            proxy,
            direct,
        }
    }

    /// A new key, as soon as one can be had again.
    async fn issue_again(&self) -> pb::IssueKeyResponse {
        eventually("keys are issued again", async || {
            let issued = self.service.api().keys.issue_key(issue_request()).await;
            issued.ok().map(tonic::Response::into_inner)
        })
        .await
    }
}

/// Holds a failure to what clients may rely on: it says within the time whether to try again, or that nobody knows.
fn assert_says_what_to_do(began: Instant, refused: &Status) {
    assert!(began.elapsed() < BOUND, "it took {:?}", began.elapsed());
    match refused.code() {
        Code::Unavailable => assert!(refused.get_details_retry_info().is_some(), "{refused:?}"),
        Code::Unknown => {}
        _ => panic!("{refused:?}"),
    }
}

/// Seen red without the deadline in `within`: the calls then hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_verification_goes_on_and_afterwards_everything_does() {
    let remote = Remote::start().await;
    let mut api = remote.service.api();
    let key = api.issue().await.plain_key;
    for traffic in [Traffic::Swallowed, Traffic::Cut, Traffic::Swallowed] {
        remote.proxy.set(traffic);
        let began = Instant::now();
        // More at once than there are connections of any kind.
        let calls: Vec<_> = (0..16)
            .map(|i| {
                let mut api = remote.service.api();
                tokio::spawn(async move {
                    let refused = if i % 2 == 0 {
                        api.keys.issue_key(issue_request()).await.err()
                    } else {
                        let list = pb::ListKeysRequest {
                            filter: Some(pb::KeyFilter {
                                realm: "demo".to_owned(),
                                ..Default::default()
                            }),
                            ..Default::default()
                        };
                        api.keys.list_keys(list).await.err()
                    };
                    assert_says_what_to_do(began, &refused.expect("the database is away"));
                })
            })
            .collect();
        while calls.iter().any(|call| !call.is_finished()) {
            let asked = Instant::now();
            assert_eq!(api.verdict(&key).await, Verdict::Allowed);
            assert!(
                asked.elapsed() < TIMEOUT,
                "an answer from memory took {:?}",
                asked.elapsed()
            );
            tokio::task::yield_now().await;
        }
        for call in calls {
            call.await.unwrap();
        }
        remote.proxy.set(Traffic::Flows);
        let issued = remote.issue_again().await;
        assert_eq!(api.verdict(&issued.plain_key).await, Verdict::Allowed);
        // Every kind of connection works again, not only the first that was tried.
        for _ in 0..8 {
            let list = pb::ListKeysRequest {
                filter: Some(pb::KeyFilter {
                    realm: "demo".to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            api.keys.list_keys(list).await.unwrap();
        }
    }
    remote.service.stop().await;
}

/// Seen red without `idle_in_transaction_session_timeout`: the counter's row stays locked for a client that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_network_swallowed_does_not_hold_up_the_others_for_ever() {
    let remote = Remote::start().await;
    let change = remote
        .service
        .store
        .change(Clock::system().now())
        .await
        .unwrap();
    remote.proxy.set(Traffic::Swallowed);
    drop(change);
    let began = Instant::now();
    let refused = remote.service.api().keys.issue_key(issue_request()).await;
    assert_says_what_to_do(began, &refused.err().expect("the database is away"));
    remote.proxy.set(Traffic::Flows);
    remote.issue_again().await;
    remote.service.stop().await;
}

/// Seen red with the failure of a commit as `UNAVAILABLE`, which clients repeat by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_unknown_and_comes_into_force_if_it_was_made() {
    let remote = Remote::start().await;
    let mut api = remote.service.api();
    let issued = api.issue().await;
    remote.proxy.set(Traffic::CommitsUnanswered);
    let began = Instant::now();
    let refused = api.revoke(&issued.key.unwrap().id).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown, "{refused:?}");
    assert_says_what_to_do(began, &refused);
    remote.proxy.set(Traffic::Flows);
    eventually("the revocation is in force", async || {
        (api.verdict(&issued.plain_key).await == Verdict::Revoked).then_some(())
    })
    .await;
    remote.service.stop().await;
}

/// Seen red with a `statement_timeout` on the feed's connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_takes_longer_than_an_answer_may_is_not_cut_short() {
    let service = Service::start(Engine::Postgres).await;
    let operator = service.operator.clone();
    let mut api = service.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    let test_store = service.stop().await;
    test_store.database().execute(
        "INSERT INTO keys (id, facts)
         SELECT new, replace(facts, id::text, new::text)
         FROM (SELECT id, facts, gen_random_uuid() AS new FROM keys, generate_series(1, 40000) WHERE realm = 'demo') AS many",
    );
    let began = Instant::now();
    let flags = ["--database-timeout", "500ms"];
    let service = Service::start_with(test_store, Clock::system(), &operator, &flags).await;
    assert!(
        began.elapsed() > Duration::from_millis(500),
        "the load is long enough to tell"
    );
    assert!(service.mirror.index().len() > 40_000);
    assert_eq!(service.api().verdict(&key).await, Verdict::Allowed);
    service.stop().await;
}

/// Seen red without the lock: they then get into each other's way while they make the schema or the pepper.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_that_start_at_once_exactly_one_founds_and_all_serve() {
    let test_store = TestStore::on(Engine::Postgres);
    let programs: Vec<_> = std::thread::scope(|threads| {
        let starting: Vec<_> = (0..4)
            .map(|_| threads.spawn(|| Program::serve(&test_store, &[])))
            .collect();
        let started = starting.into_iter().map(|thread| thread.join().unwrap());
        started.collect()
    });
    for program in &programs {
        let listed = pb::ListKeysRequest {
            filter: Some(pb::KeyFilter {
                realm: "claviger".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let keys = program.api().keys.list_keys(listed).await;
        assert_eq!(keys.unwrap().into_inner().keys.len(), 1);
    }
}

/// Seen red without `take_again`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_whose_connection_is_lost_is_taken_again() {
    let service = Service::start(Engine::Postgres).await;
    let holder = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let held = "DO $$ BEGIN ASSERT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())); END $$";
    service.test_store.database().execute(held);
    for _ in 0..2 {
        service.test_store.database().execute(holder);
        eventually("the lock is held again", async || {
            service
                .test_store
                .database()
                .try_execute(held)
                .then_some(())
        })
        .await;
    }
    service.api().make_demo().await;
    service.stop().await;
}

/// Seen red without the end of the server's own old session, which then holds the lock against it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_not_its_own_rival_after_the_network_has_swallowed_its_connection() {
    let remote = Remote::start().await;
    let session = || {
        remote.direct.database().ask(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
    };
    let before = session();
    remote.proxy.set(Traffic::Swallowed);
    let mut api = remote.service.api();
    let began = Instant::now();
    assert_says_what_to_do(
        began,
        &api.keys.issue_key(issue_request()).await.err().unwrap(),
    );
    remote.proxy.set(Traffic::Flows);
    eventually("another session of the server has the lock", async || {
        let now = session();
        (!now.is_empty() && now != before).then_some(())
    })
    .await;
    remote.issue_again().await;
    remote.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_database_was_taken_for_itself_by_another_process_ends_and_says_so() {
    let remote = Remote::start().await;
    remote.proxy.set(Traffic::Cut);
    // Cut off, its session ends and with it the lock; the other process waits that long.
    let other = remote.direct.open_alone().await;
    remote.proxy.set(Traffic::Flows);
    let why = remote.service.ended().await;
    assert!(matches!(why, ServeError::LockLost), "{why}");
    assert!(
        why.to_string().contains("took the database for itself"),
        "{why}"
    );
    drop(other);
    let began = Instant::now();
    let operator = "";
    let again = Service::start_with(remote.direct, Clock::system(), operator, &[]).await;
    assert!(began.elapsed() < BOUND);
    again.stop().await;
}

/// Seen red with `BEGIN_WRITE` for servers too: the change is then made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_lost_its_lock_writes_nothing_beside_a_process_that_is_alone() {
    let remote = Remote::start().await;
    let mut api = remote.service.api();
    let database = remote.direct.database();
    // Its connection for the lock is lost, and those for everything else are not.
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    let alone = remote.direct.open_alone().await;
    let began = Instant::now();
    let refused = api.keys.issue_key(issue_request()).await.err().unwrap();
    assert_says_what_to_do(began, &refused);
    let why = remote.service.ended().await;
    assert!(matches!(why, ServeError::LockLost), "{why}");
    drop(alone);
}

fn refused(args: &[&str], code: i32) -> String {
    let mut line = vec![
        "serve",
        "--init",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ];
    line.extend(args);
    let output = outcome(&mut claviger(&line));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains(DATABASE_PASSWORD), "{said}");
    said
}

#[tokio::test]
async fn a_database_that_cannot_be_right_is_refused_with_a_sentence() {
    let test_store = TestStore::on(Engine::Postgres);
    let flags = test_store.flags_of_database();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let said = refused(&flags, BAD_CONFIGURATION);
    assert!(said.contains("--pepper-file"), "{said}");

    let pepper = format!("--pepper-file={}", test_store.pepper().display());
    let elsewhere = |rest: &str| format!("--database-url=postgres://x:{DATABASE_PASSWORD}@{rest}");
    let said = refused(
        &[&pepper, &elsewhere("192.0.2.1/x?sslmode=prefer")],
        BAD_CONFIGURATION,
    );
    assert!(said.contains("verify-full"), "{said}");
    let said = refused(&[&pepper, &elsewhere("localhost:x/x")], BAD_CONFIGURATION);
    assert!(said.contains("cannot be read"), "{said}");
    // What may be otherwise in a moment is no bad configuration: a supervisor should try again.
    let said = refused(&[&pepper, &elsewhere("127.0.0.1:1/x")], 1);
    assert!(said.contains("cannot be reached"), "{said}");

    let name = &test_store.database().name;
    test_store.database().execute(&format!(
        "ALTER DATABASE {name} SET synchronous_commit = off"
    ));
    let mut line = flags.clone();
    line.push(&pepper);
    let said = refused(&line, BAD_CONFIGURATION);
    assert!(said.contains("could be lost"), "{said}");
    assert!(
        !test_store.pepper().exists() && !test_store.data().exists(),
        "nothing was made"
    );
}

/// Seen red without `abandon_rows`: then the driver reads the other rows before the connection is used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_have_no_room_on_a_page_stay_in_the_database() {
    const ROWS: u64 = 60;
    const ROW: u64 = 1_000_000;
    let direct = TestStore::on(Engine::Postgres);
    let proxy = Proxy::to(direct.database().cluster.socket()).await;
    let opened = direct.through(&proxy).open().await;
    direct.database().execute(&format!(
        "INSERT INTO events (revision, stamp, time, peer, kind, realm, detail)
         SELECT n, n, n, '', 'realm.put', 'demo', '{{\"definition\":\"' || repeat('x', {ROW}) || '\"}}'
         FROM generate_series(1, {ROWS}) AS n"
    ));
    let before = proxy.answered();
    let filter = EventFilter {
        limit: 1_000,
        ..EventFilter::default()
    };
    let mut offered = 0;
    let take = |event| {
        offered += 1;
        (offered <= 2).then_some(event)
    };
    let mut snapshot = opened.store.snapshot().await.unwrap();
    let page = snapshot.list_events(&filter, take).await.unwrap();
    assert_eq!((page.items.len(), offered), (2, 3));
    assert_eq!(page.next, Some(Revision::from(ROWS - 1)));
    drop(snapshot);
    // Also waits for what is done with the connection.
    opened.store.close().await;
    let read = proxy.answered() - before;
    println!("{read} bytes were read");
    assert!((3 * ROW..ROWS * ROW / 2).contains(&read), "{read} bytes");
}

/// Seen red with the driver's migrator run in any case: it wants to create its table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_change_the_schema_can_serve_it() {
    let test_store = TestStore::on(Engine::Postgres);
    let database = test_store.database();
    let flags = test_store.flags_of_database();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let migrated = outcome(claviger(&["migrate"]).args(&flags));
    assert!(migrated.status.success());
    let role = format!("role_of_{}", database.name);
    database.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{DATABASE_PASSWORD}';
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};"
    ));
    let program = Program::serve(&test_store.as_role(&role), &[]);
    program.api().make_demo().await;
    program.api().issue().await;
    drop(program);
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role};"));
}

/// Seen red with only PostgreSQL's own message.
#[test]
fn a_role_that_may_not_make_the_schema_says_who_must() {
    let test_store = TestStore::on(Engine::Postgres);
    let database = test_store.database();
    let role = format!("role_of_{}", database.name);
    database.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{DATABASE_PASSWORD}';"
    ));
    let flags = test_store.as_role(&role).flags();
    let refused = outcome(claviger(&["serve", "--init"]).args(&flags));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(78), "{said}");
    let remedy = "run `claviger migrate` as the owner of the database";
    assert!(said.contains(remedy), "{said}");
    assert!(!said.contains(DATABASE_PASSWORD), "{said}");
    database.execute(&format!("DROP ROLE {role};"));
}
