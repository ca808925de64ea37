//! The guard against locking oneself out: revoking, disabling or deleting the key that one calls with.
//!
//! Only an operator's key ends operators' keys. So the last active one of them is always the caller's own.

use clap::Args;

use super::key::title;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::domain::ids::RealmId;
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
        match own_key(client).await? {
            Some(own) if own.id == key.id => Err(locks_out(client, key).hint(HINT)),
            _ => Ok(()),
        }
    }
}

/// Refuses to end all keys of a realm, its gateways and its managers if the caller's own key is one of them: without it, the caller
/// could not finish.
pub(in crate::cli) async fn check_realm(client: &Client, realm: &str) -> Result<(), Failure> {
    match own_key(client).await? {
        Some(own)
            if own.realm == realm || (own.realm == RealmId::BUILT_IN && own.partner == realm) =>
        {
            Err(locks_out(client, &own).hint("call with an operator's key; nothing was changed"))
        }
        _ => Ok(()),
    }
}

fn locks_out(client: &Client, key: &Key) -> Failure {
    Failure::failed(format!(
        "{} is the key that this command calls with, from {}",
        title(key),
        client.key_source()
    ))
    .reason(REASON)
}

/// The id of the key that the command calls with.
pub(super) async fn own_id(client: &Client) -> Result<Option<String>, Failure> {
    Ok(own_key(client).await?.map(|key| key.id))
}

/// The key that the command calls with.
///
/// `None` if the server is too busy with such questions of the partner's keys: a thief who asks all the time must not keep anybody
/// from revoking a key.
async fn own_key(client: &Client) -> Result<Option<Key>, Failure> {
    match client.ask(client.keys().get_self(GetSelfRequest {})).await {
        Ok(answer) => Ok(answer.key),
        Err(failure) if failure.is_too_many() => Ok(None),
        Err(failure) => Err(failure),
    }
}
