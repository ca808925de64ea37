//! The `keys delete` command.

use clap::Args;

use super::key::KeyId;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::prompt;
use crate::cli::request_id;
use crate::pb::claviger::v1::DeleteKeyRequest;

/// Delete a key, so that it becomes unknown. Its events stay in the audit trail.
///
/// At a terminal, the command asks for confirmation.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    key: KeyId,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Delete {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        prompt::confirm(
            self.yes,
            &format!("Delete key {} permanently?", self.key.id),
        )?;
        let client = connection.connect().await?;
        let request = DeleteKeyRequest {
            request_id: request_id::fresh(),
            key_id: self.key.id.clone(),
            wait: self.wait.to_proto(),
            ..DeleteKeyRequest::default()
        };
        let answer = client.change(client.keys().delete_key(request)).await?;
        self.key.show_change(output, "deleted", &answer)
    }
}
