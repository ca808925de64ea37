//! The deletion of keys that were revoked or have expired long ago. Unlike other retention it is a change, which servers must apply.

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::key_filter::bulk_revocation;
use super::{Change, Error, Snapshot, Store, on};
use crate::domain::clock::ClockReading;
use crate::domain::event::{Actor, Event, EventKind, Subject};
use crate::domain::ids::KeyId;
use crate::domain::key::Key;
use crate::domain::time::{Expiry, Timestamp};

/// How many keys one statement looks at.
const LOOKED_AT: i64 = 4_000;

/// How many keys one change deletes.
const DELETED_AT_ONCE: usize = 1_000;

impl Store {
    /// Looks at some keys with an id after `last`, and deletes those that were revoked or have expired before `before`. Returns the id
    /// of the last key that it looked at; `None` if there is none.
    pub async fn forget_keys(
        &self,
        now: ClockReading,
        before: Timestamp,
        last: KeyId,
    ) -> Result<Option<KeyId>, Error> {
        let mut snapshot = self.snapshot().await?;
        let (looked_at, dead) = snapshot.dead_keys(before, last).await?;
        drop(snapshot);
        for ids in dead.chunks(DELETED_AT_ONCE) {
            self.check_room()?;
            let mut change = self.change(now).await?;
            let mut keys = Vec::with_capacity(ids.len());
            // It may have got a later expiry since.
            let is_dead = |key: &Key| {
                let is_expired = matches!(key.expires_at, Expiry::At(end) if end < before);
                is_expired || key.revocation.as_ref().is_some_and(|end| end.at < before)
            };
            change
                .find_keys(ids, |_, found| keys.extend(found.ok().filter(is_dead)))
                .await?;
            change.delete_dead(&keys).await?;
        }
        Ok(looked_at)
    }
}

impl Snapshot {
    async fn dead_keys(
        &mut self,
        before: Timestamp,
        last: KeyId,
    ) -> Result<(Option<KeyId>, Vec<KeyId>), Error> {
        let rows: Vec<(Uuid, bool)> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("SELECT k.id, coalesce(k.expires_at < ");
            query
                .push_bind(before.as_micros())
                .push(" OR k.revoked_at < ")
                .push_bind(before.as_micros())
                // The text begins with the time, which has 16 digits until the year 2286.
                .push(concat!(" OR ", bulk_revocation!(), " < "))
                .push_bind(before.as_micros().to_string())
                .push(", FALSE) FROM keys AS k WHERE k.id > ")
                .push_bind(last.as_uuid())
                .push(" ORDER BY k.id LIMIT ")
                .push_bind(LOOKED_AT);
            query.build_query_as().fetch_all(&mut *conn).await
        })?;
        let looked_at = rows.last().map(|(id, _)| KeyId::from(*id));
        let dead = rows.into_iter().filter(|(_, is_dead)| *is_dead);
        Ok((looked_at, dead.map(|(id, _)| KeyId::from(id)).collect()))
    }
}

impl Change {
    /// Deletes these keys, each with an event, and commits. Without keys nothing changes.
    async fn delete_dead(mut self, keys: &[Key]) -> Result<(), Error> {
        let Some((newest, others)) = keys.split_last() else {
            return Ok(());
        };
        self.reserve(others.len()).await?;
        for key in others {
            let event = self.deletion_of(key);
            self.start_next(event).await?;
        }
        self.delete_keys_and_imports(keys).await?;
        let event = self.deletion_of(newest);
        self.commit(&event).await.map(drop)
    }

    fn deletion_of(&self, key: &Key) -> Event {
        let mut detail = key.deletion_detail();
        detail.insert("reason".to_owned(), "retention of dead keys".to_owned());
        Event {
            revision: self.revision(),
            time: self.time(),
            actor: Actor::command_line(),
            kind: EventKind::KeyDeleted,
            subject: Subject {
                realm: key.realm.clone(),
                partner: Some(key.partner.clone()),
                project: key.level.project().cloned(),
                key: Some(key.id),
            },
            detail,
        }
    }
}
