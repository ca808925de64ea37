//! `claviger canary`: against a server, through a network that fails, and against a server that breaks promises.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use pb::key_verify_server::{KeyVerify, KeyVerifyServer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::fixtures::{
    Api, Engine, Program, Proxy, Shell, TestStore, Traffic, claviger, eventually, list_keys,
};

/// A server with the realm and the partner of the canary.
fn shell(test_store: &TestStore, flags: &[&str]) -> Shell {
    let program = Program::serve(test_store, flags);
    let operator = program.operator();
    let shell = Shell { program, operator };
    let put = "realm put canary --prefix canary --environment production=live";
    shell.says(put, "", 0);
    shell.says("partner put canary --realm canary", "", 0);
    shell
}

impl Shell {
    fn canary(&self, endpoints: &[&str], flags: &str) -> Command {
        let mut command = claviger(&["canary", "--json"]);
        for endpoint in endpoints {
            command.args(["--endpoint", endpoint]);
        }
        command
            .args(flags.split_whitespace())
            .env("CLAVIGER_KEY", &self.operator)
            .stdout(Stdio::piped());
        command
    }

    fn has_no_key(&self) {
        let listed = self.json("keys list --realm canary", "", 0);
        assert_eq!(listed["keys"], serde_json::json!([]), "{listed}");
    }
}

/// A canary that goes on, and what it prints. Killed when dropped.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line, or none at the end.
    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.unwrap();
        assert!(!line.contains("canary_live_"), "no API key: {line}");
        Some(serde_json::from_str(&line).unwrap())
    }

    /// Sends a signal, and returns the summary and the exit code.
    fn stop(mut self, signal: &str) -> (Value, Option<i32>) {
        let line = format!("kill -{signal} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &line])
                .status()
                .unwrap()
                .success()
        );
        let mut last = None;
        while let Some(next) = self.next() {
            last = Some(next);
        }
        let code = self.child.wait().unwrap().code();
        (last.expect("a summary"), code)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a canary that ends by itself, its exit code, and what it says on standard error.
fn lines(command: &mut Command) -> (Vec<Value>, Option<i32>, String) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("canary_live_"), "no API key: {said}");
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
    let complaint = String::from_utf8(output.stderr).unwrap();
    (lines.collect(), output.status.code(), complaint)
}

#[tokio::test]
async fn a_round_leads_from_a_new_key_to_one_that_every_endpoint_denies() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell(&test_store, &[]);
    let address = shell.program.address.clone();
    let port = address.rsplit_once(':').unwrap().1;
    let localhost = format!("localhost:{port}");

    let both = format!("{address},{localhost}");
    for endpoints in [&[&*address, &localhost][..], &[&both]] {
        let mut command = shell.canary(endpoints, "--rounds 2 --every 0s");
        let (lines, code, complaint) = lines(&mut command);
        assert_eq!(code, Some(0), "{complaint}");
        let [first, second, summary] = &lines[..] else {
            panic!("{lines:?}");
        };
        for (round, wait) in [(first, "WAIT_COMMITTED"), (second, "WAIT_EVERYWHERE")] {
            assert_eq!(round["type"], "round");
            assert_eq!(round["wait"], wait);
            assert_eq!(round["error"], Value::Null, "{round}");
            assert!(round["revocation_seconds"].as_f64().unwrap() > 0.0);
            for endpoint in round["endpoints"].as_array().unwrap() {
                assert!(endpoint["answers"].as_u64().unwrap() > 2, "{round}");
                assert!(endpoint["revoke_to_deny_seconds"].is_f64(), "{round}");
            }
        }
        assert_ne!(first["changed_at"], second["changed_at"]);
        assert_eq!(summary["type"], "summary");
        assert_eq!(
            (&summary["rounds"], &summary["failed"]),
            (&2.into(), &0.into())
        );
        assert_eq!(summary["violations"], 0);
        for endpoint in summary["endpoints"].as_array().unwrap() {
            assert_eq!(
                endpoint["revoke_to_deny_seconds"][1]["count"], 1,
                "{summary}"
            );
        }
    }
    shell.has_no_key();

    // For people, in 80 columns.
    let line = format!("canary --endpoint {both} --wait committed --for 1ms --every 1s");
    let said = shell.says(&line, "", 0);
    let round = said.lines().nth(1).unwrap();
    assert!(round.contains("round 1  committed in "), "{said}");
    assert!(round.len() <= 80, "{said}");
    assert!(said.contains("1 round, 0 failed; 0 violations"), "{said}");
}

#[tokio::test]
async fn what_cannot_work_is_said_with_what_to_do() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    let complaint = shell.says("canary", "", 1);
    assert!(
        complaint.contains("claviger partner create canary --realm canary"),
        "{complaint}"
    );
    let complaint = shell.says("canary --limit 1s", "", 2);
    assert!(complaint.contains("--bound"), "{complaint}");
    for line in [
        "keys list --realm canary --endpoint a:1 --endpoint b:1",
        "keys list --realm canary --endpoint a:1,b:1",
    ] {
        let complaint = shell.says(line, "", 2);
        assert!(complaint.contains("several are given"), "{complaint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_without_an_endpoint_fails_and_the_canary_goes_on() {
    let test_store = TestStore::on(Engine::Sqlite);
    let socket = test_store.data().join("grpc.sock");
    let shell = shell(&test_store, &["--unix-socket", socket.to_str().unwrap()]);
    let proxy = Proxy::to(socket).await;
    let cut = proxy.address.to_string();
    let endpoints = [&*shell.program.address, &cut];
    let flags = format!(
        "--admin-endpoint {} --every 0s --timeout 1s",
        shell.program.address
    );
    let mut canary = Running::start(shell.canary(&endpoints, &flags));

    let mut until = async |what: &str, is_it: fn(&Value) -> bool| {
        eventually(what, async || canary.next().filter(is_it)).await
    };
    let good = until("a good round", |round| round["error"].is_null()).await;
    assert_eq!(good["endpoints"][1]["violations"], 0);
    for traffic in [Traffic::Cut, Traffic::Swallowed] {
        proxy.set(traffic);
        let failed = until("a failed round", |round| !round["error"].is_null()).await;
        assert_eq!(failed["error"]["code"], "UNAVAILABLE", "{failed}");
        assert!(
            failed["error"]["message"].as_str().unwrap().contains(&cut),
            "{failed}"
        );
        proxy.set(Traffic::Flows);
        until("a good round again", |round| round["error"].is_null()).await;
    }
    let (summary, code) = canary.stop("INT");
    assert_eq!(
        (&summary["type"], code),
        (&"summary".into(), Some(0)),
        "{summary}"
    );
    assert_eq!(summary["violations"], 0);
    assert!(summary["failed"].as_u64().unwrap() >= 2, "{summary}");
    assert_eq!(summary["keys_not_deleted"], serde_json::json!([]));
    shell.has_no_key();
}

/// Seen red without `OpenKeys::delete_all` after a signal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_is_stopped_at_any_moment_leaves_no_key() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell(&test_store, &[]);
    let mut api = shell.program.api();
    for (index, signal) in ["INT", "TERM", "INT", "TERM"].into_iter().enumerate() {
        let endpoints = [&*shell.program.address];
        let canary = Running::start(shell.canary(&endpoints, ""));
        if index % 2 == 0 {
            // In the middle of a round.
            eventually("a key is issued", async || {
                (!canary_keys(&mut api).await.is_empty()).then_some(())
            })
            .await;
        } else {
            // Where it may be that the request was sent and its answer did not come yet.
            let before = events(&mut api).await;
            eventually("a key is being issued", async || {
                (events(&mut api).await > before).then_some(())
            })
            .await;
        }
        let (summary, code) = canary.stop(signal);
        assert_eq!(
            (&summary["type"], code),
            (&"summary".into(), Some(0)),
            "{summary}"
        );
        shell.has_no_key();
    }
}

async fn canary_keys(api: &mut Api) -> Vec<String> {
    let in_realm = |request: &mut pb::ListKeysRequest| {
        let realm = &mut request.filter.as_mut().unwrap().realm;
        "canary".clone_into(realm);
    };
    list_keys(api, in_realm).await.unwrap()
}

async fn events(api: &mut Api) -> usize {
    let request = pb::ListEventsRequest {
        realm: "canary".to_owned(),
        ..Default::default()
    };
    let listed = api.keys.list_events(request).await.unwrap();
    listed.into_inner().events.len()
}

/// A server that has one verdict for every key.
struct Liar(Verdict);

impl Liar {
    /// Listens, and returns the address.
    async fn serve(verdict: Verdict) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder()
            .add_service(KeyVerifyServer::new(Self(verdict)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        address
    }
}

#[tonic::async_trait]
impl KeyVerify for Liar {
    type VerifyStreamStream = tokio_stream::Empty<Result<pb::VerifyStreamResponse, Status>>;

    async fn verify(
        &self,
        _: Request<pb::VerifyRequest>,
    ) -> Result<Response<pb::VerifyResponse>, Status> {
        Ok(Response::new(pb::VerifyResponse {
            verdict: self.0.into(),
            ..Default::default()
        }))
    }

    async fn verify_batch(
        &self,
        _: Request<pb::VerifyBatchRequest>,
    ) -> Result<Response<pb::VerifyBatchResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn verify_stream(
        &self,
        _: Request<tonic::Streaming<pb::VerifyStreamRequest>>,
    ) -> Result<Response<Self::VerifyStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn explain(
        &self,
        _: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Seen red with `judge` that returns nothing: the canary then says that one round failed and none was measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_breaks_a_promise_is_named_at_once() {
    let test_store = TestStore::on(Engine::Sqlite);
    let shell = shell(&test_store, &[]);
    let honest = &*shell.program.address;
    for (verdict, violation) in [
        (Verdict::Allowed, "allowed_after_confirmed"),
        (Verdict::Unknown, "unknown"),
    ] {
        let liar = Liar::serve(verdict).await;
        let flags =
            format!("--admin-endpoint {honest} --rounds 1 --timeout 2s --bound 500ms --limit 1s");
        let mut command = shell.canary(&[honest, &liar], &flags);
        let ended = tokio::task::spawn_blocking(move || lines(&mut command));
        let (lines, code, complaint) = ended.await.unwrap();
        assert_eq!(code, Some(1), "{complaint}");
        assert!(complaint.contains("broke a promise"), "{complaint}");
        let [broken, round, summary] = &lines[..] else {
            panic!("each promise is reported once: {lines:?}");
        };
        assert_eq!(broken["violation"], violation);
        assert_eq!(broken["endpoint"], format!("http://{liar}"));
        assert_eq!(broken["key_id"], round["key_id"]);
        assert!(broken["asked_seconds"].as_f64() < broken["answered_seconds"].as_f64());
        if verdict == Verdict::Allowed {
            assert!(broken["acknowledged_seconds"].as_f64() < broken["asked_seconds"].as_f64());
        }
        assert!(
            round["error"]["message"].as_str().unwrap().contains(&liar),
            "{round}"
        );
        let of = |endpoint: usize| {
            summary["endpoints"][endpoint]["violations"]
                .as_u64()
                .unwrap()
        };
        assert!(of(0) == 0 && of(1) > 1, "{summary}");
        shell.has_no_key();
    }
}
