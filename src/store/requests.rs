//! The table of requests that were answered and must not be done twice.

use super::{Change, Error, Snapshot, execute, on, revision, stored};
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::time::Timestamp;

/// A request that was answered.
pub struct AnsweredRequest {
    /// When.
    pub at: Timestamp,
    /// A keyed digest of what was asked.
    pub fingerprint: Vec<u8>,
    /// The revision that was answered.
    pub revision: Revision,
    /// What came of it, as JSON.
    pub result: String,
}

impl Snapshot {
    /// What was answered to this request of this caller.
    pub async fn find_request(
        &mut self,
        caller: KeyId,
        id: RequestId,
    ) -> Result<Option<AnsweredRequest>, Error> {
        let row: Option<(i64, Vec<u8>, i64, String)> = on!(self.session, |conn| {
            sqlx::query_as(
            "SELECT time, fingerprint, revision, result FROM requests WHERE actor = $1 AND id = $2"
        )
        .bind(caller.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&mut *conn)
        })?;
        Ok(
            row.map(|(at, fingerprint, number, result)| AnsweredRequest {
                at: Timestamp::from_micros(at),
                fingerprint,
                revision: revision(number),
                result,
            }),
        )
    }
}

impl Change {
    /// Keeps what this change answers to a request, in place of what was kept under the same name before.
    pub async fn insert_request(
        &mut self,
        caller: KeyId,
        id: RequestId,
        answered: &AnsweredRequest,
    ) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query(
                "INSERT INTO requests (actor, id, time, fingerprint, revision, result) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (actor, id) DO UPDATE SET time = excluded.time, fingerprint = excluded.fingerprint,
                     revision = excluded.revision, result = excluded.result"
            )
            .bind(caller.as_uuid())
            .bind(id.as_uuid())
            .bind(answered.at.as_micros())
            .bind(&answered.fingerprint)
            .bind(stored(answered.revision))
            .bind(&answered.result)
        )?;
        Ok(())
    }
}
