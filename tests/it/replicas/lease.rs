//! Servers that share a database: what they say while they have a lease, and what without.

use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use claviger::readiness::Readiness;
use pb::Verdict;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::fixtures::{
    Api, Engine, Proxy, Service, TestStore, Traffic, claviger, demo_realm, envoy_check, eventually,
    header_source, issue_request, outcome, refused_by_state, refused_field, verify_request,
};

/// A time after which a lease of this length has lapsed wherever it began, as `docs/replicas.md` says.
fn outlasting(lease: Duration) -> Duration {
    lease + lease / 50 + Duration::from_secs(1)
}

const LEASE: Duration = Duration::from_secs(2);

/// What a busy machine may add to any of the times here.
const SLACK: Duration = Duration::from_secs(5);

/// Two servers on one database, the second behind a network that can fail.
struct Pair {
    near: Service,
    far: Service,
    network: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let direct = TestStore::on(Engine::Postgres);
        let network = Proxy::to(direct.database().cluster.socket()).await;
        let founder = server(&direct, "", "founder").await;
        founder.api().make_demo().await;
        let operator = founder.operator.clone();
        founder.stop().await;
        // While no server has a longer one.
        let micros = LEASE.as_micros();
        direct.database().execute(&format!(
            "UPDATE authority SET lease = {micros}, longest_lease = {micros}"
        ));
        let near = server(&direct, &operator, "near").await;
        let far = server(&direct.through(&network), &operator, "far").await;
        Self { near, far, network }
    }

    async fn stop(self) {
        self.network.set(Traffic::Flows);
        self.far.stop().await;
        self.near.stop().await;
    }
}

async fn server(test_store: &Arc<TestStore>, operator: &str, name: &str) -> Service {
    let flags = ["--replica-name", name, "--database-timeout", "500ms"];
    Service::start_with(Arc::clone(test_store), Clock::system(), operator, &flags).await
}

/// The realm `demo` with a route that needs a key and one that does not.
fn realm_with_routes() -> pb::Realm {
    let protected = pb::Route {
        path: "/v1/**".to_owned(),
        scopes: vec!["read".to_owned()],
        ..Default::default()
    };
    let public = pb::Route {
        path: "/public".to_owned(),
        target: Some(pb::route::Target::Public(true)),
        ..Default::default()
    };
    pb::Realm {
        credentials: Some(pb::Credentials {
            sources: vec![header_source("authorization", "Bearer")],
            ..Default::default()
        }),
        routes: vec![protected, public],
        ..demo_realm()
    }
}

async fn replicas(api: &Api) -> pb::ListReplicasResponse {
    let request = pb::ListReplicasRequest {};
    let mut authority = api.authority.clone();
    authority.list_replicas(request).await.unwrap().into_inner()
}

async fn names(api: &Api) -> Vec<String> {
    let listed = replicas(api).await.replicas;
    listed.into_iter().map(|replica| replica.name).collect()
}

async fn revoke_everywhere(api: &Api, key: &pb::IssueKeyResponse) -> pb::RevokeKeyResponse {
    let request = pb::RevokeKeyRequest {
        key_id: key.key.as_ref().unwrap().id.clone(),
        wait: pb::Wait::Everywhere.into(),
        ..Default::default()
    };
    let mut keys = api.keys.clone();
    keys.revoke_key(request).await.unwrap().into_inner()
}

async fn allowed(api: &mut Api, key: &str) {
    eventually("the key is allowed", async || {
        let answer = api.verify.verify(verify_request(key)).await;
        let is_allowed = answer.is_ok_and(|answer| answer.get_ref().verdict() == Verdict::Allowed);
        is_allowed.then_some(())
    })
    .await;
}

fn assert_lapsed(refused: &tonic::Status) {
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, "LEASE_LAPSED");
    assert!(refused.get_details_retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_everywhere_is_denied_by_every_server_at_once() {
    let test_store = TestStore::on(Engine::Postgres);
    let first = server(&test_store, "", "one").await;
    first.api().make_demo().await;
    let second = server(&test_store, &first.operator, "two").await;
    let third = server(&test_store, &first.operator, "three").await;
    assert_eq!(names(&first.api()).await, ["one", "three", "two"]);
    let servers = [&first, &second, &third];
    for n in 0..6 {
        let (issuing, revoking) = (servers[n % 3], servers[(n + 1) % 3]);
        let key = issuing.api().issue().await;
        for server in servers {
            allowed(&mut server.api(), &key.plain_key).await;
        }
        let began = Instant::now();
        let answer = revoke_everywhere(&revoking.api(), &key).await;
        assert!(answer.confirmed);
        // By their reports, not because the leases have lapsed.
        assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
        for server in servers {
            assert_eq!(server.api().verdict(&key.plain_key).await, Verdict::Revoked);
        }
    }
    for server in [first, second, third] {
        server.stop().await;
    }
}

/// Seen red with `Moment::admit` that lets everything pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_nothing_is_allowed_on_any_way_in() {
    let pair = Pair::start().await;
    let Pair { near, far, network } = &pair;
    near.api().put_realm(realm_with_routes()).await;
    let (good, bad) = (near.api().issue().await, near.api().issue().await);
    revoke_everywhere(&near.api(), &bad).await;
    let mut api = far.api();
    allowed(&mut api, &good.plain_key).await;
    let cache_for = api.ask(&good.plain_key).await.cache_for.unwrap();
    assert!(Duration::try_from(cache_for).unwrap() <= LEASE);

    network.set(Traffic::Cut);
    let mut readiness = far.readiness.clone();
    readiness
        .wait_for(|readiness| *readiness == Readiness::LeaseLapsed)
        .await
        .unwrap();
    assert_eq!(api.verdict(&bad.plain_key).await, Verdict::Revoked);
    assert_eq!(api.verdict("no key").await, Verdict::Malformed);

    let question = verify_request(&good.plain_key);
    assert_lapsed(&api.verify.verify(question.clone()).await.unwrap_err());
    let unknown = format!("demo_live_{}", "0".repeat(71));
    let batch = pb::VerifyBatchRequest {
        requests: vec![question.clone(), verify_request(&bad.plain_key)],
    };
    let results = api.verify.verify_batch(batch).await.unwrap().into_inner();
    let results: Vec<_> = results.results.into_iter().map(|it| it.result).collect();
    let [
        Some(pb::verify_batch_result::Result::Error(lapsed)),
        Some(pb::verify_batch_result::Result::Response(revoked)),
    ] = &results[..]
    else {
        panic!("{results:?}");
    };
    assert_eq!(lapsed.code, Code::Unavailable as i32);
    assert_eq!(revoked.verdict(), Verdict::Revoked);
    let stream = tokio_stream::iter([pb::VerifyStreamRequest {
        request: Some(question),
    }]);
    let mut answers = api
        .verify
        .verify_stream(Request::new(stream))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(pb::verify_stream_response::Result::Error(lapsed)) = answer.result else {
        panic!("{answer:?}");
    };
    assert_eq!(lapsed.code, Code::Unavailable as i32);

    let bearer = format!("Bearer {}", good.plain_key);
    let header = [("authorization", bearer.as_str())];
    let address = far.address.to_string();
    for path in ["/v1/keys", "/public"] {
        let envoy = envoy_check(&address, &far.operator, "demo", path, &header).await;
        assert_lapsed(&envoy.err().expect("an undecided request"));
    }
    // Its caller's own key is judged too.
    assert_lapsed(&api.keys.issue_key(issue_request()).await.err().unwrap());
    let stranger = far.api_as(&unknown);
    let refused = stranger.verify.clone().verify(verify_request("x")).await;
    assert_lapsed(&refused.unwrap_err());

    network.set(Traffic::Flows);
    allowed(&mut api, &good.plain_key).await;
    pair.stop().await;
}

/// Seen red with `Moment::admit` that lets everything pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_cut_off_is_waited_for_until_its_lease_must_have_lapsed() {
    let pair = Pair::start().await;
    let Pair { near, far, network } = &pair;
    for traffic in [Traffic::Cut, Traffic::Swallowed] {
        network.set(Traffic::Flows);
        let key = near.api().issue().await;
        let mut api = far.api();
        allowed(&mut api, &key.plain_key).await;
        // The first server removes the other from its list meanwhile, which must not end the wait too early.
        network.set(traffic);
        let began = Instant::now();
        let answer = revoke_everywhere(&near.api(), &key).await;
        assert!(answer.confirmed);
        assert!(began.elapsed() >= LEASE, "{:?}", began.elapsed());
        assert!(began.elapsed() < outlasting(LEASE) + SLACK);
        let asked = api.verify.verify(verify_request(&key.plain_key)).await;
        assert_lapsed(&asked.unwrap_err());
        eventually("the silent server is off the list", async || {
            (names(&near.api()).await == ["near"]).then_some(())
        })
        .await;
    }
    network.set(Traffic::Flows);
    eventually("the server is on the list again", async || {
        (names(&near.api()).await == ["far", "near"]).then_some(())
    })
    .await;
    pair.stop().await;
}

/// Answers that take half a second prove nothing about that half second. Seen red with a lease that counts from the answer: the key is
/// still allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_counts_from_the_sending_of_a_heartbeat() {
    let pair = Pair::start().await;
    let key = pair.near.api().issue().await;
    let mut api = pair.far.api();
    allowed(&mut api, &key.plain_key).await;
    let delay = Duration::from_millis(200);
    pair.network.set_delay(delay);
    tokio::time::sleep(LEASE).await;
    let answer = api.verify.verify(verify_request(&key.plain_key)).await;
    assert_eq!(answer.unwrap().get_ref().verdict(), Verdict::Allowed);
    pair.network.set(Traffic::Cut);
    // The last heartbeat that was answered was sent at least two delays ago.
    tokio::time::sleep(LEASE.saturating_sub(delay * 3 / 2)).await;
    let asked = api.verify.verify(verify_request(&key.plain_key)).await;
    assert_lapsed(&asked.unwrap_err());
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_callers_deadline_a_change_is_answered_without_a_confirmation() {
    let pair = Pair::start().await;
    let Pair { near, network, .. } = &pair;
    let key = near.api().issue().await;
    network.set(Traffic::Swallowed);
    let mut request = Request::new(pb::RevokeKeyRequest {
        key_id: key.key.unwrap().id,
        wait: pb::Wait::Everywhere.into(),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(1));
    let answer = near.api().keys.revoke_key(request).await.unwrap();
    let answer = answer.into_inner();
    assert!(!answer.confirmed);
    let everywhere = answer.effective_everywhere_time.unwrap();
    let now = Clock::system().now().as_micros() / 1_000_000;
    assert!(everywhere.seconds > now, "{everywhere} {now}");
    assert_eq!(near.api().verdict(&key.plain_key).await, Verdict::Revoked);
    pair.stop().await;
}

/// Seen red without `leave`: the call then waits for the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_server_that_has_stopped() {
    let test_store = TestStore::on(Engine::Postgres);
    let stays = server(&test_store, "", "stays").await;
    stays.api().make_demo().await;
    let leaves = server(&test_store, &stays.operator, "leaves").await;
    leaves.stop().await;
    assert_eq!(names(&stays.api()).await, ["stays"]);
    let key = stays.api().issue().await;
    let began = Instant::now();
    assert!(revoke_everywhere(&stays.api(), &key).await.confirmed);
    assert!(began.elapsed() < SLACK);
    stays.stop().await;
}

/// Seen red with a registration that keeps the old number: the server never gets a lease again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_struck_off_registers_again_and_loads_nothing() {
    let test_store = TestStore::on(Engine::Postgres);
    let server = server(&test_store, "", "one").await;
    server.api().make_demo().await;
    let key = server.api().issue().await;
    let id = |listed: pb::ListReplicasResponse| listed.replicas[0].id.clone();
    let before = id(replicas(&server.api()).await);
    let index = Arc::as_ptr(&server.mirror.index());
    test_store.database().execute("DELETE FROM replicas");
    let mut api = server.api();
    eventually("the server has another registration", async || {
        let request = pb::ListReplicasRequest {};
        let listed = api.authority.list_replicas(request).await.ok()?;
        let listed = listed.into_inner();
        (listed.replicas.len() == 1 && id(listed) != before).then_some(())
    })
    .await;
    allowed(&mut api, &key.plain_key).await;
    // A load puts another index in its place.
    assert_eq!(Arc::as_ptr(&server.mirror.index()), index);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_length_of_the_lease_is_checked_and_an_embedded_database_has_none() {
    let embedded = Service::start(Engine::Sqlite).await;
    let mut api = embedded.api();
    let listed = replicas(&api).await;
    assert_eq!((listed.replicas.len(), listed.lease), (0, None));
    let request = |millis: i64| pb::SetLeaseRequest {
        lease: Some(prost_types::Duration {
            seconds: millis / 1_000,
            nanos: (millis % 1_000 * 1_000_000) as i32,
        }),
        ..Default::default()
    };
    let refused = refused_by_state(api.authority.set_lease(request(2_000)).await);
    assert_eq!(refused.reason, "EMBEDDED_DATABASE");
    embedded.stop().await;

    let shared = Service::start(Engine::Postgres).await;
    let mut api = shared.api();
    for wrong in [0, -5_000, 999, 300_001] {
        refused_field(api.authority.set_lease(request(wrong)).await, "lease");
    }
    let manager = api.clone().with_key("no key of this authority");
    let refused = manager.authority.clone().set_lease(request(2_000)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    // The longer lease is remembered until it must have lapsed.
    for millis in [1_000, 2_000, 1_000] {
        let answer = api.authority.set_lease(request(millis)).await.unwrap();
        assert_eq!(answer.into_inner().lease, request(millis).lease);
    }
    let listed = replicas(&api).await;
    assert_eq!(listed.lease, request(1_000).lease);
    assert_eq!(listed.longest_lease.unwrap().seconds, 30);
    shared.stop().await;
}

/// Seen red with a Verify that does not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_with_a_revision_is_answered_with_what_another_server_has_just_changed() {
    let test_store = TestStore::on(Engine::Postgres);
    let one = server(&test_store, "", "one").await;
    one.api().make_demo().await;
    // Its polls alone would come far too late.
    let flags = ["--replica-name", "two", "--poll-interval", "1h"];
    let store = Arc::clone(&test_store);
    let two = Service::start_with(store, Clock::system(), &one.operator, &flags).await;
    let mut api = two.api();
    for n in 0..20 {
        let issued = one.api().issue().await;
        let question = pb::VerifyRequest {
            min_revision: issued.revision,
            ..verify_request(&issued.plain_key)
        };
        let verdict = if n % 2 == 0 {
            let answer = api.verify.verify(question).await.unwrap();
            answer.into_inner().verdict()
        } else {
            let batch = pb::VerifyBatchRequest {
                requests: vec![verify_request("no key"), question],
            };
            let answer = api.verify.verify_batch(batch).await.unwrap().into_inner();
            match answer.results.into_iter().nth(1).unwrap().result.unwrap() {
                pb::verify_batch_result::Result::Response(answer) => answer.verdict(),
                pb::verify_batch_result::Result::Error(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(verdict, Verdict::Allowed, "{n}");
    }
    // A revision that nobody has made.
    let began = Instant::now();
    let question = pb::VerifyRequest {
        min_revision: 1 << 47,
        ..verify_request("no key")
    };
    let refused = api.verify.verify(question).await.unwrap_err();
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, "BEHIND_MIN_REVISION");
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    one.stop().await;
    two.stop().await;
}

/// Seen red without `min(reported_revision)`: the event is deleted that the other server has read last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_deleted_that_a_server_has_not_reported() {
    let service = Service::start(Engine::Postgres).await;
    service.api().make_demo().await;
    let database = service.test_store.database();
    let row = "INSERT INTO replicas VALUES ('behind', 'behind', '', 'serving', 1, 3, 0, 0, 0, '')";
    database.execute(row);
    let known = service.mirror.index().revision();
    // The server itself must have reported more.
    let behind = "SELECT count(*) FROM replicas WHERE reported_revision <= 3";
    eventually("only one server is behind", async || {
        (database.ask(behind).trim() == "1").then_some(())
    })
    .await;
    let long_after = Clock::system()
        .now()
        .saturating_add(Duration::from_hours(2_400));
    service
        .store
        .forget_events(long_after, known)
        .await
        .unwrap();
    assert_eq!(database.ask("SELECT min(revision) FROM events").trim(), "3");
    database.execute("DELETE FROM replicas WHERE id = 'behind'");
    service
        .store
        .forget_events(long_after, known)
        .await
        .unwrap();
    assert_ne!(database.ask("SELECT min(revision) FROM events").trim(), "3");
    service.stop().await;
}

/// Seen red without `outlast_servers`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_needs_the_database_alone_waits_for_the_lease_of_a_server_that_was_killed() {
    let test_store = TestStore::on(Engine::Postgres);
    server(&test_store, "", "stopped").await.stop().await;
    let bootstrap = |lease: &str| {
        test_store.database().execute(lease);
        let mut line = vec!["bootstrap".to_owned(), "--recover".to_owned()];
        line.extend(test_store.flags());
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        let began = Instant::now();
        let output = outcome(&mut claviger(&line));
        assert!(output.status.success(), "{output:?}");
        began.elapsed()
    };
    let lease = "UPDATE authority SET lease = 3000000, longest_lease = 3000000";
    assert!(bootstrap(lease) < SLACK);
    let killed =
        "INSERT INTO replicas VALUES ('killed', 'killed', '', 'serving', 1, 0, 0, 0, 0, '')";
    assert!(bootstrap(killed) >= outlasting(Duration::from_secs(3)));
}
