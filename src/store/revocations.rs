//! The table of bulk revocations: rules that revoke many keys at once.

use super::{Change, Error, Snapshot, execute, on, revision, stored};
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, PartnerId, ProjectId, RealmId};
use crate::domain::revocation::BulkRevocation;
use crate::domain::time::Timestamp;

type Row = (String, String, String, String, i64, i64, String);

impl Snapshot {
    /// Returns the number of bulk revocations for this partner.
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

    /// Returns the bulk revocations with a revision after `after`, in their order.
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
    pub async fn insert_bulk_revocation(&mut self, rule: &BulkRevocation) -> Result<(), Error> {
        let number = stored(self.revision);
        execute!(self.snapshot.session, sqlx::query(
            "INSERT INTO revocations (revision, realm, partner, project, environment, before_revision, time, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        )
        .bind(number)
        .bind(rule.realm.as_str())
        .bind(rule.partner.as_ref().map_or("", PartnerId::as_str))
        .bind(rule.project.as_ref().map_or("", ProjectId::as_str))
        .bind(rule.environment.as_ref().map_or("", EnvironmentName::as_str))
        .bind(stored(rule.before))
        .bind(rule.at.as_micros())
        .bind(&rule.reason))?;
        Ok(())
    }
}

fn read(row: Row) -> Result<BulkRevocation, Error> {
    fn optional<T>(
        name: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, &'static str> {
        if name.is_empty() {
            Ok(None)
        } else {
            parse(name).map(Some)
        }
    }
    let (realm, partner, project, environment, before, time, reason) = row;
    let owner = || {
        Ok((
            RealmId::parse(&realm)?,
            optional(&partner, PartnerId::parse)?,
            optional(&project, ProjectId::parse)?,
            optional(&environment, EnvironmentName::parse)?,
        ))
    };
    // Unlike other corrupt rows, a bulk revocation is not left out: revoked keys would become valid again.
    let owner: Result<_, &'static str> = owner();
    let (realm, partner, project, environment) =
        owner.map_err(|_| Error::Corrupt("a bulk revocation".to_owned()))?;
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
