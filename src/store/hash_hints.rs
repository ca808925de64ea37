//! Rows with hints that show a part of the SHA-256 of an API key, as earlier versions made them.
//!
//! A start replaces them all, once. The statements only search for the text; whether a row has such a hint is decided by its
//! reader. Each statement looks at few rows, so that it keeps its deadline however many rows there are.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::keys::KeyRow;
use super::{Error, Page, Snapshot, Store, execute, on, revision, stored};
use crate::domain::event::Revision;
use crate::domain::ids::KeyId;
use crate::domain::key::Key;
use crate::telemetry::limited;

/// The maximum number of rows that one statement looks at, and that one transaction changes.
const ROWS_AT_ONCE: i64 = 500;

/// The detail of an event.
pub struct EventDetail {
    /// The revision of the event.
    pub revision: Revision,
    /// The key that the event is about.
    pub key: Option<KeyId>,
    /// The detail.
    pub detail: BTreeMap<String, String>,
}

impl Snapshot {
    /// Returns whether there may be rows with such hints.
    pub async fn may_have_hash_hints(&mut self) -> Result<bool, Error> {
        let may_have: i64 = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT hash_hints FROM authority"
        )
        .fetch_one(&mut *conn))?;
        Ok(may_have != 0)
    }

    /// Returns the keys that may have such hints among the next keys, as they are stored: without bulk revocations and times of
    /// last use. A corrupt key is left out and logged.
    pub async fn keys_with_hash_hints(
        &mut self,
        after: Option<KeyId>,
    ) -> Result<Page<Key, KeyId>, Error> {
        let rows: Vec<(Uuid, Option<String>)> = on!(self.session, |conn| {
            sqlx::query_as(
            r#"SELECT id, CASE WHEN facts LIKE '%"sha256:%' THEN facts END FROM keys WHERE id > $1
                   ORDER BY id LIMIT $2"#,
        )
        .bind(after.map_or(Uuid::nil(), KeyId::as_uuid))
        .bind(ROWS_AT_ONCE)
        .fetch_all(&mut *conn)
        })?;
        let next = next_page(&rows).map(|(id, _)| KeyId::from(*id));
        let read = |(id, facts): (Uuid, Option<String>)| {
            KeyRow::from((id, facts?))
                .key()
                .inspect_err(|error| limited!(error, %error, "corrupt key left out"))
                .ok()
        };
        Ok(Page {
            items: rows.into_iter().filter_map(read).collect(),
            next,
        })
    }

    /// Returns the details that may have such hints among those of the next events. A corrupt event is left out and logged.
    pub async fn events_with_hash_hints(
        &mut self,
        after: Option<Revision>,
    ) -> Result<Page<EventDetail, Revision>, Error> {
        let rows: Vec<(i64, Option<Uuid>, Option<String>)> = on!(self.session, |conn| {
            sqlx::query_as(
            r#"SELECT revision, key_id, CASE WHEN detail LIKE '%"sha256:%' THEN detail END FROM events
                   WHERE revision > $1 ORDER BY revision LIMIT $2"#,
        )
        .bind(after.map_or(0, stored))
        .bind(ROWS_AT_ONCE)
        .fetch_all(&mut *conn)
        })?;
        let next = next_page(&rows).map(|(number, _, _)| revision(*number));
        let read = |(number, key, detail): (i64, Option<Uuid>, Option<String>)| {
            let Ok(detail) = serde_json::from_str(&detail?) else {
                limited!(error, revision = number, "corrupt event left out");
                return None;
            };
            Some(EventDetail {
                revision: revision(number),
                key: key.map(KeyId::from),
                detail,
            })
        };
        Ok(Page {
            items: rows.into_iter().filter_map(read).collect(),
            next,
        })
    }
}

/// Returns the last row, if there may be rows after it.
fn next_page<T>(rows: &[T]) -> Option<&T> {
    rows.last().filter(|_| rows.len() as i64 == ROWS_AT_ONCE)
}

impl Store {
    /// Replaces the details of these events. This is not a change: the events keep their revision, time and stamp.
    pub async fn replace_details(&self, events: &[EventDetail]) -> Result<(), Error> {
        let mut write = self.write().await?;
        for event in events {
            let detail =
                serde_json::to_string(&event.detail).expect("a map of texts can be serialized");
            execute!(
                write.session,
                sqlx::query("UPDATE events SET detail = $2 WHERE revision = $1")
                    .bind(stored(event.revision))
                    .bind(detail)
            )?;
        }
        write.commit().await
    }

    /// Records that no row has such a hint any more. This is not a change.
    pub async fn mark_hash_hints_replaced(&self) -> Result<(), Error> {
        let mut write = self.write().await?;
        execute!(
            write.session,
            sqlx::query("UPDATE authority SET hash_hints = 0")
        )?;
        write.commit().await
    }
}
