//! Reading the entries of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use clap::ValueEnum;

use super::csv_line;
use super::entry::{Entry, Field, Row};
use super::json_line;
use super::lines::Lines;
use crate::cli::failure::Failure;
use crate::cli::key_file::warn_if_public;

/// The format of a file.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FileFormat {
    /// Comma-separated values, with a header line.
    Csv,
    /// JSON Lines: an object on each line.
    Jsonl,
}

/// The number of a line, with its entry or the reason why it has none.
pub(super) type NumberedEntry = (u64, Result<Entry, String>);

/// An open file of entries.
pub(super) struct Source {
    lines: Lines,
    parser: RowParser,
    defaults: Row,
    size: Option<u64>,
    /// How many were read, also of those that are invalid.
    entries: u64,
}

/// The parser of a line.
enum RowParser {
    Csv(Vec<Field>),
    JsonLines,
}

impl Source {
    /// Opens a file, or standard input, and reads the header line of a CSV file.
    pub(super) fn open(path: &Path, format: FileFormat, defaults: Row) -> Result<Self, Failure> {
        let (input, size): (Box<dyn BufRead>, _) = if path == Path::new("-") {
            (Box::new(io::stdin().lock()), None)
        } else {
            let open = || {
                let file = File::open(path)?;
                let metadata = file.metadata()?;
                Ok((file, metadata))
            };
            let (file, metadata) = open().map_err(|error: io::Error| {
                Failure::usage(format!("cannot read {}: {error}", path.display()))
            })?;
            warn_if_public(&metadata, path, "the API keys");
            let size = metadata.is_file().then_some(metadata.len());
            (Box::new(BufReader::new(file)), size)
        };
        let name = if path == Path::new("-") {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        };
        Self::new(&name, Lines::new(input), format, defaults, size)
    }

    fn new(
        name: &str,
        mut lines: Lines,
        format: FileFormat,
        defaults: Row,
        size: Option<u64>,
    ) -> Result<Self, Failure> {
        let parser = match format {
            FileFormat::Jsonl => RowParser::JsonLines,
            FileFormat::Csv => {
                let header = match lines.next().map_err(|error| unreadable(&error))? {
                    None => {
                        Err("the file is empty: the first line must be a header line".to_owned())
                    }
                    Some((number, Err(why))) => Err(format!("line {number}: {why}")),
                    Some((number, Ok(line))) => {
                        csv_line::header(line).map_err(|why| format!("line {number}: {why}"))
                    }
                };
                RowParser::Csv(header.map_err(|why| Failure::usage(format!("{name}: {why}")))?)
            }
        };
        Ok(Self {
            lines,
            parser,
            defaults,
            size,
            entries: 0,
        })
    }

    /// The size of the file in bytes; `None` for a pipe.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The number of bytes that were read.
    pub(super) fn read(&self) -> u64 {
        self.lines.read()
    }

    /// Reads the rest of the file, and returns the number of all its entries; `None` for a pipe, which may have no end.
    pub(super) fn count(&mut self) -> Option<u64> {
        self.size?;
        while let Ok(Some(_)) = self.next() {}
        Some(self.entries)
    }

    /// Returns the number of the next line, with its entry or the error in it.
    pub(super) fn next(&mut self) -> Result<Option<NumberedEntry>, Failure> {
        let next = self.lines.next().map_err(|error| unreadable(&error))?;
        let Some((number, line)) = next else {
            return Ok(None);
        };
        self.entries += 1;
        let row = line
            .map_err(str::to_owned)
            .and_then(|line| match &self.parser {
                RowParser::Csv(columns) => csv_line::parse(line, columns),
                RowParser::JsonLines => json_line::parse(line),
            });
        Ok(Some((
            number,
            row.and_then(|row| row.into_entry(&self.defaults)),
        )))
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read the rest of the file: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(content: &str, format: FileFormat) -> Result<Source, Failure> {
        let lines = Lines::new(Box::new(io::Cursor::new(content.to_owned())));
        Source::new("keys.csv", lines, format, Row::default(), None)
    }

    fn outcomes(content: &str, format: FileFormat) -> Vec<(u64, bool)> {
        let mut source = source(content, format).unwrap();
        let mut outcomes = Vec::new();
        while let Some((line, entry)) = source.next().unwrap() {
            outcomes.push((line, entry.is_ok()));
        }
        outcomes
    }

    #[test]
    fn a_bad_line_affects_no_other_line() {
        let csv = "plain_key,partner\na,acme\n\"b,acme\nc\n\nd,acme\n";
        assert_eq!(
            outcomes(csv, FileFormat::Csv),
            [(2, true), (3, false), (4, false), (6, true)]
        );
        let json = "{\"plain_key\":\"a\"}\n{\n{\"owner\":1}\n\n{\"plain_key\":\"b\"}";
        assert_eq!(
            outcomes(json, FileFormat::Jsonl),
            [(1, true), (2, false), (3, false), (5, true)]
        );
    }

    #[test]
    fn a_file_without_a_valid_header_line_is_incorrect_usage() {
        for content in ["", "name\n", "plain_key,owner\n"] {
            let failure = source(content, FileFormat::Csv).err().unwrap();
            assert!(failure.is_usage(), "{content}");
        }
        let failure = source("\nplain_key,owner\n", FileFormat::Csv)
            .err()
            .unwrap();
        let shown = failure.to_string();
        assert!(
            shown.starts_with("error: keys.csv: line 2: `owner` is not known; known are"),
            "{shown}"
        );
    }
}
