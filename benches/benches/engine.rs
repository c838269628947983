//! The engines: reading, scanning, committing, syncing, and opening a store again after many files were made.
//!
//! `VMDS_BENCH_FILES` says how many files are made before the figures are taken (default 100,000).

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use address_map::engine::{Batch, Engine, FjallOptions, FjallStore, MemoryEngine};
use address_map::ids::{Ino, TenantId};
use address_map::key;
use address_map::name::Name;
use benches::{Table, median, once, setting};
use dashmap::DashMap;

const TENANT: TenantId = TenantId(1);
/// Records of one scan.
const SCAN: usize = 1000;
/// Bytes of a record, as most inodes have.
const RECORD: [u8; 96] = [7; 96];
/// Engines of the store, as a controller opens them.
const SHARDS: usize = 16;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What making a file changes: the inode, its entry, the directory, the tenant.
fn make_file(number: u64) -> Batch {
    let name = Name::new(format!("file-{number}.dat").as_bytes()).expect("a name");
    let mut batch = Batch::default();
    batch.put(key::inode(TENANT, Ino(number + 2)), RECORD);
    batch.put(key::entry(TENANT, Ino::ROOT, number.wrapping_mul(0x9e37_79b9_7f4a_7c15), &name), [1; 12]);
    batch.put(key::inode(TENANT, Ino::ROOT), RECORD);
    batch.put(key::tenant(TENANT), RECORD);
    batch
}

struct Figures {
    get: Duration,
    scan: Duration,
    snapshot: Duration,
    commit: Duration,
    synced: Duration,
}

fn measure(engine: &dyn Engine, files: u64) -> Figures {
    let mut dice = Dice(1);
    let mut next = files;
    let mut commit = || {
        engine.commit(&make_file(next)).expect("commit");
        next += 1;
    };
    Figures {
        get: median(20_000, || {
            let inode = key::inode(TENANT, Ino(2 + dice.below(files)));
            black_box(engine.get(&inode).expect("get").expect("an inode"));
        }),
        scan: median(50, || {
            let mut seen = 0;
            let mut visit = |_: &[u8], value: &[u8]| {
                black_box(value);
                seen += 1;
                Ok(seen < SCAN)
            };
            engine.scan(&key::entries(TENANT, Ino::ROOT), None, &mut visit).expect("scan");
        }),
        snapshot: median(20_000, || drop(black_box(engine.snapshot().expect("snapshot")))),
        commit: median(2_000, &mut commit),
        synced: median(50, || {
            commit();
            engine.sync().expect("sync");
        }),
    }
}

/// What no engine can be faster than on this machine.
fn floors(directory: &Path) -> Figures {
    let map: DashMap<u64, [u8; 96]> = (0..100_000).map(|i| (i, RECORD)).collect();
    let mut dice = Dice(1);
    let sorted: BTreeMap<u64, [u8; 96]> = (0..100_000).map(|i| (i, RECORD)).collect();
    let shared = Arc::new(());
    let mut file = File::create(directory.join("raw")).expect("a file");
    let mut write = || file.write_all(&[1; 4 * RECORD.len()]).expect("write");
    Figures {
        get: median(20_000, || drop(black_box(map.get(&dice.below(100_000)).expect("there")))),
        scan: median(50, || {
            sorted.iter().take(SCAN).for_each(|pair| {
                black_box(pair);
            });
        }),
        snapshot: median(20_000, || drop(black_box(shared.clone()))),
        commit: median(2_000, &mut write),
        synced: {
            let mut file = File::create(directory.join("raw-synced")).expect("a file");
            median(50, || {
                file.write_all(&[1; 4 * RECORD.len()]).expect("write");
                file.sync_data().expect("sync");
            })
        },
    }
}

fn main() {
    let files = u64::from(setting("VMDS_BENCH_FILES", 100_000)).max(1);
    let directory = tempfile::tempdir().expect("a directory");
    let floor = floors(directory.path());
    let mut table = Table::default();
    let mut rows = |who: &str, figures: &Figures| {
        table.row("get", who, figures.get, ("DashMap", floor.get));
        table.row("scan of 1,000", who, figures.scan, ("BTreeMap", floor.scan));
        table.row("snapshot", who, figures.snapshot, ("Arc", floor.snapshot));
        table.row("commit of a new file", who, figures.commit, ("write", floor.commit));
        table.row("commit and sync", who, figures.synced, ("fdatasync", floor.synced));
    };

    let memory = MemoryEngine::new();
    for i in 0..files {
        memory.commit(&make_file(i)).expect("commit");
    }
    rows("memory", &measure(&memory, files));

    let path = directory.path().join("store");
    let open = || FjallStore::open(&path, FjallOptions::default()).expect("a store");
    let store = open();
    let engines: Vec<_> =
        (0..SHARDS).map(|i| store.engine(&format!("shard-{i}")).expect("an engine")).collect();
    let mut worst = Duration::ZERO;
    let (load, ()) = once(|| {
        for i in 0..files {
            let (took, _) = once(|| engines[0].commit(&make_file(i)).expect("commit"));
            worst = worst.max(took);
        }
    });
    rows("fjall", &measure(&engines[0], files));
    drop((engines, store));
    let (opened, store) = once(open);
    table.row("open again, one shard used", "fjall", opened, ("a second", Duration::from_secs(1)));

    let engines: Vec<_> =
        (0..SHARDS).map(|i| store.engine(&format!("shard-{i}")).expect("an engine")).collect();
    for i in 0..files {
        engines[i as usize % SHARDS].commit(&make_file(i)).expect("commit");
    }
    drop((engines, store));
    let (opened, store) = once(open);
    table.row("open again, all shards used", "fjall", opened, ("a second", Duration::from_secs(1)));

    println!(
        "{files} files; {:.0} made per second, the slowest took {worst:?}",
        files as f64 / load.as_secs_f64()
    );
    println!("{} MiB on disk", store.disk_bytes().expect("a size") >> 20);
    print!("{}", table.render());
}
