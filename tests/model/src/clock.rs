//! What time a replica believes it is.
//!
//! A key expires at a moment of the store's time. Time is in ticks; the promoted standby's clock is behind by
//! [`Clock::behind`]. A replica's "now" is the highest store time that it knows, running on with the replica's own clock
//! (G22a). Heartbeats store it as the *mark*, and a replica that starts begins from the mark (G22b).
//!
//! I5 has a bound. A replica that is cut off keeps its own "now" until its lease ends, and a replica that says "expired" may
//! be ahead of the mark by what has passed since its last heartbeat. Ticks in which no replica holds a lease do not count:
//! nothing advances the mark then, if the store's clock is behind the mark.

use stateright::{Model, Property};

use crate::promises::{self, Answer, Time, Verdict};
use crate::{Guards, lease};

/// When the key expires, by the first primary's clock, which starts at [`START`].
const EXPIRES: u8 = START + 2;
const START: u8 = 8;
/// How long a run is, in ticks.
const END: u8 = 10;
const NOW: Time = 1000;

/// The model.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The rules that are followed.
    pub guards: Guards,
    /// By how much the promoted standby's clock is behind.
    pub behind: u8,
    /// Whether the standby has each mark as soon as the primary has it.
    pub synchronous: bool,
    /// How many times a replica may end and start again.
    pub restarts: u8,
}

/// A replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    promoted: bool,
    /// The last store time that was read, running on.
    store: u8,
    /// What the replica takes for the present.
    now: u8,
    lease: Option<u8>,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    elapsed: u8,
    promoted: bool,
    /// The marks on the two servers.
    marks: [u8; 2],
    replicas: [Replica; 2],
    restarts_left: u8,
    /// How many ticks ago somebody was told "expired" for the first time.
    expired: Option<u8>,
    broken: bool,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Tick,
    /// The standby becomes the primary.
    Promote,
    /// A replica's heartbeat, all at once.
    Beat(usize),
    /// A replica ends and starts again.
    Restart(usize),
    /// Somebody asks this replica about the key.
    Ask(usize),
}

/// The name of invariant I5.
pub const I5: &str = "I5: never allowed when asked a bound after expired";

impl Clock {
    fn store_time(&self, elapsed: u8, promoted: bool) -> u8 {
        START + elapsed - if promoted { self.behind } else { 0 }
    }
}

impl Model for Clock {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let replica = Replica {
            promoted: false,
            store: START,
            now: START,
            lease: Some(0),
        };
        vec![State {
            elapsed: 0,
            promoted: false,
            marks: [START; 2],
            replicas: [replica; 2],
            restarts_left: self.restarts,
            expired: None,
            broken: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.elapsed < END {
            actions.push(Action::Tick);
        }
        if !state.promoted {
            actions.push(Action::Promote);
        }
        for (r, replica) in state.replicas.iter().enumerate() {
            actions.push(Action::Beat(r));
            if state.restarts_left > 0 {
                actions.push(Action::Restart(r));
            }
            if replica.lease.is_some() {
                actions.push(Action::Ask(r));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => {
                state.elapsed += 1;
                if state.replicas.iter().any(|replica| replica.lease.is_some()) {
                    state.expired = state.expired.map(|age| age + 1);
                }
                for replica in &mut state.replicas {
                    replica.store += 1;
                    if self.guards.clock_runs_on {
                        replica.now += 1;
                    }
                    replica.now = replica.now.max(replica.store);
                    replica.lease = replica
                        .lease
                        .map(|age| age + 1)
                        .filter(|age| *age < lease::LEASE);
                }
            }
            Action::Promote => state.promoted = true,
            Action::Beat(r) => {
                // Heartbeats of a replaced primary do not commit: the replica has moved.
                let store = self.store_time(state.elapsed, state.promoted);
                let mark = &mut state.marks[usize::from(state.promoted)];
                let replica = &mut state.replicas[r];
                *replica = Replica {
                    promoted: state.promoted,
                    store,
                    now: replica.now.max(store),
                    lease: Some(0),
                };
                if self.guards.mark_stored {
                    replica.now = replica.now.max(*mark);
                    *mark = replica.now;
                    if self.synchronous && !state.promoted {
                        state.marks[1] = state.marks[0];
                    }
                }
            }
            Action::Restart(r) => {
                state.replicas[r] = Replica {
                    promoted: state.promoted,
                    store: 0,
                    now: 0,
                    lease: None,
                };
                state.restarts_left -= 1;
            }
            Action::Ask(r) => {
                if state.replicas[r].now >= EXPIRES {
                    state.expired = state.expired.or(Some(0));
                } else if let Some(age) = state.expired {
                    let at = NOW - Time::from(age);
                    let expired = Answer {
                        process: 0,
                        asked_at: at,
                        answered_at: at,
                        verdict: Verdict::Expired,
                    };
                    let allowed = Answer {
                        process: 0,
                        asked_at: NOW,
                        answered_at: NOW,
                        verdict: Verdict::Allowed,
                    };
                    state.broken |=
                        !promises::stays_expired(&expired, &allowed, Time::from(lease::WAIT));
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(I5, |_: &Self, state: &State| {
            !state.broken
        })]
    }
}
