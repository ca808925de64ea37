//! The `realm update` command.

use clap::Args;

use super::flags::{RealmFlags, put};
use crate::cli::connect::Connection;
use crate::cli::edit::{Edit, Mode};
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;

/// Change the settings of a realm that are named; the others stay. Fails if it does not exist.
///
/// The routes and the other settings that only a file can name stay too: see `realm apply`. A flag for a list replaces the whole list:
/// `--scope read` removes all other scopes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm update demo --max-lifetime 90d
  claviger realm update demo --scope read --scope write=read --scope admin")]
pub struct Update {
    /// The realm's id.
    id: String,
    #[command(flatten)]
    flags: RealmFlags,
    /// Fail unless the realm has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Update {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let (realm, fields) = self.flags.edit(&self.id)?;
        let edit = Edit::new("Realm", &realm, fields, self.if_revision, self.wait);
        put(connection, output, &edit, self.id, Mode::Update).await
    }
}
