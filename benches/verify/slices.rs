//! Slices: the servers under comparison take turns under load, and what each call cost its server is the median over them.
//!
//! On a machine whose speed drifts, this is what stays: processor time of the server's process, user and system, over a few
//! ten thousand calls, and its ratio to that of another server that was measured in turn with it.

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

/// What a slice after the other came to, in microseconds of the server's processor time per key.
pub(crate) struct Costs {
    pub(crate) name: &'static str,
    each: Vec<f64>,
}

impl Costs {
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.each.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        }
    }
}

/// Measures all of them in turn, so many rounds, after one that does not count.
pub(crate) fn take_turns(
    subjects: &[Subject<'_>],
    rounds: usize,
) -> Result<Vec<Costs>, Box<dyn Error>> {
    let mut all: Vec<Costs> = subjects
        .iter()
        .map(|subject| Costs {
            name: subject.name,
            each: Vec::new(),
        })
        .collect();
    for round in 0..=rounds {
        for (subject, costs) in subjects.iter().zip(&mut all) {
            let cost =
                slice(subject, round).map_err(|error| format!("{}: {error}", subject.name))?;
            if round > 0 {
                costs.each.push(cost);
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
