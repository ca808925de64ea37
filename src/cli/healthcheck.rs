//! The health of one server.

use clap::Args;
use serde::Serialize;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connect::Connection;
use super::diagnostics::CallContext;
use super::failure::Failure;
use super::output::Output;
use super::redact;

/// How long to wait, unless --timeout says otherwise. A server that is healthy answers within milliseconds, and who asks again
/// after some seconds must not wait for the answer before.
const TIMEOUT: &str = "3s";

/// The flags of `claviger healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger healthcheck
  claviger healthcheck --service claviger.v1.KeyVerify")]
pub struct Healthcheck {
    /// The full name of a service, such as `claviger.v1.KeyVerify`, to ask about this one and not about the whole server.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
}

/// What is known about the health of a server.
#[derive(Debug, Serialize)]
struct Health<'a> {
    endpoint: &'a str,
    /// Empty for the whole server.
    service: &'a str,
    /// The status by its name in `grpc.health.v1`; `None` if the server does not answer.
    status: Option<&'static str>,
    healthy: bool,
    /// Why there is no status.
    error: Option<String>,
}

impl Healthcheck {
    /// Returns the exit code: 0 if the server should get requests, otherwise 1.
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let (endpoint, context) = connection.open_server(TIMEOUT)?;
        let asked = ask(&endpoint, &context, &self.service).await;
        let (status, error) = match asked {
            Ok(status) => (Some(status), None),
            Err(failure) => (None, Some(failure.message())),
        };
        let is_known = status.is_some_and(|status| status != ServingStatus::ServiceUnknown);
        let service = if is_known {
            self.service
        } else {
            // It may be anything, also an API key.
            redact::mask_keys(&self.service, &[])
        };
        let health = Health {
            endpoint: &context.endpoint,
            service: &service,
            status: status.map(|status| status.as_str_name()),
            healthy: status == Some(ServingStatus::Serving),
            error,
        };
        output.show_summary(&health, || health.line())?;
        Ok(u8::from(!health.healthy))
    }
}

/// The health of the server of a connection.
pub(super) async fn of_server(connection: &Connection) -> Result<ServingStatus, Failure> {
    let (endpoint, context) = connection.open_server(TIMEOUT)?;
    ask(&endpoint, &context, "").await
}

/// Asks for the health of a service; of the whole server if `service` is empty.
async fn ask(
    endpoint: &Endpoint,
    context: &CallContext,
    service: &str,
) -> Result<ServingStatus, Failure> {
    let asking = async {
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| context.unreachable(&error))?;
        let mut request = Request::new(HealthCheckRequest {
            service: service.to_owned(),
        });
        request.set_timeout(context.timeout);
        match HealthClient::new(channel).check(request).await {
            Ok(response) => Ok(response.into_inner().status()),
            Err(status) if status.code() == Code::NotFound => Ok(ServingStatus::ServiceUnknown),
            Err(status) => Err(context.failed(&status, false)),
        }
    };
    let asked = tokio::time::timeout(context.timeout, asking).await;
    asked.unwrap_or_else(|_| Err(context.timeout(false)))
}

impl Health<'_> {
    /// The health in one line, for people.
    fn line(&self) -> String {
        let word = if self.healthy {
            "healthy"
        } else {
            "not healthy"
        };
        let what = match (self.status, self.error.as_deref()) {
            (Some(status), _) if self.service.is_empty() => {
                format!("{} is {status}", self.endpoint)
            }
            (Some(status), _) => format!("{} at {} is {status}", self.service, self.endpoint),
            (None, error) => error.unwrap_or_default().to_owned(),
        };
        format!("{word}: {what}")
    }
}
