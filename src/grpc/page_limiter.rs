//! The limit on the pages that are in memory, from the reading of their rows until their answers are sent.
//!
//! A page has up to a megabyte, or one large item, and its client may take long to read it, or never read it. So a list waits
//! for a permit, at most for the time of a call. Operators wait only for operators, and nobody can hold all permits alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

use crate::auth::{AuthorizedCaller, CallerGroup};

/// How many pages of operators, and how many of all other callers, may be in memory. Twice as many as the store has readers.
const MAX_PAGES: usize = 8;

/// How many pages one operator key may have in memory.
const MAX_PAGES_OF_AN_OPERATOR: usize = 4;

/// How many pages the managers of one realm, or the keys of one partner, may have in memory.
const MAX_PAGES_OF_AN_OWNER: usize = 2;

/// The permits for pages.
#[derive(Clone)]
pub(super) struct PageLimiter {
    operators: Arc<Semaphore>,
    others: Arc<Semaphore>,
    /// The permits of those who have pages, or wait for one.
    groups: Arc<Mutex<HashMap<CallerGroup, Weak<Semaphore>>>>,
}

/// The permit for one page. Drop of the last clone returns the permit.
#[derive(Clone)]
pub(super) struct PagePermit {
    _permits: Arc<[OwnedSemaphorePermit; 2]>,
}

impl Default for PageLimiter {
    fn default() -> Self {
        Self {
            operators: Arc::new(Semaphore::new(MAX_PAGES)),
            others: Arc::new(Semaphore::new(MAX_PAGES)),
            groups: Arc::default(),
        }
    }
}

impl PageLimiter {
    /// Waits for a permit for this caller.
    pub(super) async fn take(&self, caller: &AuthorizedCaller) -> PagePermit {
        let group = caller.group();
        let (all, most) = match &group {
            CallerGroup::Operator(_) => (&self.operators, MAX_PAGES_OF_AN_OPERATOR),
            _ => (&self.others, MAX_PAGES_OF_AN_OWNER),
        };
        // The own permit comes first: who has no more of them does not stand in the queue in front of others.
        let own = acquire(&self.permits_of(group, most)).await;
        let of_all = acquire(all).await;
        PagePermit {
            _permits: Arc::new([own, of_all]),
        }
    }

    fn permits_of(&self, group: CallerGroup, most: usize) -> Arc<Semaphore> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = groups.get(&group).and_then(Weak::upgrade) {
            return known;
        }
        groups.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(most));
        groups.insert(group, Arc::downgrade(&share));
        share
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
    use crate::auth::Principal;
    use crate::auth::{Delegate, Role};
    use crate::domain::ids::EnvironmentName;
    use crate::domain::ids::{KeyId, PartnerId, RealmId};
    use crate::domain::key::Digest;

    fn caller(key: u8, role: Role) -> AuthorizedCaller {
        AuthorizedCaller {
            principal: Principal {
                key: KeyId::from_bytes([key; 16]),
                secret: Digest {
                    pepper: 1,
                    mac: [key; 32],
                },
                peer: None,
            },
            role,
        }
    }

    fn delegate(key: u8, partner: &str) -> AuthorizedCaller {
        let role = Role::Delegate(Delegate {
            realm: RealmId::parse("demo").unwrap(),
            partner: PartnerId::parse(partner).unwrap(),
            project: None,
            environment: EnvironmentName::parse("production").unwrap(),
        });
        caller(key, role)
    }

    fn manager(key: u8, realm: &str) -> AuthorizedCaller {
        let realm = RealmId::parse(realm).unwrap();
        caller(
            key,
            Role::Realm {
                realm,
                manage: true,
            },
        )
    }

    /// As many permits as there are without waiting.
    fn take_all(limiter: &PageLimiter, caller: &AuthorizedCaller) -> Vec<PagePermit> {
        std::iter::from_fn(|| limiter.take(caller).now_or_never()).collect()
    }

    #[tokio::test]
    async fn nobody_can_hold_all_permits_alone() {
        let limiter = PageLimiter::default();
        let first = take_all(&limiter, &caller(1, Role::Operator));
        assert_eq!(first.len(), MAX_PAGES_OF_AN_OPERATOR);
        let second = take_all(&limiter, &caller(2, Role::Operator));
        assert_eq!(second.len(), MAX_PAGES - MAX_PAGES_OF_AN_OPERATOR);
        assert!(take_all(&limiter, &caller(3, Role::Operator)).is_empty());
        // Keys of one partner share, and so do the managers of one realm.
        let acme = take_all(&limiter, &delegate(4, "acme"));
        assert_eq!(acme.len(), MAX_PAGES_OF_AN_OWNER);
        assert!(take_all(&limiter, &delegate(5, "acme")).is_empty());
        // Who waits for an own permit takes none from others. Seen red with the two permits in the other order.
        let another = delegate(5, "acme");
        let mut waiting: Vec<_> = (0..MAX_PAGES)
            .map(|_| Box::pin(limiter.take(&another)))
            .collect();
        for call in &mut waiting {
            assert!(call.as_mut().now_or_never().is_none());
        }
        let managers = take_all(&limiter, &manager(6, "demo"));
        assert_eq!(managers.len(), MAX_PAGES_OF_AN_OWNER);
        assert!(take_all(&limiter, &manager(7, "demo")).is_empty());
        assert_eq!(
            take_all(&limiter, &manager(8, "other")).len(),
            MAX_PAGES_OF_AN_OWNER
        );
    }

    fn page(limiter: &PageLimiter, caller: &AuthorizedCaller) -> Body {
        let permit = limiter.take(caller).now_or_never().unwrap();
        let (_, (), extensions) = permit.answer(()).into_parts();
        let mut answer = Response::new(Body::new("a page".to_owned()));
        *answer.extensions_mut() = extensions;
        hold_until_sent(answer).into_body()
    }

    /// Seen red with the permit held by the body only: the transport then has the page and not the permit.
    #[tokio::test]
    async fn a_permit_is_held_as_long_as_the_bytes_of_its_page() {
        let limiter = PageLimiter::default();
        let operator = caller(1, Role::Operator);
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
        let mut held = take_all(&limiter, &delegate(1, "acme"));
        let acme = delegate(2, "acme");
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
        drop(take_all(&limiter, &delegate(3, "umbrella")));
        assert_eq!(limiter.groups.lock().unwrap().len(), 1);
        assert_eq!(take_all(&limiter, &acme).len(), MAX_PAGES_OF_AN_OWNER);
    }
}
