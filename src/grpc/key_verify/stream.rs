//! `KeyVerify.VerifyStream`: the answers to a stream of questions.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{Stream, StreamExt};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{USUAL_ANSWER, Verifier, VerifyQuestion};
use crate::auth::Principal;
use crate::grpc::status;
use crate::pb::claviger::v1 as pb;
use crate::protobuf::Encoded;

/// How long a stream may be without a question before the server ends it.
const IDLE: Duration = Duration::from_mins(1);

/// Answers one question after the other. A question is read only when the client can take another answer, so that a client that
/// reads no answers is read no more either. The last item may be an error.
pub struct Answers(Option<Asking>);

struct Asking {
    verifier: Arc<Verifier>,
    principal: Principal,
    questions: Questions<Streaming<Encoded<pb::VerifyStreamRequest>>>,
}

/// Questions until there are no more, until none comes within `idle`, or until the connection closes. A connection that closes takes
/// no more questions, because a client that always has one would keep it open.
struct Questions<S> {
    stream: S,
    closing: CancellationToken,
    idle: Duration,
    /// Ends the wait for a question. Created when there is none, so that it costs nothing while there are more.
    end: Option<BoxFuture<'static, ()>>,
}

impl Answers {
    pub(super) fn new(
        verifier: Arc<Verifier>,
        principal: Principal,
        questions: Streaming<Encoded<pb::VerifyStreamRequest>>,
        closing: CancellationToken,
    ) -> Self {
        Self(Some(Asking {
            verifier,
            principal,
            questions: Questions::new(questions, closing, IDLE),
        }))
    }
}

impl Stream for Answers {
    type Item = Result<Encoded<pb::VerifyStreamResponse>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(asking) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let question = ready!(asking.questions.poll_next_unpin(cx));
        let answer = question.map(|question| asking.answer(&question?));
        if !matches!(answer, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(answer)
    }
}

impl Asking {
    fn answer(
        &self,
        question: &Encoded<pb::VerifyStreamRequest>,
    ) -> Result<Encoded<pb::VerifyStreamResponse>, Status> {
        let asked = VerifyQuestion::decode_streamed(question.as_bytes()).ok_or_else(|| {
            let error = question.decode_error();
            status::from_tonic(error.code(), error.message())
        })?;
        let mut bytes = Vec::with_capacity(USUAL_ANSWER);
        self.verifier
            .with_caller(&self.principal, |view, caller, moment| {
                self.verifier
                    .put_result(view, caller, moment, &asked, &mut bytes);
                Ok(())
            })?;
        Ok(Encoded::new(bytes))
    }
}

impl<S> Questions<S> {
    fn new(stream: S, closing: CancellationToken, idle: Duration) -> Self {
        Self {
            stream,
            closing,
            idle,
            end: None,
        }
    }
}

impl<S, Q> Stream for Questions<S>
where
    S: Stream<Item = Result<Q, Status>> + Unpin,
{
    type Item = Result<Q, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            stream,
            closing,
            idle,
            end,
        } = &mut *self;
        if closing.is_cancelled() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(question) = stream.poll_next_unpin(cx) {
            *end = None;
            return Poll::Ready(question.map(|question| {
                question.map_err(|error| status::from_tonic(error.code(), error.message()))
            }));
        }
        let end = end.get_or_insert_with(|| {
            let (closing, idle) = (closing.clone(), sleep(*idle));
            async move {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = idle => {}
                }
            }
            .boxed()
        });
        end.poll_unpin(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_stream_ends_if_no_question_comes_for_too_long() {
        let questions = stream::iter([Ok(7)]).chain(stream::pending());
        let closing = CancellationToken::new();
        let mut questions = Questions::new(questions, closing, Duration::from_millis(1));
        assert_eq!(questions.next().await.unwrap().unwrap(), 7);
        assert!(questions.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_connection_also_if_there_are_more_questions() {
        let closing = CancellationToken::new();
        let questions = stream::repeat_with(|| Ok(7));
        let mut questions = Questions::new(questions, closing.clone(), IDLE);
        assert_eq!(questions.next().await.unwrap().unwrap(), 7);
        closing.cancel();
        assert!(questions.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_waits_ends_with_its_connection() {
        let closing = CancellationToken::new();
        let questions = stream::pending::<Result<(), Status>>();
        let mut questions = Questions::new(questions, closing.clone(), IDLE);
        let mut next = questions.next();
        assert!(futures_util::poll!(&mut next).is_pending());
        closing.cancel();
        assert!(next.await.is_none());
    }

    /// Each question begins a new wait. Seen red with the first end kept.
    #[tokio::test]
    async fn a_stream_that_is_asked_now_and_then_goes_on() {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let closing = CancellationToken::new();
        let mut questions = Questions::new(receiver, closing, Duration::from_millis(200));
        let asking = tokio::spawn(async move {
            for question in 0..6 {
                sleep(Duration::from_millis(50)).await;
                sender.send(Ok(question)).await.unwrap();
            }
            sender
        });
        for question in 0..6 {
            assert_eq!(questions.next().await.unwrap().unwrap(), question);
        }
        let _sender = asking.await.unwrap();
        assert!(questions.next().await.is_none());
    }

    #[tokio::test]
    async fn a_question_that_cannot_be_decoded_is_the_clients_fault() {
        let questions = stream::iter([Err::<(), _>(Status::internal("buffer underflow"))]);
        let mut questions = Questions::new(questions, CancellationToken::new(), IDLE);
        let error = questions.next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}
