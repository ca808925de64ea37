//! The gRPC services of one thread, on two planes.
//!
//! The Verify plane answers on the thread that serves the connection. Calls of the admin plane are handed over to another
//! runtime, so that their work (decoding, hashing, SQL, encoding) delays no verification.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;

use hyper::{Request, Response};
use tokio::runtime::Handle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use super::guard::{Destination, Dispatch, hand_over};
use super::page_limiter::hold_until_sent;
use super::{ExtAuthzService, HealthService, KeyVerifyService};
use crate::auth::{AuthError, Authenticator, Principal};
use crate::pb::encoded::authorization_server::AuthorizationServer;
use crate::pb::encoded::key_verify_server::KeyVerifyServer;
use crate::protobuf::Encoded;

/// The largest message that `KeyVerify` accepts, in bytes.
pub const MAX_VERIFY_MESSAGE: usize = 64 * 1024;

/// The largest message that the admin services accept, in bytes.
pub const MAX_ADMIN_MESSAGE: usize = 1024 * 1024;

/// The largest message that the service for Envoy accepts, in bytes. It contains all headers of a client's request.
const MAX_GATEWAY_MESSAGE: usize = 256 * 1024;

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
    pub key_verify: KeyVerifyService,
    /// Answers Envoy.
    pub authorization: ExtAuthzService,
    /// Reports health.
    pub health: HealthServer<HealthService>,
    /// Everything else.
    pub admin: AdminPlane,
}

impl Dispatch for Services {
    type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn prove(&self, plain_key: &str, peer: Option<IpAddr>) -> Result<Principal, AuthError> {
        self.authenticator.prove(plain_key, peer)
    }

    fn answer(
        &self,
        destination: Destination,
        principal: &Principal,
        message: &[u8],
    ) -> Option<Result<Vec<u8>, Status>> {
        match destination {
            Destination::Verify => {
                let answer = self.key_verify.verify_now(principal, message)?;
                Some(answer.map(Encoded::into_bytes))
            }
            Destination::Check => {
                let answer = self.authorization.check_now(principal, message)?;
                Some(answer.map(Encoded::into_bytes))
            }
            _ => None,
        }
    }

    fn call(&self, destination: Destination, request: Request<Body>) -> Self::Answer {
        match destination {
            Destination::Verify | Destination::KeyVerify | Destination::VerifyStream => {
                KeyVerifyServer::new(self.key_verify.clone())
                    .max_decoding_message_size(MAX_VERIFY_MESSAGE)
                    .call(request)
            }
            Destination::Check => AuthorizationServer::new(self.authorization.clone())
                .max_decoding_message_size(MAX_GATEWAY_MESSAGE)
                .call(request),
            Destination::Health => self.health.clone().call(request),
            Destination::Administer | Destination::Reflect => {
                let AdminPlane { services, runtime } = self.admin.clone();
                let answer = hand_over(runtime, services, request);
                Box::pin(async { answer.await.map(hold_until_sent) })
            }
        }
    }
}
