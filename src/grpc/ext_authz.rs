//! `envoy.service.auth.v3.Authorization`: Envoy sends a whole request and gets a decision.
//!
//! Envoy lets a request through if the `CheckResponse` has no status, so every response here has a status. If there is no
//! decision, the answer is a gRPC error, so that Envoy's `failure_mode_allow` applies.

use std::net::IpAddr;
use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use super::guard;
use super::status::{self, verify_error};
use crate::auth::Principal;
use crate::domain::denial::DenialClass;
use crate::domain::violation::Violations;
use crate::gateway::{
    GatewayAuthorizer, GatewayError, GatewayRequest, GatewayResponse, ProtectedApi, client_address,
};
use crate::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use crate::pb::envoy::service::auth::v3::authorization_server::Authorization;
use crate::pb::envoy::service::auth::v3::check_response::HttpResponse;
use crate::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use crate::pb::envoy::r#type::v3::HttpStatus;

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

    /// Decides, without waiting for anything.
    pub(super) fn check_now(
        &self,
        gateway: &Principal,
        request: &CheckRequest,
    ) -> Result<CheckResponse, Status> {
        let attributes = request.attributes.as_ref();
        let attributes = attributes.ok_or_else(|| missing("attributes"))?;
        let http = attributes
            .request
            .as_ref()
            .and_then(|request| request.http.as_ref())
            .ok_or_else(|| missing("attributes.request.http"))?;
        let configured = |name: &str| {
            let value = attributes.context_extensions.get(name);
            value.map_or("", String::as_str)
        };
        let headers = headers(http);
        let request_at_gateway = GatewayRequest {
            method: &http.method,
            target: &http.path,
            headers: &headers,
            client: client_address(
                source(attributes),
                &headers,
                trusted_hops(configured("trusted_hops"))?,
            ),
        };
        let api = ProtectedApi {
            realm: configured("realm"),
            environment: configured("environment"),
        };
        let answer = self
            .authorizer
            .answer(gateway, api, &request_at_gateway)
            .map_err(gateway_error)?;
        Ok(response(answer))
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthzService {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let gateway = guard::principal(&request)?;
        self.check_now(gateway, request.get_ref())
            .map(Response::new)
    }
}

/// The headers, with one entry for each occurrence. Without `encode_raw_headers` Envoy has joined the occurrences.
fn headers(http: &HttpRequest) -> Vec<(&str, &[u8])> {
    if let Some(map) = &http.header_map {
        return map
            .headers
            .iter()
            .map(
                |HeaderValue {
                     key,
                     value,
                     raw_value,
                 }| {
                    let value = if raw_value.is_empty() {
                        value.as_bytes()
                    } else {
                        raw_value
                    };
                    (key.as_str(), value)
                },
            )
            .collect();
    }
    http.headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

/// The remote address of the connection on which Envoy received the request.
fn source(attributes: &AttributeContext) -> Option<IpAddr> {
    let address = attributes.source.as_ref()?.address.as_ref()?;
    address.socket_address.as_ref()?.address.parse().ok()
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

fn response(answer: GatewayResponse) -> CheckResponse {
    let (code, http) = match answer {
        GatewayResponse::Allowed { identity, remove } => {
            let headers = identity
                .into_iter()
                .map(|(name, value)| set(name.to_owned(), value));
            let ok = OkHttpResponse {
                headers: headers.collect(),
                headers_to_remove: remove,
            };
            (Code::Ok, HttpResponse::OkResponse(ok))
        }
        GatewayResponse::Denied { class, denial } => {
            let code = match class {
                DenialClass::Unauthenticated => Code::Unauthenticated,
                DenialClass::Forbidden => Code::PermissionDenied,
                DenialClass::Undecided => Code::Unavailable,
            };
            let headers = denial
                .headers
                .into_iter()
                .map(|(name, value)| set(name, value));
            let denied = DeniedHttpResponse {
                status: Some(HttpStatus {
                    code: denial.status.into(),
                }),
                headers: headers.collect(),
                body: denial.body,
            };
            (code, HttpResponse::DeniedResponse(denied))
        }
    };
    CheckResponse {
        status: Some(tonic_types::Status {
            code: code.into(),
            ..tonic_types::Status::default()
        }),
        http_response: Some(http),
    }
}

/// A header that replaces every header of this name, also with an empty value.
fn set(name: String, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name,
            value,
            raw_value: Vec::new(),
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: true,
    }
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
