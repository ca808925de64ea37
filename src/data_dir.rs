//! The data directory: one process at a time, and the right pepper beside the right database.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::authority::{Founded, Refusal, found, recover};
use crate::config::StoreArgs;
use crate::domain::clock::Clock;
use crate::domain::key_text::PlainKey;
use crate::hashing::{PepperFileError, Peppers, Roots, sync_folder_of};
use crate::store::{self, Head, OpenError, Store};

const DATABASE: &str = "claviger.db";
const LOCK: &str = "claviger.lock";
const OPERATOR_KEY: &str = "operator.key";

/// Everything that is kept, opened and found to belong together.
pub struct DataDir {
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
    /// Locks the directory for as long as it is open.
    pub lock: File,
}

/// What to do if there is no authority yet.
pub enum IfEmpty<'a> {
    /// Refuse: an unmounted volume must not turn into a new, empty authority.
    Refuse,
    /// Make one, and hand its first operator key over.
    Found(&'a mut dyn FnMut(&PlainKey) -> io::Result<()>),
}

/// Why a data directory cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// There is nothing there, and nobody said to make something.
    #[error(
        "there is no authority in {0} yet. If there should be one, look whether its volume is mounted. To make a new one, \
         start with `claviger serve --init`, or run `claviger bootstrap` first"
    )]
    Empty(PathBuf),
    /// Another process has it.
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

/// A data directory that nobody else can use, not opened yet.
pub struct LockedDir<'a> {
    args: &'a StoreArgs,
    lock: File,
}

impl<'a> LockedDir<'a> {
    /// Takes the directory's lock. With `make` the directory is made if it is not there; otherwise it must have a database.
    pub fn take(args: &'a StoreArgs, make: bool) -> Result<Self, DataDirError> {
        let dir = args.data_dir.as_path();
        let is_there = dir
            .join(DATABASE)
            .try_exists()
            .map_err(|source| io_error(dir, source))?;
        if !make && !is_there {
            return Err(DataDirError::Empty(dir.to_owned()));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| io_error(dir, source))?;
        let lock = lock(dir)?;
        Ok(Self { args, lock })
    }

    /// Opens the database, and checks that the pepper is its own.
    pub async fn open(self, clock: Clock, if_empty: IfEmpty<'_>) -> Result<DataDir, DataDirError> {
        let Self { args, lock } = self;
        let roots = Roots::new(args.root_cost()).map_err(DataDirError::RootCost)?;
        let dir = args.data_dir.as_path();
        let database = dir.join(DATABASE);
        // SQLite gives its other files the mode of this one.
        let _ = private()
            .create(true)
            .truncate(false)
            .open(&database)
            .map_err(|source| io_error(&database, source))?;
        let store = Store::open_sqlite(&database).await?;
        let peppers = DataDir::peppers(args, &store, &clock, &roots, if_empty).await?;
        let head = store
            .snapshot()
            .await?
            .head()
            .await?
            .ok_or_else(|| DataDirError::Empty(dir.to_owned()))?;
        let path = args.pepper_path();
        for (version, canary) in &head.peppers {
            if peppers.canary(*version).as_ref().map(<[u8; 32]>::as_slice)
                != Some(canary.as_slice())
            {
                return Err(DataDirError::PepperWrong {
                    path,
                    version: *version,
                });
            }
        }
        set_clock(&store, &clock, &head, args.trust_clock).await?;
        Ok(DataDir {
            store,
            peppers: Arc::new(peppers),
            clock,
            head,
            roots,
            lock,
        })
    }
}

impl DataDir {
    /// Takes the directory and opens it.
    pub async fn open(
        args: &StoreArgs,
        clock: Clock,
        if_empty: IfEmpty<'_>,
    ) -> Result<Self, DataDirError> {
        let make = matches!(if_empty, IfEmpty::Found(_));
        LockedDir::take(args, make)?.open(clock, if_empty).await
    }

    /// Reads the pepper; for an authority that is still to be made, makes both.
    async fn peppers(
        args: &StoreArgs,
        store: &Store,
        clock: &Clock,
        roots: &Roots,
        if_empty: IfEmpty<'_>,
    ) -> Result<Peppers, DataDirError> {
        let path = args.pepper_path();
        let there = Peppers::load(&path)?;
        if store.snapshot().await?.head().await?.is_some() {
            return there.ok_or(DataDirError::PepperMissing(path));
        }
        let IfEmpty::Found(hand_over) = if_empty else {
            return Err(DataDirError::Empty(args.data_dir.clone()));
        };
        // One that is there already was made by a start that did not come further, or brought by the operator.
        let peppers = match there {
            Some(peppers) => peppers,
            None => Peppers::create(&path)?,
        };
        found(store, clock, &peppers, roots, hand_over).await?;
        Ok(peppers)
    }

    /// Makes another operator key.
    pub async fn recover(
        &self,
        hand_over: impl FnOnce(&PlainKey) -> io::Result<()>,
    ) -> Result<Founded, Refusal> {
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

/// Where an operator key is left that nobody is there to be shown.
pub fn operator_key_path(args: &StoreArgs) -> PathBuf {
    args.data_dir.join(OPERATOR_KEY)
}

/// Leaves an operator key in a file of the data directory, durable and readable by its owner alone.
pub fn write_operator_key(path: &Path, key: &PlainKey) -> io::Result<()> {
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

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK);
    let file = private()
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| io_error(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error(&path, source)),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn io_error(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io {
        path: path.to_owned(),
        source,
    }
}
