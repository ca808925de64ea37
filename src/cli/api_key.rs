//! An API key on its way from the caller to the server.

use std::fmt;
use std::io::{self, Read};

/// The largest input that is read, in bytes. The authority accepts API keys of at most 512 bytes.
const MAX_READ: u64 = 4096;

/// An API key that can be sent, and that `Debug` does not show.
///
/// The value is not validated: the error of a flag's parser would repeat the key.
#[derive(Clone)]
pub(super) struct ApiKey(String);

impl ApiKey {
    /// Returns the API key itself, for sending.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// Says why the value cannot be an API key, for people: `contains a space`. Shows nothing of the value.
    ///
    /// The authority would refuse the key as unknown, and nobody sees such a character in an editor.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let key = self.0.as_str();
        if key.is_empty() {
            return Some("is empty");
        }
        if key.starts_with('\u{feff}') {
            return Some("starts with a byte-order mark: save it without one");
        }
        // Invalid UTF-8 was replaced. Of UTF-16, the mark at its start is invalid, and each second byte is NUL.
        if key.starts_with('\u{fffd}') && key.contains('\0') {
            return Some("is UTF-16 text: save it as ASCII or UTF-8");
        }
        let is_in_middle = |c: char| key.trim_end_matches(['\r', '\n']).contains(c);
        let flaws = [
            (
                key.contains('\0'),
                "contains a NUL byte: write only the API key to it",
            ),
            (
                is_in_middle('\n') || is_in_middle('\r'),
                "has more than one line: an API key is one line",
            ),
            (
                key.contains(['\n', '\r']),
                "ends with more than one line break: leave at most one",
            ),
            (
                key.contains([' ', '\t']),
                "contains a space or a tab: remove it, also at the start and the end",
            ),
            (
                !key.is_ascii(),
                "contains a character that is not ASCII: copy the API key again",
            ),
            (
                key.contains(|c: char| c.is_ascii_control()),
                "contains a control character: copy the API key again",
            ),
        ];
        flaws
            .into_iter()
            .find_map(|(applies, flaw)| applies.then_some(flaw))
    }

    /// Reads an API key from a file or a pipe, which may be endless.
    pub(super) fn read(stream: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        stream.take(MAX_READ).read_to_end(&mut bytes)?;
        Ok(Self::from_stream(&bytes))
    }

    /// Decodes the content of a file or a pipe. One newline at the end is removed, because tools add it. Nothing else is
    /// trimmed: for the authority a space is part of the API key and makes it invalid.
    fn from_stream(bytes: &[u8]) -> Self {
        // Invalid UTF-8 cannot be a key, and the replacement character keeps it from becoming one.
        let content = String::from_utf8_lossy(bytes);
        let key = content
            .strip_suffix("\r\n")
            .or_else(|| content.strip_suffix('\n'))
            .unwrap_or(&content);
        Self(key.to_owned())
    }
}

impl From<String> for ApiKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey")
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
            assert_eq!(ApiKey::from_stream(stream.as_bytes()).reveal(), key);
        }
    }

    #[test]
    fn invalid_utf8_does_not_turn_into_a_key() {
        assert_eq!(ApiKey::from_stream(b"k\xff").reveal(), "k\u{fffd}");
    }

    /// Seen red without the byte-order mark.
    #[test]
    fn a_flaw_that_nobody_sees_is_named_and_the_key_is_not() {
        for (stream, flaw) in [
            (&b"secret"[..], None),
            (b"secret\n", None),
            (b"secret\r\n", None),
            (b"", Some("is empty")),
            (b"\n", Some("is empty")),
            (b"\xef\xbb\xbfsecret\n", Some("byte-order mark")),
            (b"\xff\xfes\0e\0c\0\n\0", Some("UTF-16")),
            (b"sec\0ret", Some("NUL")),
            (b"secret\nsecret\n", Some("more than one line")),
            (b"sec\rret", Some("more than one line")),
            (b"secret\n\n", Some("more than one line break")),
            (b"secret\r", Some("more than one line break")),
            (b"secret ", Some("space")),
            (b"\tsecret", Some("space or a tab")),
            (b"se\xc2\xa0cret", Some("not ASCII")),
            (b"se\xffcret", Some("not ASCII")),
            (b"se\x1bcret", Some("control character")),
        ] {
            let found = ApiKey::from_stream(stream).flaw();
            assert_eq!(found.is_some(), flaw.is_some(), "{stream:?}: {found:?}");
            let (found, flaw) = (found.unwrap_or_default(), flaw.unwrap_or_default());
            assert!(found.contains(flaw), "{stream:?}: {found}");
            assert!(!found.contains("secret"), "{found}");
        }
    }

    #[test]
    fn an_endless_stream_is_read_in_part() {
        let key = ApiKey::read(io::repeat(b'k')).unwrap();
        assert_eq!(key.reveal().len(), 4096);
    }

    #[test]
    fn debug_does_not_show_the_key() {
        assert_eq!(format!("{:?}", ApiKey::from("k".to_owned())), "ApiKey");
    }
}
