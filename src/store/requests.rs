//! The table of answered requests, so that a repeated request is not executed twice.

use std::time::Duration;

use super::{Change, Error, Snapshot, execute, on, revision, stored};
use crate::domain::event::Revision;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::time::Timestamp;

/// A request that was answered.
pub struct AnsweredRequest {
    /// The time of the answer.
    pub at: Timestamp,
    /// The keyed digest of the request.
    pub fingerprint: Vec<u8>,
    /// The revision in the answer.
    pub revision: Revision,
    /// The result, as JSON.
    pub result: String,
}

impl AnsweredRequest {
    /// How long a repetition of the request is recognized.
    pub const LIFETIME: Duration = Duration::from_hours(24);
}

impl Snapshot {
    /// Returns the answered request of this caller with this id.
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
    /// Stores the answer of this change to a request. It replaces an earlier answer with the same id.
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
