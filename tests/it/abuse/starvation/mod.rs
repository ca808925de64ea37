//! Each role at the bounds of the API without a pause, beside an operator and a gateway. Errors, bytes and lines count here, and not
//! times: `cargo bench --bench verify -- starve` measures those.

mod attackers;
mod bystanders;
mod roles;

use std::time::{Duration, Instant};

use attackers::Attackers;
use bystanders::Bystander;
use roles::{Role, World};
use tokio::sync::Mutex;

use crate::fixtures::{Engine, Program, TestStore, from_env, on_both_engines};

/// How much the memory of the program may grow during an attack, and how much of that may be left afterwards, in KiB.
const MAX_GROWTH: u64 = 256 * 1024;
const MAX_GROWTH_AFTERWARDS: u64 = 64 * 1024;

/// How long after an attack the memory may take.
const AFTERWARDS: Duration = Duration::from_secs(12);

/// The lines that the program may log in a second.
const MAX_LOG_LINES: usize = 100;

/// The least that the bystanders do beside each role.
const ROUNDS_OF_OPERATOR: usize = 3;
const ROUNDS_OF_GATEWAY: usize = 50;

/// How long they may take for that, on the busiest of machines.
const PATIENCE: Duration = Duration::from_mins(3);

/// Held by the test of one engine, so that its attackers do not slow down the other one.
static ALONE: Mutex<()> = Mutex::const_new(());

on_both_engines! {
    /// Seen red, each beside the role that is named:
    ///
    /// * the operator: with a queue that serves in the order of arrival and limits no group ("manage, new keys"), and with a queue in
    ///   which revocations leave nothing to others ("manage, revocations"). To ignore only the priority is not enough: the realms
    ///   still take turns
    /// * the gateway and the operator: with one of 100 call permits for each Verify, and attackers at their address ("verify")
    /// * the memory: with 256 KiB for each call that are never freed for its peak, and with 32 KiB for what is left ("wrong key")
    /// * the log: with a line for each refused call ("wrong key")
    async fn nobody_starves_anybody(engine: Engine) {
        let _alone = ALONE.lock().await;
        let time = Duration::from_millis(from_env("CLAVIGER_TEST_STARVE_MILLIS", 2_000) as u64);
        let test_store = TestStore::on(engine);
        // A database that is slow because the machine is busy is no finding here.
        let program = Program::serve(&test_store, &["--database-timeout", "30s"]);
        let began = Instant::now();
        let world = World::make(&program).await;
        println!("{engine:?}: made in {:.1?}", began.elapsed());
        // What the first calls take stays.
        beside(&program, &world, &Role::nobody(), Duration::from_secs(1)).await;
        program.forget_peak_memory();
        let before = program.memory();
        for role in world.roles() {
            let lines = program.log_lines();
            let took = beside(&program, &world, &role, time).await;
            let lines = program.log_lines() - lines;
            let growth = program.peak_memory().saturating_sub(before);
            let growth_now = || program.memory().saturating_sub(before);
            println!("  {before} + {growth} KiB, {lines} lines in {took:.1?}");
            let Role { name, .. } = role;
            assert!(growth <= MAX_GROWTH, "{name}: the program grew by {growth} KiB");
            let most = (took.as_secs() as usize + 1) * MAX_LOG_LINES;
            assert!(lines <= most, "{name}: {lines} lines in {took:.1?}");
            let ended = Instant::now();
            while growth_now() > MAX_GROWTH_AFTERWARDS {
                let after = ended.elapsed();
                assert!(after < AFTERWARDS, "{name}: + {} KiB {after:.1?} later", growth_now());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            println!("  + {} KiB {:.1?} later", growth_now(), ended.elapsed());
        }
    }
}

/// Lets the bystanders work beside a role's attackers for this time, and for longer until both have done something. Returns how long
/// that took.
async fn beside(program: &Program, world: &World, role: &Role, time: Duration) -> Duration {
    println!("{}", role.name);
    let began = Instant::now();
    let attackers = Attackers::start(program, role);
    let operator = Bystander::operator(program);
    let gateway = Bystander::gateway(program, world.gateway_key.clone(), world.plain_key.clone());
    let has_worked = || {
        operator.has_made(ROUNDS_OF_OPERATOR)
            && gateway.has_made(ROUNDS_OF_GATEWAY)
            && attackers.got_through()
    };
    while began.elapsed() < time || !has_worked() && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let worked = operator.has_made(ROUNDS_OF_OPERATOR) && gateway.has_made(ROUNDS_OF_GATEWAY);
    let operator = operator.end();
    let gateway = gateway.end();
    let attacked = attackers.end();
    let took = began.elapsed();
    for line in String::from_utf8_lossy(&program.log.lock().unwrap()).lines() {
        if line.contains("\"ERROR\"") || line.contains("\"WARN\"") {
            println!("  {line}");
        }
    }
    gateway.assert_nothing_failed(role.name);
    operator.assert_nothing_failed(role.name);
    assert!(attacked.is_empty(), "{}: {attacked:#?}", role.name);
    assert!(
        worked,
        "{}: the bystanders made few calls in {took:.1?}",
        role.name
    );
    took
}
