//! Slices: each server takes turns under load with the one that is the unit, and what counts is the median over the turns.
//!
//! On a machine whose speed drifts, this is what stays: processor time of the server's process, user and system, over a few
//! ten thousand calls, and its ratio to that of another server that was measured just before it.

use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::load::Load;
use crate::questions::Questions;
use crate::servers::Running;

/// One thing to measure.
pub(crate) struct Subject<'s> {
    pub(crate) name: &'static str,
    pub(crate) server: &'s Running,
    pub(crate) bearer: &'s str,
    pub(crate) questions: Questions,
    /// How many calls make a slice.
    pub(crate) calls: usize,
    /// How many keys each call asks about.
    pub(crate) keys_per_call: usize,
}

/// What the slices of a subject came to, in microseconds of its server's processor time per key.
pub(crate) struct Costs {
    pub(crate) name: &'static str,
    each: Vec<f64>,
    /// Each beside the slice of the unit just before it.
    ratios: Vec<f64>,
}

impl Costs {
    /// Of one slice.
    pub(crate) fn microseconds(&self) -> f64 {
        median(&self.each)
    }

    /// How many times the unit.
    pub(crate) fn ratio(&self) -> f64 {
        median(&self.ratios)
    }
}

fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Measures all of them, so many rounds, after one that does not count. Each takes turns with the unit: what slows the
/// machine for a while slows both.
pub(crate) fn take_turns(
    unit: &Subject<'_>,
    subjects: &[Subject<'_>],
    rounds: usize,
) -> Result<Vec<Costs>, Box<dyn Error>> {
    let mut all: Vec<Costs> = subjects
        .iter()
        .map(|subject| Costs {
            name: subject.name,
            each: Vec::new(),
            ratios: Vec::new(),
        })
        .collect();
    for round in 0..=rounds {
        for (subject, costs) in subjects.iter().zip(&mut all) {
            let one = slice(unit, round)?;
            let cost =
                slice(subject, round).map_err(|error| format!("{}: {error}", subject.name))?;
            if round > 0 {
                costs.each.push(cost);
                costs.ratios.push(cost / one);
            }
        }
    }
    Ok(all)
}

fn slice(subject: &Subject<'_>, round: usize) -> Result<f64, Box<dyn Error>> {
    let Questions {
        method,
        file,
        length,
        answers_begin,
    } = subject.questions.clone();
    let load = Load {
        address: subject.server.address.clone(),
        bearer: subject.bearer.to_owned(),
        method: method.to_owned(),
        questions: file,
        length,
        // Of many keys, each round asks about others.
        first: round * subject.calls,
        calls: subject.calls,
        answers_begin,
    };
    let before = subject.server.cpu()?;
    let mut loading = Command::new(std::env::current_exe()?)
        .arg("load")
        .stdin(Stdio::piped())
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
    Ok(used * 1e6 / number(subject.calls * subject.keys_per_call))
}

/// How many there are, to divide by.
pub(crate) fn number(of: usize) -> f64 {
    u32::try_from(of).map_or(f64::INFINITY, f64::from)
}
