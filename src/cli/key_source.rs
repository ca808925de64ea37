//! Where the caller's API key comes from, and how to give another one.

use std::ffi::OsString;
use std::path::PathBuf;

use super::api_key::ApiKey;
use super::contexts::ContextKey;

/// The variable with the caller's API key.
pub(super) const KEY: &str = "CLAVIGER_KEY";

/// The variable that names the file with the caller's API key.
pub(super) const KEY_FILE: &str = "CLAVIGER_KEY_FILE";

/// Where the caller's API key comes from.
#[derive(Debug)]
pub(super) enum KeySource {
    Flag,
    File(PathBuf),
    Environment(ApiKey),
    /// The context with this name.
    Context(String, ContextKey),
    /// The hidden prompt of `login`.
    Prompt,
    /// Standard input, for `login`.
    StandardInput,
}

impl KeySource {
    /// Chooses the source: flags before variables, and these before the context. An empty variable counts as unset.
    pub(super) fn choose(
        flag: bool,
        flag_file: Option<&PathBuf>,
        variable: Option<&OsString>,
        variable_file: Option<&OsString>,
        context: Option<(&str, &ContextKey)>,
    ) -> Option<Self> {
        if flag {
            return Some(Self::Flag);
        }
        if let Some(path) = flag_file {
            return Some(Self::File(path.clone()));
        }
        if let Some(key) = variable.filter(|key| !key.is_empty()) {
            let key = key.to_string_lossy().into_owned();
            return Some(Self::Environment(ApiKey::from(key)));
        }
        if let Some(path) = variable_file.filter(|path| !path.is_empty()) {
            return Some(Self::File(PathBuf::from(path)));
        }
        context.map(|(name, key)| Self::Context(name.to_owned(), key.clone()))
    }

    /// The source, for people: `the key from …`.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Flag => "--key".to_owned(),
            Self::File(path) => format!("the file {}", path.display()),
            Self::Environment(_) => KEY.to_owned(),
            Self::Context(name, key) => key.source(name),
            Self::Prompt => "the prompt".to_owned(),
            Self::StandardInput => "standard input".to_owned(),
        }
    }

    /// The API key itself, as the subject of a sentence.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Context(name, ContextKey::Stored(_)) => format!("the key of context {name}"),
            Self::Context(_, ContextKey::Command(_)) => format!("the output of {}", self.name()),
            Self::Prompt => "the typed key".to_owned(),
            _ => self.name(),
        }
    }

    /// How to call with another API key. `is_current`: a login that names no context renews the context of the key.
    pub(super) fn replacement(&self, is_current: bool) -> String {
        match self {
            Self::Flag => "give another key with --key-file".to_owned(),
            Self::File(_) => "name the file of another key with --key-file".to_owned(),
            Self::Environment(_) => format!("set {KEY} to another key, or --key-file FILE"),
            Self::Context(..) if is_current => "claviger login, or --key-file FILE".to_owned(),
            Self::Context(name, _) => {
                format!("claviger login --context {name}, or --key-file FILE")
            }
            Self::Prompt | Self::StandardInput => "log in with another key".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_variables_and_these_before_the_context() {
        let file = PathBuf::from("typed");
        let key = OsString::from("exported");
        let key_file = OsString::from("exported.key");
        let empty = OsString::new();
        let stored = ContextKey::Stored(ApiKey::from("kept".to_owned()));
        let context = Some(("prod", &stored));
        let all = (Some(&file), Some(&key), Some(&key_file));
        for (flag, (flag_file, variable, variable_file), name) in [
            (true, all, "--key"),
            (false, all, "the file typed"),
            (false, (None, all.1, all.2), "CLAVIGER_KEY"),
            (false, (None, Some(&empty), all.2), "the file exported.key"),
            (false, (None, None, Some(&empty)), "context prod"),
            (false, (None, None, None), "context prod"),
        ] {
            let source = KeySource::choose(flag, flag_file, variable, variable_file, context);
            assert_eq!(source.unwrap().name(), name);
        }
        assert!(KeySource::choose(false, None, Some(&empty), None, None).is_none());
    }
}
