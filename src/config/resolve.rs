//! Finds the values of settings that are not on the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::environment::Environment;
use super::file::{self, ConfigFile};
use super::setting::{Setting, config_file, settings};
use super::source::Sources;
use super::unknown_variables::unknown_variables;

/// The values that are not on the command line. It has no `Debug`, because they may be secrets.
#[derive(Default)]
pub struct Resolved {
    /// The flags that give the command these values.
    pub flags: Vec<OsString>,
    /// Where the values come from.
    pub sources: Sources,
    /// The configuration file, if there is one.
    pub config_file: Option<PathBuf>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Finds the values of a command's settings that are not on its command line. In this order: the variable, the file that its
/// `_FILE` variable names, the systemd credential, the configuration file. `command` is one of the program's, `other_variables` are
/// those that no flag of the program has, and `matches` are the flags alone.
///
/// # Errors
/// A message for the operator for each value that cannot be used, and for each variable and setting that does not exist. No message
/// has a part of a value.
pub fn resolve(
    program: &Command,
    command: &Command,
    other_variables: &[&str],
    matches: &ArgMatches,
    environment: &Environment,
) -> Result<Resolved, Vec<String>> {
    let mut problems = unknown_variables(program, other_variables, environment);
    let path = config_path(command, matches, environment).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let file = match &path {
        Some(path) => file::read(Path::new(path), program, command),
        None => ConfigFile::default(),
    };
    problems.extend(file.problems);
    let mut resolved = Resolved {
        warnings: file.warnings,
        config_file: path.map(PathBuf::from),
        ..Resolved::default()
    };
    let mut of_file = file.values;
    for setting in settings(command) {
        let found = match environment.value(&setting) {
            Ok(found) => found,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        if is_on_command_line(&setting, matches) {
            continue;
        }
        let found = found.map(|(value, source)| (vec![value], source));
        let Some((values, source)) = found.or_else(|| of_file.remove(setting.name())) else {
            continue;
        };
        match setting.flags(&values) {
            Ok(flags) => {
                resolved.flags.extend(flags);
                resolved.sources.insert(setting.name().to_owned(), source);
            }
            Err(why) => problems.push(format!("{source} {why}")),
        }
    }
    if problems.is_empty() {
        Ok(resolved)
    } else {
        Err(problems)
    }
}

/// The path of the configuration file, if there is one.
fn config_path(
    command: &Command,
    matches: &ArgMatches,
    environment: &Environment,
) -> Result<Option<OsString>, String> {
    let Some(setting) = config_file(command) else {
        return Ok(None);
    };
    if is_on_command_line(&setting, matches) {
        let mut values = matches.get_raw(setting.id()).into_iter().flatten();
        return Ok(values.next().map(ToOwned::to_owned));
    }
    let Some((path, source)) = environment.value(&setting)? else {
        return Ok(None);
    };
    let checked = setting.flags(std::slice::from_ref(&path));
    checked.map_err(|why| format!("{source} {why}"))?;
    Ok(Some(path))
}

fn is_on_command_line(setting: &Setting, matches: &ArgMatches) -> bool {
    matches.value_source(setting.id()) == Some(ValueSource::CommandLine)
}
