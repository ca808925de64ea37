//! The key that a call carries in its metadata.

use std::net::IpAddr;

use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::status;
use crate::authority::{Caller, Holder};
use crate::callers::{Callers, NotLetIn, bearer};
use crate::domain::ids::{PartnerId, RealmId};
use crate::verify::Undecided;

/// Who makes this call of administration.
pub(super) fn caller<T>(callers: &Callers, request: &Request<T>) -> Result<Caller, Status> {
    let text = bearer_of(request.metadata())?;
    Ok(callers.caller(text, peer(request))?)
}

/// Who holds the key that this call carries, and the owner of that key.
pub(super) fn holder<T>(
    callers: &Callers,
    request: &Request<T>,
) -> Result<(Holder, (RealmId, PartnerId)), Status> {
    let text = bearer_of(request.metadata())?;
    let (holder, realm, partner) = callers.holder(text, peer(request))?;
    Ok((holder, (realm, partner)))
}

/// Where a call comes from.
pub(super) fn peer<T>(request: &Request<T>) -> Option<IpAddr> {
    request.remote_addr().map(|peer| peer.ip())
}

/// The key in `authorization: Bearer KEY`, which must stand there once.
pub(super) fn bearer_of(metadata: &MetadataMap) -> Result<&str, Status> {
    let mut values = metadata.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(status::unauthenticated(
            "the call must carry one key of the caller's own, in the metadata \"authorization: Bearer KEY\"",
        ));
    };
    bearer(value.as_bytes()).ok_or_else(|| {
        status::unauthenticated("the metadata \"authorization\" must read \"Bearer KEY\"")
    })
}

impl From<NotLetIn> for Status {
    fn from(reason: NotLetIn) -> Self {
        match reason {
            NotLetIn::Starting => status::starting(),
            NotLetIn::Unproven(why) => status::unauthenticated(why),
            NotLetIn::Forbidden(why) => status::forbidden(why),
            NotLetIn::Undecided(Undecided::PepperMissing) => status::pepper_missing(),
            NotLetIn::Undecided(Undecided::Corrupt) | NotLetIn::Broken => status::internal(),
        }
    }
}

/// An address as the end client's, or a sentence that says what it should be.
pub(super) fn client_ip(text: &str) -> Result<Option<IpAddr>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "must be an IP address such as 192.0.2.7 or 2001:db8::7")
}
