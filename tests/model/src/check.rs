//! Runs of the checker.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::{clock, counter, feed, history, lease};

/// What the checker has found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many different states were visited.
    pub states: usize,
    /// How long that took.
    pub elapsed: Duration,
    /// For each property: the steps that break the invariant, or that reach the landmark.
    pub found: BTreeMap<&'static str, String>,
}

/// A model that can be checked.
///
/// It is implemented for each model by itself and not for all at once, so that the checker is compiled with this crate,
/// optimized.
pub trait Check {
    /// Visits the states until each of the `wanted` properties is found, or all states if none is wanted.
    fn check(self, wanted: &[&'static str]) -> Report;
}

macro_rules! check {
    ($($model:ty),*) => {$(
        impl Check for $model {
            fn check(self, wanted: &[&'static str]) -> Report {
                run(self, wanted)
            }
        }
    )*};
}

check!(
    clock::Clock,
    counter::Counter,
    feed::Feed,
    history::History,
    lease::Lease
);

fn run<M>(model: M, wanted: &[&'static str]) -> Report
where
    M: Model<State: Clone + Hash + PartialEq + Send + Sync, Action: Clone + Debug + PartialEq>
        + Send
        + Sync
        + 'static,
{
    let started = Instant::now();
    let checker = if wanted.is_empty() {
        model.checker().threads(2)
    } else {
        let all = HasDiscoveries::AllOf(wanted.iter().copied().collect());
        model.checker().finish_when(all)
    };
    let run = checker.spawn_bfs().join();
    let steps = |path: stateright::Path<_, M::Action>| format!("{:?}", path.into_actions());
    Report {
        states: run.unique_state_count(),
        elapsed: started.elapsed(),
        found: run
            .discoveries()
            .into_iter()
            .map(|(name, path)| (name, steps(path)))
            .collect(),
    }
}
