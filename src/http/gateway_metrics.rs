//! What is counted about the questions of gateways over HTTP, and their spans.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use clap::ValueEnum;
use opentelemetry::KeyValue;

use crate::config::GatewayKind;
use crate::metrics::{Counter, Latency, LatencySum, Sharded};
use crate::telemetry::{REQUEST_ID, TraceParent, TracedCall, Tracer, request_id};

/// The first status, and the number of them.
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 500;

/// The kinds of gateways, and one that stands for a path that names none.
const KINDS: usize = 5;

/// The answers to gateways, counted by each thread for itself.
#[derive(Debug, Default)]
pub struct GatewayMetrics {
    kinds: Sharded<[KindMetrics; KINDS]>,
    tracer: Option<Arc<Tracer>>,
}

/// Measures one question of a gateway.
pub(super) struct QuestionRecord<'m> {
    metrics: &'m GatewayMetrics,
    begun: Instant,
    parent: Option<TraceParent>,
    /// Whether the gateway has proven its key.
    is_proven: bool,
    request_id: Option<HeaderValue>,
}

#[derive(Debug)]
struct KindMetrics {
    answers: [Counter; STATUSES],
    took: Latency,
}

impl Default for KindMetrics {
    fn default() -> Self {
        Self {
            answers: std::array::from_fn(|_| Counter::default()),
            took: Latency::default(),
        }
    }
}

impl GatewayMetrics {
    /// Counts answers. The tracer makes spans of them.
    pub fn new(tracer: Option<Arc<Tracer>>) -> Self {
        Self {
            kinds: Sharded::default(),
            tracer,
        }
    }

    /// Begins to measure a question with these headers.
    pub(super) fn begin(&self, headers: &HeaderMap) -> QuestionRecord<'_> {
        QuestionRecord {
            metrics: self,
            begun: Instant::now(),
            parent: self.tracer.as_ref().map(|tracer| tracer.parent(headers)),
            is_proven: false,
            request_id: request_id(headers).cloned(),
        }
    }

    /// How many answers each kind of gateway got, by status. The status of a misconfigured gateway is there before the first of them,
    /// because Prometheus sees no increase up to the first sample of a series.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        kinds().flat_map(move |(kind, name)| {
            (FIRST_STATUS..)
                .zip(0..STATUSES)
                .filter_map(move |(status, index)| {
                    let answers = self.kinds.all().map(|all| all[kind].answers[index].get());
                    let count: u64 = answers.sum();
                    let is_shown = count > 0 || status == StatusCode::INTERNAL_SERVER_ERROR;
                    is_shown.then_some((name, status, count))
                })
        })
    }

    /// How long the answers took.
    pub fn took(&self) -> impl Iterator<Item = (&'static str, LatencySum)> {
        kinds().map(|(kind, name)| {
            let took = LatencySum::of(self.kinds.all().map(|all| &all[kind].took));
            (name, took)
        })
    }
}

impl QuestionRecord<'_> {
    /// Lets the question become a span, because the gateway has proven its key.
    pub(super) fn proven(&mut self) {
        self.is_proven = true;
    }

    /// Counts the answer to a gateway of this kind, and adds the id of the request to it. A path that is wrong may name no kind.
    pub(super) fn end(self, kind: Option<GatewayKind>, answer: &mut Response<Body>) {
        let status = answer.status();
        let took = self.begun.elapsed();
        let metrics = &self.metrics.kinds.here()[place(kind)];
        let index = usize::from(status.as_u16().saturating_sub(FIRST_STATUS));
        metrics.answers[index.min(STATUSES - 1)].count();
        metrics.took.observe(took);
        if let (Some(tracer), Some(parent)) = (&self.metrics.tracer, &self.parent)
            && self.is_proven
        {
            tracer.record(parent, took, || self.traced(kind, status));
        }
        if let Some(id) = self.request_id {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
    }

    /// The question in the words of OpenTelemetry's semantic conventions for HTTP.
    fn traced(&self, kind: Option<GatewayKind>, status: StatusCode) -> TracedCall {
        let name = kind.map_or(UNKNOWN, name);
        let mut attributes = vec![
            KeyValue::new("http.route", "/auth/{kind}/{realm}/{environment}"),
            KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            KeyValue::new("claviger.gateway", name),
        ];
        let request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok());
        attributes.extend(request_id.map(|id| {
            let name = "http.request.header.x-request-id";
            KeyValue::new(name, id.to_owned())
        }));
        TracedCall {
            name: format!("/auth/{name}"),
            attributes,
            is_failure: status == StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn place(kind: Option<GatewayKind>) -> usize {
    kind.map_or(KINDS - 1, |kind| kind as usize)
}

/// The value of the label of a kind.
fn name(kind: GatewayKind) -> &'static str {
    match kind {
        GatewayKind::Nginx => "nginx",
        GatewayKind::Caddy => "caddy",
        GatewayKind::Traefik => "traefik",
        GatewayKind::Envoy => "envoy",
    }
}

/// The value of the label of a path that names no kind.
const UNKNOWN: &str = "unknown";

/// The places of the kinds, with the values of their label.
fn kinds() -> impl Iterator<Item = (usize, &'static str)> {
    let kinds = GatewayKind::value_variants().iter();
    let kinds = kinds.map(|kind| (place(Some(*kind)), name(*kind)));
    kinds.chain([(place(None), UNKNOWN)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_kind_and_status() {
        let metrics = GatewayMetrics::default();
        for (kind, status) in [
            (Some(GatewayKind::Envoy), 200),
            (Some(GatewayKind::Envoy), 200),
            (Some(GatewayKind::Nginx), 401),
            (None, 500),
            (None, 999),
        ] {
            let mut answer = Response::builder()
                .status(status)
                .body(Body::empty())
                .unwrap();
            metrics.begin(&HeaderMap::new()).end(kind, &mut answer);
        }
        let answers: Vec<_> = metrics.answers().collect();
        let expected = [
            ("nginx", 401, 1),
            ("nginx", 500, 0),
            ("caddy", 500, 0),
            ("traefik", 500, 0),
            ("envoy", 200, 2),
            ("envoy", 500, 0),
            ("unknown", 500, 1),
            ("unknown", 599, 1),
        ];
        assert_eq!(answers, expected);
        let took: Vec<_> = metrics
            .took()
            .map(|(kind, took)| (kind, took.count()))
            .collect();
        let expected = [
            ("nginx", 1),
            ("caddy", 0),
            ("traefik", 0),
            ("envoy", 2),
            ("unknown", 2),
        ];
        assert_eq!(took, expected);
    }
}
