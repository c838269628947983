//! Every engine passes the conformance suite and plays random histories like a `BTreeMap`; the store on disk refuses
//! what it must refuse and loses nothing acknowledged when its process is killed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use address_map::MapError;
use address_map::engine::conformance::{self, Step, TestBed};
use address_map::engine::{Batch, Engine, FjallOptions, FjallStore, MemoryEngine, Reader, STORE_FORMAT};
use address_map::ids::Seq;
use address_map::key::Key;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tempfile::TempDir;

/// Small, so that tables are written and merged, and journals end, while a test runs.
const SMALL: FjallOptions = FjallOptions {
    cache_bytes: 1 << 20,
    journal_bytes: 64 << 20,
    memtable_bytes: 256 << 10,
    worker_threads: 1,
};

struct InMemory(Arc<MemoryEngine>);

impl TestBed for InMemory {
    fn engine(&self) -> Arc<dyn Engine> {
        self.0.clone()
    }

    fn survives(&self) -> bool {
        false
    }

    fn reopen(self: Box<Self>) -> Box<dyn TestBed> {
        unreachable!("memory survives nothing")
    }
}

fn in_memory() -> Box<dyn TestBed> {
    Box::new(InMemory(Arc::new(MemoryEngine::new())))
}

struct OnDisk {
    engine: Arc<dyn Engine>,
    store: FjallStore,
    directory: TempDir,
}

impl OnDisk {
    fn open(directory: TempDir) -> Box<dyn TestBed> {
        let store = FjallStore::open(directory.path(), SMALL).unwrap();
        let engine = Arc::new(store.engine("shard-3").unwrap());
        Box::new(Self { engine, store, directory })
    }
}

impl TestBed for OnDisk {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn survives(&self) -> bool {
        true
    }

    fn reopen(self: Box<Self>) -> Box<dyn TestBed> {
        let Self { engine, store, directory } = *self;
        drop((engine, store));
        Self::open(directory)
    }
}

fn on_disk() -> Box<dyn TestBed> {
    OnDisk::open(TempDir::new().unwrap())
}

#[test]
fn memory_conforms() {
    conformance::run(&in_memory);
}

#[test]
fn fjall_conforms() {
    conformance::run(&on_disk);
}

/// Few and short keys, so that histories meet them again.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 0xff]), 1..4)
}

fn any_changes() -> impl Strategy<Value = Vec<(Vec<u8>, Option<Vec<u8>>)>> {
    let value = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0..30_000usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop::collection::vec((any_key(), prop::option::weighted(0.7, value)), 0..8)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_changes().prop_map(Step::Commit),
        4 => any_key().prop_map(Step::Get),
        4 => (any_key(), prop::option::of(any_key()), 0..20usize)
            .prop_map(|(start, end, most)| Step::Scan(start, end, most + 1)),
        2 => any_changes().prop_map(Step::Snapshot),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

/// Failing histories are kept in `engines.regressions` and played first ever after.
fn config() -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases: 24, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn memory_plays_histories_like_a_map(steps in prop::collection::vec(any_step(), 1..80)) {
        conformance::check_history(in_memory(), &steps);
    }

    #[test]
    fn fjall_plays_histories_like_a_map(steps in prop::collection::vec(any_step(), 1..80)) {
        conformance::check_history(on_disk(), &steps);
    }
}

fn put(name: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.put(Key::from_slice(name), value);
    batch
}

/// The message of an error and of all its sources.
fn chain(error: &MapError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn engines_of_one_store_are_apart_and_share_their_sync() {
    let directory = TempDir::new().unwrap();
    let store = FjallStore::open(directory.path(), SMALL).unwrap();
    let (one, two) = (store.engine("shard-1").unwrap(), store.engine("shard-2").unwrap());
    assert_eq!(one.commit(&put(b"k", b"1")).unwrap(), Seq(1));
    assert_eq!(two.get(b"k").unwrap(), None);
    assert_eq!(store.engine("shard-1").unwrap().commit(&put(b"k", b"2")).unwrap(), Seq(2), "the same engine");
    assert_eq!(one.get(b"k").unwrap().as_deref(), Some(&b"2"[..]));
    two.sync().unwrap();
    for bad in [String::new(), "x".repeat(256)] {
        assert!(chain(&store.engine(&bad).err().unwrap()).contains("the name of an engine"));
    }
}

#[test]
fn a_store_refuses_what_it_does_not_know() {
    let directory = TempDir::new().unwrap();
    let open = || FjallStore::open(directory.path(), SMALL).map(drop);
    fs::write(directory.path().join("letters.txt"), "not ours").unwrap();
    assert!(chain(&open().unwrap_err()).contains("no FORMAT file"));
    fs::remove_file(directory.path().join("letters.txt")).unwrap();
    open().unwrap();
    let format = directory.path().join("FORMAT");
    assert_eq!(fs::read_to_string(&format).unwrap(), format!("{STORE_FORMAT}\n"));

    fs::write(&format, "2\n").unwrap();
    assert!(matches!(open().unwrap_err(), MapError::TooNew { found: 2, known: 1 }));
    fs::write(&format, [0xff, 0xfe]).unwrap();
    assert!(chain(&open().unwrap_err()).contains("does not hold a number"));
    fs::remove_file(&format).unwrap();
    assert!(chain(&open().unwrap_err()).contains("no FORMAT file"), "a store that lost its marker");
    fs::write(&format, "1\n").unwrap();
    open().unwrap();
}

#[test]
fn a_store_is_open_once() {
    let directory = TempDir::new().unwrap();
    let store = FjallStore::open(directory.path(), SMALL).unwrap();
    let error = FjallStore::open(directory.path(), SMALL).err().unwrap();
    assert!(chain(&error).contains("in use by another process"), "{}", chain(&error));
    let engine = store.engine("system").unwrap();
    drop(store);
    assert!(FjallStore::open(directory.path(), SMALL).is_err(), "an engine keeps its store open");
    drop(engine);
    FjallStore::open(directory.path(), SMALL).unwrap();
}

#[test]
fn a_store_whose_making_was_interrupted_is_made_anew() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("LOCK"), "").unwrap();
    fs::write(directory.path().join("FORMAT.new"), "").unwrap();
    FjallStore::open(directory.path(), SMALL).unwrap();
    fs::remove_file(directory.path().join("fjall/version")).unwrap();
    let store = FjallStore::open(directory.path(), SMALL).unwrap();
    store.engine("system").unwrap().commit(&put(b"k", b"v")).unwrap();
}

/// Bytes of all files below a directory.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    // A file may be gone again: the store is working on them.
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

#[test]
fn what_is_committed_in_haste_is_written_out_by_one_worker() {
    const COMMITS: u64 = 40_000;
    const VALUE: [u8; 256] = [7; 256];
    let directory = TempDir::new().unwrap();
    let store = FjallStore::open(directory.path(), FjallOptions { worker_threads: 1, ..SMALL }).unwrap();
    let engines = [store.engine("shard-0").unwrap(), store.engine("shard-1").unwrap()];
    for number in 0..COMMITS {
        engines[number as usize % 2].commit(&put(&number.to_be_bytes(), &VALUE)).unwrap();
    }
    let patience = Instant::now() + Duration::from_secs(30);
    while bytes_below(&directory.path().join("fjall/keyspaces")) < COMMITS * VALUE.len() as u64 * 3 / 4 {
        assert!(Instant::now() < patience, "tables are not written");
        thread::yield_now();
    }
}

/// The number of the newest journal of a store.
fn newest_journal(store: &Path) -> u64 {
    let journals = fs::read_dir(store.join("fjall")).unwrap();
    let number = |name: &OsStr| name.to_str()?.strip_suffix(".jnl")?.parse().ok();
    journals.filter_map(|entry| number(&entry.unwrap().file_name())).max().unwrap()
}

#[test]
fn commits_are_in_the_newest_journal() {
    // What syncing relies on: it syncs the newest journal through a descriptor that the database knows nothing of.
    const LARGE: usize = 1 << 20;
    const JOURNALS: usize = 3;
    const COMMITS_MAX: u64 = 1000;
    let directory = TempDir::new().unwrap();
    let store = FjallStore::open(directory.path(), SMALL).unwrap();
    let engine = store.engine("shard-0").unwrap();
    let mut seen = BTreeSet::new();
    for number in 0..COMMITS_MAX {
        let marker = format!("commit {number} and no other");
        let before = newest_journal(directory.path());
        engine.commit(&put(b"large", &[marker.as_bytes(), &[7; LARGE]].concat())).unwrap();
        engine.sync().unwrap();
        if before == newest_journal(directory.path()) && seen.insert(before) {
            let file = File::open(directory.path().join(format!("fjall/{before}.jnl"))).unwrap();
            let mut head = Vec::new();
            file.take(4 * LARGE as u64).read_to_end(&mut head).unwrap();
            let found = head.windows(marker.len()).any(|window| window == marker.as_bytes());
            assert!(found, "journal {before} does not begin with commit {number}");
        }
        if seen.len() == JOURNALS {
            return;
        }
    }
    panic!("{COMMITS_MAX} large commits made {} journals", seen.len());
}

/// Names the store of the child in [`a_killed_process_loses_nothing_acknowledged`].
const CRASH_STORE: &str = "VMDS_TEST_CRASH_STORE";
/// Kills, each at another moment of the store's life.
const CRASHES: u64 = 12;
/// Keys that the child writes again and again.
const CRASH_SLOTS: u64 = 512;

fn crash_key(number: u64, half: u8) -> Key {
    let mut key = Key::from_slice(&(number % CRASH_SLOTS).to_be_bytes());
    key.push(half);
    key
}

/// The child: commits numbers for ever, two records each, and prints every number when its commit has returned.
/// Does nothing unless it is told a store.
#[test]
fn crash_child() {
    let Some(path) = env::var_os(CRASH_STORE) else { return };
    let store = FjallStore::open(Path::new(&path), SMALL).unwrap();
    let engine = store.engine("crash").unwrap();
    let mut out = std::io::stdout().lock();
    for number in last_number(&engine) + 1.. {
        let mut value = number.to_be_bytes().to_vec();
        value.resize(64 + (number as usize * 37) % 2000, number as u8);
        let mut batch = Batch::default();
        batch.put(crash_key(number, 0), value.as_slice());
        batch.put(crash_key(number, 1), value.as_slice());
        batch.put(Key::from_slice(b"last"), number.to_be_bytes().as_slice());
        engine.commit(&batch).unwrap();
        writeln!(out, "acknowledged {number}").unwrap();
    }
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[..8].try_into().unwrap())
}

fn last_number(engine: &dyn Engine) -> u64 {
    engine.get(b"last").unwrap().map_or(0, |value| number(&value))
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let directory = TempDir::new().unwrap();
    for crash in 0..CRASHES {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["crash_child", "--exact", "--nocapture"])
            .env(CRASH_STORE, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // From the very first commit to after several tables have been written and merged.
        let wanted = 1 + crash * crash * 150;
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut acknowledged = Vec::new();
        let mut line = String::new();
        while (acknowledged.len() as u64) < wanted && lines.read_line(&mut line).unwrap() > 0 {
            acknowledged.extend(line.trim().strip_prefix("acknowledged ").map(|n| n.parse::<u64>().unwrap()));
            line.clear();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        // The last line may be half a line.
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let late = whole.lines().filter_map(|line| line.strip_prefix("acknowledged "));
        acknowledged.extend(late.map(|n| n.parse::<u64>().unwrap()));
        assert!(acknowledged.len() as u64 >= wanted, "the child ended by itself");

        let store = FjallStore::open(directory.path(), SMALL).unwrap();
        let engine = store.engine("crash").unwrap();
        let (last, acked) = (last_number(&engine), *acknowledged.last().unwrap());
        assert!(
            last == acked || last == acked + 1,
            "crash {crash}: {acked} was acknowledged, {last} is there"
        );
        for n in last.saturating_sub(CRASH_SLOTS - 1).max(1)..=last {
            let halves =
                [0, 1].map(|half| engine.get(&crash_key(n, half)).unwrap().map(|value| number(&value)));
            assert_eq!(halves, [Some(n); 2], "crash {crash}: a commit is there wholly");
        }
    }
}
