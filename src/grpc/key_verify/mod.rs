//! The gRPC service `claviger.v1.KeyVerify`.

mod explain;
mod finding;
mod request;
mod response;
mod stream;

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use request::{VerifyQuestion, question};
use response::verify_response;
use stream::Answers;

use super::status::verify_error;
use super::{guard, status};
use crate::auth::{AuthenticatedKey, Authenticator, Principal};
use crate::domain::clock::Clock;
use crate::domain::event::Revision;
use crate::domain::verdict::Verdict;
use crate::domain::violation::Violations;
use crate::hashing::Peppers;
use crate::mirror::{Mirror, MirroredRealm, View};
use crate::pb::claviger::v1 as pb;
use crate::pb::encoded::key_verify_server::KeyVerify;
use crate::protobuf::{Encoded, put_field, put_message, tag};
use crate::usage::UsageRecorder;
use crate::verify::{Decision, Moment, decide};

const MAX_BATCH: usize = 100;

/// Most answers about a good key have fewer bytes.
const USUAL_ANSWER: usize = 512;

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

    /// Answers an encoded `VerifyRequest`, without waiting for anything. Returns `None` if it cannot be decoded, or if it is about a
    /// revision that this server does not have yet.
    pub(super) fn verify_now(
        &self,
        principal: &Principal,
        message: &[u8],
    ) -> Option<Result<Encoded<pb::VerifyResponse>, Status>> {
        let asked = VerifyQuestion::decode(message)?;
        (!self.verifier.is_behind(asked.min_revision)).then(|| self.verify_asked(principal, &asked))
    }

    fn verify_asked(
        &self,
        principal: &Principal,
        asked: &VerifyQuestion<'_>,
    ) -> Result<Encoded<pb::VerifyResponse>, Status> {
        self.verifier
            .with_caller(principal, |view, caller, moment| {
                let (realm, decision) = self.verifier.decide(view, caller, moment, asked)?;
                let mut bytes = Vec::with_capacity(USUAL_ANSWER);
                verify_response(view, realm, &decision, moment, &mut bytes);
                Ok(Encoded::new(bytes))
            })
    }
}

/// The error of an answer, or that the lease has lapsed: then no other error says anything either.
fn unless_lapsed(moment: Moment, error: Status) -> Status {
    moment.check_lease().map_or_else(verify_error, |()| error)
}

impl Verifier {
    /// Judges the caller and calls `work`. The clocks are read once for both.
    ///
    /// A caller whose own key nothing speaks against is let through also if the lease has lapsed: it gets only what `decide` still
    /// tells. What is refused then may be right, or about facts that have changed.
    fn with_caller<T>(
        &self,
        principal: &Principal,
        work: impl FnOnce(&View<'_>, &AuthenticatedKey<'_>, Moment) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let moment = Moment::read(&self.clock, self.mirror.lease());
        let index = self.mirror.index();
        let view = index.view();
        self.authenticator
            .authenticate_gateway(&view, principal, moment.now())
            .map_err(Status::from)
            .and_then(|caller| work(&view, &caller, moment))
            .map_err(|error| unless_lapsed(moment, error))
    }

    /// Whether a wait may bring the revision.
    fn is_behind(&self, min_revision: u64) -> bool {
        self.mirror.index().revision() < Revision::from(min_revision)
    }

    /// Waits for a revision, if this server does not have it yet. The decision says whether it came.
    ///
    /// # Errors
    /// If the caller may not ask anything, so that it does not take the place of another.
    async fn wait_for(&self, min_revision: u64, principal: &Principal) -> Result<(), Status> {
        if self.is_behind(min_revision) {
            self.with_caller(principal, |_, _, _| Ok(()))?;
            let revision = Revision::from(min_revision);
            let _ = self.mirror.wait_for_revision(revision).await;
        }
        Ok(())
    }

    fn decide<'v>(
        &self,
        view: &'v View<'_>,
        caller: &AuthenticatedKey<'_>,
        moment: Moment,
        asked: &VerifyQuestion<'v>,
    ) -> Result<(&'v MirroredRealm, Decision<'v>), Status> {
        caller.may_verify(asked.realm)?;
        view.check_revision(Revision::from(asked.min_revision))
            .map_err(status::missing_revision)?;
        let question = question(view, asked)?;
        let decision = decide(asked.plain_key, &question, view, &self.peppers, moment)
            .map_err(verify_error)?;
        self.recorder.count(&question, &decision, moment.now());
        question.realm.decisions.here().verdict(decision.verdict);
        if decision.verdict != Verdict::Allowed {
            tracing::debug!(
                realm = %question.realm.definition.id,
                verdict = decision.verdict.as_str(),
                client = question.client.map(tracing::field::display),
                key_id = decision.proven.map(|(key, _)| tracing::field::display(key.id())),
                "key denied"
            );
        }
        Ok((question.realm, decision))
    }

    /// Writes a `VerifyBatchResult` or a `VerifyStreamResponse`: they have the same fields.
    fn put_result(
        &self,
        view: &View<'_>,
        caller: &AuthenticatedKey<'_>,
        moment: Moment,
        asked: &VerifyQuestion<'_>,
        bytes: &mut Vec<u8>,
    ) {
        const RESPONSE: u8 = tag(1);
        const ERROR: u8 = tag(2);
        let answer = self.decide(view, caller, moment, asked);
        match answer.map_err(|error| unless_lapsed(moment, error)) {
            Ok((realm, decision)) => put_message(RESPONSE, bytes, |bytes| {
                verify_response(view, realm, &decision, moment, bytes);
            }),
            Err(error) => put_field(ERROR, &status::as_message(&error).encode_to_vec(), bytes),
        }
    }
}

#[tonic::async_trait]
impl KeyVerify for KeyVerifyService {
    async fn verify(
        &self,
        request: Request<Encoded<pb::VerifyRequest>>,
    ) -> Result<Response<Encoded<pb::VerifyResponse>>, Status> {
        let principal = guard::principal(&request)?;
        let message = request.get_ref();
        let asked =
            VerifyQuestion::decode(message.as_bytes()).ok_or_else(|| message.decode_error())?;
        self.verifier
            .wait_for(asked.min_revision, principal)
            .await?;
        self.verify_asked(principal, &asked).map(Response::new)
    }

    async fn verify_batch(
        &self,
        request: Request<Encoded<pb::VerifyBatchRequest>>,
    ) -> Result<Response<Encoded<pb::VerifyBatchResponse>>, Status> {
        const RESULTS: u8 = tag(1);
        let principal = guard::principal(&request)?;
        let message = request.get_ref();
        let questions = VerifyQuestion::decode_batch(message.as_bytes(), MAX_BATCH)
            .ok_or_else(|| message.decode_error())?;
        let wanted = questions.iter().map(|asked| asked.min_revision).max();
        self.verifier
            .wait_for(wanted.unwrap_or_default(), principal)
            .await?;
        let results = self
            .verifier
            .with_caller(principal, |view, caller, moment| {
                if questions.len() > MAX_BATCH {
                    let mut bad = Violations::default();
                    bad.add("requests", "must have at most 100 entries");
                    return bad.finish(None).map_err(|bad| status::invalid(&bad));
                }
                let mut results = Vec::with_capacity(questions.len() * USUAL_ANSWER);
                for asked in &questions {
                    put_message(RESULTS, &mut results, |bytes| {
                        self.verifier.put_result(view, caller, moment, asked, bytes);
                    });
                }
                Ok(results)
            })?;
        Ok(Response::new(Encoded::new(results)))
    }

    type VerifyStreamStream = Answers;

    async fn verify_stream(
        &self,
        request: Request<Streaming<Encoded<pb::VerifyStreamRequest>>>,
    ) -> Result<Response<Answers>, Status> {
        let principal = guard::principal(&request)?.clone();
        let closing = guard::closing(&request)?;
        let verifier = Arc::clone(&self.verifier);
        let questions = request.into_inner();
        Ok(Response::new(Answers::new(
            verifier, principal, questions, closing,
        )))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let principal = guard::principal(&request)?;
        let answer = self
            .verifier
            .with_caller(principal, |view, caller, moment| {
                caller.may_operate()?;
                explain::explain(view, &self.verifier.peppers, moment, request.get_ref())
            })?;
        Ok(Response::new(answer))
    }
}
