//! Request bodies whose bytes are counted while they arrive.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::grpc::status;
use crate::metrics::Limit;
use crate::transport::Peer;

/// How many bytes of a body are not counted. A Verify fits into them, and the limit on calls limits them.
const UNCOUNTED: usize = 1024;

pub(super) type Until = Pin<Box<WaitForCancellationFutureOwned>>;

/// A request body whose bytes are counted while they arrive. It ends early when `until` completes.
pub(super) struct Metered<B> {
    body: B,
    peer: Arc<Peer>,
    received: usize,
    /// Whether the body has no end. Then its bytes are neither counted nor paced.
    endless: bool,
    until: Option<Until>,
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, peer: Arc<Peer>, until: Option<Until>) -> Self {
        Self {
            body,
            peer,
            received: 0,
            endless: false,
            until,
        }
    }

    /// A body without end: its messages are answered one by one.
    pub(super) fn endless(body: B, peer: Arc<Peer>) -> Self {
        let mut body = Self::new(body, peer, None);
        body.endless = true;
        body
    }

    /// Returns how many of the received bytes are counted.
    fn counted(&self) -> usize {
        if self.endless {
            return 0;
        }
        self.received.saturating_sub(UNCOUNTED)
    }
}

impl<B> HttpBody for Metered<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.peer.allowance.body(data.len());
            // All of a Verify is in the first frame.
            if self.received > 0 && !self.endless {
                self.peer.pace.frame(data.len());
            }
            let before = self.counted();
            self.received = self.received.saturating_add(data.len());
            let more = self.counted() - before;
            if more > 0 && !self.peer.quota.keep(more) {
                self.peer.refusals.count(Limit::Bodies);
                return Poll::Ready(Some(Err(status::too_many_bodies().into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        let counted = self.counted();
        if counted > 0 {
            self.peer.quota.give_back(counted);
        }
    }
}
