//! Where the settings of a connection come from: flags come before variables, and these before the context.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{self, Path, PathBuf};

use uuid::Uuid;

use super::address::{DEFAULT_ENDPOINT, UNIX, absolute_socket};
use super::{Connection, KEY, KEY_FILE, KeySource, read_key};
use crate::cli::api_key::ApiKey;
use crate::cli::contexts::{CONTEXT, ChosenContext, Context, ContextKey, Contexts, ContextsFile};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::redact;

impl Connection {
    /// The connection with the settings of its context where no flag and no variable has set them.
    ///
    /// # Errors
    /// If the file of the contexts cannot be used, or has no context with the given name, and the connection needs one.
    pub(in crate::cli) fn with_context(self) -> Result<Self, Failure> {
        match self.find_context() {
            Ok(None) => Ok(self),
            Ok(Some(ChosenContext { name, context })) => {
                self.warn_of_variables(&name, &context);
                Ok(self.or_of(&name, &context))
            }
            Err(failure) if self.needs_context() => Err(failure),
            Err(failure) => {
                let failure = failure.with_note("the command goes on without a context");
                let said = failure.to_string();
                output::print_error(&said.replacen("error:", "warning:", 1));
                Ok(self)
            }
        }
    }

    fn find_context(&self) -> Result<Option<ChosenContext>, Failure> {
        let contexts = match ContextsFile::of_user() {
            Some(file) => file.read()?,
            None => Contexts::default(),
        };
        contexts.choose(self.context_name())
    }

    /// Whether flags and variables do not say which server to call and with which key, or name a context.
    fn needs_context(&self) -> bool {
        self.context_name().is_some() || !self.has_endpoint() || self.key_source().is_none()
    }

    /// The name of the context whose settings are in force.
    pub(in crate::cli) fn chosen_name(&self) -> Option<String> {
        self.chosen.as_ref().map(|chosen| chosen.name.clone())
    }

    /// Whether the key comes from a program that the context names.
    pub(in crate::cli) fn runs_a_program(&self) -> bool {
        let key = self.chosen.as_ref().map(|chosen| &chosen.context.key);
        matches!(key, Some(Some(ContextKey::Command(_))))
    }

    /// The name of the context that the flag or the variable names.
    pub(in crate::cli) fn context_name(&self) -> Option<String> {
        let name = self.context.as_ref().filter(|name| !name.is_empty());
        name.map(|name| name.to_string_lossy().into_owned())
    }

    /// The connection with the settings of a context where it has none itself.
    ///
    /// If a flag or a variable names another server than the context, nothing is taken: its key is not for that server.
    pub(in crate::cli) fn or_of(mut self, name: &str, context: &Context) -> Self {
        if self.has_endpoint() && !self.is_for(context) {
            self.unused_context = Some(name.to_owned());
            return self;
        }
        if !self.has_endpoint()
            && let Some(endpoint) = &context.endpoint
        {
            self.endpoint = vec![endpoint.into()];
            self.has_endpoint_of_context = true;
        }
        for (own, of_context) in [
            (&mut self.ca_file, &context.ca_file),
            (&mut self.client_cert, &context.client_cert),
            (&mut self.client_key, &context.client_key),
        ] {
            if own.as_ref().is_none_or(|own| own.is_empty()) {
                *own = of_context.clone().map(PathBuf::into_os_string);
            }
        }
        self.chosen = Some(ChosenContext {
            name: name.to_owned(),
            context: context.clone(),
        });
        self
    }

    /// Whether the address of a flag or a variable is that of a context.
    fn is_for(&self, context: &Context) -> bool {
        let of_context = context.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
        let plain = |text: &str| {
            if text.starts_with(UNIX) {
                return absolute_socket(text);
            }
            let text = text.strip_prefix("http://").unwrap_or(text);
            text.trim_end_matches('/').to_ascii_lowercase()
        };
        self.endpoints()
            .iter()
            .all(|own| plain(own) == plain(of_context))
    }

    /// The connection without the address of a flag or a variable.
    pub(in crate::cli) fn without_endpoint(mut self) -> Self {
        self.endpoint.clear();
        self
    }

    /// Whether a flag or a variable has the address of the server.
    pub(in crate::cli) fn has_endpoint(&self) -> bool {
        self.endpoint.iter().any(|text| !text.is_empty())
    }

    /// Warns of variables that come before a context that the user has named in the command itself, and probably not thought of.
    fn warn_of_variables(&self, name: &str, context: &Context) {
        let set = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty());
        if self.context.is_none() || self.context == set(CONTEXT) {
            return;
        }
        let endpoint = set("CLAVIGER_ENDPOINT");
        let endpoint = endpoint.is_some_and(|endpoint| self.endpoint == [endpoint]);
        let has_key_flag = self.key.is_some() || self.key_file.is_some();
        let key = [KEY, KEY_FILE].into_iter().find(|key| set(key).is_some());
        let key = key.filter(|_| !has_key_flag && context.key.is_some());
        let overriding = [endpoint.then_some("CLAVIGER_ENDPOINT"), key];
        for variable in overriding.into_iter().flatten() {
            output::print_error(&format!(
                "warning: {variable} is set and comes before the context {name}: unset {variable}"
            ));
        }
    }

    /// The key that --key or --key-file gives to a new context.
    pub(in crate::cli) fn key_of_flags(&self) -> Result<Option<(ContextKey, KeySource)>, Failure> {
        if let Some(key) = &self.key {
            self.warn_of_key_flag();
            return Ok(Some((ContextKey::Stored(key.clone()), KeySource::Flag)));
        }
        let Some(path) = &self.key_file else {
            return Ok(None);
        };
        let absolute = absolute(path)?;
        Ok(Some((
            ContextKey::File(absolute),
            KeySource::File(path.clone()),
        )))
    }

    /// The files of --ca-file, --client-cert and --client-key, by their absolute paths.
    pub(in crate::cli) fn tls_files(&self) -> Result<[Option<PathBuf>; 3], Failure> {
        let file = |file: &Option<OsString>| {
            let file = file.as_ref().filter(|file| !file.is_empty());
            file.map(|file| absolute(Path::new(file))).transpose()
        };
        Ok([
            file(&self.ca_file)?,
            file(&self.client_cert)?,
            file(&self.client_key)?,
        ])
    }

    fn warn_of_key_flag(&self) {
        if self.key.is_some() && io::stderr().is_terminal() {
            output::print_error(
                "warning: every user of this machine can see the key of --key, and the shell keeps it in its history: use \
                 `claviger login` or --key-file",
            );
        }
    }

    fn key_source(&self) -> Option<KeySource> {
        KeySource::choose(
            self.key.is_some(),
            self.key_file.as_ref(),
            env::var_os(KEY).as_ref(),
            env::var_os(KEY_FILE).as_ref(),
            self.chosen.as_ref().and_then(|chosen| {
                let key = chosen.context.key.as_ref()?;
                Some((chosen.name.as_str(), key))
            }),
        )
    }

    pub(super) fn key(&self) -> Result<(ApiKey, KeySource), Failure> {
        let source = self.key_source();
        self.warn_of_key_flag();
        let key = match &source {
            Some(KeySource::Flag) => {
                let key = self.key.clone();
                if key.as_ref().is_some_and(|key| is_key_id(key.reveal())) {
                    return Err(Failure::usage(
                        "--key: that is a key's id, not an API key; for events use --key-id",
                    )
                    .hint("--key is the API key that the command calls with, for any command"));
                }
                key
            }
            Some(KeySource::Environment(key)) => Some(key.clone()),
            Some(KeySource::File(path)) => {
                let name = match self.key_file {
                    Some(_) => "--key-file",
                    None => KEY_FILE,
                };
                Some(read_key(path, name)?)
            }
            Some(KeySource::Context(name, key)) => Some(key.read(name)?),
            Some(KeySource::Prompt | KeySource::StandardInput) | None => None,
        };
        key.zip(source).ok_or_else(|| {
            if let Some(name) = &self.unused_context {
                return Failure::usage(format!(
                    "no key to call the server with: the context {name} is for another server, so its key is not sent to this one"
                ))
                .hint("leave out --endpoint and CLAVIGER_ENDPOINT, or name the key with --key-file");
            }
            Failure::usage("no key to call the server with").hint(
                "claviger login, or --key-file FILE, or the environment variable CLAVIGER_KEY; `claviger serve --init` or \
                 `claviger bootstrap` issued the first operator key",
            )
        })
    }
}

/// Whether the text is the id of a key: a UUID of version 7. API keys of other systems may be UUIDs of other versions.
pub(in crate::cli) fn is_key_id(text: &str) -> bool {
    let is_v7 = |id: Uuid| id.get_version_num() == 7;
    redact::is_hyphenated_uuid(text) && Uuid::try_parse(text).is_ok_and(is_v7)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path::absolute(path).map_err(|error| {
        Failure::usage(format!(
            "cannot find the place of {}: {error}",
            path.display()
        ))
    })
}
