//! The service that does nothing, with which the others are compared.

use claviger::pb::claviger::v1 as pb;
use pb::key_verify_server::KeyVerify;
use tonic::{Request, Response, Status, Streaming};

/// A service that immediately returns an empty response.
pub(crate) struct Empty;

#[tonic::async_trait]
impl KeyVerify for Empty {
    async fn verify(
        &self,
        _: Request<pb::VerifyRequest>,
    ) -> Result<Response<pb::VerifyResponse>, Status> {
        Ok(Response::new(pb::VerifyResponse::default()))
    }

    async fn verify_batch(
        &self,
        _: Request<pb::VerifyBatchRequest>,
    ) -> Result<Response<pb::VerifyBatchResponse>, Status> {
        Ok(Response::new(pb::VerifyBatchResponse::default()))
    }

    type VerifyStreamStream = tokio_stream::Empty<Result<pb::VerifyStreamResponse, Status>>;

    async fn verify_stream(
        &self,
        _: Request<Streaming<pb::VerifyStreamRequest>>,
    ) -> Result<Response<Self::VerifyStreamStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn explain(
        &self,
        _: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
