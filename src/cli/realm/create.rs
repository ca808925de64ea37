//! The `realm create` command.

use clap::Args;

use super::flags::{RealmFlags, put};
use crate::cli::connect::Connection;
use crate::cli::edit::{Edit, Mode};
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;

/// Create a realm. Fails if it exists.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm create demo --prefix demo --environment production=live \\
      --scope read --scope write=read
  claviger realm create shop --prefix shop --environment production=live \\
      --environment staging=test --unscoped-keys full-access")]
pub struct Create {
    /// The realm's id.
    id: String,
    #[command(flatten)]
    flags: RealmFlags,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Create {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let (realm, fields) = self.flags.edit(&self.id)?;
        let edit = Edit::new("Realm", &realm, fields, None, self.wait);
        put(connection, output, &edit, self.id, Mode::Create).await
    }
}
