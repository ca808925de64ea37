//! The schema, step by step. The folders of the two engines have equal numbers.

use sqlx::SqlStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// The steps of the embedded store.
pub(super) fn sqlite() -> Migrator {
    migrator(&[(
        1,
        "authority",
        include_str!("../../migrations/sqlite/0001_authority.sql"),
    )])
}

/// The steps of the shared store.
pub(super) fn postgres() -> Migrator {
    migrator(&[(
        1,
        "authority",
        include_str!("../../migrations/postgres/0001_authority.sql"),
    )])
}

fn migrator(steps: &[(i64, &'static str, &'static str)]) -> Migrator {
    Migrator::with_migrations(
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
    )
}
