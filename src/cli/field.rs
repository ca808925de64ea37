//! One field of an answer, for `--field`.

use prost_reflect::{Kind, MessageDescriptor};
use serde_json::Value;

use super::failure::Failure;
use super::text;

/// The longest list of names in an error.
const MOST_NAMES: usize = 40;

/// Returns the whole path of a field that a user names: `scopes` is `key.scopes` in the answer to `keys get`.
///
/// # Errors
/// If the message has no such field. The error lists those that it has.
pub(super) fn path(message: &MessageDescriptor, name: &str) -> Result<Vec<String>, Failure> {
    let parts: Vec<_> = name.split('.').map(str::to_owned).collect();
    if is_path(message, &parts) {
        return Ok(parts);
    }
    for (field, inner) in inner(message) {
        if is_path(&inner, &parts) {
            let mut path = vec![field];
            path.extend(parts);
            return Ok(path);
        }
    }
    let mut names: Vec<_> = inner(message)
        .flat_map(|(_, inner)| field_names(&inner))
        .collect();
    names.extend(field_names(message));
    Err(unknown(name, names))
}

/// Returns the values of a field of a document that is no message.
///
/// # Errors
/// If the document has no such field. The error lists those that it has.
pub(super) fn path_in(document: &Value, name: &str) -> Result<Vec<String>, Failure> {
    let path: Vec<_> = name.split('.').map(str::to_owned).collect();
    let mut value = document;
    for part in &path {
        let Some(next) = value.get(part) else {
            let names = value.as_object().into_iter().flatten();
            return Err(unknown(name, names.map(|(name, _)| name.clone()).collect()));
        };
        value = next;
    }
    Ok(path)
}

/// The values at a path, one on each line.
pub(super) fn lines(document: &Value, path: &[String]) -> String {
    let values = values(document, path).into_iter().map(|value| match value {
        Value::String(text) => text::plain(text).into_owned(),
        other => text::plain(&other.to_string()).into_owned(),
    });
    values.collect::<Vec<_>>().join("\n")
}

/// The value at a path as JSON: a list if there may be several.
pub(super) fn json(document: &Value, path: &[String]) -> Value {
    let mut value = document;
    for part in path {
        if value.is_array() {
            return values(document, path).into_iter().cloned().collect();
        }
        match value.get(part) {
            Some(next) => value = next,
            None => return Value::Null,
        }
    }
    value.clone()
}

fn values<'a>(value: &'a Value, path: &[String]) -> Vec<&'a Value> {
    match (value, path) {
        (Value::Array(items), _) => items.iter().flat_map(|item| values(item, path)).collect(),
        (Value::Null, _) => Vec::new(),
        (value, []) => vec![value],
        (value, [name, rest @ ..]) => value
            .get(name)
            .map_or_else(Vec::new, |value| values(value, rest)),
    }
}

fn is_path(message: &MessageDescriptor, parts: &[String]) -> bool {
    let [name, rest @ ..] = parts else {
        return true;
    };
    let Some(field) = message.get_field_by_name(name) else {
        return false;
    };
    if field.is_map() {
        // The names in a map are those of users.
        return rest.len() <= 1;
    }
    match own_message(&field.kind()) {
        Some(message) => is_path(&message, rest),
        None => rest.is_empty(),
    }
}

/// The messages in a message, by their fields.
fn inner(message: &MessageDescriptor) -> impl Iterator<Item = (String, MessageDescriptor)> {
    let fields: Vec<_> = message.fields().filter(|field| !field.is_map()).collect();
    fields
        .into_iter()
        .filter_map(|field| Some((field.name().to_owned(), own_message(&field.kind())?)))
}

/// A message whose fields the proto of claviger names. Times and spans are texts.
fn own_message(kind: &Kind) -> Option<MessageDescriptor> {
    let message = kind.as_message()?;
    (!message.full_name().starts_with("google.")).then(|| message.clone())
}

fn field_names(message: &MessageDescriptor) -> Vec<String> {
    message
        .fields()
        .map(|field| field.name().to_owned())
        .collect()
}

/// Fails if the field is not in one of these.
pub(super) fn check_first(name: &str, fields: &[&str]) -> Result<(), Failure> {
    let first = name.split('.').next().unwrap_or_default();
    if fields.contains(&first) {
        return Ok(());
    }
    let fields = fields.iter().map(|&field| field.to_owned());
    Err(unknown(name, fields.collect()))
}

fn unknown(name: &str, mut names: Vec<String>) -> Failure {
    names.truncate(MOST_NAMES);
    Failure::usage(format!(
        "--field {}: the answer has no such field",
        text::plain(name)
    ))
    .hint(format!("it has {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::reflect;

    #[test]
    fn a_field_is_found_also_in_the_message_that_the_answer_is_about() {
        let found = |message: &str, name: &str| {
            path(&reflect::descriptor(message), name).map(|path| path.join("."))
        };
        assert_eq!(found("GetKeyResponse", "scopes").unwrap(), "key.scopes");
        assert_eq!(found("GetKeyResponse", "key.id").unwrap(), "key.id");
        assert_eq!(found("ListKeysResponse", "id").unwrap(), "keys.id");
        assert_eq!(
            found("GetKeyResponse", "labels.team").unwrap(),
            "key.labels.team"
        );
        assert_eq!(found("IssueKeyResponse", "plain_key").unwrap(), "plain_key");
        for wrong in ["scope", "", "id.x", "key.", "expire_time.seconds"] {
            let refusal = found("GetKeyResponse", wrong).unwrap_err();
            assert!(refusal.is_usage());
            let refusal = refusal.to_string();
            assert!(refusal.contains("scopes, "), "{refusal}");
        }
    }

    #[test]
    fn a_value_is_on_its_own_line() {
        let document =
            json!({"keys": [{"id": "a", "scopes": ["r", "w"]}, {"id": "b\u{7}", "scopes": []}]});
        let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&document, &path("keys.id")), "a\nb\\u{7}");
        assert_eq!(lines(&document, &path("keys.scopes")), "r\nw");
        assert_eq!(lines(&document, &path("keys.absent")), "");
        assert_eq!(json(&document, &path("keys.id")), json!(["a", "b\u{7}"]));
        assert_eq!(json(&document, &path("keys")), document["keys"]);
        assert_eq!(json(&json!({"a": {"b": 1}}), &path("a.b")), json!(1));
    }
}
