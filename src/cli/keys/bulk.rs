//! What the commands that end many keys show.

use prost_types::Timestamp;

use super::filter::FilterFlags;
use super::key::last_used;
use crate::cli::failure::Failure;
use crate::cli::request_id::RequestId;
use crate::cli::text;
use crate::pb::claviger::v1::{DeleteKeysResponse, Key, RevokeKeysResponse};

/// Describes what a command would do to this many keys, of which these are the newest. `more`: it goes on with others afterwards.
pub(super) fn preview(verb: &str, count: u64, more: bool, examples: &[Key]) -> String {
    if count == 0 {
        return if verb == "revoke" {
            "There are no such keys, or all of them are revoked already.".to_owned()
        } else {
            "There are no such keys.".to_owned()
        };
    }
    let rows = examples.iter().map(|key| {
        vec![
            key.id.clone(),
            key.name.clone(),
            key.partner.clone(),
            key.project.clone(),
            key.environment.clone(),
            key.hint.clone(),
            last_used(key),
        ]
    });
    let header = [
        "ID",
        "NAME",
        "PARTNER",
        "PROJECT",
        "ENV",
        "HINT",
        "LAST USED",
    ];
    let shown = match examples.len() {
        shown if shown as u64 == count => String::new(),
        shown => format!(" The newest {shown} of them:"),
    };
    format!(
        "This would {verb} {} permanently.{shown}\n\n{}\n",
        counted(count, more),
        text::table(&header, rows)
    )
}

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

/// What a repetition of the command needs besides its request id.
pub(super) fn repeat(filter: &FilterFlags) -> String {
    let flags = filter.repeat();
    if flags.is_empty() {
        return flags;
    }
    format!(" and `{}`", flags.trim_end())
}

/// The time a microsecond later, the precision of the server.
pub(super) fn just_after(time: Timestamp) -> Timestamp {
    let nanos = time.nanos + 1_000;
    Timestamp {
        seconds: time.seconds + i64::from(nanos / 1_000_000_000),
        nanos: nanos % 1_000_000_000,
    }
}

/// The response to a change of the keys that match now, with whether more match.
pub(super) trait RoundResponse {
    /// What happened to the keys, for people.
    const DONE: &'static str;

    /// The number of keys, and whether more match.
    fn progress(&mut self) -> (&mut u64, bool);
}

impl RoundResponse for RevokeKeysResponse {
    const DONE: &'static str = "revoked";

    fn progress(&mut self) -> (&mut u64, bool) {
        (&mut self.revoked, self.more)
    }
}

impl RoundResponse for DeleteKeysResponse {
    const DONE: &'static str = "deleted";

    fn progress(&mut self) -> (&mut u64, bool) {
        (&mut self.deleted, self.more)
    }
}

/// Calls again until no more keys match. Returns the last response with the number of all keys. A repeated command makes the same
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
                    "more keys match, but none of them was {}: their stored data may be unreadable, or others change them",
                    R::DONE
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
            endless.to_string().contains("none of them was deleted"),
            "{endless}"
        );
    }
}
