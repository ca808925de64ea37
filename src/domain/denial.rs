//! What a denial looks like over HTTP, as the API's own documentation has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::credential::HeaderName;
use super::verdict::Verdict;

/// The largest body of a denial, in bytes.
pub const MAX_BODY: usize = 4_096;

/// How many headers a denial may have.
pub const MAX_HEADERS: usize = 16;

/// The classes into which HTTP divides what is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialClass {
    /// The request did not prove who it is: 401.
    Unauthenticated,
    /// It did, but may not do this: 403.
    Forbidden,
    /// It cannot be told now: 503.
    Undecided,
}

impl DenialClass {
    /// How many classes there are.
    pub const COUNT: usize = 3;

    /// The class of a verdict; none if it is no denial.
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

    /// Its status if the realm says nothing.
    pub fn status(self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::Undecided => 503,
        }
    }
}

/// How a class of denials is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The status: 400 to 499, of what is undecided 500 to 599.
    pub status: u16,
    /// Headers of the answer, such as `www-authenticate` and `content-type`.
    pub headers: BTreeMap<HeaderName, String>,
    /// The body; `{{verdict}}` in it stands for the verdict's name.
    pub body: String,
}

/// The denials of a realm: for a class that is not there, the plain one.
pub type Denials = BTreeMap<DenialClass, Denial>;

impl Denial {
    /// How a class is told of which a realm says nothing: its status, and for 401 the challenge that RFC 9110 requires.
    pub fn plain(class: DenialClass) -> Self {
        Self {
            status: class.status(),
            headers: BTreeMap::new(),
            body: String::new(),
        }
    }

    /// The body for a verdict of this name.
    pub fn body_for(&self, verdict: &str) -> String {
        self.body.replace("{{verdict}}", verdict)
    }
}
