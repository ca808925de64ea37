//! The benchmark: `cargo bench`, or `cargo bench -- --quick` to check that it runs.
//!
//! One run measures all servers side by side, and reports each cost as a ratio to a reference. The reference servers and the load
//! are this program, started again in processes of their own. The measured service is the real `claviger serve`.

mod connect;
mod empty;
mod envoy;
mod handshakes;
mod http1;
mod isolation;
mod load;
mod naive;
mod postgres;
mod questions;
mod seed;
mod servers;
mod slices;
mod tls;

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

use crate::empty::Empty;
use crate::load::{Latencies, Shape};
use crate::naive::{Argon2OnEachCall, StoreReadOnEachCall};
use crate::postgres::Cluster;
use crate::questions::{BATCH, Kinds, Questions, question};
use crate::seed::{Database, Seeded, seed};
use crate::servers::{ServerProcess, in_dir, serve_alone, stock_program};
use crate::slices::{Costs, Subject, measure_alternately, number};

// As in `claviger` itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome = Result<(), Box<dyn Error>>;

/// Measures the cost of Verify, and compares it with other servers.
#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    part: Option<Part>,

    /// Use few keys and short slices, to check that the benchmark runs; the figures mean nothing
    #[arg(long, global = true)]
    quick: bool,

    /// The number of keys of the authority [default: 1,000,000]
    #[arg(long, global = true)]
    keys: Option<usize>,

    /// Skip PostgreSQL
    #[arg(long, global = true)]
    no_postgres: bool,

    /// Set by cargo
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

/// A part of the benchmark, or the role of a process that this program starts.
#[derive(Subcommand)]
enum Part {
    /// Measure only the start and the memory
    Memory,
    /// Measure only Verify and forward-auth over TLS, beside the same in plain
    Tls,
    /// Measure Verify beside expensive administration
    Isolation,
    /// Measure an operator and a gateway beside attackers of each role
    Starve,
    /// Measure Verify at one of the servers of a PostgreSQL database, beside the others
    Replicas,
    #[command(hide = true)]
    IsolationClient { client: isolation::Client },
    /// Measure the latency of Envoy that asks claviger
    Envoy,
    #[command(hide = true)]
    EnvoyClient,
    #[command(hide = true)]
    ServeAuthorizer {
        #[arg(long)]
        sets_headers: bool,
    },
    #[command(hide = true)]
    Load,
    #[command(hide = true)]
    Handshake,
    #[command(hide = true)]
    ServeEmpty,
    #[command(hide = true)]
    ServeWhole,
    #[command(hide = true)]
    ServeArgon2,
    #[command(hide = true)]
    ServeStoreRead { data_dir: PathBuf },
}

/// The size of the measurement.
struct Effort {
    keys: usize,
    rounds: usize,
    calls: usize,
    /// How long a server is idle before its memory is read.
    idle: Duration,
}

fn main() -> Outcome {
    let args = CommandLine::parse();
    let mut runtime = match &args.part {
        // On one thread, to leave the other core to the server.
        Some(Part::Load | Part::Handshake | Part::IsolationClient { .. } | Part::EnvoyClient) => {
            runtime::Builder::new_current_thread()
        }
        // Like `claviger` itself.
        _ => runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(run(&args))
}

async fn run(args: &CommandLine) -> Outcome {
    match &args.part {
        Some(Part::Load) => load::run().await,
        Some(Part::Handshake) => handshakes::run().await,
        Some(Part::Isolation) => {
            let default = if args.quick { 5_000 } else { 100_000 };
            isolation::measure(args.keys.unwrap_or(default), args.quick).await
        }
        Some(Part::Starve) => {
            let default = if args.quick { 5_000 } else { 100_000 };
            isolation::measure_starvation(args.keys.unwrap_or(default), args.quick).await
        }
        Some(Part::Replicas) => {
            let default = if args.quick { 5_000 } else { 1_000_000 };
            isolation::measure_replicas(args.keys.unwrap_or(default), args.quick).await
        }
        Some(Part::IsolationClient { client }) => isolation::run(*client).await,
        Some(Part::Envoy) => {
            let default = if args.quick { 5_000 } else { 100_000 };
            envoy::measure(args.keys.unwrap_or(default), args.quick).await
        }
        Some(Part::EnvoyClient) => envoy::run().await,
        Some(Part::ServeAuthorizer { sets_headers }) => {
            envoy::serve_authorizer(*sets_headers).await
        }
        Some(Part::ServeEmpty) => serve_alone(Empty, false).await,
        Some(Part::ServeWhole) => serve_alone(Empty, true).await,
        Some(Part::ServeArgon2) => serve_alone(Argon2OnEachCall::new().await?, false).await,
        Some(Part::ServeStoreRead { data_dir }) => {
            serve_alone(StoreReadOnEachCall::new(data_dir).await?, false).await
        }
        Some(Part::Tls) => tls::measure_alone(&Effort::of(args)).await,
        None | Some(Part::Memory) => measure(args).await,
    }
}

impl Effort {
    fn of(args: &CommandLine) -> Self {
        let mut effort = if args.quick {
            Self {
                keys: 5_000,
                rounds: 2,
                calls: 2_000,
                idle: Duration::ZERO,
            }
        } else {
            Self {
                keys: 1_000_000,
                rounds: 7,
                calls: 100_000,
                idle: Duration::from_secs(10),
            }
        };
        effort.keys = args.keys.unwrap_or(effort.keys).max(1_000);
        effort
    }
}

async fn measure(args: &CommandLine) -> Outcome {
    let effort = Effort::of(args);
    let dir = tempfile::tempdir()?;
    println!(
        "claviger {}, {} cores shared by the servers and the load{}\n\
         {} keys. Each has two granted scopes that make three effective ones (16 different sets), a unique name, a label\n\
         with one of 100 values and a label with a unique value. The keys were written directly into the store and share\n\
         one Argon2 root (Verify reads no root).\n",
        env!("CARGO_PKG_VERSION"),
        std::thread::available_parallelism()?,
        if args.quick {
            "; --quick: these figures mean nothing"
        } else {
            ""
        },
        grouped(effort.keys),
    );
    let (data, seeded) = start_sqlite(dir.path(), &effort).await?;
    if args.part.is_none() {
        measure_verify(dir.path(), &data, &seeded, &effort).await?;
    }
    match (args.no_postgres, postgres::programs()) {
        (true, _) => {}
        (false, None) => println!(
            "\nPostgreSQL: not measured, it is not installed (apt-get install --no-install-recommends postgresql)"
        ),
        (false, Some(programs)) => {
            // Last, so that a failed cluster affects no other figure.
            if let Err(error) = start_postgres(dir.path(), &programs, &effort).await {
                println!("\nPostgreSQL: not measured: {error}");
            }
        }
    }
    Ok(())
}

/// Creates an authority in SQLite, and measures its start.
async fn start_sqlite(dir: &Path, effort: &Effort) -> Result<(PathBuf, Seeded), Box<dyn Error>> {
    let mut authorities = Vec::new();
    for (name, keys) in [("empty", 0), ("full", effort.keys)] {
        let data = dir.join(name);
        fs::create_dir(&data)?;
        let database = Database::Sqlite(data.join("claviger.db"));
        let seeded = seed(&database, &data.join("pepper.toml"), keys).await?;
        authorities.push((data, seeded));
    }
    let (full, seeded) = authorities.pop().ok_or("no authority")?;
    let (empty, _) = authorities.pop().ok_or("no authority")?;
    report_start("SQLite", &in_dir(&empty), &in_dir(&full), effort)?;
    Ok((full, seeded))
}

/// Creates an authority in PostgreSQL, and measures its start.
async fn start_postgres(dir: &Path, programs: &Path, effort: &Effort) -> Outcome {
    let cluster_dir = postgres::dir()?;
    let mut flags = Vec::new();
    let mut clusters = Vec::new();
    for (name, keys) in [("empty", 0), ("full", effort.keys)] {
        let cluster = Cluster::start(programs, &cluster_dir.path().join(name)).await?;
        let pepper_file = dir.join(format!("{name}-pepper.toml"));
        seed(&Database::Postgres(cluster.url.clone()), &pepper_file, keys).await?;
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

/// Starts an authority without keys and one with keys, and reports the time and the memory that the keys cost.
fn report_start(store: &str, empty: &[&OsStr], full: &[&OsStr], effort: &Effort) -> Outcome {
    // The first start fills the page cache, as it is when a server restarts.
    drop(ServerProcess::claviger(full)?);
    let (empty, empty_took) = ServerProcess::claviger(empty)?;
    let (full, took) = ServerProcess::claviger(full)?;
    let cpu = full.cpu()?;
    std::thread::sleep(effort.idle);
    let memory = full.memory()? - empty.memory()?;
    println!(
        "{store}: ready after {:.2} s ({cpu:.2} s of processor time; without keys {:.2} s); {:.0} bytes of memory per key \
         (VmRSS after {} s without calls, minus that without keys)",
        took.as_secs_f64(),
        empty_took.as_secs_f64(),
        memory / number(effort.keys),
        effort.idle.as_secs(),
    );
    Ok(())
}

/// The flags of the server that answers most questions.
const USUAL: [&str; 4] = ["--verify-threads", "1", "--gateway", "nginx"];

/// The measured servers. Each answers on one thread, unless its name says otherwise.
struct Servers {
    stock_multi: ServerProcess,
    stock_current: ServerProcess,
    /// For all keys in turn, so that no other slice contains the writes of their usage.
    all_keys: ServerProcess,
    /// Like stock, with the allocator and the profile of claviger.
    tuned_multi: ServerProcess,
    tuned_current: ServerProcess,
    empty: ServerProcess,
    empty_whole: ServerProcess,
    claviger: ServerProcess,
    /// The same over TLS; the error if there is no certificate for it.
    over_tls: Result<ServerProcess, String>,
    two_threads: ServerProcess,
    not_counting: ServerProcess,
    store_read: ServerProcess,
    argon2: ServerProcess,
}

impl Servers {
    /// Starts all servers, each `claviger serve` on a copy of the same authority.
    fn start(dir: &Path, data: &Path) -> Result<Self, Box<dyn Error>> {
        let claviger = |data: &Path, flags: &[&str]| -> Result<_, Box<dyn Error>> {
            let flags = flags.iter().map(AsRef::as_ref);
            let flags: Vec<&OsStr> = in_dir(data).into_iter().chain(flags).collect();
            Ok(ServerProcess::claviger(&flags)?.0)
        };
        let [copy1, copy2, copy3, copy4] =
            ["copy1", "copy2", "copy3", "copy4"].map(|name| copy(data, &dir.join(name)));
        let (copy1, copy2, copy3, copy4) = (copy1?, copy2?, copy3?, copy4?);
        let on_both_runtimes = |program: PathBuf| -> Result<_, Box<dyn Error>> {
            let start = |runtime: &str| ServerProcess::start(&program, &[runtime.as_ref()]);
            Ok((start("multi-thread")?, start("current-thread")?))
        };
        let (stock_multi, stock_current) =
            on_both_runtimes(stock_program(&["--profile", "stock"])?)?;
        let tuned = ["--profile", "bench", "--features", "mimalloc"];
        let (tuned_multi, tuned_current) = on_both_runtimes(stock_program(&tuned)?)?;
        Ok(Self {
            stock_multi,
            stock_current,
            tuned_multi,
            tuned_current,
            empty: ServerProcess::reference(&["serve-empty".as_ref()])?,
            empty_whole: ServerProcess::reference(&["serve-whole".as_ref()])?,
            claviger: claviger(data, &USUAL)?,
            over_tls: tls::start(&copy4, dir).map_err(|error| error.to_string()),
            all_keys: claviger(&copy3, &["--verify-threads", "1"])?,
            two_threads: claviger(&copy1, &["--verify-threads", "2"])?,
            not_counting: claviger(&copy2, &["--verify-threads", "1", "--usage-interval", "0s"])?,
            store_read: ServerProcess::reference(&["serve-store-read".as_ref(), data.as_os_str()])?,
            argon2: ServerProcess::reference(&["serve-argon2".as_ref()])?,
        })
    }
}

async fn measure_verify(dir: &Path, data: &Path, seeded: &Seeded, effort: &Effort) -> Outcome {
    let kinds = Kinds::write(dir, seeded)?;
    let servers = Servers::start(dir, data)?;
    let claviger = &servers.claviger;
    check(claviger, seeded).await?;

    let subject =
        |name, server, questions, calls| Subject::new(name, server, seeded, questions, calls);
    let Effort { calls, rounds, .. } = *effort;
    let batches = Subject {
        keys_per_call: BATCH,
        ..subject(
            "VerifyBatch of 100, per key",
            claviger,
            kinds.batch.clone(),
            calls / BATCH,
        )
    };
    let nothing = |name, server| subject(name, server, kinds.hot.unanswered(), calls);
    let reference = || nothing("empty, stock tonic", &servers.stock_multi);
    let costs = measure_alternately(
        &reference(),
        &[
            // Against itself: its distance from 1.00 is the error of the other ratios.
            reference(),
            nothing("empty, stock tonic, current thread", &servers.stock_current),
            nothing(
                "empty, stock tonic, our allocator and profile",
                &servers.tuned_multi,
            ),
            nothing("the same, current thread", &servers.tuned_current),
            nothing("empty service of tonic on our transport", &servers.empty),
            nothing(
                "the same, answered whole without tonic",
                &servers.empty_whole,
            ),
            subject("Verify, 1,000 hot keys", claviger, kinds.hot.clone(), calls),
            subject(
                "Verify, all keys in turn",
                &servers.all_keys,
                kinds.all.clone(),
                calls,
            ),
            subject(
                "Verify, hot keys, two threads",
                &servers.two_threads,
                kinds.hot.clone(),
                calls,
            ),
            subject("revoked", claviger, kinds.revoked.clone(), calls),
            subject("unknown key", claviger, kinds.unknown.clone(), calls),
            subject("wrong secret", claviger, kinds.wrong_secret.clone(), calls),
            subject("bad checksum", claviger, kinds.bad_checksum.clone(), calls),
            subject("random bytes", claviger, kinds.random_bytes.clone(), calls),
            batches,
            subject(
                "VerifyStream, per key",
                claviger,
                kinds.stream.clone(),
                calls,
            ),
            subject(
                "Envoy's Check, 500 routes, 1,000 hot keys",
                claviger,
                kinds.check.clone(),
                calls,
            ),
            subject(
                "naive: a read of SQLite on each call",
                &servers.store_read,
                kinds.hot.clone(),
                calls / 10,
            ),
        ],
        rounds,
    )?;
    println!(
        "\nProcessor time of the server's process per call, user and system: medians of {rounds} slices of {} calls. Each slice\n\
         alternates with a slice of the empty handler, over 8 connections x 32 streams. The ratio of the empty handler to\n\
         itself shows the error of the ratios. Each call to claviger carries the gateway's own key, which is verified too, and\n\
         an allowed call returns the key's facts with three scopes and two labels. The naive servers do not check the caller.\n",
        grouped(calls)
    );
    report("x stock tonic", &costs);
    measure_long_slice(&servers, seeded, &kinds, effort)?;
    measure_argon2(&servers, seeded, &kinds, effort)?;
    measure_shapes(&servers, seeded, &kinds.hot, effort)?;
    measure_gateways(&servers, seeded, &kinds, effort)?;
    match &servers.over_tls {
        Ok(over_tls) => tls::measure(over_tls, claviger, seeded, &kinds, effort)?,
        Err(why) => println!("\nTLS: not measured: {why}"),
    }
    measure_counting(
        claviger,
        &servers.not_counting,
        seeded,
        [&kinds.hot, &kinds.all],
        effort,
    )
}

/// Measures all keys in turn for so long that usage is taken and written as often as in the long run.
fn measure_long_slice(
    servers: &Servers,
    seeded: &Seeded,
    kinds: &Kinds,
    effort: &Effort,
) -> Outcome {
    let subject =
        |name, server, questions, calls| Subject::new(name, server, seeded, questions, calls);
    let costs = measure_alternately(
        &subject(
            "",
            &servers.stock_multi,
            kinds.hot.unanswered(),
            effort.calls,
        ),
        &[subject(
            "Verify, all keys in turn, one long slice",
            &servers.all_keys,
            kinds.all.clone(),
            2 * effort.keys,
        )],
        1,
    )?;
    report("x stock tonic", &costs);
    Ok(())
}

/// Measures a server that computes Argon2 on each call.
fn measure_argon2(servers: &Servers, seeded: &Seeded, kinds: &Kinds, effort: &Effort) -> Outcome {
    // The Argon2 server has the root of a secret that no key has.
    let unproven = questions::Questions {
        answers_begin: kinds.wrong_secret.answers_begin.clone(),
        ..kinds.hot.clone()
    };
    let subject =
        |name, server, questions, calls| Subject::new(name, server, seeded, questions, calls);
    let Effort { calls, rounds, .. } = *effort;
    let costs = measure_alternately(
        &subject("", &servers.stock_multi, kinds.hot.unanswered(), calls),
        &[subject(
            "naive: Argon2 on each call",
            &servers.argon2,
            unproven,
            calls / 1_000,
        )],
        rounds.min(3),
    )?;
    report("x stock tonic", &costs);
    Ok(())
}

/// Measures Verify with few and with many calls in flight.
fn measure_shapes(servers: &Servers, seeded: &Seeded, hot: &Questions, effort: &Effort) -> Outcome {
    println!("\nThe same with other numbers of connections and of calls in flight on each.\n");
    for (name, connections, in_flight) in [
        ("Verify, hot keys, 1 x 1", 1, 1),
        ("Verify, hot keys, 8 x 32", 8, 32),
        ("Verify, hot keys, 64 x 4", 64, 4),
    ] {
        let subject = |name, server, questions| Subject {
            shape: Shape {
                connections,
                in_flight,
            },
            ..Subject::new(name, server, seeded, questions, effort.calls / 5)
        };
        let costs = measure_alternately(
            &subject("empty, stock tonic", &servers.stock_multi, hot.unanswered()),
            &[
                subject("empty, stock tonic", &servers.stock_multi, hot.unanswered()),
                subject(name, &servers.claviger, hot.clone()),
            ],
            effort.rounds,
        )?;
        report("x stock tonic", &costs);
    }
    Ok(())
}

/// Measures what gateways ask over their protocols. HTTP/1.1 has one request in flight on each connection, so gRPC has too.
fn measure_gateways(servers: &Servers, seeded: &Seeded, kinds: &Kinds, effort: &Effort) -> Outcome {
    println!(
        "\nWhole requests of gateways, 500 routes, over 64 connections with one call in flight.\n"
    );
    let subject = |name, questions: &Questions| Subject {
        shape: Shape {
            connections: 64,
            in_flight: 1,
        },
        ..Subject::new(
            name,
            &servers.claviger,
            seeded,
            questions.clone(),
            effort.calls / 5,
        )
    };
    let check = |name| subject(name, &kinds.check);
    let costs = measure_alternately(
        &check(""),
        &[
            check("Envoy's Check, against itself"),
            subject("forward-auth", &kinds.forward_auth),
        ],
        effort.rounds,
    )?;
    report("x Check", &costs);
    Ok(())
}

/// Measures the cost of counting usage: a server that counts and one that does not, on a copy of the same authority.
fn measure_counting(
    on: &ServerProcess,
    off: &ServerProcess,
    seeded: &Seeded,
    [hot, all]: [&Questions; 2],
    effort: &Effort,
) -> Outcome {
    let mut costs = Vec::new();
    for (name, questions) in [
        ("Verify, 1,000 hot keys", hot),
        ("Verify, all keys in turn", all),
    ] {
        let subject =
            |name, server| Subject::new(name, server, seeded, questions.clone(), effort.calls);
        let reference = || subject("the same, not counted, against itself", off);
        costs.extend(measure_alternately(
            &reference(),
            &[subject(name, on), reference()],
            effort.rounds,
        )?);
    }
    println!(
        "\nThe cost of counting usage: the same slices, alternating with those of a server that does not count\n\
         (--usage-interval 0s). The write every five seconds is part of the slice that runs at that time.\n"
    );
    report("x not counted", &costs);
    Ok(())
}

/// Prints the processor time of a call and its ratio to the reference, and the latencies that the load saw, in microseconds.
fn report<'c>(unit: &str, costs: impl IntoIterator<Item = &'c Costs>) {
    println!(
        "{:<46} {:>9} {unit:>13} {:>9} {:>9}",
        "", "µs of CPU", "p50", "p99"
    );
    for costs in costs {
        let Latencies { p50, p99 } = costs.latencies();
        println!(
            "{:<46} {:>9.2} {:>13.2} {p50:>9.0} {p99:>9.0}",
            costs.name,
            costs.microseconds(),
            costs.ratio(),
        );
    }
}

/// Copies the data directory of an authority that no server has open.
fn copy(data: &Path, to: &Path) -> io::Result<PathBuf> {
    fs::create_dir(to)?;
    for file in fs::read_dir(data)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(to.to_owned())
}

/// Checks one whole response, because the load checks only the first bytes of each.
async fn check(claviger: &ServerProcess, seeded: &Seeded) -> Outcome {
    let mut client = KeyVerifyClient::connect(format!("http://{}", claviger.address)).await?;
    let request = |key: &str| {
        let mut request = tonic::Request::new(question(key.to_owned()));
        request.set_timeout(Duration::from_secs(10));
        let bearer = format!("Bearer {}", seeded.gateway_key).parse();
        bearer.map(|bearer| {
            request.metadata_mut().insert("authorization", bearer);
            request
        })
    };
    let response = client
        .verify(request(&seeded.plain_keys[0])?)
        .await?
        .into_inner();
    let key = response.key.as_ref().ok_or("the first key is not proven")?;
    if response.verdict() != pb::Verdict::Allowed || key.scopes.len() != 3 || key.labels.len() != 2
    {
        return Err(format!("unexpected response: {response:?}").into());
    }
    Ok(())
}

/// Formats a number with commas.
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
