//! Where the authority's data is, and how it is opened.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueHint};

use super::parse::interval;
use crate::hashing::RootCost;
use crate::store::DatabaseUrls;

/// The location of the database.
#[derive(Args, Clone, Debug)]
pub struct LocationArgs {
    /// The directory of the database, and of the pepper file unless --pepper-file names another. Must be on a local file system
    #[arg(
        long,
        env = "CLAVIGER_DATA_DIR",
        value_name = "DIR",
        default_value = "./claviger-data"
    )]
    pub data_dir: PathBuf,

    /// A PostgreSQL database (14 or later) to use instead, such as `postgres://USER@HOST/DATABASE`. Set its password in
    /// PGPASSWORD or ~/.pgpass rather than here. A connection to another machine is encrypted, and the server's certificate is
    /// verified. Repeat the flag for each server of the same database: the primary is used, and after a failover the new one
    #[arg(
        long,
        env = "CLAVIGER_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: Vec<DatabaseUrls>,

    /// How long to wait for each answer of the PostgreSQL database before it counts as unreachable
    #[arg(long, env = "CLAVIGER_DATABASE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub database_timeout: Duration,
}

impl LocationArgs {
    /// The URLs of the PostgreSQL database; `None` if the database is an embedded one.
    pub fn database(&self) -> Option<DatabaseUrls> {
        DatabaseUrls::of(&self.database_url)
    }
}

/// The location of the authority's data, and how to open it.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would become the command's help"
    )]
    pub location: LocationArgs,

    /// The pepper file, with the key of the secrets' digests [default: pepper.toml in the data directory; required with
    /// --database-url]
    #[arg(long, env = "CLAVIGER_PEPPER_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pepper_file: Option<PathBuf>,

    /// The memory cost of the Argon2 root of a new key, in KiB
    #[arg(long, env = "CLAVIGER_ARGON2_MEMORY", value_name = "KIB", default_value_t = RootCost::default().memory_kib)]
    pub argon2_memory: u32,

    /// The time cost of the Argon2 root of a new key, in passes over that memory
    #[arg(long, env = "CLAVIGER_ARGON2_PASSES", value_name = "N", default_value_t = RootCost::default().passes)]
    pub argon2_passes: u32,

    /// Trust the clock of the machine, or of a shared database, even if it is behind the latest time that this authority has
    /// recorded. Expired keys may work again, so use it only if the recorded time was wrong
    #[arg(long, env = "CLAVIGER_TRUST_CLOCK", value_parser = BoolishValueParser::new())]
    pub trust_clock: bool,
}

impl StoreArgs {
    /// The cost of the Argon2 root of a new key.
    pub fn root_cost(&self) -> RootCost {
        RootCost {
            memory_kib: self.argon2_memory,
            passes: self.argon2_passes,
        }
    }

    /// The path of the pepper file; `None` if the database is PostgreSQL and no path is given.
    pub fn pepper_path(&self) -> Option<PathBuf> {
        self.pepper_file.clone().or_else(|| {
            let is_embedded = self.location.database().is_none();
            is_embedded.then(|| self.location.data_dir.join("pepper.toml"))
        })
    }
}
