//! The `keys enable` and `keys disable` commands.

use clap::Args;

use super::key::{IfRevisionFlag, already, is_unchanged, question, title};
use super::lockout::LockOutFlag;
use super::named::{KeyArg, Several};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::prompt::YesFlag;
use crate::cli::request_id;
use crate::cli::response::ChangeResponse as _;
use crate::pb::claviger::v1::{DisableKeyRequest, EnableKeyRequest, KeyState};

/// Disable a key until it is enabled again.
///
/// It says which key it is and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys disable ci --yes")]
pub struct Disable {
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    lock_out: LockOutFlag,
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
    key: KeyArg,
    #[command(flatten)]
    if_revision: IfRevisionFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Disable {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let before = self.key.key(&client, Several::Refused).await?;
        // What needs no change, or is refused, needs no question.
        let ended = [KeyState::Disabled, KeyState::Revoked].map(i32::from);
        if !ended.contains(&before.state) {
            self.lock_out.check(&client, &before).await?;
            self.yes.confirm(&question("Disable", &before)).await?;
        }
        let request = DisableKeyRequest {
            request_id: request_id::fresh(),
            key_id: before.id.clone(),
            wait: self.wait.to_proto(),
            if_revision: self.if_revision.revision,
            ..DisableKeyRequest::default()
        };
        let answer = client.change(client.keys().disable_key(request)).await?;
        output.show_change(&answer, |answer| {
            if is_unchanged(&before, answer.key.as_ref()) {
                already(&before, "disabled")
            } else {
                answer.done(&format!("Disabled {}", title(&before)))
            }
        })
    }
}

impl Enable {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let before = self.key.key(&client, Several::LivingWins).await?;
        let request = EnableKeyRequest {
            request_id: request_id::fresh(),
            key_id: before.id.clone(),
            wait: self.wait.to_proto(),
            if_revision: self.if_revision.revision,
            ..EnableKeyRequest::default()
        };
        let answer = client.change(client.keys().enable_key(request)).await?;
        output.show_change(&answer, |answer| {
            if is_unchanged(&before, answer.key.as_ref()) {
                already(&before, "enabled")
            } else {
                answer.done(&format!("Enabled {}", title(&before)))
            }
        })
    }
}
