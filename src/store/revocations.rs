//! The table of bulk revocations: rules that revoke many keys at once.

use super::{Change, Error, Snapshot, execute, on, revision, stored};
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, PartnerId, ProjectId, RealmId};
use crate::domain::revocation::BulkRevocation;
use crate::domain::time::Timestamp;

type Row = (String, String, String, String, i64, i64, String);

/// How many bulk revocations of exactly the same keys are stored. Of older ones, the audit trail keeps the time and the reason.
const MAX_PER_SELECTION: i64 = 16;

/// The highest revision of the rules with these names.
macro_rules! before_of {
    ($partner:literal, $project:literal, $environment:literal) => {
        concat!(
            "SELECT max(before_revision) AS before FROM revocations WHERE realm = $1 AND partner = ",
            $partner,
            " AND project = ",
            $project,
            " AND environment = ",
            $environment
        )
    };
}

impl Snapshot {
    /// Returns the revision before which stored rules already revoke all keys that this rule selects.
    pub async fn revoked_before(&mut self, rule: &BulkRevocation) -> Result<Revision, Error> {
        let Names {
            realm,
            partner,
            project,
            environment,
        } = Names::of(rule);
        // Each part names all columns of the index, so that no plan reads other rules.
        let before: Option<i64> = on!(self.session, |conn| sqlx::query_scalar(concat!(
            "SELECT max(before) FROM (",
            before_of!("''", "''", "''"),
            " UNION ALL ",
            before_of!("''", "''", "$4"),
            " UNION ALL ",
            before_of!("$2", "''", "''"),
            " UNION ALL ",
            before_of!("$2", "''", "$4"),
            " UNION ALL ",
            before_of!("$2", "$3", "''"),
            " UNION ALL ",
            before_of!("$2", "$3", "$4"),
            ") AS rules"
        ))
        .bind(realm)
        .bind(partner)
        .bind(project)
        .bind(environment)
        .fetch_one(&mut *conn))?;
        Ok(revision(before.unwrap_or(0)))
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
    /// Stores a bulk revocation as part of this change. It revokes at least what all stored ones of the same keys revoke, so the
    /// oldest of many is deleted; its keys then show the time and the reason of the next one.
    pub async fn insert_bulk_revocation(&mut self, rule: &BulkRevocation) -> Result<(), Error> {
        let Names {
            realm,
            partner,
            project,
            environment,
        } = Names::of(rule);
        execute!(self.snapshot.session, sqlx::query(
            "INSERT INTO revocations (revision, realm, partner, project, environment, before_revision, time, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        )
        .bind(stored(self.revision))
        .bind(realm)
        .bind(partner)
        .bind(project)
        .bind(environment)
        .bind(stored(rule.before))
        .bind(rule.at.as_micros())
        .bind(&rule.reason))?;
        execute!(self.snapshot.session, sqlx::query(
            "DELETE FROM revocations WHERE realm = $1 AND partner = $2 AND project = $3 AND environment = $4
                 AND before_revision <= $5 AND revision <= (
                     SELECT revision FROM revocations
                     WHERE realm = $1 AND partner = $2 AND project = $3 AND environment = $4
                     ORDER BY revision + 0 DESC LIMIT 1 OFFSET $6)"
        )
        .bind(realm)
        .bind(partner)
        .bind(project)
        .bind(environment)
        .bind(stored(rule.before))
        .bind(MAX_PER_SELECTION))?;
        Ok(())
    }
}

/// The names that a rule selects keys by, as the table stores them: an empty name selects all.
struct Names<'r> {
    realm: &'r str,
    partner: &'r str,
    project: &'r str,
    environment: &'r str,
}

impl<'r> Names<'r> {
    fn of(rule: &'r BulkRevocation) -> Self {
        let BulkRevocation {
            realm,
            partner,
            project,
            environment,
            before: _,
            at: _,
            reason: _,
        } = rule;
        Self {
            realm: realm.as_str(),
            partner: partner.as_ref().map_or("", PartnerId::as_str),
            project: project.as_ref().map_or("", ProjectId::as_str),
            environment: environment.as_ref().map_or("", EnvironmentName::as_str),
        }
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
