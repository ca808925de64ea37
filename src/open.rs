//! Where the authority is kept: one process at a time, and the right pepper beside the right database.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::authority::{CreatedAuthority, Refusal, create, recover};
use crate::config::{LocationArgs, StoreArgs};
use crate::domain::clock::Clock;
use crate::domain::key_text::PlainKey;
use crate::hashing::{PepperFileError, Peppers, Roots, sync_folder_of};
use crate::store::{self, DatabaseLock, Head, OpenError, Schema, Store, Usurped};

const DATABASE: &str = "claviger.db";
const LOCK: &str = "claviger.lock";
const OPERATOR_KEY: &str = "operator.key";

/// Everything that is kept, opened and found to belong together.
pub struct OpenedStore {
    /// The database.
    pub store: Store,
    /// The pepper.
    pub peppers: Arc<Peppers>,
    /// The clock, not behind the latest time that the store has seen.
    pub clock: Clock,
    /// What the store begins with.
    pub head: Head,
    /// Makes roots.
    pub roots: Roots,
    /// Keeps every other process away.
    pub lock: LockHandle,
}

/// Keeps every other process away for as long as it is there.
pub enum LockHandle {
    /// The lock of a data directory, for as long as the file is open.
    Directory(File),
    /// The lock of a shared database.
    Database(Box<DatabaseLock>),
}

/// What to do if there is no authority yet.
pub enum IfEmpty<'a> {
    /// Refuse: an unmounted volume must not turn into a new, empty authority.
    Refuse,
    /// Make one, and hand its first operator key over.
    Create(&'a mut dyn FnMut(&PlainKey) -> io::Result<()>),
}

/// Why an authority cannot be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// There is nothing there, and nobody said to make something.
    #[error(
        "there is no authority in {0} yet. If there should be one, look whether {hint}. To make a new one, start with \
         `claviger serve --init`, or run `claviger bootstrap` first",
        hint = .0.hint()
    )]
    Empty(StoreLocation),
    /// Another process has the directory.
    #[error(
        "another claviger process uses {0}; an embedded database has one at a time. Stop it first, or name another --data-dir"
    )]
    InUse(PathBuf),
    /// The directory or a file in it cannot be used.
    #[error("{path} cannot be used: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
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
    /// A shared database, and nobody said where the pepper is.
    #[error(
        "with --database-url the pepper must be named: --pepper-file FILE. Without that file no key of the database can be \
         verified, on this machine or another"
    )]
    PepperUnnamed,
    /// There is no pepper file.
    #[error(
        "the pepper file {0} is missing, and without it no key of this database can be verified. Put it back from where its \
         copy is kept, or name it with --pepper-file"
    )]
    PepperMissing(PathBuf),
    /// It is another authority's.
    #[error(
        "the pepper file {path} is not the one of this database: it does not hold version {version} as it was. Put the right \
         file back, or name it with --pepper-file. Nothing was changed"
    )]
    PepperWrong {
        /// The file.
        path: PathBuf,
        /// The version that does not fit.
        version: u32,
    },
    /// The cost of roots is impossible.
    #[error("{0}")]
    RootCost(String),
    /// The authority could not be made.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Where an authority is looked for, in words for people.
#[derive(Debug)]
pub enum StoreLocation {
    /// In a data directory.
    Directory(PathBuf),
    /// In a shared database.
    Database,
}

impl StoreLocation {
    fn hint(&self) -> &'static str {
        match self {
            Self::Directory(_) => "its volume is mounted",
            Self::Database => "--database-url names the right one",
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
    /// Keeps every other process away. Ends only when one came all the same.
    pub async fn keep(self) -> Usurped {
        match self {
            Self::Directory(_file) => std::future::pending().await,
            Self::Database(lock) => lock.keep().await,
        }
    }
}

/// A location that no other process can use, not opened yet.
pub struct StoreLock<'a> {
    args: &'a LocationArgs,
    lock: LockHandle,
}

impl<'a> StoreLock<'a> {
    /// Takes the location's lock. With `make` a directory is made if it is not there; otherwise there must be a store.
    pub async fn take(args: &'a LocationArgs, make: bool) -> Result<Self, OpenStoreError> {
        let lock = match &args.database_url {
            None => LockHandle::Directory(take_directory(&args.data_dir, make)?),
            Some(url) => {
                let mut lock = DatabaseLock::take(url, args.database_timeout).await?;
                if !make && !lock.has_store().await? {
                    return Err(OpenStoreError::Empty(StoreLocation::Database));
                }
                LockHandle::Database(Box::new(lock))
            }
        };
        Ok(Self { args, lock })
    }

    /// Brings the schema up to date, and says what that took.
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
                // SQLite gives its other files the mode of this one.
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

    /// Where it is.
    pub fn location(&self) -> StoreLocation {
        match self.lock {
            LockHandle::Directory(_) => StoreLocation::Directory(self.args.data_dir.clone()),
            LockHandle::Database(_) => StoreLocation::Database,
        }
    }

    /// Opens the store, and checks that the pepper is its own.
    pub async fn open(
        mut self,
        args: &StoreArgs,
        clock: Clock,
        if_empty: IfEmpty<'_>,
    ) -> Result<OpenedStore, OpenStoreError> {
        let roots = Roots::new(args.root_cost()).map_err(OpenStoreError::RootCost)?;
        let path = args.pepper_path().ok_or(OpenStoreError::PepperUnnamed)?;
        let store = self.open_store().await?;
        let there = Peppers::load(&path)?;
        let peppers = if store.snapshot().await?.head().await?.is_some() {
            there.ok_or_else(|| OpenStoreError::PepperMissing(path.clone()))?
        } else {
            let IfEmpty::Create(hand_over) = if_empty else {
                return Err(OpenStoreError::Empty(self.location()));
            };
            // One that is there already was made by a start that did not come further, or brought by the operator.
            let peppers = match there {
                Some(peppers) => peppers,
                None => make_pepper(&path)?,
            };
            create(&store, &clock, &peppers, &roots, hand_over).await?;
            peppers
        };
        let head = store
            .snapshot()
            .await?
            .head()
            .await?
            .ok_or_else(|| OpenStoreError::Empty(self.location()))?;
        for (version, canary) in &head.peppers {
            if peppers.canary(*version).as_ref().map(<[u8; 32]>::as_slice)
                != Some(canary.as_slice())
            {
                return Err(OpenStoreError::PepperWrong {
                    path,
                    version: *version,
                });
            }
        }
        set_clock(&store, &clock, &head, args.trust_clock).await?;
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
    /// Takes the location and opens it.
    pub async fn open(
        args: &StoreArgs,
        clock: Clock,
        if_empty: IfEmpty<'_>,
    ) -> Result<Self, OpenStoreError> {
        let make = matches!(if_empty, IfEmpty::Create(_));
        let lock = StoreLock::take(&args.location, make).await?;
        lock.open(args, clock, if_empty).await
    }

    /// Makes another operator key.
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

fn make_pepper(path: &Path) -> Result<Peppers, PepperFileError> {
    let peppers = Peppers::create(path)?;
    tracing::warn!(
        file = %path.display(),
        "a new pepper was made. Keep a copy of it, and not beside the database's: without it no key can be verified"
    );
    Ok(peppers)
}

/// Where an operator key is left that nobody is there to be shown.
pub fn operator_key_path(args: &LocationArgs) -> PathBuf {
    args.data_dir.join(OPERATOR_KEY)
}

/// Leaves an operator key in a file of the data directory, durable and readable by its owner alone.
pub fn write_operator_key(path: &Path, key: &PlainKey) -> io::Result<()> {
    make_directory(path.parent().expect("a file in the data directory"))?;
    // Whatever is there is from a start that did not come as far as to use it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private().create_new(true).open(path)?;
    writeln!(file, "{}", key.expose())?;
    file.sync_all()?;
    sync_folder_of(path)
}

/// Lets time begin where the store has seen it last.
async fn set_clock(
    store: &Store,
    clock: &Clock,
    head: &Head,
    trust_clock: bool,
) -> Result<(), store::Error> {
    if trust_clock {
        tracing::warn!("the machine's clock is believed, whatever the store has seen");
        return store.reset_time(clock.now()).await;
    }
    let behind = clock.advance(head.clock);
    if behind > std::time::Duration::from_secs(1) {
        tracing::warn!(
            ?behind,
            "the machine's clock is behind the latest time that this authority has seen; until it has caught up, time stands \
             still here. Set the clock, or start once with --trust-clock if that latest time was wrong"
        );
    }
    Ok(())
}

fn take_directory(dir: &Path, make: bool) -> Result<File, OpenStoreError> {
    let is_there = dir
        .join(DATABASE)
        .try_exists()
        .map_err(|source| io_error(dir, source))?;
    if !make && !is_there {
        return Err(OpenStoreError::Empty(StoreLocation::Directory(
            dir.to_owned(),
        )));
    }
    make_directory(dir).map_err(|source| io_error(dir, source))?;
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

fn make_directory(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn io_error(path: &Path, source: io::Error) -> OpenStoreError {
    OpenStoreError::Io {
        path: path.to_owned(),
        source,
    }
}
