//! Issuing: a new key with its first secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::{Draft, Premises};
use super::keys::subject;
use super::once::{Made, Once};
use super::{Authority, Caller, Done, NewKey, Refusal, Standing, detail};
use crate::domain::event::EventKind;
use crate::domain::ids::ScopeName;
use crate::domain::key::{Key, Level, Secret};
use crate::domain::key_text::{PlainKey, SecretBytes};
use crate::domain::realm::Realm;
use crate::domain::time::{Expiry, Timestamp};
use crate::hashing::{Peppers, random};
use crate::store::Change;

impl Authority {
    /// Makes a key. Its text is in the answer and nowhere else.
    pub async fn issue_key(
        &self,
        caller: &Caller,
        new: NewKey,
        once: Option<Once>,
    ) -> Result<Done<Made>, Refusal> {
        // Asked twice: before the slow hash, so that what is refused makes no work, and within the change, where it counts.
        new.check_reach(&caller.role)?;
        let now = self.clock.now();
        let mut snapshot = self.store.snapshot().await?;
        let standing = Standing::reread(&mut snapshot, &caller.holder, now).await?;
        if let Some(made) = self
            .made_before(caller, &standing, once.as_ref(), &mut snapshot, now)
            .await?
        {
            return Ok(made);
        }
        let premises = &mut Premises::default();
        Draft::of(&new, Some(&standing), &mut snapshot, premises, now).await?;
        drop(snapshot);
        let secret = Arc::new(SecretBytes::new(random()));
        let root = self.roots.make(Arc::clone(&secret)).await?;

        let (mut change, standing) = self.begin(caller).await?;
        let now = change.time();
        if let Some(made) = self
            .made_before(caller, &standing, once.as_ref(), &mut change, now)
            .await?
        {
            return Ok(made);
        }
        let premises = &mut Premises::default();
        let draft = Draft::of(&new, Some(&standing), &mut change, premises, now).await?;
        let (key, plain) = draft.seal(&change, &self.peppers, &secret)?;
        change.insert_key(&key).await?;
        change.insert_root(key.id, &key.secrets[0], &root).await?;
        self.remember(caller, once, &mut change, &key.id).await?;
        let words = issue_words(&key);
        self.finish(
            &caller.holder,
            change,
            EventKind::KeyIssued,
            subject(&key),
            words,
            Made::now(key, plain),
        )
        .await
    }
}

impl Draft {
    /// The key with its first secret, as part of this change.
    pub(super) fn seal(
        self,
        change: &Change,
        peppers: &Peppers,
        secret: &SecretBytes,
    ) -> Result<(Key, PlainKey), Refusal> {
        let Self { mut key, realm } = self;
        key.created_revision = change.revision();
        let plain = give_secret(&mut key, &realm, change, peppers, secret)?;
        Ok((key, plain))
    }
}

/// Adds a secret to a key, as its newest, and writes the text that goes with it.
pub(super) fn give_secret(
    key: &mut Key,
    realm: &Realm,
    change: &Change,
    peppers: &Peppers,
    secret: &SecretBytes,
) -> Result<PlainKey, Refusal> {
    let environment = realm
        .environment(key.environment.as_str())
        .ok_or(Refusal::NotFound("the key's environment"))?;
    let plain = PlainKey::new(&realm.prefix, &environment.tag, key.id, secret);
    let digest = peppers
        .digest(change.pepper(), key.id, secret)
        .ok_or_else(pepper_missing)?;
    key.hint = plain.hint();
    key.secrets.push(Secret {
        digest,
        created_at: change.time(),
        expires_at: Expiry::Never,
        imported: false,
        hint: String::new(),
        last_used_at: None,
    });
    Ok(plain)
}

pub(super) fn pepper_missing() -> Refusal {
    Refusal::Precondition {
        reason: "PEPPER_MISSING",
        message: "the pepper file does not hold the version that is in use; put it back".to_owned(),
    }
}

/// What the audit trail tells of a new key.
pub(super) fn issue_words(key: &Key) -> BTreeMap<String, String> {
    let scopes: Vec<&str> = key.access.granted().map(ScopeName::as_str).collect();
    detail([
        ("name", key.name.clone()),
        ("hint", key.hint.clone()),
        ("environment", key.environment.to_string()),
        (
            "level",
            match key.level {
                Level::Partner => "partner".to_owned(),
                Level::Project(_) => "project".to_owned(),
            },
        ),
        ("scopes", scopes.join(" ")),
        (
            "expire_time",
            Option::from(key.expires_at).map_or_else(String::new, rfc3339),
        ),
        (
            "allowed_cidrs",
            key.allowed_cidrs
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        (
            "full_access",
            if key.access.is_full() {
                "true".to_owned()
            } else {
                String::new()
            },
        ),
    ])
}

/// An instant as people read it in the audit trail.
pub(super) fn rfc3339(time: Timestamp) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(0);
    let since = std::time::Duration::from_micros(micros);
    humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + since).to_string()
}
