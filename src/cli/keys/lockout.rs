//! The guard against locking oneself out: revoking, disabling or deleting the key that one calls with.
//!
//! Only an operator's key ends operators' keys. So the last active one of them is always the caller's own.

use clap::Args;

use super::key::title;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::pb::claviger::v1::{GetSelfRequest, Key};

/// The flag that turns the guard off.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct LockOutFlag {
    /// Do so also to the key that this command calls with, such as the last key of an operator.
    #[arg(long)]
    even_if_it_locks_me_out: bool,
}

/// The reason that the API has for the same refusal.
const REASON: &str = "LOCKS_OUT_CALLER";
const HINT: &str = "call with another key, or add --even-if-it-locks-me-out";

impl LockOutFlag {
    /// Refuses if the caller would lose its own key.
    pub(super) async fn check(self, client: &Client, key: &Key) -> Result<(), Failure> {
        if self.even_if_it_locks_me_out {
            return Ok(());
        }
        if own_id(client).await?.as_deref() == Some(key.id.as_str()) {
            return Err(Failure::failed(format!(
                "{} is the key that this command calls with, from {}",
                title(key),
                client.key_source()
            ))
            .reason(REASON)
            .hint(HINT));
        }
        Ok(())
    }
}

/// The id of the key that the command calls with.
///
/// `None` if the server is too busy with such questions of the partner's keys: a thief who asks all the time must not keep anybody
/// from revoking a key.
pub(super) async fn own_id(client: &Client) -> Result<Option<String>, Failure> {
    match client.ask(client.keys().get_self(GetSelfRequest {})).await {
        Ok(answer) => Ok(answer.key.map(|key| key.id)),
        Err(failure) if failure.is_too_many() => Ok(None),
        Err(failure) => Err(failure),
    }
}
