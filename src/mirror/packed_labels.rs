//! The name and the labels of a key, on which no decision depends.

use prost::{decode_length_delimiter, encode_length_delimiter, length_delimiter_len};

/// The tags of the fields `name` and `labels` of the message `claviger.v1.VerifiedKey`. A test in `src/grpc` compares them.
const NAME: u8 = tag(7);
const LABELS: u8 = tag(10);

/// The tags of the fields of an entry of any map (<https://protobuf.dev/programming-guides/encoding/#maps>).
const MAP_KEY: u8 = tag(1);
const MAP_VALUE: u8 = tag(2);

/// The tag of a field that has a length (<https://protobuf.dev/programming-guides/encoding/#structure>). The number is at most 15.
const fn tag(number: u8) -> u8 {
    const LENGTH_DELIMITED: u8 = 2;
    number << 3 | LENGTH_DELIMITED
}

/// A key's name and labels in the form that they have in an answer to a Verify: the encoded fields of a protobuf message, without
/// the rest of the message.
#[derive(Clone, Copy)]
pub struct PackedLabels<'k>(&'k [u8]);

impl<'k> PackedLabels<'k> {
    /// Packs a name and labels. The result begins with `head`, which is not part of them.
    pub(crate) fn pack<'w>(
        head: &[u8],
        name: &'w str,
        labels: impl Iterator<Item = (&'w str, &'w str)> + Clone,
    ) -> Box<[u8]> {
        let entry_length =
            |(label, value): (&str, &str)| string_length(label) + string_length(value);
        let lengths = labels.clone().map(entry_length).map(field_length);
        let length = string_length(name) + lengths.sum::<usize>();
        let mut bytes = Vec::with_capacity(head.len() + length);
        bytes.extend_from_slice(head);
        put_string(NAME, name, &mut bytes);
        for (label, value) in labels {
            put_head(LABELS, entry_length((label, value)), &mut bytes);
            put_string(MAP_KEY, label, &mut bytes);
            put_string(MAP_VALUE, value, &mut bytes);
        }
        bytes.into_boxed_slice()
    }

    /// The name and labels in these bytes, which [`PackedLabels::pack`] made, without the head.
    pub(crate) fn unpack(bytes: &'k [u8]) -> Self {
        Self(bytes)
    }

    /// The encoded fields.
    pub fn encoded(self) -> &'k [u8] {
        self.0
    }

    /// The name.
    pub fn name(self) -> &'k str {
        string_of(NAME, self.0)
    }

    /// The labels, with their values.
    pub fn labels(self) -> impl Iterator<Item = (&'k str, &'k str)> {
        fields(self.0)
            .filter(|(tag, _)| *tag == LABELS)
            .map(|(_, entry)| (string_of(MAP_KEY, entry), string_of(MAP_VALUE, entry)))
    }
}

/// The length of a field with its tag and its own length.
fn field_length(length: usize) -> usize {
    1 + length_delimiter_len(length) + length
}

/// The length of a string as a field. Like every encoder of proto3, this one leaves out an empty string.
fn string_length(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        field_length(text.len())
    }
}

fn put_head(tag: u8, length: usize, bytes: &mut Vec<u8>) {
    bytes.push(tag);
    encode_length_delimiter(length, bytes).expect("a vector grows");
}

fn put_string(tag: u8, text: &str, bytes: &mut Vec<u8>) {
    if !text.is_empty() {
        put_head(tag, text.len(), bytes);
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// The tags and contents of the fields of a message that has only fields with a length.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let tag = bytes.split_off_first()?;
        let length = decode_length_delimiter(&mut bytes).ok()?;
        Some((*tag, bytes.split_off(..length)?))
    })
}

/// The string with this tag; empty if it was left out.
fn string_of(tag: u8, bytes: &[u8]) -> &str {
    let field = fields(bytes).find(|(found, _)| *found == tag);
    let text = field.and_then(|(_, text)| str::from_utf8(text).ok());
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_again() {
        let long = "x".repeat(300);
        for (name, labels) in [
            ("", vec![]),
            ("a name", vec![]),
            ("", vec![("a", ""), ("b", "β"), ("", "c")]),
            ("ключ", vec![("a", "1"), ("b", ""), ("c", &long)]),
            ("a\u{1f}\0b", vec![("a\n", "\u{7f}")]),
        ] {
            let bytes = PackedLabels::pack(b"head", name, labels.iter().copied());
            let packed = PackedLabels::unpack(&bytes[4..]);
            assert_eq!(packed.name(), name);
            assert_eq!(packed.labels().collect::<Vec<_>>(), labels);
        }
    }
}
