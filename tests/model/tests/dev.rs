use claviger_model::*;
use claviger_model::lease::*;
use stateright::*;
use std::collections::BTreeSet;
use std::time::Instant;

fn run(name: &str, m: Lease, want: &[&'static str]) {
    let t = Instant::now();
    let fin: BTreeSet<&'static str> = want.iter().copied().collect();
    let b = m.checker().threads(2);
    let b = if want.is_empty() { b } else { b.finish_when(HasDiscoveries::AllOf(fin)) };
    let c = b.spawn_bfs().join();
    let d = c.discoveries();
    let mut k: Vec<_> = d.keys().map(|k| k.split(':').next().unwrap()).collect(); k.sort();
    println!("{name}: want {:?} found {k:?} unique {} depth {} {:?}", want.iter().map(|k| &k[..3]).collect::<Vec<_>>(), c.unique_state_count(), c.max_depth(), t.elapsed());
    if std::env::var("SHOW").is_ok() { for (k, p) in d { println!("{k}: {:?}", p.into_actions()); } }
}
fn without(name: &str, b: Bounds, f: impl Fn(&mut Guards), want: &[&'static str]) {
    let mut m = Lease::new(b); f(&mut m.guards); run(name, m, want);
}
fn lacking(name: &str, b: Bounds, f: impl Fn(&mut Assumptions), want: &[&'static str]) {
    let mut m = Lease::new(b); f(&mut m.assumptions); run(name, m, want);
}
const ONE: Bounds = Bounds { lost_ticks: 1, ..Bounds::LEAST };
const TWO: Bounds = Bounds { changes: &[Change::Filler, Change::Revoke], ..Bounds::LEAST };
const SYNC: Bounds = Bounds { standby: Standby::Synchronous, ..Bounds::LEAST };
const ASYNC: Bounds = Bounds { standby: Standby::Asynchronous, ..Bounds::LEAST };
const ASYNC2: Bounds = Bounds { changes: &[Change::Filler, Change::Revoke], ..ASYNC };
const CLONE: Bounds = Bounds { replicas: 2, clone: true, ..Bounds::LEAST };
const CALM: Bounds = Bounds { calm: true, ..SYNC };
const RESTARTS: Bounds = Bounds { restarts: 1, ..ONE };
#[test]
fn complete() {
    run("one", Lease::new(ONE), &[]);
    run("two", Lease::new(TWO), &[]);
    run("restarts", Lease::new(RESTARTS), &[]);
    run("sync", Lease::new(SYNC), &[]);
    run("async", Lease::new(ASYNC), &[]);
    run("clone", Lease::new(CLONE), &[]);
    run("calm", Lease::new(CALM), &[]);
}
#[test]
fn guards() {
    without("G1", ONE, |g| g.lease_checked = false, &[I1, I2]);
    without("G2", ONE, |g| g.counted_from_sending = false, &[I2]);
    without("G3", SYNC, |g| g.heartbeat_needed = false, &[I2]);
    without("G4", SYNC, |g| g.head_applied = false, &[I2]);
    without("G5", SYNC, |g| g.heartbeat_commits = false, &[I2]);
    without("G6", CLONE, |g| g.beat_compared = false, &[I1, I8]);
    without("G7", ONE, |g| g.deletes_beat_as_read = false, &[I6]);
    without("G8", Bounds{skew: 2, ..SYNC}, |g| g.waiter_clock = false, &[I1]);
    without("G9", ASYNC, |g| g.full_wait_on_new_timeline = false, &[I1]);
    without("G10", ONE, |g| g.registered_first = false, &[I1]);
    without("G11", ASYNC2, |g| g.report_by_stamp = false, &[I1]);
    without("G16", CALM, |g| g.one_server = false, &[I14]);
    without("G16+4", SYNC, |g| { g.one_server = false; g.head_applied = false }, &[I2]);
    without("G17", ONE, |g| g.reports_applied = false, &[I1]);
    without("G18", ONE, |g| g.one_lease_length = false, &[I1]);
    without("G19", CALM, |g| g.gives_up_server = false, &[I14]);
    without("G21", RESTARTS, |g| g.ends_answering_first = false, &[I1, I6]);
    without("G23", ONE, |g| g.rate_allowance = false, &[I1]);
    without("G25", ONE, |g| g.lease_read_before_facts = false, &[I1]);
    without("G26", ONE, |g| g.beat_stood_still = false, &[I6]);
    without("G26-I1", TWO, |g| g.beat_stood_still = false, &[I1]);
    without("G7-I1", TWO, |g| g.deletes_beat_as_read = false, &[I1]);
    lacking("A1", SYNC, |a| a.replaced_primary_cannot_commit = false, &[I2]);
    lacking("A2", ONE, |a| a.clock_sees_pauses = false, &[I1]);
    lacking("A2b", CLONE, |a| a.no_clone_with_lease = false, &[I1]);
    lacking("A3", ONE, |a| a.clock_rate = false, &[I1]);
    for l in [Landmark::EarlyEverywhere, Landmark::EverywhereByTime, Landmark::LeaseRegained, Landmark::StruckOff, Landmark::HistoryRewritten, Landmark::AllowedWithinLease] {
        let b = if l == Landmark::HistoryRewritten { ASYNC2 } else if l==Landmark::StruckOff {CLONE} else { ONE };
        let mut m = Lease::new(b); m.watch = Some(l);
        run(&format!("{l:?}"), m, &[REACHED]);
    }
}

#[test]
fn look() {
    without("G6", CLONE, |g| g.beat_compared = false, &[I1, I8]);
    lacking("A2b", CLONE, |a| a.no_clone_with_lease = false, &[I1]);
    run("clone", Lease::new(CLONE), &[]);
}
fn go<M>(name: &str, m: M, want: &[&'static str]) where M: Model + Send + Sync + 'static, M::State: Clone + PartialEq + std::hash::Hash + Send + Sync + std::fmt::Debug, M::Action: Clone + PartialEq + std::fmt::Debug {
    let t = Instant::now();
    let fin: BTreeSet<&'static str> = want.iter().copied().collect();
    let b = m.checker().threads(1);
    let b = if want.is_empty() { b } else { b.finish_when(HasDiscoveries::AllOf(fin)) };
    let c = b.spawn_bfs().join();
    let d = c.discoveries();
    let mut k: Vec<_> = d.keys().collect(); k.sort();
    println!("{name}: want {want:?} found {k:?} unique {} depth {} {:?}", c.unique_state_count(), c.max_depth(), t.elapsed());
    if std::env::var("SHOW").is_ok() { for (k, p) in d { println!("{k}: {:?}", p.into_actions()); } }
}
#[test]
fn small() {
    use counter::*; use feed::*; use clock::*; use history::*;
    let g = Guards::ALL;
    go("counter", Counter { guards: g }, &[]);
    go("G24", Counter { guards: Guards { counter_held: false, ..g} }, &[SUM]);
    go("feed", Feed { guards: g }, &[]);
    go("G20", Feed { guards: Guards { keys_narrowed_first: false, ..g} }, &[I9]);
    go("G20b", Feed { guards: Guards { one_snapshot: false, ..g} }, &[I9]);
    let k = Clock { guards: g, behind: 6, synchronous: true, restarts: 1 };
    let ka = Clock { guards: g, behind: 6, synchronous: false, restarts: 0 };
    go("clock sync", k.clone(), &[]);
    go("clock async", ka.clone(), &[]);
    go("G22a", Clock { guards: Guards { clock_runs_on: false, ..g}, ..ka }, &[I5]);
    go("G22b", Clock { guards: Guards { mark_stored: false, ..g}, ..k }, &[I5]);
    let h = History { guards: g, changes: 3, restarts: 1 };
    let w = |f: &dyn Fn(&mut Guards)| { let mut h = h.clone(); f(&mut h.guards); h };
    go("history", h.clone(), &[]);
    go("G12", w(&|g| { g.own_stamp = false }), &[I4_OWN]);
    go("G12+13", w(&|g| { g.own_stamp = false; g.epoch_by_timeline = false }), &[I4_OWN]);
    go("G13", w(&|g| g.epoch_by_timeline = false), &[I3, I7]);
    go("G13 own", w(&|g| g.epoch_by_timeline = false), &[I4_OWN]);
    go("G14", w(&|g| g.merges_all_dimensions = false), &[I4]);
    go("G15", w(&|g| g.holds_stored = false), &[I7]);
}


#[test]
fn sizes() {
    use history::*;
    let clone = Bounds { late_heartbeats: false, ..CLONE };
    run("clone", Lease::new(clone), &[]);
    without("G6", clone, |g| g.beat_compared = false, &[I1, I8]);
    lacking("A2b", clone, |a| a.no_clone_with_lease = false, &[I1]);
    let b = Bounds { late_heartbeats: false, ..ASYNC2 };
    run("async2", Lease::new(b), &[]);
    without("G11", b, |g| g.report_by_stamp = false, &[I1]);
    let g = Guards::ALL;
    let h = History { guards: g, changes: 2, restarts: 1 };
    let w = |f: &dyn Fn(&mut Guards)| { let mut h = h.clone(); f(&mut h.guards); h };
    go("history", h.clone(), &[]);
    go("G12", w(&|g| { g.own_stamp = false }), &[I4_OWN]);
    go("G13", w(&|g| g.epoch_by_timeline = false), &[I3, I7]);
    go("G14", w(&|g| g.merges_all_dimensions = false), &[I4]);
    go("G15", w(&|g| g.holds_stored = false), &[I7]);
}

#[test]
fn sizes2() {
    run("two", Lease::new(TWO), &[]);
    let b = Bounds { late_heartbeats: false, ..ASYNC2 };
    run("async2", Lease::new(b), &[]);
    without("G11", b, |g| g.report_by_stamp = false, &[I1]);
    without("G26-I1", TWO, |g| g.beat_stood_still = false, &[I1]);
    without("G7-I1", TWO, |g| g.deletes_beat_as_read = false, &[I1]);
    let mut m = Lease::new(b); m.watch = Some(Landmark::HistoryRewritten);
        run("rew", m, &[REACHED]);
}
