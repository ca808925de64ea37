//! `/auth/{kind}/{realm}/{environment}`: the authorization of whole requests for gateways that use HTTP.
//!
//! The kind of gateway says where the method and the path of the client's request are. It is in the path, which only the gateway
//! chooses: a client that could choose it would choose what is compared with the routes. `/forward-auth/{realm}/{environment}` is
//! the same where one kind is served.
//!
//! The response is 200 with every identity header, or the realm's denial. A misconfigured gateway gets 500, never 401, because
//! 401 would tell the client that its key is wrong.

use std::borrow::Cow;
use std::net::IpAddr;
use std::str;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use axum::routing::any;
use clap::ValueEnum;

use super::HasClientCertificate;
use super::gateway_metrics::{GatewayMetrics, QuestionRecord};
use crate::auth::{AuthError, Forbidden, bearer};
use crate::config::{GatewayArgs, GatewayKind};
use crate::domain::denial::{DenialClass, DenialReason};
use crate::gateway::{
    CLIENT_CERTIFICATE_REQUIRED, GatewayAuthorizer, GatewayError, GatewayRequest, GatewayResponse,
    HttpDenial, ProtectedApi, SetHeader, client_address, log_misconfigured,
};
use crate::telemetry::{limited, request_id_text};
use crate::verify::VerifyError;

/// The header with the API key of the gateway itself, because `authorization` belongs to the client.
const GATEWAY_KEY_HEADER: &str = "x-claviger-authorization";

/// The header with the name of the verdict, for nginx only. Other gateways would pass it on to the client.
const VERDICT_HEADER: &str = "x-claviger-verdict";

/// The header with the name of the reason, for nginx only.
const REASON_HEADER: &str = "x-claviger-reason";

/// The names of the kinds of gateways for messages.
const KINDS: &str = "nginx, caddy, traefik or envoy";

/// The method and the target of the client's request.
struct OriginalRequest<'r> {
    method: &'r str,
    target: String,
}

/// A wrong configuration of the gateway. The text is for the operator of the gateway, and does not repeat what a client sent.
struct MisconfiguredGateway(String);

/// The state of the handler.
struct GatewayAuth {
    authorizer: GatewayAuthorizer,
    gateways: GatewayArgs,
    requires_client_certificate: bool,
    metrics: Arc<GatewayMetrics>,
}

/// What the path of a gateway's request says.
struct Question<'p> {
    kind: GatewayKind,
    api: ProtectedApi<'p>,
    /// The path after the environment.
    rest: &'p str,
}

/// The router of the paths at which gateways ask.
pub(super) fn router(
    authorizer: GatewayAuthorizer,
    gateways: GatewayArgs,
    requires_client_certificate: bool,
    metrics: Arc<GatewayMetrics>,
) -> Router {
    let mut router = Router::new();
    for prefix in ["/auth", "/forward-auth"] {
        // The pattern does not match the two shorter paths.
        for path in ["/{*api}", "/", ""] {
            router = router.route(&format!("{prefix}{path}"), any(gateway_auth));
        }
    }
    router.with_state(Arc::new(GatewayAuth {
        authorizer,
        gateways,
        requires_client_certificate,
        metrics,
    }))
}

async fn gateway_auth(
    State(state): State<Arc<GatewayAuth>>,
    ConnectInfo(peer): ConnectInfo<Option<IpAddr>>,
    request: Request<Body>,
) -> Response<Body> {
    let mut record = state.metrics.begin(request.headers());
    let asked = question(&state.gateways, request.uri().path());
    let kind = asked.as_ref().ok().map(|question| question.kind);
    let mut response = respond(&state, peer, asked, &request, &mut record);
    record.end(kind, &mut response);
    response
}

fn respond(
    state: &GatewayAuth,
    peer: Option<IpAddr>,
    asked: Result<Question<'_>, MisconfiguredGateway>,
    request: &Request<Body>,
    record: &mut QuestionRecord<'_>,
) -> Response<Body> {
    let api = asked.as_ref().ok().map(|question| question.api);
    let answer = asked.and_then(|question| {
        Ok((
            question.kind,
            state.answer(peer, question, request, record)?,
        ))
    });
    match answer {
        Ok((
            _,
            GatewayResponse::Allowed {
                identity,
                without_keys,
                remove: _,
            },
        )) => allowed(identity, without_keys),
        Ok((
            kind,
            GatewayResponse::Denied {
                class,
                reason,
                denial,
            },
        )) => match reason {
            // nginx passes on 401 and 403 without the body, and turns every other status into 500. Its own configuration has
            // the realm's status and body, and takes the verdict and the reason from the headers.
            DenialReason::Undecided if kind == GatewayKind::Nginx => denied(
                denial.status,
                HttpDenial {
                    headers: Vec::new(),
                    ..denial
                },
            ),
            reason if kind == GatewayKind::Nginx => {
                let denial = HttpDenial {
                    headers: challenges(denial.headers),
                    ..denial
                };
                let mut response = denied(class.status(), denial);
                let verdict = HeaderValue::from_static(reason.verdict());
                response.headers_mut().insert(VERDICT_HEADER, verdict);
                let reason = HeaderValue::from_static(reason.as_str());
                response.headers_mut().insert(REASON_HEADER, reason);
                response
            }
            _ => denied(denial.status, denial),
        },
        Err(MisconfiguredGateway(why)) => {
            let request_id = request_id_text(request.headers());
            log_misconfigured(&why, peer, api, request_id);
            let mut response = Response::new(Body::from(format!("{why}\n")));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// Reads the path of a gateway's request.
fn question<'p>(
    gateways: &GatewayArgs,
    path: &'p str,
) -> Result<Question<'p>, MisconfiguredGateway> {
    let wrong = |why: &str| MisconfiguredGateway(why.to_owned());
    let kinds = gateways.kinds();
    let (kind, api) = match path.strip_prefix("/auth/") {
        Some(path) => {
            let (name, api) = split_segment(path);
            let kind = GatewayKind::from_str(name, false).map_err(|_| {
                MisconfiguredGateway(format!(
                    "the path must be /auth/KIND/REALM/ENVIRONMENT, and KIND {KINDS}"
                ))
            })?;
            if !kinds.contains(&kind) {
                return Err(MisconfiguredGateway(format!(
                    "this server serves no gateway of this kind: start it with --gateway {kind}"
                )));
            }
            (kind, api)
        }
        None => match (kinds, path.strip_prefix("/forward-auth")) {
            ([], _) => {
                return Err(MisconfiguredGateway(format!(
                    "this server serves no kind of gateway: start it with --gateway {KINDS}"
                )));
            }
            ([kind], Some(api)) => (*kind, api),
            _ => return Err(wrong("the path must be /auth/KIND/REALM/ENVIRONMENT")),
        },
    };
    let (realm, rest) = split_segment(api.strip_prefix('/').unwrap_or_default());
    let (environment, rest) = split_segment(rest.strip_prefix('/').unwrap_or_default());
    if realm.is_empty() {
        return Err(wrong(
            "the path must be /auth/KIND/REALM/ENVIRONMENT: it names no realm",
        ));
    }
    if kind == GatewayKind::Envoy && rest.is_empty() {
        return Err(wrong(
            "the request's own path does not follow the environment: only Envoy asks at this path, with `path_prefix`",
        ));
    }
    Ok(Question {
        kind,
        api: ProtectedApi { realm, environment },
        rest,
    })
}

impl GatewayAuth {
    fn answer(
        &self,
        peer: Option<IpAddr>,
        Question { kind, api, rest }: Question<'_>,
        request: &Request<Body>,
        record: &mut QuestionRecord<'_>,
    ) -> Result<GatewayResponse, MisconfiguredGateway> {
        let HasClientCertificate(has_certificate) =
            request.extensions().get().copied().unwrap_or_default();
        if self.requires_client_certificate && !has_certificate {
            return Err(MisconfiguredGateway(CLIENT_CERTIFICATE_REQUIRED.to_owned()));
        }
        let original = original(kind, request, rest)?;
        let gateway_key = single_header(request.headers(), GATEWAY_KEY_HEADER)?;
        let gateway_key = bearer(gateway_key.as_bytes()).ok_or_else(|| {
            MisconfiguredGateway(format!(
                "the gateway must set the header {GATEWAY_KEY_HEADER} to \"Bearer KEY\""
            ))
        })?;
        let headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .filter(|(name, _)| *name != GATEWAY_KEY_HEADER)
            .collect();
        let original = GatewayRequest {
            method: original.method,
            target: &original.target,
            headers: &headers,
            // The gateway adds the other end of its own connection to the header, which is one more hop.
            client: client_address(None, &headers, self.gateways.trusted_hops.saturating_add(1)),
        };
        let answer = self
            .authorizer
            .prove(gateway_key, peer)
            .map_err(GatewayError::Auth)
            .and_then(|gateway| {
                record.proven();
                self.authorizer.answer(&gateway, api, &original)
            });
        if let Err(GatewayError::Auth(AuthError::Verify(reason)) | GatewayError::Verify(reason)) =
            &answer
        {
            log_verify_error(*reason);
        }
        match answer {
            Ok(answer) => Ok(answer),
            Err(
                GatewayError::Auth(
                    AuthError::Starting | AuthError::Verify(VerifyError::LeaseLapsed),
                )
                | GatewayError::Verify(_),
            ) => {
                Ok(GatewayResponse::Denied {
                    class: DenialClass::Undecided,
                    reason: DenialReason::Undecided,
                    denial: self.authorizer.undecided(api),
                })
            }
            Err(GatewayError::Auth(reason)) => Err(MisconfiguredGateway(format!(
                "the gateway's own key is not accepted: {}",
                match reason {
                    AuthError::Unauthenticated(why) | AuthError::Forbidden(Forbidden(why)) => why,
                    AuthError::Refused(key) => key.objection.message(),
                    AuthError::Starting | AuthError::Verify(_) | AuthError::NoBuiltInRealm =>
                        "it cannot be verified now",
                }
            ))),
            Err(GatewayError::Forbidden(_)) => Err(MisconfiguredGateway(
                "the gateway's own key may not verify keys of this realm: check the realm in the path, or issue a key with the \
                 scope \"verify\" for it"
                    .to_owned(),
            )),
            Err(GatewayError::UnknownRealm) => Err(MisconfiguredGateway(
                "the path names an unknown realm: use /auth/KIND/REALM/ENVIRONMENT with a realm of this authority"
                    .to_owned(),
            )),
            Err(GatewayError::Environment(why)) => Err(MisconfiguredGateway(format!(
                "the environment in the path /auth/KIND/REALM/ENVIRONMENT {why}"
            ))),
        }
    }
}

fn log_verify_error(reason: VerifyError) {
    match reason {
        VerifyError::Corrupt => {
            limited!(
                error,
                "stored key, or its realm, partner or project, unreadable"
            );
        }
        VerifyError::PepperMissing => {
            limited!(error, "pepper version of the presented key missing");
        }
        // The heartbeats have logged why.
        VerifyError::LeaseLapsed => {}
    }
}

/// The headers of a denial that nginx takes from claviger's answer. It obeys some others, such as `X-Accel-Redirect`.
fn challenges(mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
    headers.retain(|(name, _)| name == "www-authenticate");
    headers
}

/// Splits a path before its first slash.
fn split_segment(path: &str) -> (&str, &str) {
    path.find('/')
        .map_or((path, ""), |slash| path.split_at(slash))
}

/// Reads the client's request from where this kind of gateway puts it. `rest` is the path after the environment.
fn original<'r>(
    kind: GatewayKind,
    request: &'r Request<Body>,
    rest: &str,
) -> Result<OriginalRequest<'r>, MisconfiguredGateway> {
    let (method, target) = match kind {
        GatewayKind::Envoy => {
            let query = request.uri().query();
            let target = query.map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}"));
            return Ok(OriginalRequest {
                method: request.method().as_str(),
                target,
            });
        }
        _ if !rest.is_empty() => {
            return Err(MisconfiguredGateway(
                "the path must end with the environment: only at /auth/envoy/REALM/ENVIRONMENT does the request's own path follow"
                    .to_owned(),
            ));
        }
        GatewayKind::Nginx => ("x-original-method", "x-original-uri"),
        GatewayKind::Caddy | GatewayKind::Traefik => ("x-forwarded-method", "x-forwarded-uri"),
    };
    let text = |name| {
        let value = single_header(request.headers(), name)?;
        // A value that is not UTF-8 is no path. It comes from the client, so the result is a denial, not an error.
        Ok(str::from_utf8(value.as_bytes()).unwrap_or("*"))
    };
    Ok(OriginalRequest {
        method: text(method)?,
        target: text(target)?.to_owned(),
    })
}

/// The value of a header that the gateway must set exactly once.
fn single_header<'h>(
    headers: &'h HeaderMap,
    name: &str,
) -> Result<&'h HeaderValue, MisconfiguredGateway> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(MisconfiguredGateway(format!(
            "the header {name} is missing: the gateway must set it"
        ))),
        (Some(_), Some(_)) => Err(MisconfiguredGateway(format!(
            "the header {name} occurs twice: the gateway must set it, not add to it"
        ))),
    }
}

/// The HTTP response that lets a request through. It has the headers that the gateway must set on the request.
fn allowed(identity: Vec<SetHeader>, without_keys: Vec<(&'static str, String)>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let without_keys = without_keys
        .into_iter()
        .map(|(name, value)| (Cow::Borrowed(name), value));
    for (name, value) in identity.into_iter().chain(without_keys) {
        let name = match name {
            Cow::Borrowed(name) => Ok(HeaderName::from_static(name)),
            Cow::Owned(name) => HeaderName::try_from(name),
        };
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The HTTP response of a denial, with this status.
fn denied(status: u16, denial: HttpDenial) -> Response<Body> {
    let HttpDenial {
        status: _,
        headers,
        body,
    } = denial;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(
        kinds: &[GatewayKind],
    ) -> impl Fn(&'static str) -> Option<(GatewayKind, &'static str, &'static str, &'static str)>
    {
        let gateways = GatewayArgs::new(kinds);
        move |path| {
            let Question { kind, api, rest } = question(&gateways, path).ok()?;
            Some((kind, api.realm, api.environment, rest))
        }
    }

    #[test]
    fn a_path_names_the_kind_and_the_realm_and_may_have_an_environment_and_a_rest() {
        use GatewayKind::{Caddy, Envoy, Nginx};
        let one = state(&[Envoy]);
        let two = state(&[Nginx, Caddy]);
        for (asked, expected) in [
            (one("/auth/envoy/a/b/c/d"), Some((Envoy, "a", "b", "/c/d"))),
            (one("/forward-auth/a/b/"), Some((Envoy, "a", "b", "/"))),
            // Envoy appends a path, so these are from another gateway.
            (one("/auth/envoy/a/b"), None),
            (one("/forward-auth/a/b"), None),
            (one("/auth/nginx/a/b"), None),
            (two("/auth/nginx/a/b"), Some((Nginx, "a", "b", ""))),
            (two("/auth/caddy/a"), Some((Caddy, "a", "", ""))),
            (two("/auth/envoy/a/b/c"), None),
            (two("/forward-auth/a/b"), None),
            (two("/auth/a/b"), None),
            (two("/auth/nginx"), None),
            (two("/auth/nginx//b"), None),
            (two("/auth"), None),
            (two("/auth/"), None),
            (state(&[])("/auth/nginx/a/b"), None),
            (state(&[])("/forward-auth/a/b"), None),
        ] {
            assert_eq!(asked, expected);
        }
    }
}
