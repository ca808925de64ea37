//! The gRPC service `claviger.v1.KeyVerify`.

mod explain;
mod request;
mod response;
mod stream;

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use request::question;
use response::verified_key;
use stream::Answers;

use super::status::verify_error;
use super::{encode, guard, status};
use crate::auth::{AuthenticatedKey, Authenticator, Principal};
use crate::domain::clock::Clock;
use crate::domain::event::Revision;
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::domain::violation::Violations;
use crate::hashing::Peppers;
use crate::mirror::{Mirror, MirroredRealm, View};
use crate::pb::claviger::v1 as pb;
use crate::usage::UsageRecorder;
use crate::verify::{Decision, decide};

const MAX_BATCH: usize = 100;

/// The service that verifies keys. It answers from the mirror, without I/O, locks or tasks.
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
    ) -> Result<pb::VerifyResponse, Status> {
        caller.may_verify(&request.realm)?;
        if view.revision() < Revision::from(request.min_revision) {
            return Err(status::behind());
        }
        let question = question(view, request)?;
        let decision =
            decide(&request.key, &question, view, &self.peppers, now).map_err(verify_error)?;
        self.recorder.count(&decision, now);
        Ok(response(view, question.realm, &decision, now))
    }
}

#[tonic::async_trait]
impl pb::key_verify_server::KeyVerify for KeyVerifyService {
    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<pb::VerifyResponse>, Status> {
        let principal = guard::principal(&request)?;
        let answer = self.verifier.with_caller(principal, |view, caller, now| {
            self.verifier.answer(view, caller, now, request.get_ref())
        })?;
        Ok(Response::new(answer))
    }

    async fn verify_batch(
        &self,
        request: Request<pb::VerifyBatchRequest>,
    ) -> Result<Response<pb::VerifyBatchResponse>, Status> {
        let principal = guard::principal(&request)?;
        let pb::VerifyBatchRequest { requests } = request.get_ref();
        let results = self.verifier.with_caller(principal, |view, caller, now| {
            if requests.len() > MAX_BATCH {
                let mut bad = Violations::default();
                bad.add("requests", "must have at most 100 entries");
                return bad.finish(None).map_err(|bad| status::invalid(&bad));
            }
            let result = |request| {
                use pb::verify_batch_result::Result::{Error, Response};
                pb::VerifyBatchResult {
                    result: Some(match self.verifier.answer(view, caller, now, request) {
                        Ok(answer) => Response(answer),
                        Err(error) => Error(status::as_message(&error)),
                    }),
                }
            };
            Ok(requests.iter().map(result).collect())
        })?;
        Ok(Response::new(pb::VerifyBatchResponse { results }))
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

fn response(
    view: &View<'_>,
    realm: &MirroredRealm,
    decision: &Decision<'_>,
    now: Timestamp,
) -> pb::VerifyResponse {
    let max_cache = realm.definition.max_cache;
    let cache_for = match decision.expires_at().time_left(now) {
        // An expired key stays expired unless it is updated, so `max_cache` applies in full.
        Some(left) if !left.is_zero() => max_cache.min(left),
        _ => max_cache,
    };
    pb::VerifyResponse {
        verdict: encode::verdict(decision.verdict).into(),
        key: decision.proven.map(|(key, _)| verified_key(key, realm)),
        missing_scopes: if decision.verdict == Verdict::ScopeMissing {
            encode::scope_names(realm.hierarchy.names(decision.missing))
        } else {
            Vec::new()
        },
        revision: view.revision().as_u64(),
        as_of: Some(encode::time(view.as_of())),
        cache_for: Some(encode::span(cache_for)),
    }
}
