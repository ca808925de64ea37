//! One key, looked at.

use crate::pb::claviger::v1::{GetKeyRequest, GetKeyScopesRequest};

use super::key::{KeyId, facts_with_use};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::text;

/// Shows all that is known of a key but its texts.
pub(super) async fn get(
    key: KeyId,
    connection: &Connection,
    output: &Output,
) -> Result<(), Failure> {
    let client = connection.connect().await?;
    let request = GetKeyRequest {
        key_id: key.id,
        ..GetKeyRequest::default()
    };
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
    let request = GetKeyScopesRequest {
        key_id: key.id,
        ..GetKeyScopesRequest::default()
    };
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
