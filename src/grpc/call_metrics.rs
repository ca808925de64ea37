//! What is counted about calls, and their spans: how each ended, and how long it took.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use opentelemetry::KeyValue;
use prost::Message;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::Code;

use crate::domain::ids::KeyId;
use crate::metrics::{Counter, Latency};
use crate::pb::DESCRIPTORS;
use crate::telemetry::{REQUEST_ID, TraceParent, TracedCall, Tracer, limited, request_id};

/// The codes of gRPC, each at the place of its number.
const CODES: usize = Code::Unauthenticated as usize + 1;

/// The methods that the server knows, and one that stands for all others.
#[derive(Debug)]
struct Methods {
    all: Vec<Method>,
    /// The place of each method in `all`, by its path.
    places: HashMap<String, usize, RandomState>,
}

/// A method, in the words of the gRPC ecosystem's metrics.
#[derive(Debug)]
pub struct Method {
    /// The service, with its package.
    pub service: String,
    /// The method.
    pub name: String,
    /// `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub kind: &'static str,
    is_administration: bool,
}

impl Methods {
    /// The methods of all services.
    fn new() -> Self {
        let descriptors = [
            DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut all = Vec::new();
        for descriptors in descriptors {
            let files = FileDescriptorSet::decode(descriptors)
                .expect("the compiled descriptors can be decoded");
            for file in files.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    all.extend(service.method.iter().map(|method| Method {
                        service: service_name.clone(),
                        name: method.name().to_owned(),
                        kind: kind(method),
                        is_administration: service_name.ends_with("Admin")
                            || method.name() == "Explain",
                    }));
                }
            }
        }
        let path = |method: &Method| format!("/{}/{}", method.service, method.name);
        let places = all.iter().map(path).zip(0..).collect();
        // A caller chooses the path, and so must not choose a label.
        all.push(Method {
            service: "unknown".to_owned(),
            name: "unknown".to_owned(),
            kind: "unary",
            is_administration: false,
        });
        Self { all, places }
    }

    fn place(&self, path: &str) -> usize {
        let place = self.places.get(path).copied();
        place.unwrap_or(self.all.len() - 1)
    }
}

fn kind(method: &MethodDescriptorProto) -> &'static str {
    match (method.client_streaming(), method.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

/// What one thread counts about its calls.
///
/// On cache lines of its own, because each call writes the count of its references too.
#[derive(Debug)]
#[repr(align(128))]
pub struct CallMetrics {
    methods: Arc<Methods>,
    /// In the order of the methods.
    calls: Box<[MethodCalls]>,
    tracer: Option<Arc<Tracer>>,
}

/// The calls of one method.
#[derive(Debug, Default)]
pub struct MethodCalls {
    handled: [Counter; CODES],
    latency: Latency,
}

impl MethodCalls {
    /// How many calls ended with each code.
    pub fn handled(&self) -> impl Iterator<Item = (Code, u64)> {
        let code = |code| Code::from_i32(i32::try_from(code).unwrap_or_default());
        self.handled
            .iter()
            .enumerate()
            .map(move |(number, handled)| (code(number), handled.get()))
    }

    /// How long the calls took.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }
}

impl CallMetrics {
    /// What each of so many threads counts. The tracer makes spans of the calls.
    pub fn for_threads(threads: usize, tracer: Option<&Arc<Tracer>>) -> Vec<Arc<Self>> {
        let methods = Arc::new(Methods::new());
        let new = |_| {
            Arc::new(Self {
                methods: Arc::clone(&methods),
                tracer: tracer.cloned(),
                calls: methods.all.iter().map(|_| MethodCalls::default()).collect(),
            })
        };
        (0..threads).map(new).collect()
    }

    /// Each method with its calls.
    pub fn calls(&self) -> impl Iterator<Item = (&Method, &MethodCalls)> {
        self.methods.all.iter().zip(&self.calls)
    }

    /// Begins to measure a call with this path and these headers.
    pub(super) fn begin(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> CallRecord {
        let parent = self.tracer.as_ref().map(|tracer| tracer.parent(headers));
        let request_id = request_id(headers).cloned();
        let is_named = parent.is_some() || request_id.is_some();
        CallRecord {
            method: self.methods.place(path),
            metrics: Arc::clone(self),
            begun: Instant::now(),
            is_over: false,
            names: is_named.then(|| Box::new(Names { parent, request_id })),
        }
    }
}

/// Measures one call. A call whose record is dropped before it is over was cancelled.
pub(super) struct CallRecord {
    metrics: Arc<CallMetrics>,
    method: usize,
    begun: Instant,
    is_over: bool,
    /// Boxed, because most calls have none, and the future of a call is moved several times.
    names: Option<Box<Names>>,
}

/// What the caller calls its request.
struct Names {
    /// The trace of the call; `None` if it is not traced.
    parent: Option<TraceParent>,
    request_id: Option<HeaderValue>,
}

impl CallRecord {
    /// The record of a call that becomes no span, because its caller is unknown.
    pub(super) fn untraced(mut self) -> Self {
        if let Some(names) = &mut self.names {
            names.parent = None;
        }
        self
    }

    /// Adds the id of the request to its answer.
    pub(super) fn add_request_id(&self, headers: &mut HeaderMap) {
        if let Some(id) = self.request_id() {
            headers.insert(REQUEST_ID, id.clone());
        }
    }

    /// Whether the method administers.
    pub(super) fn is_administration(&self) -> bool {
        self.metrics.methods.all[self.method].is_administration
    }

    /// Logs that an administrator is refused with this code: its key is not accepted, or may not do this.
    pub(super) fn log_refused_administrator(
        &self,
        code: Code,
        caller: Option<KeyId>,
        peer: Option<IpAddr>,
    ) {
        let is_refusal = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
        if !is_refusal || !self.is_administration() {
            return;
        }
        let method = &self.metrics.methods.all[self.method];
        // Few reasons, so that a caller without a key does not take the lines of others.
        limited!(
            (caller.is_some(), code as i32) => warn,
            service = method.service,
            method = method.name,
            code = code_name(code),
            key_id = caller.map(tracing::field::display),
            peer = peer.map(tracing::field::display),
            request_id = self.request_id().and_then(|id| id.to_str().ok()),
            "administrator refused"
        );
    }

    fn request_id(&self) -> Option<&HeaderValue> {
        self.names.as_ref()?.request_id.as_ref()
    }

    fn parent(&self) -> Option<&TraceParent> {
        self.names.as_ref()?.parent.as_ref()
    }

    /// Counts the call, which ended with this code. Only the first end counts.
    pub(super) fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let took = self.begun.elapsed();
        let calls = &self.metrics.calls[self.method];
        calls.handled[code as usize].count();
        calls.latency.observe(took);
        if let (Some(tracer), Some(parent)) = (&self.metrics.tracer, self.parent()) {
            tracer.record(parent, took, || self.traced(code));
        }
    }

    /// The call in the words of OpenTelemetry's semantic conventions for gRPC.
    fn traced(&self, code: Code) -> TracedCall {
        let Method { service, name, .. } = &self.metrics.methods.all[self.method];
        let mut attributes = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.clone()),
            KeyValue::new("rpc.method", name.clone()),
            KeyValue::new("rpc.grpc.status_code", code as i64),
        ];
        let request_id = self.request_id().and_then(|id| id.to_str().ok());
        attributes.extend(request_id.map(|id| {
            let name = "rpc.grpc.request.metadata.x-request-id";
            KeyValue::new(name, id.to_owned())
        }));
        TracedCall {
            name: format!("{service}/{name}"),
            attributes,
            is_failure: matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            ),
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// The name of a code as the value of the label `grpc_code`, which follows the Go library.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Arc<CallMetrics> {
        CallMetrics::for_threads(1, None).remove(0)
    }

    fn counted(metrics: &CallMetrics) -> Vec<(String, Code, u64)> {
        let of_method = |(method, calls): (&Method, &MethodCalls)| {
            let path = format!("{}/{} {}", method.service, method.name, method.kind);
            calls
                .handled()
                .filter(|(_, count)| *count > 0)
                .map(|(code, count)| (path.clone(), code, count))
                .collect::<Vec<_>>()
        };
        metrics.calls().flat_map(of_method).collect()
    }

    /// Seen red without `is_over`.
    #[test]
    fn a_call_is_counted_once_and_a_dropped_one_as_cancelled() {
        let metrics = metrics();
        let mut call = metrics.begin("/claviger.v1.KeyVerify/Verify", &HeaderMap::new());
        call.end(Code::Ok);
        call.end(Code::Internal);
        drop(call);
        drop(metrics.begin("/claviger.v1.KeyVerify/VerifyStream", &HeaderMap::new()));
        metrics
            .begin("/grpc.health.v1.Health/Watch", &HeaderMap::new())
            .end(Code::NotFound);
        let expected = [
            ("claviger.v1.KeyVerify/Verify unary", Code::Ok, 1),
            (
                "claviger.v1.KeyVerify/VerifyStream bidi_stream",
                Code::Cancelled,
                1,
            ),
            (
                "grpc.health.v1.Health/Watch server_stream",
                Code::NotFound,
                1,
            ),
        ];
        let expected = expected.map(|(method, code, count)| (method.to_owned(), code, count));
        assert_eq!(counted(&metrics), expected);
    }

    #[test]
    fn a_path_of_no_method_has_no_label_of_its_own() {
        let metrics = metrics();
        for path in ["/a/b", "/claviger.v1.KeyVerify/verify", "", "*"] {
            metrics
                .begin(path, &HeaderMap::new())
                .end(Code::Unimplemented);
        }
        let expected = [("unknown/unknown unary".to_owned(), Code::Unimplemented, 4)];
        assert_eq!(counted(&metrics), expected);
    }

    /// Names with which the Go library differs from tonic.
    #[test]
    fn each_code_has_the_name_that_the_go_library_uses() {
        let calls = MethodCalls::default();
        let names: Vec<_> = calls.handled().map(|(code, _)| code_name(code)).collect();
        assert_eq!(names.len(), 17);
        assert_eq!(
            (names[0], names[1], names[16]),
            ("OK", "Canceled", "Unauthenticated")
        );
    }
}
