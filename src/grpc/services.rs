//! The gRPC services of one thread, on two planes.
//!
//! The Verify plane answers on the thread that serves the connection. Calls of the admin plane are handed over to another
//! runtime, so that their work (decoding, hashing, SQL, encoding) delays no verification.

use std::convert::Infallible;
use std::pin::Pin;

use hyper::{Request, Response};
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

use super::guard::{Destination, Dispatch, hand_over};
use super::{ExtAuthzService, KeyVerifyService};
use crate::auth::{AuthError, Authenticator, Principal};
use crate::pb::encoded::key_verify_server::KeyVerifyServer;
use crate::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;

/// The services that administer, explain and reflect, and the runtime on which they run.
#[derive(Clone)]
pub struct AdminPlane {
    /// The services.
    pub services: Routes,
    /// The runtime.
    pub runtime: Handle,
}

/// The services of one thread.
#[derive(Clone)]
pub struct Services {
    /// Authenticates the callers.
    pub authenticator: Authenticator,
    /// Answers the questions of gateways that know the key.
    pub key_verify: KeyVerifyServer<KeyVerifyService>,
    /// Answers Envoy.
    pub authorization: AuthorizationServer<ExtAuthzService>,
    /// Reports health.
    pub health: HealthServer<HealthService>,
    /// Everything else.
    pub admin: AdminPlane,
}

impl Dispatch for Services {
    type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn prove(&self, plain_key: &str, peer: std::net::IpAddr) -> Result<Principal, AuthError> {
        self.authenticator.prove(plain_key, Some(peer))
    }

    fn call(&self, destination: Destination, request: Request<Body>) -> Self::Answer {
        match destination {
            Destination::Verify | Destination::VerifyStream => {
                self.key_verify.clone().call(request)
            }
            Destination::Check => self.authorization.clone().call(request),
            Destination::Health => self.health.clone().call(request),
            Destination::Administer | Destination::Reflect => {
                let AdminPlane { services, runtime } = self.admin.clone();
                Box::pin(hand_over(runtime, services, request))
            }
        }
    }
}
