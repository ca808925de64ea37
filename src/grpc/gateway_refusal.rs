//! The log of gateways that get a refusal.

use std::net::IpAddr;

use tonic::{Code, Status};

use crate::gateway::{ProtectedApi, log_misconfigured};

/// Logs a refusal that says that a gateway is misconfigured.
pub(super) fn log_refusal(
    peer: Option<IpAddr>,
    api: Option<ProtectedApi<'_>>,
    request_id: Option<&str>,
    refusal: &Status,
) {
    let is_misconfigured = matches!(
        refusal.code(),
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument
    );
    if is_misconfigured {
        log_misconfigured(refusal.message(), peer, api, request_id);
    }
}
