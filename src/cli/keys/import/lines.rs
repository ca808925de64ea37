//! The lines of a file of any length.

use std::io::{self, BufRead, Read as _};

use zeroize::{Zeroize as _, Zeroizing};

/// The longest accepted line, in bytes. An entry that uses every limit of the authority is shorter.
const MAX_LINE: usize = 64 * 1024;

/// The lines of a file. Each line is wiped from memory before the next one is read.
pub(super) struct Lines {
    input: Box<dyn BufRead>,
    line: Zeroizing<Vec<u8>>,
    number: u64,
    read: u64,
}

impl Lines {
    /// Starts at the beginning of the input.
    pub(super) fn new(input: Box<dyn BufRead>) -> Self {
        Self {
            input,
            // The full capacity from the start: growing would leave copies in memory.
            line: Zeroizing::new(Vec::with_capacity(MAX_LINE + 1)),
            number: 0,
            read: 0,
        }
    }

    /// The number of bytes that were read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Returns the next line that is not empty, with its number, or the reason why it is not a valid line.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Result<&str, &'static str>)>> {
        loop {
            if !self.advance()? {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let line = if self.line.len() > MAX_LINE {
            Err("it is longer than 64 KiB")
        } else {
            let line = str::from_utf8(&self.line).map_err(|_| "it is not UTF-8");
            // Some programs begin a file with a byte order mark.
            line.map(|line| line.strip_prefix('\u{feff}').unwrap_or(line).trim())
        };
        Ok(Some((self.number, line)))
    }

    /// Reads the next line, of a line that is too long only the beginning; returns false at the end of the file.
    fn advance(&mut self) -> io::Result<bool> {
        // This wipes the written part; the drop wipes the whole capacity, which would be slow here.
        self.line.as_mut_slice().zeroize();
        self.line.clear();
        let limit = MAX_LINE as u64 + 1;
        let mut beginning = self.input.by_ref().take(limit);
        self.read += beginning.read_until(b'\n', &mut self.line)? as u64;
        if self.line.is_empty() {
            return Ok(false);
        }
        self.number += 1;
        if self.line.len() > MAX_LINE && !self.line.ends_with(b"\n") {
            self.read += self.input.skip_until(b'\n')? as u64;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: impl Into<Vec<u8>>) -> Vec<(u64, Result<String, &'static str>)> {
        let mut lines = Lines::new(Box::new(io::Cursor::new(text.into())));
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            found.push((number, line.map(str::to_owned)));
        }
        found
    }

    #[test]
    fn lines_have_the_numbers_that_an_editor_shows() {
        let found = lines("\u{feff}a\r\n\n  \nb\nc");
        let found: Vec<_> = found
            .into_iter()
            .map(|(number, line)| (number, line.unwrap()))
            .collect();
        let line = |number, line: &str| (number, line.to_owned());
        assert_eq!(found, [line(1, "a"), line(4, "b"), line(5, "c")]);
    }

    #[test]
    fn a_line_that_cannot_be_read_hurts_only_itself() {
        let mut text = vec![b'k'; 3 * MAX_LINE];
        text.extend(b"\nb\n\xff\xff\nd\n");
        assert_eq!(
            lines(text),
            [
                (1, Err("it is longer than 64 KiB")),
                (2, Ok("b".to_owned())),
                (3, Err("it is not UTF-8")),
                (4, Ok("d".to_owned())),
            ]
        );
    }

    #[test]
    fn every_byte_that_was_read_is_counted() {
        let text = "k".repeat(2 * MAX_LINE) + "\nb\n";
        let mut lines = Lines::new(Box::new(io::Cursor::new(text.clone())));
        while lines.next().unwrap().is_some() {}
        assert_eq!(lines.read(), text.len() as u64);
    }
}
