//! Encoded protobuf messages and their fields.
//!
//! Generated messages own their strings. Where that costs too much, fields are written and read here one by one, in the encoding of
//! <https://protobuf.dev/programming-guides/encoding/>.

use std::fmt;
use std::marker::PhantomData;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{
    DecodeError, Message, decode_length_delimiter, encode_length_delimiter, length_delimiter_len,
};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

/// The number of fields that a message may have, counted with the entries of its lists. The longest list has 9,600 entries: the
/// usage of 400 days by hour.
const MAX_FIELDS: usize = 16_384;

/// The number of fields that a message and the messages in it may have together, on all levels that are counted. A thousand entries
/// of an import with as many scopes, labels and address ranges as they can have in a megabyte have about 125,000.
const MAX_FIELDS_IN_ALL: usize = 8 * MAX_FIELDS;

/// The number of levels of messages in messages on which fields are counted: up to `ApplyRequest.state.realms.routes`.
const LEVELS: usize = 3;

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

/// Writes a message, whose fields `put` writes, with its tag and length.
pub fn put_message(tag: u8, bytes: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    // Most lengths take one byte or two. To move a short message costs less than to write it elsewhere first.
    put_head(tag, 0, bytes);
    let start = bytes.len();
    put(bytes);
    let end = bytes.len();
    let length = end - start;
    let longer = length_delimiter_len(length) - 1;
    bytes.resize(end + longer, 0);
    bytes.copy_within(start..end, start + longer);
    encode_length_delimiter(length, &mut &mut bytes[start - 1..]).expect("there is room");
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

/// The value of a field in an encoded message.
#[derive(Clone, Copy)]
pub enum Value<'m> {
    /// A field with a length: a string, bytes, a message, or numbers without a tag of their own.
    Long(&'m [u8]),
    /// A number.
    Number(u64),
    /// A number with a fixed length.
    Fixed,
    /// The begin or the end of a group, which proto3 does not have.
    Group,
}

impl<'m> Value<'m> {
    /// The bytes or the fields of a message.
    pub fn bytes(self) -> Option<&'m [u8]> {
        match self {
            Self::Long(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The text.
    pub fn text(self) -> Option<&'m str> {
        self.bytes().and_then(|text| str::from_utf8(text).ok())
    }
}

/// Reads the fields of an encoded message in their order. Returns `None` if the message cannot be decoded, or if `field` does not
/// take a value.
pub fn read_fields<'m>(
    mut message: &'m [u8],
    mut field: impl FnMut(u32, Value<'m>) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        let (number, value) = next_field(&mut message)?;
        if matches!(value, Value::Group) {
            return None;
        }
        field(number, value)?;
    }
    Some(())
}

fn next_field<'m>(message: &mut &'m [u8]) -> Option<(u32, Value<'m>)> {
    let (number, kind) = decode_key(message).ok()?;
    let mut bytes = |length: u64| message.split_off(..usize::try_from(length).ok()?);
    let value = match kind {
        WireType::Varint => Value::Number(decode_varint(message).ok()?),
        WireType::LengthDelimited => {
            let length = decode_varint(message).ok()?;
            Value::Long(message.split_off(..usize::try_from(length).ok()?)?)
        }
        WireType::ThirtyTwoBit => bytes(4).map(|_| Value::Fixed)?,
        WireType::SixtyFourBit => bytes(8).map(|_| Value::Fixed)?,
        WireType::StartGroup | WireType::EndGroup => Value::Group,
    };
    Some((number, value))
}

/// An encoded message `M`. It is sent like `M`, and received without being decoded.
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

    /// Returns the error of a message that was received and cannot be decoded.
    pub fn decode_error(&self) -> Status
    where
        M: Message + Default,
    {
        // The code that tonic's codec gives it.
        Status::internal(match M::decode(self.as_bytes()) {
            Ok(_) => "it contains a group".to_owned(),
            Err(error) => error.to_string(),
        })
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

    /// Takes all fields as they are.
    fn merge(&mut self, buffer: impl Buf) -> Result<(), DecodeError> {
        self.bytes.put(buffer);
        Ok(())
    }

    fn merge_field(
        &mut self,
        number: u32,
        kind: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // `merge` takes all fields, and nothing has such a message as a field.
        skip_field(kind, number, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// A codec that refuses messages with too many fields before it decodes them. An empty entry of a list has two bytes, and takes
/// hundreds in memory: a megabyte of them would become 140.
pub struct BoundedCodec<T, U>(ProstCodec<T, U>);

/// The decoder of a [`BoundedCodec`].
pub struct BoundedDecoder<D>(D);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = BoundedDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(self.0.decoder())
    }
}

impl<D: Decoder<Error = Status>> Decoder for BoundedDecoder<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        // tonic has the whole message in one piece.
        if is_request::<D::Item>() && has_too_many_fields(buffer.chunk()) {
            return Err(Status::out_of_range(format!(
                "a message has more than {MAX_FIELDS} fields, or more than {MAX_FIELDS_IN_ALL} with those of the messages in it"
            )));
        }
        self.0.decode(buffer)
    }
}

/// Whether messages of this type are sent to servers. What a server answers has as many fields as it has data.
fn is_request<T>() -> bool {
    std::any::type_name::<T>().ends_with("Request")
}

/// Whether a message, or a message in it, has too many fields, or all of them together. A string is read like a message, up to the
/// first byte that does not fit. What cannot be decoded is left to the real decoder.
fn has_too_many_fields(message: &[u8]) -> bool {
    exceeds(message, LEVELS, &mut 0)
}

/// The same for this number of levels, with the number of fields so far.
fn exceeds(mut message: &[u8], levels: usize, in_all: &mut usize) -> bool {
    let mut fields = 0;
    while !message.is_empty() {
        let value = match next_field(&mut message) {
            Some((_, Value::Long(value))) => value,
            // Would make a long text look like many fields, and takes no memory.
            Some(_) => continue,
            None => return false,
        };
        fields += 1;
        *in_all += 1;
        if fields > MAX_FIELDS || *in_all > MAX_FIELDS_IN_ALL {
            return true;
        }
        if levels > 1 && exceeds(value, levels - 1, in_all) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::claviger::v1 as pb;

    #[test]
    fn a_message_with_too_many_fields_on_one_of_its_levels_is_found() {
        let of = |routes, environments| {
            let realm = pb::Realm {
                routes: vec![pb::Route::default(); routes],
                environments: vec![pb::Environment::default(); environments],
                ..Default::default()
            };
            let request = pb::PutRealmRequest {
                realm: Some(realm.clone()),
                ..Default::default()
            };
            let state = pb::DeclaredState {
                realms: vec![realm.clone()],
                ..Default::default()
            };
            let applied = pb::ApplyRequest {
                state: Some(state),
                ..Default::default()
            };
            [
                realm.encode_to_vec(),
                request.encode_to_vec(),
                applied.encode_to_vec(),
            ]
        };
        for message in of(MAX_FIELDS - 2, 2) {
            assert!(!has_too_many_fields(&message));
        }
        for message in of(MAX_FIELDS - 2, 3) {
            assert!(has_too_many_fields(&message));
        }
    }

    #[test]
    fn requests_are_told_from_responses_by_their_names() {
        assert!(is_request::<pb::ApplyRequest>());
        assert!(!is_request::<pb::ListRealmsResponse>());
    }

    /// Seen red without the count of all.
    #[test]
    fn messages_with_too_many_fields_together_are_found() {
        let of = |realms| {
            let realm = pb::Realm {
                routes: vec![pb::Route::default(); MAX_FIELDS / 2],
                ..Default::default()
            };
            let state = pb::DeclaredState {
                realms: vec![realm; realms],
                ..Default::default()
            };
            pb::ApplyRequest {
                state: Some(state),
                ..Default::default()
            }
            .encode_to_vec()
        };
        assert!(!has_too_many_fields(&of(15)));
        assert!(has_too_many_fields(&of(16)));
    }

    #[test]
    fn a_message_of_any_length_is_written_like_a_field() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let (mut expected, mut bytes) = (vec![7], vec![7]);
            let field = vec![9; length];
            put_field(tag(3), &field, &mut expected);
            put_message(tag(3), &mut bytes, |bytes| bytes.extend_from_slice(&field));
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn text_is_no_message() {
        let request = pb::IssueKeyRequest {
            name: "\u{a}\u{0}".repeat(MAX_FIELDS / 2),
            ..Default::default()
        };
        assert!(!has_too_many_fields(&request.encode_to_vec()));
        assert!(!has_too_many_fields(&vec![0xff; 100_000]));
    }
}
