//! `KeyVerify.VerifyStream`: the answers to a stream of questions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Verifier, result};
use crate::auth::Principal;
use crate::grpc::status;
use crate::pb::claviger::v1 as pb;
use crate::protobuf::Encoded;

/// How long a stream may be without a question before the server ends it.
const IDLE: Duration = Duration::from_mins(1);

pub(super) type Answers = BoxStream<'static, Result<Encoded<pb::VerifyStreamResponse>, Status>>;

struct Asking {
    verifier: Arc<Verifier>,
    principal: Principal,
    questions: Streaming<pb::VerifyStreamRequest>,
    closing: CancellationToken,
}

/// Answers one question after the other. A question is read only when the client can take another answer, so that a client that
/// reads no answers is read no more either.
pub(super) fn answers(
    verifier: Arc<Verifier>,
    principal: Principal,
    questions: Streaming<pb::VerifyStreamRequest>,
    closing: CancellationToken,
) -> Answers {
    let asking = Asking {
        verifier,
        principal,
        questions,
        closing,
    };
    // `None` after an error, which is the last item.
    let next = async |asking: Option<Asking>| {
        let mut asking = asking?;
        match asking.next().await.transpose()? {
            Ok(answer) => Some((Ok(answer), Some(asking))),
            Err(error) => Some((Err(error), None)),
        }
    };
    stream::unfold(Some(asking), next).boxed()
}

impl Asking {
    /// The answer to the next question; `None` if the stream ends.
    async fn next(&mut self) -> Result<Option<Encoded<pb::VerifyStreamResponse>>, Status> {
        let Some(question) = next_question(&mut self.questions, &self.closing, IDLE).await? else {
            return Ok(None);
        };
        let pb::VerifyStreamRequest { request } = question;
        let request = request.unwrap_or_default();
        let answer = self
            .verifier
            .with_caller(&self.principal, |view, caller, now| {
                Ok(result(self.verifier.answer(view, caller, now, &request)))
            })?;
        Ok(Some(Encoded::new(answer)))
    }
}

/// The next question; `None` if there are no more, if none comes within `idle`, or if the connection closes. A connection that
/// closes takes no more questions, because a client that always has one would keep it open.
async fn next_question<Q>(
    questions: &mut (impl Stream<Item = Result<Q, Status>> + Unpin),
    closing: &CancellationToken,
    idle: Duration,
) -> Result<Option<Q>, Status> {
    if closing.is_cancelled() {
        return Ok(None);
    }
    let question = tokio::select! {
        // First, so that the others are looked at only if there is no question.
        biased;
        question = questions.next() => question,
        () = closing.cancelled() => None,
        () = sleep(idle) => None,
    };
    question
        .transpose()
        .map_err(|error| status::from_tonic(error.code(), error.message()))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_stream_ends_if_no_question_comes_for_too_long() {
        let mut questions = stream::iter([Ok(7)]).chain(stream::pending());
        let (closing, idle) = (CancellationToken::new(), Duration::from_millis(1));
        for expected in [Some(7), None] {
            let next = next_question(&mut questions, &closing, idle).await;
            assert_eq!(next.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_connection_also_if_there_are_more_questions() {
        let closing = CancellationToken::new();
        let mut questions = stream::repeat_with(|| Ok(7));
        let next = next_question(&mut questions, &closing, IDLE).await;
        assert_eq!(next.unwrap(), Some(7));
        closing.cancel();
        let next = next_question(&mut questions, &closing, IDLE).await;
        assert_eq!(next.unwrap(), None);
    }

    #[tokio::test]
    async fn a_question_that_cannot_be_decoded_is_the_clients_fault() {
        let mut questions = stream::iter([Err::<(), _>(Status::internal("buffer underflow"))]);
        let next = next_question(&mut questions, &CancellationToken::new(), IDLE).await;
        assert_eq!(next.unwrap_err().code(), Code::InvalidArgument);
    }
}
