//! The HTTP responses for denials, as an API documents them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::credential::{CredentialError, HeaderName};
use super::verdict::Verdict;

/// The maximum length of a denial's body, in bytes.
pub const MAX_BODY: usize = 4_096;

/// The maximum number of headers of a denial.
pub const MAX_HEADERS: usize = 16;

/// A class of requests that do not pass, by HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialClass {
    /// The request has no valid credentials: 401.
    Unauthenticated,
    /// The credentials are valid, but do not allow the request: 403.
    Forbidden,
    /// The authority cannot decide now: 503.
    Undecided,
}

impl DenialClass {
    /// The number of classes.
    pub const COUNT: usize = 3;

    /// Returns the class of a verdict; `None` for [`Verdict::Allowed`].
    pub fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Malformed
            | Verdict::Unknown
            | Verdict::Revoked
            | Verdict::Disabled
            | Verdict::Expired
            | Verdict::EnvironmentMismatch
            | Verdict::PartnerMismatch => Some(Self::Unauthenticated),
            Verdict::PartnerSuspended
            | Verdict::ProjectMismatch
            | Verdict::AddressDenied
            | Verdict::ScopeMissing
            | Verdict::NoRoute => Some(Self::Forbidden),
            Verdict::Allowed => None,
        }
    }

    /// Returns the status for a realm that defines no denial of this class.
    pub fn status(self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::Undecided => 503,
        }
    }
}

/// A realm's HTTP response for a class of denials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// The status: 400 to 499, or 500 to 599 for [`DenialClass::Undecided`].
    pub status: u16,
    /// The headers of the response, such as `www-authenticate` and `content-type`.
    pub headers: BTreeMap<HeaderName, String>,
    /// The body. `{{verdict}}` and `{{reason}}` are placeholders for the name of the verdict and of the [`DenialReason`].
    pub body: String,
}

/// The denials of a realm. [`Denial::plain`] applies to a class that is missing.
pub type Denials = BTreeMap<DenialClass, Denial>;

impl Denial {
    /// Returns the denial for a class that a realm does not define: the status of the class, no headers and an empty body.
    pub fn plain(class: DenialClass) -> Self {
        Self {
            status: class.status(),
            headers: BTreeMap::new(),
            body: String::new(),
        }
    }

    /// Returns the body for a denial for this reason.
    pub fn body_for(&self, reason: DenialReason) -> String {
        let body = self.body.replace("{{verdict}}", reason.verdict());
        body.replace("{{reason}}", reason.as_str())
    }
}

/// Why a request does not pass. It tells more than a verdict where the client made a mistake with its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialReason {
    /// The request has no key.
    NoKey,
    /// The credentials are not in the form that the realm asks for.
    Credentials(CredentialError),
    /// The verdict on the key says it.
    Verdict(Verdict),
    /// The authority cannot decide now.
    Undecided,
}

impl DenialReason {
    /// Returns the name of the reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoKey => "NO_KEY",
            Self::Credentials(CredentialError::Malformed) => "CREDENTIALS_MALFORMED",
            Self::Credentials(CredentialError::SeveralKeys) => "SEVERAL_KEYS",
            Self::Credentials(CredentialError::Partner) => "PARTNER_MALFORMED",
            Self::Verdict(Verdict::Malformed) => "KEY_MALFORMED",
            Self::Verdict(verdict) => {
                let name = verdict.as_str();
                name.strip_prefix("VERDICT_").unwrap_or(name)
            }
            Self::Undecided => "UNDECIDED",
        }
    }

    /// Returns the name of the verdict, or `UNDECIDED`.
    pub fn verdict(self) -> &'static str {
        match self {
            Self::NoKey | Self::Credentials(_) => Verdict::Malformed.as_str(),
            Self::Verdict(verdict) => verdict.as_str(),
            Self::Undecided => "UNDECIDED",
        }
    }
}
