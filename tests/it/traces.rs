//! Traces and request ids of the real program: what a collector gets, what callers get back, and what is in the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use claviger::pb::claviger::v1 as pb;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AttributeValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use pb::Verdict;
use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::fixtures::{
    Api, Engine, Program, TestStore, eventually, forward_auth, hex_of, issue_request,
    verify_request,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const REQUEST: &str = "b6d6b5a2-2b9c-4f2e-9d5c-1d7d9f3a0c11";

/// A collector that keeps all spans.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.received.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A span as the tests look at it.
#[derive(Clone, Debug)]
struct Received {
    name: String,
    trace: String,
    parent: String,
    attributes: BTreeMap<String, String>,
    is_failure: bool,
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match &value.as_ref().unwrap().value {
        Some(AttributeValue::StringValue(text)) => text.clone(),
        Some(AttributeValue::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let entries = attributes.iter();
    entries
        .map(|entry| (entry.key.clone(), text(&entry.value)))
        .collect()
}

impl Collector {
    pub(crate) async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        (collector, format!("http://{address}"))
    }

    /// Everything that it has received, as it was sent.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let received = self.received.lock().unwrap();
        received.iter().flat_map(Message::encode_to_vec).collect()
    }

    fn spans(&self) -> Vec<Received> {
        let received = self.received.lock().unwrap();
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        let spans = resources.flat_map(|resource| {
            let attributes = texts(&resource.resource.as_ref().unwrap().attributes);
            assert_eq!(attributes["service.name"], "claviger");
            assert_eq!(attributes["service.version"], env!("CARGO_PKG_VERSION"));
            resource.scope_spans.iter().flat_map(|scope| &scope.spans)
        });
        spans
            .map(|span| Received {
                name: span.name.clone(),
                trace: hex_of(&span.trace_id),
                parent: hex_of(&span.parent_span_id),
                attributes: texts(&span.attributes),
                is_failure: span.status.as_ref().is_some_and(|status| status.code == 2),
            })
            .collect()
    }

    /// Waits for this many spans.
    async fn receives(&self, spans: usize) -> Vec<Received> {
        eventually("the spans arrive", async || {
            let found = self.spans();
            (found.len() >= spans).then_some(found)
        })
        .await
    }
}

fn with_headers<T>(message: T, headers: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// A server that sends its spans to a collector, at the latest when it stops.
async fn traced(test_store: &TestStore, flags: &[&str]) -> (Collector, Program, Api) {
    let (collector, url) = Collector::start().await;
    let mut all = vec!["--otlp-endpoint", &url, "--drain-delay", "0s"];
    all.extend(flags);
    let program = Program::serve(test_store, &all);
    let mut api = program.api();
    api.make_demo().await;
    (collector, program, api)
}

async fn stopped(mut program: Program) {
    program.signal("TERM");
    let stopped = tokio::task::spawn_blocking(move || program.wait());
    assert!(stopped.await.unwrap().success());
}

/// A caller's trace goes on, with a span for each sampled call. Seen red with a root for each span, with spans of calls that the
/// caller does not sample, and with spans that are lost at a stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_spans_of_the_traces_that_their_callers_sample() {
    let test_store = TestStore::on(Engine::Sqlite);
    let (collector, program, mut api) = traced(
        &test_store,
        &["--trace-sample-ratio", "0", "--gateway", "nginx"],
    )
    .await;
    let key = api.issue().await.plain_key;
    let sampled = traceparent("01");
    let headers = [("traceparent", sampled.as_str()), ("x-request-id", REQUEST)];
    let verified = api
        .verify
        .verify(with_headers(verify_request(&key), &headers))
        .await;
    assert_eq!(verified.unwrap().into_inner().verdict(), Verdict::Allowed);
    let not_sampled = traceparent("00");
    let headers = [("traceparent", not_sampled.as_str())];
    api.verify
        .verify(with_headers(verify_request(&key), &headers))
        .await
        .unwrap();
    api.verify.verify(verify_request(&key)).await.unwrap();
    let headers = [("traceparent", sampled.as_str())];
    api.keys
        .issue_key(with_headers(issue_request(), &headers))
        .await
        .unwrap();
    let unknown = pb::GetRealmRequest {
        realm_id: "unknown".to_owned(),
    };
    api.realms
        .get_realm(with_headers(unknown, &headers))
        .await
        .unwrap_err();
    // Somebody without a key chooses nothing.
    let url = format!("http://{}", program.address);
    let mut health = HealthClient::new(Endpoint::from_shared(url).unwrap().connect_lazy());
    health
        .check(with_headers(HealthCheckRequest::default(), &headers))
        .await
        .unwrap();
    let mut stranger = program.api().with_key("nonsense");
    let question = with_headers(verify_request(&key), &headers);
    assert!(stranger.verify.verify(question).await.is_err());
    let operator = program.operator();
    for gateway_key in [operator.as_str(), "nonsense"] {
        forward_auth(&program.http, gateway_key, "demo", "/", &headers).await;
    }
    stopped(program).await;

    let spans = collector.receives(4).await;
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    let expected = [
        "claviger.v1.KeyVerify/Verify",
        "claviger.v1.KeyAdmin/IssueKey",
        "claviger.v1.RealmAdmin/GetRealm",
        "/auth/nginx",
    ];
    assert_eq!(names, expected);
    for span in &spans {
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, PARENT));
        assert!(!span.is_failure, "{span:?}");
    }
    let attributes = |index: usize, name: &str| spans[index].attributes[name].clone();
    assert_eq!(attributes(0, "rpc.system"), "grpc");
    assert_eq!(attributes(0, "rpc.grpc.status_code"), "0");
    assert_eq!(
        attributes(0, "rpc.grpc.request.metadata.x-request-id"),
        REQUEST
    );
    assert_eq!(attributes(2, "rpc.grpc.status_code"), "5");
    assert_eq!(attributes(3, "http.response.status_code"), "401");
}

/// Of calls without a trace, a share begins one. Seen red with a share that does not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_other_calls_begins_a_trace() {
    let test_store = TestStore::on(Engine::Sqlite);
    let (collector, program, mut api) = traced(&test_store, &["--trace-sample-ratio", "0.5"]).await;
    for _ in 0..400 {
        api.ask("demo_live_x").await;
    }
    stopped(program).await;
    let verified = collector.receives(1).await;
    let verified = verified
        .iter()
        .filter(|span| span.name.ends_with("/Verify"));
    let count = verified.clone().count();
    assert!((130..270).contains(&count), "{count} of 400");
    assert!(verified.clone().all(|span| span.parent.is_empty()));
}

/// A collector that is away delays nothing, neither calls nor the stop, and is told of. Seen red without the log of the library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_delays_nothing() {
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = [
        "--otlp-endpoint",
        "http://127.0.0.1:1",
        "--trace-sample-ratio",
        "1",
        "--drain-delay",
        "0s",
    ];
    let program = Program::serve(&test_store, &flags);
    let mut api = program.api();
    api.make_demo().await;
    for _ in 0..3_000 {
        assert_eq!(api.verdict("demo_live_x").await, Verdict::Malformed);
    }
    let log = Arc::clone(&program.log);
    stopped(program).await;
    // Otherwise nobody would know why there are no traces.
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let is_told = |line: &str| {
        let has_level = line.contains("\"ERROR\"") || line.contains("\"WARN\"");
        has_level && line.contains("opentelemetry")
    };
    assert!(log.lines().any(is_told), "{log}");
}

/// The id of a request comes back, and is in the lines about it. Seen red without the span around use cases, and without the field
/// in the line about gateways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_comes_back_and_is_in_the_log() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &["--gateway", "nginx"]);
    let mut api = program.api();
    api.make_demo().await;
    let sampled = traceparent("00");
    let headers = [("x-request-id", REQUEST), ("traceparent", sampled.as_str())];
    let id = |metadata: &tonic::metadata::MetadataMap| {
        metadata
            .get("x-request-id")
            .map(|id| id.to_str().unwrap().to_owned())
    };
    let issued = api
        .keys
        .issue_key(with_headers(issue_request(), &headers))
        .await
        .unwrap();
    assert_eq!(id(issued.metadata()).as_deref(), Some(REQUEST));
    let key = issued.into_inner().plain_key;
    let verified = api
        .verify
        .verify(with_headers(verify_request(&key), &headers))
        .await
        .unwrap();
    assert_eq!(id(verified.metadata()).as_deref(), Some(REQUEST));
    let mut stranger = program.api().with_key("nonsense");
    let refused = stranger
        .verify
        .verify(with_headers(verify_request(&key), &headers))
        .await;
    assert_eq!(
        id(refused.err().unwrap().metadata()).as_deref(),
        Some(REQUEST)
    );
    let without = api.verify.verify(verify_request(&key)).await.unwrap();
    assert_eq!(id(without.metadata()), None);
    // An API key in the wrong place is no id.
    let headers = [("x-request-id", key.as_str())];
    let wrong = api
        .verify
        .verify(with_headers(verify_request(&key), &headers))
        .await
        .unwrap();
    assert_eq!(id(wrong.metadata()), None);
    let headers = [("x-request-id", REQUEST)];
    let answer = forward_auth(&program.http, "nonsense", "demo", "/", &headers).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.contains(&format!("x-request-id: {REQUEST}")),
        "{answer}"
    );

    let line = async |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        eventually(what, async || {
            let log = String::from_utf8(program.log.lock().unwrap().clone()).unwrap();
            assert!(!log.contains(&key), "no key is logged");
            let lines = log
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            lines.into_iter().find(|line| is_it(line))
        })
        .await
    };
    let issued = line("the change", &|line| line["span"]["request_id"] == REQUEST).await;
    assert_eq!(issued["span"]["trace_id"], TRACE);
    assert_eq!(issued["kind"], "key.issued", "{issued}");
    let misconfigured = line("the gateway", &|line| {
        line["message"] == "gateway misconfigured"
    });
    assert_eq!(misconfigured.await["request_id"], REQUEST);
}
