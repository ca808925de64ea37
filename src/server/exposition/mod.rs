//! The text that a scrape gets: everything that is counted, in the format `OpenMetrics`.
//!
//! `docs/metrics.md` explains each metric; a test compares the two. No label has a value that a caller chooses, and none names a key,
//! a partner or a path, because each value of a label is a time series that Prometheus keeps.

mod families;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tonic::Code;

use families::Families;

use crate::authority::Authority;
use crate::domain::clock::Clock;
use crate::domain::verdict::Verdict;
use crate::grpc::{CallMetrics, Method, code_name};
use crate::hashing::Roots;
use crate::http::GatewayMetrics;
use crate::metrics::{GatewayReason, LatencySum, Limit, Refusals};
use crate::mirror::Mirror;
use crate::readiness::Readiness;
use crate::store::{ErrorKind, SessionKind, StoreMetrics};
use crate::telemetry;
use crate::transport::{ThreadConnections, Tls};
use crate::usage::BacklogSize;

/// The codes that each method has before a call ended with them: those that alerts watch. The first sample of a series has no sample
/// before it, so Prometheus sees no increase up to it.
const CODES_FROM_START: [Code; 6] = [
    Code::Ok,
    Code::InvalidArgument,
    Code::PermissionDenied,
    Code::Internal,
    Code::Unavailable,
    Code::Unauthenticated,
];

/// What is read for a scrape.
pub(super) struct Sources {
    pub(super) readiness: watch::Receiver<Readiness>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) clock: Clock,
    pub(super) store: Arc<StoreMetrics>,
    pub(super) authority: Arc<Authority>,
    pub(super) roots: Roots,
    pub(super) usage: BacklogSize,
    /// Of each thread.
    pub(super) calls: Vec<Arc<CallMetrics>>,
    pub(super) gateways: Arc<GatewayMetrics>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) connections: ThreadConnections,
    pub(super) tls: Option<Arc<Tls>>,
}

/// Returns what writes the text for a scrape from these sources.
pub(super) fn exposition(sources: Sources) -> impl Fn() -> String + Send + Sync + 'static {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    move || {
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes all text");
        text
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = &mut Families(encoder);
        self.server(families)?;
        self.decisions(families)?;
        self.calls(families)?;
        self.gateways(families)?;
        self.limits(families)?;
        self.store(families)?;
        self.certificates(families)?;
        process::encode(families)
    }
}

impl Sources {
    fn server(&self, families: &mut Families<'_>) -> fmt::Result {
        // A gauge, because older parsers do not know the type `info`.
        families.gauges(
            "claviger_build_info",
            "The version of claviger.",
            [([("version", env!("CARGO_PKG_VERSION"))], 1)],
        )?;
        let is_ready = matches!(*self.readiness.borrow(), Readiness::Ready);
        families.gauge(
            "claviger_ready",
            "Whether this server should get requests.",
            u64::from(is_ready),
        )?;
        families.gauge(
            "claviger_held",
            "How many keys, partners, projects and realms have less than the database says, because lost changes took from them.",
            self.mirror.index().held() as u64,
        )?;
        let (keys, revision, lag) = {
            let index = self.mirror.index();
            let view = index.view();
            // Until the keys are loaded, there is no time to count from.
            let lag = view.is_loaded().then(|| {
                let lag = self.clock.now().as_micros() - view.as_of().as_micros();
                seconds(lag)
            });
            (index.len() as u64, view.revision().as_u64(), lag)
        };
        families.gauge("claviger_keys", "The number of keys in memory.", keys)?;
        families.gauge(
            "claviger_revision",
            "The revision that the decisions are made from.",
            revision,
        )?;
        if let Some(lag) = lag {
            families.gauge(
                "claviger_feed_lag_seconds",
                "The time since this server last knew that it had every change.",
                lag,
            )?;
        }
        self.lease(families)?;
        families.gauges(
            "claviger_connections",
            "The open connections, by thread.",
            self.connections
                .counts()
                .enumerate()
                .map(|(thread, count)| ([("thread", format!("verify-{thread}"))], count as u64)),
        )?;
        families.counter(
            "claviger_log_lines_lost",
            "Lines of the log that could not be written.",
            telemetry::lost_lines(),
        )?;
        families.gauge(
            "claviger_usage_backlog_entries",
            "Counts of usage that wait to be written.",
            self.usage.get() as u64,
        )
    }

    fn lease(&self, families: &mut Families<'_>) -> fmt::Result {
        let lease = self.mirror.lease();
        if !lease.has_end() {
            return Ok(());
        }
        families.gauge(
            "claviger_lease_left_seconds",
            "How long this server may still say allowed without news from the database.",
            lease.left().as_secs_f64(),
        )?;
        families.gauge(
            "claviger_lease_length_seconds",
            "The length of the leases of all servers that share the database.",
            lease.terms().length.as_secs_f64(),
        )?;
        if let Some(age) = lease.heartbeat_age() {
            families.gauge(
                "claviger_heartbeat_age_seconds",
                "The time since the sending of the last heartbeat that the database answered.",
                age.as_secs_f64(),
            )?;
        }
        Ok(())
    }

    fn decisions(&self, families: &mut Families<'_>) -> fmt::Result {
        let decisions = self.mirror.index().decisions();
        families.counters(
            "claviger_verdicts",
            "Verdicts on API keys, by realm.",
            decisions.iter().flat_map(|(realm, decisions)| {
                decisions.verdicts().map(move |(verdict, count)| {
                    let labels = [("realm", realm.to_string()), ("verdict", name(verdict))];
                    (labels, count)
                })
            }),
        )?;
        families.counters(
            "claviger_gateway_decisions",
            "Decisions on requests at gateways, by realm and reason.",
            decisions.iter().flat_map(|(realm, decisions)| {
                decisions.gateway_reasons().map(move |(reason, count)| {
                    let reason = match reason {
                        GatewayReason::Key(verdict) => name(verdict),
                        GatewayReason::Public => "public".to_owned(),
                        GatewayReason::NoKey => "no_key".to_owned(),
                        GatewayReason::AddressUnknown => "address_unknown".to_owned(),
                        GatewayReason::Undecided => "undecided".to_owned(),
                    };
                    ([("realm", realm.to_string()), ("reason", reason)], count)
                })
            }),
        )
    }

    fn calls(&self, families: &mut Families<'_>) -> fmt::Result {
        let mut handled: BTreeMap<(&str, &str, &str, &str), u64> = BTreeMap::new();
        let mut took: BTreeMap<(&str, &str, &str), LatencySum> = BTreeMap::new();
        for (
            Method {
                service,
                name,
                kind,
                ..
            },
            calls,
        ) in self.calls.iter().flat_map(|thread| thread.calls())
        {
            took.entry((kind, service, name))
                .or_default()
                .add(calls.latency());
            for (code, count) in calls.handled() {
                let labels = (*kind, service.as_str(), name.as_str(), code_name(code));
                *handled.entry(labels).or_default() += count;
            }
        }
        // Of 17 codes a method has few.
        let from_start = CODES_FROM_START.map(code_name);
        handled.retain(|(.., code), count| *count > 0 || from_start.contains(code));
        families.counters(
            "grpc_server_handled",
            "Calls that ended, by method and code.",
            handled
                .into_iter()
                .map(|((kind, service, name, code), count)| {
                    let labels = [
                        ("grpc_type", kind),
                        ("grpc_service", service),
                        ("grpc_method", name),
                        ("grpc_code", code),
                    ];
                    (labels, count)
                }),
        )?;
        families.histograms(
            "grpc_server_handling_seconds",
            "How long calls took, from their headers to the answer, or to the end of a stream.",
            took.into_iter().filter(|(_, took)| took.count() > 0).map(
                |((kind, service, name), took)| {
                    let labels = [
                        ("grpc_type", kind),
                        ("grpc_service", service),
                        ("grpc_method", name),
                    ];
                    (labels, took)
                },
            ),
        )
    }

    fn gateways(&self, families: &mut Families<'_>) -> fmt::Result {
        families.counters(
            "claviger_gateway_http_requests",
            "Questions of gateways over HTTP, by kind of gateway and status of the answer.",
            self.gateways.answers().map(|(gateway, status, count)| {
                (
                    [
                        ("gateway", gateway.to_owned()),
                        ("code", status.to_string()),
                    ],
                    count,
                )
            }),
        )?;
        families.histograms(
            "claviger_gateway_http_request_duration_seconds",
            "How long the answers to gateways over HTTP took.",
            self.gateways
                .took()
                .filter(|(_, took)| took.count() > 0)
                .map(|(gateway, took)| ([("gateway", gateway)], took)),
        )
    }

    fn limits(&self, families: &mut Families<'_>) -> fmt::Result {
        families.counters(
            "claviger_refusals",
            "Connections, calls and changes that were refused because of a limit.",
            Limit::ALL.map(|limit| ([("limit", limit.as_str())], self.refusals.of(limit))),
        )?;
        families.gauges(
            "claviger_queue_waiting",
            "Requests of administrators that wait for their turn.",
            self.authority
                .waiting()
                .map(|(queue, count)| ([("queue", queue.label())], count as u64)),
        )?;
        families.counter(
            "claviger_argon2_hashes",
            "Argon2 hashes of new API keys that were computed.",
            self.roots.made(),
        )
    }

    fn store(&self, families: &mut Families<'_>) -> fmt::Result {
        let kind_name = |kind| match kind {
            SessionKind::Read => "read",
            SessionKind::Feed => "feed",
            SessionKind::Write => "write",
        };
        families.histograms(
            "claviger_store_transaction_duration_seconds",
            "How long transactions took, from the wait for a connection to their end.",
            SessionKind::ALL.map(|kind| {
                let took = LatencySum::of([self.store.took(kind)]);
                ([("kind", kind_name(kind))], took)
            }),
        )?;
        let error_name = |kind| match kind {
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Busy => "busy",
            ErrorKind::Data => "data",
            ErrorKind::CommitUnknown => "commit_unknown",
        };
        families.counters(
            "claviger_store_errors",
            "Accesses to the database that failed.",
            ErrorKind::ALL.map(|kind| ([("error", error_name(kind))], self.store.failed(kind))),
        )
    }

    fn certificates(&self, families: &mut Families<'_>) -> fmt::Result {
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        families.gauge(
            "claviger_certificate_expiry_timestamp_seconds",
            "When the server's certificate expires, in seconds since 1970.",
            seconds(tls.validity().end.as_micros()),
        )?;
        families.counters(
            "claviger_tls_handshake_failures",
            "TLS handshakes that failed, by reason.",
            tls.failures()
                .map(|(reason, count)| ([("reason", reason)], count)),
        )?;
        families.counter(
            "claviger_certificate_reloads",
            "How often the certificates were replaced.",
            tls.replaced(),
        )?;
        families.gauge(
            "claviger_certificate_reload_failing",
            "Whether the files of the certificates have changed and cannot be used.",
            u64::from(tls.is_stale()),
        )
    }
}

fn seconds(micros: i64) -> f64 {
    Duration::from_micros(micros.max(0).unsigned_abs()).as_secs_f64()
}

/// The name of a verdict as the value of a label.
fn name(verdict: Verdict) -> String {
    let name = verdict.as_str();
    name.strip_prefix("VERDICT_")
        .unwrap_or(name)
        .to_ascii_lowercase()
}
