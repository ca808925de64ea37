//! What the other servers of a database cost a Verify: the same calls to a server alone, and beside another one that joins or imports.
//!
//! The Verify threads of the server have one core. Everything else has the other: the rest of the server, the other server, PostgreSQL
//! and the clients. The same server on the embedded database is measured beside it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::sched_setaffinity;

use super::clients::{AdminCall, AdminLoad, Administered, Client, WARM_UP};
use super::{
    ADMIN_CALLS, Cores, IMPORT_KEYS, IMPORTS, Outcome, Running, Server, Slice, import_file,
    report_pairs, write_imports,
};
use crate::postgres::{self, Cluster};
use crate::seed::{Database, Seeded, seed};
use crate::servers::ServerProcess;
use crate::slices::median;

/// Between two looks at the lease.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The flags of each server of the database. Each server has its own name.
struct Servers<'d> {
    database_url: &'d str,
    pepper_file: &'d Path,
    started: AtomicU32,
}

impl Servers<'_> {
    fn flags(&self) -> Vec<OsString> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("server-{number}");
        let pairs: [(&str, &OsStr); 3] = [
            ("--database-url", self.database_url.as_ref()),
            ("--pepper-file", self.pepper_file.as_ref()),
            ("--replica-name", name.as_ref()),
        ];
        let flags = pairs
            .into_iter()
            .flat_map(|(flag, value)| [flag.into(), value.to_owned()]);
        flags.collect()
    }

    fn start(&self, cores: &Cores) -> Outcome<Server> {
        let flags = self.flags();
        let flags: Vec<_> = flags.iter().map(AsRef::as_ref).collect();
        let server = Server::start_with(&flags, cores)?;
        // A server that has loaded its keys has no lease yet.
        while lease_left(&server.process)?.is_zero() {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(server)
    }

    /// Starts another server, whose threads have the core of everything else. Returns it and the time until its keys are loaded.
    fn join(&self) -> Outcome<(ServerProcess, Duration)> {
        let flags = self.flags();
        let flags: Vec<_> = flags.iter().map(AsRef::as_ref).collect();
        ServerProcess::claviger(&flags)
    }
}

/// What the server's metrics say about its lease.
fn lease_left(server: &ServerProcess) -> Outcome<Duration> {
    let mut connection = TcpStream::connect(&server.http_address)?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut metrics = String::new();
    connection.read_to_string(&mut metrics)?;
    let name = "claviger_lease_left_seconds ";
    let left = metrics.lines().find_map(|line| line.strip_prefix(name));
    let left = left.ok_or("no lease in the metrics")?.parse()?;
    Ok(Duration::from_secs_f64(left))
}

/// Measures Verify at one of the servers.
pub(crate) async fn measure(keys: usize, quick: bool) -> Outcome<()> {
    let (rounds, time) = if quick {
        (1, Duration::from_millis(500))
    } else {
        (3, Duration::from_secs(10))
    };
    let programs = postgres::programs().ok_or(
        "PostgreSQL is not installed (apt-get install --no-install-recommends postgresql)",
    )?;
    let cores = Cores::of_this_process()?;
    // The children inherit it.
    sched_setaffinity(None, &cores.others)?;
    let dir = tempfile::tempdir()?;
    let cluster_dir = postgres::dir()?;
    let cluster = Cluster::start(&programs, &cluster_dir.path().join("cluster")).await?;
    let pepper_file = dir.path().join("pepper.toml");
    let seeded = seed(&Database::Postgres(cluster.url.clone()), &pepper_file, keys).await?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    let embedded = Database::Sqlite(data.join("claviger.db"));
    let seeded_embedded = seed(&embedded, &data.join("pepper.toml"), keys).await?;
    let servers = Servers {
        database_url: &cluster.url,
        pepper_file: &pepper_file,
        started: AtomicU32::new(0),
    };
    let mut pairs: [Vec<(Slice, Slice)>; 4] = Default::default();
    let (mut joins, mut shortest) = (Vec::new(), Duration::MAX);
    for round in 0..rounds {
        write_imports(dir.path(), round)?;
        {
            let embedded = Server::start(&data, &cores)?;
            let idle = embedded.slice(&seeded_embedded, time)?;
            drop(embedded);
            let server = servers.start(&cores)?;
            pairs[0].push((idle, server.slice(&seeded, time)?));
        }
        let server = servers.start(&cores)?;
        let idle = server.slice(&seeded, time)?;
        pairs[1].push((idle, server.slice(&seeded, time)?));

        let is_over = AtomicBool::new(false);
        let (beside, took, left) = std::thread::scope(|scope| -> Outcome<_> {
            let joining = scope.spawn(|| {
                let mut took = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let joined = servers.join().map_err(|error| error.to_string())?;
                    took.push(joined.1.as_secs_f64());
                }
                Ok::<_, String>(took)
            });
            let watching = scope.spawn(|| {
                let mut shortest = Duration::MAX;
                while !is_over.load(Ordering::Relaxed) {
                    let left = lease_left(&server.process).map_err(|error| error.to_string())?;
                    shortest = shortest.min(left);
                    std::thread::sleep(LOOK_EVERY);
                }
                Ok::<_, String>(shortest)
            });
            let beside = server.slice(&seeded, time);
            is_over.store(true, Ordering::Relaxed);
            let took = joining.join().map_err(|_| "a join failed")??;
            let left = watching.join().map_err(|_| "no lease")??;
            Ok((beside?, took, left))
        })?;
        pairs[2].push((idle, beside));
        joins.extend(took);
        shortest = shortest.min(left);

        let (other, _) = servers.join()?;
        pairs[3].push((
            idle,
            beside_imports(&server, &other, &seeded, dir.path(), time)?,
        ));
    }
    println!(
        "Verify at one of the servers of a PostgreSQL database with {keys} keys: medians of {rounds} pairs of slices of {} s. In the first\n\
         row the idle server is one with the embedded database, in the others one without other servers at work.\n",
        time.as_secs_f64()
    );
    let names = [
        "PostgreSQL, not the embedded one",
        "nothing",
        "another server joins",
        "another server imports",
    ];
    let rows = names.into_iter().zip(pairs.iter().map(Vec::as_slice));
    report_pairs(rows);
    println!(
        "\n{} servers joined, each in {:.1} s (median); the shortest lease left meanwhile was {shortest:.1?}",
        joins.len(),
        median(&joins)
    );
    Ok(())
}

/// Verifies at a server while keys are imported at another.
fn beside_imports(
    server: &Server,
    other: &ServerProcess,
    seeded: &Seeded,
    dir: &Path,
    time: Duration,
) -> Outcome<Slice> {
    let imports = (0..IMPORTS).map(|import| AdminCall {
        method: IMPORT_KEYS.to_owned(),
        bearer: Some(seeded.operator_key.clone()),
        message: dir.join(import_file(import)),
    });
    let load = AdminLoad {
        address: other.address.clone(),
        lists: vec![imports.collect(); ADMIN_CALLS],
        connections: 1,
    };
    let administrators = Running::start(Client::Administer, &load)?;
    std::thread::sleep(WARM_UP);
    let beside = server.slice(seeded, time)?;
    let _: Administered = administrators.stop()?;
    Ok(beside)
}
