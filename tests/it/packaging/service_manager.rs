//! The server under a service manager, which here is the test: it has the socket for notifications.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixtures::{DEADLINE, Engine, Program, TestStore, claviger, outcome, without_variables};
use crate::process::tool;

/// How often the watchdog expects a ping.
const WATCHDOG: Duration = Duration::from_millis(400);

/// The socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Self { socket, dir }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("notify")
    }

    /// The next message that comes within this time.
    fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    /// Waits for a message with this line, and returns the messages before it.
    fn until(&self, line: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let message = self.next(DEADLINE);
            let message = message.unwrap_or_else(|| panic!("{line} is told, after {before:?}"));
            if message.lines().any(|told| told == line) {
                return before;
            }
            before.push(message);
        }
    }

    /// Whether no message comes for as long as the watchdog would need to notice.
    fn is_silent(&self) -> bool {
        // What was sent before the silence began.
        let began = Instant::now();
        while began.elapsed() < WATCHDOG {
            let _ = self.next(WATCHDOG);
        }
        self.next(2 * WATCHDOG).is_none()
    }
}

/// The server as systemd starts it.
fn serve(test_store: &TestStore, manager: &Manager, flags: &[&str]) -> Command {
    let mut command = claviger(&["serve", "--init"]);
    command
        .args(test_store.flags())
        .args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .args(["--argon2-memory", "8", "--argon2-passes", "1"])
        .args(flags)
        .env("NOTIFY_SOCKET", manager.path())
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    command
}

/// Stops threads of a process, by the name of the threads, until standard input ends.
const FREEZE: &str = "import ctypes, os, sys
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long] * 4
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
pid, name = sys.argv[1:]
frozen = 0
for thread in os.listdir(f'/proc/{pid}/task'):
    if open(f'/proc/{pid}/task/{thread}/comm').read().strip() == name:
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            if ptrace(request, int(thread), 0, 0):
                sys.exit(os.strerror(ctypes.get_errno()))
        frozen += 1
print(frozen, flush=True)
sys.stdin.read()
";

fn freeze(program: &Program, thread: &str) -> Child {
    use std::io::{BufRead, BufReader};
    let mut python = Command::new(tool("python"));
    let mut child = without_variables(&mut python)
        .args(["-c", FREEZE, &program.id().to_string(), thread])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut frozen = String::new();
    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
    stdout.read_line(&mut frozen).unwrap();
    let frozen: usize = frozen.trim().parse().expect("the number of threads");
    assert!(frozen > 0, "{thread}");
    child
}

/// Seen red with pings that ask no thread, with each kind of thread left out of those that are asked, and without the reports of
/// the readiness.
#[test]
fn systemd_is_told_of_readiness_life_and_stop() {
    let test_store = TestStore::on(Engine::Sqlite);
    let manager = Manager::new();
    let mut command = serve(&test_store, &manager, &["--drain-delay", "1s"]);
    let mut program = Program::start(&mut command, test_store.data());
    let before = manager.until("READY=1");
    assert!(before[0].starts_with("STATUS=starting"), "{before:?}");
    let check = outcome(&mut claviger(&[
        "healthcheck",
        "--endpoint",
        &program.address,
    ]));
    assert_eq!(check.status.code(), Some(0), "it answers when it is ready");
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");

    // Other users may not trace a process that is not their child.
    if rustix::process::geteuid().is_root() {
        for thread in ["verify-0", "feed", "heartbeat", "tokio-rt-worker"] {
            let mut freezer = freeze(&program, thread);
            assert!(manager.is_silent(), "with {thread} frozen");
            drop(freezer.stdin.take());
            freezer.wait().unwrap();
            manager.until("WATCHDOG=1");
        }
        let log = program.log.lock().unwrap();
        let log = String::from_utf8_lossy(&log);
        assert!(log.contains(r#""thread":"feed""#), "{log}");
    } else {
        eprintln!("not root: whether a thread that hangs stops the pings is not tested");
    }

    program.signal("TERM");
    manager.until("STOPPING=1");
    // The drain may take long.
    manager.until("WATCHDOG=1");
    assert!(program.wait().success());
}

/// Seen red without a look at `WATCHDOG_PID`.
#[test]
fn the_watchdog_of_another_process_is_not_pinged() {
    let test_store = TestStore::on(Engine::Sqlite);
    let manager = Manager::new();
    let mut command = serve(&test_store, &manager, &[]);
    command.env("WATCHDOG_PID", "1");
    let _program = Program::start(&mut command, test_store.data());
    manager.until("READY=1");
    assert!(manager.is_silent());
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    let test_store = TestStore::on(Engine::Sqlite);
    let manager = Manager::new();
    let mut command = serve(&test_store, &manager, &["--drain-delay", "0s"]);
    std::fs::remove_file(manager.path()).unwrap();
    let mut program = Program::start(&mut command, test_store.data());
    assert!(Path::new(&test_store.data()).exists());
    program.signal("TERM");
    assert!(program.wait().success());
    let log = program.log.lock().unwrap();
    assert!(String::from_utf8_lossy(&log).contains("NOTIFY_SOCKET"));
}
