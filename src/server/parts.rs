//! The parts of which the gRPC and HTTP services are made.

use std::sync::Arc;

use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::auth::Authenticator;
use crate::domain::clock::Clock;
use crate::gateway::GatewayAuthorizer;
use crate::grpc::{
    Admin, AdminPlane, ExtAuthzService, KeyAdminService, KeyVerifyService, MAX_VERIFY_MESSAGE,
    RealmAdminService, Services,
};
use crate::hashing::Peppers;
use crate::mirror::Mirror;
use crate::pb::DESCRIPTORS;
use crate::pb::claviger::v1::key_admin_server::KeyAdminServer;
use crate::pb::claviger::v1::realm_admin_server::RealmAdminServer;
use crate::pb::encoded::key_verify_server::KeyVerifyServer;
use crate::usage::UsageRecorder;

/// The largest message that health and reflection accept, in bytes. It contains the name of a service or a symbol, and needs no
/// key.
const MAX_OPEN_MESSAGE: usize = 4 * 1024;

/// The largest message that the admin services accept, in bytes.
const MAX_ADMIN_MESSAGE: usize = 1024 * 1024;

/// What the services share.
pub(super) struct Parts {
    pub(super) mirror: Arc<Mirror>,
    pub(super) peppers: Arc<Peppers>,
    pub(super) clock: Clock,
    pub(super) health: HealthReporter,
}

impl Parts {
    /// Authenticates callers, and records the use of their keys with `recorder`.
    pub(super) fn authenticator(&self, recorder: &Arc<UsageRecorder>) -> Authenticator {
        Authenticator::new(
            Arc::clone(&self.mirror),
            Arc::clone(&self.peppers),
            self.clock.clone(),
            Arc::clone(recorder),
        )
    }

    /// New services for one thread that serves connections.
    pub(super) fn services(&self, recorder: &Arc<UsageRecorder>, admin: AdminPlane) -> Services {
        let authorizer = self.authorizer(recorder);
        Services {
            authenticator: self.authenticator(recorder),
            key_verify: self.key_verify(recorder),
            authorization: ExtAuthzService::new(authorizer),
            health: HealthServer::new(HealthService::from_health_reporter(self.health.clone()))
                .max_decoding_message_size(MAX_OPEN_MESSAGE),
            admin,
        }
    }

    /// A new authorizer for gateways.
    pub(super) fn authorizer(&self, recorder: &Arc<UsageRecorder>) -> GatewayAuthorizer {
        GatewayAuthorizer::new(
            Arc::clone(&self.mirror),
            Arc::clone(&self.peppers),
            self.clock.clone(),
            self.authenticator(recorder),
            Arc::clone(recorder),
        )
    }

    fn key_verify(&self, recorder: &Arc<UsageRecorder>) -> KeyVerifyService {
        KeyVerifyService::new(
            Arc::clone(&self.mirror),
            Arc::clone(&self.peppers),
            self.clock.clone(),
            self.authenticator(recorder),
            Arc::clone(recorder),
        )
    }

    /// The services of the admin plane.
    ///
    /// # Errors
    /// If the reflection service cannot be built.
    pub(super) fn admin_services(
        &self,
        admin: Admin,
        recorder: &Arc<UsageRecorder>,
        has_reflection: bool,
    ) -> Result<Routes, tonic_reflection::server::Error> {
        let mut services = Routes::builder();
        services
            // For Explain.
            .add_service(
                KeyVerifyServer::new(self.key_verify(recorder))
                    .max_decoding_message_size(MAX_VERIFY_MESSAGE),
            )
            .add_service(
                KeyAdminServer::new(KeyAdminService::new(admin.clone(), self.clock.clone()))
                    .max_decoding_message_size(MAX_ADMIN_MESSAGE),
            )
            .add_service(
                RealmAdminServer::new(RealmAdminService::new(admin))
                    .max_decoding_message_size(MAX_ADMIN_MESSAGE),
            );
        if has_reflection {
            add_reflection(&mut services)?;
        }
        Ok(services.routes().prepare())
    }
}

fn add_reflection(services: &mut RoutesBuilder) -> Result<(), tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_file_descriptor_set(error_details())
    };
    // grpcurl and buf use v1, the reflection client of Python only v1alpha.
    let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    services
        .add_service(v1.max_decoding_message_size(MAX_OPEN_MESSAGE))
        .add_service(v1alpha.max_decoding_message_size(MAX_OPEN_MESSAGE));
    Ok(())
}

/// The descriptors of the messages in error details, so that a client can decode them. `google.rpc.Status` itself is in
/// [`DESCRIPTORS`].
fn error_details() -> FileDescriptorSet {
    let mut files = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .expect("tonic-types contains valid descriptors");
    files
        .file
        .retain(|file| file.name().ends_with("error_details.proto"));
    files
}
