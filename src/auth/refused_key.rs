//! The key of a caller that is proven, but not accepted.

use crate::domain::ids::{KeyId, PartnerId, RealmId};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredSecret};

/// A caller's own key that is refused, with facts that its holder may know. The caller has proven the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedKey {
    /// The key.
    pub id: KeyId,
    /// The display name of the key; may be empty.
    pub name: String,
    /// The realm of the key.
    pub realm: RealmId,
    /// The partner that owns the key.
    pub partner: PartnerId,
    /// Why the key is refused.
    pub objection: KeyObjection,
}

/// Why a proven key is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyObjection {
    /// The key is revoked.
    Revoked,
    /// The key is disabled.
    Disabled,
    /// The key has expired at this time.
    Expired(Timestamp),
    /// The overlap of a rotation has ended at this time, and the caller presented the old secret.
    OldSecret(Timestamp),
    /// The partner that owns the key is suspended.
    PartnerSuspended,
    /// The key may not be used from the caller's address.
    AddressDenied,
}

impl RefusedKey {
    pub(super) fn new(key: KeyFacts<'_>, objection: KeyObjection) -> Self {
        Self {
            id: key.id(),
            name: key.name_and_labels().name().to_owned(),
            realm: key.realm().clone(),
            partner: key.partner().id.clone(),
            objection,
        }
    }
}

impl KeyObjection {
    /// Returns what a verdict on a caller's key says against the key; `None` if it allows the call.
    pub(super) fn of(
        verdict: Verdict,
        key: KeyFacts<'_>,
        secret: MirroredSecret,
        now: Timestamp,
    ) -> Option<Self> {
        Some(match verdict {
            Verdict::Allowed => return None,
            Verdict::Revoked => Self::Revoked,
            Verdict::Disabled => Self::Disabled,
            Verdict::PartnerSuspended => Self::PartnerSuspended,
            Verdict::AddressDenied => Self::AddressDenied,
            // The question about a caller asks for nothing else that a key could fail.
            _ => match key.expires_at() {
                Expiry::At(end) if end <= now => Self::Expired(end),
                _ => Self::OldSecret(Option::from(secret.expires_at).unwrap_or(now)),
            },
        })
    }

    /// Returns the verdict on the key.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Revoked => Verdict::Revoked,
            Self::Disabled => Verdict::Disabled,
            Self::Expired(_) | Self::OldSecret(_) => Verdict::Expired,
            Self::PartnerSuspended => Verdict::PartnerSuspended,
            Self::AddressDenied => Verdict::AddressDenied,
        }
    }

    /// Returns what is wrong and what to do. The text tells nothing of the key.
    pub fn message(self) -> &'static str {
        match self {
            Self::Revoked => "the caller's key is revoked: use another key",
            Self::Disabled => "the caller's key is disabled: enable it, or use another key",
            Self::Expired(_) => "the caller's key has expired: use another key",
            Self::OldSecret(_) => {
                "the old secret of the caller's key has expired: use the new API key of this key, or another key"
            }
            Self::PartnerSuspended => {
                "the partner that owns the caller's key is suspended: ask an operator to restore the partner"
            }
            Self::AddressDenied => {
                "the caller's key may not be used from this address: check the `allowed_cidrs` of the key"
            }
        }
    }
}
