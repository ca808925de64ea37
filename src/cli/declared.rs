//! Declared state: the `apply` and `diff` commands.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use similar::{ChangeTag, TextDiff};

use super::client::Client;
use super::connect::Connection;
use super::failure::Failure;
use super::flags::WaitFlag;
use super::output::{self, Output};
use super::prompt::YesFlag;
use super::request_id;
use super::response::ChangeResponse as _;
use super::{text, toml_file};
use crate::pb::claviger::v1::declared_resource::Resource;
use crate::pb::claviger::v1::{
    ApplyRequest, ApplyResponse, DeclaredChange, DeclaredKind, DeclaredResource, DeclaredState,
    Wait,
};

/// The exit code if there are changes and `--fail-if-any` is given, as that of `keys list`.
const FOUND: u8 = 5;

/// How many lines of a changed realm are shown before and after each change.
const CONTEXT: usize = 1;

/// Make the authority as files declare it: realms, partners, projects, and keys of gateways.
///
/// The files are TOML with the field names of the proto: [[realms]], [[partners]], [[projects]] and [[keys]]. Keys are declared by
/// the SHA-256 of their API keys, which `claviger key new` makes. What the files do not name stays, unless --prune says otherwise.
///
/// The changes are shown first, and the command asks at a terminal. Elsewhere only deletions need --yes. The changes are made in one
/// transaction: all, or none.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger apply authority.toml
  claviger apply authority.toml --prune=keys --yes --wait everywhere")]
pub struct Apply {
    #[command(flatten)]
    declared: DeclaredFlags,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Show what `apply` would change.
///
/// The key of an auditor is enough: one with the scope `read` and no partner.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger diff authority.toml
  claviger diff authority.toml --prune=keys --fail-if-any   # of a scheduler")]
pub struct Diff {
    #[command(flatten)]
    declared: DeclaredFlags,
    /// Exit with 5 if there are changes.
    #[arg(long)]
    fail_if_any: bool,
}

#[derive(Debug, Args)]
struct DeclaredFlags {
    /// The files; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Delete what the files do not name, of these kinds [without KINDS: all]. Partners and projects go only from realms in the
    /// files, and only keys that were imported or declared.
    #[arg(
        long,
        value_name = "KINDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "realms,partners,projects,keys",
        value_delimiter = ','
    )]
    prune: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Realms,
    Partners,
    Projects,
    Keys,
}

impl Kind {
    fn to_proto(self) -> i32 {
        match self {
            Self::Realms => DeclaredKind::Realm,
            Self::Partners => DeclaredKind::Partner,
            Self::Projects => DeclaredKind::Project,
            Self::Keys => DeclaredKind::Key,
        }
        .into()
    }
}

impl DeclaredFlags {
    /// A request that only tells what would change.
    fn request(self) -> Result<ApplyRequest, Failure> {
        let mut state = DeclaredState::default();
        for path in &self.files {
            let DeclaredState {
                realms,
                partners,
                projects,
                keys,
            } = toml_file::read(path, toml_file::parse_declared)?;
            state.realms.extend(realms);
            state.partners.extend(partners);
            state.projects.extend(projects);
            state.keys.extend(keys);
        }
        Ok(ApplyRequest {
            state: Some(state),
            prune: self.prune.into_iter().map(Kind::to_proto).collect(),
            dry_run: true,
            if_plan: String::new(),
            wait: Wait::Unspecified.into(),
            request_id: String::new(),
        })
    }
}

/// Reads the files of a declared state.
///
/// # Errors
/// A message that names the file, the place in it, and what is wrong.
pub fn read_declared(files: &[PathBuf]) -> Result<DeclaredState, String> {
    let flags = DeclaredFlags {
        files: files.to_vec(),
        prune: Vec::new(),
    };
    let request = flags.request().map_err(|failure| failure.message())?;
    Ok(request.state.unwrap_or_default())
}

impl Diff {
    /// Shows the changes, and returns the exit code.
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let request = self.declared.request()?;
        let client = connection.connect().await?;
        let found = show_plan(&client, output, request).await?;
        Ok(if found && self.fail_if_any { FOUND } else { 0 })
    }
}

impl Apply {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let request = self.declared.request()?;
        let client = connection.connect().await?;
        apply(&client, output, request, self.yes, self.wait).await
    }
}

/// Shows what a request would change, and returns whether it would change anything.
pub(super) async fn show_plan(
    client: &Client,
    output: &Output,
    request: ApplyRequest,
) -> Result<bool, Failure> {
    let answer = plan(client, request).await?;
    output.show(&answer, |answer| {
        if answer.changes.is_empty() {
            return "The authority is as declared.".to_owned();
        }
        let changes = counted(answer.changes.len(), "change");
        format!("{}\n\n{changes}.", described(answer))
    })?;
    Ok(!answer.changes.is_empty())
}

/// Shows what a request would change, asks for confirmation, and makes it so. A realm that is created alone is not asked about.
pub(super) async fn apply(
    client: &Client,
    output: &Output,
    mut request: ApplyRequest,
    yes: YesFlag,
    wait: WaitFlag,
) -> Result<(), Failure> {
    let planned = plan(client, request.clone()).await?;
    if !planned.changes.is_empty() {
        if output.is_for_people() {
            output::print_error(&described(&planned));
        }
        let changes = counted(planned.changes.len(), "change");
        let question = format!("Make {}?", changes.replace("1 change", "this change"));
        if deletes(&planned) {
            yes.confirm(&question).await?;
        } else if !creates_a_realm(&planned) {
            yes.confirm_at_terminal(&question).await?;
        }
    }
    request.dry_run = false;
    request.if_plan = planned.plan;
    request.wait = wait.to_proto();
    request.request_id = request_id::fresh();
    let answer = client.change(client.authority().apply(request)).await?;
    output.show_change(&answer, |answer| {
        let done = match answer.changes.as_slice() {
            [] => "Nothing to change".to_owned(),
            [change] => done(change),
            changes => format!("Made {} changes", changes.len()),
        };
        answer.done(&done)
    })
}

/// What a change did, for people.
fn done(change: &DeclaredChange) -> String {
    let named = change.after.as_ref().or(change.before.as_ref());
    let named = named.and_then(|side| side.resource.as_ref());
    let name = named.map(name).unwrap_or_default();
    let verb = match (&change.before, &change.after) {
        (None, _) => "Created",
        (_, None) => "Deleted",
        _ => "Changed",
    };
    format!("{verb} {}", text::plain(&name))
}

async fn plan(client: &Client, request: ApplyRequest) -> Result<ApplyResponse, Failure> {
    client.ask(client.authority().apply(request)).await
}

/// Whether a realm is created and nothing else is done: no key gets or loses anything by that.
fn creates_a_realm(answer: &ApplyResponse) -> bool {
    let is_new_realm = |change: &DeclaredChange| {
        let after = change
            .after
            .as_ref()
            .and_then(|after| after.resource.as_ref());
        change.before.is_none() && matches!(after, Some(Resource::Realm(_)))
    };
    matches!(answer.changes.as_slice(), [change] if is_new_realm(change))
}

fn deletes(answer: &ApplyResponse) -> bool {
    answer.changes.iter().any(|change| change.after.is_none())
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// A line for each change, and for a resource that stays the lines that differ.
fn described(answer: &ApplyResponse) -> String {
    let mut lines = String::new();
    for change in &answer.changes {
        let DeclaredChange {
            before,
            after,
            key_id,
        } = change;
        let resource =
            |side: &Option<DeclaredResource>| side.as_ref().and_then(|side| side.resource.clone());
        let (before, after) = (resource(before), resource(after));
        let verb = match (&before, &after) {
            (None, _) => "create",
            (_, None) => "delete",
            _ => "change",
        };
        let Some(named) = after.as_ref().or(before.as_ref()) else {
            continue;
        };
        let _ = writeln!(lines, "{verb} {}", text::plain(&name(named)));
        if !key_id.is_empty() {
            let _ = writeln!(lines, "      id {}", text::plain(key_id));
        }
        match (&before, &after) {
            (Some(before), Some(after)) => {
                lines.push_str(&differences(&toml(before), &toml(after)));
            }
            // What a key may do is worth a look.
            (None, Some(key @ Resource::Key(_))) => lines.push_str(&differences("", &toml(key))),
            _ => {}
        }
    }
    lines.truncate(lines.trim_end().len());
    lines
}

fn name(resource: &Resource) -> String {
    match resource {
        Resource::Realm(realm) => format!("realm {}", realm.id),
        Resource::Partner(partner) => format!("partner {} of {}", partner.id, partner.realm),
        Resource::Project(project) => {
            format!(
                "project {} of {}/{}",
                project.id, project.realm, project.partner
            )
        }
        Resource::Key(key) => {
            let name = if key.name.is_empty() {
                "without a name".to_owned()
            } else {
                format!("\"{}\"", key.name)
            };
            let of = if key.partner.is_empty() {
                String::new()
            } else {
                format!(" of {}", key.partner)
            };
            format!("key {name} ({}{of})", key.scopes.join(", "))
        }
    }
}

fn toml(resource: &Resource) -> String {
    let text = match resource {
        Resource::Realm(realm) => toml_file::realm_to_toml(realm),
        Resource::Partner(partner) => toml_file::to_toml("Partner", partner),
        Resource::Project(project) => toml_file::to_toml("Project", project),
        Resource::Key(key) => toml_file::to_toml("DeclaredKey", key),
    };
    text.unwrap_or_default()
}

/// The lines that differ, with a few around them.
fn differences(before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let mut lines = String::new();
    for (i, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if i > 0 {
            lines.push_str("      …\n");
        }
        for change in group
            .iter()
            .flat_map(|operation| diff.iter_changes(operation))
        {
            let line = change.value().trim_end();
            if line.is_empty() {
                continue;
            }
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            let _ = writeln!(lines, "    {sign} {}", text::plain(line));
        }
    }
    lines
}
