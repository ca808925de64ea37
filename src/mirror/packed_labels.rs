//! The name and the labels of a key, on which no decision depends.

use crate::protobuf::{field_length, fields, put_head, put_string, string_length, string_of, tag};

/// The tags of the fields `name` and `labels` of the message `claviger.v1.VerifiedKey`. A test in `src/grpc` compares them.
const NAME: u8 = tag(7);
const LABELS: u8 = tag(10);

/// The tags of the fields of an entry of any map (<https://protobuf.dev/programming-guides/encoding/#maps>).
const MAP_KEY: u8 = tag(1);
const MAP_VALUE: u8 = tag(2);

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
