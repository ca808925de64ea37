//! Connections on which requests are sent that are encoded already.

use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr};

use claviger::protobuf::Encoded;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::fixtures::{Program, Refusal};

/// A connection with a key or without. It is opened again when it was closed.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    pub(super) key: Option<String>,
}

impl Connection {
    pub(super) fn to(program: &Program, key: Option<String>) -> Self {
        Self::from(program, 1, key)
    }

    /// A connection from one of the machine's own addresses, 127.0.0.x.
    pub(super) fn from(program: &Program, from: u8, key: Option<String>) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", program.address)).unwrap();
        let from = IpAddr::from(Ipv4Addr::new(127, 0, 0, from));
        let channel = endpoint.local_address(Some(from)).connect_lazy();
        Self { channel, key }
    }

    /// A request with the key.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            let bearer = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }

    /// Makes a call and decodes the answer.
    pub(super) async fn ask<A>(&self, method: &str, request: Vec<u8>) -> Result<A, Status>
    where
        A: Message + Default + 'static,
    {
        self.send(method, self.request(Encoded::new(request))).await
    }

    /// Makes a call with this request. The answer is not decoded if it is `Encoded`.
    pub(super) async fn send<A>(
        &self,
        method: &str,
        request: Request<Encoded<()>>,
    ) -> Result<A, Status>
    where
        A: Message + Default + 'static,
    {
        let path: PathAndQuery = format!("/{method}").parse().unwrap();
        let codec = ProstCodec::<Encoded<()>, A>::default();
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let ready = client.ready().await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        let answer = client.unary(request, path, codec).await?;
        Ok(answer.into_inner())
    }

    /// Makes a call.
    pub(super) async fn call(&self, method: &str, request: &[u8]) -> Result<(), Status> {
        let answer: Result<Encoded<()>, _> = self.ask(method, request.to_vec()).await;
        answer.map(drop)
    }

    /// Makes a call that must be refused because it has no key. Returns `false` if its connection was closed instead: bodies that
    /// are sent after their refusal end the connection when they are a megabyte.
    pub(super) async fn is_refused(&self, method: &str, request: &[u8]) -> bool {
        let status = self.call(method, request).await.expect_err("a refusal");
        if let Some(source) = status.source() {
            assert!(source.is::<tonic::transport::Error>(), "{status:?}");
            return false;
        }
        assert_eq!(Refusal::of(&status).code, Code::Unauthenticated, "{method}");
        true
    }
}
