//! A connection to the server, with the caller's key on each call.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::pb::claviger::v1::key_admin_client::KeyAdminClient;
use crate::pb::claviger::v1::key_verify_client::KeyVerifyClient;
use crate::pb::claviger::v1::realm_admin_client::RealmAdminClient;

use super::failure::Failure;
use super::link::Link;

/// A page of a thousand keys with all the labels that they may have is larger than what tonic takes by default.
const LARGEST_ANSWER: usize = 64 << 20;

/// A connection to the server, with the caller's key.
pub(super) struct Client {
    channel: InterceptedService<Channel, Caller>,
    link: Link,
}

impl Client {
    /// Over a channel that stands.
    pub(super) fn new(channel: Channel, authorization: MetadataValue<Ascii>, link: Link) -> Self {
        let caller = Caller {
            authorization,
            timeout: link.timeout,
        };
        Self {
            channel: InterceptedService::new(channel, caller),
            link,
        }
    }

    /// Where the caller's key came from, in words.
    pub(super) fn key_source(&self) -> &str {
        &self.link.key_source
    }

    /// The service for keys.
    pub(super) fn keys(&self) -> KeyAdminClient<InterceptedService<Channel, Caller>> {
        KeyAdminClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// The service for realms, partners and projects.
    pub(super) fn realms(&self) -> RealmAdminClient<InterceptedService<Channel, Caller>> {
        RealmAdminClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// The service that decides.
    pub(super) fn verify(&self) -> KeyVerifyClient<InterceptedService<Channel, Caller>> {
        KeyVerifyClient::new(self.channel.clone())
    }

    /// Waits for the answer to a question.
    pub(super) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.answer(call, false).await
    }

    /// Waits for the answer to a change. Without one, the change may have been made or not.
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
        // The channel watches the time until the answer begins, this watches until it ends.
        match tokio::time::timeout(self.link.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.link.refused(&status, is_change)),
            Err(_) => Err(self.link.timeout(is_change)),
        }
    }
}

/// Puts the caller's key and the time that it waits onto each request.
#[derive(Clone)]
pub(super) struct Caller {
    authorization: MetadataValue<Ascii>,
    timeout: Duration,
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        request.set_timeout(self.timeout);
        Ok(request)
    }
}
