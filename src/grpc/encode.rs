//! Encodes the fields that answers of more than one service have.

use std::time::Duration;

use prost_types::Timestamp as PbTimestamp;

use crate::domain::ids::ScopeName;
use crate::domain::key::LevelKind;
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::verdict::Verdict;
use crate::pb::claviger::v1 as pb;

pub(super) fn time(time: Timestamp) -> PbTimestamp {
    let micros = time.as_micros();
    PbTimestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: micros.rem_euclid(1_000_000) as i32 * 1_000,
    }
}

pub(super) fn expiry(expiry: Expiry) -> Option<PbTimestamp> {
    Option::from(expiry).map(time)
}

pub(super) fn span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: span.subsec_nanos() as i32,
    }
}

pub(super) fn level(level: LevelKind) -> pb::KeyLevel {
    match level {
        LevelKind::Partner => pb::KeyLevel::Partner,
        LevelKind::Project => pb::KeyLevel::Project,
    }
}

/// Returns the names of scopes.
pub(super) fn scope_names<'a>(scopes: impl IntoIterator<Item = &'a ScopeName>) -> Vec<String> {
    // `to_string` formats where a copy is enough, and this function runs for every request.
    let scopes = scopes.into_iter();
    scopes.map(|scope| scope.as_str().to_owned()).collect()
}

pub(super) fn verdict(verdict: Verdict) -> pb::Verdict {
    match verdict {
        Verdict::Malformed => pb::Verdict::Malformed,
        Verdict::Unknown => pb::Verdict::Unknown,
        Verdict::Revoked => pb::Verdict::Revoked,
        Verdict::Disabled => pb::Verdict::Disabled,
        Verdict::Expired => pb::Verdict::Expired,
        Verdict::EnvironmentMismatch => pb::Verdict::EnvironmentMismatch,
        Verdict::PartnerMismatch => pb::Verdict::PartnerMismatch,
        Verdict::PartnerSuspended => pb::Verdict::PartnerSuspended,
        Verdict::ProjectMismatch => pb::Verdict::ProjectMismatch,
        Verdict::AddressDenied => pb::Verdict::AddressDenied,
        Verdict::ScopeMissing => pb::Verdict::ScopeMissing,
        Verdict::NoRoute => pb::Verdict::NoRoute,
        Verdict::Allowed => pb::Verdict::Allowed,
    }
}
