//! The embedded store: an SQLite database.

use std::path::Path;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqliteConnection, SqlitePool};

use super::{Engine, OpenError, Store, migrations};

/// The first version without a bug that can corrupt the write-ahead log during a reset (<https://sqlite.org/wal.html>).
const OLDEST_SOUND_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// The result of `PRAGMA synchronous` for FULL.
const SYNCHRONOUS_FULL: i64 = 2;

impl Store {
    /// Opens the database file, creates it if it does not exist, and migrates its schema.
    ///
    /// The caller must hold the lock of the data directory.
    ///
    /// # Errors
    /// If the file cannot be opened, the schema cannot be migrated, or a commit would not be durable.
    pub async fn open_sqlite(file: &Path) -> Result<Self, OpenError> {
        let refused = |error: sqlx::Error| {
            OpenError::Unfit(format!(
                "the database {} cannot be opened: {error}{}",
                file.display(),
                advice(&error)
            ))
        };
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With NORMAL, a power failure may lose the last commits, which may include a revocation.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true)
            .pragma("trusted_schema", "OFF")
            .pragma("secure_delete", "FAST")
            .pragma("journal_size_limit", "67108864");
        let write = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(refused)?;
        assert_sound(&write).await?;
        let mut connection = write.acquire().await.map_err(refused)?;
        let schema = migrations::run(&migrations::sqlite(), &mut *connection).await?;
        drop(connection);
        let options = options.create_if_missing(false).read_only(true);
        // A list reads only as many rows as its page has room for. The driver's thread reads the next row, and waits with it.
        // That costs a list of a thousand keys about two milliseconds more than the driver's default of fifty rows.
        let read = pool(Self::READERS as u32)
            .connect_with(options.clone().row_buffer_size(0))
            .await
            .map_err(refused)?;
        // The feed has its own connection, because a long list must not delay a revocation. It is opened by the feed, whose thread
        // has another priority: the driver's thread for the connection inherits it.
        let feed = pool(1).connect_lazy_with(options);
        let directory = file.parent().unwrap_or(file).to_owned();
        let engine = Engine::Sqlite {
            read,
            feed,
            write,
            directory,
        };
        Ok(Self::new(engine, schema))
    }
}

/// Returns what to do about an error, if the file is damaged or is not a database.
pub(super) fn advice(error: &sqlx::Error) -> &'static str {
    // SQLITE_CORRUPT and SQLITE_NOTADB, and the extended codes of the former (<https://sqlite.org/rescode.html>).
    let is_damaged = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<u32>().ok())
        .is_some_and(|code| matches!(code & 0xff, 11 | 26));
    if is_damaged {
        ". Restore the database from its backup"
    } else {
        ""
    }
}

fn pool(connections: u32) -> PoolOptions<Sqlite> {
    PoolOptions::new()
        .max_connections(connections)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        // After some errors, such as a full disk, SQLite ends the transaction by itself. Then the driver's count of open
        // transactions is wrong, and no transaction can be begun on the connection any more.
        .after_release(|connection: &mut SqliteConnection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
        .acquire_timeout(Duration::from_secs(10))
}

/// Refuses a database that could lose an acknowledged change.
async fn assert_sound(write: &SqlitePool) -> Result<(), OpenError> {
    let read = |error: sqlx::Error| {
        let advice = advice(&error);
        OpenError::Unfit(format!("the database cannot be queried: {error}{advice}"))
    };
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(write)
        .await
        .map_err(read)?;
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    if (part(), part(), part()) < OLDEST_SOUND_SQLITE {
        return Err(OpenError::Unfit(format!(
            "this program was built with SQLite {version}, which can corrupt its write-ahead log: build it with the \
             bundled SQLite"
        )));
    }
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(write)
        .await
        .map_err(read)?;
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(write)
        .await
        .map_err(read)?;
    if synchronous != SYNCHRONOUS_FULL || journal != "wal" {
        return Err(OpenError::Unfit(format!(
            "the database uses synchronous={synchronous} and journal_mode={journal} instead of 2 (FULL) and wal, so an \
             acknowledged change could be lost: put the data directory on a local file system"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;
    use crate::store::{Error, NewAuthority, Session, on, search_error};

    #[tokio::test]
    async fn a_writer_that_could_lose_a_commit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("claviger.db");
        let sound = Store::open_sqlite(&file).await.unwrap();
        sound.close().await;

        for (synchronous, journal) in [
            (SqliteSynchronous::Normal, SqliteJournalMode::Wal),
            (SqliteSynchronous::Full, SqliteJournalMode::Delete),
        ] {
            let options = SqliteConnectOptions::new()
                .filename(&file)
                .synchronous(synchronous)
                .journal_mode(journal);
            let unsound = pool(1).connect_with(options).await.unwrap();
            let refusal = assert_sound(&unsound).await.unwrap_err().to_string();
            assert!(refusal.contains("could be lost"), "{refusal}");
            unsound.close().await;
        }
    }

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("claviger.db");
        let store = Store::open_sqlite(&file).await.unwrap();
        let Engine::Sqlite { write, .. } = &store.engine else {
            unreachable!("the embedded store")
        };
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (99, 'later', TRUE, x'00', 0)",
        )
        .execute(write)
        .await
        .unwrap();
        store.close().await;
        let refusal = Store::open_sqlite(&file).await.err().unwrap().to_string();
        assert!(refusal.contains("newer claviger"), "{refusal}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("claviger.db");
        std::fs::write(&file, "junk ".repeat(1_000)).unwrap();
        let refusal = Store::open_sqlite(&file).await.err().unwrap().to_string();
        assert!(
            refusal.ends_with("Restore the database from its backup"),
            "{refusal}"
        );
    }

    /// Seen red with a handler that outlives its limit.
    #[tokio::test]
    async fn a_search_ends_in_time_and_its_limit_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("claviger.db");
        let store = Store::open_sqlite(&file).await.unwrap();
        let mut snapshot = store.snapshot().await.unwrap();
        let count = async |session: &mut Session, to: i64| {
            let found: Result<i64, _> = on!(session, |conn| {
                sqlx::query_scalar(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < $1) SELECT max(x) FROM n"
            )
            .bind(to)
            .fetch_one(&mut *conn)
            });
            found
        };
        let session = &mut snapshot.session;
        let limit = session.limit_search(Duration::from_millis(1)).await;
        let limit = limit.unwrap();
        let cut = count(session, i64::MAX).await.map_err(search_error);
        assert!(matches!(cut, Err(Error::TooBroad)), "{cut:?}");
        drop(limit);
        // Long after the end of the limit.
        assert_eq!(count(session, 1_000_000).await.unwrap(), 1_000_000);
        drop(snapshot);
        store.close().await;
    }

    /// Seen red without `after_release`: the writer's connection then refuses every change until a restart.
    #[tokio::test]
    async fn a_store_can_be_written_again_after_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_sqlite(&dir.path().join("claviger.db"))
            .await
            .unwrap();
        let new_authority = NewAuthority {
            pepper: 1,
            canary: [0; 32],
            seal: [0; 32],
            time: Timestamp::from_micros(1),
        };
        drop(store.create_authority(&new_authority).await.unwrap());
        let Engine::Sqlite { write, .. } = &store.engine else {
            unreachable!("the embedded store")
        };
        sqlx::query("CREATE TABLE filler (bytes BLOB)")
            .execute(write)
            .await
            .unwrap();
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
            .fetch_one(write)
            .await
            .unwrap();
        // A pragma takes no parameter.
        let full = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 2));
        sqlx::query(full).execute(write).await.unwrap();
        let mut filling = write.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let error = sqlx::query("INSERT INTO filler VALUES (zeroblob(1000000))")
            .execute(&mut *filling)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        drop(filling);
        // The next writer gets a working connection, either the same or a new one.
        let change = store.create_authority(&new_authority).await;
        assert!(
            change.is_ok_and(|change| change.is_some()),
            "the store cannot be written"
        );
        store.close().await;
    }
}
