//! A queue for what there is little of: the one open change, the connections that read, the processors that hash.
//!
//! Changes that take access away are served first, then operators, then everybody else. Among those, the realms take turns, and in
//! a realm the groups of callers. So whoever sends many requests at once makes others wait for about one of them. The limits of a
//! realm and of a group hold for changes that take access away by themselves, so that nothing else stands in their way. Whoever
//! revokes thousands of keys one by one would keep all others waiting, so the first priority leaves one of four permits to them.
//!
//! If there are many permits, each priority can have only a part of them at once: some are always left to changes that take access
//! away, some to operators, and some to all others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::auth::CallerGroup;
use crate::domain::ids::RealmId;

/// What a change may do. The requests of each effect are counted by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Only takes access away.
    TakesAway,
    /// May grant something, or is for people only.
    MayGrant,
}

/// The order in which requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    /// Takes access away.
    TakesAway,
    /// Comes from an operator.
    Operator,
    /// Anything else.
    Other,
}

impl Priority {
    fn of(effect: Effect, group: &CallerGroup) -> Self {
        match (effect, group) {
            (Effect::TakesAway, _) => Self::TakesAway,
            (Effect::MayGrant, CallerGroup::Operator(_)) => Self::Operator,
            (Effect::MayGrant, _) => Self::Other,
        }
    }
}

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many permits there are.
    pub(super) permits: usize,
    /// How many permits are left to changes that take access away, and how many to operators. What takes access away leaves twice
    /// as many to all others.
    pub(super) reserved: usize,
    /// How long a request waits at most.
    pub(super) wait: Duration,
    /// How many permits the callers of one realm may have at once, operators apart.
    pub(super) permits_of_realm: usize,
    /// How many permits the keys of a partner may have at once.
    pub(super) permits_of_group: usize,
    /// How many permits the managers of a realm may have or wait for.
    pub(super) requests_of_managers: usize,
    /// How many permits a partner's keys may have or wait for.
    pub(super) requests_of_partner: usize,
}

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
    /// The permits that each priority has.
    held: [usize; 3],
    /// Those who have or wait for permits, for each effect.
    lanes: [Lane; 2],
    /// The number of permits given so far.
    given: u64,
    /// The number of requests so far.
    arrived: u64,
    /// The number of permits that changes which take access away got since another request got one.
    in_a_row: usize,
}

/// The realms whose callers have requests in the queue. Operators belong to none.
type Lane = HashMap<Option<RealmId>, Realm>;

/// The callers of one realm who have requests in the queue.
struct Realm {
    part: Part,
    groups: HashMap<CallerGroup, Group>,
}

/// A group of callers who have requests in the queue.
struct Group {
    part: Part,
    /// In the order of arrival.
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    /// The number of the request.
    number: u64,
    permit: oneshot::Sender<GivenPermit>,
}

/// What a group or a realm has of the queue.
#[derive(Clone, Copy)]
struct Part {
    /// The permits that it has.
    permits: usize,
    /// The permits that it has or waits for.
    requests: usize,
    /// When it last got a permit, as a number of permits given. At first, when it came.
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
    to: Option<(FairQueue, Effect, CallerGroup)>,
}

/// A request, until its permit is returned. Drop ends it.
struct Request {
    queue: FairQueue,
    effect: Effect,
    group: CallerGroup,
    number: u64,
}

impl FairQueue {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(State {
            limits,
            free: limits.permits,
            held: [0; 3],
            lanes: [Lane::new(), Lane::new()],
            given: 0,
            arrived: 0,
            in_a_row: 0,
        })))
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// At once if the group has too many requests in the queue, and later if no permit became free in time.
    pub(super) async fn take(
        &self,
        effect: Effect,
        group: &CallerGroup,
    ) -> Result<QueuePermit, NoPermit> {
        let (sender, permit) = oneshot::channel();
        let (number, wait);
        {
            let mut state = self.lock();
            number = state.enter(effect, group, sender)?;
            wait = state.limits.wait;
            self.serve(&mut state);
        }
        let request = Request {
            queue: self.clone(),
            effect,
            group: group.clone(),
            number,
        };
        match tokio::time::timeout(wait, permit).await {
            Ok(Ok(given)) => Ok(QueuePermit {
                _given: given,
                _request: request,
            }),
            _ => Err(NoPermit::Late),
        }
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        let realms = state.lanes.iter().flat_map(HashMap::values);
        let groups = realms.flat_map(|realm| realm.groups.values());
        groups.map(|group| group.waiting.len()).sum()
    }

    /// Gives the free permits to those who wait.
    fn serve(&self, state: &mut State) {
        while let Some((effect, group)) = state.next() {
            let Some(waiter) = state.give(effect, &group) else {
                return;
            };
            let to = Some((self.clone(), effect, group));
            if let Err(mut given) = waiter.permit.send(GivenPermit { to })
                && let Some((_, effect, group)) = given.to.take()
            {
                // The request was given up. A drop of the permit would lock the queue again.
                state.put_back(effect, &group);
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
            CallerGroup::Partner(..) | CallerGroup::Holders(..) => self.permits_of_group,
        }
    }

    fn requests_of(&self, group: &CallerGroup) -> usize {
        match group {
            CallerGroup::Operator(_) => usize::MAX,
            CallerGroup::Managers(_) => self.requests_of_managers,
            CallerGroup::Partner(..) | CallerGroup::Holders(..) => self.requests_of_partner,
        }
    }
}

impl State {
    /// Returns whether a permit is free for this priority.
    fn is_free_for(&self, priority: Priority) -> bool {
        let Limits {
            permits, reserved, ..
        } = self.limits;
        let [takes_away, operators, others] = self.held;
        let most = permits.saturating_sub(2 * reserved);
        let leaves_some = operators + others < permits.saturating_sub(reserved);
        self.free > 0
            && match priority {
                Priority::TakesAway => takes_away < most,
                Priority::Operator => leaves_some,
                Priority::Other => leaves_some && others < most,
            }
    }

    /// Returns the effect and the group of the request that is served next, if a permit is free for one.
    fn next(&self) -> Option<(Effect, CallerGroup)> {
        use Priority::{Operator, Other, TakesAway};
        // Most calls end here, so they need not look at the groups.
        let free = [TakesAway, Operator, Other].map(|priority| self.is_free_for(priority));
        if free == [false; 3] {
            return None;
        }
        let mut first = None;
        for effect in [Effect::TakesAway, Effect::MayGrant] {
            for (id, realm) in &self.lanes[effect as usize] {
                if id.is_some() && realm.part.permits >= self.limits.permits_of_realm {
                    continue;
                }
                for (group, state) in &realm.groups {
                    let Some(waiter) = state.waiting.front() else {
                        continue;
                    };
                    let priority = Priority::of(effect, group);
                    if !free[priority as usize]
                        || state.part.permits >= self.limits.permits_of(group)
                    {
                        continue;
                    }
                    // Those who have waited longest since their last permit come first. Of equals, the one who came first.
                    let order = (
                        self.in_a_row >= IN_A_ROW && priority == TakesAway,
                        priority,
                        realm.part.served_at,
                        state.part.served_at,
                        waiter.number,
                    );
                    if first.is_none_or(|(earlier, _, _)| order < earlier) {
                        first = Some((order, effect, group));
                    }
                }
            }
        }
        first.map(|(_, effect, group)| (effect, group.clone()))
    }

    /// Adds a request, and returns its number.
    fn enter(
        &mut self,
        effect: Effect,
        group: &CallerGroup,
        permit: oneshot::Sender<GivenPermit>,
    ) -> Result<u64, NoPermit> {
        let known = self.lanes[effect as usize].get(&group.realm().cloned());
        let known = known.and_then(|realm| realm.groups.get(group));
        let requests = known.map_or(0, |known| known.part.requests);
        if requests >= self.limits.requests_of(group) {
            return Err(NoPermit::TooManyOfGroup);
        }
        self.arrived += 1;
        let number = self.arrived;
        let (of_realm, of_group) = self.parts(effect, group);
        of_realm.requests += 1;
        of_group.part.requests += 1;
        of_group.waiting.push_back(Waiter { number, permit });
        Ok(number)
    }

    /// Takes a permit for the first waiter of the group, whom it returns.
    fn give(&mut self, effect: Effect, group: &CallerGroup) -> Option<Waiter> {
        let served_at = self.given + 1;
        let (of_realm, of_group) = self.parts(effect, group);
        let waiter = of_group.waiting.pop_front()?;
        for part in [of_realm, &mut of_group.part] {
            part.permits += 1;
            part.served_at = served_at;
        }
        self.given = served_at;
        self.free -= 1;
        self.held[Priority::of(effect, group) as usize] += 1;
        self.in_a_row = match effect {
            Effect::TakesAway => self.in_a_row + 1,
            Effect::MayGrant => 0,
        };
        Some(waiter)
    }

    /// Takes back a permit.
    fn put_back(&mut self, effect: Effect, group: &CallerGroup) {
        self.free += 1;
        self.held[Priority::of(effect, group) as usize] -= 1;
        let (of_realm, of_group) = self.parts(effect, group);
        of_realm.permits -= 1;
        of_group.part.permits -= 1;
    }

    /// Ends a request. Those who have no more requests need not be remembered.
    fn end(&mut self, effect: Effect, group: &CallerGroup, number: u64) {
        let (of_realm, of_group) = self.parts(effect, group);
        of_realm.requests -= 1;
        of_group.part.requests -= 1;
        let (realm_is_done, group_is_done) = (of_realm.requests == 0, of_group.part.requests == 0);
        // A request that was given up still waits.
        let waiting = &mut of_group.waiting;
        if let Ok(index) = waiting.binary_search_by_key(&number, |waiter| waiter.number) {
            waiting.remove(index);
        }
        let lane = &mut self.lanes[effect as usize];
        let id = group.realm().cloned();
        if realm_is_done {
            lane.remove(&id);
        } else if group_is_done && let Some(realm) = lane.get_mut(&id) {
            realm.groups.remove(group);
        }
    }

    /// The parts of the group and of its realm.
    ///
    /// Who comes anew stands behind those who wait already, as if it had just got a permit. Otherwise, callers with one request at
    /// a time would always be served before a caller with many.
    fn parts(&mut self, effect: Effect, group: &CallerGroup) -> (&mut Part, &mut Group) {
        let new = Part {
            permits: 0,
            requests: 0,
            served_at: self.given,
        };
        let realm = self.lanes[effect as usize]
            .entry(group.realm().cloned())
            .or_insert_with(|| Realm {
                part: new,
                groups: HashMap::new(),
            });
        let of_group = realm.groups.entry(group.clone()).or_insert_with(|| Group {
            part: new,
            waiting: VecDeque::new(),
        });
        (&mut realm.part, of_group)
    }
}

impl Drop for GivenPermit {
    fn drop(&mut self) {
        if let Some((queue, effect, group)) = self.to.take() {
            let mut state = queue.lock();
            state.put_back(effect, &group);
            queue.serve(&mut state);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.queue.lock().end(self.effect, &self.group, self.number);
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
        effect: Effect,
        group: &CallerGroup,
    ) -> (Waiting, Option<QueuePermit>) {
        let (queue, group) = (queue.clone(), group.clone());
        let mut waiting = async move { queue.take(effect, &group).await }.boxed();
        match poll!(&mut waiting) {
            Poll::Ready(permit) => (waiting, Some(permit.ok().unwrap())),
            Poll::Pending => (waiting, None),
        }
    }

    async fn permit(queue: &FairQueue, effect: Effect, group: &CallerGroup) -> QueuePermit {
        queue.take(effect, group).await.ok().unwrap()
    }

    fn assert_forgotten(queue: &FairQueue) {
        let state = queue.lock();
        assert_eq!((state.free, state.held), (state.limits.permits, [0; 3]));
        assert!(state.lanes.iter().all(Lane::is_empty));
    }

    /// Returns the order in which requests get the one permit.
    async fn order(requests: &[(&'static str, Effect, CallerGroup)]) -> Vec<&'static str> {
        let queue = FairQueue::new(LIMITS);
        let first = permit(&queue, Effect::MayGrant, &managers("first")).await;
        let mut waiting = Vec::new();
        for (name, effect, group) in requests {
            let (request, at_once) = ask(&queue, *effect, group).await;
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
        use Effect::{MayGrant, TakesAway};
        let served = order(&[
            ("a1", MayGrant, managers("a")),
            ("a2", MayGrant, managers("a")),
            ("a3", MayGrant, partner("a", "acme")),
            ("a4", MayGrant, partner("a", "acme")),
            ("b1", MayGrant, managers("b")),
            ("operator", MayGrant, operator()),
            ("revocation", TakesAway, partner("a", "acme")),
        ])
        .await;
        let expected = ["revocation", "operator", "a1", "b1", "a3", "a2", "a4"];
        assert_eq!(served, expected);
        let served = order(&[
            ("m1", MayGrant, managers("a")),
            ("m2", MayGrant, managers("a")),
            ("m3", MayGrant, managers("a")),
            ("p1", MayGrant, partner("a", "acme")),
            ("p2", MayGrant, partner("a", "acme")),
            ("q1", MayGrant, partner("a", "umbrella")),
        ])
        .await;
        assert_eq!(served, ["m1", "p1", "q1", "m2", "p2", "m3"]);
    }

    /// Seen red with 0 in the place of `given` in `parts`, of realms and of groups.
    #[tokio::test]
    async fn callers_with_one_request_at_a_time_are_not_always_served_before_one_with_many() {
        let of_realms = ["a", "b", "c"].map(managers);
        let of_one_realm = ["acme", "umbrella", "globex"].map(|id| partner("a", id));
        for [many, one, other] in [of_realms, of_one_realm] {
            let queue = FairQueue::new(LIMITS);
            // Some other request of the realm, so that the realm is known all the time.
            let known = permit(&queue, Effect::TakesAway, &managers("a")).await;
            let mut waiting_of_many = Vec::new();
            for _ in 0..4 {
                waiting_of_many.push(ask(&queue, Effect::MayGrant, &many).await.0);
            }
            let mut ones = Vec::new();
            for group in [&one, &other] {
                ones.push((group, ask(&queue, Effect::MayGrant, group).await.0));
            }
            drop(known);
            let mut grants = 0;
            while !waiting_of_many.is_empty() {
                grants += 1;
                assert!(grants <= 12, "{} are still waiting", waiting_of_many.len());
                if let Poll::Ready(permit) = poll!(&mut waiting_of_many[0]) {
                    drop((permit, waiting_of_many.remove(0)));
                    continue;
                }
                for (group, waiting) in &mut ones {
                    if let Poll::Ready(permit) = poll!(&mut *waiting) {
                        // The group is forgotten, and comes again.
                        drop(permit);
                        *waiting = ask(&queue, Effect::MayGrant, group).await.0;
                        break;
                    }
                }
            }
            drop(ones);
            assert_forgotten(&queue);
        }
    }

    /// Seen red with the bound of each priority left out of `is_free_for`.
    #[tokio::test]
    async fn no_priority_holds_what_is_left_to_the_others() {
        let queue = FairQueue::new(Limits {
            permits: 8,
            reserved: 1,
            permits_of_realm: 3,
            permits_of_group: 3,
            ..LIMITS
        });
        let realms = ["a", "b", "c"].map(managers);
        let (mut held, mut waiting) = (Vec::new(), Vec::new());
        // As many as there are for this effect at once, of three realms that may have nine.
        for (effect, expected) in [(Effect::TakesAway, 6), (Effect::MayGrant, 2)] {
            for n in 0..9 {
                let (request, at_once) = ask(&queue, effect, &realms[n % 3]).await;
                assert_eq!(at_once.is_some(), n < expected, "{n} of {effect:?}");
                match at_once {
                    Some(permit) => held.push(permit),
                    None => waiting.push(request),
                }
            }
        }
        // Operators and others get their turn while what takes access away always waits.
        let operator = operator();
        let (mut request, at_once) = ask(&queue, Effect::MayGrant, &operator).await;
        assert!(at_once.is_none());
        let mut grants = 0;
        let of_operator = loop {
            drop(held.remove(0));
            grants += 1;
            if let Poll::Ready(permit) = poll!(&mut request) {
                break permit;
            }
            for n in 0..waiting.len() {
                if let Some(Ok(permit)) = (&mut waiting[n]).now_or_never() {
                    held.push(permit);
                    drop(waiting.remove(n));
                    break;
                }
            }
        };
        assert!(grants <= 4, "after {grants}");
        drop((of_operator, request, held, waiting));
        assert_forgotten(&queue);

        // The other way round: all others leave two, of which operators leave one.
        let (mut held, mut waiting) = (Vec::new(), Vec::new());
        for n in 0..9 {
            let (request, at_once) = ask(&queue, Effect::MayGrant, &realms[n % 3]).await;
            assert_eq!(at_once.is_some(), n < 6, "{n}");
            held.extend(at_once);
            waiting.push(request);
        }
        for expected in [true, false] {
            let (request, at_once) = ask(&queue, Effect::MayGrant, &operator).await;
            assert_eq!(at_once.is_some(), expected);
            held.extend(at_once);
            waiting.push(request);
        }
        let (request, at_once) = ask(&queue, Effect::TakesAway, &realms[0]).await;
        assert!(at_once.is_some());
        drop((at_once, request, held, waiting));
        assert_forgotten(&queue);
    }

    /// Seen red without the first line of `order`, and with a count that another permit does not end.
    #[tokio::test]
    async fn what_takes_access_away_leaves_some_permits_to_others() {
        use Effect::{MayGrant, TakesAway};
        let revocation = ("revocation", TakesAway, managers("a"));
        let mut requests = vec![revocation; 7];
        requests.push(("operator", MayGrant, operator()));
        requests.push(("manager", MayGrant, managers("b")));
        let served = order(&requests).await;
        let first = ["revocation", "revocation", "revocation"];
        let expected = [&first[..], &["operator"], &first, &["manager"], &first[..1]].concat();
        assert_eq!(served, expected);
    }

    /// Seen red with the limits of realms and of groups left out of `next`, and with nothing left to higher priorities.
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
                let (request, at_once) = ask(&queue, Effect::MayGrant, &groups[group]).await;
                assert_eq!(at_once.is_some(), n < gets, "{n} of {group}");
                permits.extend(at_once);
                waiting.push(request);
            }
        }
        let operator = operator();
        for gets in [true, false] {
            let (request, at_once) = ask(&queue, Effect::MayGrant, &operator).await;
            assert_eq!(at_once.is_some(), gets);
            permits.extend(at_once);
            waiting.push(request);
        }
        // The last one is for what takes access away, also of those who have as many others as they may.
        let (request, at_once) = ask(&queue, Effect::TakesAway, &groups[0]).await;
        assert!(at_once.is_some());
        drop((at_once, request, waiting, permits));
        assert_forgotten(&queue);
    }

    /// Seen red with a request that stays in the count after its end.
    #[tokio::test]
    async fn a_group_has_a_limited_number_of_requests() {
        let queue = FairQueue::new(LIMITS);
        let acme = partner("a", "acme");
        let held = permit(&queue, Effect::MayGrant, &acme).await;
        let mut waiting = Vec::new();
        for _ in 1..LIMITS.requests_of_partner {
            waiting.push(ask(&queue, Effect::MayGrant, &acme).await.0);
        }
        let refused = queue.take(Effect::MayGrant, &acme).await;
        assert_eq!(refused.err(), Some(NoPermit::TooManyOfGroup));
        // What takes access away is counted by itself.
        drop(ask(&queue, Effect::TakesAway, &acme).await);
        let umbrella = partner("a", "umbrella");
        drop(waiting.pop());
        let _again = ask(&queue, Effect::MayGrant, &acme).await;
        let _other = ask(&queue, Effect::MayGrant, &umbrella).await;
        drop(held);
    }

    /// A permit that is on its way to a request that is given up must not be lost. Seen red without `GivenPermit::drop`.
    #[tokio::test]
    async fn a_request_that_is_given_up_loses_no_permit() {
        let queue = FairQueue::new(LIMITS);
        let acme = partner("a", "acme");
        let held = permit(&queue, Effect::MayGrant, &acme).await;
        let (given_up, _) = ask(&queue, Effect::MayGrant, &acme).await;
        let (next, _) = ask(&queue, Effect::MayGrant, &acme).await;
        drop(held);
        drop(given_up);
        drop(next.await.ok().unwrap());
        let held = permit(&queue, Effect::MayGrant, &acme).await;
        let (given_up, _) = ask(&queue, Effect::MayGrant, &acme).await;
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
        let held = permit(&queue, Effect::MayGrant, &operator).await;
        let late = queue.take(Effect::MayGrant, &operator).await;
        assert_eq!(late.err(), Some(NoPermit::Late));
        drop(held);
        assert_forgotten(&queue);
    }
}
