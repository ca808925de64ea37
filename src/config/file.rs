//! The configuration file: TOML with the names of flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Command;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::setting::{Kind, Setting, has_settings, settings};
use super::source::Source;
use crate::domain::nearest::nearest;

/// What a configuration file sets.
#[derive(Default)]
pub(super) struct ConfigFile {
    /// The values of the settings of the command, by name.
    pub(super) values: BTreeMap<String, (Vec<OsString>, Source)>,
    /// What is wrong with the file.
    pub(super) problems: Vec<String>,
    /// What the operator should know.
    pub(super) warnings: Vec<String>,
}

/// Reads a configuration file for one command. Settings of the program's other commands are left out, so that one file serves all.
/// No message has a part of a value.
pub(super) fn read(path: &Path, program: &Command, command: &Command) -> ConfigFile {
    let mut file = ConfigFile::default();
    let shown = path.display();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            file.problems.push(format!(
                "cannot read the configuration file {shown}: {error}. Check the path, and that this user may read the file"
            ));
            return file;
        }
    };
    let Ok(text) = String::from_utf8(bytes) else {
        file.problems
            .push(format!("{shown} is not text in UTF-8: write it as TOML"));
        return file;
    };
    let (table, errors) = DeTable::parse_recoverable(&text);
    let source = |offset: usize| Source::File {
        path: path.to_owned(),
        line: line(&text, offset),
    };
    for error in errors {
        // Its display would show the line, which may have a password.
        let why = match error.message() {
            "duplicate key" => "this setting stands here a second time: leave one of them out",
            other => &format!("{other}; write each setting as NAME = VALUE, with text in quotes"),
        };
        let start = error.span().map_or(0, |span| span.start);
        file.problems.push(format!("{}: {why}", source(start)));
    }
    // After an error the parser guesses, and what it guesses may not be what the operator wrote.
    if !file.problems.is_empty() {
        return file;
    }
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        let source = source(key.span().start);
        let setting = match find(name, program, command) {
            Ok(Some(setting)) => setting,
            Ok(None) => continue,
            Err(why) => {
                file.problems.push(format!("{source}: {why}"));
                continue;
            }
        };
        let checked = values(&setting, value).and_then(|values| {
            setting.flags(&values)?;
            Ok(values)
        });
        match checked {
            Ok(values) => {
                if values.iter().any(|value| has_secret(&setting, value)) && is_public(path) {
                    file.warnings.push(format!(
                        "{shown} has a secret (`{name}`), and every user of this machine can read it: chmod o-r {shown}"
                    ));
                }
                file.values.insert(name.to_owned(), (values, source));
            }
            Err(why) => file.problems.push(format!("{source}: `{name}` {why}")),
        }
    }
    file
}

/// Finds the setting of the command; `None` if only another command has it.
fn find<'c>(
    name: &str,
    program: &Command,
    command: &'c Command,
) -> Result<Option<Setting<'c>>, String> {
    if let Some(setting) = settings(command).find(|setting| setting.name() == name) {
        return Ok(Some(setting));
    }
    let commands = || {
        program
            .get_subcommands()
            .filter(|other| has_settings(other))
    };
    let known: Vec<_> = commands().flat_map(settings).collect();
    if known.iter().any(|setting| setting.name() == name) {
        return Ok(None);
    }
    let is_flag = commands()
        .flat_map(Command::get_arguments)
        .any(|arg| arg.get_long() == Some(name));
    if is_flag {
        return Err(format!(
            "`{name}` can only be a flag: take it out of the file"
        ));
    }
    Err(match nearest(name, known.iter().map(Setting::name)) {
        Some(nearest) => format!("unknown setting `{name}`: did you mean `{nearest}`?"),
        None => format!(
            "unknown setting `{name}`: take it out; the settings are the flags of `claviger serve --help`"
        ),
    })
}

/// The values of a setting, as the command line would have them.
fn values(setting: &Setting, value: &Spanned<DeValue>) -> Result<Vec<OsString>, String> {
    match (setting.kind(), value.get_ref()) {
        (Kind::Switch, DeValue::Boolean(is_on)) => Ok(vec![is_on.to_string().into()]),
        (Kind::Switch, _) => Err("must be true or false, without quotes".to_owned()),
        // It would mean the embedded database.
        (Kind::ValueOrList, DeValue::Array(list)) if list.is_empty() => {
            Err("must have at least one value".to_owned())
        }
        (Kind::List | Kind::ValueOrList, DeValue::Array(list)) => list
            .iter()
            .map(|entry| text(entry.get_ref()))
            .collect::<Option<_>>()
            .ok_or_else(|| "must be a list of texts in quotes".to_owned()),
        (Kind::Value | Kind::ValueOrList, value) => {
            text(value).map(|text| vec![text]).ok_or_else(|| {
                format!(
                    "must be text in quotes or a number that fits, but is of the type {}",
                    value.type_str()
                )
            })
        }
        (Kind::List, _) => Err(format!(
            "must be a list: {} = [\"{}\"]",
            setting.name(),
            setting.value_name()
        )),
    }
}

fn text(value: &DeValue) -> Option<OsString> {
    match value {
        DeValue::String(text) => Some(text.as_ref().into()),
        DeValue::Integer(number) => {
            let decimal = i64::from_str_radix(number.as_str(), number.radix());
            decimal.ok().map(|number| number.to_string().into())
        }
        DeValue::Float(number) => Some(number.as_str().into()),
        _ => None,
    }
}

fn has_secret(setting: &Setting, value: &OsString) -> bool {
    let value = value.to_string_lossy();
    setting.masked(&value) != value
}

/// Whether every user of the machine can read the file.
fn is_public(path: &Path) -> bool {
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o004 != 0)
}

/// The line of a position, from 1 on.
fn line(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    1 + before.matches('\n').count()
}
