use claviger_model::*;
use claviger_model::lease::*;
use stateright::*;
use std::collections::BTreeSet;
use std::time::Instant;

fn run(name: &str, m: Lease, want: Option<&'static str>) {
    let t = Instant::now();
    let mut fin = BTreeSet::new();
    let props: Vec<&'static str> = match want { Some(w) => vec![w], None => vec![] };
    fin.extend(props);
    let b = m.checker().threads(2);
    let c = if want.is_some() { b.finish_when(HasDiscoveries::AnyOf(fin)).spawn_bfs().join() } else { b.spawn_bfs().join() };
    let d = c.discoveries();
    println!("{name}: unique {} depth {} {:?} discoveries: {:?}", c.unique_state_count(), c.max_depth(), t.elapsed(), d.keys().collect::<Vec<_>>());
    if std::env::var("SHOW").is_ok() { for (k, p) in d { println!("{k}: {:?}", p.into_actions()); } }
}
#[test]
fn all() {
    let s = Bounds::LEAST;
    run("least", Lease::new(s), None);
    run("filler", Lease::new(Bounds{filler: true, ..s}), None);
    run("restarts", Lease::new(Bounds{restarts: 1, ..s}), None);
    run("sync", Lease::new(Bounds{standby: Standby::Synchronous, ..s}), None);
    run("async", Lease::new(Bounds{standby: Standby::Asynchronous, ..s}), None);
    run("calm", Lease::new(Bounds{standby: Standby::Synchronous, calm: true, ..s}), None);
}
