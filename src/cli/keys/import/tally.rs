//! How an import went: what became of each line, and where those that failed are told.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::outcome::Outcome;
use crate::cli::failure::Failure;
use crate::cli::text;

/// How many failures are told at the end; a report has them all.
const TOLD: usize = 20;

/// The count of all, and some of the failures.
#[derive(Default)]
pub(super) struct Tally {
    imported: u64,
    there: u64,
    failed: u64,
    failures: Vec<(u64, String)>,
    report: Option<Report>,
    /// Since when the changes hold, in words.
    pub(super) settled: Option<String>,
    /// Some of it was done by an earlier request.
    pub(super) is_replayed: bool,
}

impl Tally {
    /// With a report, if there shall be one.
    pub(super) fn new(report: Option<Report>) -> Self {
        Self {
            report,
            ..Self::default()
        }
    }

    /// Counts what became of a line.
    pub(super) fn add(&mut self, line: u64, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Outcome::Imported => self.imported += 1,
            Outcome::There => self.there += 1,
            Outcome::Failed(why) => {
                self.failed += 1;
                if let Some(report) = &mut self.report {
                    report.write(line, &why)?;
                }
                if self.failures.len() < TOLD {
                    self.failures.push((line, why));
                }
            }
        }
        Ok(())
    }

    /// How many lines became something.
    pub(super) fn done(&self) -> u64 {
        self.imported + self.there + self.failed
    }

    /// How many failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Writes what is left of the report.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.report.as_mut().map_or(Ok(()), Report::finish)
    }

    /// For programs.
    pub(super) fn json(&self, dry_run: bool) -> Value {
        let failures = self.failures.iter();
        let failures: Vec<_> = failures.map(|(line, why)| told(*line, why)).collect();
        json!({
            "dry_run": dry_run,
            "imported": self.imported,
            "already_there": self.there,
            "failed": self.failed,
            "failures": failures,
            "replayed": self.is_replayed,
        })
    }

    /// For people.
    pub(super) fn told(&self, dry_run: bool) -> String {
        let imported = if dry_run {
            "would be imported"
        } else {
            "imported"
        };
        let mut lines = vec![text::facts([
            (imported, text::grouped(self.imported)),
            ("already there", text::grouped(self.there)),
            ("failed", text::grouped(self.failed)),
        ])];
        if let Some(settled) = &self.settled {
            lines.push(settled.clone());
        }
        if self.is_replayed {
            lines.push(
                "Some of this was done before, by a command of the same --request-id.".to_owned(),
            );
        }
        if !self.failures.is_empty() {
            let rows = self.failures.iter();
            let rows = rows.map(|(line, why)| vec![line.to_string(), why.clone()]);
            lines.push(format!(
                "\n{}",
                text::table(&["LINE", "WHY IT FAILED"], rows)
            ));
        }
        let untold = self.failed - self.failures.len() as u64;
        match &self.report {
            Some(report) if self.failed > 0 => lines.push(format!(
                "\nAll failures are in {}.",
                text::plain(&report.path.display().to_string())
            )),
            None if untold > 0 => lines.push(format!(
                "… and {} more; --report FILE keeps them all.",
                text::grouped(untold)
            )),
            _ => {}
        }
        lines.join("\n")
    }
}

fn told(line: u64, why: &str) -> Value {
    json!({ "line": line, "reason": why })
}

/// A file with all failures, as JSON Lines.
pub(super) struct Report {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Report {
    /// A new file, or one that is written over; only not the one that is read.
    pub(super) fn create(path: PathBuf, source: &Path) -> Result<Self, Failure> {
        let same = fs::metadata(&path)
            .and_then(|report| Ok((report, fs::metadata(source)?)))
            .is_ok_and(|(report, source)| {
                (report.dev(), report.ino()) == (source.dev(), source.ino())
            });
        if same {
            return Err(Failure::usage("--report names the file that is imported"));
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
        writeln!(self.file, "{}", told(line, why)).map_err(|error| self.broken(&error))
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
    fn a_tally_counts_and_names_the_lines_that_failed() {
        let mut tally = Tally::default();
        for (line, outcome) in [
            (2, Outcome::Imported),
            (3, Outcome::There),
            (4, failed("no such partner")),
        ] {
            tally.add(line, outcome).unwrap();
        }
        tally.settled = Some("in force on every server, revision 7".to_owned());
        assert_eq!(
            tally.told(false),
            "imported       1\nalready there  1\nfailed         1\n\
             in force on every server, revision 7\n\n\
             LINE  WHY IT FAILED\n4     no such partner"
        );
        assert_eq!(
            tally.json(true).to_string(),
            r#"{"already_there":1,"dry_run":true,"failed":1,"failures":[{"line":4,"reason":"no such partner"}],"imported":1,"replayed":false}"#
        );
    }

    #[test]
    fn many_failures_are_counted_and_only_some_told() {
        let mut tally = Tally::default();
        for line in 0..1_000 {
            tally.add(line, failed("no")).unwrap();
        }
        let told = tally.told(false);
        assert!(
            told.ends_with("… and 980 more; --report FILE keeps them all."),
            "{told}"
        );
        assert_eq!(tally.failed(), 1_000);
    }

    #[test]
    fn a_report_has_all_failures_and_is_not_the_file_itself() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("keys.csv");
        fs::write(&source, "text").unwrap();
        let refusal = Report::create(source.clone(), &source).err().unwrap();
        assert!(refusal.is_usage());
        assert_eq!(fs::read_to_string(&source).unwrap(), "text");

        let path = folder.path().join("report.jsonl");
        let mut tally = Tally::new(Some(Report::create(path.clone(), &source).unwrap()));
        for line in 0..30 {
            tally.add(line, failed("no \"such\" one")).unwrap();
        }
        tally.finish().unwrap();
        let report = fs::read_to_string(&path).unwrap();
        assert_eq!(report.lines().count(), 30);
        assert_eq!(
            report.lines().next(),
            Some(r#"{"line":0,"reason":"no \"such\" one"}"#)
        );
    }
}
