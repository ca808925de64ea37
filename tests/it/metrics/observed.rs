//! What the server tells about itself: its store, its limits, its log, its certificates and its process.

use std::fs::File;
use std::time::SystemTime;

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use tokio::net::TcpStream;

use super::Scrape;
use crate::fixtures::{
    Cluster, Engine, Program, Proxy, TestStore, Traffic, authority_key_request, delegating_realm,
    eventually, issue_request,
};

/// Scrapes until this series is above a value.
async fn rises(program: &Program, series: &str, above: f64) -> Scrape {
    eventually(&format!("{series} is above {above}"), async || {
        let scrape = Scrape::of(&program.http).await;
        (scrape.value(series) > above).then_some(scrape)
    })
    .await
}

/// Seen red with a lag that ends with the last poll, whether it succeeded or not, and without the count of errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_is_seen() {
    const LAG: &str = "claviger_feed_lag_seconds";
    const UNAVAILABLE: &str = "claviger_store_errors_total{error=\"unavailable\"}";
    const BACKLOG: &str = "claviger_usage_backlog_entries";
    let cluster = Cluster::shared();
    let proxy = Proxy::to(cluster.socket()).await;
    let test_store = TestStore::in_cluster(&cluster).through(&proxy);
    let program = Program::serve(&test_store, &["--usage-interval", "50ms"]);
    let mut api = program.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    let calm = Scrape::of(&program.http).await;
    assert!(calm.value(LAG) < 5.0, "{}", calm.value(LAG));
    assert!(calm.value(UNAVAILABLE) < 1.0);
    let written = "claviger_store_transaction_duration_seconds_count{kind=\"write\"}";
    assert!(calm.value(written) > 5.0, "{}", calm.value(written));

    proxy.set(Traffic::Cut);
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);
    let outage = rises(&program, LAG, calm.value(LAG) + 1.0).await;
    assert!(outage.value(UNAVAILABLE) > 1.0);
    rises(&program, BACKLOG, 0.0).await;

    proxy.set(Traffic::Flows);
    eventually("the outage is over", async || {
        let scrape = Scrape::of(&program.http).await;
        let is_over = scrape.value(LAG) < 1.0 && scrape.value(BACKLOG) < 1.0;
        is_over.then_some(())
    })
    .await;
}

/// Seen red without each of the counts.
#[tokio::test]
async fn a_limit_that_is_reached_is_counted() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = [
        "--max-connections-per-address",
        "8",
        "--delegated-changes-per-hour",
        "10",
    ];
    let program = Program::serve(&test_store, &flags);
    let mut api = program.api();
    api.make_demo().await;
    api.put_realm(delegating_realm()).await;

    // A partner's own key may issue one key at once.
    let mut owner = issue_request();
    owner.scopes = vec!["owner".to_owned()];
    let owner = api.keys.issue_key(owner).await.unwrap().into_inner();
    let mut partner = api.with_key(&owner.plain_key);
    let mut read = issue_request();
    read.scopes = vec!["read".to_owned()];
    partner.keys.issue_key(read.clone()).await.unwrap();
    assert!(partner.keys.issue_key(read).await.is_err());
    let budget = "claviger_refusals_total{limit=\"delegated_changes\"}";
    rises(&program, budget, 0.0).await;

    // A connection has room for fewer.
    let clients: Vec<_> = (0..5).map(|_| program.api()).collect();
    let streams = (0..300).map(|stream| {
        let mut api = clients[stream % clients.len()].clone();
        async move { api.verify.verify_stream(tokio_stream::pending()).await }
    });
    let open = futures_util::future::join_all(streams).await;
    let refused = open.iter().filter(|stream| stream.is_err()).count();
    let scrape = Scrape::of(&program.http).await;
    let counted = scrape.count("claviger_refusals_total{limit=\"verify_streams\"}");
    assert!(refused > 0);
    assert_eq!(counted, refused as u64);

    // Six connections are open already.
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(TcpStream::connect(&program.address).await.unwrap());
    }
    let connections = "claviger_refusals_total{limit=\"connections_of_address\"}";
    rises(&program, connections, 1.0).await;
}

#[tokio::test]
async fn open_connections_keys_and_hashes_are_counted() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--verify-threads", "2"]);
    let mut api = program.api();
    api.make_demo().await;
    let before = Scrape::of(&program.http).await;
    api.issue().await;
    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(TcpStream::connect(&program.address).await.unwrap());
    }
    eventually("the connections are open", async || {
        let open = Scrape::of(&program.http).await;
        // These, the client's and that of the scrape.
        let all = open.sum("claviger_connections", &[]);
        let each =
            ["verify-0", "verify-1"].map(|thread| open.sum("claviger_connections", &[thread]));
        (all >= 22 && each.iter().all(|count| *count >= 10)).then_some(())
    })
    .await;
    let after = Scrape::of(&program.http).await;
    for name in [
        "claviger_keys",
        "claviger_revision",
        "claviger_argon2_hashes_total",
    ] {
        assert_eq!(after.count(name) - before.count(name), 1, "{name}");
    }
    assert_eq!(after.count("claviger_ready"), 1);
}

/// Seen red with a count that starts anew with each report.
#[tokio::test]
async fn lines_of_the_log_that_are_lost_are_counted() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve_with_stderr(&test_store, full.into(), &[]);
    let lost = "claviger_log_lines_lost_total";
    let before = rises(&program, lost, 2.0).await.value(lost);
    let mut api = program.api();
    api.make_demo().await;
    rises(&program, lost, before + 2.0).await;
}

#[tokio::test]
async fn the_process_tells_what_the_system_knows() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let scrape = Scrape::of(&program.http).await;
    let memory = program.memory() * 1024;
    let told = scrape.count("process_resident_memory_bytes");
    assert!((memory / 2..memory * 2).contains(&told), "{told} {memory}");
    let descriptors = program.descriptors() as u64;
    let told = scrape.count("process_open_fds");
    assert!(told.abs_diff(descriptors) < 5, "{told} {descriptors}");
    assert!(scrape.count("process_max_fds") >= told);
    assert!(scrape.count("process_virtual_memory_bytes") > memory);
    assert!(scrape.value("process_cpu_seconds_total") <= 60.0);
    #[expect(
        clippy::disallowed_methods,
        reason = "what the program tells is compared with it"
    )]
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let age = now.as_secs_f64() - scrape.value("process_start_time_seconds");
    assert!((-2.0..120.0).contains(&age), "{age}");
}

/// Metrics are there before the keys are, and without a key of the caller's. A gateway's key that may only verify is enough for
/// nothing else.
#[tokio::test]
async fn a_scrape_needs_no_key_and_shows_none() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let issued = api
        .keys
        .issue_key(authority_key_request("verify", "demo"))
        .await;
    let issued = issued.unwrap().into_inner();
    let scrape = Scrape::of(&program.http).await;
    let id = issued.key.unwrap().id;
    for hidden in [&id, "acme", "umbrella", "production", &issued.plain_key] {
        assert!(!scrape.text.contains(hidden), "{hidden}");
    }
}
