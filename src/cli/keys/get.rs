//! The `keys get` command.

use clap::Args;

use super::key::{KeyId, facts_with_usage};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::pb::claviger::v1::GetKeyRequest;

/// Show a key, without its API key.
#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    key: KeyId,
}

impl Get {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = GetKeyRequest {
            key_id: self.key.id,
            ..GetKeyRequest::default()
        };
        let answer = client.ask(client.keys().get_key(request)).await?;
        output.show(&answer, |answer| {
            answer
                .key
                .as_ref()
                .map(facts_with_usage)
                .unwrap_or_default()
        })
    }
}
