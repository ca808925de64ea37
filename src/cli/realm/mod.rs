//! Realms: the protected APIs.

mod apply;
mod create;
mod delete;
mod flags;
mod get;
mod list;
mod put;
mod rename_scope;
mod update;

use clap::Subcommand;

use super::connect::Connection;
use super::failure::Failure;
use super::output::Output;
use apply::Apply;
use create::Create;
use delete::Delete;
use get::Get;
use list::List;
#[cfg(test)]
pub(super) use list::listing;
use put::Put;
use rename_scope::RenameScope;
use update::Update;

/// The commands for realms.
#[derive(Debug, Subcommand)]
pub enum Command {
    Create(Create),
    Update(Update),
    Apply(Apply),
    #[command(hide = true)]
    Put(Put),
    #[command(aliases = ["show", "describe"])]
    Get(Get),
    #[command(alias = "ls")]
    List(List),
    #[command(alias = "rm")]
    Delete(Delete),
    RenameScope(RenameScope),
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(connection, output).await,
            Self::Update(update) => update.run(connection, output).await,
            Self::Apply(apply) => apply.run(connection, output).await,
            Self::Put(put) => put.run(connection, output).await,
            Self::Get(get) => get.run(connection, output).await,
            Self::List(list) => list.run(connection, output).await,
            Self::Delete(delete) => delete.run(connection, output).await,
            Self::RenameScope(rename) => rename.run(connection, output).await,
        }
    }
}
