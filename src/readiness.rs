//! Whether this process should get requests.

use std::fmt;

/// Whether requests should come here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The keys are not in memory yet.
    Starting,
    /// They should.
    Ready,
    /// The process is about to end.
    Draining,
    /// The store contradicts what it said before.
    Distrusted(String),
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting: the keys are not in memory yet"),
            Self::Ready => f.write_str("ready"),
            Self::Draining => f.write_str("draining: this process is about to end"),
            Self::Distrusted(why) => f.write_str(why),
        }
    }
}
