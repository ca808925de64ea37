//! The schema, step by step. The folders of the two engines have equal numbers.

use sqlx::SqlStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

use super::OpenError;

/// Where the driver keeps which steps were made.
const TABLE: &str = "_sqlx_migrations";

/// What opening a store did to its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The step that it was at; 0 for none.
    pub found: i64,
    /// The step that it is at now.
    pub now: i64,
}

/// The steps of the embedded store.
pub(super) fn sqlite() -> Migrator {
    migrator(&[
        (
            1,
            "authority",
            include_str!("../../migrations/sqlite/0001_authority.sql"),
        ),
        (
            2,
            "whole life",
            include_str!("../../migrations/sqlite/0002_whole_life.sql"),
        ),
    ])
}

/// The steps of the shared store.
pub(super) fn postgres() -> Migrator {
    migrator(&[
        (
            1,
            "authority",
            include_str!("../../migrations/postgres/0001_authority.sql"),
        ),
        (
            2,
            "whole life",
            include_str!("../../migrations/postgres/0002_whole_life.sql"),
        ),
    ])
}

fn migrator(steps: &[(i64, &'static str, &'static str)]) -> Migrator {
    let mut migrator = Migrator::with_migrations(
        steps
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
    // Whoever migrates holds a lock of claviger's own, and for longer.
    migrator.set_locking(false);
    migrator
}

/// Makes the steps that are missing. Where none is, nothing is written, so that a server may run as a role that may not
/// change the schema.
pub(super) async fn run(
    steps: &Migrator,
    connection: &mut impl Migrate,
) -> Result<Schema, OpenError> {
    // There is no such table in a new database.
    let made = connection
        .list_applied_migrations(TABLE)
        .await
        .unwrap_or_default();
    let found = made.last().map_or(0, |step| step.version);
    let as_made = |(step, made): (&Migration, &sqlx::migrate::AppliedMigration)| {
        step.version == made.version && step.checksum == made.checksum
    };
    if steps.iter().count() != made.len() || !steps.iter().zip(&made).all(as_made) {
        steps
            .run_direct(None, connection, false)
            .await
            .map_err(|error| OpenError::Unfit(failed(&error)))?;
    }
    let now = steps.iter().last().map_or(0, |step| step.version);
    Ok(Schema { found, now })
}

fn failed(error: &MigrateError) -> String {
    match error {
        MigrateError::VersionMissing(version) => format!(
            "the database was written by a newer claviger (its schema has step {version}, which this program does not \
             know); start that newer program"
        ),
        other => format!("the database's schema cannot be brought up to date: {other}"),
    }
}
