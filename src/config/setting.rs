//! A setting: a flag that can also come from a variable, a credential or the configuration file.

use std::any::TypeId;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, ValueHint};

use crate::store::DatabaseUrls;

/// The name of the flag for the configuration file. It cannot stand in the file.
const CONFIG: &str = "config";

/// The flag for the configuration file.
#[derive(Args, Clone, Debug)]
pub struct ConfigFileArgs {
    /// A TOML file with settings: the flags without their hyphens, such as `max-calls = 8192`. Flags and variables win over it
    #[arg(long, env = "CLAVIGER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A setting of a command, as its flag defines it.
pub(super) struct Setting<'c>(&'c Arg);

/// How many values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// None: it is on or off.
    Switch,
    /// One.
    Value,
    /// Any number, because its flag can be repeated.
    List,
    /// Usually one; its flag can be repeated too.
    ValueOrList,
}

/// Whether a command has settings.
pub fn has_settings(command: &Command) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == CONFIG)
}

/// Returns the program with commands that read no variables of settings, because [`resolve`](super::resolve()) does it.
pub fn without_variables(program: Command) -> Command {
    program.mut_subcommands(|command| {
        if has_settings(&command) {
            command.mut_args(|arg| arg.env(Resettable::Reset))
        } else {
            command
        }
    })
}

/// The settings of a command.
pub(super) fn settings(command: &Command) -> impl Iterator<Item = Setting<'_>> {
    let args = command.get_arguments();
    args.filter(|arg| arg.get_env().is_some() && arg.get_id() != CONFIG)
        .map(Setting)
}

/// The flag for the configuration file, with its variable.
pub(super) fn config_file(command: &Command) -> Option<Setting<'_>> {
    let mut args = command.get_arguments();
    args.find(|arg| arg.get_id() == CONFIG).map(Setting)
}

impl<'c> Setting<'c> {
    /// The name, as it stands in the configuration file.
    pub(super) fn name(&self) -> &'c str {
        self.0.get_long().expect("a setting has a long flag")
    }

    pub(super) fn id(&self) -> &'c str {
        self.0.get_id().as_str()
    }

    pub(super) fn variable(&self) -> &'c str {
        let variable = self.0.get_env().and_then(OsStr::to_str);
        variable.expect("a setting has a variable")
    }

    /// The variable that names a file with the value, if this is a secret.
    pub(super) fn file_variable(&self) -> Option<String> {
        self.is_secret()
            .then(|| format!("{}_FILE", self.variable()))
    }

    /// What its help calls the value.
    pub(super) fn value_name(&self) -> &str {
        let names = self.0.get_value_names().unwrap_or_default();
        names.first().map_or("VALUE", |name| name.as_str())
    }

    pub(super) fn kind(&self) -> Kind {
        match self.0.get_action() {
            ArgAction::SetTrue => Kind::Switch,
            ArgAction::Append if self.is_database_url() => Kind::ValueOrList,
            ArgAction::Append => Kind::List,
            _ => Kind::Value,
        }
    }

    /// Whether the value is a secret, or may contain one.
    pub(super) fn is_secret(&self) -> bool {
        self.0.is_hide_env_values_set()
    }

    /// Whether the value is the path of a file.
    pub(super) fn is_file(&self) -> bool {
        self.0.get_value_hint() == ValueHint::FilePath
    }

    fn is_database_url(&self) -> bool {
        self.0.get_value_parser().type_id() == TypeId::of::<DatabaseUrls>()
    }

    /// Returns a value with every part masked that may be a secret. It equals the value if there is no such part.
    pub(super) fn masked(&self, value: &str) -> String {
        if self.is_database_url() {
            DatabaseUrls::from(value.to_owned()).masked()
        } else if self.is_secret() {
            "***".to_owned()
        } else {
            value.to_owned()
        }
    }

    /// Returns the flags that give the setting these values.
    ///
    /// # Errors
    /// What is wrong with the values, and what to do. It does not repeat them.
    pub(super) fn flags(&self, values: &[OsString]) -> Result<Vec<OsString>, String> {
        let flags: Vec<OsString> = values.iter().map(|value| self.flag(value)).collect();
        let parsed = self
            .parse(&flags)
            .map_err(|error| self.complaint(&error, values))?;
        if self.kind() != Kind::Switch {
            return Ok(flags);
        }
        let is_on = parsed.get_one::<bool>(self.id()) == Some(&true);
        Ok(is_on
            .then(|| OsString::from(format!("--{}", self.name())))
            .into_iter()
            .collect())
    }

    fn flag(&self, value: &OsStr) -> OsString {
        let mut flag = OsString::from(format!("--{}=", self.name()));
        flag.push(value);
        flag
    }

    /// Parses the values as the command line would. A switch takes a value here, as its variable does.
    fn parse(&self, flags: &[OsString]) -> Result<ArgMatches, clap::Error> {
        let mut arg = self.0.clone().env(Resettable::Reset);
        if self.kind() == Kind::Switch {
            arg = arg.action(ArgAction::Set).num_args(1);
        }
        Command::new("setting")
            .no_binary_name(true)
            .arg(arg)
            .try_get_matches_from(flags)
    }

    fn complaint(&self, error: &clap::Error, values: &[OsString]) -> String {
        if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue)
            && !valid.is_empty()
        {
            return format!("must be one of {}", valid.join(", "));
        }
        if values.iter().any(|value| value.is_empty()) {
            return "must not be empty".to_owned();
        }
        let why = error.source().map(ToString::to_string);
        match (error.kind(), why) {
            (ErrorKind::ValueValidation, Some(why)) if why.starts_with("must") => why,
            // The parser's own words are for programmers.
            (ErrorKind::ValueValidation, Some(why)) if why.contains("invalid digit") => {
                format!(
                    "must be a whole number: --{} {}",
                    self.name(),
                    self.value_name()
                )
            }
            (ErrorKind::ValueValidation, Some(why)) => format!(
                "must be a value that --{} {} takes: {why}",
                self.name(),
                self.value_name()
            ),
            (ErrorKind::InvalidUtf8, _) => "must be text in UTF-8".to_owned(),
            _ => format!(
                "must be a value that --{} {} takes",
                self.name(),
                self.value_name()
            ),
        }
    }
}
