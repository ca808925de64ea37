//! The commands `context list`, `context use`, `use` and `logout`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::given_or;
use crate::cli::connect::Connection;
use crate::cli::contexts::{Context, ContextKey, Contexts, ContextsFile};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::prompt::YesFlag;
use crate::cli::table::{Cell, Column, Row, Table};
use crate::cli::text;

/// The commands for contexts.
#[derive(Debug, Subcommand)]
pub enum Command {
    List(List),
    Use(Use),
}

/// List the contexts, without their API keys.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  claviger context list")]
pub struct List {}

/// Make a context the current one, whose settings commands take if they name no context.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger use prod --realm demo
  claviger context use prod")]
pub struct Use {
    /// The name of the context.
    #[arg(value_name = "NAME")]
    name: String,
    /// Also set the realm of commands that name none; '' for none.
    #[arg(long, value_name = "REALM")]
    realm: Option<String>,
    /// Also set the environment of commands that need one and name none; '' for none.
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
}

/// Remove a context, with the API key in it. The key itself stays valid.
///
/// If the context has the API key and not only the name of a file or of a command, this asks at a terminal and needs --yes elsewhere:
/// there may be no other copy.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  claviger logout prod")]
pub struct Logout {
    /// The name of the context [default: the current one].
    #[arg(value_name = "CONTEXT")]
    name: Option<String>,
    #[command(flatten)]
    yes: YesFlag,
}

impl Command {
    pub(in crate::cli) fn run(self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::List(List {}) => {
                let contexts = ContextsFile::of_user_or_failure()?.read_to_show()?;
                if let Some(current) = contexts.stale_current() {
                    output::print_error(&format!(
                        "warning: the current context `{current}` does not exist: claviger use NAME"
                    ));
                }
                output.show_summary(&as_json(&contexts), || shown(&contexts, output.width()))
            }
            Self::Use(chosen) => chosen.run(output),
        }
    }
}

impl Use {
    pub(in crate::cli) fn run(self, output: &Output) -> Result<(), Failure> {
        let Self {
            name,
            realm,
            environment,
        } = self;
        output.check_summary_field(&["current", "context"])?;
        let file = ContextsFile::of_user_or_failure()?;
        let context = file.change(|contexts| {
            if !contexts.by_name.contains_key(&name) {
                return Err(contexts.no_such(&name));
            }
            let context = contexts.by_name.entry(name.clone()).or_default();
            for (setting, given) in [
                (&mut context.realm, realm),
                (&mut context.environment, environment),
            ] {
                *setting = given_or(given, setting.take());
            }
            contexts.current = Some(name.clone());
            Ok(context.clone())
        })?;
        output.show_summary(
            &json!({"current": name, "context": fields(&name, &context)}),
            || {
                let realm = context.realm.as_deref();
                let realm = realm.map_or(String::new(), |realm| {
                    format!(", realm {}", text::plain(realm))
                });
                let endpoint = context
                    .endpoint
                    .as_deref()
                    .unwrap_or("the default endpoint");
                format!(
                    "The current context is {name}: {}{realm}.",
                    text::plain(endpoint)
                )
            },
        )
    }
}

impl Logout {
    pub(in crate::cli) async fn run(
        self,
        connection: &Connection,
        output: &Output,
    ) -> Result<(), Failure> {
        output.check_summary_field(&["removed"])?;
        let file = ContextsFile::of_user_or_failure()?;
        let contexts = file.read_to_change()?;
        let name = self
            .name
            .or_else(|| connection.context_name())
            .or_else(|| contexts.current.clone())
            .ok_or_else(|| {
                Failure::usage("no context is named, and none is the current one")
                    .hint("name one of `claviger context list`")
            })?;
        let context = contexts.by_name.get(&name);
        let context = context.ok_or_else(|| contexts.no_such(&name))?;
        if has_key(context) {
            let question = format!(
                "Remove the context {name} and the API key in it? Nobody can show this API key again."
            );
            self.yes.confirm(&question).await?;
        }
        let (has_key, is_left) = file.change(|contexts| {
            let now = contexts.by_name.remove(&name);
            let now = now.ok_or_else(|| contexts.no_such(&name))?;
            // Another command may have changed it meanwhile, and nobody has agreed to the end of this key.
            if has_key(&now) && !self.yes.is_given() && !is_same_key(&now, context) {
                return Err(Failure::changed_meanwhile(format!(
                    "the context {name} got another API key while you were asked, so it was not removed"
                ))
                .hint("repeat the command"));
            }
            if contexts.current.as_ref() == Some(&name) {
                contexts.current = None;
            }
            let is_left = contexts.current.is_some() || contexts.by_name.is_empty();
            Ok((has_key(&now), is_left))
        })?;
        output.show_summary(&json!({"removed": name}), || {
            let key = if has_key {
                " The key itself stays valid: `claviger keys revoke` ends one."
            } else {
                ""
            };
            let current = if is_left {
                ""
            } else {
                "\nNo context is the current one now: claviger use NAME"
            };
            format!("Removed the context {name}.{key}{current}")
        })
    }
}

/// Whether the file has the API key itself.
fn has_key(context: &Context) -> bool {
    matches!(context.key, Some(ContextKey::Stored(_)))
}

/// Whether the file has the same API key in both.
fn is_same_key(a: &Context, b: &Context) -> bool {
    match (&a.key, &b.key) {
        (Some(ContextKey::Stored(a)), Some(ContextKey::Stored(b))) => a.reveal() == b.reveal(),
        _ => false,
    }
}

const COLUMNS: [Column; 5] = [
    Column::id("NAME", 5, 12, 24),
    Column::id("ENDPOINT", 4, 16, 40),
    Column::id("REALM", 2, 8, 20),
    Column::id("ENVIRONMENT", 1, 8, 20),
    Column::id("KEY", 3, 12, 40),
];

fn shown(contexts: &Contexts, width: Option<usize>) -> String {
    if contexts.by_name.is_empty() {
        return "There are no contexts. Make one: claviger login".to_owned();
    }
    let rows = contexts.by_name.iter().map(|(name, context)| {
        let is_current = contexts.current.as_ref() == Some(name);
        let mark = if is_current { " (current)" } else { "" };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = context.key.as_ref().map(ContextKey::place);
        let cells = [
            format!("{name}{mark}"),
            text(&context.endpoint),
            text(&context.realm),
            text(&context.environment),
            key.unwrap_or_default(),
        ];
        Row {
            cells: cells.iter().map(Cell::new).collect(),
            ..Row::default()
        }
    });
    let mut table = Table::new(COLUMNS);
    rows.for_each(|row| table.push(row));
    table.shown(width).text()
}

fn as_json(contexts: &Contexts) -> serde_json::Value {
    let each: Vec<_> = contexts
        .by_name
        .iter()
        .map(|(name, context)| fields(name, context))
        .collect();
    json!({"current": contexts.current, "contexts": each})
}

/// The settings of a context for programs, without its API key.
fn fields(name: &str, context: &Context) -> serde_json::Value {
    json!({
        "name": name,
        "endpoint": context.endpoint,
        "ca_file": context.ca_file,
        "client_cert": context.client_cert,
        "client_key": context.client_key,
        "key": context.key.as_ref().map(ContextKey::place),
        "realm": context.realm,
        "environment": context.environment,
    })
}
