//! What several servers rest on in PostgreSQL: its settings, its limits and its distance, and what they tell of themselves.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::report::{Finding, counted, problems_or, whole};
use crate::domain::lease::LeaseTerms;
use crate::domain::span;
use crate::store::{
    DatabaseLimits, Durability, Error, Replica, ReplicaState, Replicas, Snapshot, Store,
};

/// How many round trips to the database are measured.
const ROUND_TRIPS: usize = 5;

/// The connections of a running server, and those that it has for a moment besides. See `docs/postgresql.md`.
const CONNECTIONS: i64 = 12;
const MORE_CONNECTIONS: i64 = 2;

/// The replicas. For a second after its start a server has reported no lease, although it has one, so it is looked again then.
pub(super) async fn settled_replicas(
    store: &Store,
    mut snapshot: Snapshot,
) -> Result<Replicas, Error> {
    let replicas = snapshot.replicas().await?;
    drop(snapshot);
    if !replicas.replicas.iter().any(has_no_lease) {
        return Ok(replicas);
    }
    sleep(replicas.terms.heartbeat_interval() * 2).await;
    store.snapshot().await?.replicas().await
}

/// Whether a server has told that it has no lease.
fn has_no_lease(replica: &Replica) -> bool {
    replica.state == ReplicaState::Serving && replica.lease_left.is_zero()
}

pub(super) fn rights(denied: &[String]) -> Finding {
    if denied.is_empty() {
        return Finding::passed("the role may read and write all tables");
    }
    Finding::failed(
        format!("the role may not read and write {}", denied.join(", ")),
        "as the owner: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO the role",
    )
}

pub(super) fn judge_durability(durability: &Durability) -> Vec<Finding> {
    let settings = [
        ("fsync", &durability.fsync),
        ("full_page_writes", &durability.full_page_writes),
        ("synchronous_commit", &durability.synchronous_commit),
    ];
    let off = settings.iter().filter(|(_, setting)| *setting == "off");
    let mut problems: Vec<_> = off
        .map(|(name, _)| {
            Finding::failed(
                format!("{name}=off, so an acknowledged change could be lost"),
                format!("set {name}=on: claviger refuses to start without it"),
            )
        })
        .collect();
    if durability.default_transaction_read_only == "on" {
        problems.push(Finding::failed(
            "default_transaction_read_only=on, so no heartbeat can be written",
            "set it off for this role and this database",
        ));
    }
    problems.extend(replication(durability));
    problems_or(
        problems,
        "fsync, full_page_writes, synchronous_commit are on",
    )
}

/// What a failover would lose.
fn replication(durability: &Durability) -> Option<Finding> {
    let Durability {
        synchronous_commit: commit,
        synchronous_standby_names: names,
        standbys,
        ..
    } = durability;
    match (names.is_empty(), standbys) {
        (true, 0) => None,
        (true, _) => Some(Finding::warning(
            format!(
                "the standbys ({standbys}) follow asynchronously, so a failover can lose changes, and with them revocations"
            ),
            "set synchronous_standby_names: see docs/replicas.md",
        )),
        (false, 0) => Some(Finding::warning(
            "synchronous_standby_names is set, and no standby follows, so every change waits for one",
            "start the standby, or take it out of the setting",
        )),
        (false, _) => (commit == "local").then(|| {
            Finding::warning(
                "synchronous_commit=local, so no change waits for the standbys, and a failover can lose it",
                "set synchronous_commit=on",
            )
        }),
    }
}

/// Measures what a heartbeat takes besides the write.
pub(super) async fn latency(snapshot: &mut Snapshot, terms: LeaseTerms) -> Result<Finding, Error> {
    let mut took = [Duration::ZERO; ROUND_TRIPS];
    for took in &mut took {
        let began = Instant::now();
        snapshot.time().await?;
        *took = began.elapsed();
    }
    took.sort_unstable();
    Ok(judge_latency(took[ROUND_TRIPS / 2], terms))
}

fn judge_latency(round_trip: Duration, terms: LeaseTerms) -> Finding {
    let millis = |time: Duration| time.as_micros().div_ceil(1_000) as u64;
    let facts = format!(
        "a round trip takes {}, the lease is {}",
        span::format(Duration::from_millis(millis(round_trip))),
        span::format(Duration::from_millis(millis(terms.length)))
    );
    let advice = "bring the server nearer to its database, or `claviger replicas set-lease` with a longer one";
    if round_trip > terms.heartbeat_limit() {
        Finding::failed(
            format!("{facts}, so no heartbeat is answered in time"),
            advice,
        )
    } else if round_trip > terms.heartbeat_interval() {
        Finding::warning(format!("{facts}, so heartbeats are late"), advice)
    } else {
        Finding::passed(facts)
    }
}

pub(super) fn judge_connections(
    limits: DatabaseLimits,
    replicas: &Replicas,
    name: &str,
) -> Vec<Finding> {
    let servers = replicas.replicas.len() as i64;
    let runs = replicas.replicas.iter().any(|replica| replica.name == name);
    let (more, all) = if runs {
        (MORE_CONNECTIONS, servers)
    } else {
        (CONNECTIONS + MORE_CONNECTIONS, servers + 1)
    };
    let needed = CONNECTIONS * all + MORE_CONNECTIONS;
    let mut problems = Vec::new();
    let of = [
        ("the role", limits.of_role),
        ("the database", limits.of_database),
        ("max_connections", Some(limits.connections)),
    ];
    for (what, limit) in of {
        if let Some(limit) = limit.filter(|limit| *limit < needed) {
            problems.push(Finding::failed(
                format!(
                    "{what} allows {limit} connections, and {needed} are needed ({})",
                    counted(all.unsigned_abs(), "server")
                ),
                "raise the limit",
            ));
        }
    }
    // One of them is the question's own.
    let free = limits.connections - limits.used + 1;
    if problems.is_empty() && free < more {
        problems.push(Finding::warning(
            format!(
                "{} of {} connections are in use, and this server needs {more} more",
                limits.used, limits.connections
            ),
            "raise max_connections, or end the sessions of other programs",
        ));
    }
    problems_or(
        problems,
        format!(
            "{needed} are needed, {} of {} are in use",
            limits.used, limits.connections
        ),
    )
}

pub(super) fn judge_replicas(replicas: &Replicas) -> Vec<Finding> {
    let all = &replicas.replicas;
    let mut problems = Vec::new();
    let mut versions: Vec<_> = all.iter().map(|replica| replica.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        problems.push(Finding::warning(
            format!(
                "the servers have different versions: {}",
                versions.join(", ")
            ),
            "end the upgrade, and do not use what is new before",
        ));
    }
    let mut names: Vec<_> = all.iter().map(|replica| replica.name.as_str()).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    for pair in twice {
        problems.push(Finding::warning(
            format!(
                "two servers have the name {}, or one has just been killed and started again",
                pair[0]
            ),
            "give each one its own --replica-name",
        ));
    }
    problems.extend(
        all.iter()
            .filter_map(|replica| judge_replica(replica, replicas.terms)),
    );
    let found = format!("{} on the database", counted(all.len() as u64, "server"));
    problems_or(problems, found)
}

fn judge_replica(replica: &Replica, terms: LeaseTerms) -> Option<Finding> {
    let name = &replica.name;
    if replica.silent_for > terms.length {
        return Some(Finding::warning(
            format!("{name} has been silent for {}", whole(replica.silent_for)),
            "look whether it runs and reaches the database; if it is gone, the others strike it off",
        ));
    }
    if !replica.warning.is_empty() {
        return Some(Finding::warning(
            format!("{name} warns: {}", replica.warning),
            "see docs/replicas.md",
        ));
    }
    has_no_lease(replica).then(|| {
        Finding::warning(
            format!("{name} has no lease, so it says nothing is allowed"),
            "look into its log: it cannot follow the database",
        )
    })
}
