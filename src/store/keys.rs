//! The table of keys, and the roots of their secrets.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::QueryBuilder;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::facts_text::{FactsText, text};
use super::key_filter::{KeyFilter, bulk_revocation};
use super::{
    Change, EngineTransaction, Error, INSERTS_AT_ONCE, Page, PageBuilder, SEARCH_TIME, Session,
    Snapshot, StoredKey, batches, execute, for_each, keeps_insert, on, page_and_one, revision,
    search_error, stored,
};
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::{Key, Revocation, Secret};
use crate::domain::time::Timestamp;
use crate::telemetry::limited;

/// The maximum number of keys that one statement looks for.
const IDS_AT_ONCE: usize = 500;

/// How long the keys of a list are counted at most. A page with its total may take this much longer, and a caller must not keep the
/// database busy for more than that.
const COUNT_TIME: Duration = Duration::from_millis(500);

/// How many keys of a list are counted at most.
const MAX_TOTAL: i64 = 10_000;

/// How many keys match a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// The number of keys that were counted.
    pub count: u64,
    /// Whether more keys match.
    pub is_more: bool,
}

macro_rules! key_cells {
    () => {
        concat!(
            "SELECT k.id, k.facts, k.revision, ",
            bulk_revocation!(),
            " FROM keys AS k"
        )
    };
}

/// A key's row, and the time and reason of the bulk revocation.
type KeyCells = (Uuid, String, i64, Option<String>);

fn read_key((id, facts, number, bulk_revocation): KeyCells) -> Result<Key, Error> {
    let row = KeyRow::from((id, facts));
    let mut key = row.key()?;
    key.revision = revision(number);
    if let (None, Some(rule)) = (&key.revocation, bulk_revocation) {
        let (time, reason) = rule.split_once(' ').ok_or_else(|| row.corrupt())?;
        key.revocation = Some(Revocation {
            at: Timestamp::from_micros(time.parse().map_err(|_| row.corrupt())?),
            reason: reason.to_owned(),
        });
    }
    Ok(key)
}

/// The size of a batch below which the reader pauses before the next batch.
const SMALL_BATCH: usize = 16;

/// A key's row with its facts in their stored form, which may be corrupt.
pub struct KeyRow {
    /// The id of the key.
    pub id: KeyId,
    facts: String,
}

impl KeyRow {
    /// Parses the part of the key that verification needs.
    ///
    /// # Errors
    /// [`Error::Corrupt`], if the row cannot be read.
    pub fn facts(&self) -> Result<StoredKey<'_>, Error> {
        StoredKey::read(self.id, &self.facts)
    }

    /// Parses the whole key.
    pub(super) fn key(&self) -> Result<Key, Error> {
        serde_json::from_str::<Key>(&self.facts)
            .ok()
            .filter(|key| key.id == self.id)
            .ok_or_else(|| self.corrupt())
    }

    fn corrupt(&self) -> Error {
        Error::Corrupt(format!("key {}", self.id))
    }
}

/// The rows of several keys, as the database sends them fastest.
pub enum KeyRows {
    /// One row after the other.
    Each(Vec<KeyRow>),
    /// Each row as the 32 hexadecimal digits of its id and its facts. U+001E, which is in no JSON text, separates the rows.
    Joined(Vec<u8>),
}

impl KeyRows {
    /// Parses the part of each key that verification needs.
    pub fn for_each(&self, mut each: impl FnMut(KeyId, Result<StoredKey<'_>, Error>)) {
        match self {
            Self::Each(rows) => rows.iter().for_each(|row| each(row.id, row.facts())),
            Self::Joined(rows) => {
                for row in rows.split(|byte| *byte == b'\x1e') {
                    let id = row.get(..32).and_then(|id| Uuid::try_parse_ascii(id).ok());
                    if let Some(id) = id.map(KeyId::from) {
                        each(id, StoredKey::read(id, text(&row[32..])));
                    } else {
                        tracing::error!("part of a corrupt key left out");
                    }
                }
            }
        }
    }
}

impl From<&Key> for KeyRow {
    fn from(key: &Key) -> Self {
        Self {
            id: key.id,
            facts: serde_json::to_string(key).expect("a key can be serialized"),
        }
    }
}

impl From<(Uuid, String)> for KeyRow {
    fn from((id, facts): (Uuid, String)) -> Self {
        Self {
            id: KeyId::from(id),
            facts,
        }
    }
}

/// Adds the ids of a list that was opened, and closes it.
pub(super) fn push_ids<DB>(query: &mut QueryBuilder<DB>, ids: &[KeyId])
where
    DB: sqlx::Database,
    for<'q> Uuid: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
{
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(id.as_uuid());
    }
    query.push(")");
}

impl Snapshot {
    /// Returns the key with this id, without the times of last use.
    pub async fn find_key(&mut self, id: KeyId) -> Result<Option<Key>, Error> {
        let cells: Option<KeyCells> = on!(self.session, |conn| sqlx::query_as(concat!(
            key_cells!(),
            " WHERE k.id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *conn))?;
        cells.map(read_key).transpose()
    }

    /// Passes on those of these keys that exist, as [`Snapshot::find_key`] returns them, in no particular order.
    pub async fn find_keys(
        &mut self,
        ids: &[KeyId],
        mut each: impl FnMut(KeyId, Result<Key, Error>),
    ) -> Result<(), Error> {
        for chunk in ids.chunks(IDS_AT_ONCE) {
            for_each!(
                self.session,
                let query = {
                    let mut query = QueryBuilder::new(concat!(key_cells!(), " WHERE k.id IN ("));
                    push_ids(&mut query, chunk);
                    query
                };
                // Each number of keys is a different statement.
                |conn| query.build_query_as::<KeyCells>().persistent(false).fetch(&mut *conn),
                |row| each(KeyId::from(row.0), read_key(row))
            )?;
        }
        Ok(())
    }

    /// Returns the keys of the realm that have these external ids, by external id.
    pub async fn find_external_ids(
        &mut self,
        realm: &RealmId,
        external_ids: &[&str],
    ) -> Result<HashMap<String, KeyId>, Error> {
        let mut found = HashMap::new();
        for chunk in external_ids.chunks(IDS_AT_ONCE) {
            let rows: Vec<(String, Option<Uuid>)> = on!(self.session, |conn| async {
                // A look at the index for each of them, also if the planner of PostgreSQL knows nothing of the column yet.
                let mut query = QueryBuilder::new(
                    "SELECT v.column1, (SELECT k.id FROM keys AS k WHERE k.external_id IS NOT NULL AND k.realm = ",
                );
                query
                    .push_bind(realm.as_str())
                    .push(" AND k.external_id = v.column1) FROM (");
                query.push_values(chunk, |mut row, id| {
                    row.push_bind(*id);
                });
                query.push(") AS v");
                // Each number of ids is a different statement.
                let statement = query.build_query_as().persistent(chunk.len() == 1);
                statement.fetch_all(&mut *conn).await
            })?;
            let taken = rows
                .into_iter()
                .filter_map(|(external_id, id)| Some((external_id, KeyId::from(id?))));
            found.extend(taken);
        }
        Ok(found)
    }

    /// Returns the row of the key with this id, also if it is corrupt.
    pub async fn find_key_row(&mut self, id: KeyId) -> Result<Option<KeyRow>, Error> {
        let row: Option<(Uuid, String)> = on!(self.session, |conn| sqlx::query_as(
            "SELECT id, facts FROM keys WHERE id = $1"
        )
        .bind(id.as_uuid())
        .fetch_optional(&mut *conn))?;
        Ok(row.map(KeyRow::from))
    }

    /// Returns the rows of those of these keys that exist, in no particular order, also if they are corrupt.
    pub async fn find_key_rows(&mut self, ids: &[KeyId]) -> Result<Vec<KeyRow>, Error> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(IDS_AT_ONCE) {
            let rows: Vec<(Uuid, FactsText)> = on!(self.session, |conn| async {
                let mut query = QueryBuilder::new("SELECT id, facts FROM keys WHERE id IN (");
                push_ids(&mut query, chunk);
                // Each number of keys is a different statement.
                let statement = query.build_query_as().persistent(false);
                statement.fetch_all(&mut *conn).await
            })?;
            let rows = rows.into_iter();
            found.extend(rows.map(|(id, FactsText(facts))| KeyRow::from((id, facts))));
        }
        Ok(found)
    }

    /// Returns a page of the keys that match the filter, newest first. A corrupt key is left out and logged.
    ///
    /// `take` gets each key without its times of last use. It returns the key, or refuses it if the page is full. It must not
    /// refuse the first key of a page. At most one key is read that is not on the page.
    pub async fn list_keys(
        &mut self,
        filter: &KeyFilter,
        mut take: impl FnMut(Key) -> Option<Key>,
    ) -> Result<Page<Key, KeyId>, Error> {
        let mut page = PageBuilder::new(filter.limit);
        let limit = if filter.is_search() {
            Some(self.session.limit_search(SEARCH_TIME).await?)
        } else {
            None
        };
        let read = for_each!(
            self.session,
            let query = {
                let mut query = QueryBuilder::new(key_cells!());
                filter.push_to(&mut query);
                if let Some(before) = filter.before {
                    query.push(" AND k.id < ").push_bind(before.as_uuid());
                }
                query
                    .push(" ORDER BY k.id DESC LIMIT ")
                    .push_bind(page_and_one(filter.limit));
                query
            };
            |conn| query.build_query_as::<KeyCells>().fetch(&mut *conn),
            |row| {
                let id = KeyId::from(row.0);
                let read = || {
                    read_key(row)
                        .inspect_err(|error| limited!(error, %error, "corrupt key left out"))
                        .ok()
                };
                if page.add(id, read, &mut take) {
                    break Ok(());
                }
            }
        );
        read.map_err(search_error)?;
        drop(limit);
        // Rows of keys are small, so the rest is not worth a new connection: the next statement skips it.
        let mut page = page.finish();
        self.set_last_uses(&mut page.items).await?;
        Ok(page)
    }

    /// Returns the ids of the newest keys that match the filter, at most as many as its limit.
    pub async fn matching_ids(&mut self, filter: &KeyFilter) -> Result<Vec<KeyId>, Error> {
        let limit = if filter.is_search() {
            Some(self.session.limit_search(SEARCH_TIME).await?)
        } else {
            None
        };
        let ids: Result<Vec<Uuid>, sqlx::Error> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("SELECT k.id FROM keys AS k");
            filter.push_to(&mut query);
            query
                .push(" ORDER BY k.id DESC LIMIT ")
                .push_bind(i64::from(filter.limit));
            query.build_query_scalar().fetch_all(&mut *conn).await
        });
        let ids = ids.map_err(search_error)?;
        drop(limit);
        Ok(ids.into_iter().map(KeyId::from).collect())
    }

    /// Returns those of these keys that match the filter, in the order of their ids here, without the times of last use. A corrupt key
    /// is left out and logged.
    pub async fn matching_keys(
        &mut self,
        filter: &KeyFilter,
        ids: &[KeyId],
    ) -> Result<Vec<Key>, Error> {
        let mut found = HashMap::with_capacity(ids.len());
        for chunk in ids.chunks(IDS_AT_ONCE) {
            for_each!(
                self.session,
                let query = {
                    let mut query = QueryBuilder::new(key_cells!());
                    filter.push_to(&mut query);
                    push_ids(query.push(" AND k.id IN ("), chunk);
                    query
                };
                // Each number of keys is a different statement.
                |conn| query.build_query_as::<KeyCells>().persistent(false).fetch(&mut *conn),
                |row| {
                    let id = KeyId::from(row.0);
                    match read_key(row) {
                        Ok(key) => drop(found.insert(id, key)),
                        Err(error) => limited!(error, %error, "corrupt key left out"),
                    }
                }
            )?;
        }
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// Returns the number of keys that match the filter, on all pages together.
    pub async fn count_filtered(&mut self, filter: &KeyFilter) -> Result<u64, Error> {
        let count: i64 = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("SELECT count(*) FROM keys AS k");
            filter.push_to(&mut query);
            query.build_query_scalar().fetch_one(&mut *conn).await
        })?;
        Ok(count as u64)
    }

    /// Returns the number of keys that match the filter, on all pages together, after a search that began at `began`. `None` if
    /// counting takes too long. It must be the last statement of the snapshot: PostgreSQL executes none after one that was ended.
    pub async fn count_in_time(
        &mut self,
        filter: &KeyFilter,
        began: Instant,
    ) -> Result<Option<Total>, Error> {
        let left = SEARCH_TIME.saturating_sub(began.elapsed()).min(COUNT_TIME);
        // To PostgreSQL, zero is no limit.
        if left < Duration::from_millis(1) {
            return Ok(None);
        }
        let limit = self.session.limit_search(left).await?;
        let count: Result<i64, sqlx::Error> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT 1 FROM keys AS k");
            filter.push_to(&mut query);
            query
                .push(" LIMIT ")
                .push_bind(MAX_TOTAL + 1)
                .push(") AS matching");
            query.build_query_scalar().fetch_one(&mut *conn).await
        });
        drop(limit);
        match count.map_err(search_error) {
            Ok(count) => Ok(Some(Total {
                count: count.min(MAX_TOTAL).cast_unsigned(),
                is_more: count > MAX_TOTAL,
            })),
            Err(Error::TooBroad) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the revision at which the last key was issued before `time`, in any realm.
    ///
    /// A rule that revokes keys depends on it. So it looks for ids, and not for the realm in a column that is derived from the facts.
    pub async fn last_issue_before(&mut self, time: Timestamp) -> Result<Option<Revision>, Error> {
        let id = KeyId::first_of(time).as_uuid();
        let set_back_to: Option<i64> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT set_back_to FROM authority"
        )
        .fetch_one(&mut *conn))?;
        let found: Option<i64> = if set_back_to.is_some_and(|then| then < time.as_micros()) {
            // From that time on, ids may not be in the order of issue.
            on!(self.session, |conn| sqlx::query_scalar(
                "SELECT max(created_revision) FROM keys WHERE id < $1"
            )
            .bind(id)
            .fetch_one(&mut *conn))?
        } else {
            // Ids begin with the time of issue, so this statement reads one entry of the index for any number of keys.
            on!(self.session, |conn| {
                sqlx::query_scalar(
                    "SELECT created_revision FROM keys WHERE id < $1 AND created_revision IS NOT NULL ORDER BY id DESC LIMIT 1"
                )
                .bind(id)
                .fetch_optional(&mut *conn)
            })?
        };
        Ok(found.map(revision))
    }

    /// Returns the number of all keys.
    pub async fn count_all_keys(&mut self) -> Result<usize, Error> {
        let count: i64 = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT count(*) FROM keys"
        )
        .fetch_one(&mut *conn))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Sends the rows of all keys to the channel, in no particular order.
    pub async fn send_key_rows(&mut self, to: mpsc::Sender<KeyRows>) -> Result<(), Error> {
        // The driver of SQLite takes longer to hand over a row than SQLite to read it.
        let Session { transaction, timer } = &mut self.session;
        if let EngineTransaction::Sqlite(transaction) = transaction {
            let mut last = i64::MIN;
            loop {
                let read = sqlx::query_as(
                    "SELECT max(rowid), group_concat(hex(id) || facts, char(30)) FROM (
                         SELECT rowid, id, facts FROM keys WHERE rowid > $1 ORDER BY rowid LIMIT 500)",
                )
                .bind(last)
                .fetch_one(&mut **transaction);
                let (rowid, rows): (Option<i64>, Option<Vec<u8>>) = timer.check(read.await)?;
                let Some((rowid, rows)) = rowid.zip(rows) else {
                    return Ok(());
                };
                last = rowid;
                if to.send(KeyRows::Joined(rows)).await.is_err() {
                    return Ok(());
                }
            }
        }
        for_each!(
            self.session,
            |conn| batches(
                sqlx::query_as::<_, (Uuid, String)>("SELECT id, facts FROM keys").fetch(&mut *conn)
            ),
            |batch| {
                let is_small = batch.len() < SMALL_BATCH;
                let rows = batch.into_iter().map(KeyRow::from).collect();
                if to.send(KeyRows::Each(rows)).await.is_err() {
                    break Ok(());
                }
                if is_small {
                    // A task that waits for each row is woken for each row, which takes longer than reading the row. After a
                    // pause there are more rows in a batch.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        )?;
        Ok(())
    }

    /// Returns the number of keys of a realm, of one of its partners, or of one of its projects.
    pub async fn count_keys(
        &mut self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        project: Option<&ProjectId>,
    ) -> Result<u64, Error> {
        let count: i64 = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("SELECT count(*) FROM keys WHERE realm = ");
            query.push_bind(realm.as_str());
            if let Some(partner) = partner {
                query.push(" AND partner = ").push_bind(partner.as_str());
            }
            if let Some(project) = project {
                query.push(" AND project = ").push_bind(project.as_str());
            }
            query.build_query_scalar().fetch_one(&mut *conn).await
        })?;
        Ok(count as u64)
    }

    /// Returns the environments of the realm's keys.
    pub async fn environments_in_use(&mut self, realm: &RealmId) -> Result<HashSet<String>, Error> {
        let used: Vec<Option<String>> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT DISTINCT environment FROM keys WHERE realm = $1"
        )
        .bind(realm.as_str())
        .fetch_all(&mut *conn))?;
        Ok(used.into_iter().flatten().collect())
    }

    /// Returns the scopes that the realm's keys were granted by name. With `living_at`, only of keys that are neither revoked nor
    /// expired at that time.
    pub async fn scopes_in_use(
        &mut self,
        realm: &RealmId,
        living_at: Option<Timestamp>,
    ) -> Result<HashSet<String>, Error> {
        // Each value is a JSON list, and few of the lists are different.
        let lists: Vec<Option<String>> = on!(self.session, |conn| async {
            let mut query =
                QueryBuilder::new("SELECT DISTINCT k.scopes FROM keys AS k WHERE k.realm = ");
            query.push_bind(realm.as_str());
            if let Some(now) = living_at {
                query
                    .push(" AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > ")
                    .push_bind(now.as_micros())
                    .push(concat!(") AND ", bulk_revocation!(), " IS NULL"));
            }
            query.build_query_scalar().fetch_all(&mut *conn).await
        })?;
        Ok(lists
            .into_iter()
            .flatten()
            .filter_map(|list| serde_json::from_str::<Vec<String>>(&list).ok())
            .flatten()
            .collect())
    }

    /// Returns the realm of the key with this id, also if the rest of the row is corrupt.
    pub async fn find_realm_of_key(&mut self, id: KeyId) -> Result<Option<RealmId>, Error> {
        let realm: Option<Option<String>> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT realm FROM keys WHERE id = $1"
        )
        .bind(id.as_uuid())
        .fetch_optional(&mut *conn))?;
        Ok(realm
            .flatten()
            .and_then(|realm| RealmId::parse(&realm).ok()))
    }
}

impl Change {
    /// Stores a new key. The same as [`Change::insert_keys`] with one key.
    pub async fn insert_key(&mut self, key: &Key) -> Result<(), Error> {
        self.insert_keys(&[key]).await
    }

    /// Stores new keys.
    ///
    /// # Errors
    /// [`Error::IdTaken`] if a deleted key had the id of one of them, because the stored usage and events of the deleted key would
    /// seem to belong to the new one.
    pub async fn insert_keys(&mut self, keys: &[&Key]) -> Result<(), Error> {
        for chunk in keys.chunks(INSERTS_AT_ONCE) {
            let inserted: Vec<Uuid> = on!(self.snapshot.session, |conn| async {
                let mut query = QueryBuilder::new(
                    "INSERT INTO keys (id, facts, revision) SELECT column1, column2, column3 FROM (",
                );
                query.push_values(chunk, |mut row, key| {
                    let KeyRow { id, facts } = KeyRow::from(*key);
                    row.push_bind(id.as_uuid())
                        .push_bind(facts)
                        .push_bind(stored(key.revision));
                });
                query.push(
                    ") AS new WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE key_id = new.column1) RETURNING id",
                );
                let statement = query.build_query_scalar();
                let statement = statement.persistent(keeps_insert(chunk.len()));
                statement.fetch_all(&mut *conn).await
            })?;
            if inserted.len() < chunk.len() {
                let inserted: HashSet<_> = inserted.into_iter().map(KeyId::from).collect();
                let taken = chunk.iter().find(|key| !inserted.contains(&key.id));
                return Err(Error::IdTaken(taken.expect("it was not inserted").id));
            }
        }
        Ok(())
    }

    /// Replaces the facts of a stored key, which gets the revision of this change.
    pub async fn update_key(&mut self, key: &mut Key) -> Result<(), Error> {
        key.revision = self.revision;
        let (row, number) = (KeyRow::from(&*key), stored(self.revision));
        execute!(
            self.snapshot.session,
            sqlx::query("UPDATE keys SET facts = $2, revision = $3 WHERE id = $1")
                .bind(row.id.as_uuid())
                .bind(&row.facts)
                .bind(number)
        )?;
        Ok(())
    }

    /// Replaces the facts of stored keys, each with its own revision.
    pub async fn update_keys(&mut self, keys: &[Key]) -> Result<(), Error> {
        for chunk in keys.chunks(INSERTS_AT_ONCE) {
            on!(self.snapshot.session, |conn| async {
                let mut query = QueryBuilder::new(
                    "UPDATE keys SET facts = new.column2, revision = new.column3 FROM (",
                );
                query.push_values(chunk, |mut row, key| {
                    let KeyRow { id, facts } = KeyRow::from(key);
                    row.push_bind(id.as_uuid())
                        .push_bind(facts)
                        .push_bind(stored(key.revision));
                });
                query.push(") AS new WHERE keys.id = new.column1");
                let statement = query.build().persistent(keeps_insert(chunk.len()));
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        Ok(())
    }

    /// Deletes a key. The same as [`Change::delete_keys`] with one key.
    pub async fn delete_key(&mut self, id: KeyId) -> Result<(), Error> {
        self.delete_keys(&[id]).await
    }

    /// Deletes keys, and the digests of their imported API keys, except those of revoked keys: they stay registered, so that a
    /// repeated import cannot bring them back.
    pub async fn delete_keys_and_imports(&mut self, keys: &[Key]) -> Result<(), Error> {
        let unrevoked = keys.iter().filter(|key| key.revocation.is_none());
        let unrevoked: Vec<_> = unrevoked.map(|key| key.id).collect();
        self.delete_imports(&unrevoked).await?;
        let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
        self.delete_keys(&ids).await
    }

    /// Deletes keys with all their roots. A tombstone with its owner remains of each.
    pub async fn delete_keys(&mut self, ids: &[KeyId]) -> Result<(), Error> {
        for chunk in ids.chunks(IDS_AT_ONCE) {
            on!(self.snapshot.session, |conn| async {
                // The generated columns of a corrupt key may be NULL, and especially a corrupt key must be deletable.
                let mut query = QueryBuilder::new(
                    "INSERT INTO tombstones (key_id, realm, partner, project, environment, deleted_at)
                     SELECT id, COALESCE(realm, ''), COALESCE(partner, ''), project, COALESCE(environment, ''), ",
                );
                query.push_bind(self.time.as_micros());
                push_ids(query.push(" FROM keys WHERE id IN ("), chunk);
                query.push(" ON CONFLICT (key_id) DO NOTHING");
                let statement = query.build().persistent(chunk.len() == 1);
                statement.execute(&mut *conn).await.map(drop)
            })?;
            on!(self.snapshot.session, |conn| async {
                let mut query = QueryBuilder::new("DELETE FROM keys WHERE id IN (");
                push_ids(&mut query, chunk);
                let statement = query.build().persistent(chunk.len() == 1);
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        Ok(())
    }

    /// Deletes the root of a secret that was removed from its key.
    pub async fn delete_root(&mut self, id: KeyId, secret: &Secret) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM roots WHERE key_id = $1 AND created_at = $2")
                .bind(id.as_uuid())
                .bind(secret.created_at.as_micros())
        )?;
        Ok(())
    }

    /// Stores the root of a key's secret. The same as [`Change::insert_roots`] with one root.
    pub async fn insert_root(
        &mut self,
        id: KeyId,
        secret: &Secret,
        root: &str,
    ) -> Result<(), Error> {
        self.insert_roots(&[(id, secret, root)]).await
    }

    /// Stores roots, each with its secret and the key of the secret.
    pub async fn insert_roots(&mut self, roots: &[(KeyId, &Secret, &str)]) -> Result<(), Error> {
        for chunk in roots.chunks(INSERTS_AT_ONCE) {
            on!(self.snapshot.session, |conn| async {
                let mut query = QueryBuilder::new("INSERT INTO roots (key_id, created_at, root) ");
                query.push_values(chunk, |mut row, (id, secret, root)| {
                    row.push_bind(id.as_uuid())
                        .push_bind(secret.created_at.as_micros())
                        .push_bind(*root);
                });
                let statement = query.build().persistent(keeps_insert(chunk.len()));
                statement.execute(&mut *conn).await.map(drop)
            })?;
        }
        Ok(())
    }
}
