//! The rules for API keys that another system issued.
//!
//! Only an API key that is random enough can be imported, because a Verify compares no slow hash.

/// The minimum length of an imported API key, in characters. A character of the token alphabet has up to six bits.
pub const MIN_LENGTH: usize = 22;

/// The minimum number of different characters.
///
/// Decimal digits are the smallest alphabet in use. Of random texts of 22 decimal digits, fewer than one in ten thousand have
/// five or fewer different digits.
const MIN_DISTINCT: usize = 6;

/// The minimum length at which a hint shows the last four characters. The hidden characters still cannot be guessed.
const MIN_LENGTH_FOR_HINT: usize = 32;

/// Checks that an API key cannot be guessed and that a header can carry it.
///
/// The form is `b64token` of RFC 6750, section 2.1, with a minimum and a maximum length.
///
/// # Errors
/// The violated rule. It contains no part of the API key.
pub fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > super::key_text::MAX_LENGTH {
        return Err("must have at most 512 characters");
    }
    // Base64 ends in at most two `=`. With both of them, 22 characters still have 120 bits.
    let unpadded = text.strip_suffix("==").or_else(|| text.strip_suffix('='));
    let unpadded = unpadded.unwrap_or(text);
    let is_allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
    };
    if !unpadded.bytes().all(is_allowed) {
        return Err(
            "must have only the characters A-Z a-z 0-9 - . _ ~ + / and, at the end, = or ==",
        );
    }
    if text.len() < MIN_LENGTH {
        return Err(
            "has fewer than 22 characters and can be guessed: issue a new key to its holder instead",
        );
    }
    let mut seen = [false; 128];
    for byte in unpadded.bytes() {
        seen[usize::from(byte)] = true;
    }
    if seen.iter().filter(|seen| **seen).count() < MIN_DISTINCT {
        return Err(
            "has too few different characters and can be guessed: issue a new key to its holder instead",
        );
    }
    Ok(())
}

/// Returns the part of an API key that may be shown: the last four characters of a long one. Any other has the hint of its digest.
pub fn hint(text: &str) -> Option<String> {
    let is_long = text.len() >= MIN_LENGTH_FOR_HINT;
    (is_long && text.is_ascii()).then(|| format!("…{}", &text[text.len() - 4..]))
}

/// Returns the hint for an imported API key of which no part may be shown: the first eight hexadecimal digits of its keyed digest.
///
/// The digits of its SHA-256 would let anybody who reads the hint drop wrong guesses of a weak API key. The digits of the digest
/// let nobody do this who does not have the pepper.
pub fn digest_hint(mac: &[u8; 32]) -> String {
    let [a, b, c, d, ..] = mac;
    format!("hmac:{a:02x}{b:02x}{c:02x}{d:02x}…")
}

/// Returns whether a stored hint shows a part of the SHA-256 of the API key. Earlier versions made such hints.
pub fn is_hash_hint(hint: &str) -> bool {
    let digits = hint.strip_prefix("sha256:");
    let digits = digits.and_then(|digits| digits.strip_suffix('…'));
    digits.is_some_and(|digits| {
        digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_and_long_api_key_is_accepted() {
        for good in [
            "TtgGcQFq.s3fzK1pQ9mZx7LwR2vTn5YbC8dHj4aEu",
            "0123456789abcdef012345",
            "sk_live_51H8xYzABCDE==",
            "8305917264401937582640",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn an_api_key_that_can_be_guessed_or_that_no_header_can_carry_is_refused() {
        let long = "abcdefgh".repeat(65);
        for bad in [
            "",
            "abcdefghijklmnopqrstu",
            "abcdefghijklmnop======",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "ababababababababababababab",
            "abcdefghijklmnop qrstuvwxyz",
            "abcdefghijklmnop,qrstuvwxyz",
            "abcdefghijklm=nopqrstuvwxyz",
            "abcdefghijklmnopqrstuvwxyzé",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_short_api_key_has_no_hint() {
        assert_eq!(hint("0123456789abcdef012345"), None);
        assert_eq!(hint(&"abcd".repeat(8)).as_deref(), Some("…abcd"));
    }

    /// Seen red with hints that begin with `hmac:` taken too, with any number of digits, and with any characters in the place of
    /// digits.
    #[test]
    fn a_hint_of_a_hash_is_told_from_all_other_hints() {
        let of_digest = digest_hint(&std::array::from_fn(|i| 0x0a + i as u8));
        assert_eq!(of_digest, "hmac:0a0b0c0d…");
        assert!(is_hash_hint("sha256:ba7816bf…"));
        for other in [
            "",
            "…abcd",
            "demo_live_…0000",
            "sha256_live_…0000",
            "sha256:ba7816bf",
            "sha256:ba7816b…",
            "sha256:ba7816bg…",
            &of_digest,
        ] {
            assert!(!is_hash_hint(other), "{other}");
        }
    }
}
