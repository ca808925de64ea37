//! The answer to "is this key good for this?".

/// Allowed, or the first reason why not. The denials stand in the order of decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The text cannot be a key.
    Malformed,
    /// No such key in this realm, or a wrong secret.
    Unknown,
    /// Ended for ever.
    Revoked,
    /// Switched off.
    Disabled,
    /// The key, or the presented secret, has reached its end.
    Expired,
    /// A key of another environment.
    EnvironmentMismatch,
    /// The request names another partner than the owner.
    PartnerMismatch,
    /// The partner has no access at present.
    PartnerSuspended,
    /// The key does not reach the target.
    ProjectMismatch,
    /// Not from this address.
    AddressDenied,
    /// A wanted scope is not held.
    ScopeMissing,
    /// No rule of the realm matches the request.
    NoRoute,
    /// The key is good for this.
    Allowed,
}

impl Verdict {
    /// Those that can be given on a key whose text proved it, in the order of their values.
    pub const PROVEN: [Self; 11] = [
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

    /// Its place among [`Verdict::PROVEN`]; none if it is not one of them.
    pub const fn proven_index(self) -> Option<usize> {
        (self as usize).checked_sub(Self::Revoked as usize)
    }

    /// Its name in the contract.
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

    #[test]
    fn each_verdict_on_a_proven_key_stands_in_its_place() {
        for (place, verdict) in Verdict::PROVEN.into_iter().enumerate() {
            assert_eq!(verdict.proven_index(), Some(place), "{verdict:?}");
        }
        assert_eq!(Verdict::Malformed.proven_index(), None);
        assert_eq!(Verdict::Unknown.proven_index(), None);
        assert_eq!(
            Verdict::Allowed.proven_index(),
            Some(Verdict::PROVEN.len() - 1)
        );
    }
}
