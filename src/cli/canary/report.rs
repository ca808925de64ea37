//! What the canary prints, and its figures of all rounds.

use std::io;
use std::time::Duration;

use prost_types::Timestamp;
use serde_json::{Value, json};

use super::histogram::Histogram;
use super::open_keys::OpenKeys;
use super::round::{BrokenPromise, RoundResult};
use crate::cli::failure::Failure;
use crate::cli::flags;
use crate::cli::output::Output;
use crate::cli::table;
use crate::cli::text;
use crate::pb::claviger::v1::Wait;

/// The two ways to wait for a revocation, in the order of the tables.
pub(super) const WAITS: [Wait; 2] = [Wait::Committed, Wait::Everywhere];

/// Prints the rounds and adds them up. Its size does not depend on the number of rounds.
pub(super) struct Report<'a> {
    output: &'a Output,
    endpoints: Vec<EndpointFigures>,
    /// How long a revocation was waited for, for each of [`WAITS`].
    revocations: [Histogram; 2],
    rounds: u64,
    failed: u64,
    violations: u64,
    /// How many broken promises were reported in the round that is going on.
    reported: u64,
    /// Why nothing can be printed any more.
    broken: Option<io::Error>,
}

/// The figures of one endpoint.
struct EndpointFigures {
    name: String,
    /// From the acknowledgement of a revocation to the first denial, for each of [`WAITS`].
    revoke_to_deny: [Histogram; 2],
    unavailable: u64,
    violations: u64,
}

impl<'a> Report<'a> {
    /// Begins with no rounds.
    pub(super) fn new<'n>(output: &'a Output, endpoints: impl Iterator<Item = &'n str>) -> Self {
        let endpoints = endpoints.map(|name| EndpointFigures {
            name: name.to_owned(),
            revoke_to_deny: Default::default(),
            unavailable: 0,
            violations: 0,
        });
        Self {
            output,
            endpoints: endpoints.collect(),
            revocations: Default::default(),
            rounds: 0,
            failed: 0,
            violations: 0,
            reported: 0,
            broken: None,
        }
    }

    /// Prints which endpoints are asked. JSON names them in each round.
    pub(super) fn start(&mut self) {
        if !self.output.is_json() {
            let names: Vec<_> = self
                .endpoints
                .iter()
                .map(|endpoint| &*endpoint.name)
                .collect();
            let count = counted(names.len() as u64, "endpoint");
            let line = format!("asking {count}: {}", names.join(", "));
            self.print(&Value::Null, || line);
        }
    }

    /// Prints a broken promise.
    pub(super) fn violation(&mut self, broken: &BrokenPromise<'_>) {
        let BrokenPromise {
            violation,
            endpoint,
            key_id,
            answer,
            acknowledgement,
            denied,
        } = broken;
        self.reported += 1;
        let round = self.rounds + 1;
        let acknowledged = acknowledgement.map(|acknowledgement| acknowledgement.at);
        let time = now();
        let document = json!({
            "type": "violation",
            "time": time.to_string(),
            "violation": violation.name(),
            "round": round,
            "endpoint": endpoint,
            "key_id": key_id,
            "asked_seconds": answer.asked.as_secs_f64(),
            "answered_seconds": answer.answered.as_secs_f64(),
            "acknowledged_seconds": acknowledged.map(|at| at.as_secs_f64()),
            "denied_seconds": denied.map(|at| at.as_secs_f64()),
        });
        let also = [("revoked", acknowledged), ("denied", *denied)];
        let also = also
            .into_iter()
            .filter_map(|(what, at)| Some(format!(", {what} {}", short(at?))));
        self.print(&document, || {
            format!(
                "{}  VIOLATION  {endpoint}: {}: key {key_id}, round {round}; times since its issue: asked {}, answered \
                 {}{}",
                text::time(&time),
                violation.description(),
                short(answer.asked),
                short(answer.answered),
                also.collect::<String>(),
            )
        });
    }

    /// Adds a round and prints it. `cleanup` is why its key remains.
    pub(super) fn add_round(
        &mut self,
        result: &RoundResult,
        wait: Wait,
        changer: &str,
        cleanup: Option<&Failure>,
    ) {
        self.rounds += 1;
        self.reported = 0;
        self.failed += u64::from(result.failure.is_some());
        let wait_index = usize::from(wait == Wait::Everywhere);
        if let Some(revocation) = &result.revocation {
            self.revocations[wait_index].observe(revocation.took);
        }
        let acknowledgement = result
            .revocation
            .as_ref()
            .map(|revocation| revocation.acknowledgement);
        let mut slowest = Duration::ZERO;
        let mut endpoints = Vec::new();
        for (figures, record) in self.endpoints.iter_mut().zip(&result.records) {
            let took = acknowledgement.and_then(|at| record.revoke_to_deny(at));
            if let Some(took) = took {
                figures.revoke_to_deny[wait_index].observe(took);
                slowest = slowest.max(took);
            }
            figures.unavailable += record.unavailable;
            figures.violations += record.violations();
            self.violations += record.violations();
            endpoints.push(json!({
                "endpoint": figures.name,
                "revoke_to_deny_seconds": took.map(|took| took.as_secs_f64()),
                "answers": record.answers,
                "unavailable": record.unavailable,
                "violations": record.violations(),
            }));
        }

        let round = self.rounds;
        let time = now();
        let revocation = result.revocation.as_ref();
        let mut document = json!({
            "type": "round",
            "time": time.to_string(),
            "round": round,
            "key_id": result.key_id,
            "changed_at": changer,
            "wait": wait.as_str_name(),
            "revocation_seconds": revocation.map(|revocation| revocation.took.as_secs_f64()),
            "confirmed": revocation.map(|revocation| revocation.acknowledgement.confirmed),
            "effective_everywhere_time": revocation
                .and_then(|revocation| revocation.effective_everywhere_time.as_ref())
                .map(Timestamp::to_string),
            "endpoints": endpoints,
        });
        if let Some(failure) = &result.failure {
            document["error"] = failure.json()["error"].take();
        }
        if let Some(failure) = cleanup {
            document["cleanup_error"] = failure.json()["error"].take();
        }
        self.print(&document, || {
            let outcome = match (&result.failure, revocation) {
                (None, Some(revocation)) => format!(
                    "{} in {}, denied by all {} later",
                    wait_name(wait),
                    short(revocation.took),
                    short(slowest),
                ),
                (failure, _) => {
                    let why = failure.as_ref().map(Failure::message).unwrap_or_default();
                    format!("failed: {why}")
                }
            };
            let cleanup = cleanup.map(Failure::message);
            let cleanup = cleanup.map(|why| format!("; its key is not deleted yet: {why}"));
            let time = text::time(&time);
            format!(
                "{time}  round {round}  {outcome}{}",
                cleanup.unwrap_or_default()
            )
        });
    }

    fn print(&mut self, document: &Value, human: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = self.output.print_line(document, human).err();
        }
    }

    /// Whether nothing can be printed any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Whether no round so far was completed.
    pub(super) fn has_measured_nothing(&self) -> bool {
        self.rounds == self.failed
    }

    /// Prints the summary and the keys that remain. Fails if promises were broken, nothing was measured, or the output cannot be
    /// written.
    pub(super) fn finish(mut self, keys: &OpenKeys) -> Result<(), Failure> {
        // The round that was interrupted.
        self.violations += self.reported;
        let document = self.summary_json(keys);
        if self.output.is_json() {
            self.print(&document, String::new);
        } else {
            // Line by line, because control characters are escaped in each.
            for line in [""].into_iter().chain(self.summary().lines()) {
                self.print(&document, || line.to_owned());
            }
        }
        if let Some(error) = self
            .broken
            .as_ref()
            .filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
        {
            return Err(Failure::failed(format!("cannot write the output: {error}")));
        }
        if self.violations > 0 {
            return Err(Failure::failed(format!(
                "{} broke a promise",
                counted(self.violations, "answer")
            ))
            .hint("a server accepts revoked keys, or does not know keys that it must know; the lines above name it"));
        }
        let remaining: Vec<_> = keys
            .remaining()
            .map(|key| {
                let state = if key.is_revoked {
                    "revoked"
                } else {
                    "not revoked"
                };
                format!("{} ({state})", key.id)
            })
            .collect();
        if !remaining.is_empty() {
            return Err(Failure::failed(format!(
                "keys of the canary were not deleted: {}",
                remaining.join(", ")
            ))
            .hint("they expire within an hour of their issue; `claviger keys delete` deletes them now"));
        }
        if keys.may_have_unknown() {
            return Err(
                Failure::failed("no answer came to a request for a key, which may exist")
                    .hint("it expires within an hour; its label is canary=true"),
            );
        }
        if self.rounds > 0 && self.has_measured_nothing() {
            return Err(Failure::failed(
                "every round failed, so nothing was measured",
            ));
        }
        Ok(())
    }

    fn summary_json(&self, keys: &OpenKeys) -> Value {
        let endpoints = self.endpoints.iter().map(|endpoint| {
            json!({
                "endpoint": endpoint.name,
                "revoke_to_deny_seconds": figures(&endpoint.revoke_to_deny),
                "unavailable": endpoint.unavailable,
                "violations": endpoint.violations,
            })
        });
        let remaining = keys.remaining().map(|key| key.id.as_str());
        json!({
            "type": "summary",
            "time": now().to_string(),
            "rounds": self.rounds,
            "failed": self.failed,
            "violations": self.violations,
            "revocation_seconds": figures(&self.revocations),
            "endpoints": endpoints.collect::<Vec<_>>(),
            "keys_not_deleted": remaining.collect::<Vec<_>>(),
        })
    }

    fn summary(&self) -> String {
        let width = self.output.width();
        let mut parts = vec![format!(
            "{}, {} failed; {}",
            counted(self.rounds, "round"),
            text::grouped(self.failed),
            counted(self.violations, "violation"),
        )];
        let revocations = rows(None, &self.revocations);
        if !revocations.is_empty() {
            let header = ["REVOCATION", "ROUNDS", "P50", "P99", "MAX"];
            parts.push(table::simple(&header, revocations, width));
        }
        let denials = self.endpoints.iter();
        let denials: Vec<_> = denials
            .flat_map(|endpoint| rows(Some(&endpoint.name), &endpoint.revoke_to_deny))
            .collect();
        if !denials.is_empty() {
            let header = ["REVOKED TO DENIED", "WAIT", "ROUNDS", "P50", "P99", "MAX"];
            parts.push(table::simple(&header, denials, width));
        }
        let counts = self.endpoints.iter().map(|endpoint| {
            let counts = [endpoint.unavailable, endpoint.violations].map(text::grouped);
            [&[endpoint.name.clone()][..], &counts].concat()
        });
        parts.push(table::simple(
            &["ENDPOINT", "NO ANSWER", "VIOLATIONS"],
            counts,
            width,
        ));
        parts.join("\n\n")
    }
}

/// The rows of a table: a name, the way to wait, and the figures.
fn rows(name: Option<&str>, histograms: &[Histogram; 2]) -> Vec<Vec<String>> {
    filled(histograms)
        .map(|(wait, histogram)| {
            let figures = [
                wait_name(wait).to_owned(),
                text::grouped(histogram.count()),
                short(histogram.percentile(50)),
                short(histogram.percentile(99)),
                short(histogram.max()),
            ];
            name.map(str::to_owned).into_iter().chain(figures).collect()
        })
        .collect()
}

/// The figures as JSON, in seconds.
fn figures(histograms: &[Histogram; 2]) -> Vec<Value> {
    filled(histograms)
        .map(|(wait, histogram)| {
            json!({
                "wait": wait.as_str_name(),
                "count": histogram.count(),
                "p50": histogram.percentile(50).as_secs_f64(),
                "p99": histogram.percentile(99).as_secs_f64(),
                "max": histogram.max().as_secs_f64(),
            })
        })
        .collect()
}

/// The histograms with times in them.
fn filled(histograms: &[Histogram; 2]) -> impl Iterator<Item = (Wait, &Histogram)> {
    let of_waits = WAITS.into_iter().zip(histograms);
    of_waits.filter(|(_, histogram)| histogram.count() > 0)
}

fn now() -> Timestamp {
    Timestamp::from(flags::now())
}

fn wait_name(wait: Wait) -> &'static str {
    match wait {
        Wait::Everywhere => "everywhere",
        _ => "committed",
    }
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", text::grouped(count))
}

/// Formats a time with three digits or so.
fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if time.is_zero() {
        "0ms".to_owned()
    } else if seconds < 1.0 {
        format!("{:.1}ms", seconds * 1_000.0)
    } else {
        format!("{seconds:.2}s")
    }
}
