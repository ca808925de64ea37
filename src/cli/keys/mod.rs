//! Keys: to make them, to look at them, and to govern their lives.
//!
//! A file for each thing that can be done; `key` has what they share, `once` how a text is shown on its one occasion.

mod chart;
mod import;
mod issue;
mod key;
mod list;
mod once;
mod revoke;
mod rotate;
mod show;
mod switch;
mod update;
mod usage;

use clap::Subcommand;

use super::connect::Connection;
use super::failure::Failure;
use super::output::Output;
use import::Import;
use issue::Issue;
use key::KeyId;
use list::List;
use revoke::{Revoke, RevokeAll, RevokeSelf};
use rotate::{EndRotation, Rotate};
use switch::{Delete, Switch};
use update::Update;
use usage::Usage;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    Issue(Issue),
    /// Show a key: all that is known of it but its text.
    Get(KeyId),
    List(List),
    /// Show what a key was granted, and what follows from it.
    Scopes(KeyId),
    Usage(Usage),
    Update(Box<Update>),
    Rotate(Rotate),
    EndRotation(EndRotation),
    /// Switch a key off until it is enabled again.
    Disable(Switch),
    /// Switch a disabled key on again.
    Enable(Switch),
    Revoke(Revoke),
    RevokeAll(RevokeAll),
    RevokeSelf(RevokeSelf),
    Delete(Delete),
    Import(Box<Import>),
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Issue(issue) => issue.run(connection, output).await,
            Self::Get(key) => show::get(key, connection, output).await,
            Self::List(list) => list.run(connection, output).await,
            Self::Scopes(key) => show::scopes(key, connection, output).await,
            Self::Usage(usage) => usage.run(connection, output).await,
            Self::Update(update) => update.run(connection, output).await,
            Self::Rotate(rotate) => rotate.run(connection, output).await,
            Self::EndRotation(end) => end.run(connection, output).await,
            Self::Disable(switch) => switch.disable(connection, output).await,
            Self::Enable(switch) => switch.enable(connection, output).await,
            Self::Revoke(revoke) => revoke.run(connection, output).await,
            Self::RevokeAll(revoke) => revoke.run(connection, output).await,
            Self::RevokeSelf(revoke) => revoke.run(connection, output).await,
            Self::Delete(delete) => delete.run(connection, output).await,
            Self::Import(import) => import.run(connection, output).await,
        }
    }
}
