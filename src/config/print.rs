//! The settings in force, as a configuration file.

use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::setting::{Kind, Setting, settings};
use super::source::Sources;

/// Returns the settings of a command as a configuration file, each with a comment that says where it comes from. A setting that is
/// not set, or whose value is masked because it has a secret, is a comment as a whole.
///
/// `matches` are all flags of the command, and `sources` are those of the flags that were not on the command line.
pub fn print(command: &Command, matches: &ArgMatches, sources: &Sources) -> String {
    let mut text = String::new();
    for setting in settings(command) {
        let line = line(&setting, matches, sources);
        writeln!(text, "{line}").expect("a string takes any text");
    }
    text
}

fn line(setting: &Setting, matches: &ArgMatches, sources: &Sources) -> String {
    let name = setting.name();
    let source = match (sources.get(name), matches.value_source(setting.id())) {
        // A path may contain anything.
        (Some(source), _) => source.to_string().escape_debug().to_string(),
        (None, Some(ValueSource::CommandLine)) => format!("--{name}"),
        (None, Some(_)) => "default".to_owned(),
        (None, None) => {
            let form = match setting.kind() {
                Kind::List => format!("[{}]", setting.value_name()),
                _ => setting.value_name().to_owned(),
            };
            return format!("# {name} = {form}  # not set");
        }
    };
    if setting.kind() == Kind::Switch {
        return format!("{name} = {}  # {source}", matches.get_flag(setting.id()));
    }
    let mut omission = None;
    let values: Vec<_> = matches
        .get_raw(setting.id())
        .into_iter()
        .flatten()
        .map(|value| {
            let text = value.to_string_lossy();
            let masked = setting.masked(&text);
            if masked != text {
                omission = Some("the secret is masked");
            } else if value.to_str().is_none() {
                omission = Some("the value is not UTF-8, so it cannot be in a file");
            }
            toml_value(masked)
        })
        .collect();
    let value = match setting.kind() {
        Kind::List => format!("[{}]", values.join(", ")),
        Kind::ValueOrList if values.len() > 1 => format!("[{}]", values.join(", ")),
        _ => values.join(", "),
    };
    match omission {
        None => format!("{name} = {value}  # {source}"),
        Some(why) => format!("# {name} = {value}  # {source}; {why}"),
    }
}

/// A value in TOML on one line: a number if it is written as one, otherwise text. A string of JSON is one of TOML too, except that
/// it may have a DEL.
fn toml_value(text: String) -> String {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => text,
        _ => serde_json::Value::String(text)
            .to_string()
            .replace('\u{7f}', "\\u007f"),
    }
}
