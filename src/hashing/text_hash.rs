//! The SHA-256 of a text that another system issued as a key: all that is known of it here.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha256};

use super::pepper::unhex;
use crate::domain::key_text::SecretBytes;

/// Either alphabet of RFC 4648, with or without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The SHA-256 of a text. Wiped when the last of its kind is dropped; cannot be printed.
#[derive(Clone)]
pub struct TextHash(Arc<SecretBytes>);

impl TextHash {
    /// That of this text.
    pub fn of(text: &str) -> Self {
        Self(Arc::new(SecretBytes::new(Sha256::digest(text).into())))
    }

    /// Reads one that is written as 64 hexadecimal digits or in base64.
    ///
    /// # Errors
    /// A sentence that tells the rule.
    pub fn parse(written: &str) -> Result<Self, &'static str> {
        let from_base64 = |alphabet: &Alphabet| {
            let bytes = GeneralPurpose::new(alphabet, LENIENT)
                .decode(written)
                .ok()?;
            <[u8; 32]>::try_from(bytes).ok()
        };
        unhex(written)
            .map(|bytes| *bytes)
            .or_else(|| from_base64(&STANDARD))
            .or_else(|| from_base64(&URL_SAFE))
            .map(|bytes| Self(Arc::new(SecretBytes::new(bytes))))
            .ok_or("must be a SHA-256: 64 hexadecimal digits, or its 32 bytes in base64")
    }

    /// The 32 bytes, for hashing.
    pub fn secret(&self) -> &Arc<SecretBytes> {
        &self.0
    }

    /// The first eight hexadecimal digits, by which people find the key in the tables that it came from.
    pub fn hint(&self) -> String {
        let [a, b, c, d, ..] = self.0.expose();
        format!("sha256:{a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example: the SHA-256 of `abc`.
    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_hash_is_the_same_however_it_is_written() {
        let hash = TextHash::of("abc");
        for written in [
            OF_ABC.to_owned(),
            OF_ABC.to_uppercase(),
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0".to_owned(),
            "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0".to_owned(),
        ] {
            let read = TextHash::parse(&written).unwrap_or_else(|why| panic!("{written} {why}"));
            assert_eq!(read.secret().expose(), hash.secret().expose(), "{written}");
        }
        assert_eq!(hash.hint(), "sha256:ba7816bf…");
    }

    #[test]
    fn what_is_no_sha256_is_refused() {
        for odd in [
            "",
            "abc",
            &OF_ABC[1..],
            &format!("{OF_ABC}0"),
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0==",
        ] {
            assert!(TextHash::parse(odd).is_err(), "{odd}");
        }
    }
}
