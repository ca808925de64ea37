//! The `keys get` and `keys self` commands.

use clap::Args;

use super::named::{KeyArg, Several};
use super::screen::{Background, background, shown};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::pb::claviger::v1::{GetKeyRequest, GetSelfRequest};

/// Show a key, without its API key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys get ci
  claviger keys get ci --field scopes")]
pub struct Get {
    #[command(flatten)]
    key: KeyArg,
}

/// Show the key that authenticates this call, from --key-file, `CLAVIGER_KEY` or the context.
///
/// Every key that is accepted may do so: the call needs no scope.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys self --key-file my.key")]
pub struct GetSelf {}

impl GetSelf {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let Self {} = self;
        let client = connection.connect().await?;
        let answer = client
            .ask(client.keys().get_self(GetSelfRequest {}))
            .await?;
        let background = Background::default();
        output.show(&answer, |answer| {
            let key = answer.key.as_ref();
            key.map(|key| shown(key, &background, output.screen()))
                .unwrap_or_default()
        })
    }
}

impl Get {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let ask = async |key_id| {
            let request = GetKeyRequest {
                key_id,
                ..GetKeyRequest::default()
            };
            client.ask(client.keys().get_key(request)).await
        };
        let answer = self.key.call(&client, Several::LivingWins, ask).await?;
        let background = background(&client, answer.key.as_ref(), output).await;
        output.show(&answer, |answer| {
            let key = answer.key.as_ref();
            key.map(|key| shown(key, &background, output.screen()))
                .unwrap_or_default()
        })
    }
}
