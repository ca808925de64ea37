//! What `claviger doctor` has found: as text for people, and as JSON.

use std::time::Duration;

use serde::Serialize;

use crate::cli::plain;
use crate::domain::span;

/// The number of columns of the text.
const WIDTH: usize = 80;

/// The number of columns before a finding that needs nothing.
const MARGIN: usize = 28;

/// A check. Its id is stable, and `docs/doctor.md` explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Configuration,
    ConfigurationFile,
    DataDirectory,
    DataFiles,
    FileSystem,
    DiskSpace,
    PepperFile,
    OperatorKey,
    TlsCertificate,
    TlsKeyFile,
    ClientCa,
    Listen,
    HttpListen,
    AdminListen,
    UnixSocket,
    FileDescriptors,
    Memory,
    Threads,
    Store,
    Schema,
    Integrity,
    Durability,
    Peppers,
    Clock,
    Holds,
    Replicas,
    Latency,
    Connections,
    Rights,
}

impl Check {
    /// All checks, in the order in which they are shown.
    const ALL: [(Self, &'static str); 29] = [
        (Self::Configuration, "configuration"),
        (Self::ConfigurationFile, "configuration-file"),
        (Self::DataDirectory, "data-directory"),
        (Self::DataFiles, "data-files"),
        (Self::FileSystem, "file-system"),
        (Self::DiskSpace, "disk-space"),
        (Self::PepperFile, "pepper-file"),
        (Self::OperatorKey, "operator-key"),
        (Self::TlsCertificate, "tls-certificate"),
        (Self::TlsKeyFile, "tls-key-file"),
        (Self::ClientCa, "client-ca"),
        (Self::Listen, "listen"),
        (Self::HttpListen, "http-listen"),
        (Self::AdminListen, "admin-listen"),
        (Self::UnixSocket, "unix-socket"),
        (Self::FileDescriptors, "file-descriptors"),
        (Self::Memory, "memory"),
        (Self::Threads, "threads"),
        (Self::Store, "store"),
        (Self::Schema, "schema"),
        (Self::Integrity, "integrity"),
        (Self::Durability, "durability"),
        (Self::Peppers, "peppers"),
        (Self::Clock, "clock"),
        (Self::Holds, "holds"),
        (Self::Replicas, "replicas"),
        (Self::Latency, "latency"),
        (Self::Connections, "connections"),
        (Self::Rights, "rights"),
    ];
}

/// How a check ended, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// There was nothing to check, or no way to.
    Skipped,
    /// Nothing is wrong.
    Passed,
    /// The server works, and an operator should know.
    Warning,
    /// The server does not start or does not work, or others can change what it rests on.
    Failed,
}

/// One thing that a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) outcome: Outcome,
    /// What is there, or why the check was skipped.
    found: String,
    /// What to do; empty if that is nothing, or part of what was found.
    advice: String,
}

impl Finding {
    fn new(outcome: Outcome, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            outcome,
            found: found.into(),
            advice: advice.into(),
        }
    }

    pub(super) fn passed(found: impl Into<String>) -> Self {
        Self::new(Outcome::Passed, found, "")
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, why, "")
    }

    pub(super) fn warning(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Outcome::Warning, found, advice)
    }

    pub(super) fn failed(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, found, advice)
    }

    /// The problem of an error whose message ends with what to do.
    pub(super) fn error(error: &dyn std::fmt::Display) -> Self {
        Self::new(Outcome::Failed, error.to_string(), "")
    }
}

/// The problems of a check, or that there are none.
pub(super) fn problems_or(problems: Vec<Finding>, found: impl Into<String>) -> Vec<Finding> {
    if problems.is_empty() {
        vec![Finding::passed(found)]
    } else {
        problems
    }
}

/// A number of things for people: `1 key`, `2 keys`.
pub(super) fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// A time span in seconds.
pub(super) fn whole(time: Duration) -> String {
    span::format(Duration::from_secs(time.as_secs().max(1)))
}

/// What all checks have found.
#[derive(Default)]
pub(super) struct Report(Vec<(Check, Vec<Finding>)>);

impl Report {
    /// Adds what a check has found.
    pub(super) fn add(&mut self, check: Check, findings: impl Into<Findings>) {
        let Findings(findings) = findings.into();
        self.0.push((check, findings));
    }

    /// Skips those of the checks that have found nothing yet.
    pub(super) fn skip(&mut self, checks: &[Check], why: &str) {
        for check in checks {
            if self.of(*check).is_empty() {
                self.add(*check, Finding::skipped(why));
            }
        }
    }

    /// Skips all checks that have found nothing yet.
    pub(super) fn skip_others(&mut self, why: &str) {
        self.skip(&Check::ALL.map(|(check, _)| check), why);
    }

    /// What a check has found; empty if it has not run.
    fn of(&self, check: Check) -> &[Finding] {
        let mut found = self.0.iter().filter(|(of, _)| *of == check);
        found.next().map_or(&[], |(_, findings)| findings)
    }

    /// How a check ended.
    pub(super) fn outcome(&self, check: Check) -> Outcome {
        let outcomes = self.of(check).iter().map(|finding| finding.outcome);
        outcomes.max().unwrap_or(Outcome::Skipped)
    }

    /// How the worst of all checks ended.
    pub(super) fn worst(&self) -> Outcome {
        let outcomes = Check::ALL.iter().map(|(check, _)| self.outcome(*check));
        outcomes.max().unwrap_or(Outcome::Skipped)
    }

    /// The ids of the checks that ended so.
    fn ids(&self, outcome: Outcome) -> Vec<&'static str> {
        let all = Check::ALL.iter();
        let ended_so = all.filter(|(check, _)| self.outcome(*check) == outcome);
        ended_so.map(|(_, id)| *id).collect()
    }

    /// The report as JSON.
    pub(super) fn document(&self) -> Document<'_> {
        let count = |outcome| self.ids(outcome).len();
        Document {
            version: env!("CARGO_PKG_VERSION"),
            summary: Summary {
                failed: count(Outcome::Failed),
                warnings: count(Outcome::Warning),
                passed: count(Outcome::Passed),
                skipped: count(Outcome::Skipped),
            },
            checks: Check::ALL
                .iter()
                .map(|(check, id)| CheckDocument {
                    id,
                    outcome: self.outcome(*check),
                    findings: self.of(*check),
                })
                .collect(),
        }
    }

    /// The report for people: first what is wrong, the worst at the top, and at the end how many checks ended how.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for outcome in [Outcome::Failed, Outcome::Warning] {
            for (check, id) in &Check::ALL {
                if self.outcome(*check) == outcome {
                    self.write_problems(&mut text, *check, id);
                }
            }
        }
        for (check, id) in &Check::ALL {
            let outcome = self.outcome(*check);
            if outcome < Outcome::Warning {
                let head = format!("{:8} {id}", word(outcome));
                let found = self.of(*check).first().map_or("", |first| &*first.found);
                push_wrapped(&mut text, &format!("{head:MARGIN$}"), MARGIN, found);
            }
        }
        text.push('\n');
        push_wrapped(&mut text, "", 0, &self.summary());
        text.trim_end().to_owned()
    }

    fn write_problems(&self, text: &mut String, check: Check, id: &str) {
        let head = format!("{:8} ", word(self.outcome(check)));
        push_wrapped(text, &head, 0, id);
        for finding in self.of(check) {
            push_wrapped(text, "  ", 2, &finding.found);
            if !finding.advice.is_empty() {
                push_wrapped(text, "  -> ", 5, &finding.advice);
            }
        }
        text.push('\n');
    }

    fn summary(&self) -> String {
        let part = |outcome, name: &str| {
            let ids = self.ids(outcome);
            let named = match outcome {
                Outcome::Failed | Outcome::Warning if !ids.is_empty() => {
                    format!(" ({})", ids.join(", "))
                }
                _ => String::new(),
            };
            format!("{} {name}{named}", ids.len())
        };
        let warnings = if self.ids(Outcome::Warning).len() == 1 {
            "warning"
        } else {
            "warnings"
        };
        [
            part(Outcome::Failed, "failed"),
            part(Outcome::Warning, warnings),
            part(Outcome::Passed, "passed"),
            part(Outcome::Skipped, "skipped"),
        ]
        .join(", ")
    }
}

/// One or more findings of a check.
pub(super) struct Findings(Vec<Finding>);

impl From<Finding> for Findings {
    fn from(finding: Finding) -> Self {
        Self(vec![finding])
    }
}

impl From<Vec<Finding>> for Findings {
    fn from(findings: Vec<Finding>) -> Self {
        Self(findings)
    }
}

/// The report as JSON. Fields are only ever added.
#[derive(Serialize)]
pub(super) struct Document<'r> {
    /// The version of this program.
    version: &'static str,
    summary: Summary,
    checks: Vec<CheckDocument<'r>>,
}

/// How many checks ended how.
#[derive(Serialize)]
struct Summary {
    failed: usize,
    warnings: usize,
    passed: usize,
    skipped: usize,
}

#[derive(Serialize)]
struct CheckDocument<'r> {
    id: &'static str,
    outcome: Outcome,
    findings: &'r [Finding],
}

/// The word for people. What needs them is in capitals.
fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Skipped => "skipped",
        Outcome::Passed => "passed",
        Outcome::Warning => "WARNING",
        Outcome::Failed => "FAILED",
    }
}

/// Appends lines of at most [`WIDTH`] columns: `head` and the words, with `margin` before all lines but the first. A longer word has a
/// line of its own. Control characters are escaped, because paths and names of other people may have any.
fn push_wrapped(text: &mut String, head: &str, margin: usize, words: &str) {
    let mut line = head.to_owned();
    let mut is_empty = true;
    for word in words.split_whitespace() {
        let word = plain(word);
        let space = usize::from(!is_empty);
        if !is_empty && line.chars().count() + space + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = " ".repeat(margin);
        } else if !is_empty {
            line.push(' ');
        }
        line.push_str(&word);
        is_empty = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red with the problems in the order of the checks, and with a line that is wrapped a word too late.
    #[test]
    fn the_worst_is_at_the_top_and_no_line_is_too_long() {
        let mut report = Report::default();
        let long = "many words that say what is there ".repeat(9);
        report.add(Check::Configuration, Finding::warning(&long, &long));
        report.add(Check::Schema, Finding::failed("one", "do it"));
        report.add(Check::Store, Finding::passed(&long));
        report.skip_others("why");
        let text = report.text();
        assert!(
            text.starts_with("FAILED   schema\n  one\n  -> do it\n\nWARNING  configuration\n"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "\n\n1 failed (schema), 1 warning (configuration), 1 passed, 26 skipped"
            )
        );
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.lines().any(|line| line.len() == WIDTH), "{text}");
        assert_eq!(report.worst(), Outcome::Failed);
        let document = serde_json::to_value(report.document()).unwrap();
        let checks = document["checks"].as_array().unwrap();
        assert_eq!(checks.len(), Check::ALL.len());
        assert_eq!(checks[0]["outcome"], "warning");
        assert_eq!(document["summary"]["skipped"], 26);
    }

    #[test]
    fn what_could_control_a_terminal_is_escaped() {
        let mut report = Report::default();
        report.add(Check::Store, Finding::passed("a\u{1b}[2Jb"));
        assert!(!report.text().contains('\u{1b}'));
    }
}
