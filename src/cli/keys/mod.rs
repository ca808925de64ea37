//! The commands for keys, one file for each.
//!
//! `key` has what the commands share, `named` how a user names a key, and `lockout` the guard of the caller's own key. `revealed_key` shows an API key, which the server returns only once.

mod bulk;
pub(super) mod columns;
mod delete;
mod enable;
mod filter;
mod find;
mod get;
mod import;
mod issue;
pub(super) mod key;
mod list;
pub(super) mod lockout;
pub(super) mod named;
mod new;
mod revealed_key;
mod revoke;
mod rotate;
mod scopes;
pub(super) mod screen;
mod update;
pub(super) mod usage;

use clap::Subcommand;

use super::connect::Connection;
use super::failure::Failure;
use super::output::Output;
use delete::{Delete, DeleteAll};
use enable::{Disable, Enable};
use find::Find;
use get::{Get, GetSelf};
use import::Import;
use issue::Issue;
pub(super) use key::short_hint;
use list::List;
pub(super) use new::Offline;
use revoke::{Revoke, RevokeAll, RevokeSelf};
use rotate::{EndRotation, Rotate, RotateSelf};
use scopes::Scopes;
use update::Update;
use usage::Usage;

/// The commands for keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(aliases = ["create", "new"])]
    Issue(Issue),
    #[command(aliases = ["show", "describe"])]
    Get(Get),
    #[command(name = "self")]
    GetSelf(GetSelf),
    Find(Find),
    #[command(alias = "ls")]
    List(Box<List>),
    Scopes(Scopes),
    Usage(Usage),
    Update(Box<Update>),
    Rotate(Rotate),
    RotateSelf(RotateSelf),
    EndRotation(EndRotation),
    Disable(Disable),
    Enable(Enable),
    Revoke(Revoke),
    RevokeAll(Box<RevokeAll>),
    RevokeSelf(RevokeSelf),
    #[command(alias = "rm")]
    Delete(Delete),
    DeleteAll(Box<DeleteAll>),
    Import(Box<Import>),
}

impl Command {
    /// Returns the exit code.
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let done = match self {
            Self::Issue(issue) => issue.run(connection, output).await,
            Self::Get(get) => get.run(connection, output).await,
            Self::GetSelf(get) => get.run(connection, output).await,
            Self::Find(find) => find.run(connection, output).await,
            Self::List(list) => return list.run(connection, output).await,
            Self::Scopes(scopes) => scopes.run(connection, output).await,
            Self::Usage(usage) => usage.run(connection, output).await,
            Self::Update(update) => update.run(connection, output).await,
            Self::Rotate(rotate) => rotate.run(connection, output).await,
            Self::RotateSelf(rotate) => rotate.run(connection, output).await,
            Self::EndRotation(end) => end.run(connection, output).await,
            Self::Disable(disable) => disable.run(connection, output).await,
            Self::Enable(enable) => enable.run(connection, output).await,
            Self::Revoke(revoke) => revoke.run(connection, output).await,
            Self::RevokeAll(revoke) => revoke.run(connection, output).await,
            Self::RevokeSelf(revoke) => revoke.run(connection, output).await,
            Self::Delete(delete) => delete.run(connection, output).await,
            Self::DeleteAll(delete) => delete.run(connection, output).await,
            Self::Import(import) => return import.run(connection, output).await,
        };
        done.map(|()| 0)
    }
}
