//! The `keys enable` and `keys disable` commands.

use clap::Args;

use super::key::{IfRevisionFlag, KeyId};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::request_id;
use crate::pb::claviger::v1::{DisableKeyRequest, EnableKeyRequest};

/// Disable a key until it is enabled again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys disable ci --yes")]
pub struct Disable {
    #[command(flatten)]
    key: KeyId,
    #[command(flatten)]
    if_revision: IfRevisionFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Enable a disabled key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys enable ci")]
pub struct Enable {
    #[command(flatten)]
    key: KeyId,
    #[command(flatten)]
    if_revision: IfRevisionFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Disable {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = DisableKeyRequest {
            request_id: request_id::fresh(),
            key_id: self.key.id.clone(),
            wait: self.wait.to_proto(),
            if_revision: self.if_revision.revision,
            ..DisableKeyRequest::default()
        };
        let answer = client.change(client.keys().disable_key(request)).await?;
        self.key.show_change(output, "disabled", &answer)
    }
}

impl Enable {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = EnableKeyRequest {
            request_id: request_id::fresh(),
            key_id: self.key.id.clone(),
            wait: self.wait.to_proto(),
            if_revision: self.if_revision.revision,
            ..EnableKeyRequest::default()
        };
        let answer = client.change(client.keys().enable_key(request)).await?;
        self.key.show_change(output, "enabled", &answer)
    }
}
