//! The standard health service, `grpc.health.v1.Health`.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService as Reported};

/// Reports health as the reporter says.
///
/// The library ends a watch of an unknown service at once. The standard asks for `SERVICE_UNKNOWN` on a stream that stays open, and
/// clients take anything else for a server without health.
pub struct HealthService(Reported);

impl HealthService {
    /// Creates the service.
    pub fn new(reporter: HealthReporter) -> Self {
        Self(Reported::from_health_reporter(reporter))
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.check(request).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watch = match self.0.watch(request).await {
            Ok(answer) => answer.into_inner().boxed(),
            Err(error) if error.code() == Code::NotFound => {
                // Services do not come later. The stream ends when the server stops, as that of the whole server does.
                let server = HealthCheckRequest::default();
                let server = self.0.watch(Request::new(server)).await?.into_inner();
                let unknown = HealthCheckResponse {
                    status: ServingStatus::ServiceUnknown.into(),
                };
                let mut unknown = Some(Ok(unknown));
                server
                    .filter_map(move |_| std::future::ready(unknown.take()))
                    .boxed()
            }
            Err(error) => return Err(error),
        };
        Ok(Response::new(watch))
    }
}
