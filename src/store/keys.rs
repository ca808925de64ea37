//! The table of keys, and the roots of their secrets.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::QueryBuilder;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Change, Error, Page, Snapshot, StoredKey, execute, for_each_batch, on, page_and_one, usage,
};
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::key::{Key, KeyState, Secret};
use crate::domain::time::Timestamp;

/// Which keys to list.
#[derive(Debug)]
pub struct KeyFilter {
    /// Of this realm.
    pub realm: RealmId,
    /// Of this partner.
    pub partner: Option<PartnerId>,
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Of this environment.
    pub environment: Option<EnvironmentName>,
    /// In one of these states at `now`; empty is any.
    pub states: Vec<KeyState>,
    /// Not used for so long, and older than that.
    pub unused_for: Option<Duration>,
    /// Without an end.
    pub never_expires: bool,
    /// With an end between `now` and so long from then.
    pub expires_within: Option<Duration>,
    /// When all that is to be told.
    pub now: Timestamp,
    /// Before this key, where the page before ended.
    pub before: Option<KeyId>,
    /// How many at the most.
    pub limit: u32,
}

/// How many rows are too few to go on at once.
const FEW_ROWS: usize = 16;

/// A key's row: its facts as they are stored, which may turn out to be unreadable.
pub struct KeyRow {
    /// Of this key.
    pub id: KeyId,
    facts: String,
}

impl KeyRow {
    /// What decides about the key.
    pub fn facts(&self) -> Result<StoredKey<'_>, Error> {
        StoredKey::read(self.id, &self.facts)
    }

    /// The whole key.
    fn key(&self) -> Result<Key, Error> {
        serde_json::from_str::<Key>(&self.facts)
            .ok()
            .filter(|key| key.id == self.id)
            .ok_or_else(|| Error::Corrupt(format!("key {}", self.id)))
    }
}

impl From<&Key> for KeyRow {
    fn from(key: &Key) -> Self {
        Self {
            id: key.id,
            facts: serde_json::to_string(key).expect("a key's facts are JSON"),
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

impl Snapshot {
    /// The key of this id.
    pub async fn find_key(&mut self, id: KeyId) -> Result<Option<Key>, Error> {
        type Row = (Uuid, String, Option<i64>, Option<i64>);
        // In one statement, because changes read keys too and wait for each other.
        let rows: Vec<Row> = on!(self.session, |conn| {
            sqlx::query_as(
                "SELECT keys.id, facts, secret, last_used_at FROM keys LEFT JOIN uses ON key_id = keys.id WHERE keys.id = $1",
            )
            .bind(id.as_uuid())
            .fetch_all(&mut *conn)
        })?;
        let uses: Vec<_> = rows
            .iter()
            .filter_map(|(_, _, secret, last_used_at)| secret.zip(*last_used_at))
            .map(|times| <[i64; 2]>::from(times).map(Timestamp::from_micros))
            .collect();
        let Some((id, facts, ..)) = rows.into_iter().next() else {
            return Ok(None);
        };
        let mut key = KeyRow::from((id, facts)).key()?;
        usage::tell_last_uses(&mut key, &uses);
        Ok(Some(key))
    }

    /// The row of this key, whatever it holds.
    pub async fn find_key_row(&mut self, id: KeyId) -> Result<Option<KeyRow>, Error> {
        let row: Option<(Uuid, String)> = on!(self.session, |conn| sqlx::query_as(
            "SELECT id, facts FROM keys WHERE id = $1"
        )
        .bind(id.as_uuid())
        .fetch_optional(&mut *conn))?;
        Ok(row.map(KeyRow::from))
    }

    /// A page of the keys that the filter lets through, newest first. One that cannot be read is left out and logged.
    pub async fn list_keys(&mut self, filter: &KeyFilter) -> Result<Page<Key, KeyId>, Error> {
        let rows: Vec<(Uuid, String)> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("SELECT id, facts FROM keys WHERE realm = ");
            query.push_bind(filter.realm.as_str());
            if let Some(partner) = &filter.partner {
                query.push(" AND partner = ").push_bind(partner.as_str());
            }
            if let Some(project) = &filter.project {
                query.push(" AND project = ").push_bind(project.as_str());
            }
            if let Some(environment) = &filter.environment {
                query
                    .push(" AND environment = ")
                    .push_bind(environment.as_str());
            }
            if !filter.states.is_empty() {
                // The same order as `Key::state`.
                query
                            .push(
                                " AND CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN disabled THEN 'disabled'
                                  WHEN expires_at <= ",
                            )
                            .push_bind(filter.now.as_micros())
                            .push(" THEN 'expired' ELSE 'active' END IN (");
                let mut states = query.separated(", ");
                for state in &filter.states {
                    states.push(match state {
                        KeyState::Active => "'active'",
                        KeyState::Disabled => "'disabled'",
                        KeyState::Expired => "'expired'",
                        KeyState::Revoked => "'revoked'",
                    });
                }
                query.push(")");
            }
            if let Some(unused_for) = filter.unused_for {
                let since = filter.now.saturating_sub(unused_for).as_micros();
                query
                    .push(" AND created_at < ")
                    .push_bind(since)
                    .push(" AND NOT EXISTS (SELECT 1 FROM uses WHERE key_id = keys.id AND last_used_at >= ")
                    .push_bind(since)
                    .push(")");
            }
            if filter.never_expires {
                query.push(" AND expires_at IS NULL");
            }
            if let Some(expires_within) = filter.expires_within {
                query
                    .push(" AND expires_at > ")
                    .push_bind(filter.now.as_micros())
                    .push(" AND expires_at <= ")
                    .push_bind(filter.now.saturating_add(expires_within).as_micros());
            }
            if let Some(before) = filter.before {
                query.push(" AND id < ").push_bind(before.as_uuid());
            }
            query
                .push(" ORDER BY id DESC LIMIT ")
                .push_bind(page_and_one(filter.limit));
            query.build_query_as().fetch_all(&mut *conn).await
        })?;
        let mut page = Page::new(
            rows,
            filter.limit,
            |row| KeyId::from(row.0),
            |row| {
                KeyRow::from(row)
                    .key()
                    .inspect_err(|error| tracing::error!(%error, "a key is left out of a list"))
                    .ok()
            },
        );
        self.tell_all_last_uses(&mut page.items).await?;
        Ok(page)
    }

    /// Hands over the row of every key, in no order, as fast as they are taken.
    pub async fn hand_over_keys(&mut self, to: mpsc::Sender<Vec<KeyRow>>) -> Result<(), Error> {
        for_each_batch!(
            self.session,
            |conn| sqlx::query_as::<_, (Uuid, String)>("SELECT id, facts FROM keys")
                .fetch(&mut *conn),
            |batch| {
                let few = batch.len() < FEW_ROWS;
                let rows = batch.into_iter().map(KeyRow::from).collect();
                if to.send(rows).await.is_err() {
                    break Ok(());
                }
                if few {
                    // SQLite's rows come from a thread of the driver's, one by one. Whoever waits for each is woken for each,
                    // which costs more than to read it.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        )?;
        Ok(())
    }

    /// How many keys a realm has, or one partner or one project of it.
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

    /// The environments that keys of the realm live in.
    pub async fn environments_in_use(&mut self, realm: &RealmId) -> Result<HashSet<String>, Error> {
        let used: Vec<Option<String>> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT DISTINCT environment FROM keys WHERE realm = $1"
        )
        .bind(realm.as_str())
        .fetch_all(&mut *conn))?;
        Ok(used.into_iter().flatten().collect())
    }

    /// The scopes that keys of the realm were granted by name.
    pub async fn scopes_in_use(&mut self, realm: &RealmId) -> Result<HashSet<String>, Error> {
        // Each a JSON list; there are few different ones.
        let lists: Vec<Option<String>> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT DISTINCT scopes FROM keys WHERE realm = $1"
        )
        .bind(realm.as_str())
        .fetch_all(&mut *conn))?;
        Ok(lists
            .into_iter()
            .flatten()
            .filter_map(|list| serde_json::from_str::<Vec<String>>(&list).ok())
            .flatten()
            .collect())
    }

    /// The realm of a key, also of one of which nothing else can be read.
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
    /// Stores a new key.
    ///
    /// # Errors
    /// [`Error::IdTaken`] if a deleted key had its id: what is kept of that one would be told of the new one.
    pub async fn insert_key(&mut self, key: &Key) -> Result<(), Error> {
        let row = KeyRow::from(key);
        let stored: Option<i32> = on!(self.snapshot.session, |conn| sqlx::query_scalar(
            "INSERT INTO keys (id, facts) SELECT $1, $2
                 WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE key_id = $1)
                 RETURNING 1",
        )
        .bind(row.id.as_uuid())
        .bind(&row.facts)
        .fetch_optional(&mut *conn))?;
        stored.map(drop).ok_or(Error::IdTaken(key.id))
    }

    /// Stores what has become of a key.
    pub async fn update_key(&mut self, key: &Key) -> Result<(), Error> {
        let row = KeyRow::from(key);
        execute!(
            self.snapshot.session,
            sqlx::query("UPDATE keys SET facts = $2 WHERE id = $1")
                .bind(row.id.as_uuid())
                .bind(&row.facts)
        )?;
        Ok(())
    }

    /// Removes a key with all its roots. What remains says whose it was.
    pub async fn delete_key(&mut self, id: KeyId) -> Result<(), Error> {
        // Of a key that cannot be read the columns may be missing, and it must be possible to delete that above all.
        execute!(
            self.snapshot.session,
            sqlx::query(
                "INSERT INTO tombstones (key_id, realm, partner, project, environment, deleted_at)
                 SELECT id, COALESCE(realm, ''), COALESCE(partner, ''), project, COALESCE(environment, ''), $2
                 FROM keys WHERE id = $1
                 ON CONFLICT (key_id) DO NOTHING",
            )
            .bind(id.as_uuid())
            .bind(self.time.as_micros())
        )?;
        execute!(
            self.snapshot.session,
            sqlx::query("DELETE FROM keys WHERE id = $1").bind(id.as_uuid())
        )?;
        Ok(())
    }

    /// Stores the root of a key's secret.
    pub async fn insert_root(
        &mut self,
        id: KeyId,
        secret: &Secret,
        root: &str,
    ) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query("INSERT INTO roots (key_id, created_at, root) VALUES ($1, $2, $3)")
                .bind(id.as_uuid())
                .bind(secret.created_at.as_micros())
                .bind(root)
        )?;
        Ok(())
    }
}
