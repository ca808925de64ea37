//! The gRPC service `claviger.v1.KeyVerify`.

mod explain;
mod request;
mod response;
mod stream;

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use request::question;
use response::verify_response;
use stream::Answers;

use super::status::verify_error;
use super::{guard, status};
use crate::auth::{AuthenticatedKey, Authenticator, Principal};
use crate::domain::clock::Clock;
use crate::domain::event::Revision;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::hashing::Peppers;
use crate::mirror::{Mirror, View};
use crate::pb::claviger::v1 as pb;
use crate::pb::encoded::key_verify_server::KeyVerify;
use crate::protobuf::{Encoded, put_field, tag};
use crate::usage::UsageRecorder;
use crate::verify::decide;

const MAX_BATCH: usize = 100;

/// The service that verifies keys. It answers from the mirror, without I/O, locks or tasks.
#[derive(Clone)]
pub struct KeyVerifyService {
    verifier: Arc<Verifier>,
}

/// Answers questions about keys. Streams share it with their service.
struct Verifier {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
    authenticator: Authenticator,
    recorder: Arc<UsageRecorder>,
}

impl KeyVerifyService {
    /// Creates the service. It decides from `mirror` and counts the answers with `recorder`.
    pub fn new(
        mirror: Arc<Mirror>,
        peppers: Arc<Peppers>,
        clock: Clock,
        authenticator: Authenticator,
        recorder: Arc<UsageRecorder>,
    ) -> Self {
        Self {
            verifier: Arc::new(Verifier {
                mirror,
                peppers,
                clock,
                authenticator,
                recorder,
            }),
        }
    }

    /// Answers a Verify, without waiting for anything.
    pub(super) fn verify_now(
        &self,
        principal: &Principal,
        request: &pb::VerifyRequest,
    ) -> Result<Encoded<pb::VerifyResponse>, Status> {
        self.verifier.with_caller(principal, |view, caller, now| {
            self.verifier.answer(view, caller, now, request)
        })
    }
}

impl Verifier {
    /// Judges the caller and calls `work`. The clock is read once for both.
    fn with_caller<T>(
        &self,
        principal: &Principal,
        work: impl FnOnce(&View<'_>, &AuthenticatedKey<'_>, Timestamp) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let now = self.clock.now();
        let index = self.mirror.index();
        let view = index.view();
        let caller = self
            .authenticator
            .authenticate_gateway(&view, principal, now)?;
        work(&view, &caller, now)
    }

    fn answer(
        &self,
        view: &View<'_>,
        caller: &AuthenticatedKey<'_>,
        now: Timestamp,
        request: &pb::VerifyRequest,
    ) -> Result<Encoded<pb::VerifyResponse>, Status> {
        caller.may_verify(&request.realm)?;
        if view.revision() < Revision::from(request.min_revision) {
            return Err(status::behind());
        }
        let question = question(view, request)?;
        let decision =
            decide(&request.key, &question, view, &self.peppers, now).map_err(verify_error)?;
        self.recorder.count(&decision, now);
        Ok(verify_response(view, question.realm, &decision, now))
    }
}

#[tonic::async_trait]
impl KeyVerify for KeyVerifyService {
    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<Encoded<pb::VerifyResponse>>, Status> {
        let principal = guard::principal(&request)?;
        self.verify_now(principal, request.get_ref())
            .map(Response::new)
    }

    async fn verify_batch(
        &self,
        request: Request<pb::VerifyBatchRequest>,
    ) -> Result<Response<Encoded<pb::VerifyBatchResponse>>, Status> {
        const RESULTS: u8 = tag(1);
        let principal = guard::principal(&request)?;
        let pb::VerifyBatchRequest { requests } = request.get_ref();
        let results = self.verifier.with_caller(principal, |view, caller, now| {
            if requests.len() > MAX_BATCH {
                let mut bad = Violations::default();
                bad.add("requests", "must have at most 100 entries");
                return bad.finish(None).map_err(|bad| status::invalid(&bad));
            }
            let mut results = Vec::new();
            for request in requests {
                let answer = self.verifier.answer(view, caller, now, request);
                put_field(RESULTS, &result(answer), &mut results);
            }
            Ok(results)
        })?;
        Ok(Response::new(Encoded::new(results)))
    }

    type VerifyStreamStream = Answers;

    async fn verify_stream(
        &self,
        request: Request<Streaming<pb::VerifyStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let principal = guard::principal(&request)?.clone();
        let closing = guard::closing(&request)?;
        let verifier = Arc::clone(&self.verifier);
        let answers = stream::answers(verifier, principal, request.into_inner(), closing);
        Ok(Response::new(answers))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let principal = guard::principal(&request)?;
        let answer = self.verifier.with_caller(principal, |view, caller, now| {
            caller.may_operate()?;
            explain::explain(view, &self.verifier.peppers, now, request.get_ref())
        })?;
        Ok(Response::new(answer))
    }
}

/// Encodes a `VerifyBatchResult` or a `VerifyStreamResponse`: they have the same fields.
fn result(answer: Result<Encoded<pb::VerifyResponse>, Status>) -> Vec<u8> {
    const RESPONSE: u8 = tag(1);
    const ERROR: u8 = tag(2);
    let mut bytes = Vec::new();
    match answer {
        Ok(answer) => put_field(RESPONSE, answer.as_bytes(), &mut bytes),
        Err(error) => {
            let error = status::as_message(&error).encode_to_vec();
            put_field(ERROR, &error, &mut bytes);
        }
    }
    bytes
}
