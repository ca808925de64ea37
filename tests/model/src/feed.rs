//! The order in which a poll's changes become visible.
//!
//! An operator changes what a key has, and what the realm makes of it. A replica that polls seldom gets several changes at
//! once, and applies them in stages, between which it answers. What it grants must never be more than some state of the
//! history granted (I9). Attack M2: the key's `read` is taken, *then* `read` gains an implication; a replica that applies
//! the realm first shows the key with both.

use stateright::{Model, Property};

use crate::Guards;

/// How many changes a history has at most.
const CHANGES: usize = 3;

/// The model.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The rules that are followed.
    pub guards: Guards,
}

/// Scopes as bits: [`READ`] and [`WRITE`].
pub type Scopes = u8;
/// The scope `read`.
pub const READ: Scopes = 1;
/// The scope `write`.
pub const WRITE: Scopes = 2;

/// What decides about a question: what the key has, and whether the realm says that `read` implies `write`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    key: Scopes,
    implies: bool,
}

impl Facts {
    /// The scopes that a question with these facts finds.
    fn granted(self) -> Scopes {
        if self.implies && self.key & READ != 0 {
            self.key | WRITE
        } else {
            self.key
        }
    }
}

/// What a poll still has to apply. `from` is the revision that was applied before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Poll {
    from: usize,
    /// The revision of the snapshot that the realm was read from.
    realm: usize,
    /// The revision of the snapshot that the key was read from: the same with G20b.
    key: usize,
    left: Stages,
}

/// The stages that are not applied yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stages {
    /// Narrow the key to what both the old and the new one have, then the realm, then the key.
    Narrow,
    /// The realm, then the key.
    RealmThenKey,
    /// The key, then the realm.
    KeyThenRealm,
    /// The key.
    Key,
    /// The realm.
    Realm,
}

/// A state: the history of committed facts, oldest first, and what the replica shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    history: Vec<Facts>,
    /// The oldest revision that the replica may still show.
    applied: usize,
    shown: Facts,
    poll: Option<Poll>,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The key gets these scopes.
    SetKey(Scopes),
    /// The realm says whether `read` implies `write`.
    SetRealm(bool),
    /// The replica reads realms, and begins to apply what it reads in these stages.
    ReadRealms(Stages),
    /// Without G20b: the replica reads the keys from a later snapshot.
    ReadKeysAgain,
    /// The replica applies the next stage.
    Apply,
}

/// The name of invariant I9.
pub const I9: &str = "I9: nothing is granted that no state since the last poll granted";

impl Model for Feed {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = |key, implies| {
            let facts = Facts { key, implies };
            State {
                history: vec![facts],
                applied: 0,
                shown: facts,
                poll: None,
            }
        };
        [0, READ, WRITE, READ | WRITE]
            .into_iter()
            .flat_map(|key| [start(key, false), start(key, true)])
            .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let newest = state.history.len() - 1;
        if newest < CHANGES {
            actions.extend([0, READ, WRITE, READ | WRITE].map(Action::SetKey));
            actions.extend([false, true].map(Action::SetRealm));
        }
        match state.poll {
            None if state.applied == newest => {}
            None if self.guards.keys_narrowed_first => {
                actions.push(Action::ReadRealms(Stages::Narrow));
            }
            None => {
                actions.push(Action::ReadRealms(Stages::RealmThenKey));
                actions.push(Action::ReadRealms(Stages::KeyThenRealm));
            }
            Some(poll) => {
                actions.push(Action::Apply);
                if !self.guards.one_snapshot && poll.key < newest {
                    actions.push(Action::ReadKeysAgain);
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let newest = state.history.len() - 1;
        let facts = state.history[newest];
        match action {
            Action::SetKey(key) if key != facts.key => state.history.push(Facts { key, ..facts }),
            Action::SetRealm(implies) if implies != facts.implies => {
                state.history.push(Facts { implies, ..facts });
            }
            Action::SetKey(_) | Action::SetRealm(_) => return None,
            Action::ReadRealms(left) => {
                state.poll = Some(Poll {
                    from: state.applied,
                    realm: newest,
                    key: newest,
                    left,
                });
            }
            Action::ReadKeysAgain => state.poll.as_mut()?.key = newest,
            Action::Apply => {
                let poll = state.poll?;
                let key = state.history[poll.key].key;
                let implies = state.history[poll.realm].implies;
                let next = match poll.left {
                    Stages::Narrow => {
                        state.shown.key &= key;
                        Some(Stages::RealmThenKey)
                    }
                    Stages::RealmThenKey => {
                        state.shown.implies = implies;
                        Some(Stages::Key)
                    }
                    Stages::KeyThenRealm => {
                        state.shown.key = key;
                        Some(Stages::Realm)
                    }
                    Stages::Key => {
                        state.shown.key = key;
                        None
                    }
                    Stages::Realm => {
                        state.shown.implies = implies;
                        None
                    }
                };
                state.poll = next.map(|left| Poll { left, ..poll });
                if next.is_none() {
                    state.applied = poll.realm;
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(I9, |_: &Self, state: &State| {
            let range = match state.poll {
                Some(poll) => poll.from..=poll.realm.max(poll.key),
                None => state.applied..=state.applied,
            };
            let shown = state.shown.granted();
            state.history[range]
                .iter()
                .any(|facts| shown & !facts.granted() == 0)
        })]
    }
}
