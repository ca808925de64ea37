//! The store: what is in it, and what claviger needs of its database.

use std::io;
use std::time::Duration;

use super::report::{Check, Finding, Report, counted, problems_or, whole};
use super::shared::{
    judge_connections, judge_durability, judge_replicas, latency, rights, settled_replicas,
};
use crate::config::ServeArgs;
use crate::domain::clock::Clock;
use crate::domain::time::Timestamp;
use crate::hashing::Peppers;
use crate::open::{DATABASE, has_database, wrong_pepper};
use crate::store::{
    Error, Head, IntegrityCheck, OpenError, SchemaState, Snapshot, Store, has_write_ahead_log,
};

/// How long the check of the database's structure may take.
const INTEGRITY_TIME: Duration = Duration::from_secs(10);

/// How far clocks may differ before somebody should know.
const CLOCK_ERROR: Duration = Duration::from_mins(1);

/// How far the clock of an embedded database's machine may be behind.
const CLOCK_BEHIND: Duration = Duration::from_secs(1);

/// Examines the store, and returns the number of keys in it if that is known.
pub(super) async fn examine(report: &mut Report, args: &ServeArgs) -> Option<u64> {
    let is_embedded = args.store.location.database().is_none();
    if is_embedded && has_database(&args.store.location.data_dir).is_ok_and(|has| has) {
        // Before SQLite has it open.
        report.add(Check::Durability, write_ahead_log(args));
    }
    let (store, schema) = match open(args).await {
        Ok(opened) => opened,
        Err(finding) => {
            report.add(Check::Store, finding);
            return None;
        }
    };
    let mut problems: Vec<_> = store
        .unusable_servers()
        .await
        .into_iter()
        .map(|(server, why)| {
            Finding::warning(
                format!("the server {server} cannot be used: {why}"),
                "repair it, or take it out of --database-url",
            )
        })
        .collect();
    let is_current = matches!(schema, SchemaState::Current(_));
    if schema == SchemaState::Missing {
        problems.push(empty(args));
    } else {
        report.add(Check::Schema, judge_schema(schema));
    }
    let keys = if is_current {
        contents(report, &mut problems, args, &store).await
    } else {
        Ok(None)
    };
    let keys = keys.unwrap_or_else(|error| {
        problems.push(Finding::failed(
            format!("the store cannot be read: {error}"),
            "the checks that were skipped need it: repair the database, or give this role its rights",
        ));
        None
    });
    let found = match keys {
        Some(keys) => format!("an authority with {}", counted(keys, "key")),
        None => "the database answers".to_owned(),
    };
    report.add(Check::Store, problems_or(problems, found));
    store.close().await;
    keys
}

/// Opens the store for reading. The error is what is said about it.
async fn open(args: &ServeArgs) -> Result<(Store, SchemaState), Finding> {
    let location = &args.store.location;
    let refused = |error: OpenError| Finding::error(&error);
    if let Some(urls) = location.database() {
        return Store::examine_postgres(&urls, location.database_timeout)
            .await
            .map_err(refused);
    }
    match has_database(&location.data_dir) {
        Ok(true) => Store::examine_sqlite(&location.data_dir.join(DATABASE))
            .await
            .map_err(refused),
        Ok(false) => Err(empty(args)),
        Err(error) => Err(Finding::error(&error)),
    }
}

fn empty(args: &ServeArgs) -> Finding {
    if args.init {
        return Finding::passed("there is no authority yet: `serve --init` makes one");
    }
    let hint = if args.store.location.database().is_some() {
        "check whether --database-url names the right database"
    } else {
        "mount its volume, or correct --data-dir"
    };
    Finding::failed(
        "there is no authority",
        format!("{hint}. Only for a new authority: --init"),
    )
}

/// Examines what is in a store of this program's schema.
async fn contents(
    report: &mut Report,
    problems: &mut Vec<Finding>,
    args: &ServeArgs,
    store: &Store,
) -> Result<Option<u64>, Error> {
    let mut snapshot = store.snapshot().await?;
    // First, because without its rights nothing else can be read.
    let denied = snapshot.denied_tables().await?;
    let is_shared = args.store.location.database().is_some();
    if is_shared {
        report.add(Check::Rights, rights(&denied));
        if !denied.is_empty() {
            return Ok(None);
        }
    }
    if let Some(durability) = snapshot.durability().await? {
        report.add(Check::Durability, judge_durability(&durability));
    }
    let integrity = snapshot.check_integrity(INTEGRITY_TIME).await?;
    report.add(Check::Integrity, judge_integrity(integrity));
    let Some(head) = snapshot.head().await? else {
        problems.push(empty(args));
        return Ok(None);
    };
    report.add(Check::Peppers, peppers(args, &head));
    report.add(Check::Clock, clock(&head, &mut snapshot).await?);
    report.add(Check::Holds, holds(&mut snapshot).await?);
    let keys = snapshot.key_count().await?;
    if is_shared {
        let terms = snapshot.lease_terms().await?;
        report.add(Check::Latency, latency(&mut snapshot, terms).await?);
        let limits = snapshot.database_limits().await?;
        let replicas = settled_replicas(store, snapshot).await?;
        if let Some(limits) = limits {
            let findings = judge_connections(limits, &replicas, &args.replica_name());
            report.add(Check::Connections, findings);
        }
        report.add(Check::Replicas, judge_replicas(&replicas));
    }
    Ok(Some(keys))
}

fn judge_schema(schema: SchemaState) -> Finding {
    match schema {
        SchemaState::Missing => Finding::skipped("the database is empty"),
        SchemaState::Current(version) => {
            Finding::passed(format!("version {version}, that of this program"))
        }
        SchemaState::Older { found, needed } => Finding::warning(
            format!("version {found}, and this program needs {needed}"),
            "the next start brings it up to date, or `claviger migrate` as the owner of the database; make a backup first",
        ),
        SchemaState::Newer { found, needed } => Finding::failed(
            format!("version {found} of a newer claviger, and this program knows {needed}"),
            "start the newer program",
        ),
        SchemaState::Different { at } => Finding::failed(
            format!("version {at} is another one than that of this program"),
            "use a claviger that was released; if this is one, restore the database from its backup",
        ),
    }
}

fn write_ahead_log(args: &ServeArgs) -> Finding {
    let file = args.store.location.data_dir.join(DATABASE);
    match has_write_ahead_log(&file) {
        Ok(true) => Finding::passed("a write-ahead log, as the server sets it"),
        Ok(false) => Finding::warning(
            "the database has no write-ahead log: something other than claviger has changed its journal_mode",
            "restart the server, which sets it, and let no other program write to the database",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::skipped("this user may not read the database")
        }
        Err(error) => Finding::failed(
            format!("the head of {} cannot be read: {error}", file.display()),
            "restore the database from its backup",
        ),
    }
}

fn judge_integrity(integrity: Option<IntegrityCheck>) -> Finding {
    match integrity {
        None => Finding::skipped("only for an embedded database"),
        Some(IntegrityCheck::Sound) => Finding::passed("the structure of the database is sound"),
        Some(IntegrityCheck::Unfinished) => Finding::skipped(format!(
            "not done within {INTEGRITY_TIME:?}: run `PRAGMA quick_check` on a copy"
        )),
        Some(IntegrityCheck::Damaged(found)) => Finding::failed(
            format!("the database is damaged: {}", found.join("; ")),
            "stop the server, keep the files, and restore the database from its backup. Then test the disk",
        ),
    }
}

fn peppers(args: &ServeArgs, head: &Head) -> Finding {
    // The check of the file says what is wrong with it.
    let loaded = args
        .store
        .pepper_path()
        .and_then(|path| Some((Peppers::load(&path).ok()??, path)));
    let Some((peppers, path)) = loaded else {
        return Finding::skipped("the pepper file cannot be read");
    };
    let mut versions: Vec<_> = head.peppers.iter().map(|(version, _)| *version).collect();
    versions.sort_unstable();
    let versions: Vec<_> = versions.iter().map(u32::to_string).collect();
    match wrong_pepper(head, &peppers) {
        None => Finding::passed(format!(
            "the file has what this store needs: version {}",
            versions.join(", ")
        )),
        Some(version) => {
            let what = if peppers.canary(version).is_some() {
                "has another pepper of"
            } else {
                "has no pepper of"
            };
            Finding::failed(
                format!(
                    "{} {what} version {version}, so its keys cannot be verified",
                    path.display()
                ),
                "put the right file back from its copy, or name its path with --pepper-file",
            )
        }
    }
}

async fn clock(head: &Head, snapshot: &mut Snapshot) -> Result<Vec<Finding>, Error> {
    let database = snapshot.database_clock().await?;
    let authority = snapshot.time().await?.map(|sample| sample.time);
    let machine = Clock::system().now();
    Ok(match (database, authority) {
        (Some(database), Some(authority)) => shared_clock(machine, database, authority),
        _ => vec![embedded_clock(machine, head.clock)],
    })
}

fn embedded_clock(machine: Timestamp, recorded: Timestamp) -> Finding {
    let behind = recorded.since(machine);
    let found = format!(
        "this machine's clock is {} behind the latest time that the authority has recorded, so time stands still",
        whole(behind)
    );
    let advice = "set the clock. If the recorded time was wrong, start once with --trust-clock";
    if behind > CLOCK_ERROR {
        Finding::failed(found, advice)
    } else if behind > CLOCK_BEHIND {
        Finding::warning(found, advice)
    } else {
        Finding::passed("not behind the recorded time")
    }
}

fn shared_clock(machine: Timestamp, database: Timestamp, authority: Timestamp) -> Vec<Finding> {
    let mut problems = Vec::new();
    let error = machine.since(database).max(database.since(machine));
    if error > CLOCK_ERROR {
        problems.push(Finding::warning(
            format!("this machine's clock and the database's differ by {}", whole(error)),
            "set the wrong one. Servers have the database's time; certificates and logs have this machine's",
        ));
    }
    let ahead = authority.since(database);
    if ahead > CLOCK_ERROR {
        problems.push(Finding::warning(
            format!(
                "the time is {} ahead of the database's clock, so keys expire early",
                whole(ahead)
            ),
            "correct the clock of the database's machine, then `claviger replicas set-clock`",
        ));
    }
    problems_or(problems, "this machine and the database agree")
}

async fn holds(snapshot: &mut Snapshot) -> Result<Finding, Error> {
    let mut epochs = Vec::new();
    let mut count = 0;
    for fork in snapshot.forks().await? {
        let (_, held) = snapshot.held_since(&fork, 1).await?;
        if held > 0 {
            epochs.push(fork.epoch.to_string());
            count += held;
        }
    }
    if count == 0 {
        return Ok(Finding::passed("nothing is held"));
    }
    Ok(Finding::warning(
        format!(
            "{} held because changes were lost, since epoch {}",
            counted(count, "thing"),
            epochs.join(", ")
        ),
        "`claviger replicas` names them: take away again what must stay away, then `claviger replicas accept-history EPOCH`",
    ))
}
