//! The environment of the process, as far as settings come from it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::setting::Setting;
use super::source::Source;

/// What the names of all variables of the program begin with.
pub(super) const PREFIX: &str = "CLAVIGER_";

/// The variable by which systemd names the directory of a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The variables of the process that can hold settings. It has no `Debug`, because they may be secrets.
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// Returns the value of a setting, and its source. `None` if the environment has none.
    ///
    /// # Errors
    /// A message for the operator, if there are two values, or a file cannot be read. It has no part of a secret.
    pub(super) fn value(&self, setting: &Setting) -> Result<Option<(OsString, Source)>, String> {
        let name = setting.variable();
        let value = self.get(name);
        if let Some(variable) = setting.file_variable()
            && let Some(path) = self.get(&variable)
        {
            if value.is_some() {
                return Err(format!(
                    "{name} and {variable} are both set: unset one of them"
                ));
            }
            let secret =
                read_secret(Path::new(path)).map_err(|why| format!("{variable}: {why}"))?;
            return Ok(Some((secret, Source::Variable(variable))));
        }
        if let Some(value) = value {
            if setting.is_secret() && value.is_empty() {
                return Err(format!("{name} is empty: set it to a value, or unset it"));
            }
            return Ok(Some((value.to_owned(), Source::Variable(name.to_owned()))));
        }
        self.credential(setting)
    }

    fn credential(&self, setting: &Setting) -> Result<Option<(OsString, Source)>, String> {
        let is_possible = setting.is_secret() || setting.is_file();
        let Some(directory) = self.get(CREDENTIALS).filter(|_| is_possible) else {
            return Ok(None);
        };
        let path = PathBuf::from(directory).join(setting.name());
        let source = Source::Credential(setting.name().to_owned());
        // One that is there but cannot be reached must not silently not hold.
        let exists = path.try_exists().map_err(|error| {
            format!(
                "{source}: cannot read {}: {error}. Correct {CREDENTIALS}, or unset it",
                path.display()
            )
        })?;
        if !exists {
            return Ok(None);
        }
        let value = if setting.is_secret() {
            read_secret(&path).map_err(|why| format!("{source}: {why}"))?
        } else {
            path.into()
        };
        Ok(Some((value, source)))
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
    }

    /// The variables of the program, without the prefix of their names.
    pub(super) fn of_program(&self) -> impl Iterator<Item = (String, &OsStr)> {
        self.variables.iter().filter_map(|(name, value)| {
            let name = name.to_string_lossy();
            let name = name.strip_prefix(PREFIX)?.to_owned();
            Some((name, value.as_os_str()))
        })
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter();
        Self {
            variables: variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }
}

/// Reads a file that holds one value. One newline at its end is left out, because tools add it.
fn read_secret(path: &Path) -> Result<OsString, String> {
    let shown = path.display();
    let text = fs::read(path).map_err(|error| {
        format!(
            "cannot read {shown}: {error}. Check the path, and that this user may read the file"
        )
    })?;
    // The error of the conversion would contain the bytes.
    let text = String::from_utf8(text)
        .map_err(|_| format!("{shown} is not text in UTF-8: write only the value into it"))?;
    let value = text
        .strip_suffix("\r\n")
        .or_else(|| text.strip_suffix('\n'))
        .unwrap_or(&text);
    if value.is_empty() {
        return Err(format!("{shown} is empty: write the value into it"));
    }
    Ok(value.into())
}
