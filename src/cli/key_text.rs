//! The text of a key, on its way from whoever holds it to the server.

use std::fmt;
use std::io::{self, Read};

/// The authority takes no key beyond 512 bytes; of a longer one the rest makes no difference.
const LONGEST_READ: u64 = 4096;

/// A key's text. It can be sent, not shown.
///
/// It is made from any text at all: were it checked while the flags are parsed, the parser's complaint would repeat it.
#[derive(Clone)]
pub(super) struct KeyText(String);

impl KeyText {
    /// The text itself, for the one place that sends it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads it from a file or a pipe, which may have no end.
    pub(super) fn read(stream: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        stream.take(LONGEST_READ).read_to_end(&mut bytes)?;
        Ok(Self::from_stream(&bytes))
    }

    /// What stands in a file or comes through a pipe: tools end it with one newline, which is not the key's. Nothing
    /// else is trimmed: to the authority a blank is part of a key, and makes it a wrong one.
    fn from_stream(bytes: &[u8]) -> Self {
        // What is not text cannot be a key, and the character that stands for it keeps it from becoming one.
        let text = String::from_utf8_lossy(bytes);
        let text = text
            .strip_suffix("\r\n")
            .or_else(|| text.strip_suffix('\n'))
            .unwrap_or(&text);
        Self(text.to_owned())
    }
}

impl From<String> for KeyText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyText")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_newline_is_taken_off_a_stream() {
        for (stream, key) in [
            ("k", "k"),
            ("k\n", "k"),
            ("k\r\n", "k"),
            ("k\n\n", "k\n"),
            ("k\r", "k\r"),
            (" k \n", " k "),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(KeyText::from_stream(stream.as_bytes()).reveal(), key);
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_not_turn_into_a_key() {
        assert_eq!(KeyText::from_stream(b"k\xff").reveal(), "k\u{fffd}");
    }

    #[test]
    fn a_stream_without_an_end_is_read_in_part() {
        let key = KeyText::read(io::repeat(b'k')).unwrap();
        assert_eq!(key.reveal().len(), 4096);
    }

    #[test]
    fn debug_does_not_show_the_text() {
        assert_eq!(format!("{:?}", KeyText::from("k".to_owned())), "KeyText");
    }
}
