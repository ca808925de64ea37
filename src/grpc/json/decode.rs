//! Requests in JSON, read by the rules of <https://protobuf.dev/programming-guides/json/>.
//!
//! It is stricter than these rules: an unknown name, a field that is set twice and two fields of a oneof are errors. An error names
//! the field and never repeats a value, because it may be an API key. Each value is checked when the parser comes to it, so nothing
//! that the message does not have is kept, and the message limits how deeply values are nested.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, Value};
use serde::de::value::Error as TextError;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;
use tonic::Status;

use crate::domain::violation::Violations;
use crate::grpc::status;

/// The number of values that a request may have. A megabyte has room for hundreds of thousands, which would take a hundred
/// megabytes when they are read.
const MAX_VALUES: usize = 65_536;

/// The length up to which an unknown name is repeated in an error. The longest name of a field is shorter.
const MAX_NAME: usize = 31;

/// The largest number up to which a floating-point number is exact.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a message.
///
/// # Errors
/// If it is no JSON, has too many values, or a value that the message does not take.
pub(super) fn decode(
    descriptor: &MessageDescriptor,
    json: &[u8],
) -> Result<DynamicMessage, Status> {
    if json.starts_with(BYTE_ORDER_MARK) {
        return Err(status::malformed_json(
            "it begins with a byte order mark: send it without one",
        ));
    }
    if json.is_empty() {
        return Err(status::malformed_json(
            "it is empty: send at least the object {}",
        ));
    }
    let reader = Reader::default();
    let kind = Kind::Message(descriptor.clone());
    let seed = ValueSeed {
        reader: &reader,
        path: &FieldPath::Request,
        kind: &kind,
        shape: Shape::Single,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match (read, reader.problem.take()) {
        (Ok(Some(Value::Message(message))), None) => Ok(message),
        (Ok(_), None) => Err(wrong_field(String::new(), "must be an object".to_owned())),
        (_, Some(Problem::TooManyValues)) => Err(status::message_too_large(&format!(
            "it has more than {MAX_VALUES} values"
        ))),
        (_, Some(Problem::Field { field, problem })) => Err(wrong_field(field, problem)),
        (Err(error), Some(Problem::UnknownName { path })) => {
            let (line, column) = (error.line(), error.column());
            let problem =
                format!("has a field of an unknown name (line {line}, column {column}): remove it");
            Err(wrong_field(path, problem))
        }
        // These errors of the parser repeat nothing.
        (Err(error), None) if error.classify() != Category::Data => {
            Err(status::malformed_json(&error.to_string()))
        }
        _ => Err(status::malformed_json(
            "its values do not have the types of the message",
        )),
    }
}

fn wrong_field(field: String, problem: String) -> Status {
    let mut violations = Violations::default();
    let field = if field.is_empty() {
        "request".to_owned()
    } else {
        field
    };
    violations.add(field, problem);
    status::invalid(&violations)
}

/// What one reading has come to.
#[derive(Default)]
struct Reader {
    values: Cell<usize>,
    problem: RefCell<Option<Problem>>,
}

/// Why a request is refused.
enum Problem {
    TooManyValues,
    Field {
        field: String,
        problem: String,
    },
    /// A message has a field with a name that is not repeated.
    UnknownName {
        path: String,
    },
}

impl Reader {
    /// Ends the reading. The parser gets an error that says nothing.
    fn refuse<T, E: Error>(&self, problem: Problem) -> Result<T, E> {
        self.problem.replace(Some(problem));
        Err(E::custom("refused"))
    }

    fn wrong<T, E: Error>(&self, path: &FieldPath<'_>, problem: impl Into<String>) -> Result<T, E> {
        self.refuse(Problem::Field {
            field: path.to_string(),
            problem: problem.into(),
        })
    }

    fn count<E: Error>(&self) -> Result<(), E> {
        self.values.update(|values| values + 1);
        if self.values.get() > MAX_VALUES {
            return self.refuse(Problem::TooManyValues);
        }
        Ok(())
    }
}

/// Where a value is in the request.
enum FieldPath<'p> {
    Request,
    Field {
        parent: &'p FieldPath<'p>,
        name: &'p str,
    },
    Entry {
        list: &'p FieldPath<'p>,
        index: usize,
    },
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => Ok(()),
            Self::Field {
                parent: Self::Request,
                name,
            } => f.write_str(name),
            Self::Field { parent, name } => write!(f, "{parent}.{name}"),
            Self::Entry { list, index } => write!(f, "{list}[{index}]"),
        }
    }
}

/// What a value is read into. `null` is read as `None`.
struct ValueSeed<'p> {
    reader: &'p Reader,
    path: &'p FieldPath<'p>,
    kind: &'p Kind,
    shape: Shape,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    List,
    /// The kind is that of the entries.
    Map,
}

impl ValueSeed<'_> {
    fn is(&self, kind: &Kind) -> bool {
        self.shape == Shape::Single && self.kind == kind
    }

    fn wrong<T, E: Error>(&self) -> Result<T, E> {
        self.reader.wrong(self.path, self.expected())
    }

    fn expected(&self) -> String {
        let whole =
            |least: i128, most: i128| format!("must be a whole number from {least} to {most}");
        match (self.shape, self.kind) {
            (Shape::List, _) => "must be a list".to_owned(),
            (Shape::Map, _) => "must be an object of names and values".to_owned(),
            (Shape::Single, Kind::Bool) => "must be true or false".to_owned(),
            (Shape::Single, Kind::String) => "must be a string".to_owned(),
            (Shape::Single, Kind::Enum(values)) => {
                let names: Vec<_> = values
                    .values()
                    .map(|value| value.name().to_owned())
                    .collect();
                format!("must be one of {}", names.join(", "))
            }
            (Shape::Single, Kind::Message(message)) => match message.full_name() {
                TIMESTAMP => "must be a time such as \"2030-01-31T12:00:00Z\"".to_owned(),
                DURATION => "must be a number of seconds such as \"3600s\" or \"0.5s\"".to_owned(),
                FIELD_MASK => {
                    "must be the lowerCamelCase names of fields, such as \"name,expireTime\""
                        .to_owned()
                }
                _ => "must be an object".to_owned(),
            },
            (Shape::Single, kind) => match range(kind) {
                Some((least, most)) => whole(least, most),
                None => "cannot be sent as JSON: use gRPC".to_owned(),
            },
        }
    }

    fn integer<E: Error>(&self, number: i128) -> Result<Option<Value>, E> {
        let in_range =
            range(self.kind).is_some_and(|(least, most)| (least..=most).contains(&number));
        if self.shape != Shape::Single || !in_range {
            return self.wrong();
        }
        Ok(Some(match self.kind {
            Kind::Enum(_) => Value::EnumNumber(number as i32),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number as i64),
            _ => Value::U64(number as u64),
        }))
    }

    fn text<E: Error>(&self, text: &str) -> Result<Option<Value>, E> {
        if self.shape != Shape::Single {
            return self.wrong();
        }
        match self.kind {
            Kind::Enum(values) => match values.get_value_by_name(text) {
                Some(value) => Ok(Some(Value::EnumNumber(value.number()))),
                None => self.wrong(),
            },
            Kind::Message(message) if is_text(message) => {
                let text: serde::de::value::StrDeserializer<'_, TextError> =
                    text.into_deserializer();
                match DynamicMessage::deserialize(message.clone(), text) {
                    Ok(message) => Ok(Some(Value::Message(message))),
                    Err(_) => self.wrong(),
                }
            }
            kind if range(kind).is_some() && !text.starts_with('+') => match text.parse() {
                Ok(number) => self.integer(number),
                Err(_) => self.wrong(),
            },
            _ => self.wrong(),
        }
    }

    fn map<'de, A: MapAccess<'de>>(&self, mut map: A) -> Result<Option<Value>, A::Error> {
        let Kind::Message(entry) = self.kind else {
            return self.wrong();
        };
        let kind = entry.map_entry_value_field().kind();
        let mut values = HashMap::new();
        while let Some(name) = map.next_key::<String>()? {
            self.reader.count()?;
            let value = map.next_value_seed(ValueSeed {
                kind: &kind,
                shape: Shape::Single,
                ..*self
            })?;
            let Some(value) = value else {
                return self
                    .reader
                    .wrong(self.path, "must not have null as a value");
            };
            if values.insert(MapKey::String(name), value).is_some() {
                return self.reader.wrong(self.path, "has the same name twice");
            }
        }
        Ok(Some(Value::Map(values)))
    }

    fn message<'de, A: MapAccess<'de>>(&self, mut map: A) -> Result<Option<Value>, A::Error> {
        let (Shape::Single, Kind::Message(descriptor)) = (self.shape, self.kind) else {
            return self.wrong();
        };
        if is_text(descriptor) {
            return self.wrong();
        }
        let reader = self.reader;
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            reader.count()?;
            let field = descriptor
                .get_field_by_json_name(&name)
                .or_else(|| descriptor.get_field_by_name(&name));
            let Some(field) = field else {
                return self.unknown(&name, descriptor);
            };
            let path = FieldPath::Field {
                parent: self.path,
                name: field.name(),
            };
            if !seen.insert(field.number()) {
                return reader.wrong(&path, "is set twice: set it once");
            }
            let shape = match () {
                () if field.is_map() => Shape::Map,
                () if field.is_list() => Shape::List,
                () => Shape::Single,
            };
            let value = map.next_value_seed(ValueSeed {
                reader,
                path: &path,
                kind: &field.kind(),
                shape,
            })?;
            let Some(value) = value else { continue };
            if let Some(oneof) = field.containing_oneof()
                && oneof.fields().any(|other| message.has_field(&other))
            {
                let names: Vec<_> = oneof
                    .fields()
                    .map(|field| field.name().to_owned())
                    .collect();
                let problem = format!("set only one of {}", names.join(", "));
                return reader.wrong(&path, problem);
            }
            message.set_field(&field, value);
        }
        Ok(Some(Value::Message(message)))
    }

    fn unknown<T, E: Error>(&self, name: &str, message: &MessageDescriptor) -> Result<T, E> {
        if !reads_as_a_name(name) {
            return self.reader.refuse(Problem::UnknownName {
                path: self.path.to_string(),
            });
        }
        let path = FieldPath::Field {
            parent: self.path,
            name,
        };
        let message = message.full_name();
        let problem = format!("is no field of {message}: correct its name, or remove it");
        self.reader.wrong(&path, problem)
    }
}

const TIMESTAMP: &str = "google.protobuf.Timestamp";
const DURATION: &str = "google.protobuf.Duration";
const FIELD_MASK: &str = "google.protobuf.FieldMask";

/// Whether a text can be the name of a field, perhaps with a typing error. API keys, also parts of them, are longer or have digits
/// and capitals anywhere.
fn reads_as_a_name(text: &str) -> bool {
    let words = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_of_words = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let has_capitals_in_a_row = || {
        let pairs = words.as_bytes().windows(2);
        pairs
            .into_iter()
            .any(|pair| pair.iter().all(u8::is_ascii_uppercase))
    };
    text.len() <= MAX_NAME
        && text.len() - words.len() <= 3
        && !words.is_empty()
        && words.bytes().all(is_of_words)
        && !has_capitals_in_a_row()
}

/// Whether a message is a string in JSON.
fn is_text(message: &MessageDescriptor) -> bool {
    matches!(message.full_name(), TIMESTAMP | DURATION | FIELD_MASK)
}

/// The least and the greatest number of a kind that takes whole numbers.
fn range(kind: &Kind) -> Option<(i128, i128)> {
    Some(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Enum(_) => {
            (i32::MIN.into(), i32::MAX.into())
        }
        Kind::Uint32 | Kind::Fixed32 => (0, u32::MAX.into()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (i64::MIN.into(), i64::MAX.into()),
        Kind::Uint64 | Kind::Fixed64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Takes every value that JSON has, so that serde makes no error of its own, which would repeat the value.
impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        if self.is(&Kind::Bool) {
            Ok(Some(Value::Bool(value)))
        } else {
            self.wrong()
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        self.integer(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        self.integer(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.fract() == 0.0 && number.abs() <= MAX_EXACT {
            self.integer(number as i128)
        } else {
            self.wrong()
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if self.is(&Kind::String) {
            Ok(Some(Value::String(text.to_owned())))
        } else {
            self.text(text)
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        if self.shape != Shape::List {
            return self.wrong();
        }
        let mut values = Vec::new();
        loop {
            let path = FieldPath::Entry {
                list: self.path,
                index: values.len(),
            };
            let value = list.next_element_seed(ValueSeed {
                path: &path,
                shape: Shape::Single,
                ..self
            })?;
            match value {
                None => return Ok(Some(Value::List(values))),
                Some(None) => return self.reader.wrong(&path, "must not be null"),
                Some(Some(value)) => values.push(value),
            }
            self.reader.count()?;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        match self.shape {
            Shape::Map => self.map(map),
            Shape::Single => self.message(map),
            Shape::List => self.wrong(),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DeserializeOptions, FieldDescriptor};
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::grpc::json::methods::JsonMethod;

    fn request(name: &str) -> MessageDescriptor {
        let mut methods = JsonMethod::all();
        let (_, method) = methods.find(|(path, _)| path.ends_with(name)).unwrap();
        method.request.clone()
    }

    /// All fields that requests have, also in the messages in them.
    fn all_fields() -> Vec<FieldDescriptor> {
        let mut fields = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = JsonMethod::all()
            .map(|(_, method)| method.request.clone())
            .collect();
        while let Some(message) = next.pop() {
            if is_text(&message) || !seen.insert(message.full_name().to_owned()) {
                continue;
            }
            for field in message.fields() {
                next.extend(field.kind().as_message().cloned());
                fields.push(field);
            }
        }
        fields
    }

    /// A field of another kind needs its lines in `ValueSeed` first. Seen red with `Kind::Bool` left out here.
    #[test]
    fn requests_have_only_kinds_that_are_read() {
        let fields = all_fields();
        assert!(fields.len() > 100);
        for field in fields {
            let is_read = match field.kind() {
                Kind::Bool | Kind::String => true,
                Kind::Message(message) => {
                    let of_google = message.full_name().starts_with("google.");
                    is_text(&message) || !of_google
                }
                kind => range(&kind).is_some(),
            };
            assert!(is_read, "{field:?}");
            if field.is_map() {
                let kind = field.kind();
                let key = kind.as_message().unwrap().map_entry_key_field();
                assert_eq!(key.kind(), Kind::String, "{field:?}");
            }
            assert!(reads_as_a_name(field.name()), "{field:?}");
            assert!(reads_as_a_name(field.json_name()), "{field:?}");
        }
    }

    /// The message as prost-reflect reads it.
    fn as_the_library(descriptor: &MessageDescriptor, json: &str) -> DynamicMessage {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let options = DeserializeOptions::new();
        DynamicMessage::deserialize_with_options(descriptor.clone(), &mut deserializer, &options)
            .unwrap()
    }

    #[test]
    fn a_good_request_is_read_as_the_library_reads_it() {
        for (method, json) in [
            (
                "/Verify",
                r#"{"key": "a", "realm": "demo", "ownProject": true, "scopes": ["a", "b"], "minRevision": "18446744073709551615"}"#,
            ),
            (
                "/Verify",
                r#"{"min_revision": 7, "own_project": null, "scopes": [], "any_scopes": null, "key": "\u00e9\ud83d\ude00\u0000"}"#,
            ),
            (
                "/Verify",
                r#" {"minRevision": 7.0, "anyTarget": false}
                "#,
            ),
            (
                "/VerifyBatch",
                r#"{"requests": [{}, {"key": "a"}, {"project": ""}]}"#,
            ),
            (
                "/IssueKey",
                r#"{"level": "KEY_LEVEL_PARTNER", "expireTime": "2030-01-31T12:00:00.5+02:00", "labels": {"a": "b", "": ""}}"#,
            ),
            (
                "/IssueKey",
                r#"{"level": 2, "wait": 77, "labels": {}, "fullAccess": true, "allowedCidrs": ["10.0.0.0/8"]}"#,
            ),
            (
                "/UpdateKey",
                r#"{"updateMask": "name,expireTime", "name": ""}"#,
            ),
            ("/UpdateKey", r#"{"updateMask": ""}"#),
            ("/RotateKey", r#"{"overlap": "1.5s", "ifRevision": "1"}"#),
            (
                "/ListKeys",
                r#"{"pageSize": -1, "filter": {"states": ["KEY_STATE_ACTIVE", 2], "neverExpires": true}}"#,
            ),
            (
                "/PutRealm",
                r#"{"realm": {"id": "demo", "routes": [{"methods": ["GET"], "path": "/a"}], "maxCache": "0s"}}"#,
            ),
            ("/ListReplicas", "{}"),
        ] {
            let descriptor = request(method);
            let read = decode(&descriptor, json.as_bytes());
            let read = read.unwrap_or_else(|status| panic!("{json}: {status:?}"));
            assert_eq!(read, as_the_library(&descriptor, json), "{json}");
        }
    }

    /// A refusal: its code, and the wrong field if it has one.
    fn refusal(method: &str, json: &[u8]) -> (Code, Option<String>, String) {
        let status = decode(&request(method), json).expect_err(&String::from_utf8_lossy(json));
        let details = status.get_error_details();
        let mut fields = details
            .bad_request()
            .map(|bad| bad.field_violations.clone())
            .unwrap_or_default();
        let field = fields.pop().map(|violation| violation.field);
        (status.code(), field, status.message().to_owned())
    }

    /// Seen red with each of the checks left out.
    #[test]
    fn a_bad_field_is_named() {
        for (method, json, field) in [
            ("/Verify", r"[]", "request"),
            ("/Verify", r"null", "request"),
            ("/Verify", r#""{}""#, "request"),
            ("/Verify", r#"{"kee": 1}"#, "kee"),
            ("/Verify", r#"{"Key": ""}"#, "Key"),
            ("/Verify", r#"{"": ""}"#, "request"),
            ("/Verify", r#"{"a-b": ""}"#, "request"),
            ("/Verify", r#"{"key": 1}"#, "key"),
            ("/Verify", r#"{"key": ["a"]}"#, "key"),
            ("/Verify", r#"{"key": "a", "key": "a"}"#, "key"),
            (
                "/Verify",
                r#"{"minRevision": null, "min_revision": 1}"#,
                "min_revision",
            ),
            (
                "/Verify",
                r#"{"project": "a", "anyTarget": true}"#,
                "any_target",
            ),
            ("/Verify", r#"{"ownProject": "true"}"#, "own_project"),
            ("/Verify", r#"{"ownProject": 1}"#, "own_project"),
            ("/Verify", r#"{"scopes": "a"}"#, "scopes"),
            ("/Verify", r#"{"scopes": {"0": "a"}}"#, "scopes"),
            ("/Verify", r#"{"scopes": ["a", null]}"#, "scopes[1]"),
            ("/Verify", r#"{"scopes": ["a", ["b"]]}"#, "scopes[1]"),
            ("/Verify", r#"{"minRevision": -1}"#, "min_revision"),
            ("/Verify", r#"{"minRevision": "+1"}"#, "min_revision"),
            ("/Verify", r#"{"minRevision": "1e3"}"#, "min_revision"),
            ("/Verify", r#"{"minRevision": ""}"#, "min_revision"),
            ("/Verify", r#"{"minRevision": 1.5}"#, "min_revision"),
            ("/Verify", r#"{"minRevision": 1e19}"#, "min_revision"),
            ("/Verify", r#"{"minRevision": 1e300}"#, "min_revision"),
            (
                "/Verify",
                r#"{"minRevision": 18446744073709551616}"#,
                "min_revision",
            ),
            (
                "/Verify",
                r#"{"minRevision": "18446744073709551616"}"#,
                "min_revision",
            ),
            ("/Verify", r#"{"minRevision": "NaN"}"#, "min_revision"),
            ("/Verify", r#"{"minRevision": true}"#, "min_revision"),
            (
                "/VerifyBatch",
                r#"{"requests": [{}, {"realms": ""}]}"#,
                "requests[1].realms",
            ),
            ("/IssueKey", r#"{"level": "KEY_LEVEL_NONE"}"#, "level"),
            ("/IssueKey", r#"{"level": 2147483648}"#, "level"),
            ("/IssueKey", r#"{"level": true}"#, "level"),
            ("/IssueKey", r#"{"labels": {"a": "b", "a": "c"}}"#, "labels"),
            ("/IssueKey", r#"{"labels": {"a": null}}"#, "labels"),
            ("/IssueKey", r#"{"labels": {"a": 1}}"#, "labels"),
            ("/IssueKey", r#"{"labels": [["a", "b"]]}"#, "labels"),
            ("/IssueKey", r#"{"expireTime": "tomorrow"}"#, "expire_time"),
            (
                "/IssueKey",
                r#"{"expireTime": "2030-01-31"}"#,
                "expire_time",
            ),
            ("/IssueKey", r#"{"expireTime": 1893456000}"#, "expire_time"),
            (
                "/IssueKey",
                r#"{"expireTime": {"seconds": 1}}"#,
                "expire_time",
            ),
            ("/RotateKey", r#"{"overlap": "1h"}"#, "overlap"),
            ("/RotateKey", r#"{"overlap": 60}"#, "overlap"),
            (
                "/UpdateKey",
                r#"{"updateMask": "expire_time"}"#,
                "update_mask",
            ),
            (
                "/UpdateKey",
                r#"{"updateMask": {"paths": ["name"]}}"#,
                "update_mask",
            ),
            ("/PutRealm", r#"{"realm": "demo"}"#, "realm"),
            (
                "/PutRealm",
                r#"{"realm": {"routes": [{"path": 1}]}}"#,
                "realm.routes[0].path",
            ),
            ("/ListKeys", r#"{"pageSize": "many"}"#, "page_size"),
        ] {
            let (code, named, message) = refusal(method, json.as_bytes());
            assert_eq!(code, Code::InvalidArgument, "{json}");
            assert_eq!(named.as_deref(), Some(field), "{json}: {message}");
        }
    }

    /// Seen red with the look at the end of the input left out, and without that for a byte order mark.
    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let deep = [b"[".repeat(100_000), b"{\"a\":".repeat(100_000)];
        for (json, expected) in [
            (&b""[..], "is empty"),
            (b" ", "EOF while parsing a value at line 1 column 1"),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            (b"{", "EOF while parsing an object at line 1 column 1"),
            (b"{\"key\": \"a", "EOF while parsing a string"),
            (b"{} {}", "trailing characters at line 1 column 4"),
            (b"{\"key\": \"a\",}", "trailing comma at line 1 column 13"),
            (b"{'key': 1}", "key must be a string"),
            (b"{key: 1}", "key must be a string"),
            (b"// {}", "expected value"),
            (
                b"{\"minRevision\": NaN}",
                "expected value at line 1 column 17",
            ),
            (b"{\"minRevision\": -Infinity}", "invalid number"),
            (b"{\"minRevision\": 1e999}", "number out of range"),
            (b"{\"minRevision\": 01}", "invalid number"),
            (b"{\"minRevision\": 0x1}", "expected `,` or `}`"),
            (b"{\"key\": \"\\ud800\"}", "hex escape"),
            (b"{\"key\": \"\\udc00\\ud800\"}", "surrogate"),
            (b"{\"key\": \"\\x\"}", "invalid escape"),
            (b"{\"key\": \"a\nb\"}", "control character"),
            (b"{\"key\": \"\xff\"}", "invalid unicode code point"),
            (b"{\"key\": \"\xed\xa0\x80\"}", "invalid unicode code point"),
        ] {
            let (code, field, message) = refusal("/Verify", json);
            assert_eq!((code, field), (Code::InvalidArgument, None), "{message}");
            let expected_start = "the request is not valid JSON: ";
            assert!(message.starts_with(expected_start), "{message}");
            assert!(message.contains(expected), "{expected}: {message}");
        }
        for json in deep {
            let (code, field, _) = refusal("/Verify", &json);
            assert_eq!(code, Code::InvalidArgument);
            assert!(field.is_some(), "the message has nothing so deep");
        }
    }

    /// Seen red without the count.
    #[test]
    fn a_request_of_too_many_values_is_refused_before_they_are_kept() {
        let of = |count: usize| format!(r#"{{"scopes": [{}"a"]}}"#, "\"\",".repeat(count));
        decode(&request("/Verify"), of(MAX_VALUES - 2).as_bytes()).unwrap();
        let (code, field, message) = refusal("/Verify", of(MAX_VALUES - 1).as_bytes());
        assert_eq!((code, field), (Code::ResourceExhausted, None), "{message}");
    }

    /// Seen red with the unknown name, and with a wrong value, in the message.
    #[test]
    fn an_error_repeats_no_value_and_no_name_that_may_be_a_key() {
        let keys = [
            "demo_live_02y8wgU7QvIaB4J9cANFdL003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2CbwAq",
            "TtgGcQFq.s3fzROFoop8uHG4pS2LYhoqn1rLb",
            "0123456789abcdef0123456789abcdef",
            "Ttop8uHG4pS2LYhoqn1rLbPLANTED",
            "s3fzROFoop8uHG4p",
        ];
        for key in keys {
            for (method, json) in [
                ("/Verify", format!(r#"{{"{key}": 1}}"#)),
                ("/Verify", format!(r#"{{"minRevision": "{key}"}}"#)),
                ("/Verify", format!(r#"{{"ownProject": "{key}"}}"#)),
                ("/Verify", format!(r#"{{"key": {{"{key}": 1}}}}"#)),
                ("/Verify", format!(r#"{{"key": "{key}", "key": "{key}"}}"#)),
                ("/Verify", format!(r#"{{"key": "{key}" "{key}"}}"#)),
                ("/Verify", format!(r#"{{"key": {key}}}"#)),
                ("/Verify", format!(r#""{key}""#)),
                ("/IssueKey", format!(r#"{{"level": "{key}"}}"#)),
                ("/IssueKey", format!(r#"{{"expireTime": "{key}"}}"#)),
                ("/IssueKey", format!(r#"{{"labels": {{"{key}": 1}}}}"#)),
                (
                    "/IssueKey",
                    format!(r#"{{"labels": {{"{key}": "", "{key}": ""}}}}"#),
                ),
                ("/RotateKey", format!(r#"{{"overlap": "{key}"}}"#)),
                ("/UpdateKey", format!(r#"{{"updateMask": "_{key}"}}"#)),
            ] {
                let (_, field, message) = refusal(method, json.as_bytes());
                let shown = format!("{field:?} {message}");
                assert!(!shown.contains(key), "{json}: {shown}");
            }
        }
    }
}
