//! One key, looked at.

use crate::pb::claviger::v1::{GetKeyRequest, GetKeyScopesRequest};

use super::super::connect::Connection;
use super::super::failure::Failure;
use super::super::output::Output;
use super::super::text;
use super::key::{KeyId, facts_with_use};

/// Shows all that is known of a key but its texts.
pub(super) async fn get(
    key: KeyId,
    connection: &Connection,
    output: &Output,
) -> Result<(), Failure> {
    let client = connection.connect().await?;
    let request = GetKeyRequest { key_id: key.id };
    let answer = client.ask(client.keys().get_key(request)).await?;
    output.show(&answer, |answer| {
        answer.key.as_ref().map(facts_with_use).unwrap_or_default()
    })
}

/// Shows what a key was granted, and what follows from it.
pub(super) async fn scopes(
    key: KeyId,
    connection: &Connection,
    output: &Output,
) -> Result<(), Failure> {
    let client = connection.connect().await?;
    let request = GetKeyScopesRequest { key_id: key.id };
    let answer = client.ask(client.keys().get_key_scopes(request)).await?;
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
