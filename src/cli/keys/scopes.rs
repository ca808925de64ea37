//! The `keys scopes` command.

use clap::Args;

use super::named::{KeyArg, Several};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::text;
use crate::pb::claviger::v1::GetKeyScopesRequest;

/// Show the scopes that a key was granted, and the scopes that it holds by the scope hierarchy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys scopes ci")]
pub struct Scopes {
    #[command(flatten)]
    key: KeyArg,
}

impl Scopes {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let ask = async |key_id| {
            let request = GetKeyScopesRequest {
                key_id,
                ..GetKeyScopesRequest::default()
            };
            client.ask(client.keys().get_key_scopes(request)).await
        };
        let answer = self.key.call(&client, Several::LivingWins, ask).await?;
        output.show(&answer, |answer| {
            text::facts([
                (
                    "granted",
                    text::granted(&answer.granted, answer.full_access),
                ),
                ("effective", text::granted(&answer.effective, false)),
            ])
        })
    }
}
