//! Texts that another system issued as keys: which of them are random enough to be believed without a slow hash.

/// The shortest text that is taken over, in characters. Of the token alphabet each may carry six bits.
pub const MIN_LENGTH: usize = 22;

/// How many different characters it has at the least. Of 22 random decimal digits, the poorest alphabet there is, fewer than
/// one in ten thousand have as few as five.
const MIN_DISTINCT: usize = 6;

/// From this length on the last four characters may be shown: what remains hidden is still beyond guessing.
const LONG: usize = 32;

/// Refuses a text that could be guessed, or could not stand in a header: RFC 6750's `b64token`, of a decent length.
///
/// # Errors
/// A sentence that says what to do.
pub fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > super::key_text::MAX_LENGTH {
        return Err("is longer than 512 characters");
    }
    // Base64 ends in two of these at the most; with them 22 characters are still 120 bits.
    let unpadded = text.strip_suffix("==").or_else(|| text.strip_suffix('='));
    let unpadded = unpadded.unwrap_or(text);
    let of_alphabet = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
    };
    if !unpadded.bytes().all(of_alphabet) {
        return Err("must be of the characters A-Z a-z 0-9 - . _ ~ + / and, at its end, = or ==");
    }
    if text.len() < MIN_LENGTH {
        return Err(
            "is shorter than 22 characters and can be guessed: issue its holder a new key instead",
        );
    }
    let mut seen = [false; 128];
    for byte in unpadded.bytes() {
        seen[usize::from(byte)] = true;
    }
    if seen.iter().filter(|seen| **seen).count() < MIN_DISTINCT {
        return Err(
            "is of a few characters only and can be guessed: issue its holder a new key instead",
        );
    }
    Ok(())
}

/// What may be shown of a text: its last four characters, if it is long.
pub fn hint(text: &str) -> Option<String> {
    (text.len() >= LONG && text.is_ascii()).then(|| format!("…{}", &text[text.len() - 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_and_long_enough_is_taken() {
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
    fn what_can_be_guessed_or_cannot_stand_in_a_header_is_refused() {
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
    fn a_short_text_shows_nothing() {
        assert_eq!(hint("0123456789abcdef012345"), None);
        assert_eq!(hint(&"abcd".repeat(8)).as_deref(), Some("…abcd"));
    }
}
