//! A connection to the server that adds the caller's key to each call.

use std::time::Duration;

use prost_reflect::DynamicMessage;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::codec::DynamicCodec;
use super::contexts::ChosenContext;
use super::diagnostics::CallContext;
use super::failure::Failure;
use super::reflect;
use super::waiting::attended;
use crate::pb::claviger::v1::authority_admin_client::AuthorityAdminClient;
use crate::pb::claviger::v1::key_admin_client::KeyAdminClient;
use crate::pb::claviger::v1::key_verify_client::KeyVerifyClient;
use crate::pb::claviger::v1::realm_admin_client::RealmAdminClient;

/// The largest accepted response, in bytes. A page of 1,000 keys with the most labels exceeds tonic's default limit.
const MAX_RESPONSE_SIZE: usize = 64 << 20;

/// A connection to the server with the caller's key.
pub(super) struct Client {
    channel: InterceptedService<Channel, CallerMetadata>,
    context: CallContext,
    is_in_foreground: bool,
}

impl Client {
    /// Creates a client on a connected channel.
    pub(super) fn new(
        channel: Channel,
        authorization: MetadataValue<Ascii>,
        context: CallContext,
    ) -> Self {
        let caller = CallerMetadata {
            authorization,
            timeout: context.timeout,
        };
        Self {
            channel: InterceptedService::new(channel, caller),
            context,
            is_in_foreground: false,
        }
    }

    /// The client, whose calls tell a terminal that they take long, and whose changes end with Ctrl-C.
    pub(super) fn in_foreground(mut self) -> Self {
        self.is_in_foreground = true;
        self
    }

    /// The client for a command that itself tells how far it is, and what Ctrl-C does.
    pub(super) fn in_background(mut self) -> Self {
        self.is_in_foreground = false;
        self
    }

    /// The address of the server, for people.
    pub(super) fn endpoint(&self) -> &str {
        &self.context.endpoint
    }

    /// The context whose settings are in force.
    pub(super) fn chosen(&self) -> Option<&ChosenContext> {
        self.context.chosen.as_ref()
    }

    /// Where the caller's key came from, for people.
    pub(super) fn key_source(&self) -> &str {
        &self.context.key_source
    }

    /// The service for keys.
    pub(super) fn keys(&self) -> KeyAdminClient<InterceptedService<Channel, CallerMetadata>> {
        KeyAdminClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_SIZE)
    }

    /// The service for realms, partners and projects.
    pub(super) fn realms(&self) -> RealmAdminClient<InterceptedService<Channel, CallerMetadata>> {
        RealmAdminClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_SIZE)
    }

    /// The service for the authority itself.
    pub(super) fn authority(
        &self,
    ) -> AuthorityAdminClient<InterceptedService<Channel, CallerMetadata>> {
        AuthorityAdminClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_SIZE)
    }

    /// The service that verifies keys.
    pub(super) fn verify(&self) -> KeyVerifyClient<InterceptedService<Channel, CallerMetadata>> {
        KeyVerifyClient::new(self.channel.clone())
    }

    /// Calls a method of `RealmAdmin` with messages that keep the fields that this program does not know.
    pub(super) async fn call(
        &self,
        method: &str,
        request: DynamicMessage,
    ) -> Result<Response<DynamicMessage>, Status> {
        let method = reflect::realm_method(method);
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path =
            PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_SIZE);
        grpc.ready()
            .await
            .map_err(|error| Status::unknown(format!("the connection is not ready: {error}")))?;
        let codec = DynamicCodec {
            response: method.output(),
        };
        grpc.unary(Request::new(request), path, codec).await
    }

    /// Waits for the response to a read.
    pub(super) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.answer(call, false).await
    }

    /// Waits for the response to a change. After a failure without a response, the outcome of the change is unknown.
    pub(super) async fn change<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.answer(call, true).await
    }

    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
        is_change: bool,
    ) -> Result<T, Failure> {
        // The channel limits the time until the response begins; this timeout limits the whole response.
        // In a box, because the futures of commands would have it several times.
        let call = Box::pin(tokio::time::timeout(self.context.timeout, call));
        let answer = if self.is_in_foreground {
            let answer = attended(&self.context.server(), is_change, call).await;
            answer.ok_or_else(|| self.context.interrupted(is_change))?
        } else {
            call.await
        };
        match answer {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.context.failed(&status, is_change)),
            Err(_) => Err(self.context.timeout(is_change)),
        }
    }
}

/// An interceptor that adds the caller's key and timeout to each request.
#[derive(Clone)]
pub(super) struct CallerMetadata {
    authorization: MetadataValue<Ascii>,
    timeout: Duration,
}

impl Interceptor for CallerMetadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        request.set_timeout(self.timeout);
        Ok(request)
    }
}
