//! The model of the replica protocol, checked: the complete protocol keeps every invariant, and without any one guard or
//! assumption some invariant breaks. The crate `claviger-model` describes the model and each guard.
//!
//! `cargo test --test it model -- --nocapture` prints the number of states and the sequences that break an invariant.

use claviger_model::check::Check;
use claviger_model::clock::{Clock, I5};
use claviger_model::counter::{Counter, SUM};
use claviger_model::feed::{Feed, I9};
use claviger_model::history::{History, I3, I4, I4_OWN, I7, REWRITTEN};
use claviger_model::lease::{
    Bounds, Change, I1, I2, I6, I8, I13, I14, Landmark, Lease, REACHED, Standby,
};
use claviger_model::promises::{self, Answer, Breach, Revocation, Verdict};
use claviger_model::{Assumptions, Guards};

// Configurations of the lease model. Each is small; what one leaves out, another has.

/// One server, one replica, whose clock may lose a tick.
const ONE: Bounds = Bounds {
    lost_ticks: 1,
    ..Bounds::LEAST
};
/// A change before the revocation, with a wait of its own.
const TWO_CHANGES: Bounds = Bounds {
    changes: &[Change::Filler, Change::Revoke],
    ..Bounds::LEAST
};
/// The replica stops or crashes, and starts again.
const RESTARTS: Bounds = Bounds { restarts: 1, ..ONE };
/// A failover that loses nothing.
const SYNCHRONOUS: Bounds = Bounds {
    standby: Standby::Synchronous,
    ..Bounds::LEAST
};
/// The same, to a server whose clock is ahead.
const SKEWED: Bounds = Bounds {
    skew: 2,
    ..SYNCHRONOUS
};
/// The same, and then no more trouble.
const CALM: Bounds = Bounds {
    calm: true,
    ..SYNCHRONOUS
};
/// A failover that may lose the newest commits.
const ASYNCHRONOUS: Bounds = Bounds {
    standby: Standby::Asynchronous,
    ..Bounds::LEAST
};
/// The same with a change that may be lost before the revocation.
const LOST_CHANGE: Bounds = Bounds {
    changes: TWO_CHANGES.changes,
    late_heartbeats: false,
    ..ASYNCHRONOUS
};
/// A replica's machine is copied.
const CLONE: Bounds = Bounds {
    replicas: 2,
    clone: true,
    late_heartbeats: false,
    ..Bounds::LEAST
};

const HISTORY: History = History {
    guards: Guards::ALL,
    changes: 2,
    restarts: 1,
};
const FEED: Feed = Feed {
    guards: Guards::ALL,
};
const COUNTER: Counter = Counter {
    guards: Guards::ALL,
};
/// The promoted standby's clock is behind, and has the mark. A replica starts again.
const CLOCK: Clock = Clock {
    guards: Guards::ALL,
    behind: 6,
    synchronous: true,
    restarts: 1,
};
/// The promoted standby has lost the mark.
const CLOCK_LOST_MARK: Clock = Clock {
    synchronous: false,
    restarts: 0,
    ..CLOCK
};

/// Visits every state, and checks that every invariant holds.
fn holds(name: &str, model: impl Check) {
    let report = model.check(&[]);
    println!(
        "{name}: every invariant holds in {} states, {:.1?}",
        report.states, report.elapsed
    );
    let mut broken = report.found;
    for landmark in [REACHED, REWRITTEN] {
        broken.remove(landmark);
    }
    assert!(broken.is_empty(), "{name}: {broken:#?}");
}

/// Checks that each of these invariants breaks, or that these landmarks are reached.
fn finds(name: &str, model: impl Check, wanted: &[&'static str]) {
    let report = model.check(wanted);
    println!("{name}: {} states, {:.1?}", report.states, report.elapsed);
    for property in wanted {
        let steps = report.found.get(property);
        let steps = steps.unwrap_or_else(|| panic!("{name}: not found: {property}"));
        println!("    {property}: {steps}");
    }
}

fn without(leave_out: impl FnOnce(&mut Guards)) -> Guards {
    let mut guards = Guards::ALL;
    leave_out(&mut guards);
    guards
}

/// The lease model without a guard.
fn lease(bounds: Bounds, leave_out: impl FnOnce(&mut Guards)) -> Lease {
    Lease {
        guards: without(leave_out),
        ..Lease::new(bounds)
    }
}

/// The lease model without an assumption.
fn unfounded(bounds: Bounds, leave_out: impl FnOnce(&mut Assumptions)) -> Lease {
    let mut model = Lease::new(bounds);
    leave_out(&mut model.assumptions);
    model
}

/// The history model without a guard.
fn history(leave_out: impl FnOnce(&mut Guards)) -> History {
    History {
        guards: without(leave_out),
        ..HISTORY
    }
}

#[test]
fn the_complete_protocol_keeps_every_invariant() {
    for (name, bounds) in [
        ("one server", ONE),
        ("two changes", TWO_CHANGES),
        ("restarts", RESTARTS),
        ("synchronous failover", SYNCHRONOUS),
        ("synchronous failover, then calm", CALM),
        ("asynchronous failover", ASYNCHRONOUS),
        ("asynchronous failover with two changes", LOST_CHANGE),
        ("clone", CLONE),
    ] {
        holds(name, Lease::new(bounds));
    }
    holds("rewritten history", HISTORY);
    holds("feed", FEED);
    holds("clock", CLOCK);
    holds("clock, mark lost", CLOCK_LOST_MARK);
    holds("counter", COUNTER);
}

/// The same with more of everything.
#[test]
#[ignore = "takes minutes and gigabytes: cargo test --test it model -- --ignored --nocapture"]
fn the_complete_protocol_keeps_every_invariant_in_larger_configurations() {
    const REVERSED: &[Change] = &[Change::Revoke, Change::Filler];
    for (name, bounds) in [
        (
            "two changes, restarts, a slow clock",
            Bounds {
                lost_ticks: 1,
                restarts: 1,
                ..TWO_CHANGES
            },
        ),
        (
            "revocation first",
            Bounds {
                changes: REVERSED,
                lost_ticks: 1,
                ..Bounds::LEAST
            },
        ),
        (
            "synchronous failover with two changes",
            Bounds {
                changes: TWO_CHANGES.changes,
                ..SYNCHRONOUS
            },
        ),
        (
            "synchronous failover with a slow clock",
            Bounds {
                lost_ticks: 1,
                ..SYNCHRONOUS
            },
        ),
        (
            "asynchronous failover with a slow clock",
            Bounds {
                lost_ticks: 1,
                ..ASYNCHRONOUS
            },
        ),
        (
            "asynchronous failover, revocation first",
            Bounds {
                changes: REVERSED,
                ..LOST_CHANGE
            },
        ),
        (
            "asynchronous failover, then calm",
            Bounds {
                calm: true,
                ..ASYNCHRONOUS
            },
        ),
        (
            "clone with late heartbeats",
            Bounds {
                late_heartbeats: true,
                ..CLONE
            },
        ),
    ] {
        holds(name, Lease::new(bounds));
    }
    // Which attack a guard answers shows in what does not need it.
    let equal_clocks = lease(SYNCHRONOUS, |guards| guards.waiter_clock = false);
    holds("without G8, equal clocks", equal_clocks);
    let two_servers = lease(SYNCHRONOUS, |guards| guards.one_server = false);
    holds("without G16, safety", two_servers);
    holds(
        "rewritten history, three changes",
        History {
            changes: 3,
            ..HISTORY
        },
    );
}

#[test]
fn what_the_protocol_is_for_can_happen() {
    for (landmark, bounds) in [
        (Landmark::EarlyEverywhere, ONE),
        (Landmark::EverywhereByTime, ONE),
        (Landmark::LeaseRegained, ONE),
        (Landmark::AllowedWithinLease, ONE),
        (Landmark::StruckOff, ONE),
        (Landmark::HistoryRewritten, LOST_CHANGE),
    ] {
        let model = Lease {
            watch: Some(landmark),
            ..Lease::new(bounds)
        };
        finds(&format!("{landmark:?}"), model, &[REACHED]);
    }
    finds("rewritten history", HISTORY, &[REWRITTEN]);
}

#[test]
fn g1_without_a_lease_check_a_revoked_key_is_allowed() {
    finds(
        "G1",
        lease(ONE, |guards| guards.lease_checked = false),
        &[I1, I2],
    );
}

#[test]
fn g2_a_lease_counted_from_the_answer_lasts_too_long() {
    finds(
        "G2",
        lease(ONE, |guards| guards.counted_from_sending = false),
        &[I2],
    );
}

#[test]
fn g3_a_poll_of_a_replaced_primary_proves_nothing() {
    finds(
        "G3",
        lease(SYNCHRONOUS, |guards| guards.heartbeat_needed = false),
        &[I2],
    );
}

#[test]
fn g4_a_heartbeat_without_its_head_applied_proves_nothing() {
    finds(
        "G4",
        lease(SYNCHRONOUS, |guards| guards.head_applied = false),
        &[I2],
    );
}

#[test]
fn g5_a_heartbeat_that_only_reads_succeeds_on_a_replaced_primary() {
    finds(
        "G5",
        lease(SYNCHRONOUS, |guards| guards.heartbeat_commits = false),
        &[I2],
    );
}

#[test]
fn g6_without_compared_beats_a_clone_shares_its_originals_row() {
    finds(
        "G6",
        lease(CLONE, |guards| guards.beat_compared = false),
        &[I1, I8],
    );
}

/// I6 is stricter than "its owner holds no lease on facts without the waiter's change": the owner must hold no lease at
/// all, because the next waiter does not see the row. With a second change that is I1.
#[test]
fn g7_a_row_that_came_alive_must_not_be_deleted() {
    finds(
        "G7",
        lease(ONE, |guards| guards.deletes_beat_as_read = false),
        &[I6],
    );
    finds(
        "G7",
        lease(TWO_CHANGES, |guards| guards.deletes_beat_as_read = false),
        &[I1],
    );
}

#[test]
fn g8_a_waiter_must_not_trust_another_servers_clock() {
    finds(
        "G8",
        lease(SKEWED, |guards| guards.waiter_clock = false),
        &[I1],
    );
}

#[test]
fn g9_a_failover_loses_rows_of_living_leases() {
    finds(
        "G9",
        lease(ASYNCHRONOUS, |guards| {
            guards.full_wait_on_new_timeline = false;
        }),
        &[I1],
    );
}

#[test]
fn g10_a_replica_that_is_not_registered_is_not_waited_for() {
    finds(
        "G10",
        lease(ONE, |guards| guards.registered_first = false),
        &[I1],
    );
}

#[test]
fn g11_the_number_of_a_lost_change_is_used_again() {
    finds(
        "G11",
        lease(LOST_CHANGE, |guards| guards.report_by_stamp = false),
        &[I1],
    );
}

/// Epochs (G13) do not make up for it: the number of a lost change is below every number of the new epoch.
#[test]
fn g12_a_lost_change_is_acknowledged_by_a_higher_number() {
    finds("G12", history(|guards| guards.own_stamp = false), &[I4_OWN]);
}

#[test]
fn g13_without_epochs_another_change_answers_to_the_number() {
    finds(
        "G13",
        history(|guards| guards.epoch_by_timeline = false),
        &[I3, I7],
    );
}

#[test]
fn g14_a_closed_route_must_stay_closed() {
    finds(
        "G14",
        history(|guards| guards.merges_all_dimensions = false),
        &[I4],
    );
}

/// I4 holds without G15, because it speaks of one process.
#[test]
fn g15_a_hold_in_memory_is_forgotten() {
    finds("G15", history(|guards| guards.holds_stored = false), &[I7]);
}

/// G16 alone keeps I2: a heartbeat counts only when its own head is applied (G4), whichever server the polls go to. C1
/// needs both guards left out.
#[test]
fn g16_polls_stay_with_a_replaced_primary() {
    finds(
        "G16",
        lease(CALM, |guards| guards.one_server = false),
        &[I14],
    );
    let c1 = lease(SYNCHRONOUS, |guards| {
        (guards.one_server, guards.head_applied) = (false, false);
    });
    finds("G16 and G4", c1, &[I2]);
}

#[test]
fn g17_a_report_of_what_was_only_read_ends_the_wait_too_early() {
    finds(
        "G17",
        lease(ONE, |guards| guards.reports_applied = false),
        &[I1],
    );
}

#[test]
fn g18_a_replica_with_a_longer_lease_outlasts_the_wait() {
    finds(
        "G18",
        lease(ONE, |guards| guards.one_lease_length = false),
        &[I1],
    );
}

#[test]
fn g19_a_replica_stays_with_a_server_that_it_does_not_give_up() {
    finds(
        "G19",
        lease(CALM, |guards| guards.gives_up_server = false),
        &[I13, I14],
    );
}

#[test]
fn g20_a_poll_applied_in_any_order_grants_what_no_state_granted() {
    finds(
        "G20",
        Feed {
            guards: without(|guards| guards.keys_narrowed_first = false),
        },
        &[I9],
    );
    finds(
        "G20b",
        Feed {
            guards: without(|guards| guards.one_snapshot = false),
        },
        &[I9],
    );
}

#[test]
fn g21_a_process_that_deletes_its_row_first_is_not_waited_for() {
    finds(
        "G21",
        lease(RESTARTS, |guards| guards.ends_answering_first = false),
        &[I1, I6],
    );
}

#[test]
fn g22_an_expired_key_comes_back_with_a_clock_that_is_behind() {
    finds(
        "G22a",
        Clock {
            guards: without(|guards| guards.clock_runs_on = false),
            ..CLOCK_LOST_MARK
        },
        &[I5],
    );
    finds(
        "G22b",
        Clock {
            guards: without(|guards| guards.mark_stored = false),
            ..CLOCK
        },
        &[I5],
    );
}

#[test]
fn g23_a_slow_clock_outlasts_a_wait_without_an_allowance() {
    finds(
        "G23",
        lease(ONE, |guards| guards.rate_allowance = false),
        &[I1],
    );
}

#[test]
fn g24_two_writers_lose_a_term_of_the_sum() {
    finds(
        "G24",
        Counter {
            guards: without(|guards| guards.counter_held = false),
        },
        &[SUM],
    );
}

#[test]
fn g25_facts_read_before_the_lease_are_older_than_the_lease() {
    finds(
        "G25",
        lease(ONE, |guards| guards.lease_read_before_facts = false),
        &[I1],
    );
}

#[test]
fn g26_a_beat_read_at_the_end_of_the_wait_is_that_of_a_living_lease() {
    finds(
        "G26",
        lease(ONE, |guards| guards.beat_stood_still = false),
        &[I6],
    );
    finds(
        "G26",
        lease(TWO_CHANGES, |guards| guards.beat_stood_still = false),
        &[I1],
    );
}

#[test]
fn a1_a_replaced_primary_that_commits_renews_leases() {
    let model = unfounded(SYNCHRONOUS, |assumptions| {
        assumptions.replaced_primary_cannot_commit = false;
    });
    finds("A1", model, &[I1, I2]);
}

#[test]
fn a2_a_pause_that_the_clock_does_not_see_outlasts_the_wait() {
    finds(
        "A2",
        unfounded(ONE, |assumptions| assumptions.clock_sees_pauses = false),
        &[I1, I2],
    );
    let model = unfounded(CLONE, |assumptions| assumptions.no_clone_with_lease = false);
    finds("A2b", model, &[I1]);
}

#[test]
fn a3_a_clock_that_is_too_slow_outlasts_the_wait() {
    finds(
        "A3",
        unfounded(ONE, |assumptions| assumptions.clock_rate = false),
        &[I1, I2],
    );
}

const ALLOWED: Answer = Answer {
    process: 1,
    asked_at: 100,
    answered_at: 101,
    verdict: Verdict::Allowed,
};

#[test]
fn an_allowed_breaks_a_promise_from_the_acknowledgement_on() {
    let everywhere = |at| Revocation {
        acknowledged_at: Some(90),
        everywhere_at: Some(at),
    };
    assert_eq!(promises::breaches(&everywhere(101), &[ALLOWED], 40), []);
    assert_eq!(
        promises::breaches(&everywhere(100), &[ALLOWED], 40),
        [Breach::AllowedAfterEverywhere(ALLOWED)]
    );
    let plain = Revocation {
        acknowledged_at: Some(60),
        everywhere_at: None,
    };
    assert_eq!(promises::breaches(&plain, &[ALLOWED], 40), []);
    assert_eq!(
        promises::breaches(&plain, &[ALLOWED], 39),
        [Breach::AllowedAfterLease(ALLOWED)]
    );
}

#[test]
fn denied_then_allowed_breaks_a_promise_on_one_process() {
    let denied = Answer {
        asked_at: 90,
        answered_at: 91,
        verdict: Verdict::Denied,
        ..ALLOWED
    };
    let breaches = |denied| promises::breaches(&Revocation::default(), &[ALLOWED, denied], 40);
    assert_eq!(
        breaches(denied),
        [Breach::AllowedAfterDenied(denied, ALLOWED)]
    );
    assert_eq!(
        breaches(Answer {
            process: 2,
            ..denied
        }),
        []
    );
    assert!(
        promises::stays_denied(&denied, &ALLOWED, Some(95)),
        "given back in between"
    );
}

#[test]
fn expired_then_allowed_breaks_a_promise_on_any_process() {
    let expired = Answer {
        process: 2,
        asked_at: 50,
        answered_at: 59,
        verdict: Verdict::Expired,
    };
    let breaches = |bound| promises::breaches(&Revocation::default(), &[expired, ALLOWED], bound);
    assert_eq!(breaches(41), []);
    assert_eq!(
        breaches(40),
        [Breach::AllowedAfterExpired(expired, ALLOWED)]
    );
}
