//! Commands that change more keys than one call does: they call again until no keys remain.

use super::failure::Failure;
use super::request_id::RequestId;
use super::text;
use crate::pb::claviger::v1::{DeleteKeysResponse, RenameScopeResponse, RevokeKeysResponse};

/// A number of keys, for people.
pub(super) fn counted(keys: u64, more: bool) -> String {
    let counted = match keys {
        1 => "1 key".to_owned(),
        keys => format!("{} keys", text::grouped(keys)),
    };
    if more {
        format!("{counted}, and then more,")
    } else {
        counted
    }
}

const UNREADABLE_OR_CHANGED: &str =
    "more keys match: their stored data may be unreadable, or others change them";

/// The response to a change of many keys, with whether more remain.
pub(super) trait RoundResponse {
    /// What happened to the keys, for people.
    const DONE: &'static str;

    /// The error if more remain, but none was changed.
    const STUCK: &'static str;

    /// The number of keys, and whether more remain.
    fn progress(&mut self) -> (&mut u64, bool);
}

impl RoundResponse for RevokeKeysResponse {
    const DONE: &'static str = "revoked";
    const STUCK: &'static str = UNREADABLE_OR_CHANGED;

    fn progress(&mut self) -> (&mut u64, bool) {
        (&mut self.revoked, self.more)
    }
}

impl RoundResponse for RenameScopeResponse {
    const DONE: &'static str = "changed";
    const STUCK: &'static str =
        "not every server knows yet that the keys are changed. Repeat the command: it goes on";

    fn progress(&mut self) -> (&mut u64, bool) {
        (&mut self.updated_keys, self.more)
    }
}

impl RoundResponse for DeleteKeysResponse {
    const DONE: &'static str = "deleted";
    const STUCK: &'static str = UNREADABLE_OR_CHANGED;

    fn progress(&mut self) -> (&mut u64, bool) {
        (&mut self.deleted, self.more)
    }
}

/// Calls again until no more keys remain. Returns the last response with the number of all keys. A repeated command makes the same
/// requests, with the same ids.
pub(super) async fn in_rounds<R: RoundResponse>(
    first: RequestId,
    mut call: impl AsyncFnMut(RequestId) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let mut response = call(first).await?;
    let mut sum = *response.progress().0;
    for number in 1.. {
        match response.progress() {
            (_, false) => break,
            (0, true) => {
                return Err(Failure::failed(format!(
                    "{} {}, but {}",
                    counted(sum, false),
                    R::DONE,
                    R::STUCK
                )));
            }
            _ => {}
        }
        response = call(first.part(number)).await?;
        sum += *response.progress().0;
    }
    *response.progress().0 = sum;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::request_id::RequestIdFlag;

    async fn rounds(counts: &[(u64, bool)]) -> Result<DeleteKeysResponse, Failure> {
        let mut counts = counts.iter();
        in_rounds(RequestIdFlag::default().id(), async |_| {
            let (deleted, more) = *counts.next().expect("no further call");
            Ok(DeleteKeysResponse {
                deleted,
                more,
                ..DeleteKeysResponse::default()
            })
        })
        .await
    }

    #[tokio::test]
    async fn calls_are_made_until_no_more_keys_match() {
        let sum = rounds(&[(10_000, true), (9_999, true), (7, false)]).await;
        assert_eq!(sum.unwrap().deleted, 20_006);
        assert_eq!(rounds(&[(0, false)]).await.unwrap().deleted, 0);
        let endless = rounds(&[(10_000, true), (0, true)]).await.unwrap_err();
        assert!(
            endless
                .to_string()
                .contains("10,000 keys deleted, but more keys match"),
            "{endless}"
        );
    }
}
