//! Opening the shared store.

use std::str::FromStr;
use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolOptions;
use sqlx::postgres::PgConnectOptions;

use super::sqlite::migration_failed;
use super::{Engine, OpenError, Store, migrations};

impl Store {
    /// Connects to a PostgreSQL database and brings its schema up to date. Nothing serves from one yet; it is here so that
    /// every statement is checked for both engines.
    pub async fn connect_postgres(url: &str) -> Result<Self, OpenError> {
        let refused =
            |error: sqlx::Error| OpenError(format!("the database cannot be reached: {error}"));
        let options = PgConnectOptions::from_str(url)
            .map_err(refused)?
            // A writer that hangs must not hold the counter of revisions for ever.
            .options([
                ("statement_timeout", "10s"),
                ("idle_in_transaction_session_timeout", "10s"),
            ]);
        let pool = PoolOptions::<Postgres>::new()
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await
            .map_err(refused)?;
        migrations::postgres()
            .run(&pool)
            .await
            .map_err(|error| OpenError(migration_failed(&error)))?;
        Ok(Self::new(Engine::Postgres(pool)))
    }
}
