//! The beginning: a new authority and its first operator key, and another one when that was lost.

use std::collections::BTreeMap;
use std::io;

use super::Refusal;
use super::audit::{audit_detail, subject};
use super::resolve::{LookupCache, NewKey};
use super::secret::NewSecret;
use crate::domain::clock::Clock;
use crate::domain::event::{Actor, Event, EventKind};
use crate::domain::ids::{KeyId, PartnerId, RealmId, ScopeName};
use crate::domain::key_text::PlainKey;
use crate::domain::partner::Partner;
use crate::domain::realm::{Realm, scopes};
use crate::hashing::{Peppers, Roots, random};
use crate::store::{Change, Genesis, Store};

/// An operator key that was made on the command line of the server.
pub struct CreatedAuthority {
    /// Its id.
    pub id: KeyId,
    /// The API key.
    pub plain_key: PlainKey,
}

/// Makes a new authority with its first operator key; `None` if the store has one already.
///
/// `hand_over` gets the key's text before anything is durable: if it fails, nothing was done; if it succeeds, a crash
/// afterwards loses no key.
pub async fn create(
    store: &Store,
    clock: &Clock,
    peppers: &Peppers,
    roots: &Roots,
    hand_over: impl FnOnce(&PlainKey) -> io::Result<()>,
) -> Result<Option<CreatedAuthority>, Refusal> {
    let canary = peppers
        .canary(Peppers::FIRST)
        .ok_or_else(|| Refusal::Precondition {
            reason: "PEPPER_MISSING",
            message: format!(
                "a new authority begins with version {} of its pepper",
                Peppers::FIRST
            ),
        })?;
    let genesis = Genesis {
        pepper: Peppers::FIRST,
        canary,
        seal: random(),
        time: clock.now(),
    };
    let Some(mut change) = store.found(&genesis).await? else {
        return Ok(None);
    };
    change.put_realm(&Realm::built_in()).await?;
    change
        .put_partner(&Partner {
            realm: RealmId::built_in(),
            id: PartnerId::nobody(),
            display_name: String::new(),
            suspended: false,
        })
        .await?;
    make_operator(
        change,
        peppers,
        roots,
        EventKind::AuthorityCreated,
        hand_over,
    )
    .await
    .map(Some)
}

/// Makes another operator key.
pub async fn recover(
    store: &Store,
    clock: &Clock,
    peppers: &Peppers,
    roots: &Roots,
    hand_over: impl FnOnce(&PlainKey) -> io::Result<()>,
) -> Result<CreatedAuthority, Refusal> {
    let change = store.change(clock.now()).await?;
    make_operator(change, peppers, roots, EventKind::KeyIssued, hand_over).await
}

async fn make_operator(
    mut change: Change,
    peppers: &Peppers,
    roots: &Roots,
    kind: EventKind,
    hand_over: impl FnOnce(&PlainKey) -> io::Result<()>,
) -> Result<CreatedAuthority, Refusal> {
    let new = NewKey {
        realm: RealmId::built_in(),
        partner: None,
        project: None,
        level: None,
        environment: None,
        name: match kind {
            EventKind::AuthorityCreated => "first operator".to_owned(),
            _ => "recovered operator".to_owned(),
        },
        scopes: vec![ScopeName::parse(scopes::OPERATOR).expect("a scope by the rule")],
        full_access: false,
        expires_at: None,
        labels: BTreeMap::new(),
        allowed_cidrs: Vec::new(),
    };
    // The slow hash may run inside the change: no other caller waits.
    let secret = NewSecret::make(roots).await?;
    let now = change.time();
    let lookups = &mut LookupCache::default();
    let resolved = new.resolve(None, &mut change, lookups, now).await?;
    let (key, plain_key) = resolved.with_secret(&change, peppers, &secret)?;
    change.insert_key(&key).await?;
    change
        .insert_root(key.id, &key.secrets[0], &secret.root)
        .await?;
    hand_over(&plain_key).map_err(|error| Refusal::Precondition {
        reason: "KEY_NOT_HANDED_OVER",
        message: format!("the operator key could not be handed over, so none was made: {error}"),
    })?;
    let event = Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind,
        subject: subject(&key),
        detail: audit_detail(&key),
    };
    change.commit(&event).await?;
    Ok(CreatedAuthority {
        id: key.id,
        plain_key,
    })
}
