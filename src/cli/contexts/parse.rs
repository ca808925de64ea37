//! The file of the contexts as TOML: reading it with the place of each error, and writing it.
//!
//! No error has a part of a value, which may be an API key.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::{Context, ContextKey, Contexts, checked_name};
use crate::cli::api_key::ApiKey;
use crate::cli::redact;

/// The settings of a context.
const SETTINGS: &str =
    "endpoint, ca_file, client_cert, client_key, key, key_file, key_command, realm, environment";

/// Parses the content of the file. The error begins with the line and the column.
pub(super) fn parse(text: &str) -> Result<Contexts, String> {
    let at = |offset: usize, why: String| {
        let before = text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        format!("line {line}, column {column}: {why}")
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if let Some(error) = errors.first() {
        // Its display would show the line, which may have an API key.
        let why = match error.message() {
            "duplicate key" => "this stands here a second time: leave one of them out".to_owned(),
            other => format!("{other}; write NAME = VALUE, with text in quotes"),
        };
        return Err(at(error.span().map_or(0, |span| span.start), why));
    }
    let mut contexts = Contexts::default();
    for (name, value) in table.get_ref() {
        let fail = |why: String| Err(at(name.span().start, why));
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("current", DeValue::String(current)) => contexts.current = Some(current.to_string()),
            ("current", _) => return fail("`current` must be the name of a context".to_owned()),
            ("contexts", DeValue::Table(tables)) => {
                for (name, value) in tables {
                    let context = context(name.get_ref(), value)
                        .map_err(|(offset, why)| at(offset.unwrap_or(name.span().start), why))?;
                    contexts.by_name.insert(name.get_ref().to_string(), context);
                }
            }
            (other, _) => {
                let other = redact::mask_keys(other, &[]);
                return fail(format!(
                    "unknown name `{other}`: the file has `current`, and a table [contexts.NAME] for each context"
                ));
            }
        }
    }
    Ok(contexts)
}

/// An error: where it is, unless it is at the name of the context, and why.
type Problem = (Option<usize>, String);

fn context(name: &str, value: &Spanned<DeValue>) -> Result<Context, Problem> {
    checked_name(name).map_err(|why| (None, format!("the name of a context {why}")))?;
    let DeValue::Table(settings) = value.get_ref() else {
        return Err((None, "must be a table: [contexts.NAME]".to_owned()));
    };
    let mut context = Context::default();
    for (setting, value) in settings {
        let fail = |why: &str| {
            let setting = redact::mask_keys(setting.get_ref(), &[]);
            (Some(value.span().start), format!("`{setting}` {why}"))
        };
        let text = || match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Ok(text.to_string()),
            _ => Err(fail("must be text in quotes, and not empty")),
        };
        let path = || {
            let path = PathBuf::from(text()?);
            if path.is_absolute() {
                Ok(path)
            } else {
                Err(fail("must be the absolute path of a file"))
            }
        };
        let key = match setting.get_ref().as_ref() {
            "endpoint" => {
                let endpoint = text()?;
                let socket = endpoint.strip_prefix("unix:");
                if socket.is_some_and(|path| !path.starts_with('/')) {
                    return Err(fail("must have the absolute path of the socket"));
                }
                context.endpoint = Some(endpoint);
                None
            }
            "ca_file" => {
                context.ca_file = Some(path()?);
                None
            }
            "client_cert" => {
                context.client_cert = Some(path()?);
                None
            }
            "client_key" => {
                context.client_key = Some(path()?);
                None
            }
            "realm" => {
                context.realm = Some(text()?);
                None
            }
            "environment" => {
                context.environment = Some(text()?);
                None
            }
            "key" => Some(ContextKey::Stored(ApiKey::from(text()?))),
            "key_file" => Some(ContextKey::File(path()?)),
            "key_command" => Some(ContextKey::Command(program_and_arguments(value).ok_or_else(|| {
                fail("must be a list of the program, by its name or its absolute path, and its arguments, such as [\"pass\", \"show\", \"claviger\"]")
            })?)),
            other => {
                let other = redact::mask_keys(other, &[]);
                let why = format!("unknown setting `{other}`: a context has {SETTINGS}");
                return Err((Some(setting.span().start), why));
            }
        };
        if key.is_some() && context.key.is_some() {
            return Err(fail(
                "is one too many: a context has one of key, key_file and key_command",
            ));
        }
        context.key = key.or(context.key);
    }
    Ok(context)
}

fn program_and_arguments(value: &Spanned<DeValue>) -> Option<Vec<String>> {
    let DeValue::Array(words) = value.get_ref() else {
        return None;
    };
    let words = words.iter().map(|word| match word.get_ref() {
        DeValue::String(word) => Some(word.to_string()),
        _ => None,
    });
    let words: Vec<_> = words.collect::<Option<_>>()?;
    words
        .first()
        .is_some_and(|word| !word.is_empty() && (word.starts_with('/') || !word.contains('/')))
        .then_some(words)
}

/// Formats the content of the file.
pub(super) fn format(contexts: &Contexts) -> Result<String, String> {
    let mut tables = Table::new();
    for (name, context) in &contexts.by_name {
        tables.insert(name.clone(), Value::Table(table(context)?));
    }
    let mut file = Table::new();
    if let Some(current) = &contexts.current {
        file.insert("current".to_owned(), Value::String(current.clone()));
    }
    if !tables.is_empty() {
        file.insert("contexts".to_owned(), Value::Table(tables));
    }
    toml::to_string(&file).map_err(|error| error.to_string())
}

fn table(context: &Context) -> Result<Table, String> {
    let Context {
        endpoint,
        ca_file,
        client_cert,
        client_key,
        key,
        realm,
        environment,
    } = context;
    let path = |path: &PathBuf| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| format!("the path {} is not UTF-8", path.display()))
    };
    let mut table = Table::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            table.insert(name.to_owned(), value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::String);
    set("endpoint", text(endpoint));
    for (name, file) in [
        ("ca_file", ca_file),
        ("client_cert", client_cert),
        ("client_key", client_key),
    ] {
        set(
            name,
            file.as_ref().map(path).transpose()?.map(Value::String),
        );
    }
    match key {
        None => {}
        Some(ContextKey::Stored(key)) => set("key", Some(Value::String(key.reveal().to_owned()))),
        Some(ContextKey::File(file)) => set("key_file", Some(Value::String(path(file)?))),
        Some(ContextKey::Command(line)) => {
            let words = line.iter().cloned().map(Value::String).collect();
            set("key_command", Some(Value::Array(words)));
        }
    }
    set("realm", text(realm));
    set("environment", text(environment));
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "claviger_main_4fzs3fzs3fzs3fzs3fzs3fz";

    #[test]
    fn what_is_written_is_read_again() {
        let file = format!(
            "current = \"prod\"\n\n[contexts.a]\nendpoint = \"https://a.example\"\nca_file = \"/ca.pem\"\n\
             client_cert = \"/c.pem\"\nclient_key = \"/c.key\"\nkey_command = [\"pass\", \"show\", \"a b\"]\n\n\
             [contexts.\"eu.1\"]\nkey_file = \"/k\"\n\n\
             [contexts.prod]\nkey = \"{KEY}\"\nrealm = \"demo\"\nenvironment = \"production\"\n"
        );
        assert_eq!(format(&parse(&file).unwrap()).unwrap(), file);
        let shown = format!("{:?}", parse(&file).unwrap());
        assert!(!shown.contains(KEY) && !shown.contains("a b"), "{shown}");
        assert_eq!(format(&parse("").unwrap()).unwrap(), "");
    }

    #[test]
    fn an_error_names_line_and_column_and_no_value() {
        for (file, error) in [
            (
                format!("[contexts.a]\nkey = \"{KEY}\n"),
                "line 2, column 45: ",
            ),
            (format!("[contexts.a]\nkey = {KEY}\n"), "line 2, column "),
            (
                format!("[contexts.a]\nkey = [\"{KEY}\"]\n"),
                "line 2, column 7: `key` must be text in quotes, and not empty",
            ),
            (
                format!("[contexts.a]\n  kye = \"{KEY}\"\n"),
                "line 2, column 3: unknown setting `kye`: a context has endpoint, ",
            ),
            (
                format!("[contexts.a]\n{KEY} = 1\n"),
                "line 2, column 1: unknown setting `***`: ",
            ),
            (
                format!("{KEY} = 1\n"),
                "line 1, column 1: unknown name `***`: ",
            ),
            (
                format!("[contexts.{KEY}]\n"),
                "line 1, column 11: the name of a context must be the name of a context, but it looks like an API key",
            ),
            (
                format!("[contexts.a]\nkey = \"{KEY}\"\nkey_file = \"/k\"\n"),
                "line 3, column 12: `key_file` is one too many",
            ),
            (
                format!("[contexts.a]\nkey = \"{KEY}\"\nkey = \"{KEY}\"\n"),
                "line 3, column 1: this stands here a second time",
            ),
            (
                format!("[contexts.a]\nkey_command = \"echo {KEY}\"\n"),
                "line 2, column 15: `key_command` must be a list",
            ),
            (
                "[contexts.a]\nkey_file = \"k\"\n".to_owned(),
                "line 2, column 12: `key_file` must be the absolute path of a file",
            ),
            ("current = 1\n".to_owned(), "line 1, column 1: `current` "),
            (
                "contexts.a = 1\n".to_owned(),
                "line 1, column 10: must be a table",
            ),
        ] {
            let found = parse(&file).unwrap_err();
            assert!(found.starts_with(error), "{file}: {found}");
            assert!(!found.contains("s3fz"), "{found}");
        }
    }
}
