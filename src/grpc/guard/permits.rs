//! Permits for calls: one for each call in progress. Drop returns the permit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::transport::Peer;

/// The permit for a call.
pub(super) struct CallPermit(Arc<Peer>);

impl CallPermit {
    pub(super) fn take(peer: &Arc<Peer>, max: usize) -> Option<Self> {
        // If the limit is exceeded, drop returns the permit.
        let permit = Self(Arc::clone(peer));
        permit.0.quota.begin_call(max).then_some(permit)
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.0.quota.end_call();
    }
}

/// The permit for a call of health or reflection. Drop returns the permit.
pub struct AnonymousCallPermit(Arc<Peer>);

impl AnonymousCallPermit {
    pub(super) fn take(peer: &Arc<Peer>, must_be_answered: bool) -> Option<Self> {
        let permit = Self(Arc::clone(peer));
        permit
            .0
            .quota
            .begin_anonymous_call(must_be_answered)
            .then_some(permit)
    }
}

impl Drop for AnonymousCallPermit {
    fn drop(&mut self) {
        self.0.quota.end_anonymous_call();
    }
}

/// The permit for a stream of questions. Drop returns the permit.
pub struct VerifyStreamPermit(Arc<Peer>);

impl VerifyStreamPermit {
    pub(super) fn take(peer: &Arc<Peer>) -> Option<Self> {
        let permit = Self(Arc::clone(peer));
        permit.0.quota.begin_verify_stream().then_some(permit)
    }
}

impl Drop for VerifyStreamPermit {
    fn drop(&mut self) {
        self.0.quota.end_verify_stream();
    }
}

/// The permit of a call whose answer may be sent for a long time.
pub enum OpenCallPermit {
    /// Of health or reflection.
    Anonymous(AnonymousCallPermit),
    /// Of a stream of questions.
    VerifyStream(VerifyStreamPermit),
}

/// The body of an answer that may be sent for a long time, with its permit.
pub(super) struct WithPermit {
    pub(super) body: Body,
    pub(super) _permit: Option<OpenCallPermit>,
}

impl HttpBody for WithPermit {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
