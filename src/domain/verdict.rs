//! The answer to "is this key good for this?".

/// Allowed, or the first reason for a denial. The denials are in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The presented text cannot be an API key.
    Malformed,
    /// The realm has no such key, or the secret is wrong.
    Unknown,
    /// The key is revoked, which cannot be undone.
    Revoked,
    /// The key is disabled.
    Disabled,
    /// The key or the presented secret is expired.
    Expired,
    /// The key belongs to another environment.
    EnvironmentMismatch,
    /// The request names a partner that does not own the key.
    PartnerMismatch,
    /// The partner is suspended.
    PartnerSuspended,
    /// The key does not reach the target.
    ProjectMismatch,
    /// The key may not be used from the client's address.
    AddressDenied,
    /// The key does not hold a required scope.
    ScopeMissing,
    /// No route of the realm matches the request.
    NoRoute,
    /// The key allows the request.
    Allowed,
}

impl Verdict {
    /// All verdicts, in the order of their values.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Unknown,
        Self::Revoked,
        Self::Disabled,
        Self::Expired,
        Self::EnvironmentMismatch,
        Self::PartnerMismatch,
        Self::PartnerSuspended,
        Self::ProjectMismatch,
        Self::AddressDenied,
        Self::ScopeMissing,
        Self::NoRoute,
        Self::Allowed,
    ];

    /// The verdicts that are possible on a proven key, in the order of their values.
    pub const PROVEN: &[Self] = Self::ALL.split_at(2).1;

    /// Returns the name in the proto files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "VERDICT_MALFORMED",
            Self::Unknown => "VERDICT_UNKNOWN",
            Self::Revoked => "VERDICT_REVOKED",
            Self::Disabled => "VERDICT_DISABLED",
            Self::Expired => "VERDICT_EXPIRED",
            Self::EnvironmentMismatch => "VERDICT_ENVIRONMENT_MISMATCH",
            Self::PartnerMismatch => "VERDICT_PARTNER_MISMATCH",
            Self::PartnerSuspended => "VERDICT_PARTNER_SUSPENDED",
            Self::ProjectMismatch => "VERDICT_PROJECT_MISMATCH",
            Self::AddressDenied => "VERDICT_ADDRESS_DENIED",
            Self::ScopeMissing => "VERDICT_SCOPE_MISSING",
            Self::NoRoute => "VERDICT_NO_ROUTE",
            Self::Allowed => "VERDICT_ALLOWED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `as_str` names each verdict, so a new one cannot be forgotten there.
    #[test]
    fn each_verdict_is_listed_at_its_place_and_those_on_a_proven_key_are_the_last_ones() {
        for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, index, "{verdict:?}");
        }
        assert_eq!(Verdict::ALL.last(), Some(&Verdict::Allowed));
        assert_eq!(Verdict::PROVEN.first(), Some(&Verdict::Revoked));
    }
}
