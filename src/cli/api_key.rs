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
