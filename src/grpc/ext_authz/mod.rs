//! `envoy.service.auth.v3.Authorization`: Envoy sends a whole request and gets a decision.
//!
//! Envoy lets a request through if the `CheckResponse` has no status, so every response here has a status. If there is no
//! decision, the answer is a gRPC error, so that Envoy's `failure_mode_allow` applies.

mod request;
mod response;

use std::sync::Arc;

use request::CheckQuestion;
use response::check_response;
use tonic::{Request, Response, Status};

use super::gateway_refusal::log_refusal;
use super::guard;
use super::status::{self, verify_error};
use crate::auth::Principal;
use crate::domain::violation::Violations;
use crate::gateway::{
    GatewayAuthorizer, GatewayError, GatewayRequest, ProtectedApi, client_address,
};
use crate::pb::encoded::authorization_server::Authorization;
use crate::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use crate::protobuf::Encoded;

/// The service that Envoy's `ext_authz` filter calls.
#[derive(Clone)]
pub struct ExtAuthzService {
    authorizer: Arc<GatewayAuthorizer>,
}

impl ExtAuthzService {
    /// Creates the service over this authorizer.
    pub fn new(authorizer: GatewayAuthorizer) -> Self {
        Self {
            authorizer: Arc::new(authorizer),
        }
    }

    /// Decides, without waiting for anything. Returns `None` if this is no encoded `CheckRequest`.
    pub(super) fn check_now(
        &self,
        gateway: &Principal,
        message: &[u8],
    ) -> Option<Result<Encoded<CheckResponse>, Status>> {
        let question = CheckQuestion::decode(message)?;
        Some(self.answer(gateway, &question))
    }

    fn answer(
        &self,
        gateway: &Principal,
        question: &CheckQuestion<'_>,
    ) -> Result<Encoded<CheckResponse>, Status> {
        let api = ProtectedApi {
            realm: question.configured("realm"),
            environment: question.configured("environment"),
        };
        self.decide(gateway, api, question).inspect_err(|refusal| {
            log_refusal(gateway.peer, Some(api), question.request_id(), refusal);
        })
    }

    fn decide(
        &self,
        gateway: &Principal,
        api: ProtectedApi<'_>,
        question: &CheckQuestion<'_>,
    ) -> Result<Encoded<CheckResponse>, Status> {
        if !question.has_attributes {
            return Err(missing("attributes"));
        }
        if !question.has_http {
            return Err(missing("attributes.request.http"));
        }
        let headers = question.headers();
        let trusted_hops = trusted_hops(question.configured("trusted_hops"))?;
        let request_at_gateway = GatewayRequest {
            method: question.method,
            target: question.target,
            headers,
            client: client_address(question.source.parse().ok(), headers, trusted_hops),
        };
        let answer = self
            .authorizer
            .answer(gateway, api, &request_at_gateway)
            .map_err(gateway_error)?;
        Ok(check_response(answer))
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthzService {
    async fn check(
        &self,
        request: Request<Encoded<CheckRequest>>,
    ) -> Result<Response<Encoded<CheckResponse>>, Status> {
        let gateway = guard::principal(&request)?;
        let message = request.get_ref();
        let answer = self.check_now(gateway, message.as_bytes());
        answer
            .ok_or_else(|| message.decode_error())?
            .map(Response::new)
    }
}

fn trusted_hops(configured: &str) -> Result<usize, Status> {
    if configured.is_empty() {
        return Ok(0);
    }
    configured.parse().map_err(|_| {
        let mut bad = Violations::default();
        bad.add(
            "attributes.context_extensions.trusted_hops",
            "must be a number: the count of trusted proxies in front of Envoy",
        );
        refuse(bad)
    })
}

fn missing(field: &str) -> Status {
    let mut bad = Violations::default();
    bad.add(field, "is required");
    refuse(bad)
}

fn refuse(bad: Violations) -> Status {
    match bad.finish(None::<()>) {
        Err(violations) => status::invalid(&violations),
        Ok(()) => status::internal(),
    }
}

fn gateway_error(reason: GatewayError) -> Status {
    let misconfigured = |name: &str, description: &str| {
        let mut bad = Violations::default();
        bad.add(format!("attributes.context_extensions.{name}"), description);
        refuse(bad)
    };
    match reason {
        GatewayError::Auth(reason) => reason.into(),
        GatewayError::Forbidden(reason) => reason.into(),
        GatewayError::UnknownRealm => misconfigured("realm", "must be a realm of this authority"),
        GatewayError::Environment(description) => misconfigured("environment", description),
        GatewayError::Verify(reason) => verify_error(reason),
    }
}
