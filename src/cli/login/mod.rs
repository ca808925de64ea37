//! The commands for contexts: `login`, `logout`, `context`, `use` and `whoami`.

mod manage;
mod whoami;

use std::env;
use std::io::{self, IsTerminal as _};

use clap::Args;
use serde_json::json;

use crate::cli::connect::{Connection, KEY, KEY_FILE, KeySource, absolute_socket};
use crate::cli::contexts::{Context, ContextKey, ContextsFile, checked_name};
use crate::cli::failure::Failure;
use crate::cli::key_file;
use crate::cli::output::{self, Output};
use crate::cli::text;
use crate::cli::verify::read_key;
use crate::pb::claviger::v1::{GetSelfRequest, Key};

pub(super) use manage::{Command, Logout, Use};
pub(super) use whoami::{WhoAmI, role, servers};

/// The name of the first context, unless the user gives another one.
const FIRST_NAME: &str = "default";

/// Keep a server and the key to call it as a context, so that commands need no flags for them.
///
/// The API key is typed at a hidden prompt or read from standard input, and is kept in the file of the contexts, which only you can
/// read. With --key-file, or with a command after `--`, the context only names where the API key is. The server is asked whose key it
/// is, and nothing is kept if it refuses the key. A context that exists keeps what this command does not name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger login
  claviger login --context prod --endpoint https://keys.example.com:7700
  claviger login --context prod --realm demo < my.key
  claviger login --context prod --key-file ~/.secrets/claviger.key
  claviger login --context prod -- pass show claviger")]
pub struct Login {
    /// The realm of commands that name none; '' for none.
    #[arg(long, value_name = "REALM")]
    realm: Option<String>,
    /// The environment of commands that need one and name none; '' for none.
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// A program that prints the API key, and its arguments. It is run for each command, without a shell.
    #[arg(last = true, value_name = "COMMAND")]
    key_command: Vec<String>,
}

impl Login {
    pub(in crate::cli) async fn run(
        self,
        connection: &Connection,
        output: &Output,
    ) -> Result<(), Failure> {
        output.check_summary_field(&["context", "endpoint", "role", "key_id", "file"])?;
        let file = ContextsFile::of_user_or_failure()?;
        let mut contexts = file.read_to_change()?;
        let named = connection.context_name();
        let is_named = named.is_some();
        let name = named
            .or(contexts.current.take())
            .unwrap_or_else(|| FIRST_NAME.to_owned());
        checked_name(&name).map_err(|why| Failure::usage(format!("--context {why}")))?;
        let old = contexts.by_name.remove(&name);
        if let Some(old) = &old
            && !is_named
        {
            refuse_other_server(&name, old, connection)?;
        }
        let old = old.unwrap_or_default();
        let connection = connection.clone().or_of(&name, &old);
        let endpoint = connection.endpoint_name()?;
        let (key, source) = self.key(&connection, &name, &endpoint)?;
        let plain_key = match &source {
            // As it was typed: it may be an API key, which no error repeats.
            KeySource::File(path) => key_file::read_key(path, "--key-file")?,
            _ => key.read(&name)?,
        };

        let client = connection.connect_as(&plain_key, &source).await?;
        let answer = client
            .ask(client.keys().get_self(GetSelfRequest {}))
            .await
            .map_err(|failure| failure.with_note("nothing was kept"))?;
        let holder = answer.key.unwrap_or_default();
        let [ca_file, client_cert, client_key] = connection.tls_files()?;
        file.change(|contexts| {
            // What is not named is that of now: another command may have set it while this one waited for the key.
            let Context {
                realm, environment, ..
            } = contexts.by_name.remove(&name).unwrap_or_default();
            let context = Context {
                // Later commands run in other directories.
                endpoint: Some(absolute_socket(&endpoint)),
                ca_file,
                client_cert,
                client_key,
                key: Some(key.clone()),
                realm: given_or(self.realm, realm),
                environment: given_or(self.environment, environment),
            };
            contexts.by_name.insert(name.clone(), context);
            contexts.current = Some(name.clone());
            Ok(())
        })?;
        warn_of_variables();
        let path = file.path().display().to_string();
        let answer = json!({
            "context": name,
            "endpoint": endpoint,
            "role": role(&holder),
            "key_id": holder.id,
            "file": path,
        });
        output.show_summary(&answer, || done(&name, &endpoint, &holder, &key, &path))
    }

    /// The key of the context, and where it comes from now.
    fn key(
        &self,
        connection: &Connection,
        name: &str,
        endpoint: &str,
    ) -> Result<(ContextKey, KeySource), Failure> {
        if let Some(key) = connection.key_of_flags()? {
            if self.key_command.is_empty() {
                return Ok(key);
            }
            return Err(Failure::usage(
                "give the API key in one way: --key-file, --key, or a command after `--`",
            ));
        }
        if !self.key_command.is_empty() {
            let mut line = self.key_command.clone();
            // Later commands run in other directories.
            if line[0].contains('/') {
                let program = std::path::absolute(&line[0]).map_err(|error| {
                    Failure::usage(format!("the program after `--` cannot be named: {error}"))
                })?;
                line[0] = program.to_string_lossy().into_owned();
            }
            let key = ContextKey::Command(line);
            return Ok((key.clone(), KeySource::Context(name.to_owned(), key)));
        }
        let source = if io::stdin().is_terminal() {
            KeySource::Prompt
        } else {
            KeySource::StandardInput
        };
        let key = read_key(&format!("The API key for {endpoint} (it is not shown):"))?;
        if let Some(flaw) = key.flaw() {
            return Err(Failure::usage(format!("{} {flaw}", source.name())));
        }
        Ok((ContextKey::Stored(key), source))
    }
}

/// A setting as a flag gives it, where an empty text removes it, or else as it was.
fn given_or(given: Option<String>, old: Option<String>) -> Option<String> {
    match given {
        Some(given) => Some(given).filter(|given| !given.is_empty()),
        None => old,
    }
}

/// A login without a name renews the key of the current context. It must not give this context to another server.
fn refuse_other_server(name: &str, old: &Context, connection: &Connection) -> Result<(), Failure> {
    if !connection.has_endpoint() {
        return Ok(());
    }
    let given = connection.endpoint_name()?;
    let its = connection.clone().without_endpoint().or_of(name, old);
    let its = its.endpoint_name()?;
    if given == its {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the current context {name} is for {its}, and not for {given}"
    ))
    .hint(format!(
        "name a context for the other server: claviger login --context NAME --endpoint {given}"
    )))
}

/// What comes before the new key, so that it would not be used.
fn warn_of_variables() {
    for variable in [KEY, KEY_FILE] {
        if env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            output::print_error(&format!(
                "warning: {variable} is set and comes before the key of a context: unset {variable}"
            ));
        }
    }
}

fn done(name: &str, endpoint: &str, holder: &Key, key: &ContextKey, path: &str) -> String {
    let who = match holder.name.as_str() {
        "" => format!("a key without a name ({})", holder.hint),
        name => format!("\"{name}\" ({})", holder.hint),
    };
    let kept = match key {
        ContextKey::Stored(_) => format!("The context {name}, with the API key, is in {path}."),
        ContextKey::File(_) | ContextKey::Command(_) => {
            format!("The context {name} is in {path}, without the API key.")
        }
    };
    text::plain(&format!(
        "Logged in to {endpoint} as {who}: {}.",
        role(holder)
    ))
    .into_owned()
        + "\n"
        + &text::plain(&kept)
}
