//! A queue for what there is little of: the one open change, the connections that read, the processors that hash.
//!
//! Changes that take access away are served first, then operators, then everybody else. Among those, the realms take turns, and in
//! a realm the groups of callers. So whoever sends many requests at once makes others wait for about one of them. The limits of a
//! realm and of a group hold for changes that take access away by themselves, so that nothing else stands in their way. Whoever
//! revokes thousands of keys one by one would keep all others waiting, so the first priority leaves one of four permits to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::auth::CallerGroup;
use crate::domain::ids::RealmId;

/// The order in which requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Takes access away.
    TakesAway,
    /// Comes from an operator.
    Operator,
    /// Anything else.
    Other,
}

/// Requests that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    /// Those that take access away.
    TakesAway,
    /// All others.
    Other,
}

impl From<Priority> for Lane {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::TakesAway => Self::TakesAway,
            Priority::Operator | Priority::Other => Self::Other,
        }
    }
}

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many permits there are.
    pub(super) permits: usize,
    /// How many permits each priority leaves to each higher one.
    pub(super) reserved: usize,
    /// How long a request waits at most.
    pub(super) wait: Duration,
    /// How many permits the callers of one realm may have at once, operators apart.
    pub(super) permits_of_realm: usize,
    /// How many permits the keys of a partner, or whoever has one key, may have at once.
    pub(super) permits_of_group: usize,
    /// How many permits the managers of a realm may have or wait for.
    pub(super) requests_of_managers: usize,
    /// How many permits a partner's keys may have or wait for.
    pub(super) requests_of_partner: usize,
}

/// How many permits whoever has a key may have or wait for.
const REQUESTS_OF_HOLDER: usize = 2;

/// How many permits in a row changes that take access away get while others wait.
const IN_A_ROW: usize = 3;

/// Why a request got no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPermit {
    /// The caller's group has too many requests in the queue.
    TooManyOfGroup,
    /// No permit became free in time.
    Late,
}

/// A queue for permits. Clones are the same queue.
#[derive(Clone)]
pub(super) struct FairQueue(Arc<Mutex<State>>);

struct State {
    limits: Limits,
    free: usize,
    /// In the order of arrival.
    waiting: Vec<Waiter>,
    groups: HashMap<(Lane, CallerGroup), Part>,
    realms: HashMap<(Lane, Option<RealmId>), Part>,
    /// The number of permits given so far.
    given: u64,
    /// The number of permits that changes which take access away got since another request got one.
    in_a_row: usize,
}

struct Waiter {
    priority: Priority,
    group: CallerGroup,
    permit: oneshot::Sender<GivenPermit>,
}

/// What a group or a realm has of the queue.
#[derive(Clone, Copy, Default)]
struct Part {
    /// The permits that it has.
    permits: usize,
    /// The permits that it has or waits for.
    requests: usize,
    /// When it last got a permit, as a number of permits given.
    served_at: u64,
}

/// A permit. Drop returns it.
pub(super) struct QueuePermit {
    // Dropped in this order.
    _given: GivenPermit,
    _request: Request,
}

/// A permit on the way to its request. Drop returns it.
struct GivenPermit {
    /// `None` after the permit was returned.
    to: Option<(FairQueue, Lane, CallerGroup)>,
}

/// A request, until its permit is returned. Drop ends it.
struct Request {
    queue: FairQueue,
    lane: Lane,
    group: CallerGroup,
}

impl FairQueue {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(State {
            limits,
            free: limits.permits,
            waiting: Vec::new(),
            groups: HashMap::new(),
            realms: HashMap::new(),
            given: 0,
            in_a_row: 0,
        })))
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// At once if the group has too many requests in the queue, and later if no permit became free in time.
    pub(super) async fn take(
        &self,
        priority: Priority,
        group: &CallerGroup,
    ) -> Result<QueuePermit, NoPermit> {
        let (sender, permit) = oneshot::channel();
        let lane = Lane::from(priority);
        let wait;
        {
            let mut state = self.lock();
            wait = state.limits.wait;
            if state.part_of_group(lane, group).requests >= state.limits.requests_of(group) {
                return Err(NoPermit::TooManyOfGroup);
            }
            for part in state.parts(lane, group) {
                part.requests += 1;
            }
            state.waiting.push(Waiter {
                priority,
                group: group.clone(),
                permit: sender,
            });
            self.serve(&mut state);
        }
        let request = Request {
            queue: self.clone(),
            lane,
            group: group.clone(),
        };
        match tokio::time::timeout(wait, permit).await {
            Ok(Ok(given)) => Ok(QueuePermit {
                _given: given,
                _request: request,
            }),
            _ => Err(NoPermit::Late),
        }
    }

    /// Gives the free permits to those who wait.
    fn serve(&self, state: &mut State) {
        while let Some(index) = state.next() {
            let Waiter {
                priority,
                group,
                permit,
            } = state.waiting.remove(index);
            let lane = Lane::from(priority);
            state.free -= 1;
            state.given += 1;
            state.in_a_row = match priority {
                Priority::TakesAway => state.in_a_row + 1,
                _ => 0,
            };
            let served_at = state.given;
            for part in state.parts(lane, &group) {
                part.permits += 1;
                part.served_at = served_at;
            }
            let to = Some((self.clone(), lane, group));
            if let Err(mut given) = permit.send(GivenPermit { to })
                && let Some((_, lane, group)) = given.to.take()
            {
                // The request was given up. A drop of the permit would lock the queue again.
                state.put_back(lane, &group);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    /// The managers of a realm may have what all callers of the realm may have.
    fn permits_of(&self, group: &CallerGroup) -> usize {
        match group {
            CallerGroup::Operator(_) => usize::MAX,
            CallerGroup::Managers(_) => self.permits_of_realm,
            CallerGroup::Partner(..) | CallerGroup::Holder(..) => self.permits_of_group,
        }
    }

    fn requests_of(&self, group: &CallerGroup) -> usize {
        match group {
            CallerGroup::Operator(_) => usize::MAX,
            CallerGroup::Managers(_) => self.requests_of_managers,
            CallerGroup::Partner(..) => self.requests_of_partner,
            CallerGroup::Holder(..) => REQUESTS_OF_HOLDER,
        }
    }
}

impl State {
    /// Returns the index of the waiter who is served next, if a permit is free for one.
    fn next(&self) -> Option<usize> {
        let parts = |waiter: &Waiter| {
            let (lane, group) = (Lane::from(waiter.priority), &waiter.group);
            (
                self.part_of_realm(lane, group),
                self.part_of_group(lane, group),
            )
        };
        let may_have = |waiter: &Waiter| {
            let left_to_others = self.limits.reserved * waiter.priority as usize;
            let (of_realm, of_group) = parts(waiter);
            self.free > left_to_others
                && (waiter.group.realm().is_none()
                    || of_realm.permits < self.limits.permits_of_realm
                        && of_group.permits < self.limits.permits_of(&waiter.group))
        };
        let is_last = |priority| self.in_a_row >= IN_A_ROW && priority == Priority::TakesAway;
        // Those who have waited longest since their last permit come first. Of equals, the one who came first.
        let order = |waiter: &Waiter| {
            let (of_realm, of_group) = parts(waiter);
            (
                is_last(waiter.priority),
                waiter.priority,
                of_realm.served_at,
                of_group.served_at,
            )
        };
        let waiting = self.waiting.iter().enumerate();
        waiting
            .filter(|(_, waiter)| may_have(waiter))
            .min_by_key(|(_, waiter)| order(waiter))
            .map(|(index, _)| index)
    }

    fn part_of_group(&self, lane: Lane, group: &CallerGroup) -> Part {
        let key = (lane, group.clone());
        self.groups.get(&key).copied().unwrap_or_default()
    }

    fn part_of_realm(&self, lane: Lane, group: &CallerGroup) -> Part {
        let key = (lane, group.realm().cloned());
        self.realms.get(&key).copied().unwrap_or_default()
    }

    /// The parts of the group and of its realm.
    fn parts(&mut self, lane: Lane, group: &CallerGroup) -> [&mut Part; 2] {
        let realm = group.realm().cloned();
        [
            self.groups.entry((lane, group.clone())).or_default(),
            self.realms.entry((lane, realm)).or_default(),
        ]
    }

    /// Takes back a permit.
    fn put_back(&mut self, lane: Lane, group: &CallerGroup) {
        self.free += 1;
        for part in self.parts(lane, group) {
            part.permits -= 1;
        }
    }

    /// Ends a request. Those who have no more requests need not be remembered.
    fn end(&mut self, lane: Lane, group: &CallerGroup) {
        for part in self.parts(lane, group) {
            part.requests -= 1;
        }
        if self.part_of_group(lane, group).requests == 0 {
            self.groups.remove(&(lane, group.clone()));
        }
        if self.part_of_realm(lane, group).requests == 0 {
            self.realms.remove(&(lane, group.realm().cloned()));
        }
    }
}

impl Drop for GivenPermit {
    fn drop(&mut self) {
        if let Some((queue, lane, group)) = self.to.take() {
            let mut state = queue.lock();
            state.put_back(lane, &group);
            queue.serve(&mut state);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.waiting.retain(|waiter| !waiter.permit.is_closed());
        state.end(self.lane, &self.group);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::future::BoxFuture;
    use futures_util::{FutureExt, poll};

    use super::*;
    use crate::domain::ids::{KeyId, PartnerId};

    const LIMITS: Limits = Limits {
        permits: 1,
        reserved: 0,
        wait: Duration::from_mins(1),
        permits_of_realm: usize::MAX,
        permits_of_group: usize::MAX,
        requests_of_managers: 8,
        requests_of_partner: 4,
    };

    fn realm(name: &str) -> RealmId {
        RealmId::parse(name).unwrap()
    }

    fn managers(of: &str) -> CallerGroup {
        CallerGroup::Managers(realm(of))
    }

    fn partner(of: &str, id: &str) -> CallerGroup {
        CallerGroup::Partner(realm(of), PartnerId::parse(id).unwrap())
    }

    fn operator() -> CallerGroup {
        CallerGroup::Operator(KeyId::from_bytes([7; 16]))
    }

    type Waiting = BoxFuture<'static, Result<QueuePermit, NoPermit>>;

    /// A request that was polled once, and its permit if it got one at once.
    async fn ask(
        queue: &FairQueue,
        priority: Priority,
        group: &CallerGroup,
    ) -> (Waiting, Option<QueuePermit>) {
        let (queue, group) = (queue.clone(), group.clone());
        let mut waiting = async move { queue.take(priority, &group).await }.boxed();
        match poll!(&mut waiting) {
            Poll::Ready(permit) => (waiting, Some(permit.ok().unwrap())),
            Poll::Pending => (waiting, None),
        }
    }

    async fn permit(queue: &FairQueue, priority: Priority, group: &CallerGroup) -> QueuePermit {
        queue.take(priority, group).await.ok().unwrap()
    }

    fn assert_forgotten(queue: &FairQueue) {
        let state = queue.lock();
        assert_eq!(state.free, state.limits.permits);
        assert!(state.groups.is_empty() && state.realms.is_empty() && state.waiting.is_empty());
    }

    /// Returns the order in which requests get the one permit.
    async fn order(requests: &[(&'static str, Priority, CallerGroup)]) -> Vec<&'static str> {
        let queue = FairQueue::new(LIMITS);
        let first = permit(&queue, Priority::Other, &managers("first")).await;
        let mut waiting = Vec::new();
        for (name, priority, group) in requests {
            let (request, at_once) = ask(&queue, *priority, group).await;
            assert!(at_once.is_none());
            waiting.push((*name, request));
        }
        let mut order = Vec::new();
        let mut held = Some(first);
        while !waiting.is_empty() {
            drop(held.take());
            let mut served = None;
            for (index, (_, request)) in waiting.iter_mut().enumerate() {
                if let Poll::Ready(permit) = poll!(request) {
                    assert!(served.is_none(), "one at a time");
                    served = Some(index);
                    held = permit.ok();
                }
            }
            order.push(waiting.remove(served.expect("a permit is free")).0);
        }
        drop(held);
        assert_forgotten(&queue);
        order
    }

    /// Seen red with each line of `order` in `next` left out.
    #[tokio::test]
    async fn realms_and_groups_take_turns_within_a_priority() {
        use Priority::{Operator, Other, TakesAway};
        let served = order(&[
            ("a1", Other, managers("a")),
            ("a2", Other, managers("a")),
            ("a3", Other, partner("a", "acme")),
            ("a4", Other, partner("a", "acme")),
            ("b1", Other, managers("b")),
            ("operator", Operator, operator()),
            ("revocation", TakesAway, partner("a", "acme")),
        ])
        .await;
        let expected = ["revocation", "operator", "a1", "b1", "a3", "a2", "a4"];
        assert_eq!(served, expected);
        let served = order(&[
            ("m1", Other, managers("a")),
            ("m2", Other, managers("a")),
            ("m3", Other, managers("a")),
            ("p1", Other, partner("a", "acme")),
            ("p2", Other, partner("a", "acme")),
            ("q1", Other, partner("a", "umbrella")),
        ])
        .await;
        assert_eq!(served, ["m1", "p1", "q1", "m2", "p2", "m3"]);
    }

    /// Seen red without `is_last` in `order`, and with a count that another permit does not end.
    #[tokio::test]
    async fn what_takes_access_away_leaves_some_permits_to_others() {
        use Priority::{Operator, Other, TakesAway};
        let revocation = ("revocation", TakesAway, managers("a"));
        let mut requests = vec![revocation; 7];
        requests.push(("operator", Operator, operator()));
        requests.push(("manager", Other, managers("b")));
        let served = order(&requests).await;
        let first = ["revocation", "revocation", "revocation"];
        let expected = [&first[..], &["operator"], &first, &["manager"], &first[..1]].concat();
        assert_eq!(served, expected);
    }

    /// Seen red with the limits of realms and of groups left out of `may_have`, with nothing left to higher priorities, and with one
    /// count for both lanes.
    #[tokio::test]
    async fn some_permits_are_left_to_others() {
        let queue = FairQueue::new(Limits {
            permits: 6,
            reserved: 1,
            permits_of_realm: 3,
            permits_of_group: 2,
            ..LIMITS
        });
        let mut permits = Vec::new();
        let mut waiting = Vec::new();
        let groups = [
            partner("a", "acme"),
            partner("a", "umbrella"),
            managers("b"),
        ];
        for (group, gets) in [(0, 2), (1, 1), (2, 1)] {
            for n in 0..3 {
                let (request, at_once) = ask(&queue, Priority::Other, &groups[group]).await;
                assert_eq!(at_once.is_some(), n < gets, "{n} of {group}");
                permits.extend(at_once);
                waiting.push(request);
            }
        }
        let operator = operator();
        for gets in [true, false] {
            let (request, at_once) = ask(&queue, Priority::Operator, &operator).await;
            assert_eq!(at_once.is_some(), gets);
            permits.extend(at_once);
            waiting.push(request);
        }
        // The last one is for what takes access away, also of those who have as many others as they may.
        let (request, at_once) = ask(&queue, Priority::TakesAway, &groups[0]).await;
        assert!(at_once.is_some());
        drop((at_once, request, waiting, permits));
        assert_forgotten(&queue);
    }

    /// Seen red with a request that stays in the count after its end.
    #[tokio::test]
    async fn a_group_has_a_limited_number_of_requests() {
        let queue = FairQueue::new(LIMITS);
        let acme = partner("a", "acme");
        let held = permit(&queue, Priority::Other, &acme).await;
        let mut waiting = Vec::new();
        for _ in 1..LIMITS.requests_of_partner {
            waiting.push(ask(&queue, Priority::Other, &acme).await.0);
        }
        let refused = queue.take(Priority::Other, &acme).await;
        assert_eq!(refused.err(), Some(NoPermit::TooManyOfGroup));
        // What takes access away is counted by itself.
        drop(ask(&queue, Priority::TakesAway, &acme).await);
        let umbrella = partner("a", "umbrella");
        drop(waiting.pop());
        let _again = ask(&queue, Priority::Other, &acme).await;
        let _other = ask(&queue, Priority::Other, &umbrella).await;
        drop(held);
    }

    /// A permit that is on its way to a request that is given up must not be lost. Seen red without `GivenPermit::drop`.
    #[tokio::test]
    async fn a_request_that_is_given_up_loses_no_permit() {
        let queue = FairQueue::new(LIMITS);
        let acme = partner("a", "acme");
        let held = permit(&queue, Priority::Other, &acme).await;
        let (given_up, _) = ask(&queue, Priority::Other, &acme).await;
        let (next, _) = ask(&queue, Priority::Other, &acme).await;
        drop(held);
        drop(given_up);
        drop(next.await.ok().unwrap());
        let held = permit(&queue, Priority::Other, &acme).await;
        let (given_up, _) = ask(&queue, Priority::Other, &acme).await;
        drop(given_up);
        drop(held);
        assert_forgotten(&queue);
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_ever() {
        let queue = FairQueue::new(Limits {
            wait: Duration::from_millis(20),
            ..LIMITS
        });
        let operator = operator();
        let held = permit(&queue, Priority::Operator, &operator).await;
        let late = queue.take(Priority::Operator, &operator).await;
        assert_eq!(late.err(), Some(NoPermit::Late));
        drop(held);
        assert_forgotten(&queue);
    }
}
