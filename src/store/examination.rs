//! Opens a store only to look at it. Nothing in it is changed, no lock is taken, and its schema stays as it is. A server may run on it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rustix::process::geteuid;
use sqlx::migrate::MigrateError;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{PgConnection, SqliteConnection, SqlitePool};
use tokio::time::sleep;

use super::connections::Connections;
use super::connector::Connector;
use super::driver::{unreachable, within};
use super::servers::Servers;
use super::sqlite::advice;
use super::{
    DatabaseUrls, Engine, EngineTransaction, Error, OpenError, Schema, SchemaState, Snapshot,
    Store, migrations, on, search_error,
};

/// With it, no transaction of the store can write.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How often an embedded database is opened, and how long to wait in between.
const ATTEMPTS: u32 = 3;
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The settings of a PostgreSQL database on which it depends whether an acknowledged change can be lost, by their names.
#[derive(Clone, Debug)]
pub struct Durability {
    /// `fsync`
    pub fsync: String,
    /// `full_page_writes`
    pub full_page_writes: String,
    /// `synchronous_commit`
    pub synchronous_commit: String,
    /// `synchronous_standby_names`
    pub synchronous_standby_names: String,
    /// `default_transaction_read_only`
    pub default_transaction_read_only: String,
    /// How many standbys follow now.
    pub standbys: i64,
}

/// Whether a database file says that it has a write-ahead log, as each server sets it. Not while this process has the file open in
/// SQLite: that would lose SQLite's locks.
///
/// # Errors
/// If the file cannot be read.
pub fn has_write_ahead_log(file: &Path) -> io::Result<bool> {
    // The versions of the file's format for writing and for reading (<https://sqlite.org/fileformat.html>).
    let mut head = [0; 20];
    File::open(file)?.read_exact(&mut head)?;
    Ok(head[18..] == [2, 2])
}

/// What a PostgreSQL database allows.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseLimits {
    /// How many connections all clients may have that are not superusers.
    pub connections: i64,
    /// How many all clients have now.
    pub used: i64,
    /// How many the role of the server may have; `None` without a limit of its own.
    pub of_role: Option<i64>,
    /// How many the database may have; `None` without a limit of its own.
    pub of_database: Option<i64>,
}

/// The result of a check of the database's structure.
#[derive(Clone, Debug)]
pub enum IntegrityCheck {
    /// Nothing is wrong.
    Sound,
    /// What is wrong, at least one thing.
    Damaged(Vec<String>),
    /// The check did not end in time.
    Unfinished,
}

impl Store {
    /// Opens the database file for reading, and compares its schema.
    ///
    /// # Errors
    /// If the file cannot be read, or if nobody can read it without writing.
    pub async fn examine_sqlite(file: &Path) -> Result<(Self, SchemaState), OpenError> {
        let (read, schema) = open_read_only(file).await?;
        let engine = Engine::Sqlite {
            feed: read.clone(),
            write: read.clone(),
            read,
            directory: file.parent().unwrap_or(file).to_owned(),
        };
        Ok((Self::examined(engine), schema))
    }

    /// Connects to the primary of a PostgreSQL database for reading, and compares its schema.
    ///
    /// # Errors
    /// If no server can be used.
    pub async fn examine_postgres(
        urls: &DatabaseUrls,
        deadline: Duration,
    ) -> Result<(Self, SchemaState), OpenError> {
        let connector = Connector::new(Servers::new(urls, deadline)?);
        connector.choose(deadline * Servers::STEPS).await?;
        let refused = |error: sqlx::Error| unreachable(&error);
        let (mut connection, _) = connector.connect(deadline).await.map_err(refused)?;
        let schema = within(deadline, compare_postgres(&mut connection));
        let schema = schema.await.map_err(refused)?;
        drop(connection);
        let timeout = deadline.as_millis().to_string();
        let timed = connector.with([("statement_timeout", timeout.as_str())]);
        let read = Connections::new(timed, 1);
        let engine = Engine::Postgres {
            feed: read.clone(),
            write: read.clone(),
            read,
            begin_write: BEGIN,
            connector,
        };
        Ok((Self::examined(engine), schema))
    }

    fn examined(engine: Engine) -> Self {
        // Nobody asks for it: the schema may be any.
        Self::new(engine, Schema { found: 0, now: 0 })
    }

    /// Asks every server of a PostgreSQL database who it is. Returns the names of those that cannot be used, with the reasons.
    pub async fn unusable_servers(&self) -> Vec<(String, String)> {
        match &self.engine {
            Engine::Sqlite { .. } => Vec::new(),
            Engine::Postgres { connector, .. } => connector.examine().await,
        }
    }
}

/// Opens a database file. A server that starts or stops at this moment makes or removes the other files, so it is tried again.
async fn open_read_only(file: &Path) -> Result<(SqlitePool, SchemaState), OpenError> {
    let mut attempt = 1;
    loop {
        let options = read_only(file)?;
        let opened = async {
            let pool = PoolOptions::new().max_connections(1);
            let read = pool.connect_with(options).await?;
            let schema = compare_sqlite(&mut *read.acquire().await?).await?;
            Ok::<_, sqlx::Error>((read, schema))
        };
        match opened.await {
            Ok(opened) => return Ok(opened),
            Err(error) if attempt == ATTEMPTS => return Err(unreadable(file, &error)),
            Err(_) => sleep(RETRY_INTERVAL).await,
        }
        attempt += 1;
    }
}

/// The options for reading a database file without writing anything, not even SQLite's index of the write-ahead log.
fn read_only(file: &Path) -> Result<SqliteConnectOptions, OpenError> {
    let other = |ending: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let (log, index) = (other("-wal"), other("-shm"));
    let options = SqliteConnectOptions::new().read_only(true);
    let Ok(of_log) = fs::metadata(&log) else {
        return Ok(options.filename(file).immutable(true));
    };
    let owner = |file: &Metadata| (file.uid(), file.gid());
    let is_foreign = fs::metadata(file).is_ok_and(|file| owner(&file) != owner(&of_log));
    if is_foreign && geteuid().is_root() {
        return Err(OpenError::Unfit(format!(
            "{} has another owner or group than the database, and SQLite would correct that before it reads. Correct it: chown \
             --reference={} {}",
            log.display(),
            file.display(),
            log.display()
        )));
    }
    match (index.exists(), of_log.len()) {
        // A server runs, or has crashed. Without the right to write the index, SQLite makes one in memory if nobody keeps it.
        (true, _) => {
            let path = percent_encode(file.as_os_str().as_bytes(), NON_ALPHANUMERIC);
            Ok(options
                .filename(format!("file:{path}?mode=ro&readonly_shm=1"))
                .busy_timeout(Duration::from_secs(5)))
        }
        (false, 0) => Ok(options.filename(file).immutable(true)),
        (false, _) => Err(OpenError::Unfit(format!(
            "{} is there without {}, as in a copy, and SQLite cannot read the database then without writing. Start the server, \
             then look again",
            log.display(),
            index.display()
        ))),
    }
}

fn unreadable(file: &Path, error: &sqlx::Error) -> OpenError {
    // SQLite's own error for it is "unable to open database file".
    if let Err(denied) = File::open(file) {
        return OpenError::Unfit(format!(
            "the database {} cannot be read: {denied}. Run this as the server's user, which owns the file",
            file.display()
        ));
    }
    OpenError::Unfit(format!(
        "the database {} cannot be read: {error}{}",
        file.display(),
        advice(error)
    ))
}

async fn compare_sqlite(connection: &mut SqliteConnection) -> Result<SchemaState, sqlx::Error> {
    let table = "SELECT count(*) > 0 FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    let has_table = sqlx::query_scalar(table)
        .fetch_one(&mut *connection)
        .await?;
    let migrations = migrations::sqlite();
    schema(has_table, migrations::compare(&migrations, connection)).await
}

async fn compare_postgres(connection: &mut PgConnection) -> Result<SchemaState, sqlx::Error> {
    let table = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    let has_table = sqlx::query_scalar(table)
        .fetch_one(&mut *connection)
        .await?;
    let migrations = migrations::postgres();
    schema(has_table, migrations::compare(&migrations, connection)).await
}

async fn schema(
    has_table: bool,
    compared: impl Future<Output = Result<SchemaState, MigrateError>>,
) -> Result<SchemaState, sqlx::Error> {
    if !has_table {
        return Ok(SchemaState::Missing);
    }
    compared.await.map_err(|error| match error {
        MigrateError::Execute(error) => error,
        other => sqlx::Error::Migrate(Box::new(other)),
    })
}

impl Snapshot {
    /// Returns the number of keys.
    pub async fn key_count(&mut self) -> Result<u64, Error> {
        let count: i64 = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT count(*) FROM keys"
        )
        .fetch_one(&mut *conn))?;
        Ok(count.unsigned_abs())
    }

    /// Returns the settings on which durability depends; `None` if the database is embedded.
    pub async fn durability(&mut self) -> Result<Option<Durability>, Error> {
        if let EngineTransaction::Sqlite(_) = &self.session.transaction {
            return Ok(None);
        }
        let settings: (String, String, String, String, String, i64) = on!(self.session, |conn| {
            sqlx::query_as(
                "SELECT current_setting('fsync'), current_setting('full_page_writes'),
                     current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
                     current_setting('default_transaction_read_only'), (SELECT count(*) FROM pg_stat_replication)"
            )
            .fetch_one(&mut *conn)
        })?;
        let (fsync, full_page_writes, commit, standby_names, read_only, standbys) = settings;
        Ok(Some(Durability {
            fsync,
            full_page_writes,
            synchronous_commit: commit,
            synchronous_standby_names: standby_names,
            default_transaction_read_only: read_only,
            standbys,
        }))
    }

    /// Returns how many connections a PostgreSQL database allows; `None` if the database is embedded.
    pub async fn database_limits(&mut self) -> Result<Option<DatabaseLimits>, Error> {
        if let EngineTransaction::Sqlite(_) = &self.session.transaction {
            return Ok(None);
        }
        let (connections, used, of_role, of_database): (i64, i64, i64, i64) = on!(
            self.session,
            |conn| {
                sqlx::query_as(
                "SELECT current_setting('max_connections')::bigint
                     - current_setting('superuser_reserved_connections')::bigint
                     - COALESCE(current_setting('reserved_connections', true), '0')::bigint,
                     (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
                     (SELECT rolconnlimit::bigint FROM pg_roles WHERE rolname = current_user),
                     (SELECT datconnlimit::bigint FROM pg_database WHERE datname = current_database())"
            )
            .fetch_one(&mut *conn)
            }
        )?;
        // -1 stands for no limit.
        let limit = |limit: i64| (limit >= 0).then_some(limit);
        Ok(Some(DatabaseLimits {
            connections,
            used,
            of_role: limit(of_role),
            of_database: limit(of_database),
        }))
    }

    /// Returns the names of the tables that the role may not read and write as a server does; empty if the database is embedded.
    pub async fn denied_tables(&mut self) -> Result<Vec<String>, Error> {
        if let EngineTransaction::Sqlite(_) = &self.session.transaction {
            return Ok(Vec::new());
        }
        // A server never writes the table of the migrations.
        let names = on!(self.session, |conn| {
            sqlx::query_scalar(
            "SELECT relname::text FROM pg_class
             WHERE relkind = 'r' AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('authority'))
                 AND NOT (has_table_privilege(oid, 'SELECT') AND (relname = '_sqlx_migrations' OR
                     has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'UPDATE')
                     AND has_table_privilege(oid, 'DELETE')))
             ORDER BY relname"
        )
        .fetch_all(&mut *conn)
        })?;
        Ok(names)
    }

    /// Checks the structure of an embedded database, within this time; `None` for PostgreSQL, which has no such check.
    pub async fn check_integrity(
        &mut self,
        time: Duration,
    ) -> Result<Option<IntegrityCheck>, Error> {
        if let EngineTransaction::Postgres(_) = &self.session.transaction {
            return Ok(None);
        }
        let limit = self.session.limit_search(time).await?;
        let found: Result<Vec<String>, _> = on!(self.session, |conn| sqlx::query_scalar(
            "PRAGMA quick_check(3)"
        )
        .fetch_all(&mut *conn));
        drop(limit);
        Ok(Some(match found.map_err(search_error) {
            Ok(found) if found == ["ok"] => IntegrityCheck::Sound,
            Ok(found) => IntegrityCheck::Damaged(found),
            Err(Error::TooBroad) => IntegrityCheck::Unfinished,
            // A page that cannot be read at all.
            Err(Error::Unavailable(error)) if !advice(&error).is_empty() => {
                IntegrityCheck::Damaged(vec![error.to_string()])
            }
            Err(error) => return Err(error),
        }))
    }
}
