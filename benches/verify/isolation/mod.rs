//! What administration costs a Verify: the same calls to an idle server and beside expensive administration.
//!
//! The Verify threads of the server have one core. Its other threads and both clients have another. One client verifies. The other
//! administers without a pause, over one connection with a key and one without. A server is started for each pair of slices, so
//! that nothing of an earlier administration is still in progress.

mod clients;
mod replicas;
mod starve;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use claviger::pb::claviger::v1 as pb;
use clients::{
    AdminCall, AdminLoad, Administered, Measured, VERIFY_CONNECTIONS, VerifyLoad, WARM_UP,
};
pub(crate) use clients::{Client, run};
use pb::import_entry::Secret;
use pb::realm_admin_client::RealmAdminClient;
use prost::Message;
pub(crate) use replicas::measure as measure_replicas;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
pub(crate) use starve::measure as measure_starvation;

use crate::seed::{Database, Seeded, seed};
use crate::servers::{ServerProcess, in_dir};
use crate::slices::{median, number};

/// The number of calls of one kind of administration that are in progress, so that the server has the next one at once.
const ADMIN_CALLS: usize = 2;

/// The number of API keys that are verified in turn.
const HOT: usize = 1_000;

/// The largest message that the admin services accept, in bytes.
const LARGEST_MESSAGE: usize = 1024 * 1024;

/// The most entries that an import may have, and the most events that a page may have.
const MOST: u32 = 1_000;

/// The number of imports that are prepared for a slice. When all were made, they are repeated.
const IMPORTS: u32 = 4;

const VERIFY_BATCH: &str = "KeyVerify/VerifyBatch";
const PUT_REALM: &str = "RealmAdmin/PutRealm";
const IMPORT_KEYS: &str = "KeyAdmin/ImportKeys";
const LIST_EVENTS: &str = "KeyAdmin/ListEvents";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The results of a slice.
#[derive(Clone, Copy)]
struct Slice {
    /// The number of Verify calls per second of processor time of the Verify threads.
    rate: f64,
    p50: f64,
    p99: f64,
}

/// The results of one kind of administration: pairs of an idle slice and one beside it.
struct Row {
    name: &'static str,
    lists: Vec<Vec<AdminCall>>,
    pairs: Vec<(Slice, Slice)>,
    administered: Administered,
    seconds: f64,
}

/// Measures each kind of administration, and all kinds together.
pub(crate) async fn measure(keys: usize, quick: bool) -> Outcome<()> {
    let (rounds, time) = if quick {
        (1, Duration::from_millis(500))
    } else {
        (5, Duration::from_secs(2))
    };
    let cores = Cores::of_this_process()?;
    // The children inherit it.
    sched_setaffinity(None, &cores.others)?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    let database = Database::Sqlite(data.join("claviger.db"));
    let seeded = seed(&database, &data.join("pepper.toml"), keys).await?;
    let server = Server::start(&data, &cores)?;
    let mut rows = rows(dir.path(), &server.process.address, &seeded).await?;
    drop(server);
    for round in 0..rounds {
        for row in &mut rows {
            write_imports(dir.path(), round)?;
            let server = Server::start(&data, &cores)?;
            let pair = row.measure(&server, &seeded, time);
            pair.map_err(|error| format!("{}: {error}", row.name))?;
        }
    }
    println!(
        "Verify beside administration: medians of {rounds} pairs of slices, idle and beside the administration, of {} s. The calls per\n\
         second are those per second of processor time of the Verify threads. The latency is that of {VERIFY_CONNECTIONS} connections\n\
         with one call in progress. It contains the time for which the clients wait for their core, which they share with each other and\n\
         with the administration.\n",
        time.as_secs_f64()
    );
    report(&rows);
    Ok(())
}

fn report(rows: &[Row]) {
    report_pairs(rows.iter().map(|row| (row.name, row.pairs.as_slice())));
    println!("\nAnswers to the administration per second, by method and gRPC status:");
    for row in rows {
        let rates = row
            .administered
            .iter()
            .map(|(answer, &count)| format!("{answer} {:.1}", number(count) / row.seconds));
        println!("{:<34} {}", row.name, rates.collect::<Vec<_>>().join(", "));
    }
}

/// Prints the medians of pairs of slices, idle and beside something.
fn report_pairs<'r>(rows: impl Iterator<Item = (&'r str, &'r [(Slice, Slice)])>) {
    println!(
        "{:<34} {:>21} {:>21} {:>21}",
        "", "calls/s: idle x", "p50: idle, us x", "p99: idle, us x"
    );
    for (name, pairs) in rows {
        let column = |value: fn(&Slice) -> f64| {
            let idle: Vec<f64> = pairs.iter().map(|(idle, _)| value(idle)).collect();
            let ratios = pairs
                .iter()
                .map(|(idle, beside)| value(beside) / value(idle));
            (median(&idle), median(&ratios.collect::<Vec<_>>()))
        };
        let (rate, rate_ratio) = column(|slice| slice.rate);
        let (p50, p50_ratio) = column(|slice| slice.p50);
        let (p99, p99_ratio) = column(|slice| slice.p99);
        println!(
            "{name:<34} {rate:>14.0} {rate_ratio:>6.2} {p50:>14.0} {p50_ratio:>6.2} {p99:>14.0} {p99_ratio:>6.2}"
        );
    }
}

impl Row {
    fn measure(&mut self, server: &Server, seeded: &Seeded, time: Duration) -> Outcome<()> {
        let idle = server.slice(seeded, time)?;
        let began = Instant::now();
        let load = AdminLoad {
            address: server.process.address.clone(),
            lists: self.lists.clone(),
            connections: 1,
        };
        let administrators = Running::start(Client::Administer, &load)?;
        std::thread::sleep(WARM_UP);
        let beside = server.slice(seeded, time)?;
        let administered: Administered = administrators.stop()?;
        self.seconds += began.elapsed().as_secs_f64();
        for (answer, count) in administered {
            *self.administered.entry(answer).or_default() += count;
        }
        self.pairs.push((idle, beside));
        Ok(())
    }
}

/// Writes the messages of all kinds of administration into a directory.
async fn rows(dir: &Path, address: &str, seeded: &Seeded) -> Outcome<Vec<Row>> {
    let operator = Some(seeded.operator_key.clone());
    let call = |method: &str, name: &str, message: Option<Vec<u8>>| -> io::Result<AdminCall> {
        let path = dir.join(name);
        if let Some(message) = message {
            fs::write(&path, message)?;
        }
        Ok(AdminCall {
            method: method.to_owned(),
            bearer: operator.clone(),
            message: path,
        })
    };
    let [deep, wide] = largest_realms(address, &seeded.operator_key).await?;
    let realms = vec![
        call(PUT_REALM, "deep", Some(put(deep)))?,
        call(PUT_REALM, "wide", Some(put(wide)))?,
    ];
    let imports = (0..IMPORTS)
        .map(|import| call(IMPORT_KEYS, &import_file(import), None))
        .collect::<io::Result<Vec<_>>>()?;
    let page = pb::ListEventsRequest {
        page_size: MOST as i32,
        ..Default::default()
    };
    let events = vec![call(LIST_EVENTS, "events", Some(page.encode_to_vec()))?];
    // An empty entry is two bytes, and what is around the routes is at most eight.
    let routes = put(pb::Realm {
        routes: vec![pb::Route::default(); LARGEST_MESSAGE / 2 - 4],
        ..Default::default()
    });
    let entries = pb::ImportKeysRequest {
        entries: vec![pb::ImportEntry::default(); LARGEST_MESSAGE / 2],
        ..Default::default()
    };
    let questions = pb::VerifyBatchRequest {
        requests: vec![pb::VerifyRequest::default(); LARGEST_MESSAGE / 2],
    };
    let malformed = vec![
        call(PUT_REALM, "empty-routes", Some(routes))?,
        call(IMPORT_KEYS, "empty-entries", Some(entries.encode_to_vec()))?,
        call(
            VERIFY_BATCH,
            "empty-questions",
            Some(questions.encode_to_vec()),
        )?,
        // The tag of a field with the number 0, which no message has.
        call(PUT_REALM, "no-message", Some(vec![0; LARGEST_MESSAGE]))?,
    ];
    let kinds = [realms, imports, events, malformed];
    let mut without_a_key = kinds.concat();
    for call in &mut without_a_key {
        call.bearer = None;
    }
    let mut all = kinds.to_vec();
    all.push(without_a_key.clone());
    let [realms, imports, events, malformed] = kinds;
    let row = |name, lists| Row {
        name,
        lists,
        pairs: Vec::new(),
        administered: BTreeMap::new(),
        seconds: 0.0,
    };
    let one = |name, list: Vec<AdminCall>| row(name, vec![list; ADMIN_CALLS]);
    Ok(vec![
        // Against itself: its distance from 1.00 is the error of the other ratios.
        row("nothing", Vec::new()),
        one("PutRealm, largest", realms),
        one("ImportKeys, 1,000 entries of 1 KB", imports),
        one("ListEvents, 1,000 on a page", events),
        one("malformed bodies of 1 MiB", malformed),
        one("all of these without a key", without_a_key),
        row("everything at the same time", all),
    ])
}

/// The realm `demo` with the two largest tables of routes: 500 of 32 segments, and 1,000 of 16 segments.
async fn largest_realms(address: &str, operator: &str) -> Outcome<[pb::Realm; 2]> {
    let mut client = RealmAdminClient::connect(format!("http://{address}")).await?;
    let mut request = tonic::Request::new(pb::GetRealmRequest {
        realm_id: "demo".to_owned(),
    });
    let bearer = format!("Bearer {operator}").parse()?;
    request.metadata_mut().insert("authorization", bearer);
    let demo = client.get_realm(request).await?.into_inner().realm;
    let demo = demo.ok_or("no realm")?;
    Ok([(500, 32), (1_000, 16)].map(|(routes, segments)| {
        let route = |route| pb::Route {
            path: (0..segments)
                .map(|segment| format!("/s{route}-{segment}"))
                .collect::<Vec<_>>()
                .concat(),
            scopes: vec!["read".to_owned()],
            ..Default::default()
        };
        pb::Realm {
            routes: (0..routes).map(route).collect(),
            ..demo.clone()
        }
    }))
}

fn put(realm: pb::Realm) -> Vec<u8> {
    let request = pb::PutRealmRequest {
        realm: Some(realm),
        ..Default::default()
    };
    request.encode_to_vec()
}

fn import_file(import: u32) -> String {
    format!("import-{import}")
}

/// Writes imports of keys that no other round has.
fn write_imports(dir: &Path, round: u32) -> io::Result<()> {
    for import in 0..IMPORTS {
        let entry = |entry: u32| {
            let seed = [round, import, entry].map(u32::to_be_bytes).concat();
            let hash: [u8; 32] = Sha256::digest(seed).into();
            let labels = (0..3).map(|label| (format!("label-{label}"), "x".repeat(256)));
            pb::ImportEntry {
                secret: Some(Secret::Sha256(
                    hash.map(|byte| format!("{byte:02x}")).concat(),
                )),
                partner: "partner-0".to_owned(),
                level: pb::KeyLevel::Partner.into(),
                environment: "production".to_owned(),
                scopes: vec!["write".to_owned()],
                labels: labels.collect(),
                ..Default::default()
            }
        };
        let request = pb::ImportKeysRequest {
            realm: "demo".to_owned(),
            entries: (0..MOST).map(entry).collect(),
            ..Default::default()
        };
        assert!(request.encoded_len() <= LARGEST_MESSAGE);
        fs::write(dir.join(import_file(import)), request.encode_to_vec())?;
    }
    Ok(())
}

/// Two cores: one for the Verify threads, and one for everything else.
struct Cores {
    verify: CpuSet,
    others: CpuSet,
}

impl Cores {
    fn of_this_process() -> Outcome<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let mut core = || -> Outcome<CpuSet> {
            let mut set = CpuSet::new();
            set.set(cores.next().ok_or("two cores are needed")?);
            Ok(set)
        };
        Ok(Self {
            verify: core()?,
            others: core()?,
        })
    }
}

/// A server whose Verify threads have a core of their own.
struct Server {
    process: ServerProcess,
    verify_threads: Vec<PathBuf>,
}

impl Server {
    fn start(data: &Path, cores: &Cores) -> Outcome<Self> {
        Self::start_with(&in_dir(data), cores)
    }

    /// Starts `claviger serve` with these flags.
    fn start_with(flags: &[&OsStr], cores: &Cores) -> Outcome<Self> {
        let one_thread = ["--verify-threads".as_ref(), "1".as_ref()];
        let flags: Vec<_> = flags.iter().copied().chain(one_thread).collect();
        let (process, _) = ServerProcess::claviger(&flags)?;
        let mut verify_threads = Vec::new();
        for thread in fs::read_dir(format!("/proc/{}/task", process.id()))? {
            let thread = thread?;
            // All other threads have inherited the other core.
            if fs::read_to_string(thread.path().join("comm"))?.starts_with("verify-") {
                let id = thread.file_name().to_string_lossy().parse()?;
                sched_setaffinity(Pid::from_raw(id), &cores.verify)?;
                verify_threads.push(thread.path().join("schedstat"));
            }
        }
        if verify_threads.len() != 1 {
            return Err(format!("{} Verify threads", verify_threads.len()).into());
        }
        Ok(Self {
            process,
            verify_threads,
        })
    }

    /// The processor time of the Verify threads so far, in seconds.
    fn verify_cpu(&self) -> Outcome<f64> {
        let mut nanoseconds = 0.0;
        for file in &self.verify_threads {
            let stat = fs::read_to_string(file)?;
            nanoseconds += stat.split(' ').next().unwrap_or_default().parse::<f64>()?;
        }
        Ok(nanoseconds / 1e9)
    }

    /// Starts a client that verifies for this time.
    fn gateway(&self, seeded: &Seeded, time: Duration) -> Outcome<Running> {
        let load = VerifyLoad {
            address: self.process.address.clone(),
            bearer: seeded.gateway_key.clone(),
            plain_keys: seeded.plain_keys.iter().take(HOT).cloned().collect(),
            time,
        };
        Running::start(Client::Verify, &load)
    }

    /// Verifies for this time. A call that fails is an error.
    fn slice(&self, seeded: &Seeded, time: Duration) -> Outcome<Slice> {
        let before = self.verify_cpu()?;
        let verified: Measured = self.gateway(seeded, time)?.stop()?;
        let used = self.verify_cpu()? - before;
        Ok(Slice {
            rate: number(verified.calls) / used,
            p50: verified.p50,
            p99: verified.p99,
        })
    }
}

/// A running client. Dropping it kills the process.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(client: Client, load: &impl Serialize) -> Outcome<Self> {
        let name = client.to_possible_value().ok_or("no name")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["isolation-client", name.get_name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut running = Self { child, output };
        let mut line = serde_json::to_vec(load)?;
        line.push(b'\n');
        let input = running.child.stdin.as_mut().ok_or("no input")?;
        input.write_all(&line)?;
        Ok(running)
    }

    /// Ends the input of the client, and waits for its result.
    fn stop<R: DeserializeOwned>(mut self) -> Outcome<R> {
        self.child.stdin = None;
        let mut result = String::new();
        self.output.read_to_string(&mut result)?;
        Ok(serde_json::from_str(&result).map_err(|_| "a client has failed")?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
