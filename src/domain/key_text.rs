//! The key string, the format of issued API keys: `{prefix}_{tag}_{body}`.
//!
//! The comment on `VerifyRequest.key` in the proto file defines it. A key string consists of `[0-9A-Za-z_]`, so that a
//! double-click selects all of it and the pattern of a secret scanner finds it. The checksum detects typing errors before a
//! look-up. It protects nothing.

use zeroize::Zeroizing;

use super::ids::{KeyId, Prefix, Tag};

/// The maximum length of an API key, in bytes.
pub const MAX_LENGTH: usize = 512;

const ID_WIDTH: usize = 22;
const SECRET_WIDTH: usize = 43;
const CHECK_WIDTH: usize = 6;
const BODY_WIDTH: usize = ID_WIDTH + SECRET_WIDTH + CHECK_WIDTH;

/// The 256 random bits that prove a key. They are wiped on drop and cannot be copied or printed.
pub struct SecretBytes(Zeroizing<[u8; 32]>);

impl SecretBytes {
    /// Wraps the bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the bytes, for hashing.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A new API key, to be shown once. It is wiped on drop and cannot be copied or printed.
pub struct PlainKey(Zeroizing<String>);

impl PlainKey {
    /// Builds the API key.
    pub fn new(prefix: &Prefix, tag: &Tag, id: KeyId, secret: &SecretBytes) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(MAX_LENGTH));
        text.push_str(prefix.as_str());
        text.push('_');
        text.push_str(tag.as_str());
        text.push('_');
        base62::encode::<2>(base62::limbs(id.as_bytes()), ID_WIDTH, &mut text);
        base62::encode::<4>(base62::limbs(secret.expose()), SECRET_WIDTH, &mut text);
        let check = crc32fast::hash(text.as_bytes());
        base62::encode::<1>([check.into()], CHECK_WIDTH, &mut text);
        Self(text)
    }

    /// Returns the API key as text. A caller must show it only to the owner of the key.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the part that may be shown later: the prefix, the tag and the last four characters.
    pub fn hint(&self) -> String {
        let head = self.0.len() - BODY_WIDTH;
        format!("{}…{}", &self.0[..head], &self.0[self.0.len() - 4..])
    }
}

/// The reason why a text is not a well-formed API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The text is empty.
    Empty,
    /// The text is longer than [`MAX_LENGTH`].
    TooLong,
    /// The text contains a byte that is not printable ASCII, or a space, or a comma.
    Byte,
    /// The text has fewer than two underscores.
    NoBody,
    /// The part between the first two underscores is not a valid tag.
    Tag,
    /// The body does not have 71 characters.
    BodyLength,
    /// The body contains a character that is not in the base62 alphabet.
    Alphabet,
    /// The number of the id has more than 128 bits.
    IdTooLarge,
    /// The number of the secret has more than 256 bits.
    SecretTooLarge,
    /// The number of the checksum has more than 32 bits.
    CheckTooLarge,
    /// The checksum is wrong.
    Check,
}

impl Malformed {
    /// Returns a description for people. It contains no part of the text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "the API key is empty",
            Self::TooLong => "the API key is longer than 512 bytes",
            Self::Byte => {
                "the API key contains a byte that is not printable ASCII, a space or a comma"
            }
            Self::NoBody => "the API key has fewer than two underscores",
            Self::Tag => "the API key has no valid tag between its first two underscores",
            Self::BodyLength => "the body of the API key does not have 71 characters",
            Self::Alphabet => {
                "the body of the API key contains a character that is neither a letter nor a digit"
            }
            Self::IdTooLarge | Self::SecretTooLarge | Self::CheckTooLarge => {
                "the body of the API key is not in its canonical form"
            }
            Self::Check => {
                "the checksum of the API key is wrong: check the API key for typing errors"
            }
        }
    }
}

/// The parts of a well-formed key string. They prove nothing yet.
pub struct KeyText<'a> {
    /// The prefix of a realm.
    pub prefix: &'a str,
    /// The tag of an environment.
    pub tag: &'a str,
    /// The id of the key.
    pub id: KeyId,
    /// The secret that is offered as proof.
    pub secret: SecretBytes,
}

/// Checks the rules for API keys of every format, also imported ones.
///
/// # Errors
/// The first rule that the text violates.
pub fn screen(text: &str) -> Result<(), Malformed> {
    if text.is_empty() {
        Err(Malformed::Empty)
    } else if text.len() > MAX_LENGTH {
        Err(Malformed::TooLong)
    } else if every(text, |byte| byte.is_ascii_graphic() && byte != b',') {
        Ok(())
    } else {
        Err(Malformed::Byte)
    }
}

/// Returns whether `matches` is true for every byte. It checks all bytes, which for a short text is faster than an early exit.
fn every(text: &str, matches: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, byte| all & matches(byte))
}

/// Returns the part before the first underscore.
pub fn prefix(text: &str) -> Option<&str> {
    text.split_once('_').map(|(prefix, _)| prefix)
}

/// Parses a key string.
///
/// # Errors
/// The first rule that the text violates.
///
/// # Examples
///
/// The test vector of the contract, and the same with a typing error.
///
/// ```
/// use claviger::domain::key_text::{Malformed, parse};
///
/// let text = "demo_live_02y8wgU7QvIaB4J9cANFdL003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2CbwAq";
/// let parsed = parse(text).unwrap();
/// assert_eq!((parsed.prefix, parsed.tag), ("demo", "live"));
/// assert_eq!(parsed.id.to_string(), "0192f0c1-2345-7abc-8def-0123456789ab");
///
/// let mistyped = text.replace("XG9L", "XG8L");
/// assert_eq!(parse(&mistyped).err(), Some(Malformed::Check));
/// ```
pub fn parse(text: &str) -> Result<KeyText<'_>, Malformed> {
    screen(text)?;
    let (prefix, rest) = text.split_once('_').ok_or(Malformed::NoBody)?;
    let (tag, body) = rest.split_once('_').ok_or(Malformed::NoBody)?;
    if !Tag::matches(tag) {
        return Err(Malformed::Tag);
    }
    if body.len() != BODY_WIDTH {
        return Err(Malformed::BodyLength);
    }
    let (id, proof) = body.as_bytes().split_at(ID_WIDTH);
    let (secret, check) = proof.split_at(SECRET_WIDTH);
    if !every(body, |byte| byte.is_ascii_alphanumeric()) {
        return Err(Malformed::Alphabet);
    }
    let id = base62::decode::<2>(id).ok_or(Malformed::IdTooLarge)?;
    let secret = base62::decode::<4>(secret).ok_or(Malformed::SecretTooLarge)?;
    let [check] = base62::decode::<1>(check).ok_or(Malformed::CheckTooLarge)?;
    let check = u32::try_from(check).map_err(|_| Malformed::CheckTooLarge)?;
    if crc32fast::hash(&text.as_bytes()[..text.len() - CHECK_WIDTH]) != check {
        return Err(Malformed::Check);
    }
    Ok(KeyText {
        prefix,
        tag,
        id: KeyId::from_bytes(base62::bytes(id)),
        secret: SecretBytes::new(base62::bytes(secret)),
    })
}

/// Numbers of a fixed width in base 62. The existing crates support only variable widths or 128 bits.
///
/// A number is an array of 64-bit limbs, most significant first.
mod base62 {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    /// The number of digits that fit into one limb: 62^10 < 2^64 < 62^11.
    const CHUNK: usize = 10;

    pub(super) fn limbs<const BYTES: usize, const LIMBS: usize>(
        bytes: &[u8; BYTES],
    ) -> [u64; LIMBS] {
        const { assert!(BYTES == LIMBS * 8) };
        std::array::from_fn(|i| u64::from_be_bytes(std::array::from_fn(|j| bytes[i * 8 + j])))
    }

    pub(super) fn bytes<const LIMBS: usize, const BYTES: usize>(
        limbs: [u64; LIMBS],
    ) -> [u8; BYTES] {
        const { assert!(BYTES == LIMBS * 8) };
        std::array::from_fn(|i| limbs[i / 8].to_be_bytes()[i % 8])
    }

    /// Appends `number` with `width` digits. The number must fit into so many digits.
    pub(super) fn encode<const LIMBS: usize>(
        mut number: [u64; LIMBS],
        width: usize,
        to: &mut String,
    ) {
        let mut digits = zeroize::Zeroizing::new([0; 64]);
        for digit in digits[..width].iter_mut().rev() {
            let mut remainder = 0_u128;
            for limb in &mut number {
                let dividend = (remainder << 64) | u128::from(*limb);
                *limb = (dividend / 62) as u64;
                remainder = dividend % 62;
            }
            *digit = ALPHABET[remainder as usize];
        }
        to.extend(digits[..width].iter().copied().map(char::from));
    }

    /// Decodes digits of the alphabet; `None` if the number does not fit into the limbs.
    pub(super) fn decode<const LIMBS: usize>(digits: &[u8]) -> Option<[u64; LIMBS]> {
        let mut number = [0_u64; LIMBS];
        for chunk in digits.chunks(CHUNK) {
            let (mut carry, mut scale) = (0_u64, 1_u64);
            for digit in chunk {
                carry = carry * 62 + u64::from(value(*digit));
                scale *= 62;
            }
            let mut carry = u128::from(carry);
            for limb in number.iter_mut().rev() {
                let product = u128::from(*limb) * u128::from(scale) + carry;
                *limb = product as u64;
                carry = product >> 64;
            }
            if carry != 0 {
                return None;
            }
        }
        Some(number)
    }

    /// The value of each digit, by its byte. A table needs no branch, and an API key has 71 digits.
    const VALUES: [u8; 256] = {
        let mut values = [0; 256];
        let mut value = 0;
        while value < ALPHABET.len() {
            values[ALPHABET[value] as usize] = value as u8;
            value += 1;
        }
        values
    };

    const fn value(digit: u8) -> u8 {
        VALUES[digit as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> KeyId {
        KeyId::parse("0192f0c1-2345-7abc-8def-0123456789ab").unwrap()
    }

    fn sample() -> String {
        let secret = SecretBytes::new(std::array::from_fn(|i| i as u8));
        let plain = PlainKey::new(
            &Prefix::parse("demo").unwrap(),
            &Tag::parse("live").unwrap(),
            id(),
            &secret,
        );
        plain.expose().to_owned()
    }

    /// Returns `text` with the right checksum in place of its own.
    fn with_check(text: &str) -> String {
        let mut text = text[..text.len() - CHECK_WIDTH].to_owned();
        let check = crc32fast::hash(text.as_bytes());
        base62::encode::<1>([check.into()], CHECK_WIDTH, &mut text);
        text
    }

    fn problem(text: &str) -> Malformed {
        parse(text)
            .err()
            .unwrap_or_else(|| panic!("{text} is well-formed"))
    }

    #[test]
    fn the_example_in_the_proto_file_is_right() {
        let proto = include_str!("../../proto/claviger/v1/key_verify.proto");
        assert!(
            proto.contains(&format!("`{}`", sample())),
            "the comment in the proto file should contain {}",
            sample()
        );
    }

    #[test]
    fn a_built_key_string_is_parsed_again() {
        let text = sample();
        let read = parse(&text).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!((read.prefix, read.tag, read.id), ("demo", "live", id()));
        assert_eq!(read.secret.expose()[31], 31);
        assert_eq!(text.len(), "demo_live_".len() + 71);
    }

    #[test]
    fn a_hint_shows_only_the_last_four_characters_of_the_body() {
        let plain = PlainKey::new(
            &Prefix::parse("demo").unwrap(),
            &Tag::parse("live").unwrap(),
            id(),
            &SecretBytes::new([7; 32]),
        );
        let last_four = &plain.expose()[plain.expose().len() - 4..];
        assert_eq!(plain.hint(), format!("demo_live_…{last_four}"));
    }

    #[test]
    fn there_is_one_error_for_each_way_to_be_malformed() {
        let good = sample();
        assert_eq!(problem(""), Malformed::Empty);
        assert_eq!(problem(&"a".repeat(513)), Malformed::TooLong);
        assert_eq!(problem(&format!("{good} ")), Malformed::Byte);
        assert_eq!(problem(&format!("{good},")), Malformed::Byte);
        assert_eq!(problem(&good.replace("live", "lïve")), Malformed::Byte);
        assert_eq!(problem("demo"), Malformed::NoBody);
        assert_eq!(problem("demo_live"), Malformed::NoBody);
        assert_eq!(problem(&good.replace("live", "LIVE")), Malformed::Tag);
        assert_eq!(problem(&good.replace("live", "")), Malformed::Tag);
        assert_eq!(problem(&good[..good.len() - 1]), Malformed::BodyLength);
        assert_eq!(problem(&format!("{good}0")), Malformed::BodyLength);
        assert_eq!(problem(&good.replacen('2', "-", 1)), Malformed::Alphabet);

        let body = good.len() - BODY_WIDTH;
        let with_id = format!(
            "{}{}{}",
            &good[..body],
            "z".repeat(ID_WIDTH),
            &good[body + ID_WIDTH..]
        );
        assert_eq!(problem(&with_check(&with_id)), Malformed::IdTooLarge);
        let secret = body + ID_WIDTH;
        let with_secret = format!(
            "{}{}{}",
            &good[..secret],
            "z".repeat(SECRET_WIDTH),
            &good[secret + SECRET_WIDTH..]
        );
        assert_eq!(
            problem(&with_check(&with_secret)),
            Malformed::SecretTooLarge
        );
        assert_eq!(
            problem(&format!("{}zzzzzz", &good[..good.len() - 6])),
            Malformed::CheckTooLarge
        );
        assert_eq!(
            problem(&format!("{}000000", &good[..good.len() - 6])),
            Malformed::Check
        );
    }

    #[test]
    fn the_greatest_numbers_fit_and_the_next_ones_do_not() {
        let mut text = String::new();
        base62::encode::<2>([u64::MAX; 2], ID_WIDTH, &mut text);
        assert_eq!(base62::decode::<2>(text.as_bytes()), Some([u64::MAX; 2]));
        let mut next = text.into_bytes();
        *next.last_mut().unwrap() += 1;
        assert_eq!(base62::decode::<2>(&next), None);
    }

    #[test]
    fn one_changed_character_never_passes() {
        let good = sample();
        for position in 0..good.len() {
            for replacement in ["0", "z", "A"] {
                let mut changed = good.clone();
                changed.replace_range(position..=position, replacement);
                assert!(changed == good || parse(&changed).is_err(), "{changed}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_id_and_secret_is_parsed_as_it_was_built(id: [u8; 16], secret: [u8; 32]) {
            let plain = PlainKey::new(
                &Prefix::parse("demo").unwrap(),
                &Tag::parse("live").unwrap(),
                KeyId::from_bytes(id),
                &SecretBytes::new(secret),
            );
            let read = parse(plain.expose()).unwrap_or_else(|problem| panic!("{problem:?}"));
            prop_assert_eq!(read.id.as_bytes(), &id);
            prop_assert_eq!(read.secret.expose(), &secret);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,600}") {
            let _ = parse(&text);
            let _ = parse(&format!("demo_live_{text}"));
        }
    }
}
