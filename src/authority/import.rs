//! Import: keys that another system issued, with their existing API keys.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::audit::{AuditEntry, audit_detail};
use super::caller_state::CallerState;
use super::keys::visible;
use super::resolve::LookupCache;
use super::secret::pepper_missing;
use super::two_pass::{Applied, ChangeContext, Pass, Preparation, TwoPassChange};
use super::{Authority, ChangeRequest, ChangeResult, NewKey, Queued, Refusal};
use crate::auth::{AuthorizedCaller, Purpose};
use crate::domain::event::EventKind;
use crate::domain::ids::{KeyId, RealmId};
use crate::domain::imported_key::digest_hint;
use crate::domain::key::{Key, KeyState, Secret};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::violation::Violations;
use crate::hashing::{ImportHash, Peppers, random};
use crate::store::{Change, Error, Snapshot};

/// A key that another system issued.
pub struct ImportedKey {
    /// The key to create.
    pub new: NewKey,
    /// The SHA-256 of its API key.
    pub hash: ImportHash,
    /// The part of its API key that may be shown. `None`: no part; the hint is then made of the digest.
    pub hint: Option<String>,
}

/// Why an entry was not imported.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum EntryRefusal {
    /// Fields break rules.
    Invalid(Violations),
    /// The realm, partner or project does not exist. Contains the message for the caller.
    NotFound(String),
    /// The API key was imported before. Describes its key if the caller may know it.
    AlreadyImported(Option<ImportedBefore>),
    /// An earlier entry of the same request has the same API key.
    Repeated,
    /// A key of the realm has the external id. Contains the id of that key.
    ExternalIdTaken(KeyId),
    /// An earlier entry of the same request takes the external id.
    ExternalIdRepeated,
}

/// A key whose API key was imported before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportedBefore {
    /// The id of the key.
    pub id: KeyId,
    /// The realm of the key.
    pub realm: RealmId,
    /// Whether the key is revoked, so that the API key is not accepted although it was imported.
    pub is_revoked: bool,
}

/// The outcomes of an import.
pub struct ImportOutcomes {
    /// One outcome for each entry, in order: the id of the new key, or `None` in a dry run.
    pub outcomes: Vec<Outcome>,
    /// Whether this answers a repeated request.
    pub replayed: bool,
}

type Entry = Result<ImportedKey, Violations>;
type Outcome = Result<Option<KeyId>, EntryRefusal>;
/// Only the key: each entry would otherwise hold its realm until all roots are made.
type CheckedEntry = Result<Key, EntryRefusal>;

impl Authority {
    /// Imports keys of another system. Each entry has its own outcome. All accepted entries are one transaction.
    pub async fn import_keys(
        &self,
        caller: &AuthorizedCaller,
        request: &ChangeRequest,
        realm: RealmId,
        entries: Vec<Entry>,
        is_dry_run: bool,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<ImportOutcomes>, Refusal> {
        caller.role.may_manage(&realm)?;
        if realm.is_built_in() {
            caller.role.may_operate()?;
        }
        let import = Import {
            authority: self,
            realm,
            entries,
            is_dry_run,
        };
        self.run_two_pass(caller, request, fingerprint, &import)
            .await
    }

    /// Returns the keys of the entries that were imported before, by the SHA-256 of their API keys.
    async fn imported_before(
        &self,
        entries: &[Entry],
        pass: &mut Pass<'_>,
    ) -> Result<HashMap<[u8; 32], KnownKey>, Refusal> {
        let decoded = || entries.iter().filter_map(|entry| entry.as_ref().ok());
        let digests: Vec<_> = decoded()
            .flat_map(|imported| self.peppers.digests_of_import(&imported.hash))
            .collect();
        let imports = pass.snapshot.find_imports(&digests).await?;
        let ids: Vec<_> = imports.values().copied().collect();
        let mut known: HashMap<_, _> = ids.iter().map(|id| (*id, KnownKey::Hidden)).collect();
        let (role, now) = (&pass.caller_state.role, pass.now);
        let each = |id, key: Result<Key, Error>| {
            let found = match key {
                Ok(key) if role.reaches(&key, Purpose::Change) => {
                    KnownKey::Visible(ImportedBefore::of(key, now))
                }
                Ok(_) => return,
                Err(_) => KnownKey::Corrupt(id),
            };
            known.insert(id, found);
        };
        pass.snapshot.find_keys(&ids, each).await?;
        let mut before = HashMap::new();
        for imported in decoded() {
            let mut digests = self.peppers.digests_of_import(&imported.hash);
            if let Some(id) = digests.find_map(|digest| imports.get(&digest.mac)) {
                before.insert(*imported.hash.secret().expose(), known[id].clone());
            }
        }
        Ok(before)
    }
}

/// What is known of a key that was imported before.
#[derive(Clone)]
enum KnownKey {
    /// The caller may know the key.
    Visible(ImportedBefore),
    /// The key does not exist any more, or the caller may not know it.
    Hidden,
    /// The row of the key cannot be read. Contains the id.
    Corrupt(KeyId),
}

impl ImportedBefore {
    fn of(key: Key, now: Timestamp) -> Self {
        Self {
            is_revoked: key.state(now) == KeyState::Revoked,
            id: key.id,
            realm: key.realm,
        }
    }
}

struct Import<'a> {
    authority: &'a Authority,
    realm: RealmId,
    entries: Vec<Entry>,
    is_dry_run: bool,
}

impl TwoPassChange for Import<'_> {
    type Caller = AuthorizedCaller;
    type Record = Vec<Outcome>;
    type Checked = Vec<CheckedEntry>;
    /// The roots of the accepted entries, by the index of the entry.
    type Prepared = HashMap<usize, String>;
    type Answer = ImportOutcomes;

    async fn replay(&self, _: Pass<'_>, outcomes: Vec<Outcome>) -> Result<ImportOutcomes, Refusal> {
        Ok(ImportOutcomes {
            outcomes,
            replayed: true,
        })
    }

    async fn check(&self, mut pass: Pass<'_>) -> Result<Vec<CheckedEntry>, Refusal> {
        let lookups = &mut LookupCache::default();
        lookups.realm(pass.snapshot, &self.realm).await?;
        let imported_before = self
            .authority
            .imported_before(&self.entries, &mut pass)
            .await?;
        let Pass {
            snapshot,
            principal: _,
            caller_state,
            now,
        } = pass;
        let decoded = self.entries.iter().filter_map(|entry| entry.as_ref().ok());
        let requests: Vec<_> = decoded.map(|imported| &imported.new).collect();
        lookups.read_ahead(snapshot, &self.realm, &requests).await?;
        let external_ids: Vec<_> = requests
            .iter()
            .filter_map(|new| new.external_id.as_deref())
            .collect();
        let external_ids = snapshot
            .find_external_ids(&self.realm, &external_ids)
            .await?;
        let mut check = EntryCheck {
            caller_state,
            imported_before,
            external_ids,
            seen: HashSet::new(),
            seen_external_ids: HashSet::new(),
            lookups,
            now,
        };
        let mut checked = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            checked.push(check.check(entry, snapshot).await?);
        }
        Ok(checked)
    }

    async fn prepare(
        &self,
        authority: &Authority,
        caller: &AuthorizedCaller,
        checked: Vec<CheckedEntry>,
    ) -> Result<Preparation<HashMap<usize, String>, ImportOutcomes>, Refusal> {
        if self.is_dry_run || checked.iter().all(Result::is_err) {
            let outcomes = checked.into_iter().map(|entry| entry.map(|_| None));
            return Ok(Preparation::NothingToDo(ImportOutcomes::new(
                outcomes.collect(),
            )));
        }
        let secrets: Vec<_> = self
            .entries
            .iter()
            .zip(&checked)
            .enumerate()
            .filter_map(|(index, (entry, outcome))| {
                let imported = entry.as_ref().ok()?;
                let secret = || imported.hash.secret().clone();
                outcome.is_ok().then(|| (index, secret()))
            })
            .collect();
        // A permit for each root, so that another caller who issues a key waits for one root and not for all.
        let group = &caller.group();
        let roots = stream::iter(secrets)
            .map(|(index, secret)| async move {
                let _permit = authority.hash_permit(group).await?;
                Ok::<_, Refusal>((index, authority.roots.make(secret).await))
            })
            .buffer_unordered(authority.roots.width())
            .try_collect()
            .await?;
        Ok(Preparation::Ready(roots))
    }

    async fn apply(
        &self,
        authority: &Authority,
        change: &mut Change,
        event: &ChangeContext<'_>,
        checked: Vec<CheckedEntry>,
        mut roots: HashMap<usize, String>,
    ) -> Result<Applied<Self>, Refusal> {
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(checked.len());
        let accepted = checked.iter().filter(|entry| entry.is_ok()).count();
        // Each key has its own revision, time and event. The first key has those of the change.
        change.reserve(accepted.saturating_sub(1)).await?;
        let mut rows = Vec::with_capacity(accepted.min(KEYS_AT_ONCE));
        let mut last: Option<AuditEntry> = None;
        for (index, (entry, checked)) in self.entries.iter().zip(checked).enumerate() {
            outcomes.push(match (entry, checked, roots.remove(&index)) {
                (_, Err(refusal), _) => Err(refusal),
                (Ok(imported), Ok(key), Some(root)) => {
                    if let Some(entry) = last.take() {
                        let before = entry.event(event.principal, event.request, change);
                        change.start_next(before).await?;
                    }
                    let key = imported_key(&authority.peppers, key, imported, change)?;
                    let (id, detail) = (key.id, audit_detail(&key));
                    last = Some(AuditEntry::of_key(EventKind::KeyImported, &key, detail));
                    rows.push((key, root));
                    if rows.len() == KEYS_AT_ONCE {
                        insert_imported(change, &std::mem::take(&mut rows)).await?;
                    }
                    Ok(Some(id))
                }
                // The first pass refused the entry, and a later change made it acceptable. It has no root.
                (_, Ok(_), _) => return Err(Refusal::Busy(Queued::Changes)),
            });
        }
        insert_imported(change, &rows).await?;
        Ok(match last {
            Some(entry) => Applied::Changed {
                record: outcomes.clone(),
                entry,
                answer: ImportOutcomes::new(outcomes),
            },
            None => Applied::Unchanged(ImportOutcomes::new(outcomes)),
        })
    }
}

impl ImportOutcomes {
    fn new(outcomes: Vec<Outcome>) -> Self {
        Self {
            outcomes,
            replayed: false,
        }
    }
}

/// How many keys are written together: as many as one statement inserts, so that few of them are in memory twice.
const KEYS_AT_ONCE: usize = Change::INSERTS_AT_ONCE;

/// Returns the key that the current change imports.
pub(super) fn imported_key(
    peppers: &Peppers,
    resolved: Key,
    imported: &ImportedKey,
    change: &Change,
) -> Result<Key, Refusal> {
    let digest = peppers
        .digest_import(change.pepper(), &imported.hash)
        .ok_or_else(pepper_missing)?;
    let secret = Secret {
        digest,
        created_at: change.time(),
        expires_at: Expiry::Never,
        imported: true,
        hint: String::new(),
        last_use: None,
    };
    Ok(Key {
        id: KeyId::new(change.time(), &random()),
        created_at: change.time(),
        created_revision: change.revision(),
        revision: change.revision(),
        hint: imported
            .hint
            .clone()
            .unwrap_or_else(|| digest_hint(&digest.mac)),
        secrets: vec![secret],
        ..resolved
    })
}

/// Writes imported keys, each with the root of its secret.
pub(super) async fn insert_imported(
    change: &mut Change,
    rows: &[(Key, String)],
) -> Result<(), Refusal> {
    let mut keys = Vec::with_capacity(rows.len());
    let mut roots = Vec::with_capacity(rows.len());
    let mut imports = Vec::with_capacity(rows.len());
    for (key, root) in rows {
        let secret = &key.secrets[0];
        keys.push(key);
        roots.push((key.id, secret, root.as_str()));
        imports.push((secret.digest, key.id));
    }
    change.insert_keys(&keys).await?;
    change.insert_roots(&roots).await?;
    change.insert_imports(&imports).await?;
    Ok(())
}

/// The state against which one pass checks the entries of a request.
struct EntryCheck<'c> {
    caller_state: &'c CallerState,
    /// Keys that were imported before, by the SHA-256 of their API keys.
    imported_before: HashMap<[u8; 32], KnownKey>,
    /// The keys of the realm that have external ids of the entries.
    external_ids: HashMap<String, KeyId>,
    /// The SHA-256 of the API keys of the entries so far.
    seen: HashSet<[u8; 32]>,
    /// The external ids of the accepted entries so far.
    seen_external_ids: HashSet<String>,
    lookups: &'c mut LookupCache,
    now: Timestamp,
}

impl EntryCheck<'_> {
    async fn check(
        &mut self,
        entry: &Entry,
        snapshot: &mut Snapshot,
    ) -> Result<CheckedEntry, Refusal> {
        let imported = match entry {
            Ok(imported) => imported,
            Err(violations) => return Ok(Err(EntryRefusal::Invalid(violations.clone()))),
        };
        let hash = imported.hash.secret().expose();
        if let Some(known) = self.imported_before.get(hash) {
            let known = match known {
                KnownKey::Visible(key) => Some(key.clone()),
                KnownKey::Hidden => None,
                // Who may know of the fault depends on the caller.
                KnownKey::Corrupt(id) => {
                    let role = &self.caller_state.role;
                    match visible(snapshot, role, &(*id).into(), Purpose::Change).await {
                        Ok(key) => Some(ImportedBefore::of(key, self.now)),
                        Err(Refusal::NotFound(_)) => None,
                        Err(refusal) => return Err(refusal),
                    }
                }
            };
            return Ok(Err(EntryRefusal::AlreadyImported(known)));
        }
        if !self.seen.insert(*hash) {
            return Ok(Err(EntryRefusal::Repeated));
        }
        let resolved = imported
            .new
            .resolve(Some(self.caller_state), snapshot, self.lookups, self.now)
            .await;
        match resolved {
            Ok(resolved) => Ok(self.check_external_id(&resolved.key).map(|()| resolved.key)),
            Err(Refusal::Invalid(violations)) => Ok(Err(EntryRefusal::Invalid(violations))),
            Err(Refusal::NotFound(message)) => Ok(Err(EntryRefusal::NotFound(message.to_owned()))),
            Err(refusal) => Err(refusal),
        }
    }

    fn check_external_id(&mut self, key: &Key) -> Result<(), EntryRefusal> {
        let Some(external_id) = &key.external_id else {
            return Ok(());
        };
        if let Some(holder) = self.external_ids.get(external_id) {
            return Err(EntryRefusal::ExternalIdTaken(*holder));
        }
        if self.seen_external_ids.insert(external_id.clone()) {
            Ok(())
        } else {
            Err(EntryRefusal::ExternalIdRepeated)
        }
    }
}
