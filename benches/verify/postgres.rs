//! A PostgreSQL cluster for the benchmark, if the machine has the programs of PostgreSQL.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// The directory in which Debian installs the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A running cluster. Dropping it stops the cluster.
pub(crate) struct Cluster {
    server: Child,
    /// The URL of its one database.
    pub(crate) url: String,
}

/// The directory of the programs of the newest installed version.
pub(crate) fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let dirs = fs::read_dir(VERSIONS)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let programs = dirs.max_by_key(|dir| version(dir))?.join("bin");
    programs.join("initdb").is_file().then_some(programs)
}

/// A new directory that PostgreSQL's own user can enter.
pub(crate) fn dir() -> io::Result<TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("claviger-bench")
        .tempdir_in("/tmp")?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

impl Cluster {
    /// Creates and starts a cluster in a new directory.
    pub(crate) async fn start(programs: &Path, dir: &Path) -> Result<Self, Box<dyn Error>> {
        fs::create_dir(dir)?;
        let user = user()?;
        if let Some((uid, gid)) = user {
            chown(dir, Some(uid), Some(gid))?;
        }
        let data = dir.join("data");
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command
                .current_dir(dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let initialized = command("initdb")
            .args([
                "--username=claviger",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--pgdata",
            ])
            .arg(&data)
            .status()?;
        if !initialized.success() {
            return Err("initdb failed".into());
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let server = command("postgres")
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
            ])
            .args(["-c", &format!("port={port}")])
            .args(["-c", "max_wal_size=4GB"])
            .spawn()?;
        let cluster = Self {
            server,
            url: format!("postgres://claviger@127.0.0.1:{port}/postgres?sslmode=disable"),
        };
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    async fn wait_until_ready(&self) -> Result<(), Box<dyn Error>> {
        use sqlx::{Connection, PgConnection};
        for _ in 0..600 {
            if PgConnection::connect(&self.url).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("PostgreSQL does not start".into())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The user and group to run PostgreSQL as, because it refuses to run as root: Debian's `postgres`, or `None` if this process
/// does not run as root.
fn user() -> Result<Option<(u32, u32)>, Box<dyn Error>> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let postgres = users
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"));
    let mut ids = postgres
        .ok_or("there is no user postgres")?
        .split(':')
        .skip(1);
    let mut id = || -> Result<u32, Box<dyn Error>> { Ok(ids.next().ok_or("no id")?.parse()?) };
    Ok(Some((id()?, id()?)))
}
