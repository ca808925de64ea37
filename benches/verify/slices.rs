//! The measurement: each server alternates under load with the reference server, and the result is the median of its slices.
//!
//! On a machine whose speed varies, two values are still reliable: the processor time of the server's process, user and system,
//! over a few ten thousand calls, and its ratio to that of the reference server, measured just before.

use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::load::{Latencies, Load, Protocol, Shape};
use crate::questions::Questions;
use crate::seed::Seeded;
use crate::servers::ServerProcess;

/// One measured combination of a server and calls.
pub(crate) struct Subject<'s> {
    pub(crate) name: &'static str,
    pub(crate) server: &'s ServerProcess,
    pub(crate) bearer: &'s str,
    pub(crate) questions: Questions,
    /// The number of calls in one slice.
    pub(crate) calls: usize,
    /// The number of keys in each call.
    pub(crate) keys_per_call: usize,
    pub(crate) shape: Shape,
}

impl<'s> Subject<'s> {
    /// Calls that ask about one key each.
    pub(crate) fn new(
        name: &'static str,
        server: &'s ServerProcess,
        seeded: &'s Seeded,
        questions: Questions,
        calls: usize,
    ) -> Self {
        Self {
            name,
            server,
            bearer: &seeded.gateway_key,
            questions,
            calls,
            keys_per_call: 1,
            shape: Shape::USUAL,
        }
    }
}

/// The results of a subject's slices, in microseconds of the server's processor time per key.
pub(crate) struct Costs {
    pub(crate) name: &'static str,
    each: Vec<f64>,
    /// The ratio of each slice to the slice of the reference just before it.
    ratios: Vec<f64>,
    latencies: Vec<Latencies>,
}

impl Costs {
    /// The median cost of a key, in microseconds.
    pub(crate) fn microseconds(&self) -> f64 {
        median(&self.each)
    }

    /// The median ratio to the reference.
    pub(crate) fn ratio(&self) -> f64 {
        median(&self.ratios)
    }

    /// The medians over the slices of the median latency and of the 99th percentile, in microseconds.
    pub(crate) fn latencies(&self) -> Latencies {
        let of = |value: fn(&Latencies) -> f64| {
            median(&self.latencies.iter().map(value).collect::<Vec<_>>())
        };
        Latencies {
            p50: of(|latencies| latencies.p50),
            p99: of(|latencies| latencies.p99),
        }
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Measures all subjects for this number of rounds, after a round to warm up. Each slice alternates with one of the reference,
/// so that a temporarily slow machine slows both.
pub(crate) fn measure_alternately(
    reference: &Subject<'_>,
    subjects: &[Subject<'_>],
    rounds: usize,
) -> Result<Vec<Costs>, Box<dyn Error>> {
    let mut all: Vec<Costs> = subjects
        .iter()
        .map(|subject| Costs {
            name: subject.name,
            each: Vec::new(),
            ratios: Vec::new(),
            latencies: Vec::new(),
        })
        .collect();
    for round in 0..=rounds {
        for (subject, costs) in subjects.iter().zip(&mut all) {
            let (unit, _) = slice(reference, round)?;
            let (cost, latencies) =
                slice(subject, round).map_err(|error| format!("{}: {error}", subject.name))?;
            if round > 0 {
                costs.each.push(cost);
                costs.ratios.push(cost / unit);
                costs.latencies.push(latencies);
            }
        }
    }
    Ok(all)
}

/// Runs one slice, and returns the processor time per key in microseconds, and the latencies of the calls.
fn slice(subject: &Subject<'_>, round: usize) -> Result<(f64, Latencies), Box<dyn Error>> {
    let Questions {
        method,
        protocol,
        file,
        length,
        answers_begin,
    } = subject.questions.clone();
    let load = Load {
        address: match protocol {
            Protocol::Http1 => subject.server.http_address.clone(),
            Protocol::Calls | Protocol::Stream => subject.server.address.clone(),
        },
        bearer: subject.bearer.to_owned(),
        method: method.to_owned(),
        questions: file,
        length,
        // With many keys, each round uses other keys.
        first: round * subject.calls,
        calls: subject.calls,
        answers_begin,
        shape: subject.shape,
        protocol,
        certificate: subject.server.certificate.clone(),
    };
    let before = subject.server.cpu()?;
    let mut loading = Command::new(std::env::current_exe()?)
        .arg("load")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = loading.stdin.take().ok_or("no input")?;
    input.write_all(&serde_json::to_vec(&load)?)?;
    drop(input);
    let output = loading.wait_with_output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let used = subject.server.cpu()? - before;
    let cost = used * 1e6 / number(subject.calls * subject.keys_per_call);
    Ok((cost, serde_json::from_slice(&output.stdout)?))
}

/// Converts a count into a divisor.
pub(crate) fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
