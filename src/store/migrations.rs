//! The migrations of the schema. The folders of the two engines have the same numbers.

use std::cmp::Ordering;

use sqlx::SqlStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

use super::OpenError;

/// The table in which the driver records the applied migrations.
const TABLE: &str = "_sqlx_migrations";

/// The schema versions before and after a store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The version before; 0 for a new database.
    pub found: i64,
    /// The version after.
    pub now: i64,
}

/// The schema of a store, compared with that of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The database is empty.
    Missing,
    /// It is that of this program.
    Current(i64),
    /// The next start of a server, or `claviger migrate`, brings it up to date.
    Older {
        /// The version of the database.
        found: i64,
        /// The version of this program.
        needed: i64,
    },
    /// A newer program has written it.
    Newer {
        /// The version of the database.
        found: i64,
        /// The version of this program.
        needed: i64,
    },
    /// A migration is another one than that of this program.
    Different {
        /// The version of the migration.
        at: i64,
    },
}

/// Returns the migrations of the embedded store.
pub(super) fn sqlite() -> Migrator {
    migrator(&[
        (
            1,
            "authority",
            include_str!("../../migrations/sqlite/0001_authority.sql"),
        ),
        (
            2,
            "key lifecycle",
            include_str!("../../migrations/sqlite/0002_key_lifecycle.sql"),
        ),
        (
            3,
            "key revision",
            include_str!("../../migrations/sqlite/0003_key_revision.sql"),
        ),
        (
            4,
            "hints",
            include_str!("../../migrations/sqlite/0004_hints.sql"),
        ),
        (
            5,
            "external id",
            include_str!("../../migrations/sqlite/0005_external_id.sql"),
        ),
        (
            6,
            "replicas",
            include_str!("../../migrations/sqlite/0006_replicas.sql"),
        ),
        (
            7,
            "search columns",
            include_str!("../../migrations/sqlite/0007_search_columns.sql"),
        ),
        (
            8,
            "usage of owners",
            include_str!("../../migrations/sqlite/0008_usage_of_owners.sql"),
        ),
    ])
}

/// Returns the migrations of the shared store.
pub(super) fn postgres() -> Migrator {
    migrator(&[
        (
            1,
            "authority",
            include_str!("../../migrations/postgres/0001_authority.sql"),
        ),
        (
            2,
            "key lifecycle",
            include_str!("../../migrations/postgres/0002_key_lifecycle.sql"),
        ),
        (
            3,
            "key revision",
            include_str!("../../migrations/postgres/0003_key_revision.sql"),
        ),
        (
            4,
            "hints",
            include_str!("../../migrations/postgres/0004_hints.sql"),
        ),
        (
            5,
            "external id",
            include_str!("../../migrations/postgres/0005_external_id.sql"),
        ),
        (
            6,
            "replicas",
            include_str!("../../migrations/postgres/0006_replicas.sql"),
        ),
        (
            7,
            "search columns",
            include_str!("../../migrations/postgres/0007_search_columns.sql"),
        ),
        (
            8,
            "usage of owners",
            include_str!("../../migrations/postgres/0008_usage_of_owners.sql"),
        ),
    ])
}

fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let mut migrator = Migrator::with_migrations(
        migrations
            .iter()
            .map(|(version, description, sql)| {
                Migration::new(
                    *version,
                    (*description).into(),
                    MigrationType::Simple,
                    SqlStr::from_static(sql),
                    false,
                )
            })
            .collect(),
    );
    // The caller holds a lock of claviger itself, and for a longer time.
    migrator.set_locking(false);
    migrator
}

/// Applies the missing migrations.
///
/// If none is missing, nothing is written, so that a server can run as a role that cannot change the schema.
pub(super) async fn run(
    migrator: &Migrator,
    connection: &mut impl Migrate,
) -> Result<Schema, OpenError> {
    // A new database does not have the table.
    let applied = connection
        .list_applied_migrations(TABLE)
        .await
        .unwrap_or_default();
    let found = applied.last().map_or(0, |migration| migration.version);
    let is_same = |(migration, applied): (&Migration, &sqlx::migrate::AppliedMigration)| {
        migration.version == applied.version && migration.checksum == applied.checksum
    };
    if migrator.iter().count() != applied.len() || !migrator.iter().zip(&applied).all(is_same) {
        migrator
            .run_direct(None, connection, false)
            .await
            .map_err(|error| OpenError::Unfit(describe(&error)))?;
    }
    let now = migrator
        .iter()
        .last()
        .map_or(0, |migration| migration.version);
    Ok(Schema { found, now })
}

/// Compares the applied migrations with those of this program. Nothing is written.
///
/// # Errors
/// If the table of the migrations cannot be read, also because there is none.
pub(super) async fn compare(
    migrator: &Migrator,
    connection: &mut impl Migrate,
) -> Result<SchemaState, MigrateError> {
    let applied = connection.list_applied_migrations(TABLE).await?;
    let needed = migrator.iter().last().map_or(0, |own| own.version);
    let Some(last) = applied.last() else {
        return Ok(SchemaState::Missing);
    };
    let found = last.version;
    let same = migrator.iter().zip(&applied);
    let mut other = same.filter(|(own, applied)| {
        (own.version, &own.checksum) != (applied.version, &applied.checksum)
    });
    Ok(match (other.next(), found.cmp(&needed)) {
        (_, Ordering::Greater) => SchemaState::Newer { found, needed },
        (Some((_, applied)), _) => SchemaState::Different {
            at: applied.version,
        },
        (None, Ordering::Equal) => SchemaState::Current(found),
        (None, Ordering::Less) => SchemaState::Older { found, needed },
    })
}

/// Whether the role lacks the right (SQLSTATE 42501).
fn is_denied(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("42501")
}

fn describe(error: &MigrateError) -> String {
    match error {
        MigrateError::VersionMissing(version) => format!(
            "the database was written by a newer claviger with the unknown schema version {version}: start the newer program"
        ),
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)
            if is_denied(cause) =>
        {
            format!(
                "the schema of the database must be migrated, and this role may not do that ({cause}): run `claviger migrate` as \
                 the owner of the database"
            )
        }
        other => format!("the schema of the database cannot be migrated: {other}"),
    }
}
