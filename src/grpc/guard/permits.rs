//! Permits for calls: one for each call in progress. Drop returns the permit.

use std::sync::Arc;

use crate::metrics::Limit;
use crate::transport::Peer;

/// The permit for a call.
pub(super) struct CallPermit(Arc<Peer>);

impl CallPermit {
    pub(super) fn take(peer: &Arc<Peer>, max: usize) -> Option<Self> {
        // If the limit is exceeded, drop returns the permit.
        let permit = Self(Arc::clone(peer));
        if permit.0.quota.begin_call(max) {
            return Some(permit);
        }
        peer.refusals.count(Limit::Calls);
        None
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.0.quota.end_call();
    }
}

/// The permit for a call of health or reflection. Drop returns the permit.
pub(super) struct AnonymousCallPermit(Arc<Peer>);

impl AnonymousCallPermit {
    pub(super) fn take(peer: &Arc<Peer>, must_be_answered: bool) -> Option<Self> {
        let permit = Self(Arc::clone(peer));
        if permit.0.quota.begin_anonymous_call(must_be_answered) {
            return Some(permit);
        }
        peer.refusals.count(Limit::AnonymousCalls);
        None
    }
}

impl Drop for AnonymousCallPermit {
    fn drop(&mut self) {
        self.0.quota.end_anonymous_call();
    }
}

/// The permit for a stream of questions. Drop returns the permit.
pub(super) struct VerifyStreamPermit(Arc<Peer>);

impl VerifyStreamPermit {
    pub(super) fn take(peer: &Arc<Peer>) -> Option<Self> {
        let permit = Self(Arc::clone(peer));
        if permit.0.quota.begin_verify_stream() {
            return Some(permit);
        }
        peer.refusals.count(Limit::VerifyStreams);
        None
    }
}

impl Drop for VerifyStreamPermit {
    fn drop(&mut self) {
        self.0.quota.end_verify_stream();
    }
}

/// The permit of a call whose answer may be sent for a long time.
#[expect(dead_code, reason = "the permits are only held")]
pub(super) enum OpenCallPermit {
    /// Of health or reflection.
    Anonymous(AnonymousCallPermit),
    /// Of a stream of questions.
    VerifyStream(VerifyStreamPermit),
}
