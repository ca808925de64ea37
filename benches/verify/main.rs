//! How fast claviger is: `cargo bench`, or `cargo bench -- --quick` to see that it runs.
//!
//! Everything is measured side by side in one run, and every figure says what it is a ratio to. The parts that serve and the
//! one that makes the load are this same program, started again as processes of their own; the service itself is the real
//! `claviger serve`.

mod load;
mod naive;
mod postgres;
mod questions;
mod seed;
mod servers;
mod slices;

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use claviger::pb::claviger::v1 as pb;
use pb::key_verify_client::KeyVerifyClient;
use tokio::runtime;

use crate::naive::{Argon2OnEachCall, Empty, StoreReadOnEachCall};
use crate::postgres::Cluster;
use crate::questions::{BATCH, Kinds, Questions, question};
use crate::seed::{Place, Seeded, seed};
use crate::servers::{Running, in_dir, serve_alone};
use crate::slices::{Costs, Subject, number, take_turns};

type Outcome = Result<(), Box<dyn Error>>;

/// Measures what a Verify costs, beside what it could cost.
#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    part: Option<Part>,

    /// Few keys and short slices: shows that it runs, not how fast
    #[arg(long)]
    quick: bool,

    /// How many keys the authority has [default: 1,000,000]
    #[arg(long)]
    keys: Option<usize>,

    /// Leave PostgreSQL out
    #[arg(long)]
    no_postgres: bool,

    /// What cargo says
    #[arg(long, hide = true)]
    bench: bool,
}

/// What this program is when it is started again by itself.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Load,
    #[command(hide = true)]
    ServeEmpty,
    #[command(hide = true)]
    ServeArgon2,
    #[command(hide = true)]
    ServeStoreRead { data_dir: PathBuf },
}

/// How much is measured.
struct Effort {
    keys: usize,
    rounds: usize,
    calls: usize,
}

fn main() -> Outcome {
    let line = Line::parse();
    let mut runtime = match line.part {
        // The load shall leave the other core to the server.
        Some(Part::Load) => runtime::Builder::new_current_thread(),
        // As `claviger` itself.
        _ => runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(run(&line))
}

async fn run(line: &Line) -> Outcome {
    match &line.part {
        Some(Part::Load) => load::run().await,
        Some(Part::ServeEmpty) => serve_alone(Empty).await,
        Some(Part::ServeArgon2) => serve_alone(Argon2OnEachCall::new().await?).await,
        Some(Part::ServeStoreRead { data_dir }) => {
            serve_alone(StoreReadOnEachCall::new(data_dir).await?).await
        }
        None => measure(line).await,
    }
}

async fn measure(line: &Line) -> Outcome {
    let mut effort = if line.quick {
        Effort {
            keys: 5_000,
            rounds: 2,
            calls: 2_000,
        }
    } else {
        Effort {
            keys: 1_000_000,
            rounds: 7,
            calls: 40_000,
        }
    };
    effort.keys = line.keys.unwrap_or(effort.keys).max(1_000);
    let dir = tempfile::tempdir()?;
    println!(
        "claviger {}, {} cores shared by servers and load{}\n\
         {} keys, each with two scopes that come to three, and two labels; written straight into the store, where they share\n\
         the Argon2 root of one secret (Verify reads no root).\n",
        env!("CARGO_PKG_VERSION"),
        std::thread::available_parallelism()?,
        if line.quick {
            "; --quick: these figures tell nothing"
        } else {
            ""
        },
        grouped(effort.keys),
    );
    let (data, seeded) = start_embedded(dir.path(), &effort).await?;
    measure_verify(dir.path(), &data, &seeded, &effort).await?;
    match (line.no_postgres, postgres::programs()) {
        (true, _) => {}
        (false, None) => println!(
            "\nPostgreSQL: not measured, its programs are not here (apt-get install --no-install-recommends postgresql)"
        ),
        (false, Some(programs)) => {
            // Last, so that what can go wrong with a cluster takes no other figure along.
            if let Err(error) = start_shared(dir.path(), &programs, &effort).await {
                println!("\nPostgreSQL: not measured: {error}");
            }
        }
    }
    Ok(())
}

/// Seeds an embedded authority, and measures how it starts.
async fn start_embedded(dir: &Path, effort: &Effort) -> Result<(PathBuf, Seeded), Box<dyn Error>> {
    let mut authorities = Vec::new();
    for (name, keys) in [("empty", 0), ("full", effort.keys)] {
        let data = dir.join(name);
        fs::create_dir(&data)?;
        let place = Place::Sqlite(data.join("claviger.db"));
        let seeded = seed(&place, &data.join("pepper.toml"), keys).await?;
        authorities.push((data, seeded));
    }
    let (full, seeded) = authorities.pop().ok_or("no authority")?;
    let (empty, _) = authorities.pop().ok_or("no authority")?;
    report_start("SQLite", &in_dir(&empty), &in_dir(&full), effort)?;
    Ok((full, seeded))
}

/// The same with PostgreSQL.
async fn start_shared(dir: &Path, programs: &Path, effort: &Effort) -> Outcome {
    // A short way that PostgreSQL's own user may go.
    let home = tempfile::Builder::new()
        .prefix("claviger-bench")
        .tempdir_in("/tmp")?;
    fs::set_permissions(
        home.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let mut flags = Vec::new();
    let mut clusters = Vec::new();
    for (name, keys) in [("empty", 0), ("full", effort.keys)] {
        let cluster = Cluster::start(programs, &home.path().join(name)).await?;
        let pepper_file = dir.join(format!("{name}-pepper.toml"));
        seed(&Place::Postgres(cluster.url.clone()), &pepper_file, keys).await?;
        flags.push([
            "--database-url".into(),
            cluster.url.clone().into(),
            "--pepper-file".into(),
            pepper_file.into_os_string(),
        ]);
        clusters.push(cluster);
    }
    let flags: Vec<[&OsStr; 4]> = flags
        .iter()
        .map(|flags| flags.each_ref().map(AsRef::as_ref))
        .collect();
    report_start("PostgreSQL", &flags[0], &flags[1], effort)
}

/// Starts an empty authority and a full one, and tells what the keys cost in time and in memory.
fn report_start(store: &str, empty: &[&OsStr], full: &[&OsStr], effort: &Effort) -> Outcome {
    let (empty, empty_took) = Running::claviger(empty)?;
    let empty = (empty.memory()?, empty_took);
    // Once to warm the machine's memory of the files, as a restart finds it.
    drop(Running::claviger(full)?);
    let (full, took) = Running::claviger(full)?;
    let cpu = full.cpu()?;
    println!(
        "{store}: ready after {:.2} s ({:.2} s of processor time; without keys {:.2} s); {:.0} bytes of memory per key \
         (VmRSS, less that without keys)",
        took.as_secs_f64(),
        cpu,
        empty.1.as_secs_f64(),
        (full.memory()? - empty.0) / number(effort.keys),
    );
    Ok(())
}

async fn measure_verify(dir: &Path, data: &Path, seeded: &Seeded, effort: &Effort) -> Outcome {
    let kinds = Kinds::write(dir, &seeded.texts)?;
    let copy = copy(data, &dir.join("copy"))?;
    let (claviger, _) = Running::claviger(&in_dir(data))?;
    let empty = Running::part(&["serve-empty".as_ref()])?;
    let argon2 = Running::part(&["serve-argon2".as_ref()])?;
    let store_read = Running::part(&["serve-store-read".as_ref(), data.as_os_str()])?;
    check(&claviger, seeded).await?;

    // Its one root is of no key's secret.
    let unproven = questions::Questions {
        answers_begin: kinds.wrong_secret.answers_begin.clone(),
        ..kinds.hot.clone()
    };
    let subject = |name, server, questions, calls| Subject {
        name,
        server,
        bearer: &seeded.gateway,
        questions,
        calls,
        keys_per_call: 1,
    };
    let Effort { calls, rounds, .. } = *effort;
    let batches = Subject {
        keys_per_call: BATCH,
        ..subject(
            "VerifyBatch of 100, per key",
            &claviger,
            kinds.batch,
            calls / BATCH,
        )
    };
    let unit = || {
        subject(
            "empty handler on the same stack",
            &empty,
            kinds.hot.unanswered(),
            calls,
        )
    };
    let costs = take_turns(
        &unit(),
        &[
            // Against itself: how far this is from 1.00 is how far to trust the others.
            unit(),
            subject(
                "Verify, 1,000 hot keys",
                &claviger,
                kinds.hot.clone(),
                calls,
            ),
            subject(
                "Verify, all keys in turn",
                &claviger,
                kinds.all.clone(),
                calls,
            ),
            subject("wrong secret", &claviger, kinds.wrong_secret, calls),
            subject("bad checksum", &claviger, kinds.bad_checksum, calls),
            subject("random bytes", &claviger, kinds.random_bytes, calls),
            batches,
            subject(
                "Envoy's Check, 500 routes, 1,000 hot keys",
                &claviger,
                kinds.check,
                calls,
            ),
            subject(
                "naive: a read of SQLite on each call",
                &store_read,
                kinds.hot.clone(),
                calls / 10,
            ),
        ],
        rounds,
    )?;
    let slow = take_turns(
        &unit(),
        &[subject(
            "naive: Argon2 on each call",
            &argon2,
            unproven,
            calls / 1_000,
        )],
        rounds.min(3),
    )?;

    println!(
        "\nProcessor time of the server's process per call, user and system: medians of {rounds} slices of {} calls, each of\n\
         which took turns with one of the empty handler, over 8 connections x 32 streams. The empty handler against itself\n\
         shows how far to trust the ratios. Each call to claviger carries the gateway's own key, which is proven too, and an\n\
         allowed one answers the key's facts with three scopes and two labels; the naive ones do not look at the caller.\n",
        grouped(calls)
    );
    report("x the empty handler", costs.iter().chain(&slow));
    measure_counting(&claviger, &copy, seeded, [&kinds.hot, &kinds.all], effort)
}

/// What it costs to count how keys are used, beside a server that does not, of a copy of the same authority.
fn measure_counting(
    on: &Running,
    copy: &Path,
    seeded: &Seeded,
    [hot, all]: [&Questions; 2],
    effort: &Effort,
) -> Outcome {
    let not_counting = ["--usage-interval".as_ref(), "0s".as_ref()];
    let flags: Vec<&OsStr> = in_dir(copy).into_iter().chain(not_counting).collect();
    let (off, _) = Running::claviger(&flags)?;
    let mut counted = Vec::new();
    for (name, questions) in [
        ("Verify, 1,000 hot keys", hot),
        ("Verify, all keys in turn", all),
    ] {
        let subject = |name, server| Subject {
            name,
            server,
            bearer: &seeded.gateway,
            questions: questions.clone(),
            calls: effort.calls,
            keys_per_call: 1,
        };
        let unit = || subject("the same, not counted, against itself", &off);
        counted.extend(take_turns(
            &unit(),
            &[subject(name, on), unit()],
            effort.rounds,
        )?);
    }
    println!(
        "\nWhat it costs to count how keys are used: the same slices, in turns with those of a server that does not\n\
         (--usage-interval 0s). What is written down every five seconds falls into the slice that is then under way.\n"
    );
    report("x not counted", &counted);
    Ok(())
}

fn report<'c>(unit: &str, costs: impl IntoIterator<Item = &'c Costs>) {
    println!("{:<42} {:>12} {:>22}", "", "microseconds", unit);
    for costs in costs {
        println!(
            "{:<42} {:>12.2} {:>22.2}",
            costs.name,
            costs.microseconds(),
            costs.ratio()
        );
    }
}

/// Copies an authority that nobody serves.
fn copy(data: &Path, to: &Path) -> io::Result<PathBuf> {
    fs::create_dir(to)?;
    for file in fs::read_dir(data)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(to.to_owned())
}

/// Sees one answer whole before many are made of which only the beginning is looked at.
async fn check(claviger: &Running, seeded: &Seeded) -> Outcome {
    let mut client = KeyVerifyClient::connect(format!("http://{}", claviger.address)).await?;
    let ask = |key: &str| {
        let mut request = tonic::Request::new(question(key.to_owned()));
        request.set_timeout(Duration::from_secs(10));
        let bearer = format!("Bearer {}", seeded.gateway).parse();
        bearer.map(|bearer| {
            request.metadata_mut().insert("authorization", bearer);
            request
        })
    };
    let answer = client.verify(ask(&seeded.texts[0])?).await?.into_inner();
    let key = answer.key.as_ref().ok_or("the first key is not proven")?;
    if answer.verdict() != pb::Verdict::Allowed || key.scopes.len() != 3 || key.labels.len() != 2 {
        return Err(format!("an answer is not as it should be: {answer:?}").into());
    }
    Ok(())
}

/// A number with commas.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}
