//! Encoded protobuf messages and their fields.
//!
//! Generated messages own their strings. Where that costs too much, fields are written and read here one by one, in the encoding of
//! <https://protobuf.dev/programming-guides/encoding/>.

use std::fmt;
use std::marker::PhantomData;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{
    DecodeError, Message, decode_length_delimiter, encode_length_delimiter, length_delimiter_len,
};

/// The tag of a field that has a length. The number of the field is at most 15.
pub const fn tag(number: u8) -> u8 {
    const LENGTH_DELIMITED: u8 = 2;
    number << 3 | LENGTH_DELIMITED
}

/// The length of a field with its tag and its own length.
pub fn field_length(length: usize) -> usize {
    1 + length_delimiter_len(length) + length
}

/// The length of a string as a field. Like every encoder of proto3, this one leaves out an empty string.
pub fn string_length(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        field_length(text.len())
    }
}

/// Writes the tag and the length of a field.
pub fn put_head(tag: u8, length: usize, bytes: &mut Vec<u8>) {
    bytes.push(tag);
    encode_length_delimiter(length, bytes).expect("a vector grows");
}

/// Writes a field that has a length, also if it is empty.
pub fn put_field(tag: u8, field: &[u8], bytes: &mut Vec<u8>) {
    put_head(tag, field.len(), bytes);
    bytes.extend_from_slice(field);
}

/// Writes a string, unless it is empty.
pub fn put_string(tag: u8, text: &str, bytes: &mut Vec<u8>) {
    if !text.is_empty() {
        put_field(tag, text.as_bytes(), bytes);
    }
}

/// The tags and contents of the fields of a message that has only fields with a length.
pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let tag = bytes.split_off_first()?;
        let length = decode_length_delimiter(&mut bytes).ok()?;
        Some((*tag, bytes.split_off(..length)?))
    })
}

/// The string with this tag; empty if it was left out.
pub fn string_of(tag: u8, bytes: &[u8]) -> &str {
    let field = fields(bytes).find(|(found, _)| *found == tag);
    let text = field.and_then(|(_, text)| str::from_utf8(text).ok());
    text.unwrap_or_default()
}

/// A message `M` that is encoded already. It can be sent like `M`, but not received.
pub struct Encoded<M> {
    bytes: Vec<u8>,
    message: PhantomData<fn() -> M>,
}

impl<M> Encoded<M> {
    /// Wraps the encoded fields of a message.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            message: PhantomData,
        }
    }

    /// The encoded fields.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the encoded fields.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl<M> Default for Encoded<M> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<M> fmt::Debug for Encoded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded").finish_non_exhaustive()
    }
}

impl<M> Message for Encoded<M> {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.bytes);
    }

    fn merge_field(
        &mut self,
        number: u32,
        kind: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Nothing receives it.
        skip_field(kind, number, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}
