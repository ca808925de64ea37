//! What all connections to PostgreSQL have in common: deadlines, timeouts on the server's side, and the errors of the driver.

use std::future::Future;
use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use super::OpenError;

/// Waits for an answer of the database, for at most `deadline`.
pub(super) async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(deadline, answer)
        .await
        .unwrap_or_else(|_| Err(late(deadline)))
}

/// The error of an answer that was not there within `deadline`.
pub(super) fn late(deadline: Duration) -> sqlx::Error {
    let late = format!("no answer within {deadline:?}");
    io::Error::new(io::ErrorKind::TimedOut, late).into()
}

/// Returns the options with timeouts on the server's side.
///
/// No lock may be held without a time limit, neither by a statement or transaction that hangs nor by a client whose machine is
/// gone.
pub(super) fn watched(options: PgConnectOptions, deadline: Duration) -> PgConnectOptions {
    let deadline = deadline.as_millis().to_string();
    options.application_name("claviger").options([
        ("idle_in_transaction_session_timeout", deadline.as_str()),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "20s"),
    ])
}

/// Converts an error of the driver. These errors contain neither the URL nor a password.
pub(super) fn unreachable(error: &sqlx::Error) -> OpenError {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    let advice = match (error, code.as_deref()) {
        (sqlx::Error::Io(_), _) => {
            ". Check that PostgreSQL runs, and the host and port in --database-url"
        }
        // SQLSTATE class 28 is an invalid authorization, 3D000 an unknown database.
        (_, Some(code)) if code.starts_with("28") || code == "3D000" => {
            ". Check the user, the password and the database in --database-url"
        }
        (_, Some("42501")) => ". Give the role its rights: see docs/postgresql.md",
        // PostgreSQL knows every parameter that this program sends, and PgBouncer does not.
        (_, Some("08P01")) => {
            ". If a connection pooler answers there, connect to PostgreSQL directly"
        }
        _ => "",
    };
    OpenError::Unreachable(format!("the database cannot be reached: {error}{advice}"))
}
