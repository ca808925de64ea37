//! Import: keys of another system, with the texts that their holders have.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::draft::{Draft, Premises};
use super::issue::{issue_words, pepper_missing};
use super::keys::{subject, visible};
use super::once::Once;
use super::{Authority, Caller, Done, NewKey, Refusal, Standing, built_in, event};
use crate::domain::event::EventKind;
use crate::domain::ids::{KeyId, RealmId};
use crate::domain::key::{Key, Secret};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::violation::Violation;
use crate::hashing::{RootsBusy, TextHash, random};
use crate::store::{Change, Snapshot};

/// A key of another system.
pub struct ForeignKey {
    /// What it shall be here.
    pub new: NewKey,
    /// What is known of its text.
    pub text: TextHash,
    /// What may be shown of it.
    pub hint: String,
}

/// Why an entry was not imported.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum EntryRefusal {
    /// It breaks rules.
    Invalid(Vec<Violation>),
    /// Something that it names does not exist.
    NotFound(String),
    /// Its text was imported before, as this key if the caller may know.
    AlreadyImported(Option<(KeyId, RealmId)>),
    /// Its text stands further up in the same request.
    Repeated,
}

/// What became of the entries, each with the id of its key; with none if it was a trial.
pub struct Imported {
    /// One for each entry, in order.
    pub outcomes: Vec<Result<Option<KeyId>, EntryRefusal>>,
    /// Whether this very request had been answered before.
    pub replayed: bool,
}

type Entry = Result<ForeignKey, Vec<Violation>>;
type Outcome = Result<Option<KeyId>, EntryRefusal>;

impl Authority {
    /// Takes over keys of another system, each for itself, and all the good ones in one transaction.
    pub async fn import_keys(
        &self,
        caller: &Caller,
        realm: RealmId,
        entries: Vec<Entry>,
        is_trial: bool,
        once: Option<Once>,
    ) -> Result<Done<Imported>, Refusal> {
        caller.role.may_manage(&realm)?;
        if realm.is_built_in() {
            return Err(built_in(
                "the built-in realm has keys of its own making only",
            ));
        }
        // As for a new key: before the slow hashes, and again within the change.
        let now = self.clock.now();
        let mut snapshot = self.store.snapshot().await?;
        let standing = Standing::reread(&mut snapshot, &caller.holder, now).await?;
        if let Some(done) = self
            .imported_before(caller, once.as_ref(), &mut snapshot, now)
            .await?
        {
            return Ok(done);
        }
        let known = self.known(&entries, &mut snapshot).await?;
        let mut outcomes = Vec::with_capacity(entries.len());
        let (mut premises, mut seen) = (Premises::default(), HashSet::new());
        premises.realm(&mut snapshot, &realm).await?;
        for entry in &entries {
            let draft = draft(
                entry,
                &standing,
                &known,
                &mut seen,
                &mut premises,
                &mut snapshot,
                now,
            );
            outcomes.push(draft.await?.map(|_| None));
        }
        let revision = snapshot.revision().await?;
        drop(snapshot);
        if is_trial || outcomes.iter().all(Result::is_err) {
            let replayed = false;
            return Ok(self.done(Imported { outcomes, replayed }, revision));
        }
        let roots = self.roots_of(&entries, &outcomes).await?;
        self.import(caller, &entries, roots, once).await
    }

    async fn import(
        &self,
        caller: &Caller,
        entries: &[Entry],
        mut roots: HashMap<usize, String>,
        once: Option<Once>,
    ) -> Result<Done<Imported>, Refusal> {
        let (mut change, standing) = self.begin(caller).await?;
        let now = change.time();
        if let Some(done) = self
            .imported_before(caller, once.as_ref(), &mut change, now)
            .await?
        {
            return Ok(done);
        }
        let known = self.known(entries, &mut change).await?;
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(entries.len());
        let (mut premises, mut seen) = (Premises::default(), HashSet::new());
        let mut last: Option<Key> = None;
        for (place, entry) in entries.iter().enumerate() {
            let now = change.time();
            let draft = draft(
                entry,
                &standing,
                &known,
                &mut seen,
                &mut premises,
                &mut change,
                now,
            );
            outcomes.push(match (draft.await?, roots.remove(&place)) {
                (Err(why), _) => Err(why),
                (Ok((draft, foreign)), Some(root)) => {
                    // The one before becomes a change of its own, so that each key has its revision, its time and its event.
                    if let Some(key) = last.take() {
                        let words = issue_words(&key);
                        let kind = EventKind::KeyImported;
                        let before = event(&caller.holder, &change, kind, subject(&key), words);
                        change.and_another(&before).await?;
                    }
                    let key = self.take_over(draft, foreign, &root, &mut change).await?;
                    let id = key.id;
                    last = Some(key);
                    Ok(Some(id))
                }
                // It was refused when the roots were made, and what it lacked was made meanwhile.
                (Ok(_), None) => return Err(Refusal::Busy(RootsBusy)),
            });
        }
        let Some(key) = last else {
            let replayed = false;
            return self
                .unchanged(change, Imported { outcomes, replayed })
                .await;
        };
        self.remember(caller, once, &mut change, &outcomes).await?;
        let words = issue_words(&key);
        let replayed = false;
        self.finish(
            &caller.holder,
            change,
            EventKind::KeyImported,
            subject(&key),
            words,
            Imported { outcomes, replayed },
        )
        .await
    }

    async fn imported_before(
        &self,
        caller: &Caller,
        once: Option<&Once>,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<Option<Done<Imported>>, Refusal> {
        let before = self.done_before(caller, once, snapshot, now).await?;
        Ok(before.map(|(outcomes, revision)| {
            let replayed = true;
            self.done(Imported { outcomes, replayed }, revision)
        }))
    }

    /// The keys of those texts that were imported before, by their digests.
    async fn known(&self, entries: &[Entry], snapshot: &mut Snapshot) -> Result<Known, Refusal> {
        let good = || entries.iter().filter_map(|entry| entry.as_ref().ok());
        let digests: Vec<_> = good()
            .flat_map(|foreign| self.peppers.digests_of_import(&foreign.text))
            .collect();
        let imports = snapshot.find_imports(&digests).await?;
        let mut known = Known::new();
        for foreign in good() {
            let mut digests = self.peppers.digests_of_import(&foreign.text);
            if let Some(id) = digests.find_map(|digest| imports.get(&digest.mac)) {
                known.insert(*foreign.text.secret().expose(), *id);
            }
        }
        Ok(known)
    }

    /// The roots of those that are good so far, by their places. As many at a time as there are cores, so that whoever issues
    /// a key meanwhile waits for one of them and not for all.
    async fn roots_of(
        &self,
        entries: &[Entry],
        outcomes: &[Outcome],
    ) -> Result<HashMap<usize, String>, Refusal> {
        let good =
            entries
                .iter()
                .zip(outcomes)
                .enumerate()
                .filter_map(|(place, (entry, outcome))| {
                    let foreign = entry.as_ref().ok()?;
                    outcome
                        .is_ok()
                        .then(|| (place, foreign.text.secret().clone()))
                });
        let roots = stream::iter(good.collect::<Vec<_>>())
            .map(|(place, secret)| async move {
                let root = self.roots.make(secret).await?;
                Ok::<_, RootsBusy>((place, root))
            })
            .buffer_unordered(self.roots.width())
            .try_collect()
            .await?;
        Ok(roots)
    }

    /// Stores one.
    async fn take_over(
        &self,
        draft: Draft,
        foreign: &ForeignKey,
        root: &str,
        change: &mut Change,
    ) -> Result<Key, Refusal> {
        let digest = self
            .peppers
            .digest_import(change.pepper(), &foreign.text)
            .ok_or_else(pepper_missing)?;
        let secret = Secret {
            digest,
            created_at: change.time(),
            expires_at: Expiry::Never,
            imported: true,
            hint: String::new(),
            last_used_at: None,
        };
        let key = Key {
            id: KeyId::new(change.time(), &random()),
            created_at: change.time(),
            created_revision: change.revision(),
            hint: foreign.hint.clone(),
            secrets: vec![secret],
            ..draft.key
        };
        change.insert_key(&key).await?;
        change.insert_root(key.id, &key.secrets[0], root).await?;
        change.insert_import(&digest, key.id).await?;
        Ok(key)
    }
}

/// The keys of imported texts, by the SHA-256 of the texts.
type Known = HashMap<[u8; 32], KeyId>;

/// What an entry comes to, if it may be imported.
async fn draft<'e>(
    entry: &'e Entry,
    standing: &Standing,
    known: &Known,
    seen: &mut HashSet<[u8; 32]>,
    premises: &mut Premises,
    snapshot: &mut Snapshot,
    now: Timestamp,
) -> Result<Result<(Draft, &'e ForeignKey), EntryRefusal>, Refusal> {
    let foreign = match entry {
        Ok(foreign) => foreign,
        Err(violations) => return Ok(Err(EntryRefusal::Invalid(violations.clone()))),
    };
    let text = foreign.text.secret().expose();
    if let Some(id) = known.get(text) {
        let told = match visible(snapshot, &standing.role, *id).await {
            Ok(key) => Some((key.id, key.realm)),
            Err(Refusal::NotFound(_)) => None,
            Err(refusal) => return Err(refusal),
        };
        return Ok(Err(EntryRefusal::AlreadyImported(told)));
    }
    if !seen.insert(*text) {
        return Ok(Err(EntryRefusal::Repeated));
    }
    match Draft::of(&foreign.new, Some(standing), snapshot, premises, now).await {
        Ok(draft) => Ok(Ok((draft, foreign))),
        Err(Refusal::Invalid(violations)) => Ok(Err(EntryRefusal::Invalid(violations))),
        Err(Refusal::NotFound(what)) => Ok(Err(EntryRefusal::NotFound(what.to_owned()))),
        Err(refusal) => Err(refusal),
    }
}
