//! What a server of PostgreSQL says about itself, and why it is not used.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

use crate::store::driver::within;

/// The timeline of PostgreSQL on which a primary writes. It changes when a standby is promoted.
macro_rules! timeline {
    () => {
        "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint"
    };
}
pub(in crate::store) use timeline;

/// The oldest supported version of PostgreSQL, in the form of `server_version_num`.
const MIN_VERSION: u32 = 140_000;

/// The timeline on which a server writes, NULL for a standby; and whether its database has a claviger schema.
const SELF: &str = concat!(
    "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE ",
    timeline!(),
    " END, to_regclass('authority') IS NOT NULL"
);

/// The seal is random, and one authority has the same on all its servers. It is a secret, so its digest is read.
const AUTHORITY: &str = "SELECT encode(sha256(seal), 'hex') FROM authority";

/// What a server says about itself.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// The timeline on which it writes; `None` if it is a standby.
    pub(super) timeline: Option<i64>,
    /// The authority in its database; `None` if there is none yet.
    pub(super) authority: Option<AuthorityId>,
}

/// Tells one authority from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuthorityId(String);

#[cfg(test)]
impl AuthorityId {
    pub(super) fn for_tests(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl Identity {
    /// Asks the server at the other end of a connection.
    pub(super) async fn of(connection: &mut PgConnection) -> Result<Self, ConnectError> {
        let version = connection.server_version_num().unwrap_or(0);
        if version < MIN_VERSION {
            return Err(Refusal::TooOld(version / 10_000).into());
        }
        let of_server = sqlx::query_as(SELF).persistent(false);
        let (timeline, has_schema): (Option<i64>, bool) =
            of_server.fetch_one(&mut *connection).await?;
        let authority = if has_schema {
            let of_database = sqlx::query_scalar(AUTHORITY).persistent(false);
            of_database.fetch_optional(&mut *connection).await?
        } else {
            None
        };
        Ok(Self {
            timeline,
            authority: authority.map(AuthorityId),
        })
    }
}

/// The reason why a server that answers is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::store) enum Refusal {
    /// It follows a primary.
    #[error(
        "the server is a standby, which takes no changes: promote it, or add the primary with another --database-url"
    )]
    Standby,
    /// Its database has another authority, or none where there should be one.
    #[error("the database is of another authority: correct --database-url")]
    OtherAuthority,
    /// A server with a higher timeline has replaced it.
    #[error("the server was replaced by another one that was promoted: cut it off")]
    Replaced,
    /// Its version is not supported.
    #[error("the database is PostgreSQL {0}: use PostgreSQL {min} or later", min = MIN_VERSION / 10_000)]
    TooOld(u32),
    /// A pooler gives a session of the server to each transaction.
    #[error(
        "--database-url leads to a connection pooler that gives a connection to each transaction, such as PgBouncer in transaction \
         mode, so no lock would last: connect to PostgreSQL directly"
    )]
    Pooled,
}

impl Refusal {
    /// Whether it is a mistake of the configuration, which a later attempt meets again.
    pub(in crate::store) fn is_of_configuration(self) -> bool {
        matches!(self, Self::TooOld(_) | Self::Pooled)
    }

    /// Whether an operator must know of it although another server is used.
    pub(super) fn is_alarming(self) -> bool {
        self != Self::Standby
    }
}

/// The reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum ConnectError {
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] sqlx::Error),
    /// The server answers, and is not used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another server was chosen meanwhile.
    #[error("another server of the database has become the primary")]
    Moved,
}

impl From<ConnectError> for sqlx::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Driver(error) => error,
            other => std::io::Error::other(other).into(),
        }
    }
}

/// Whether a connection has a session of the server for itself. If not, it leads to a pooler.
///
/// Two sessions that exist at the same time have two processes of the server. Statements of one session have the same. A pooler that
/// gives a session to each transaction breaks one of these rules: an idle one gives both connections the same session, one that takes
/// turns gives a connection different ones, and any other must give the first connection another session while the second one has a
/// transaction on the first one's. The statements are of the simple protocol, because such a pooler may know no prepared ones. The
/// second connection, and all statements together, have the deadline.
pub(super) async fn has_own_session(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
    deadline: Duration,
) -> Result<bool, sqlx::Error> {
    let mut second = within(deadline, options.connect()).await?;
    let compared = within(deadline, has_own_process(connection, &mut second));
    let is_own = compared.await?;
    let _ = within(deadline, second.close()).await;
    Ok(is_own)
}

async fn has_own_process(
    connection: &mut PgConnection,
    second: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    let own = process(connection).await?;
    if process(connection).await? != own || process(second).await? == own {
        return Ok(false);
    }
    sqlx::raw_sql("BEGIN").execute(&mut *second).await?;
    let other = process(second).await?;
    Ok(other != own && process(connection).await? == own)
}

/// The process of the server that runs a statement.
async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let row = sqlx::raw_sql("SELECT pg_backend_pid()")
        .fetch_one(connection)
        .await?;
    row.try_get(0)
}
