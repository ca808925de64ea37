//! Opening the store: locks it, and checks that the pepper file belongs to the database.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::authority::{
    CreatedAuthority, DeclaredState, Refusal, ReplacedHints, create, create_declared, recover,
    replace_hash_hints, update_built_in_realm,
};
use crate::config::{LocationArgs, StoreArgs};
use crate::domain::clock::{Clock, ElapsedClock};
use crate::domain::key_text::PlainKey;
use crate::domain::violation::{Violation, Violations};
use crate::hashing::{PepperFileError, Peppers, Roots, sync_folder_of};
use crate::store::{self, DatabaseLock, Head, LockLost, LockMode, OpenError, Schema, Store};

/// The name of the embedded database in a data directory. SQLite's other files have names that begin with it.
pub const DATABASE: &str = "claviger.db";
/// The name of the lock file of a data directory.
pub const LOCK: &str = "claviger.lock";
const OPERATOR_KEY: &str = "operator.key";

/// An opened store and the pepper that belongs to it.
pub struct OpenedStore {
    /// The database.
    pub store: Store,
    /// The peppers of the pepper file.
    pub peppers: Arc<Peppers>,
    /// The clock, which is not behind the latest time that the store has recorded.
    pub clock: Clock,
    /// The authority's own row in the store.
    pub head: Head,
    /// Computes the roots of new keys.
    pub roots: Roots,
    /// The lock, which keeps processes that must be alone from opening the store.
    pub lock: LockHandle,
}

/// A held lock, which keeps other processes from opening the store. Dropping the handle releases the lock.
pub enum LockHandle {
    /// The lock file of a data directory.
    Directory(File),
    /// The lock of a PostgreSQL database.
    Database(Box<DatabaseLock>),
}

/// What to do if the store has no authority yet.
pub enum IfEmpty<'a> {
    /// Return an error, so that an unmounted volume does not become a new, empty authority.
    Refuse,
    /// Create an authority, and pass its first operator key to this function.
    Create(&'a mut dyn FnMut(&PlainKey) -> io::Result<()>),
    /// Create an authority that is as declared, with the operator key in it. The function reads the declaration, which is not needed
    /// if there is an authority.
    Declare(&'a dyn Fn() -> Result<DeclaredState, String>),
}

/// The reason why a store cannot be opened. Each message is for the operator, and ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// There is no authority, and the caller did not ask to create one.
    #[error(
        "there is no authority in {0}. If there should be one, check whether {hint}. To create a new one, start \
         `claviger serve --init`, or run `claviger bootstrap` first",
        hint = .0.hint()
    )]
    Empty(StoreLocation),
    /// Another process holds the lock of the data directory.
    #[error(
        "another claviger process uses {0}, and an embedded database allows only one. Stop that process, or choose another \
         --data-dir"
    )]
    InUse(PathBuf),
    /// The directory or a file in it cannot be used.
    #[error(
        "cannot use {path}: {source}. Check that the path exists and that this user may read and write it"
    )]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The pepper file cannot be used.
    #[error(transparent)]
    PepperFile(#[from] PepperFileError),
    /// The database is PostgreSQL, and no pepper file is given.
    #[error(
        "--database-url needs a pepper file: name it with --pepper-file FILE. Without that file no key of the database can be \
         verified, on this machine or another"
    )]
    PepperUnnamed,
    /// The pepper file does not exist.
    #[error(
        "the pepper file {0} is missing, and without it no key of this database can be verified. Restore it from its backup, \
         or name its path with --pepper-file"
    )]
    PepperMissing(PathBuf),
    /// The pepper file belongs to another authority.
    #[error(
        "the pepper file {path} does not belong to this database: it does not contain the right pepper of version {version}. \
         Restore the right file, or name its path with --pepper-file. Nothing was changed"
    )]
    PepperWrong {
        /// The pepper file.
        path: PathBuf,
        /// The version that is missing or different.
        version: u32,
    },
    /// The cost of roots is out of range.
    #[error("{0}")]
    RootCost(String),
    /// The authority could not be created, because its declaration is wrong.
    #[error("{0}")]
    Undeclared(String),
    /// The authority could not be created.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The location of a store, as messages show it.
#[derive(Debug)]
pub enum StoreLocation {
    /// A data directory.
    Directory(PathBuf),
    /// A PostgreSQL database, whose URL may contain a password and is not shown.
    Database,
}

impl StoreLocation {
    fn hint(&self) -> &'static str {
        match self {
            Self::Directory(_) => "its volume is mounted",
            Self::Database => "--database-url names the right database",
        }
    }
}

impl std::fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Database => f.write_str("the database"),
        }
    }
}

impl LockHandle {
    /// Holds the lock. Returns only if another process took it over.
    pub async fn keep(self) -> LockLost {
        match self {
            Self::Directory(_file) => std::future::pending().await,
            Self::Database(lock) => lock.keep().await,
        }
    }
}

/// A locked location whose store is not opened yet.
pub struct StoreLock<'a> {
    args: &'a LocationArgs,
    lock: LockHandle,
}

impl<'a> StoreLock<'a> {
    /// Takes the lock of a location. With `create`, a missing data directory is created. An embedded database is never shared.
    ///
    /// # Errors
    /// If another process holds the lock in a way that excludes this one, or if there is no store and `create` is false.
    pub async fn take(
        args: &'a LocationArgs,
        mode: LockMode,
        create: bool,
    ) -> Result<Self, OpenStoreError> {
        let lock = match args.database() {
            None => LockHandle::Directory(lock_directory(&args.data_dir, create)?),
            Some(urls) => {
                let mut lock = DatabaseLock::take(&urls, args.database_timeout, mode).await?;
                if !create && !lock.has_store().await? {
                    return Err(OpenStoreError::Empty(StoreLocation::Database));
                }
                if mode == LockMode::Exclusive {
                    lock.outlast_servers().await?;
                }
                LockHandle::Database(Box::new(lock))
            }
        };
        Ok(Self { args, lock })
    }

    /// Takes the lock of a store that is opened next, as [`StoreLock::take`] does.
    ///
    /// # Errors
    /// As [`StoreLock::take`]. [`OpenStoreError::PepperUnnamed`], before the database is contacted.
    pub async fn take_to_open(
        args: &'a StoreArgs,
        mode: LockMode,
        create: bool,
    ) -> Result<Self, OpenStoreError> {
        args.pepper_path().ok_or(OpenStoreError::PepperUnnamed)?;
        Self::take(&args.location, mode, create).await
    }

    /// Migrates the schema to this version, and returns the versions before and after.
    pub async fn migrate(mut self) -> Result<Schema, OpenStoreError> {
        let store = self.open_store().await?;
        let schema = store.schema();
        store.close().await;
        Ok(schema)
    }

    async fn open_store(&mut self) -> Result<Store, OpenStoreError> {
        match &mut self.lock {
            LockHandle::Directory(_) => {
                let database = self.args.data_dir.join(DATABASE);
                // Created here with a private mode, because SQLite gives its other files the mode of this one.
                let _ = private()
                    .create(true)
                    .truncate(false)
                    .open(&database)
                    .map_err(|source| io_error(&database, source))?;
                Ok(Store::open_sqlite(&database).await?)
            }
            LockHandle::Database(lock) => Ok(Store::open_postgres(lock).await?),
        }
    }

    /// The location.
    pub fn location(&self) -> StoreLocation {
        match self.lock {
            LockHandle::Directory(_) => StoreLocation::Directory(self.args.data_dir.clone()),
            LockHandle::Database(_) => StoreLocation::Database,
        }
    }

    /// Opens the store, and checks that the pepper file belongs to it.
    pub async fn open(
        mut self,
        args: &StoreArgs,
        clock: Clock,
        if_empty: IfEmpty<'_>,
    ) -> Result<OpenedStore, OpenStoreError> {
        let roots = Roots::new(args.root_cost()).map_err(OpenStoreError::RootCost)?;
        let path = args.pepper_path().ok_or(OpenStoreError::PepperUnnamed)?;
        if let LockHandle::Database(lock) = &mut self.lock {
            lock.begin_open().await?;
        }
        let store = self.open_store().await?;
        let existing = Peppers::load(&path)?;
        let peppers = if store.snapshot().await?.head().await?.is_some() {
            if matches!(if_empty, IfEmpty::Declare(_)) {
                tracing::info!(
                    "there is an authority already, so the files of --apply are not used; `claviger apply` changes it"
                );
            }
            existing.ok_or_else(|| OpenStoreError::PepperMissing(path.clone()))?
        } else {
            if matches!(if_empty, IfEmpty::Refuse) {
                return Err(OpenStoreError::Empty(self.location()));
            }
            // Before a pepper is made, because the files may have mistakes.
            let declared = match &if_empty {
                IfEmpty::Declare(read) => Some(read().map_err(OpenStoreError::Undeclared)?),
                IfEmpty::Refuse | IfEmpty::Create(_) => None,
            };
            // An existing file is from an earlier start that failed, or the operator has put it there.
            let peppers = match existing {
                Some(peppers) => peppers,
                None => create_pepper(&path)?,
            };
            let clock = follow_database(&store, clock.clone()).await?;
            match (if_empty, declared) {
                (IfEmpty::Create(hand_over), _) => {
                    create(&store, &clock, &peppers, &roots, hand_over).await?;
                }
                (_, Some(state)) => {
                    let created = create_declared(&store, &clock, &peppers, &roots, &state);
                    let created = created.await.map_err(undeclared)?;
                    if created {
                        tracing::info!("authority created as declared");
                    }
                }
                (IfEmpty::Refuse | IfEmpty::Declare(_), None) => {}
            }
            peppers
        };
        let head = store
            .snapshot()
            .await?
            .head()
            .await?
            .ok_or_else(|| OpenStoreError::Empty(self.location()))?;
        if let Some(version) = wrong_pepper(&head, &peppers) {
            return Err(OpenStoreError::PepperWrong { path, version });
        }
        let clock = start_clock(&store, clock, &head, args.trust_clock).await?;
        if update_built_in_realm(&store, &clock).await? {
            tracing::info!("built-in realm updated to the definition of this version");
        }
        let ReplacedHints { keys, events } = replace_hash_hints(&store, &clock).await?;
        if keys + events > 0 {
            tracing::info!(keys, events, "hints of imported keys replaced");
        }
        if let LockHandle::Database(lock) = &mut self.lock {
            lock.opened().await?;
        }
        Ok(OpenedStore {
            store,
            peppers: Arc::new(peppers),
            clock,
            head,
            roots,
            lock: self.lock,
        })
    }
}

impl OpenedStore {
    /// Locks and opens the store.
    pub async fn open(
        args: &StoreArgs,
        mode: LockMode,
        clock: Clock,
        if_empty: IfEmpty<'_>,
    ) -> Result<Self, OpenStoreError> {
        let may_create = !matches!(if_empty, IfEmpty::Refuse);
        let lock = StoreLock::take_to_open(args, mode, may_create).await?;
        lock.open(args, clock, if_empty).await
    }

    /// Issues another operator key, and passes it to `hand_over`.
    pub async fn recover(
        &self,
        hand_over: impl FnOnce(&PlainKey) -> io::Result<()>,
    ) -> Result<CreatedAuthority, Refusal> {
        recover(
            &self.store,
            &self.clock,
            &self.peppers,
            &self.roots,
            hand_over,
        )
        .await
    }
}

/// Returns the version of a pepper that an authority has, and that the pepper file lacks or has another value for.
pub fn wrong_pepper(head: &Head, peppers: &Peppers) -> Option<u32> {
    let is_right = |(version, canary): &&(u32, Vec<u8>)| {
        let own = peppers.canary(*version);
        own.as_ref().map(<[u8; 32]>::as_slice) == Some(canary.as_slice())
    };
    let wrong = head.peppers.iter().find(|pepper| !is_right(pepper))?;
    Some(wrong.0)
}

fn create_pepper(path: &Path) -> Result<Peppers, PepperFileError> {
    let peppers = Peppers::create(path)?;
    tracing::warn!(
        file = %path.display(),
        "new pepper file created; without it no key can be verified: back it up, but not beside the database"
    );
    Ok(peppers)
}

/// The path of the file for the first operator key, if `serve --init` does not run on a terminal.
pub fn operator_key_path(args: &LocationArgs) -> PathBuf {
    args.data_dir.join(OPERATOR_KEY)
}

/// Writes an operator key to a file of the data directory. The file is synced to disk, and only its owner can read it.
pub fn write_operator_key(path: &Path, key: &PlainKey) -> io::Result<()> {
    create_directory(path.parent().expect("a file in the data directory"))?;
    // An existing file is from a start that failed before its key was valid.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private().create_new(true).open(path)?;
    writeln!(file, "{}", key.expose())?;
    file.sync_all()?;
    sync_folder_of(path)
}

/// Returns a clock that has the time of the authority. The clock of an embedded database is that of its machine, but not behind the
/// latest time that the store has recorded.
async fn start_clock(
    store: &Store,
    clock: Clock,
    head: &Head,
    trust_clock: bool,
) -> Result<Clock, store::Error> {
    let mut setting = head.clock_setting;
    if trust_clock {
        tracing::warn!("--trust-clock: the time in the store is replaced by that of the clock");
        let time = store.snapshot().await?.database_clock().await?;
        setting = store
            .reset_time(time.unwrap_or_else(|| clock.source_time()))
            .await?;
    }
    let clock = follow_database(store, clock).await?;
    clock.was_set(setting);
    if trust_clock {
        return Ok(clock);
    }
    let behind = clock.advance(head.clock);
    if behind > std::time::Duration::from_secs(1) {
        tracing::warn!(
            ?behind,
            "the machine's clock is behind the latest time that this authority has recorded, so time stands still until it has \
             caught up; set the clock, or start once with --trust-clock if the recorded time was wrong"
        );
    }
    Ok(clock)
}

/// Returns a clock that follows the database if it is shared. Otherwise the clock stays as it is.
async fn follow_database(store: &Store, clock: Clock) -> Result<Clock, store::Error> {
    let sample = store.snapshot().await?.time().await?;
    Ok(match sample {
        Some(sample) => clock.following(ElapsedClock::system(), sample),
        None => clock,
    })
}

/// Whether a data directory has a database.
///
/// # Errors
/// If the directory cannot be read.
pub fn has_database(dir: &Path) -> Result<bool, OpenStoreError> {
    dir.join(DATABASE)
        .try_exists()
        .map_err(|source| io_error(dir, source))
}

fn lock_directory(dir: &Path, create: bool) -> Result<File, OpenStoreError> {
    let has_database = has_database(dir)?;
    if !create && !has_database {
        return Err(OpenStoreError::Empty(StoreLocation::Directory(
            dir.to_owned(),
        )));
    }
    create_directory(dir).map_err(|source| io_error(dir, source))?;
    let path = dir.join(LOCK);
    let file = private()
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| io_error(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenStoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error(&path, source)),
    }
}

fn create_directory(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The options to open a file that only its owner can read and write.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Tells a declaration that is wrong from other reasons why an authority cannot be created.
fn undeclared(refusal: Refusal) -> OpenStoreError {
    match refusal {
        Refusal::Invalid(violations) => {
            OpenStoreError::Undeclared(describe_declaration(&violations))
        }
        other => other.into(),
    }
}

/// Describes what is wrong with the declaration of a new authority.
pub fn describe_declaration(violations: &Violations) -> String {
    let mut message = "the files of --apply do not declare an authority:".to_owned();
    for Violation { field, description } in violations.kept() {
        let _ = write!(message, "\n  {field}: {description}");
    }
    if violations.more() > 0 {
        let _ = write!(message, "\n  and {} more", violations.more());
    }
    message
}

fn io_error(path: &Path, source: io::Error) -> OpenStoreError {
    OpenStoreError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hashing::RootCost;
    use crate::store::DatabaseUrls;

    #[tokio::test]
    async fn a_missing_pepper_flag_is_reported_before_the_database_is_contacted() {
        let cost = RootCost::default();
        let args = StoreArgs {
            location: LocationArgs {
                data_dir: PathBuf::new(),
                database_url: vec![DatabaseUrls::from("postgres://127.0.0.1:1/x".to_owned())],
                database_timeout: Duration::from_secs(5),
            },
            pepper_file: None,
            argon2_memory: cost.memory_kib,
            argon2_passes: cost.passes,
            trust_clock: false,
        };
        let opened =
            OpenedStore::open(&args, LockMode::Shared, Clock::system(), IfEmpty::Refuse).await;
        assert!(matches!(
            opened.err().unwrap(),
            OpenStoreError::PepperUnnamed
        ));
    }
}
