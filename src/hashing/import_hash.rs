//! The SHA-256 of an imported API key.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha256};

use super::pepper::unhex;
use crate::domain::key_text::SecretBytes;

/// The base64 configuration: padding is optional. [`ImportHash::parse`] accepts both alphabets of RFC 4648.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The SHA-256 of an imported API key. It is wiped when the last clone is dropped and cannot be printed.
#[derive(Clone)]
pub struct ImportHash(Arc<SecretBytes>);

impl ImportHash {
    /// Computes the hash of an API key.
    pub fn of(text: &str) -> Self {
        Self(Arc::new(SecretBytes::new(Sha256::digest(text).into())))
    }

    /// Parses a hash of 64 hexadecimal digits or in base64.
    ///
    /// # Errors
    /// The rule, if the text does not match it.
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
            .ok_or("must be a SHA-256 hash: 64 hexadecimal digits, or 32 bytes in base64")
    }

    /// Returns the hash as 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        let bytes = self.0.expose().iter();
        bytes.fold(String::with_capacity(64), |mut digits, byte| {
            write!(digits, "{byte:02x}").expect("a string takes everything");
            digits
        })
    }

    /// Returns the 32 bytes, for hashing.
    pub fn secret(&self) -> &Arc<SecretBytes> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example: the SHA-256 of `abc`.
    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_hash_is_parsed_in_each_notation() {
        let hash = ImportHash::of("abc");
        for written in [
            OF_ABC.to_owned(),
            OF_ABC.to_uppercase(),
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0".to_owned(),
            "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0".to_owned(),
        ] {
            let read = ImportHash::parse(&written).unwrap_or_else(|why| panic!("{written} {why}"));
            assert_eq!(read.secret().expose(), hash.secret().expose(), "{written}");
            assert_eq!(read.hex(), OF_ABC);
        }
    }

    #[test]
    fn a_text_that_is_not_a_sha256_is_refused() {
        for odd in [
            "",
            "abc",
            &OF_ABC[1..],
            &format!("{OF_ABC}0"),
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0==",
        ] {
            assert!(ImportHash::parse(odd).is_err(), "{odd}");
        }
    }
}
