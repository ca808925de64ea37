//! The keys of a realm, a partner or a project, counted before it is suspended or deleted.

use super::client::Client;
use super::failure::Failure;
use super::rounds::counted;
use super::text;
use crate::pb::claviger::v1::{DeleteKeysRequest, KeyFilter, KeyState};

/// A number of keys, and whether there are more.
type Count = (u64, bool);

/// Says how many keys there are that can be used: ` It has 24 active keys.` Empty if they cannot be counted in time.
pub(super) async fn active(client: &Client, filter: KeyFilter) -> Result<String, Failure> {
    let count = count(client, filter, &[KeyState::Active]).await?;
    let keys = |(count, more)| counted(count, more).replacen(" key", " active key", 1);
    Ok(count.map_or_else(String::new, |count| format!(" It has {}.", keys(count))))
}

/// Says what goes with an owner that is deleted: ` and 12 revoked or expired keys`. Empty if there are none, or if they cannot be
/// counted in time.
///
/// # Errors
/// If there are keys that are neither revoked nor expired, for which the server refuses the deletion. `what` is the owner.
pub(super) async fn dead(
    client: &Client,
    what: &str,
    filters: &[KeyFilter],
) -> Result<String, Failure> {
    let (mut sum, mut has_more) = (0, false);
    for filter in filters {
        let living = [KeyState::Active, KeyState::Disabled];
        if let Some((living @ 1.., more)) = count(client, filter.clone(), &living).await? {
            let keys = counted(living, more);
            let realm = text::plain(&filter.realm);
            return Err(Failure::failed(format!(
                "{what} still has {} in realm {realm} that are neither revoked nor expired",
                keys.trim_end_matches(',')
            ))
            .hint("revoke or delete them first; nothing was changed"));
        }
        let dead = [KeyState::Revoked, KeyState::Expired];
        if let Some((dead, more)) = count(client, filter.clone(), &dead).await? {
            sum += dead;
            has_more |= more;
        }
    }
    if sum == 0 {
        return Ok(String::new());
    }
    let keys = counted(sum, has_more).replacen(" key", " revoked or expired key", 1);
    Ok(format!(" and {}", keys.trim_end_matches(',')))
}

/// Counts the keys in these states. `None` if this takes too long, which must not keep anybody from a suspension.
async fn count(
    client: &Client,
    filter: KeyFilter,
    states: &[KeyState],
) -> Result<Option<Count>, Failure> {
    // A list has no count, but a dry run has.
    let request = DeleteKeysRequest {
        filter: Some(KeyFilter {
            states: states.iter().map(|&state| state.into()).collect(),
            ..filter
        }),
        dry_run: true,
        ..DeleteKeysRequest::default()
    };
    match client.ask(client.keys().delete_keys(request)).await {
        Ok(answer) => Ok(Some((answer.would_delete, answer.more))),
        Err(failure) if failure.is_precondition() => Ok(None),
        Err(failure) => Err(failure),
    }
}
