//! The summary of an import: the counts, the first failures, and the report file with all failures.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::outcome::Outcome;
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::cli::text;

/// The fields of the summary as JSON.
pub(super) const FIELDS: [&str; 7] = [
    "dry_run",
    "imported",
    "already_there",
    "failed",
    "failures",
    "replayed",
    "stopped",
];

/// How many failures the summary lists; the report has all of them.
const MAX_LISTED: usize = 20;

/// The counts of the outcomes, and the first failures.
#[derive(Default)]
pub(super) struct ImportSummary {
    imported: u64,
    already_imported: u64,
    failed: u64,
    failures: Vec<(u64, String)>,
    report: Option<Report>,
    /// Since when the changes are in force, for people.
    pub(super) effect: Option<String>,
    /// Whether an earlier request did some of it.
    pub(super) is_replayed: bool,
}

impl ImportSummary {
    /// Creates an empty summary, with an optional report.
    pub(super) fn new(report: Option<Report>) -> Self {
        Self {
            report,
            ..Self::default()
        }
    }

    /// Adds the outcome of a line.
    pub(super) fn add(&mut self, line: u64, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Outcome::Imported => self.imported += 1,
            Outcome::AlreadyImported => self.already_imported += 1,
            Outcome::Failed(why) => {
                self.failed += 1;
                if let Some(report) = &mut self.report {
                    report.write(line, &why)?;
                }
                if self.failures.len() < MAX_LISTED {
                    self.failures.push((line, why));
                }
            }
        }
        Ok(())
    }

    /// The number of lines with an outcome.
    pub(super) fn done(&self) -> u64 {
        self.imported + self.already_imported + self.failed
    }

    /// The number of lines that were imported now.
    pub(super) fn imported(&self) -> u64 {
        self.imported
    }

    /// The number of lines whose keys are there, imported now or earlier.
    pub(super) fn are_in(&self) -> u64 {
        self.imported + self.already_imported
    }

    /// The number of failures.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Writes the buffered rest of the report.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.report.as_mut().map_or(Ok(()), Report::finish)
    }

    /// The summary as JSON.
    /// As JSON, with [`FIELDS`].
    pub(super) fn json(&self, dry_run: bool) -> Value {
        let failures = self.failures.iter();
        let failures: Vec<_> = failures
            .map(|(line, why)| failure_json(*line, why))
            .collect();
        json!({
            "dry_run": dry_run,
            "imported": self.imported,
            "already_there": self.already_imported,
            "failed": self.failed,
            "failures": failures,
            "replayed": self.is_replayed,
        })
    }

    /// The summary for people.
    pub(super) fn describe(&self, dry_run: bool, width: Option<usize>) -> String {
        let imported = if dry_run {
            "would be imported"
        } else {
            "imported"
        };
        let mut lines = vec![text::facts([
            (imported, text::grouped(self.imported)),
            ("already there", text::grouped(self.already_imported)),
            ("failed", text::grouped(self.failed)),
        ])];
        if let Some(effect) = &self.effect {
            lines.push(effect.clone());
        }
        if self.is_replayed {
            lines
                .push("An earlier command with the same --request-id did some of this.".to_owned());
        }
        if !self.failures.is_empty() {
            let rows = self.failures.iter();
            let rows = rows.map(|(line, why)| vec![line.to_string(), why.clone()]);
            let table = table::simple(&["LINE", "REASON"], rows, width);
            lines.push(format!("\n{table}"));
        }
        let unlisted = self.failed - self.failures.len() as u64;
        match &self.report {
            Some(report) if self.failed > 0 => lines.push(format!(
                "\nAll failures are in {}.",
                text::plain(&report.path.display().to_string())
            )),
            None if unlisted > 0 => lines.push(format!(
                "… and {} more; --report FILE writes all of them.",
                text::grouped(unlisted)
            )),
            _ => {}
        }
        lines.join("\n")
    }
}

fn failure_json(line: u64, why: &str) -> Value {
    json!({ "line": line, "reason": why })
}

/// A file with all failures, in JSON Lines.
pub(super) struct Report {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Report {
    /// Creates the file, or overwrites it. It must not be the file that is imported.
    pub(super) fn create(path: PathBuf, source: &Path) -> Result<Self, Failure> {
        let same = fs::metadata(&path)
            .and_then(|report| Ok((report, fs::metadata(source)?)))
            .is_ok_and(|(report, source)| {
                (report.dev(), report.ino()) == (source.dev(), source.ino())
            });
        if same {
            return Err(Failure::usage(
                "--report: must not be the file that is imported",
            ));
        }
        match File::create(&path) {
            Ok(file) => Ok(Self {
                path,
                file: BufWriter::new(file),
            }),
            Err(error) => Err(Failure::usage(format!(
                "cannot create {}: {error}",
                path.display()
            ))),
        }
    }

    fn write(&mut self, line: u64, why: &str) -> Result<(), Failure> {
        writeln!(self.file, "{}", failure_json(line, why)).map_err(|error| self.broken(&error))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.file.flush().map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &io::Error) -> Failure {
        Failure::failed(format!("cannot write {}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(why: &str) -> Outcome {
        Outcome::Failed(why.to_owned())
    }

    #[test]
    fn a_summary_counts_and_lists_the_lines_that_failed() {
        let mut summary = ImportSummary::default();
        for (line, outcome) in [
            (2, Outcome::Imported),
            (3, Outcome::AlreadyImported),
            (4, failed("no such partner")),
        ] {
            summary.add(line, outcome).unwrap();
        }
        summary.effect = Some("in force on every server, revision 7".to_owned());
        assert_eq!(
            summary.describe(false, None),
            "imported       1\nalready there  1\nfailed         1\n\
             in force on every server, revision 7\n\n\
             LINE  REASON\n4     no such partner"
        );
        assert_eq!(
            summary.json(true).to_string(),
            r#"{"already_there":1,"dry_run":true,"failed":1,"failures":[{"line":4,"reason":"no such partner"}],"imported":1,"replayed":false}"#
        );
    }

    #[test]
    fn many_failures_are_counted_and_only_some_listed() {
        let mut summary = ImportSummary::default();
        for line in 0..1_000 {
            summary.add(line, failed("no")).unwrap();
        }
        let text = summary.describe(false, None);
        assert!(
            text.ends_with("… and 980 more; --report FILE writes all of them."),
            "{text}"
        );
        assert_eq!(summary.failed(), 1_000);
    }

    #[test]
    fn a_report_has_all_failures_and_is_not_the_file_itself() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("keys.csv");
        fs::write(&source, "plain_key").unwrap();
        let refusal = Report::create(source.clone(), &source).err().unwrap();
        assert!(refusal.is_usage());
        assert_eq!(fs::read_to_string(&source).unwrap(), "plain_key");

        let path = folder.path().join("report.jsonl");
        let mut summary = ImportSummary::new(Some(Report::create(path.clone(), &source).unwrap()));
        for line in 0..30 {
            summary.add(line, failed("no \"such\" one")).unwrap();
        }
        summary.finish().unwrap();
        let report = fs::read_to_string(&path).unwrap();
        assert_eq!(report.lines().count(), 30);
        assert_eq!(
            report.lines().next(),
            Some(r#"{"line":0,"reason":"no \"such\" one"}"#)
        );
    }
}
