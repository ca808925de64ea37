//! A key is switched off and on, or removed.

use clap::Args;

use crate::pb::claviger::v1::{DeleteKeyRequest, DisableKeyRequest, EnableKeyRequest};

use super::key::KeyId;
use crate::cli::ask;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::request_id;

/// Which key to switch.
#[derive(Debug, Args)]
pub struct Switch {
    #[command(flatten)]
    key: KeyId,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Remove a key, so that it becomes unknown. Its events stay in the audit trail.
///
/// At a terminal it asks first.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    key: KeyId,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Switch {
    pub(super) async fn disable(
        self,
        connection: &Connection,
        output: &Output,
    ) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = DisableKeyRequest {
            request_id: request_id::fresh(),
            key_id: self.key.id.clone(),
            wait: self.wait.on_wire(),
            ..DisableKeyRequest::default()
        };
        let answer = client.change(client.keys().disable_key(request)).await?;
        self.key.changed(output, "disabled", &answer)
    }

    pub(super) async fn enable(
        self,
        connection: &Connection,
        output: &Output,
    ) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = EnableKeyRequest {
            request_id: request_id::fresh(),
            key_id: self.key.id.clone(),
            wait: self.wait.on_wire(),
            ..EnableKeyRequest::default()
        };
        let answer = client.change(client.keys().enable_key(request)).await?;
        self.key.changed(output, "enabled", &answer)
    }
}

impl Delete {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        ask::confirm(self.yes, &format!("Delete key {} for ever?", self.key.id))?;
        let client = connection.connect().await?;
        let request = DeleteKeyRequest {
            request_id: request_id::fresh(),
            key_id: self.key.id.clone(),
            wait: self.wait.on_wire(),
            ..DeleteKeyRequest::default()
        };
        let answer = client.change(client.keys().delete_key(request)).await?;
        self.key.changed(output, "deleted", &answer)
    }
}
