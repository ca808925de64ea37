//! The `realm apply` command.

use std::path::PathBuf;

use clap::Args;

use crate::cli::connect::Connection;
use crate::cli::declared;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::prompt::YesFlag;
use crate::cli::toml_file;
use crate::pb::claviger::v1::{ApplyRequest, DeclaredState};

/// Create a realm as a file describes it, or change it until it is so.
///
/// The file is the whole definition: what is not in the file is removed. The file is TOML with the field names of the proto;
/// `realm get ID --toml` writes such a file. What would change is shown first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm get demo --toml > demo.toml
  claviger realm apply --file demo.toml --dry-run
  claviger realm apply --file demo.toml --yes")]
pub struct Apply {
    /// The file that describes the whole realm; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Apply {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let realm = toml_file::read(&self.file, toml_file::parse_realm)?;
        let state = DeclaredState {
            realms: vec![realm],
            ..DeclaredState::default()
        };
        let request = ApplyRequest {
            state: Some(state),
            dry_run: true,
            ..ApplyRequest::default()
        };
        let client = connection.connect().await?;
        if self.dry_run {
            return declared::show_plan(&client, output, request)
                .await
                .map(drop);
        }
        declared::apply(&client, output, request, self.yes, self.wait).await
    }
}
