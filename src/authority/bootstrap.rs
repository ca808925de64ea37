//! Operator keys that the server's command line issues: the first one of a new authority, and a replacement for a lost one.

use std::collections::BTreeMap;
use std::io;

use super::audit::{audit_detail, subject};
use super::declared::InitialState;
use super::resolve::{LookupCache, NewKey};
use super::secret::NewSecret;
use super::{DeclaredState, Refusal};
use crate::domain::clock::Clock;
use crate::domain::event::{Actor, Event, EventKind, Subject};
use crate::domain::ids::{KeyId, PartnerId, RealmId, ScopeName};
use crate::domain::key_text::PlainKey;
use crate::domain::partner::Partner;
use crate::domain::realm::{Realm, scopes};
use crate::hashing::{Peppers, Roots, random};
use crate::store::{Change, NewAuthority, Store};

/// An operator key that the server's command line issued.
pub struct CreatedAuthority {
    /// The id of the key.
    pub id: KeyId,
    /// The API key.
    pub plain_key: PlainKey,
}

/// Creates a new authority that is as declared. Returns whether it did: `false` if the store already has an authority.
///
/// Everything is one transaction, so a crash leaves either no authority or the declared one.
///
/// # Errors
/// [`Refusal::Precondition`] if the state has no operator key, so that nobody could administer the authority, or if the pepper file
/// lacks the first version. [`Refusal::Invalid`] if the state contradicts itself.
pub async fn create_declared(
    store: &Store,
    clock: &Clock,
    peppers: &Peppers,
    roots: &Roots,
    state: &DeclaredState,
) -> Result<bool, Refusal> {
    let Some(mut change) = begin_authority(store, clock, peppers).await? else {
        return Ok(false);
    };
    let mut initial = InitialState::plan(&mut change, peppers, state).await?;
    initial.make_roots(roots).await;
    let event = |kind, subject, detail, change: &Change| Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind,
        subject,
        detail,
    };
    change.reserve(1).await?;
    let created = Subject {
        realm: RealmId::built_in(),
        partner: None,
        project: None,
        key: None,
    };
    let created = event(
        EventKind::AuthorityCreated,
        created,
        BTreeMap::new(),
        &change,
    );
    change.start_next(created).await?;
    let last = initial
        .write(&mut change, |entry, change| {
            event(entry.kind, entry.subject, entry.detail, change)
        })
        .await?;
    let last = event(last.kind, last.subject, last.detail, &change);
    change.commit(&last).await?;
    Ok(true)
}

/// Creates a new authority with its first operator key. Returns `None` if the store already has an authority.
///
/// `hand_over` receives the API key before anything is durable. If it fails, nothing is stored. If it succeeds, a later crash
/// loses no key.
///
/// # Errors
/// [`Refusal::Precondition`] if the pepper file lacks the first version, or if `hand_over` fails.
pub async fn create(
    store: &Store,
    clock: &Clock,
    peppers: &Peppers,
    roots: &Roots,
    hand_over: impl FnOnce(&PlainKey) -> io::Result<()>,
) -> Result<Option<CreatedAuthority>, Refusal> {
    let Some(change) = begin_authority(store, clock, peppers).await? else {
        return Ok(None);
    };
    issue_operator(
        change,
        peppers,
        roots,
        EventKind::AuthorityCreated,
        hand_over,
    )
    .await
    .map(Some)
}

/// Begins the change that creates an authority, and writes the built-in realm. Returns `None` if there is an authority.
async fn begin_authority(
    store: &Store,
    clock: &Clock,
    peppers: &Peppers,
) -> Result<Option<Change>, Refusal> {
    let canary = peppers
        .canary(Peppers::FIRST)
        .ok_or_else(|| Refusal::Precondition {
            reason: "PEPPER_MISSING",
            message: format!(
                "a new authority needs version {} of the pepper, which the pepper file lacks: check which pepper file is used",
                Peppers::FIRST
            ),
        })?;
    let new_authority = NewAuthority {
        pepper: Peppers::FIRST,
        canary,
        seal: random(),
        time: clock.now(),
    };
    let Some(mut change) = store.create_authority(&new_authority).await? else {
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
    Ok(Some(change))
}

/// Issues another operator key, for an authority whose operator keys were lost. `hand_over` is as in [`create`].
pub async fn recover(
    store: &Store,
    clock: &Clock,
    peppers: &Peppers,
    roots: &Roots,
    hand_over: impl FnOnce(&PlainKey) -> io::Result<()>,
) -> Result<CreatedAuthority, Refusal> {
    let change = store.change(clock.read()).await?;
    issue_operator(change, peppers, roots, EventKind::KeyIssued, hand_over).await
}

async fn issue_operator(
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
        external_id: None,
        scopes: vec![ScopeName::parse(scopes::OPERATOR).expect("a scope by the rule")],
        full_access: false,
        expires_at: None,
        labels: BTreeMap::new(),
        allowed_cidrs: Vec::new(),
    };
    // The slow hash can run inside the change, because no other change waits for it here.
    let secret = NewSecret::make(roots).await;
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
        message: format!(
            "the new operator key could not be written, so it was not issued: make the output writable, then run the command \
             again ({error})"
        ),
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
