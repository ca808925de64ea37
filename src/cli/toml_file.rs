//! Realms and declared states as TOML files with the field names of the proto, which stays the only list of the fields.
//!
//! A file differs from the proto's JSON in two ways: time spans are written as `"1h"` instead of `"3600s"`, and enum values as
//! `"full-access"`. Their names in the proto are accepted too.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use prost::Message;
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MessageDescriptor};
use toml::Value;

use super::failure::Failure;
use super::{reflect, text};
use crate::domain::span::{self, SpanError};
use crate::pb::claviger::v1::{
    DeclaredState, EncodedCharacters, KeyLevel, Realm, TrailingSlash, UnscopedKeys,
};

const SPAN: &str = "google.protobuf.Duration";
const TIME: &str = "google.protobuf.Timestamp";

/// Reads a file, or standard input if its name is `-`, and parses it.
pub(super) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        ("standard input".to_owned(), read.map(|_| text))
    } else {
        (path.display().to_string(), fs::read_to_string(path))
    };
    let text = text.map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    parse(&text).map_err(|why| Failure::usage(format!("{name}: {why}")))
}

/// Parses a realm. The error names the place and the cause.
pub(super) fn parse_realm(text: &str) -> Result<Realm, String> {
    message("Realm", table(text)?)
}

/// Parses a declared state. A file with one realm declares this realm. The error names the place and the cause.
pub(super) fn parse_declared(text: &str) -> Result<DeclaredState, String> {
    let table = table(text)?;
    if table.contains_key("id") {
        let realm = message("Realm", table)?;
        return Ok(DeclaredState {
            realms: vec![realm],
            ..DeclaredState::default()
        });
    }
    message("DeclaredState", table)
}

fn table(text: &str) -> Result<toml::Table, String> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(1, |before| before.matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    })
}

fn message<M: Message + Default>(name: &str, table: toml::Table) -> Result<M, String> {
    let message = reflect::descriptor(name);
    let mut value = Value::Table(table);
    write_as_proto(&mut value, &Kind::Message(message.clone()), "")?;
    DynamicMessage::deserialize(message, value)
        .map_err(|error| reworded(&error.to_string()))?
        .transcode_to()
        .map_err(|error| error.to_string())
}

/// Formats a realm for editing, without the fields that the server sets or that have the default of a file.
pub(super) fn realm_to_toml(realm: &Realm) -> Result<String, String> {
    let mut described = Realm {
        revision: 0,
        create_time: None,
        ..realm.clone()
    };
    // The defaults of a file, which the server writes out.
    for span in [&mut described.max_cache, &mut described.max_lifetime] {
        *span = span.filter(|span| (span.seconds, span.nanos) != (0, 0));
    }
    let every_level = [KeyLevel::Partner as i32, KeyLevel::Project as i32];
    if every_level
        .iter()
        .all(|level| described.levels.contains(level))
    {
        described.levels.clear();
    }
    if described.unscoped_keys() == UnscopedKeys::NoAccess {
        described.unscoped_keys = UnscopedKeys::Unspecified.into();
    }
    if described.trailing_slash() == TrailingSlash::Deny {
        described.trailing_slash = TrailingSlash::Unspecified.into();
    }
    if described.encoded_characters() == EncodedCharacters::Deny {
        described.encoded_characters = EncodedCharacters::Unspecified.into();
    }
    to_toml("Realm", &described)
}

/// Formats a message of this name, without the fields that have their default value.
pub(super) fn to_toml(name: &str, message: &impl Message) -> Result<String, String> {
    let described = reflect::Described::terse(name, message);
    let mut value = Value::try_from(described).map_err(|error| error.to_string())?;
    write_as_text(&mut value, &Kind::Message(reflect::descriptor(name)));
    toml::to_string(&value).map_err(|error| error.to_string())
}

/// Why a file must not have a field that the server sets. The server would ignore it, and `revision` looks like a guard against
/// concurrent changes.
fn set_by_the_server(path: &str, name: &str) -> Option<String> {
    match (path, name) {
        ("revision", _) => Some(
            "`revision` is set by the server; to change only that revision, use --if-revision"
                .to_owned(),
        ),
        (_, "revision" | "create_time") => Some(format!(
            "`{path}` is set by the server: remove it from the file"
        )),
        _ => None,
    }
}

/// The text of a time, as the proto's JSON has it: a date is its first moment, in UTC.
fn time_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Datetime(time) => time.to_string(),
        _ => return None,
    };
    let is_date = text.len() == "2030-01-31".len();
    let text = if is_date {
        format!("{text}T00:00:00Z")
    } else {
        text
    };
    // The parser takes a time without a zone for one in UTC.
    let zone = text.get("2030-01-31T12:00:00".len()..)?;
    let has_zone = zone.contains(['Z', 'z', '+', '-']);
    (has_zone && text.parse::<prost_types::Timestamp>().is_ok()).then_some(text)
}

/// Converts the values of a file to those of the proto's JSON.
fn write_as_proto(value: &mut Value, kind: &Kind, path: &str) -> Result<(), String> {
    match (kind, value) {
        (kind, Value::Array(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                write_as_proto(item, kind, &format!("{path}[{index}]"))?;
            }
        }
        (Kind::Message(message), Value::Table(table)) if !message.is_map_entry() => {
            if let Some(why) = more_than_one(message, table) {
                return Err(format!("`{path}`: {why}"));
            }
            for (name, value) in table.iter_mut() {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                if let Some(why) = set_by_the_server(&path, name) {
                    return Err(why);
                }
                let field = message
                    .get_field_by_name(name)
                    .ok_or_else(|| format!("`{path}` is not a field: check its spelling"))?;
                match (field.is_list(), value.is_array()) {
                    (true, false) => return Err(format!("`{path}` must be a list")),
                    (false, true) => return Err(format!("`{path}` must not be a list")),
                    _ => {}
                }
                write_as_proto(value, &field.kind(), &path)?;
            }
        }
        (Kind::Message(message), value) if message.full_name() == SPAN => {
            let malformed = || format!("`{path}` must be a time span such as \"30s\" or \"1h\"");
            let span =
                span::parse(value.as_str().ok_or_else(malformed)?).map_err(
                    |error| match error {
                        SpanError::Malformed => malformed(),
                        SpanError::Ambiguous { .. } => format!("`{path}`: {error}"),
                    },
                )?;
            let span = prost_types::Duration::try_from(span).map_err(|_| malformed())?;
            *value = Value::String(span.to_string());
        }
        (Kind::Message(message), value) if message.full_name() == TIME => {
            *value = Value::String(time_text(value).ok_or_else(|| {
                format!("`{path}` must be a time such as 2030-01-31T12:00:00Z, or a date")
            })?);
        }
        (Kind::Message(_), value) if !value.is_table() => {
            return Err(format!("`{path}` must be a table"));
        }
        (Kind::Enum(values), value) if !value.is_integer() => {
            let name = value.as_str().and_then(|text| value_of(values, text));
            *value = Value::String(name.ok_or_else(|| {
                format!("`{path}` must be one of {}", short_names(values).join(", "))
            })?);
        }
        // A date without quotation marks is accepted as its text.
        (Kind::String, value) if !value.is_str() && !value.is_datetime() => {
            return Err(format!("`{path}` must be a string"));
        }
        (Kind::Bool, value) if !value.is_bool() => {
            return Err(format!("`{path}` must be true or false"));
        }
        _ => {}
    }
    Ok(())
}

/// Returns an error if the table sets two fields that exclude each other.
fn more_than_one(message: &MessageDescriptor, table: &toml::Table) -> Option<String> {
    message.oneofs().find_map(|oneof| {
        let names: Vec<_> = oneof
            .fields()
            .map(|field| field.name().to_owned())
            .collect();
        if names
            .iter()
            .filter(|name| table.contains_key(*name))
            .count()
            < 2
        {
            return None;
        }
        let (last, others) = names.split_last()?;
        Some(format!(
            "a {} may have only one of {} and {last}",
            text::spaced(message.name()),
            others.join(", ")
        ))
    })
}

/// Rewords an error of the deserializer, which ends with its place: "... in `denials.status`".
fn reworded(error: &str) -> String {
    let error = error.trim_end().replace('\n', " ");
    let Some((why, place)) = error.rsplit_once(" in `") else {
        return error;
    };
    let place = place.trim_end_matches('`');
    if why.contains("out of range") {
        return format!("`{place}` is out of range");
    }
    if let Some((_, expected)) = why.split_once(", expected ") {
        return format!("`{place}` must be {}", expected.replace("a map", "a table"));
    }
    let why = why.replace("sequence", "list").replace("map", "table");
    format!("`{place}`: {why}")
}

/// Returns the names of the enum values as a file writes them, without the zero value.
fn short_names(values: &EnumDescriptor) -> Vec<String> {
    let zero = values.default_value();
    let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
    values
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| short_name(value.name(), prefix))
        .collect()
}

/// The name of an enum value as a file writes it: `no-access`.
fn short_name(name: &str, prefix: &str) -> String {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    name.to_lowercase().replace('_', "-")
}

/// Returns the full name of an enum value, from the full name or its last part, in any case.
fn value_of(values: &EnumDescriptor, text: &str) -> Option<String> {
    let text = text.to_uppercase().replace('-', "_");
    // By the naming rules of the proto, the zero value is the common prefix and `UNSPECIFIED`.
    let zero = values.default_value();
    let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
    let short = format!("{prefix}{text}");
    [text, short]
        .into_iter()
        .find(|name| values.get_value_by_name(name).is_some())
}

/// Converts the time spans and enum values of the proto's JSON to those of a file.
fn write_as_text(value: &mut Value, kind: &Kind) {
    match (kind, value) {
        (kind, Value::Array(items)) => {
            for item in items {
                write_as_text(item, kind);
            }
        }
        (Kind::Message(message), Value::Table(table)) => {
            for (name, value) in table.iter_mut() {
                if let Some(field) = message.get_field_by_name(name) {
                    write_as_text(value, &field.kind());
                }
            }
        }
        (Kind::Enum(values), Value::String(text)) => {
            let zero = values.default_value();
            let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
            *text = short_name(text, prefix);
        }
        (Kind::Message(message), Value::String(text)) if message.full_name() == SPAN => {
            if let Some(span) = text
                .parse::<prost_types::Duration>()
                .ok()
                .and_then(|span| Duration::try_from(span).ok())
            {
                *text = text::span(span);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::{
        CredentialSource, Credentials, Denial, DenialClass, Environment, Route, Scope,
        credential_source, route,
    };

    use super::*;

    const FILE: &str = r#"
id = "demo"
prefix = "demo"
admin_scope = "admin"
unscoped_keys = "UNSCOPED_KEYS_FULL_ACCESS"
levels = ["KEY_LEVEL_PARTNER", "project"]
max_cache = "30s"
max_lifetime = "90d"
project_segments = ["projects"]
lenient_paths = true
trailing_slash = "significant"
encoded_characters = "ENCODED_CHARACTERS_KEEP"
identity_labels = ["operator/plan"]
self_rotation = true
record_addresses = true

[[environments]]
name = "production"
tag = "live"

[[scopes]]
name = "read"

[[scopes]]
name = "admin"
implies = ["read"]
description = "Everything, \"billing\" too"

[credentials]
partner_header = "x-api-user"

[[credentials.sources]]
header = { name = "authorization", scheme = "Bearer" }

[[credentials.sources]]
cookie = { name = "session" }

[[routes]]
methods = ["POST"]
path = "/v1/projects/{project}/keys"
project = "project"
partner_key = true
scopes = ["admin"]

[[routes]]
path = "/health"
public = true
optional_key = true

[[denials]]
denial_class = "unauthenticated"
headers = { content-type = "application/json" }
body = '{"code":"Unauthorized"}'
"#;

    fn realm() -> Realm {
        Realm {
            id: "demo".to_owned(),
            prefix: "demo".to_owned(),
            environments: vec![Environment {
                name: "production".to_owned(),
                tag: "live".to_owned(),
            }],
            scopes: vec![
                Scope {
                    name: "read".to_owned(),
                    ..Scope::default()
                },
                Scope {
                    name: "admin".to_owned(),
                    implies: vec!["read".to_owned()],
                    description: "Everything, \"billing\" too".to_owned(),
                    ..Scope::default()
                },
            ],
            admin_scope: "admin".to_owned(),
            unscoped_keys: UnscopedKeys::FullAccess as i32,
            levels: vec![KeyLevel::Partner as i32, KeyLevel::Project as i32],
            max_cache: Some(prost_types::Duration {
                seconds: 30,
                nanos: 0,
            }),
            max_lifetime: Some(prost_types::Duration {
                seconds: 90 * 86_400,
                nanos: 0,
            }),
            credentials: Some(Credentials {
                sources: [
                    credential_source::Source::Header(credential_source::Header {
                        name: "authorization".to_owned(),
                        scheme: "Bearer".to_owned(),
                    }),
                    credential_source::Source::Cookie(credential_source::Cookie {
                        name: "session".to_owned(),
                    }),
                ]
                .map(|source| CredentialSource {
                    source: Some(source),
                })
                .into(),
                partner_header: "x-api-user".to_owned(),
            }),
            routes: vec![
                Route {
                    methods: vec!["POST".to_owned()],
                    path: "/v1/projects/{project}/keys".to_owned(),
                    target: Some(route::Target::Project("project".to_owned())),
                    partner_key: true,
                    scopes: vec!["admin".to_owned()],
                    any_scopes: Vec::new(),
                    optional_key: false,
                },
                Route {
                    path: "/health".to_owned(),
                    target: Some(route::Target::Public(true)),
                    optional_key: true,
                    ..Route::default()
                },
            ],
            denials: vec![Denial {
                denial_class: DenialClass::Unauthenticated as i32,
                status: 0,
                headers: [("content-type".to_owned(), "application/json".to_owned())].into(),
                body: r#"{"code":"Unauthorized"}"#.to_owned(),
            }],
            project_segments: vec!["projects".to_owned()],
            lenient_paths: true,
            trailing_slash: TrailingSlash::Significant as i32,
            encoded_characters: EncodedCharacters::Keep as i32,
            identity_labels: vec!["operator/plan".to_owned()],
            self_rotation: true,
            record_addresses: true,
            revision: 0,
            create_time: None,
        }
    }

    #[test]
    fn a_file_has_the_protos_names() {
        assert_eq!(parse_realm(FILE), Ok(realm()));
    }

    #[test]
    fn what_was_got_can_be_put_again() {
        let stored = Realm {
            revision: 17,
            create_time: Some(prost_types::Timestamp::default()),
            ..realm()
        };
        let text = realm_to_toml(&stored).unwrap();
        assert!(
            !text.contains("revision") && !text.contains("create_time"),
            "{text}"
        );
        assert!(text.contains("max_lifetime = \"90d\""), "{text}");
        assert!(text.contains("unscoped_keys = \"full-access\""), "{text}");
        // Both levels, as by default.
        let default = Realm {
            levels: Vec::new(),
            ..realm()
        };
        assert_eq!(parse_realm(&text), Ok(default));
    }

    #[test]
    fn a_file_has_no_defaults() {
        let realm = Realm {
            id: "demo".to_owned(),
            unscoped_keys: UnscopedKeys::NoAccess.into(),
            levels: vec![KeyLevel::Partner.into(), KeyLevel::Project.into()],
            max_cache: Some(prost_types::Duration::default()),
            max_lifetime: Some(prost_types::Duration::default()),
            trailing_slash: TrailingSlash::Deny.into(),
            encoded_characters: EncodedCharacters::Deny.into(),
            ..Realm::default()
        };
        assert_eq!(realm_to_toml(&realm).unwrap(), "id = \"demo\"\n");
        let realm = Realm {
            levels: vec![KeyLevel::Partner.into()],
            ..realm
        };
        let text = realm_to_toml(&realm).unwrap();
        assert_eq!(text, "id = \"demo\"\nlevels = [\"partner\"]\n");
    }

    #[test]
    fn enums_may_be_written_short() {
        for word in ["full_access", "FULL_ACCESS", "full-access"] {
            let realm = parse_realm(&format!("unscoped_keys = \"{word}\"")).unwrap();
            assert_eq!(realm.unscoped_keys(), UnscopedKeys::FullAccess);
        }
    }

    #[test]
    fn a_mistake_is_named_by_its_place() {
        for (file, shown) in [
            (
                "prefx = \"demo\"",
                "`prefx` is not a field: check its spelling",
            ),
            (
                "revision = 3",
                "`revision` is set by the server; to change only that revision, use --if-revision",
            ),
            (
                "create_time = \"2027-01-15T08:00:00Z\"",
                "`create_time` is set by the server: remove it from the file",
            ),
            (
                "adminScope = \"a\"",
                "`adminScope` is not a field: check its spelling",
            ),
            (
                "[[scopes]]\nnam = \"a\"",
                "`scopes[0].nam` is not a field: check its spelling",
            ),
            (
                "max_cache = 30",
                "`max_cache` must be a time span such as \"30s\" or \"1h\"",
            ),
            (
                "max_cache = \"soon\"",
                "`max_cache` must be a time span such as \"30s\" or \"1h\"",
            ),
            (
                "max_cache = \"1m\"",
                "`max_cache`: `1m` is ambiguous: write `1min` or `30d`",
            ),
            (
                "levels = [\"galaxy\"]",
                "`levels[0]` must be one of partner, project",
            ),
            (
                "[[denials]]\ndenial_class = \"nobody\"",
                "`denials[0].denial_class` must be one of unauthenticated, forbidden, undecided",
            ),
            (
                "[[denials]]\nstatus = 99999999999",
                "`denials.status` is out of range",
            ),
            (
                "[[denials]]\nstatus = 1.5",
                "`denials.status`: expected integer value",
            ),
            (
                "[[denials]]\nheaders = {a = 3}",
                "`denials.headers.a` must be a string",
            ),
            (
                "[[routes]]\npath = \"/\"\npublic = true\nany_target = true",
                "`routes[0]`: a route may have only one of public, any_target, own_project and project",
            ),
            (
                "[[credentials.sources]]\nheader = {name = \"a\"}\ncookie = {name = \"b\"}",
                "`credentials.sources[0]`: a credential source may have only one of header, cookie and websocket_protocol",
            ),
            ("levels = \"partner\"", "`levels` must be a list"),
            ("id = [\"a\"]", "`id` must not be a list"),
            ("scopes = [\"read\"]", "`scopes[0]` must be a table"),
            ("credentials = 3", "`credentials` must be a table"),
            (
                "[[denials]]\nheaders = 3",
                "`denials[0].headers` must be a table",
            ),
            ("prefix = 3", "`prefix` must be a string"),
            (
                "lenient_paths = \"x\"",
                "`lenient_paths` must be true or false",
            ),
        ] {
            assert_eq!(parse_realm(file).unwrap_err(), shown);
        }
        let shown = parse_realm("id = \"demo\"\n\nprefix =").unwrap_err();
        assert!(shown.starts_with("line 3: "), "{shown}");
    }
}
