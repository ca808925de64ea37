//! `/forward-auth/{realm}/{environment}`: gateways that speak HTTP ask about a whole request.
//!
//! It answers 200 with every identity header, or with the realm's denial. What is the gateway's own fault is 500, never 401:
//! a client must not hear that its key is bad because a gateway is set up wrongly.

use std::net::IpAddr;
use std::str;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use axum::routing::any;

use crate::auth::{AuthError, Forbidden, bearer};
use crate::config::{GatewayArgs, GatewayKind};
use crate::domain::denial::DenialClass;
use crate::gateway::{
    GatewayAuthorizer, GatewayError, GatewayRequest, GatewayResponse, HttpDenial, ProtectedApi,
    client_of,
};

/// Where a gateway presents its own key: `authorization` is the client's.
const GATEWAYS_KEY: &str = "x-claviger-authorization";

const PREFIX: &str = "/forward-auth/";

/// What a gateway asks, as far as it is told by the gateway itself.
struct Original<'r> {
    method: &'r str,
    target: String,
}

/// The gateway does not ask as its kind should. For those who set it up.
struct Misconfigured(String);

#[derive(Clone)]
struct Asked {
    authorizer: GatewayAuthorizer,
    gateway: GatewayArgs,
}

/// The authorizer over HTTP.
pub(super) fn router(authorizer: GatewayAuthorizer, gateway: GatewayArgs) -> Router {
    Router::new()
        .route("/forward-auth/{*api}", any(forward_auth))
        .with_state(Asked {
            authorizer,
            gateway,
        })
}

async fn forward_auth(
    State(asked): State<Asked>,
    ConnectInfo(peer): ConnectInfo<IpAddr>,
    request: Request<Body>,
) -> Response<Body> {
    match asked.answer(peer, &request) {
        Ok(GatewayResponse::Allowed { identity, .. }) => {
            let mut response = Response::new(Body::empty());
            for (name, value) in *identity {
                if let Ok(value) = HeaderValue::try_from(value) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Ok(GatewayResponse::Denied { class, told }) => {
            let status = match asked.gateway.kind() {
                // It knows these two and turns all others into 500.
                Some(GatewayKind::Nginx) if class != DenialClass::Undecided => class.status(),
                _ => told.status,
            };
            tell(status, told)
        }
        Err(Misconfigured(why)) => {
            tracing::warn!(why, %peer, "a gateway is set up wrongly");
            let mut response = Response::new(Body::from(format!("{why}\n")));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

impl Asked {
    fn answer(
        &self,
        peer: IpAddr,
        request: &Request<Body>,
    ) -> Result<GatewayResponse, Misconfigured> {
        let Some(kind) = self.gateway.kind() else {
            return Err(Misconfigured(
                "no kind of gateway is served here: start the server with --gateway nginx, caddy, traefik or envoy".to_owned(),
            ));
        };
        let (api, rest) = api(request.uri().path());
        let original = original(kind, request, rest)?;
        let gateway = only(request.headers(), GATEWAYS_KEY)?;
        let gateway = bearer(gateway.as_bytes()).ok_or_else(|| {
            Misconfigured(format!(
                "the gateway's {GATEWAYS_KEY} must read \"Bearer KEY\""
            ))
        })?;
        let headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .filter(|(name, _)| *name != GATEWAYS_KEY)
            .collect();
        let asked = GatewayRequest {
            method: original.method,
            target: &original.target,
            headers: &headers,
            // The gateway adds the other end of its own connection, which is one hop more.
            client: client_of(None, &headers, self.gateway.trusted_hops.saturating_add(1)),
        };
        match self.authorizer.answer(gateway, Some(peer), api, &asked) {
            Ok(answer) => Ok(answer),
            Err(GatewayError::Auth(AuthError::Starting) | GatewayError::Verify(_)) => {
                Ok(GatewayResponse::Denied {
                    class: DenialClass::Undecided,
                    told: self.authorizer.undecided(api),
                })
            }
            Err(GatewayError::Auth(reason)) => Err(Misconfigured(format!(
                "the gateway's own key: {}",
                match reason {
                    AuthError::Unauthenticated(why) | AuthError::Forbidden(Forbidden(why)) => why,
                    AuthError::Starting | AuthError::Verify(_) | AuthError::NoBuiltInRealm =>
                        "cannot be decided upon",
                }
            ))),
            Err(GatewayError::UnknownRealm) => Err(Misconfigured(
                "the path must be /forward-auth/REALM/ENVIRONMENT, with a realm of this authority"
                    .to_owned(),
            )),
            Err(GatewayError::Environment(why)) => Err(Misconfigured(format!(
                "the path must be /forward-auth/REALM/ENVIRONMENT, where the environment {why}"
            ))),
        }
    }
}

/// What the gateway stands for, and what follows in its path.
fn api(path: &str) -> (ProtectedApi<'_>, &str) {
    let named = path.strip_prefix(PREFIX).unwrap_or_default();
    let (realm, rest) = cut(named);
    let (environment, rest) = cut(rest.strip_prefix('/').unwrap_or_default());
    (ProtectedApi { realm, environment }, rest)
}

/// Up to the next slash, and from there on.
fn cut(path: &str) -> (&str, &str) {
    path.find('/')
        .map_or((path, ""), |slash| path.split_at(slash))
}

fn original<'r>(
    kind: GatewayKind,
    request: &'r Request<Body>,
    rest: &str,
) -> Result<Original<'r>, Misconfigured> {
    let (method, target) = match kind {
        GatewayKind::Envoy => {
            let query = request.uri().query();
            let target = query.map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}"));
            return Ok(Original {
                method: request.method().as_str(),
                target,
            });
        }
        _ if !rest.is_empty() => {
            return Err(Misconfigured(
                "the path must end with the environment: only Envoy's carries the request's own"
                    .to_owned(),
            ));
        }
        GatewayKind::Nginx => ("x-original-method", "x-original-uri"),
        GatewayKind::Caddy | GatewayKind::Traefik => ("x-forwarded-method", "x-forwarded-uri"),
    };
    let text = |name| {
        let value = only(request.headers(), name)?;
        // What is not ASCII is no path, which is the client's fault and so a denial.
        Ok(str::from_utf8(value.as_bytes()).unwrap_or("*"))
    };
    Ok(Original {
        method: text(method)?,
        target: text(target)?.to_owned(),
    })
}

/// The value of a header that the gateway sets, and so stands there once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h HeaderValue, Misconfigured> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Misconfigured(format!(
            "the gateway must set the header {name}"
        ))),
        (Some(_), Some(_)) => Err(Misconfigured(format!(
            "the gateway must set the header {name}, not add to it"
        ))),
    }
}

fn tell(status: u16, told: HttpDenial) -> Response<Body> {
    let HttpDenial {
        status: _,
        headers,
        body,
    } = told;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
