//! The gRPC and HTTP services of each thread, and what they are made of.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthReporter;

use crate::auth::Authenticator;
use crate::config::{CertifiedService, ServeArgs, TransportArgs};
use crate::domain::clock::Clock;
use crate::gateway::GatewayAuthorizer;
use crate::grpc::{
    Admin, AdminPlane, AuthorityAdminService, CallMetrics, CertifiedClients, ExtAuthzService,
    Guard, HealthService, JsonApi, JsonServices, KeyAdminService, KeyVerifyService,
    MAX_ADMIN_MESSAGE, MAX_VERIFY_MESSAGE, RealmAdminService, Services, error_details,
};
use crate::hashing::Peppers;
use crate::http::{self, GatewayMetrics, HttpServices, Scraper};
use crate::mirror::Mirror;
use crate::pb::DESCRIPTORS;
use crate::pb::claviger::v1::authority_admin_server::AuthorityAdminServer;
use crate::pb::claviger::v1::key_admin_server::KeyAdminServer;
use crate::pb::claviger::v1::realm_admin_server::RealmAdminServer;
use crate::pb::encoded::key_verify_server::KeyVerifyServer;
use crate::readiness::Readiness;
use crate::usage::UsageRecorder;

/// The largest message that health and reflection accept, in bytes. It contains the name of a service or a symbol, and needs no
/// key.
const MAX_OPEN_MESSAGE: usize = 4 * 1024;

/// What the services share.
pub(super) struct Parts {
    pub(super) mirror: Arc<Mirror>,
    pub(super) peppers: Arc<Peppers>,
    pub(super) clock: Clock,
    pub(super) health: HealthReporter,
}

/// The services of one thread that serves connections.
pub(super) struct ThreadServices {
    pub(super) grpc: Guard<Services>,
    pub(super) http: HttpServices,
}

/// What the services of all threads have in common.
pub(super) struct Shared<'a> {
    pub(super) args: &'a ServeArgs,
    /// The limits of `args`, within what the system allows.
    pub(super) limits: TransportArgs,
    /// Whether administration has an address of its own.
    pub(super) has_admin_address: bool,
    pub(super) admin_plane: AdminPlane,
    pub(super) gateways: Arc<GatewayMetrics>,
    pub(super) scraper: Scraper,
    pub(super) readiness: watch::Receiver<Readiness>,
    pub(super) stop: CancellationToken,
}

impl Parts {
    /// New services for each thread that serves connections, which records usage with its recorder and counts its calls.
    pub(super) fn thread_services(
        &self,
        recorders: &[Arc<UsageRecorder>],
        calls: Vec<Arc<CallMetrics>>,
        shared: &Shared<'_>,
    ) -> Vec<ThreadServices> {
        let threads = recorders.iter().zip(calls);
        threads
            .map(|(recorder, calls)| self.services_of_thread(recorder, calls, shared))
            .collect()
    }

    fn services_of_thread(
        &self,
        recorder: &Arc<UsageRecorder>,
        calls: Arc<CallMetrics>,
        shared: &Shared<'_>,
    ) -> ThreadServices {
        let requires_certificate = |service| shared.args.tls.requires_client_certificate(service);
        let certified_clients = CertifiedClients {
            verify: requires_certificate(CertifiedService::Verify),
            admin: requires_certificate(CertifiedService::Admin),
        };
        let services = self.services(recorder, shared.admin_plane.clone());
        let TransportArgs {
            max_calls,
            call_timeout,
            ..
        } = shared.limits;
        let stop = || shared.stop.clone();
        let json = JsonServices::new(services.clone());
        let json = Guard::new(json, Arc::clone(&calls), max_calls, call_timeout, stop())
            .with_certified_clients(certified_clients);
        // Gateways reach this address too.
        let json = if shared.has_admin_address {
            json.for_gateways_only()
        } else {
            json
        };
        ThreadServices {
            grpc: Guard::new(services, calls, max_calls, call_timeout, stop())
                .with_certified_clients(certified_clients),
            http: HttpServices {
                router: http::router(
                    shared.readiness.clone(),
                    self.authorizer(recorder),
                    shared.args.gateway.clone(),
                    requires_certificate(CertifiedService::Gateway),
                    Arc::clone(&shared.gateways),
                    shared.scraper.clone(),
                ),
                json: JsonApi::new(json),
            },
        }
    }

    /// Authenticates callers, and records the use of their keys with `recorder`.
    pub(super) fn authenticator(&self, recorder: &Arc<UsageRecorder>) -> Authenticator {
        Authenticator::new(
            Arc::clone(&self.mirror),
            Arc::clone(&self.peppers),
            self.clock.clone(),
            Arc::clone(recorder),
        )
    }

    /// New gRPC services for one thread.
    fn services(&self, recorder: &Arc<UsageRecorder>, admin: AdminPlane) -> Services {
        let authorizer = self.authorizer(recorder);
        Services {
            authenticator: self.authenticator(recorder),
            key_verify: self.key_verify(recorder),
            authorization: ExtAuthzService::new(authorizer),
            health: HealthServer::new(HealthService::new(self.health.clone()))
                .max_decoding_message_size(MAX_OPEN_MESSAGE),
            admin,
        }
    }

    /// A new authorizer for gateways.
    fn authorizer(&self, recorder: &Arc<UsageRecorder>) -> GatewayAuthorizer {
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

    /// The admin plane, whose services run on the current runtime.
    ///
    /// # Errors
    /// If the reflection service cannot be built.
    pub(super) fn admin_plane(
        &self,
        admin: Admin,
        recorder: &Arc<UsageRecorder>,
        has_reflection: bool,
    ) -> Result<AdminPlane, tonic_reflection::server::Error> {
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
                RealmAdminServer::new(RealmAdminService::new(admin.clone()))
                    .max_decoding_message_size(MAX_ADMIN_MESSAGE),
            )
            .add_service(
                AuthorityAdminServer::new(AuthorityAdminService::new(admin))
                    .max_decoding_message_size(MAX_ADMIN_MESSAGE),
            );
        if has_reflection {
            add_reflection(&mut services)?;
        }
        Ok(AdminPlane {
            services: services.routes().prepare(),
            runtime: Handle::current(),
        })
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
