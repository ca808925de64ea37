//! A failover that loses commits.
//!
//! The standby follows asynchronously, is promoted, and goes on from an older state: the history is *rewritten*. Replicas
//! that have applied the lost changes keep denying what those took away. The lease is not in this model: each replica
//! answers whenever it is asked.

use stateright::{Model, Property};

use crate::Guards;
use crate::promises::{self, Answer, Verdict};

/// The model.
#[derive(Clone, Debug)]
pub struct History {
    /// The rules that are followed.
    pub guards: Guards,
    /// How many changes there may be in all.
    pub changes: usize,
    /// How many times a replica may end and start again.
    pub restarts: u8,
}

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Takes away: the key is disabled.
    Disable,
    /// Takes away: the realm's definition closes the route.
    Close,
    /// Gives: the key is enabled.
    Enable,
    /// Nothing that a question finds.
    Filler,
}

/// A committed change. The whole of it is its stamp: no two changes are equal on one timeline at one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    op: Op,
    /// The timeline on which the change was committed. Not visible in its revision without G13.
    timeline: u8,
    epoch: u8,
    number: u8,
}

impl Change {
    fn revision(self) -> (u8, u8) {
        (self.epoch, self.number)
    }
}

/// What is denied, in each dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Denied {
    key: bool,
    route: bool,
}

impl Denied {
    fn of(log: &[Change]) -> Self {
        log.iter()
            .fold(Self::default(), |denied, change| match change.op {
                Op::Disable => Self {
                    key: true,
                    ..denied
                },
                Op::Enable => Self {
                    key: false,
                    ..denied
                },
                Op::Close => Self {
                    route: true,
                    ..denied
                },
                Op::Filler => denied,
            })
    }

    fn or(self, other: Self) -> Self {
        Self {
            key: self.key || other.key,
            route: self.route || other.route,
        }
    }

    fn any(self) -> bool {
        self.key || self.route
    }
}

/// A replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Replica {
    /// Connected to the promoted server.
    moved: bool,
    facts: Vec<Change>,
    /// What an earlier history denied.
    held: Denied,
    /// A change made through this process that its mirror has not applied yet.
    waits_for: Option<Change>,
    /// This process has denied, or has acknowledged a change that takes away.
    denied: bool,
    acknowledged: bool,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The logs of the first primary and of its standby.
    logs: [Vec<Change>; 2],
    promoted: bool,
    /// The holds in the promoted store.
    holds: Denied,
    /// What replicas have kept denying since the failover, and nobody has accepted.
    merged: Denied,
    replicas: [Replica; 2],
    /// The change that a client has been told of last.
    token: Option<Change>,
    /// Somebody has given back: the key, or all holds.
    given: bool,
    restarts_left: u8,
    broken: Broken,
}

/// Invariants that an answer has broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broken {
    token: bool,
    denied: bool,
    own: bool,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A change is committed through a replica.
    Commit(usize, Op),
    /// The standby receives the next change.
    Replicate,
    /// The standby becomes the primary.
    Promote,
    /// A replica connects to the promoted server.
    Connect(usize),
    /// A replica's feed reads and applies.
    Poll(usize),
    /// A replica ends and starts again.
    Restart(usize),
    /// An operator accepts the rewritten history.
    Accept,
    /// A question without a token.
    Ask(usize),
    /// A question that names the change that the client was told of.
    AskWithToken(usize),
}

/// The name of invariant I3.
pub const I3: &str = "I3: an answer contains the change that the question names";
/// The name of invariant I4.
pub const I4: &str = "I4: never allowed after denied, unless given back";
/// The name of invariant I4 for changes that were acknowledged, whether or not somebody asked.
pub const I4_OWN: &str = "I4: never allowed by the process that acknowledged the change";
/// The name of invariant I7.
pub const I7: &str = "I7: what was taken away is in the history, or in the holds under a new epoch";
/// The name of the property that a history is rewritten under a replica.
pub const REWRITTEN: &str = "a rewritten history is recognised";

impl History {
    fn log<'a>(state: &'a State, replica: &Replica) -> &'a [Change] {
        &state.logs[usize::from(replica.moved)]
    }

    fn poll(&self, state: &mut State, r: usize) {
        let mut replica = state.replicas[r].clone();
        let log = Self::log(state, &replica);
        if replica.moved && !log.starts_with(&replica.facts) {
            let mut lost = Denied::of(&replica.facts);
            if !self.guards.merges_all_dimensions {
                lost.route = false;
            }
            state.merged = state.merged.or(lost);
            if self.guards.holds_stored {
                state.holds = state.holds.or(lost);
            }
            replica.held = replica.held.or(lost);
        }
        replica.facts = Self::log(state, &replica).to_vec();
        if replica.moved && self.guards.holds_stored {
            replica.held = state.holds;
        }
        if let Some(change) = replica.waits_for
            && (replica.facts.contains(&change)
                || (!self.guards.own_stamp && Self::has_reached(&replica, change)))
        {
            Self::acknowledge(state, &mut replica, change);
        }
        state.replicas[r] = replica;
    }

    /// Whether the facts' revision is at least that of the change.
    fn has_reached(replica: &Replica, change: Change) -> bool {
        replica
            .facts
            .last()
            .is_some_and(|newest| newest.revision() >= change.revision())
    }

    fn acknowledge(state: &mut State, replica: &mut Replica, change: Change) {
        replica.waits_for = None;
        replica.acknowledged |= matches!(change.op, Op::Disable | Op::Close);
        state.token = Some(change);
    }

    fn commit(&self, state: &mut State, r: usize, op: Op) {
        let timeline = u8::from(state.promoted);
        let log = &mut state.logs[usize::from(timeline)];
        let epoch = if self.guards.epoch_by_timeline {
            timeline
        } else {
            0
        };
        let change = Change {
            op,
            timeline,
            epoch,
            number: log.len() as u8 + 1,
        };
        log.push(change);
        state.given |= op == Op::Enable;
        let mut replica = state.replicas[r].clone();
        replica.waits_for = Some(change);
        if !self.guards.own_stamp && Self::has_reached(&replica, change) {
            Self::acknowledge(state, &mut replica, change);
        }
        state.replicas[r] = replica;
    }

    /// The answer to a question with this token; an error if the change is not there yet, or lost.
    fn answers_token(replica: &Replica, token: Change) -> bool {
        let fork = replica
            .facts
            .iter()
            .position(|change| change.epoch > token.epoch);
        let lost = fork.is_some_and(|carried_over| usize::from(token.number) > carried_over);
        Self::has_reached(replica, token) && !lost
    }

    fn verdict(replica: &Replica) -> Verdict {
        if Denied::of(&replica.facts).or(replica.held).any() {
            Verdict::Denied
        } else {
            Verdict::Allowed
        }
    }
}

impl Model for History {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            logs: [vec![], vec![]],
            promoted: false,
            holds: Denied::default(),
            merged: Denied::default(),
            replicas: [Replica::default(), Replica::default()],
            token: None,
            given: false,
            restarts_left: self.restarts,
            broken: Broken::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let [first, second] = &state.logs;
        let carried = first
            .iter()
            .zip(second)
            .take_while(|(one, other)| one == other)
            .count();
        let made = first.len() + second.len() - carried;
        if !state.promoted {
            actions.push(Action::Promote);
            if second.len() < first.len() {
                actions.push(Action::Replicate);
            }
        }
        if state.holds.any() {
            actions.push(Action::Accept);
        }
        for (r, replica) in state.replicas.iter().enumerate() {
            if made < self.changes && replica.moved == state.promoted && replica.waits_for.is_none()
            {
                actions
                    .extend([Op::Disable, Op::Close, Op::Filler].map(|op| Action::Commit(r, op)));
                // A change that gives to a held thing is refused: HISTORY_REWRITTEN.
                if !state.holds.key {
                    actions.push(Action::Commit(r, Op::Enable));
                }
            }
            if state.promoted && !replica.moved {
                actions.push(Action::Connect(r));
            }
            actions.push(Action::Poll(r));
            if state.restarts_left > 0 {
                actions.push(Action::Restart(r));
            }
            actions.push(Action::Ask(r));
            if state.token.is_some() {
                actions.push(Action::AskWithToken(r));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Commit(r, op) => self.commit(&mut state, r, op),
            Action::Replicate => {
                let next = state.logs[0][state.logs[1].len()];
                state.logs[1].push(next);
            }
            Action::Promote => state.promoted = true,
            Action::Connect(r) => state.replicas[r].moved = true,
            Action::Poll(r) => self.poll(&mut state, r),
            Action::Restart(r) => {
                state.restarts_left -= 1;
                let moved = state.promoted;
                let held = if self.guards.holds_stored {
                    state.holds
                } else {
                    Denied::default()
                };
                let facts = state.logs[usize::from(moved)].clone();
                state.replicas[r] = Replica {
                    moved,
                    facts,
                    held,
                    ..Replica::default()
                };
            }
            Action::Accept => {
                state.holds = Denied::default();
                state.merged = Denied::default();
                state.given = true;
            }
            Action::Ask(r) => {
                let replica = &mut state.replicas[r];
                let verdict = Self::verdict(replica);
                let answer = |verdict| Answer {
                    process: r as u32,
                    asked_at: 1,
                    answered_at: 1,
                    verdict,
                };
                let given_at = state.given.then_some(1);
                let later = answer(verdict);
                let kept = |past: bool| {
                    !past || promises::stays_denied(&answer(Verdict::Denied), &later, given_at)
                };
                state.broken.denied |= !kept(replica.denied);
                state.broken.own |= !kept(replica.acknowledged);
                replica.denied |= verdict == Verdict::Denied;
            }
            Action::AskWithToken(r) => {
                let token = state.token?;
                let replica = &state.replicas[r];
                if Self::answers_token(replica, token) {
                    let verdict = Self::verdict(replica);
                    let answer = Answer {
                        process: r as u32,
                        asked_at: 1,
                        answered_at: 1,
                        verdict,
                    };
                    state.broken.token |=
                        !promises::contains_its_token(replica.facts.contains(&token), &answer);
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(I3, |_: &Self, state: &State| !state.broken.token),
            Property::always(I4, |_: &Self, state: &State| !state.broken.denied),
            Property::always(I4_OWN, |_: &Self, state: &State| !state.broken.own),
            Property::always(I7, |_: &Self, state: &State| {
                let kept = state.holds.or(Denied::of(&state.logs[1]));
                let new_epoch = state.logs[1]
                    .iter()
                    .all(|change| change.timeline == change.epoch);
                !state.merged.any() || (new_epoch && kept.or(state.merged) == kept)
            }),
            Property::sometimes(REWRITTEN, |_: &Self, state: &State| state.merged.any()),
        ]
    }
}
