//! The entries of a file, one after the other.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::csv_line;
use super::entry::{Entry, Field, Said};
use super::json_line;
use super::lines::Lines;
use crate::cli::failure::Failure;
use crate::cli::output;

/// What a file is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Csv,
    JsonLines,
}

/// A line's number, with its entry or why it is none.
pub(super) type Numbered = (u64, Result<Entry, String>);

/// A file of entries, open at the next one.
pub(super) struct Source {
    lines: Lines,
    form: Known,
    defaults: Said,
    size: Option<u64>,
}

enum Known {
    Csv(Vec<Field>),
    JsonLines,
}

impl Source {
    /// Opens a file, or standard input, and reads a header line that it must have.
    pub(super) fn open(path: &Path, form: Form, defaults: Said) -> Result<Self, Failure> {
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
            if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
                output::tell(&format!(
                    "warning: every user of this machine can read {}, and the keys in it",
                    path.display()
                ));
            }
            let size = metadata.is_file().then_some(metadata.len());
            (Box::new(BufReader::new(file)), size)
        };
        Self::new(Lines::new(input), form, defaults, size)
    }

    fn new(
        mut lines: Lines,
        form: Form,
        defaults: Said,
        size: Option<u64>,
    ) -> Result<Self, Failure> {
        let form = match form {
            Form::JsonLines => Known::JsonLines,
            Form::Csv => {
                let header = match lines.next().map_err(|error| unreadable(&error))? {
                    None => Err("it is empty, without a header line".to_owned()),
                    Some((_, Err(why))) => Err(format!("the header line cannot be read: {why}")),
                    Some((_, Ok(line))) => csv_line::header(line),
                };
                Known::Csv(header.map_err(|why| Failure::usage(format!("the file: {why}")))?)
            }
        };
        Ok(Self {
            lines,
            form,
            defaults,
            size,
        })
    }

    /// How long the file is, if it is one.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many bytes of it are read.
    pub(super) fn read(&self) -> u64 {
        self.lines.read()
    }

    /// The next line's number and its entry, or what is wrong with it.
    pub(super) fn next(&mut self) -> Result<Option<Numbered>, Failure> {
        let next = self.lines.next().map_err(|error| unreadable(&error))?;
        let Some((number, line)) = next else {
            return Ok(None);
        };
        let said = line
            .map_err(str::to_owned)
            .and_then(|line| match &self.form {
                Known::Csv(columns) => csv_line::said(line, columns),
                Known::JsonLines => json_line::said(line),
            });
        Ok(Some((
            number,
            said.and_then(|said| said.entry(&self.defaults)),
        )))
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::failed(format!("the file cannot be read any further: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str, form: Form) -> Result<Source, Failure> {
        let lines = Lines::new(Box::new(io::Cursor::new(text.to_owned())));
        Source::new(lines, form, Said::default(), None)
    }

    fn outcomes(text: &str, form: Form) -> Vec<(u64, bool)> {
        let mut source = source(text, form).unwrap();
        let mut outcomes = Vec::new();
        while let Some((line, entry)) = source.next().unwrap() {
            outcomes.push((line, entry.is_ok()));
        }
        outcomes
    }

    #[test]
    fn a_bad_line_hurts_only_itself() {
        let csv = "text,partner\na,acme\n\"b,acme\nc\n\nd,acme\n";
        assert_eq!(
            outcomes(csv, Form::Csv),
            [(2, true), (3, false), (4, false), (6, true)]
        );
        let json = "{\"text\":\"a\"}\n{\n{\"owner\":1}\n\n{\"text\":\"b\"}";
        assert_eq!(
            outcomes(json, Form::JsonLines),
            [(1, true), (2, false), (3, false), (5, true)]
        );
    }

    #[test]
    fn a_file_without_a_header_line_that_fits_is_a_wrong_use() {
        for text in ["", "name\n", "text,owner\n"] {
            assert!(source(text, Form::Csv).err().unwrap().is_usage(), "{text}");
        }
    }
}
