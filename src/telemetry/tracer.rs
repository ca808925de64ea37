//! Traces: spans of calls, in the traces that callers begin (W3C Trace Context), sent to a collector by OTLP.
//!
//! A span is made when its call is over, and only if it is sampled. Nothing waits for the collector: spans that it does not take are
//! dropped.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use clap::Args;
use hyper::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, Tracer as _, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tonic::transport::{ClientTlsConfig, Endpoint};

/// The most spans in a second. Whoever calls may choose that a call is sampled, and a span costs more than a Verify.
const SPANS_PER_SECOND: u64 = 1_000;

/// How long the exit of the process may wait for the collector.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The flags of traces.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Send traces to the OpenTelemetry collector at this URL, such as `http://127.0.0.1:4317`, by OTLP over gRPC. Without it
    /// there are no traces
    #[arg(long, env = "CLAVIGER_OTLP_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    pub otlp_endpoint: Option<String>,

    /// The share of calls to trace, from 0 to 1, of those whose caller does not say whether the call is sampled
    #[arg(
        long,
        env = "CLAVIGER_TRACE_SAMPLE_RATIO",
        value_name = "RATIO",
        default_value_t = 0.01,
        value_parser = ratio
    )]
    pub trace_sample_ratio: f64,
}

fn endpoint(text: &str) -> Result<String, String> {
    let problem = || "must be a URL such as http://127.0.0.1:4317 or https://HOST:4317".to_owned();
    let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|_| problem())?;
    let url = endpoint.uri();
    let Some(authority) = url
        .authority()
        .filter(|_| matches!(url.scheme_str(), Some("http" | "https")))
    else {
        return Err(problem());
    };
    // The URL is printed and logged.
    if authority.as_str().contains('@') || url.query().is_some() {
        return Err(
            "must have no user, password or query: set OTEL_EXPORTER_OTLP_HEADERS for a token of the collector"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: Option<f64> = text.parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "must be a number from 0 to 1, such as 0.01".to_owned())
}

/// Makes spans and sends them to a collector.
#[derive(Debug)]
pub struct Tracer {
    provider: SdkTracerProvider,
    spans: SdkTracer,
    propagator: TraceContextPropagator,
    rate: SpanRate,
}

/// The trace that a caller began; empty if it began none.
#[derive(Clone, Debug, Default)]
pub struct TraceParent(Context);

/// A call that is over.
pub struct TracedCall {
    /// The name of the span, such as `claviger.v1.KeyVerify/Verify`.
    pub name: String,
    /// The attributes of the span.
    pub attributes: Vec<KeyValue>,
    /// Whether the server failed.
    pub is_failure: bool,
}

impl TraceArgs {
    /// Checks that spans can be sent, apart from whether the collector answers.
    ///
    /// # Errors
    /// A message for the user.
    pub fn check(&self) -> Result<(), String> {
        let url = self.otlp_endpoint.as_deref();
        url.map_or(Ok(()), |url| collector(url).map(drop))
    }
}

impl Tracer {
    /// Starts to send spans, if a collector is configured. Must be called on a runtime, whose tasks send them.
    ///
    /// # Errors
    /// A message for the user.
    pub fn start(args: &TraceArgs) -> Result<Option<Arc<Self>>, String> {
        let Some(url) = &args.otlp_endpoint else {
            return Ok(None);
        };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(collector(url)?.connect_lazy())
            .build()
            .map_err(|error| format!("--otlp-endpoint: {error}"))?;
        let mut resource = Resource::builder();
        // The variable of OpenTelemetry, which is read already, may give another name.
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("claviger");
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let root = Sampler::TraceIdRatioBased(args.trace_sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .with_resource(resource.with_attribute(version).build())
            .build();
        Ok(Some(Arc::new(Self {
            spans: provider.tracer("claviger"),
            provider,
            propagator: TraceContextPropagator::new(),
            rate: SpanRate::default(),
        })))
    }

    /// Reads the trace that a caller began from the headers of its call (`traceparent`, `tracestate`).
    pub fn parent(&self, headers: &HeaderMap) -> TraceParent {
        let context = Context::new();
        TraceParent(
            self.propagator
                .extract_with_context(&context, &Headers(headers)),
        )
    }

    /// Makes the span of a call that took this time and is over, if the call is sampled. `call` describes the call.
    pub fn record(
        &self,
        TraceParent(parent): &TraceParent,
        took: Duration,
        call: impl FnOnce() -> TracedCall,
    ) {
        if !self.rate.has_room() {
            return;
        }
        let end = opentelemetry::time::now();
        let start = end.checked_sub(took).unwrap_or(end);
        // The name comes later, because most calls are not sampled.
        let builder = SpanBuilder::from_name("")
            .with_kind(SpanKind::Server)
            .with_start_time(start);
        let mut span = self.spans.build_with_context(builder, parent);
        if !span.is_recording() {
            return;
        }
        self.rate.count();
        let TracedCall {
            name,
            attributes,
            is_failure,
        } = call();
        span.update_name(name);
        span.set_attributes(attributes);
        if is_failure {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(end);
    }

    /// Sends the last spans, for at most three seconds. Blocks.
    pub fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            tracing::warn!(%error, "traces not sent: the last spans are lost");
        }
    }
}

/// How to reach a collector.
///
/// # Errors
/// A message for the user.
fn collector(url: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(url.to_owned());
    let endpoint = endpoint.map_err(|error| format!("--otlp-endpoint: {error}"))?;
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint);
    }
    let tls = ClientTlsConfig::new().with_native_roots();
    endpoint.tls_config(tls).map_err(|error| {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        format!("--otlp-endpoint: the certificates that this machine trusts cannot be read: {why}; install `ca-certificates`")
    })
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0
            .keys()
            .map(hyper::header::HeaderName::as_str)
            .collect()
    }
}

/// The number of spans in the current second. A few more may be made at its turn.
#[derive(Debug, Default)]
struct SpanRate {
    second: AtomicU64,
    spans: AtomicU64,
}

impl SpanRate {
    fn has_room(&self) -> bool {
        self.has_room_at(START.elapsed().as_secs())
    }

    fn has_room_at(&self, second: u64) -> bool {
        // Most calls only read, because all threads ask.
        if self.second.load(Ordering::Relaxed) != second {
            self.second.store(second, Ordering::Relaxed);
            self.spans.store(0, Ordering::Relaxed);
        }
        self.spans.load(Ordering::Relaxed) < SPANS_PER_SECOND
    }

    fn count(&self) {
        self.spans.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red with a count that never starts anew.
    #[test]
    fn a_second_has_a_limited_number_of_spans() {
        let rate = SpanRate::default();
        for second in [3, 4] {
            for _ in 0..SPANS_PER_SECOND {
                assert!(rate.has_room_at(second));
                rate.count();
            }
            assert!(!rate.has_room_at(second));
        }
    }

    #[test]
    fn a_ratio_and_an_endpoint_are_checked() {
        for (text, accepted) in [
            ("0", true),
            ("1", true),
            ("0.5", true),
            ("1.1", false),
            ("-0.1", false),
            ("NaN", false),
            ("", false),
        ] {
            assert_eq!(ratio(text).is_ok(), accepted, "{text}");
        }
        for (text, accepted) in [
            ("http://127.0.0.1:4317", true),
            ("https://collector.example:4317", true),
            ("collector:4317", false),
            ("grpc://collector:4317", false),
            ("https://user:word@collector:4317", false),
            ("https://collector:4317/?token=word", false),
            ("", false),
        ] {
            assert_eq!(endpoint(text).is_ok(), accepted, "{text}");
        }
    }
}
