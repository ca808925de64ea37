//! Where the value of a setting comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where the value of a setting comes from. The display is what errors and `--print-config` show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A variable, or the file that a variable ending in `_FILE` names.
    Variable(String),
    /// The systemd credential of the setting's name.
    Credential(String),
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
    },
}

/// The sources of the settings that are not on the command line, by name.
pub type Sources = BTreeMap<String, Source>;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
        }
    }
}
