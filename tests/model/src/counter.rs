//! Two writers that keep a sum over the rows of a table.
//!
//! Each writer reads the sum, writes its row, and writes the sum back. With G24 it holds the counter's row from the first
//! step to the last, so that the other writer waits. This stands for every sum that later work keeps over rows; retention
//! is a writer like any other.

use stateright::{Model, Property};

use crate::Guards;

/// The model.
#[derive(Clone, Debug)]
pub struct Counter {
    /// The rules that are followed.
    pub guards: Guards,
}

/// What one writer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Has not begun.
    Idle,
    /// Has read this sum.
    Read(u8),
    /// Has committed.
    Done,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    writers: [Writer; 2],
    rows: u8,
    sum: u8,
}

/// A step of the writer with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the sum, and lock it with G24.
    Begin(usize),
    /// Write the row and the new sum, and commit.
    Commit(usize),
}

/// The name of the invariant.
pub const SUM: &str = "the sum is that of the rows";

impl Model for Counter {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            writers: [Writer::Idle; 2],
            rows: 0,
            sum: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let held = self.guards.counter_held
            && state
                .writers
                .iter()
                .any(|writer| matches!(writer, Writer::Read(_)));
        for (number, writer) in state.writers.iter().enumerate() {
            match writer {
                Writer::Idle if !held => actions.push(Action::Begin(number)),
                Writer::Read(_) => actions.push(Action::Commit(number)),
                Writer::Idle | Writer::Done => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Begin(number) => state.writers[number] = Writer::Read(state.sum),
            Action::Commit(number) => {
                let Writer::Read(sum) = state.writers[number] else {
                    return None;
                };
                state.rows += 1;
                state.sum = sum + 1;
                state.writers[number] = Writer::Done;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(SUM, |_: &Self, state: &State| {
            state.sum == state.rows
        })]
    }
}
