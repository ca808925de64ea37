//! The readiness of the server: whether it should get requests.

use std::fmt;

/// Whether the server should get requests, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The keys are not in memory yet.
    Starting,
    /// The server should get requests.
    Ready,
    /// The lease has lapsed, because the database does not answer.
    LeaseLapsed,
    /// The process is about to end.
    Draining,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting: the keys are not in memory yet"),
            Self::Ready => f.write_str("ready"),
            Self::LeaseLapsed => f.write_str(
                "lease lapsed: the database has not answered for too long, so this server does not know what was taken away since",
            ),
            Self::Draining => f.write_str("draining: this process is about to end"),
        }
    }
}
