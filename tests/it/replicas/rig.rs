//! Several servers on one database, each with a network of its own to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::history::Server;
use crate::fixtures::{Api, DEADLINE, Database, Program, Proxy, claviger, outcome};

/// Where a server listens first. Clients connect from 127.0.0.1, so none of them takes the port while its server is down, not even
/// by a connection to itself.
const ANY_PORTS: [&str; 2] = ["127.0.0.2:0"; 2];

/// Several servers of one authority.
pub(super) struct Rig {
    pub(super) database: Arc<Database>,
    /// The length of the leases.
    pub(super) lease: Duration,
    pub(super) replicas: Vec<Arc<Replica>>,
    _dir: TempDir,
}

/// A server that can be ended and started again.
pub(super) struct Replica {
    pub(super) number: usize,
    /// What lies between it and the database.
    pub(super) network: Proxy,
    line: Vec<String>,
    dir: PathBuf,
    operator: Mutex<String>,
    /// What serves now, unless it was killed.
    program: Mutex<Option<Program>>,
    /// Which run this is, and how it is called.
    called: RwLock<(Server, Option<Api>)>,
    /// What earlier runs have logged.
    logged: Mutex<Vec<u8>>,
}

impl Rig {
    /// So many servers on a database, with the realm `demo` and leases of this length.
    pub(super) async fn start(database: Arc<Database>, count: usize, lease: Duration) -> Arc<Self> {
        Self::start_with(database, count, lease, &[]).await
    }

    /// The same with more flags of `serve`.
    pub(super) async fn start_with(
        database: Arc<Database>,
        count: usize,
        lease: Duration,
        flags: &[&str],
    ) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut replicas = Vec::new();
        for number in 0..count {
            let replica = Replica::new(number, &database, dir.path(), flags).await;
            replicas.push(Arc::new(replica));
        }
        let first = &replicas[0];
        first.serve(&["--init"]).unwrap();
        let operator = first.program.lock().unwrap().as_ref().unwrap().operator();
        for replica in &replicas {
            replica.operator.lock().unwrap().clone_from(&operator);
        }
        first.call_as_operator();
        first.api().1.make_demo().await;
        first.set_lease(lease);
        // No lease is left from before, because no server is, so nobody has to wait until the longest of them has lapsed.
        first.kill();
        database.execute("DELETE FROM replicas; UPDATE authority SET longest_lease = lease");
        for replica in &replicas {
            replica.serve(&[]).unwrap();
            replica.call_as_operator();
        }
        Arc::new(Self {
            database,
            lease,
            replicas,
            _dir: dir,
        })
    }

    /// How long after its acknowledgement a revocation may still be out of force somewhere. A waiter adds a second, for machines that
    /// are paused without their knowledge; no machine is here.
    pub(super) fn bound(&self) -> Duration {
        self.lease + self.lease / 50
    }

    /// How long a server may still say "allowed" at least when the database goes away. A lease counts from the last heartbeat, which is
    /// sent every second, or ten times in a lease if that is more often.
    pub(super) fn shortest_lease(&self) -> Duration {
        let interval = (self.lease / 10).min(Duration::from_secs(1));
        self.lease.saturating_sub(interval)
    }

    /// How long somebody waits who hears nothing of a server: the bound, and a second.
    pub(super) fn longest_wait(&self) -> Duration {
        self.bound() + Duration::from_secs(1)
    }
}

/// Leaves what was logged in a directory, if one is named, for whoever looks for the cause of a failure.
impl Drop for Rig {
    fn drop(&mut self) {
        let Some(dir) = std::env::var_os("CLAVIGER_TEST_LOGS").map(PathBuf::from) else {
            return;
        };
        let _ = std::fs::create_dir_all(&dir);
        for replica in &self.replicas {
            replica.keep_log();
            let log = replica.logged.lock();
            let log = log.unwrap_or_else(PoisonError::into_inner);
            let _ = std::fs::write(dir.join(&replica.line[1]), &*log);
        }
        let _ = std::fs::write(dir.join("database"), self.database.cluster.log());
    }
}

impl Replica {
    async fn new(number: usize, database: &Database, dir: &Path, flags: &[&str]) -> Self {
        let network = Proxy::to(database.cluster.socket()).await;
        let name = format!("replica-{number}");
        let data = dir.join(&name);
        let pepper = dir.join("pepper.toml");
        let url = database.url_at(network.address);
        let mut line = vec!["--replica-name".to_owned(), name];
        let mut flag = |name: &str, value: &str| line.extend([name.to_owned(), value.to_owned()]);
        flag("--data-dir", data.to_str().unwrap());
        flag("--pepper-file", pepper.to_str().unwrap());
        flag("--database-url", &url);
        if !flags.contains(&"--database-timeout") {
            flag("--database-timeout", "1s");
        }
        flag("--argon2-memory", "8");
        flag("--argon2-passes", "1");
        flag("--log", "error,claviger=info");
        line.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let server = Server {
            replica: number,
            restarts: 0,
        };
        Self {
            number,
            network,
            line,
            dir: data,
            operator: Mutex::default(),
            program: Mutex::default(),
            called: RwLock::new((server, None)),
            logged: Mutex::default(),
        }
    }

    fn command(&self, [grpc, http]: [&str; 2], flags: &[&str]) -> Command {
        let mut line = vec!["serve", "--listen", grpc, "--http-listen", http];
        line.extend(self.line.iter().map(String::as_str));
        line.extend(flags);
        claviger(&line)
    }

    /// Starts it, and waits until it answers.
    fn serve(&self, flags: &[&str]) -> Result<(), String> {
        self.serve_at(ANY_PORTS, flags)
    }

    fn serve_at(&self, addresses: [&str; 2], flags: &[&str]) -> Result<(), String> {
        let program = Program::try_start(&mut self.command(addresses, flags), self.dir.clone())?;
        *self.program.lock().unwrap() = Some(program);
        Ok(())
    }

    fn call_as_operator(&self) {
        let program = self.program.lock().unwrap();
        let address = &program.as_ref().unwrap().address;
        let api = Api::new(address, &self.operator.lock().unwrap());
        self.called.write().unwrap().1 = Some(api);
    }

    /// The server that runs now, and its API with the operator's key.
    pub(super) fn api(&self) -> (Server, Api) {
        let called = self.called.read().unwrap();
        (called.0, called.1.clone().expect("it was started"))
    }

    /// Where it listens now, for gRPC and for HTTP.
    pub(super) fn addresses(&self) -> [String; 2] {
        let program = self.program.lock().unwrap();
        let program = program.as_ref().expect("it runs");
        [program.address.clone(), program.http.clone()]
    }

    /// The operator's key.
    pub(super) fn operator(&self) -> String {
        self.operator.lock().unwrap().clone()
    }

    /// Stops it as a supervisor would, and starts it where it was.
    pub(super) fn restart(&self) {
        let addresses = self.addresses();
        self.signal("TERM");
        let mut ended = self.program.lock().unwrap().take().expect("it runs");
        assert!(ended.wait().success());
        self.logged
            .lock()
            .unwrap()
            .extend_from_slice(&ended.log.lock().unwrap());
        self.start_at(&addresses);
    }

    /// Sends it a signal by its name, such as STOP.
    pub(super) fn signal(&self, name: &str) {
        let program = self.program.lock().unwrap();
        program.as_ref().expect("it runs").signal(name);
    }

    /// Kills it at once.
    pub(super) fn kill(&self) {
        self.keep_log();
        let ended = self.program.lock().unwrap().take();
        drop(ended.expect("it runs"));
    }

    /// Starts it again, as often as that fails, which it does while the database is away.
    pub(super) fn start_again(&self) {
        self.start_at(&ANY_PORTS.map(str::to_owned));
    }

    /// The same at these addresses, for gRPC and for HTTP.
    pub(super) fn start_at(&self, [grpc, http]: &[String; 2]) {
        let deadline = Instant::now() + DEADLINE;
        while let Err(log) = self.serve_at([grpc, http], &[]) {
            self.logged
                .lock()
                .unwrap()
                .extend_from_slice(log.as_bytes());
            assert!(Instant::now() < deadline, "it cannot start again:\n{log}");
        }
        self.called.write().unwrap().0.restarts += 1;
        self.call_as_operator();
    }

    fn keep_log(&self) {
        let program = self.program.lock();
        if let Some(program) = &*program.unwrap_or_else(PoisonError::into_inner) {
            let logged = self.logged.lock();
            let mut logged = logged.unwrap_or_else(PoisonError::into_inner);
            logged.extend_from_slice(&program.log.lock().unwrap());
        }
    }

    fn set_lease(&self, lease: Duration) {
        let endpoint = {
            let program = self.program.lock().unwrap();
            format!("http://{}", program.as_ref().unwrap().address)
        };
        let lease = format!("{}s", lease.as_secs());
        let mut command = claviger(&["replicas", "set-lease", &lease, "--endpoint", &endpoint]);
        command.env("CLAVIGER_KEY", &*self.operator.lock().unwrap());
        let output = outcome(&mut command);
        assert!(output.status.success(), "{output:?}");
    }
}
