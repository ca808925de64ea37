//! The replacement of hints that show a part of the SHA-256 of an API key, as earlier versions made them.

use std::collections::{BTreeMap, HashMap};

use super::Refusal;
use super::audit::{non_empty_detail, subject};
use crate::domain::clock::Clock;
use crate::domain::event::{Actor, Event, EventKind};
use crate::domain::ids::KeyId;
use crate::domain::imported_key::{digest_hint, is_hash_hint};
use crate::domain::key::Key;
use crate::store::{Change, EventDetail, Store};

/// The names of the hints in the detail of an event.
const HINTS_OF_EVENTS: [&str; 2] = ["hint", "old_hint"];

/// How many rows had a hint that was replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplacedHints {
    /// The number of keys.
    pub keys: usize,
    /// The number of events.
    pub events: usize,
}

/// Replaces every stored hint that shows a part of the SHA-256 of an API key by the hint of its digest, once for each authority.
///
/// Each key is a change with a revision and an event of its own. Earlier events have only their hints replaced, because these
/// show the same digits. If the digest of a deleted key is gone, the hint is removed. A start that was interrupted is continued by
/// the next one.
///
/// # Errors
/// [`Refusal::Store`] if the store does not answer.
pub async fn replace_hash_hints(store: &Store, clock: &Clock) -> Result<ReplacedHints, Refusal> {
    if !store.snapshot().await?.may_have_hash_hints().await? {
        return Ok(ReplacedHints::default());
    }
    let replaced = ReplacedHints {
        keys: replace_in_keys(store, clock).await?,
        events: replace_in_events(store).await?,
    };
    store.mark_hash_hints_replaced().await?;
    Ok(replaced)
}

async fn replace_in_keys(store: &Store, clock: &Clock) -> Result<usize, Refusal> {
    let (mut replaced, mut after) = (0, None);
    loop {
        let page = store.snapshot().await?.keys_with_hash_hints(after).await?;
        let with_detail = |mut key: Key| replace_in_key(&mut key).map(|detail| (key, detail));
        let mut keys: Vec<_> = page.items.into_iter().filter_map(with_detail).collect();
        replaced += keys.len();
        if let Some((last, detail)) = keys.pop() {
            // All keys of a page are one transaction.
            let mut change = store.change(clock.read()).await?;
            change.reserve(keys.len()).await?;
            for (key, detail) in keys {
                let event = update(&mut change, key, detail).await?;
                change.start_next(event).await?;
            }
            let event = update(&mut change, last, detail).await?;
            change.commit(&event).await?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(replaced);
        }
    }
}

/// Writes a key with new hints as this change, and returns the event.
async fn update(
    change: &mut Change,
    mut key: Key,
    detail: BTreeMap<String, String>,
) -> Result<Event, Refusal> {
    change.update_key(&mut key).await?;
    Ok(Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind: EventKind::KeyUpdated,
        subject: subject(&key),
        detail,
    })
}

/// Replaces the hints of a key and its secrets. Returns the detail of the event, or `None` if no hint had to be replaced.
fn replace_in_key(key: &mut Key) -> Option<BTreeMap<String, String>> {
    let (mut changed, mut hint) = (Vec::new(), String::new());
    if is_hash_hint(&key.hint) {
        // It shows a part of the newest API key, which was imported.
        let newest = key.secrets.last().filter(|secret| secret.imported);
        key.hint = newest.map_or_else(String::new, |secret| digest_hint(&secret.digest.mac));
        hint.clone_from(&key.hint);
        changed.push("hint");
    }
    for secret in &mut key.secrets {
        if is_hash_hint(&secret.hint) {
            secret.hint = digest_hint(&secret.digest.mac);
            changed.push("secrets");
        }
    }
    let detail = || non_empty_detail([("changed", changed.join(" ")), ("hint", hint)]);
    (!changed.is_empty()).then(detail)
}

async fn replace_in_events(store: &Store) -> Result<usize, Refusal> {
    let (mut replaced, mut after) = (0, None);
    loop {
        let mut snapshot = store.snapshot().await?;
        let mut page = snapshot.events_with_hash_hints(after).await?;
        let keys: Vec<KeyId> = page.items.iter().filter_map(|event| event.key).collect();
        let imports = snapshot.imports_of(&keys).await?;
        drop(snapshot);
        let digests: HashMap<_, _> = imports.into_iter().map(|(mac, key)| (key, mac)).collect();
        page.items.retain_mut(|event| {
            let mac = event.key.and_then(|key| digests.get(&key));
            replace_in_event(event, mac)
        });
        if !page.items.is_empty() {
            store.replace_details(&page.items).await?;
        }
        replaced += page.items.len();
        after = page.next;
        if after.is_none() {
            return Ok(replaced);
        }
    }
}

/// Replaces the hints of an event by the hint of the digest, or removes them if there is no digest any more. Returns whether there
/// was a hint to replace.
fn replace_in_event(event: &mut EventDetail, mac: Option<&[u8; 32]>) -> bool {
    let mut is_replaced = false;
    for name in HINTS_OF_EVENTS {
        let hint = event.detail.get(name);
        if !hint.is_some_and(|hint| is_hash_hint(hint)) {
            continue;
        }
        match mac {
            Some(mac) => event.detail.insert(name.to_owned(), digest_hint(mac)),
            None => event.detail.remove(name),
        };
        is_replaced = true;
    }
    is_replaced
}
