//! The table of bulk revocations: rules by which many keys are ended at once.

use super::{Change, Error, Snapshot, execute, on, revision, stored};
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, PartnerId, ProjectId, RealmId};
use crate::domain::revocation::BulkRevocation;
use crate::domain::time::Timestamp;

type Row = (String, String, String, String, i64, i64, String);

impl Snapshot {
    /// How many bulk revocations name this partner.
    pub async fn count_bulk_revocations(
        &mut self,
        realm: &RealmId,
        partner: &PartnerId,
    ) -> Result<u64, Error> {
        let count: i64 = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT count(*) FROM revocations WHERE realm = $1 AND partner = $2"
        )
        .bind(realm.as_str())
        .bind(partner.as_str())
        .fetch_one(&mut *conn))?;
        Ok(count as u64)
    }

    /// The bulk revocations that were made after this revision, in their order.
    pub async fn bulk_revocations(
        &mut self,
        after: Revision,
    ) -> Result<Vec<BulkRevocation>, Error> {
        let rows: Vec<Row> = on!(self.session, |conn| {
            sqlx::query_as(
            "SELECT realm, partner, project, environment, before_revision, time, reason FROM revocations
             WHERE revision > $1 ORDER BY revision"
        )
        .bind(stored(after))
        .fetch_all(&mut *conn)
        })?;
        rows.into_iter().map(read).collect()
    }
}

impl Change {
    /// Stores a bulk revocation as part of this change.
    pub async fn insert_bulk_revocation(&mut self, many: &BulkRevocation) -> Result<(), Error> {
        let number = stored(self.revision);
        execute!(self.snapshot.session, sqlx::query(
            "INSERT INTO revocations (revision, realm, partner, project, environment, before_revision, time, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        )
        .bind(number)
        .bind(many.realm.as_str())
        .bind(many.partner.as_ref().map_or("", PartnerId::as_str))
        .bind(many.project.as_ref().map_or("", ProjectId::as_str))
        .bind(many.environment.as_ref().map_or("", EnvironmentName::as_str))
        .bind(stored(many.before))
        .bind(many.at.as_micros())
        .bind(&many.reason))?;
        Ok(())
    }
}

fn read(row: Row) -> Result<BulkRevocation, Error> {
    fn named<T>(
        word: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, &'static str> {
        if word.is_empty() {
            Ok(None)
        } else {
            parse(word).map(Some)
        }
    }
    let (realm, partner, project, environment, before, time, reason) = row;
    let words = || {
        Ok((
            RealmId::parse(&realm)?,
            named(&partner, PartnerId::parse)?,
            named(&project, ProjectId::parse)?,
            named(&environment, EnvironmentName::parse)?,
        ))
    };
    // Not left out, as other rows are that cannot be read: keys would come back to life.
    let words: Result<_, &'static str> = words();
    let (realm, partner, project, environment) =
        words.map_err(|_| Error::Corrupt("a bulk revocation".to_owned()))?;
    Ok(BulkRevocation {
        realm,
        partner,
        project,
        environment,
        before: revision(before),
        at: Timestamp::from_micros(time),
        reason,
    })
}
