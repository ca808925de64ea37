//! The limit on the pages that are in memory, from the reading of their rows until their answers are sent.
//!
//! A page has up to a megabyte, or one large item, and its client may take long to read it, or never read it. So a list waits
//! for a permit, at most for the time of a call. Operators wait only for operators, and nobody can hold all permits alone: neither
//! one operator, nor all callers of one realm.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

use crate::auth::CallerGroup;
use crate::domain::ids::RealmId;

/// How many pages of operators, and how many of all other callers, may be in memory. Twice as many as the store has readers.
const MAX_PAGES: usize = 8;

/// How many pages one operator key may have in memory.
const MAX_PAGES_OF_AN_OPERATOR: usize = 4;

/// How many pages the managers and partners of one realm may have in memory.
const MAX_PAGES_OF_A_REALM: usize = 4;

/// How many pages the managers of one realm, or the keys of one partner, may have in memory.
const MAX_PAGES_OF_AN_OWNER: usize = 2;

/// The permits for pages.
#[derive(Clone)]
pub(super) struct PageLimiter {
    operators: Arc<Semaphore>,
    others: Arc<Semaphore>,
    realms: Shares<RealmId>,
    groups: Shares<CallerGroup>,
}

/// The permits of each of those who have pages, or wait for one. Clones are the same.
struct Shares<K>(Arc<Mutex<HashMap<K, Weak<Semaphore>>>>);

/// The permit for one page. Drop of the last clone returns the permit.
#[derive(Clone)]
pub(super) struct PagePermit {
    _permits: Arc<[OwnedSemaphorePermit]>,
}

impl Default for PageLimiter {
    fn default() -> Self {
        Self {
            operators: Arc::new(Semaphore::new(MAX_PAGES)),
            others: Arc::new(Semaphore::new(MAX_PAGES)),
            realms: Shares::default(),
            groups: Shares::default(),
        }
    }
}

impl PageLimiter {
    /// Waits for a permit for a caller of this group.
    pub(super) async fn take(&self, group: &CallerGroup) -> PagePermit {
        let (all, most) = match group {
            CallerGroup::Operator(_) => (&self.operators, MAX_PAGES_OF_AN_OPERATOR),
            _ => (&self.others, MAX_PAGES_OF_AN_OWNER),
        };
        // The narrowest permit comes first: who has no more of them does not stand in the queue in front of others.
        let mut permits = vec![acquire(&self.groups.of(group, most)).await];
        if let Some(realm) = group.realm() {
            permits.push(acquire(&self.realms.of(realm, MAX_PAGES_OF_A_REALM)).await);
        }
        permits.push(acquire(all).await);
        PagePermit {
            _permits: permits.into(),
        }
    }
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// Returns the permits of one, of which there are `most`.
    fn of(&self, key: &K, most: usize) -> Arc<Semaphore> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shares.get(key).and_then(Weak::upgrade) {
            return known;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(most));
        shares.insert(key.clone(), Arc::downgrade(&share));
        share
    }
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

async fn acquire(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = Arc::clone(permits).acquire_owned().await;
    permit.expect("the permits are never withdrawn")
}

impl PagePermit {
    /// Returns the answer with this permit, for [`hold_until_sent`].
    pub(super) fn answer<T>(self, message: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(message);
        response.extensions_mut().insert(self);
        response
    }
}

/// Moves the permit of an answer to its bytes, if the answer is a page.
///
/// The transport takes the whole page as soon as its client can receive a part of it. So the permit belongs to the bytes: it is
/// returned when the transport has sent the last of them, or gives them up.
pub(super) fn hold_until_sent(mut answer: Response<Body>) -> Response<Body> {
    let Some(permit) = answer.extensions_mut().remove::<PagePermit>() else {
        return answer;
    };
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            frame.map_data(|bytes| {
                Bytes::from_owner(HeldBytes {
                    bytes,
                    _permit: permit.clone(),
                })
            })
        }))
    })
}

/// Bytes of a page.
struct HeldBytes {
    bytes: Bytes,
    _permit: PagePermit,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::ids::{KeyId, PartnerId};

    fn operator(key: u8) -> CallerGroup {
        CallerGroup::Operator(KeyId::from_bytes([key; 16]))
    }

    fn partner(id: &str) -> CallerGroup {
        let realm = RealmId::parse("demo").unwrap();
        CallerGroup::Partner(realm, PartnerId::parse(id).unwrap())
    }

    fn managers(realm: &str) -> CallerGroup {
        CallerGroup::Managers(RealmId::parse(realm).unwrap())
    }

    /// As many permits as there are without waiting.
    fn take_all(limiter: &PageLimiter, group: &CallerGroup) -> Vec<PagePermit> {
        std::iter::from_fn(|| limiter.take(group).now_or_never()).collect()
    }

    /// Seen red without the permits of a realm, and with the permits in the other order.
    #[tokio::test]
    async fn nobody_can_hold_all_permits_alone() {
        let limiter = PageLimiter::default();
        let first = take_all(&limiter, &operator(1));
        assert_eq!(first.len(), MAX_PAGES_OF_AN_OPERATOR);
        let second = take_all(&limiter, &operator(2));
        assert_eq!(second.len(), MAX_PAGES - MAX_PAGES_OF_AN_OPERATOR);
        assert!(take_all(&limiter, &operator(3)).is_empty());
        let acme = take_all(&limiter, &partner("acme"));
        assert_eq!(acme.len(), MAX_PAGES_OF_AN_OWNER);
        // Who waits for an own permit takes none from others.
        let another = partner("acme");
        let mut waiting: Vec<_> = (0..MAX_PAGES)
            .map(|_| Box::pin(limiter.take(&another)))
            .collect();
        for call in &mut waiting {
            assert!(call.as_mut().now_or_never().is_none());
        }
        let umbrella = take_all(&limiter, &partner("umbrella"));
        assert_eq!(acme.len() + umbrella.len(), MAX_PAGES_OF_A_REALM);
        // Neither does who waits for a permit of the realm.
        let rest = [partner("globex"), partner("initech"), managers("demo")];
        let mut waiting_for_realm: Vec<_> = rest
            .iter()
            .map(|group| Box::pin(limiter.take(group)))
            .collect();
        for call in &mut waiting_for_realm {
            assert!(call.as_mut().now_or_never().is_none());
        }
        let others = take_all(&limiter, &managers("other"));
        assert_eq!(others.len(), MAX_PAGES_OF_AN_OWNER);
        let third = take_all(&limiter, &managers("third"));
        assert_eq!(third.len(), MAX_PAGES_OF_AN_OWNER);
        assert!(take_all(&limiter, &managers("fourth")).is_empty());
    }

    fn page(limiter: &PageLimiter, group: &CallerGroup) -> Body {
        let permit = limiter.take(group).now_or_never().unwrap();
        let (_, (), extensions) = permit.answer(()).into_parts();
        let mut answer = Response::new(Body::new("a page".to_owned()));
        *answer.extensions_mut() = extensions;
        hold_until_sent(answer).into_body()
    }

    /// Seen red with the permit held by the body only: the transport then has the page and not the permit.
    #[tokio::test]
    async fn a_permit_is_held_as_long_as_the_bytes_of_its_page() {
        let limiter = PageLimiter::default();
        let operator = operator(1);
        let mut held = take_all(&limiter, &operator);
        held.pop();
        let is_free = || limiter.take(&operator).now_or_never().is_some();

        let mut body = page(&limiter, &operator);
        assert!(!is_free());
        let mut bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!(bytes, "a page");
        let sent = bytes.split_to(2);
        drop(sent);
        assert!(!is_free());
        drop(bytes);
        assert!(is_free());

        let unread = page(&limiter, &operator);
        assert!(!is_free());
        drop(unread);
        assert!(is_free());
    }

    #[tokio::test]
    async fn a_returned_permit_goes_to_who_waits_and_nothing_is_kept_of_who_is_done() {
        let limiter = PageLimiter::default();
        let mut held = take_all(&limiter, &partner("acme"));
        let acme = partner("acme");
        let mut waiting = Box::pin(limiter.take(&acme));
        assert!(waiting.as_mut().now_or_never().is_none());
        let clone = held[0].clone();
        held.clear();
        assert!(
            limiter.take(&acme).now_or_never().is_none(),
            "the other one waits already"
        );
        let next = waiting.await;
        drop((clone, next));
        drop(take_all(&limiter, &partner("umbrella")));
        assert_eq!(limiter.groups.0.lock().unwrap().len(), 1);
        assert_eq!(take_all(&limiter, &acme).len(), MAX_PAGES_OF_AN_OWNER);
    }
}
