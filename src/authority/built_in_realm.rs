//! The stored definition of the built-in realm.

use super::Refusal;
use super::audit::realm_detail;
use crate::domain::clock::Clock;
use crate::domain::event::{Actor, Event, EventKind, Subject};
use crate::domain::ids::RealmId;
use crate::domain::realm::Realm;
use crate::store::{Error, Store};

/// Replaces the stored definition of the built-in realm by the definition of this program, if they differ.
///
/// A later version may add scopes to the built-in realm. The change has a revision and an event of its own, so that the audit
/// trail shows when the program was upgraded. Returns whether there was a change.
///
/// # Errors
/// [`Refusal::Store`] if the store does not answer, or if it has no built-in realm.
pub async fn update_built_in_realm(store: &Store, clock: &Clock) -> Result<bool, Refusal> {
    let built_in = Realm::built_in();
    let missing = || Error::Corrupt("the built-in realm is missing".to_owned());
    let id = RealmId::built_in();
    let before = match store.snapshot().await?.find_realm(&id).await {
        Ok(stored) => Some(stored.ok_or_else(missing)?.value),
        Err(error @ Error::Corrupt(_)) => {
            tracing::error!(%error, "the stored definition of the built-in realm is replaced");
            None
        }
        Err(error) => return Err(error.into()),
    };
    if before.as_ref() == Some(&built_in) {
        return Ok(false);
    }
    let mut change = store.change(clock.read()).await?;
    let sha256 = change.put_realm(&built_in).await?;
    let event = Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind: EventKind::RealmPut,
        subject: Subject {
            realm: id,
            partner: None,
            project: None,
            key: None,
        },
        detail: realm_detail(before.as_ref(), &built_in, sha256, String::new()),
    };
    change.commit(&event).await?;
    Ok(true)
}
