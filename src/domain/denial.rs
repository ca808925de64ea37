//! The HTTP responses for denials, as an API documents them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::credential::HeaderName;
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
    /// The body. Each `{{verdict}}` is a placeholder for the verdict's name.
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

    /// Returns the body for a verdict with this name.
    pub fn body_for(&self, verdict: &str) -> String {
        self.body.replace("{{verdict}}", verdict)
    }
}
