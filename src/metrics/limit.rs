//! Refusals because a limit is reached.

use super::Counter;

/// A limit that can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of the connections of a listener.
    Connections,
    /// Of the connections of an address.
    ConnectionsOfAddress,
    /// Of the TLS handshakes of an address.
    Handshakes,
    /// Of the calls in progress.
    Calls,
    /// Of the calls of health and reflection in progress.
    AnonymousCalls,
    /// Of the open streams of questions.
    VerifyStreams,
    /// Of the bytes of incomplete bodies.
    Bodies,
    /// Of the changes that wait.
    Changes,
    /// Of the reads that wait.
    Reads,
    /// Of the new API keys whose hashes wait.
    NewKeys,
    /// Of the changes of a partner's own keys in an hour.
    DelegatedChanges,
    /// Of the room on the disk.
    DiskReserve,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 12] = [
        Self::Connections,
        Self::ConnectionsOfAddress,
        Self::Handshakes,
        Self::Calls,
        Self::AnonymousCalls,
        Self::VerifyStreams,
        Self::Bodies,
        Self::Changes,
        Self::Reads,
        Self::NewKeys,
        Self::DelegatedChanges,
        Self::DiskReserve,
    ];

    /// The name as the value of a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsOfAddress => "connections_of_address",
            Self::Handshakes => "handshakes",
            Self::Calls => "calls",
            Self::AnonymousCalls => "anonymous_calls",
            Self::VerifyStreams => "verify_streams",
            Self::Bodies => "bodies",
            Self::Changes => "changes",
            Self::Reads => "reads",
            Self::NewKeys => "new_keys",
            Self::DelegatedChanges => "delegated_changes",
            Self::DiskReserve => "disk_reserve",
        }
    }
}

/// How often something was refused because of each limit.
#[derive(Debug, Default)]
pub struct Refusals([Counter; Limit::ALL.len()]);

impl Refusals {
    /// Counts a refusal.
    pub fn count(&self, limit: Limit) {
        self.0[limit as usize].count();
    }

    /// How often this limit was the reason.
    pub fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `as_str` names each limit, so a new one cannot be forgotten there.
    #[test]
    fn each_limit_is_listed_at_its_place() {
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index, "{limit:?}");
        }
        assert_eq!(Limit::DiskReserve as usize + 1, Limit::ALL.len());
    }
}
