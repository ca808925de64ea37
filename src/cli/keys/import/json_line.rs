//! Entries as JSON objects, one a line.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::entry::{Cell, Field, Said};

/// What a line says; a null says nothing.
pub(super) fn said(line: &str) -> Result<Said, String> {
    // The parser's own complaint is dropped, as it may tell what it found.
    let Fields(fields) = serde_json::from_str(line).map_err(|error| {
        format!(
            "it is no JSON object on one line (column {})",
            error.column()
        )
    })?;
    let mut said = Said::default();
    let mut known = Vec::with_capacity(fields.len());
    for (place, (name, value)) in fields.into_iter().enumerate() {
        let field = Field::find(&name, place)?;
        if known.contains(&field) {
            return Err(format!("`{name}` stands there twice"));
        }
        known.push(field);
        if !value.is_null() {
            said.set(field, value)?;
        }
    }
    Ok(said)
}

/// An object with all of its fields, also with two of the same name, of which a map would keep the last in silence.
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
    fn word(self) -> Result<String, &'static str> {
        match self {
            Self::String(word) => Ok(word),
            _ => Err("it is a string"),
        }
    }

    fn list(self) -> Result<Vec<String>, &'static str> {
        let Self::Array(items) = self else {
            return Err("it is a list of strings");
        };
        let items = items.into_iter().map(Self::word);
        items
            .collect::<Result<_, _>>()
            .map_err(|_| "it is a list of strings")
    }

    fn flag(self) -> Result<bool, &'static str> {
        self.as_bool().ok_or("it is true or false")
    }

    fn pairs(self) -> Result<BTreeMap<String, String>, &'static str> {
        let Self::Object(fields) = self else {
            return Err("it is an object of strings");
        };
        let pairs = fields
            .into_iter()
            .map(|(name, value)| Ok((name, value.word()?)));
        pairs
            .collect::<Result<_, &str>>()
            .map_err(|_| "it is an object of strings")
    }
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::import_entry::Secret;

    use super::*;

    #[test]
    fn a_line_is_an_entry() {
        let line = r#"{"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "partner": "acme",
            "project": null, "level": "KEY_LEVEL_PARTNER", "scopes": ["read"], "labels": {"team": "a"},
            "allowed_cidrs": [], "expire_time": "2030-01-31T12:00:00+02:00"}"#;
        let said = said(&line.replace('\n', " ")).unwrap();
        let entry = said.entry(&Said::default()).unwrap().message;
        assert!(matches!(entry.secret, Some(Secret::Sha256(_))));
        assert_eq!((entry.partner.as_str(), entry.level), ("acme", 1));
        assert_eq!(entry.scopes, ["read"]);
        assert_eq!(entry.labels["team"], "a");
        assert_eq!(
            entry.expire_time.unwrap().to_string(),
            "2030-01-31T10:00:00Z"
        );
    }

    #[test]
    fn an_empty_list_says_that_there_is_nothing() {
        let defaults = Said {
            scopes: Some(vec!["read".to_owned()]),
            ..Said::default()
        };
        let scopes = |line| said(line).unwrap().entry(&defaults).unwrap().message.scopes;
        assert!(scopes(r#"{"text": "t", "scopes": []}"#).is_empty());
        assert_eq!(scopes(r#"{"text": "t"}"#), ["read"]);
    }

    #[test]
    fn a_bad_line_says_why_and_not_what_it_holds() {
        for (line, why) in [
            (r#""secret""#, "it is no JSON object on one line (column 8)"),
            (
                r#"{"text": "secret""#,
                "it is no JSON object on one line (column 17)",
            ),
            (
                r#"[{"text": "secret"}]"#,
                "it is no JSON object on one line (column 0)",
            ),
            (r#"{"text": ["secret"]}"#, "text: it is a string"),
            (
                r#"{"text": "t", "scopes": "secret"}"#,
                "scopes: it is a list of strings",
            ),
            (
                r#"{"text": "t", "full_access": "secret"}"#,
                "full_access: it is true or false",
            ),
            (
                r#"{"text": "t", "labels": {"a": 1}}"#,
                "labels: it is an object of strings",
            ),
            (
                r#"{"text": "t", "text": "secret"}"#,
                "`text` stands there twice",
            ),
            (
                r#"{"text": "t", "expire_time": "secret"}"#,
                "expire_time: a time looks like `2030-01-31T12:00:00Z`",
            ),
            (
                r#"{"text": "t", "level": "secret"}"#,
                "level: it is `partner` or `project`",
            ),
        ] {
            let refusal = said(line).err().unwrap();
            assert!(!refusal.contains("secret"), "{refusal}");
            // The column is the parser's to know.
            let heads = |text: &str| text.split(" (column").next().map(str::to_owned);
            assert_eq!(heads(&refusal), heads(why));
        }
    }

    #[test]
    fn an_unknown_field_is_named() {
        let refusal = said(r#"{"text": "t", "owner": "acme"}"#).err().unwrap();
        assert!(
            refusal.starts_with("`owner` is not known; known are text"),
            "{refusal}"
        );
        let refusal = said(r#"{"TtgGcQFq.s3fzs3fzs3fzs3fz": "acme"}"#)
            .err()
            .unwrap();
        assert!(!refusal.contains("s3fz"), "{refusal}");
    }
}
