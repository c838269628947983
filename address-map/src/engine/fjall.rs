//! The embedded default: one fjall database per store, one keyspace of it per engine.
//!
//! One database for all shards of a process means one journal: one fsync serves the group commits of every shard,
//! and one bounded replay reopens them all. What is laid out on disk is described in `docs/FORMAT.md`.
//!
//! Every read goes through a snapshot: a read of fjall's newest state shows the half of a batch that another thread is
//! just applying.

mod journal;
mod layout;
mod repair;
mod scan;
mod visibility;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ::fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use parking_lot::Mutex;
use thiserror::Error;

use journal::Journal;
pub use layout::STORE_FORMAT;
use visibility::Visibility;

use super::{Batch, Engine, Reader, Value, Visit};
use crate::error::{MapError, Result};
use crate::ids::Seq;

const MIB: u64 = 1024 * 1024;
/// Smallest bound of the journal that fjall accepts, bytes.
const JOURNAL_MIN: u64 = 64 * MIB;
/// What a change takes in memory beside its key and value, bytes.
const CHANGE_BYTES: usize = 64;
/// Memtables of one engine on their way to a table before its commits wait; fjall itself waits at 4.
const WRITE_OUT_MAX: usize = 2;
/// How often a waiting commit looks again.
const WRITE_OUT_PAUSE: Duration = Duration::from_millis(1);
/// Longest wait of a commit; after it fjall decides.
const WRITE_OUT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest name of an engine, bytes.
const ENGINE_NAME_MAX: usize = 255;

/// How much memory, disk and time a store may use.
#[derive(Clone, Copy, Debug)]
pub struct FjallOptions {
    /// Blocks of tables kept in memory, bytes, for all engines together.
    pub cache_bytes: u64,
    /// Journals that have ended and are kept before engines that need them still are written out, bytes; at least
    /// 64 MiB. The running one ends at 64 MB. Both are replayed when the store is opened: 15 ms per MiB or so.
    pub journal_bytes: u64,
    /// Changes an engine gathers in memory before it writes them out as a table, bytes. Times the number of engines
    /// it should not exceed `journal_bytes`: a journal ends only when an engine writes out.
    pub memtable_bytes: u64,
    /// Threads that write out tables and merge them. With one, commits wait while it merges.
    pub worker_threads: usize,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 * MIB, journal_bytes: JOURNAL_MIN, memtable_bytes: 4 * MIB, worker_threads: 2 }
    }
}

/// Why a store cannot be opened or does not work.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A journal is not what was written to it, in a part that may have been synced.
    #[error(
        "{journal} is damaged at byte {at}; what follows may have been promised to somebody: restore a backup"
    )]
    Damaged {
        /// The journal.
        journal: PathBuf,
        /// Where its last whole commit ends, bytes from its beginning.
        at: u64,
    },
    /// Another process has it open, or this one has it open twice.
    #[error("the store {0} is in use by another process")]
    InUse(PathBuf),
    /// A directory with files in it that no store has written.
    #[error(
        "{0} has files in it but no FORMAT file, so it is not a store; give an empty directory or a store"
    )]
    NotAStore(PathBuf),
    /// The version marker is unreadable.
    #[error("the FORMAT file in {0} does not hold a number")]
    BadFormat(PathBuf),
    /// A name no keyspace can have.
    #[error("the name of an engine has 1 to {ENGINE_NAME_MAX} bytes, this one has {0}")]
    BadName(usize),
    /// The file system failed.
    #[error("the store {path} cannot be prepared")]
    Io {
        /// The store.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The disk failed to take what was committed.
    #[error("the journal cannot be synced")]
    Sync(#[source] io::Error),
    /// A sync has failed before.
    #[error("a sync has failed, commits may be lost; open the store anew")]
    Lost,
    /// fjall failed.
    #[error("the database failed")]
    Database(#[from] ::fjall::Error),
}

impl From<StoreError> for MapError {
    fn from(error: StoreError) -> Self {
        MapError::Engine(Box::new(error))
    }
}

/// A fjall call's error as an error of the map.
fn database(error: ::fjall::Error) -> MapError {
    StoreError::Database(error).into()
}

/// A directory with one database; makes the engines that live in it.
///
/// The store stays open as long as it or one of its engines is kept.
#[derive(Clone)]
pub struct FjallStore(Arc<Shared>);

struct Shared {
    // The database is closed before the lock is given up: fields drop in this order.
    database: Database,
    journal: Journal,
    visibility: Visibility,
    progress: Mutex<HashMap<String, Arc<Mutex<Progress>>>>,
    memtable_bytes: u64,
    _lock: File,
}

impl FjallStore {
    /// Opens the store in the directory `path`, and makes it if the directory is empty or absent.
    ///
    /// Fails with [`MapError::TooNew`] if a newer version has written it, and with a [`StoreError`] otherwise.
    pub fn open(path: &Path, options: FjallOptions) -> Result<Self> {
        let (lock, directory) = layout::claim(path)?;
        repair::repair(path, &directory)?;
        let database = Database::builder(&directory)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(JOURNAL_MIN))
            .worker_threads(options.worker_threads.max(1))
            .open()
            .map_err(|error| match error {
                ::fjall::Error::Locked => StoreError::InUse(path.to_owned()),
                other => StoreError::Database(other),
            })?;
        let memtable_bytes = options.memtable_bytes;
        Ok(Self(Arc::new(Shared {
            database,
            journal: Journal::new(directory),
            visibility: Visibility::default(),
            progress: Mutex::default(),
            memtable_bytes,
            _lock: lock,
        })))
    }

    /// The engine of this name, made if there is none yet. Asking twice gives the same engine.
    pub fn engine(&self, name: &str) -> Result<FjallEngine> {
        if name.is_empty() || name.len() > ENGINE_NAME_MAX {
            return Err(StoreError::BadName(name.len()).into());
        }
        let options = || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX);
        let keyspace = self.0.database.keyspace(name, options).map_err(database)?;
        // What was replayed when the store was opened is in memory already.
        let unwritten = keyspace.tree.active_memtable().size();
        let mut known = self.0.progress.lock();
        let progress = known
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Mutex::new(Progress { commits: 0, unwritten })));
        Ok(FjallEngine { store: self.clone(), keyspace, progress: progress.clone() })
    }

    /// Makes every commit of every engine so far survive a power loss.
    ///
    /// Once this has failed, it and every later commit fail until the store is opened anew.
    pub fn sync(&self) -> Result<()> {
        self.must_be_intact()?;
        self.0.journal.sync().map_err(StoreError::Sync)?;
        // Writes nothing more; fails if fjall has met an error of its own.
        self.0.database.persist(PersistMode::Buffer).map_err(database)
    }

    fn must_be_intact(&self) -> Result<(), StoreError> {
        if self.0.journal.has_failed() { Err(StoreError::Lost) } else { Ok(()) }
    }

    /// Bytes on disk: journals and tables of all engines.
    pub fn disk_bytes(&self) -> Result<u64> {
        self.0.database.disk_space().map_err(database)
    }
}

/// One keyspace of a [`FjallStore`].
///
/// Commit numbers grow within the life of the store in this process; they begin anew when it is opened again.
pub struct FjallEngine {
    store: FjallStore,
    keyspace: Keyspace,
    progress: Arc<Mutex<Progress>>,
}

/// How far an engine is. Held while it commits: its commits come one after the other.
struct Progress {
    /// Commits in the life of the store.
    commits: u64,
    /// Changes in memory that are not yet on their way to a table, bytes.
    unwritten: u64,
}

struct FjallSnapshot<'a> {
    snapshot: Snapshot,
    keyspace: &'a Keyspace,
}

impl FjallEngine {
    /// Starts to write what is in memory to a table, and waits while too much is on its way already.
    ///
    /// fjall would start by itself, but asks for it with every commit until it is done: the queue of its only worker
    /// fills up, and the worker then waits for ever to add to it. And fjall would wait by itself, but within the
    /// commit and for longer, and snapshots would wait with it.
    fn write_out(&self) -> Result<(), ::fjall::Error> {
        self.keyspace.rotate_memtable()?;
        let patience = Instant::now() + WRITE_OUT_WAIT_MAX;
        while self.keyspace.sealed_memtable_count() > WRITE_OUT_MAX && Instant::now() < patience {
            thread::sleep(WRITE_OUT_PAUSE);
        }
        Ok(())
    }

    fn now(&self) -> FjallSnapshot<'_> {
        let Shared { database, visibility, .. } = &*self.store.0;
        let snapshot = database.snapshot();
        visibility.settle(snapshot.seqno());
        FjallSnapshot { snapshot, keyspace: &self.keyspace }
    }
}

impl Reader for FjallSnapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let value = self.snapshot.get(self.keyspace, key).map_err(database)?;
        Ok(value.map(|bytes| Value::from(&*bytes)))
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        let found = match end {
            Some(end) if end <= start => return Ok(()),
            Some(end) => self.snapshot.range(self.keyspace, start..end),
            None => self.snapshot.range(self.keyspace, start..),
        };
        for pair in found {
            let (key, value) = pair.into_inner().map_err(database)?;
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

impl Reader for FjallEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.now().get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        self.now().scan(start, end, visit)
    }
}

impl Engine for FjallEngine {
    fn commit(&self, batch: &Batch) -> Result<Seq> {
        // fjall gives all changes of a batch one version: a key may be in it only once.
        let changes: BTreeMap<&[u8], Option<&Value>> =
            batch.changes().iter().map(|(key, value)| (key.as_slice(), value.as_ref())).collect();
        self.store.must_be_intact()?;
        let Shared { database: fjall, visibility, .. } = &*self.store.0;
        let mut writes = fjall.batch().durability(Some(PersistMode::Buffer));
        let mut bytes = 0;
        for (key, value) in changes {
            bytes += (CHANGE_BYTES + key.len() + value.map_or(0, |value| value.len())) as u64;
            match value {
                Some(value) => writes.insert(&self.keyspace, key, &value[..]),
                None => writes.remove(&self.keyspace, key),
            }
        }
        let mut progress = self.progress.lock();
        let running = visibility.begin(|| fjall.seqno());
        writes.commit().map_err(database)?;
        drop(running);
        progress.commits += 1;
        progress.unwritten += bytes;
        if progress.unwritten >= self.store.0.memtable_bytes {
            match self.write_out() {
                Ok(()) => progress.unwritten = 0,
                // The commit is done all the same; the next one tries again, and fails if the store is lost.
                Err(error) => tracing::error!(%error, "cannot write out a memtable"),
            }
        }
        Ok(Seq(progress.commits))
    }

    fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    fn snapshot(&self) -> Result<Box<dyn Reader + Send + '_>> {
        Ok(Box::new(self.now()))
    }
}
