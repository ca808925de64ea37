//! Masking of API keys in error messages.

use uuid::Uuid;

/// The minimum length of an API key, in characters. The authority issues and imports no shorter ones.
const MIN_KEY_LENGTH: usize = 22;

/// Replaces every word of a message that may be an API key by `***`, and every URL that may have a password.
///
/// Such a word has at least 22 characters of the token alphabet, with a letter and a digit. UUIDs stay, and so do the words
/// in `known`, which are names of flags and commands.
pub fn mask_keys(message: &str, known: &[String]) -> String {
    let message = mask_urls(message);
    let mut masked = String::with_capacity(message.len());
    let mut rest = message.as_str();
    while let Some(start) = rest.find(is_token) {
        let (before, from_word) = rest.split_at(start);
        let end = from_word.find(|c| !is_token(c)).unwrap_or(from_word.len());
        let (word, after) = from_word.split_at(end);
        masked.push_str(before);
        masked.push_str(if may_be_key(word, known) { "***" } else { word });
        rest = after;
    }
    masked.push_str(rest);
    masked
}

/// Replaces all but the scheme of each URL with an `@` or a query. A URL ends at a space or at the quote that the parser puts.
fn mask_urls(message: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || c == '\'';
    let words = message.split_inclusive(is_end);
    let masked = words.map(|word| match word.split_once("://") {
        Some((scheme, rest)) if rest.contains(['@', '?']) => {
            let end = rest.chars().last().filter(|last| is_end(*last));
            format!("{scheme}://***{}", end.map_or(String::new(), String::from))
        }
        _ => word.to_owned(),
    });
    masked.collect()
}

fn may_be_key(word: &str, known: &[String]) -> bool {
    word.len() >= MIN_KEY_LENGTH
        && word.contains(|c: char| c.is_ascii_alphabetic())
        && word.contains(|c: char| c.is_ascii_digit())
        && !is_hyphenated_uuid(word)
        && !known.iter().any(|known| known == word)
}

/// Whether a value that is not the name of an existing file is likely to be an API key.
pub(super) fn looks_like_key(value: &str) -> bool {
    value.len() >= MIN_KEY_LENGTH && value.chars().all(|c| is_token(c) && c != '/')
}

/// Whether the character is in the token alphabet (RFC 6750, section 2.1).
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '+' | '/' | '=' | '-')
}

/// An API key may consist of 32 hexadecimal digits, which are a UUID too, so only the form with hyphens counts.
pub(super) fn is_hyphenated_uuid(word: &str) -> bool {
    word.len() == 36 && Uuid::try_parse(word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "demo_live_4fzs3fzs3fzs3fzs3fzs3fz";

    /// Seen red without `mask_urls`.
    #[test]
    fn words_that_may_be_keys_and_urls_with_passwords_are_masked() {
        for (message, masked) in [
            (
                format!("error: unrecognized subcommand '{KEY}'\n\nUsage: claviger"),
                "error: unrecognized subcommand '***'\n\nUsage: claviger",
            ),
            (format!("'--key-fil={KEY}'"), "'***'"),
            (format!("{KEY} {KEY}"), "*** ***"),
            ("'0123456789abcdef0123456789abcdef'".to_owned(), "'***'"),
            (
                "a Bearer TtgGcQFq.s3fzs3fzs3fzs3fz".to_owned(),
                "a Bearer ***",
            ),
            (
                "unexpected argument 'postgres://a:hunter2@b/c' found, 'x://y?password=hunter2'"
                    .to_owned(),
                "unexpected argument 'postgres://***' found, 'x://***'",
            ),
        ] {
            assert_eq!(mask_keys(&message, &[]), masked);
        }
    }

    #[test]
    fn other_words_stay() {
        let known = ["--a-flag-with-more-than-22-characters".to_owned()];
        for message in [
            "no unknown word, żółw",
            "--max-connections-per-address <N>",
            "'--a-flag-with-more-than-22-characters <N>'",
            "01a4f0c1-2345-7abc-8def-0123456789ab",
            "2030-01-31T12:00:00Z",
            "https://keys.example:7700/, where 'a'",
            "",
        ] {
            assert_eq!(mask_keys(message, &known), message);
        }
    }

    #[test]
    fn a_path_with_a_slash_or_a_short_name_is_not_taken_for_a_key() {
        assert!(looks_like_key(KEY));
        for name in [
            "demo.key",
            "./demo_live_4fzs3fzs3fzs3fzs3fz",
            "a name with many spaces in it",
        ] {
            assert!(!looks_like_key(name), "{name}");
        }
    }
}
