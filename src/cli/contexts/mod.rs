//! Contexts: the servers that a user works with, each with the key to call it and defaults for flags, under a name.
//!
//! They are in a file of the user, which `claviger login` writes. Only the client commands read it.

mod file;
mod key;
mod parse;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub(super) use file::ContextsFile;
pub(super) use key::ContextKey;

use super::failure::Failure;
use super::text;

/// The variable that names the context.
pub(super) const CONTEXT: &str = "CLAVIGER_CONTEXT";

/// What one context sets. A setting that is absent has its default.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    pub(super) endpoint: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) key: Option<ContextKey>,
    pub(super) realm: Option<String>,
    /// The environment in the realm of the context.
    pub(super) environment: Option<String>,
}

/// The content of the file.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    /// The context of commands that name none.
    pub(super) current: Option<String>,
    pub(super) by_name: BTreeMap<String, Context>,
}

/// The context of a command, by its name.
#[derive(Clone, Debug)]
pub(super) struct ChosenContext {
    pub(super) name: String,
    pub(super) context: Context,
}

impl Contexts {
    /// Takes the context with this name, or the current one.
    ///
    /// # Errors
    /// If no context has this name.
    pub(super) fn choose(mut self, name: Option<String>) -> Result<Option<ChosenContext>, Failure> {
        let Some(name) = name.or(self.current.take()) else {
            return Ok(None);
        };
        let context = self.by_name.remove(&name);
        match context {
            Some(context) => Ok(Some(ChosenContext { name, context })),
            None => Err(self.no_such(&name)),
        }
    }

    /// The current context if there is none of its name, for people.
    pub(super) fn stale_current(&self) -> Option<String> {
        let current = self.current.as_ref();
        let stale = current.filter(|name| !self.by_name.contains_key(*name));
        stale.map(|name| text::plain(&super::redact::mask_keys(name, &[])).into_owned())
    }

    /// The failure to find a context.
    pub(super) fn no_such(&self, name: &str) -> Failure {
        let names: Vec<_> = self.by_name.keys().map(|name| text::plain(name)).collect();
        let name = super::redact::mask_keys(name, &[]);
        let failure = Failure::usage(format!("there is no context `{name}`"));
        if names.is_empty() {
            failure.hint(format!("make it: claviger login --context {name}"))
        } else {
            failure.hint(format!("the contexts: {}", names.join(", ")))
        }
    }
}

/// Checks the name of a context: it is a word in commands and messages.
pub(super) fn checked_name(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if super::redact::looks_like_key(name) && name.chars().any(|c| c.is_ascii_digit()) {
        return Err("must be the name of a context, but it looks like an API key".to_owned());
    }
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= 64 && name.chars().all(is_allowed) {
        Ok(())
    } else {
        Err(
            "must begin with a letter or digit, and may have letters, digits, . _ -, at most 64"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_context_is_taken_or_else_the_current_one() {
        let contexts = || Contexts {
            current: Some("b".to_owned()),
            by_name: ["a", "b"]
                .map(|name| (name.to_owned(), Context::default()))
                .into(),
        };
        let name = |name: Option<&str>| {
            let chosen = contexts().choose(name.map(str::to_owned));
            chosen.map(|chosen| chosen.map(|chosen| chosen.name))
        };
        assert_eq!(name(Some("a")).unwrap().as_deref(), Some("a"));
        assert_eq!(name(None).unwrap().as_deref(), Some("b"));
        assert_eq!(
            name(Some("c")).unwrap_err().to_string(),
            "error: there is no context `c`\nhint: the contexts: a, b"
        );
        assert!(Contexts::default().choose(None).unwrap().is_none());
        let failure = Contexts::default()
            .choose(Some("c".to_owned()))
            .unwrap_err();
        assert!(
            failure.to_string().contains("login --context c"),
            "{failure}"
        );
    }

    #[test]
    fn a_name_is_one_word() {
        for name in ["prod", "eu-1.example_2", "1"] {
            assert_eq!(checked_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "-c",
            "a b",
            "a/b",
            "zażółć",
            "demo_live_4fzs3fzs3fzs3fzs3fzs3fz",
        ] {
            assert!(checked_name(name).is_err(), "{name}");
        }
    }
}
