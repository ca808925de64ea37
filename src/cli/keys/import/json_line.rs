//! Rows in JSON Lines: one object on each line.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::entry::{Cell, Field, Row};

/// Parses a line. A null leaves its field unset.
pub(super) fn parse(line: &str) -> Result<Row, String> {
    // The parser's own error is dropped, because it may contain the key.
    let Fields(fields) = serde_json::from_str(line).map_err(|error| {
        // A column of 0 has no meaning: the value is complete, but not an object.
        let place = match error.column() {
            0 => String::new(),
            column => format!(" (column {column})"),
        };
        format!("it is not a JSON object on one line{place}")
    })?;
    let mut row = Row::default();
    let mut found = Vec::with_capacity(fields.len());
    for (index, (name, value)) in fields.into_iter().enumerate() {
        let field = Field::find(&name, index)?;
        if found.contains(&field) {
            return Err(format!("`{name}` is given twice"));
        }
        found.push(field);
        if !value.is_null() {
            row.set(field, value)?;
        }
    }
    Ok(row)
}

/// An object with all of its fields, also repeated ones, of which a map would silently keep the last.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Cell for Value {
    fn string(self) -> Result<String, &'static str> {
        match self {
            Self::String(string) => Ok(string),
            _ => Err("must be a string"),
        }
    }

    fn list(self) -> Result<Vec<String>, &'static str> {
        let Self::Array(items) = self else {
            return Err("must be a list of strings");
        };
        let items = items.into_iter().map(Self::string);
        items
            .collect::<Result<_, _>>()
            .map_err(|_| "must be a list of strings")
    }

    fn flag(self) -> Result<bool, &'static str> {
        self.as_bool().ok_or("must be true or false")
    }

    fn pairs(self) -> Result<BTreeMap<String, String>, &'static str> {
        let Self::Object(fields) = self else {
            return Err("must be an object of strings");
        };
        let pairs = fields
            .into_iter()
            .map(|(name, value)| Ok((name, value.string()?)));
        pairs
            .collect::<Result<_, &str>>()
            .map_err(|_| "must be an object of strings")
    }
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::import_entry::Secret;

    use super::*;

    #[test]
    fn a_line_is_an_entry() {
        let line = r#"{"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "partner": "acme",
            "project": null, "external_id": "21fd1a8d", "level": "KEY_LEVEL_PARTNER", "scopes": ["read"], "labels": {"team": "a"},
            "allowed_cidrs": [], "expire_time": "2030-01-31T12:00:00+02:00"}"#;
        let row = parse(&line.replace('\n', " ")).unwrap();
        let entry = row.into_entry(&Row::default()).unwrap().message;
        assert!(matches!(entry.secret, Some(Secret::Sha256(_))));
        assert_eq!((entry.partner.as_str(), entry.level), ("acme", 1));
        assert_eq!(entry.scopes, ["read"]);
        assert_eq!(entry.labels["team"], "a");
        assert_eq!(entry.external_id, "21fd1a8d");
        assert_eq!(
            entry.expire_time.unwrap().to_string(),
            "2030-01-31T10:00:00Z"
        );
    }

    #[test]
    fn an_empty_list_says_that_there_is_nothing() {
        let defaults = Row {
            scopes: Some(vec!["read".to_owned()]),
            ..Row::default()
        };
        let scopes = |line| {
            let entry = parse(line).unwrap().into_entry(&defaults).unwrap();
            entry.message.scopes
        };
        assert!(scopes(r#"{"plain_key": "t", "scopes": []}"#).is_empty());
        assert_eq!(scopes(r#"{"plain_key": "t"}"#), ["read"]);
    }

    #[test]
    fn a_bad_line_says_why_and_not_what_it_holds() {
        for (line, why) in [
            (
                r#""secret""#,
                "it is not a JSON object on one line (column 8)",
            ),
            (
                r#"{"plain_key": "secret""#,
                "it is not a JSON object on one line (column 17)",
            ),
            (
                r#"[{"plain_key": "secret"}]"#,
                "it is not a JSON object on one line",
            ),
            (
                r#"{"plain_key": ["secret"]}"#,
                "plain_key: must be a string",
            ),
            (
                r#"{"plain_key": "t", "external_id": 7}"#,
                "external_id: must be a string",
            ),
            (
                r#"{"plain_key": "t", "scopes": "secret"}"#,
                "scopes: must be a list of strings",
            ),
            (
                r#"{"plain_key": "t", "full_access": "secret"}"#,
                "full_access: must be true or false",
            ),
            (
                r#"{"plain_key": "t", "labels": {"a": 1}}"#,
                "labels: must be an object of strings",
            ),
            (
                r#"{"plain_key": "t", "plain_key": "secret"}"#,
                "`plain_key` is given twice",
            ),
            (
                r#"{"plain_key": "t", "expire_time": "secret"}"#,
                "expire_time: must be a time such as `2030-01-31T12:00:00Z`",
            ),
            (
                r#"{"plain_key": "t", "level": "secret"}"#,
                "level: must be `partner` or `project`",
            ),
        ] {
            let refusal = parse(line).err().unwrap();
            assert!(!refusal.contains("secret"), "{refusal}");
            // The column depends on the parser.
            let heads = |text: &str| text.split(" (column").next().map(str::to_owned);
            assert_eq!(heads(&refusal), heads(why));
        }
    }

    #[test]
    fn an_unknown_field_is_named() {
        let refusal = parse(r#"{"plain_key": "t", "owner": "acme"}"#)
            .err()
            .unwrap();
        assert!(
            refusal.starts_with("`owner` is not known; known are plain_key"),
            "{refusal}"
        );
        let refusal = parse(r#"{"TtgGcQFq.s3fzs3fzs3fzs3fz": "acme"}"#)
            .err()
            .unwrap();
        assert!(!refusal.contains("s3fz"), "{refusal}");
    }
}
