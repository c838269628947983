//! Many files through the library, on the engine that is used in production. `VMDS_SCALE_FILES` says how many
//! (20,000 unless told otherwise; the figures of a million are in `docs/decisions/`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail right there")]

use std::sync::Arc;
use std::time::Instant;

use address_map::attr::{Caller, NewMode};
use address_map::clock::SystemClock;
use address_map::engine::{FjallOptions, FjallStore};
use address_map::ids::{Ino, PoolId, ShardId, TenantId};
use address_map::map::{AddressMap, Tree};
use address_map::name::Name;
use address_map::namespace::{create, list, lookup, tenant};
use address_map::record::Quota;
use address_map::shard::{Records, Shard};
use address_map::wire::Make;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const FILES_PER_DIRECTORY: u64 = 10_000;

fn open(path: &std::path::Path) -> Tree {
    let store = FjallStore::open(path, FjallOptions::default()).unwrap();
    let shard = Arc::new(Shard::new(ShardId(0), Arc::new(store.engine("shard-0").unwrap()), 65_536));
    AddressMap::new(vec![shard], Arc::new(SystemClock)).route(TenantId(1), ShardId(0)).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn many_files_are_made_found_and_there_after_reopening() {
    let files: u64 = std::env::var("VMDS_SCALE_FILES").map_or(20_000, |files| files.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let tree = open(dir.path());
    let new = tenant::NewTenant {
        pool: PoolId(1),
        quota: Quota::default(),
        uid: 0,
        gid: 0,
        mode: 0o755,
        name_key: 1,
    };
    tree.write(|txn| tenant::ensure(txn, &new)).unwrap();

    let began = Instant::now();
    let mut directory = Ino::ROOT;
    for number in 0..files {
        tree.write(|txn| {
            if number % FILES_PER_DIRECTORY == 0 {
                let name = name(&format!("d{number}"));
                directory = create::create(
                    txn,
                    Ino::ROOT,
                    &name,
                    CALLER,
                    NewMode::exactly(0o755),
                    &Make::Directory,
                    false,
                )?
                .ino;
            }
            create::create(
                txn,
                directory,
                &name(&format!("f{number}")),
                CALLER,
                NewMode::exactly(0o644),
                &Make::File,
                true,
            )
        })
        .unwrap();
    }
    println!("{files} files made, {:.0} per second", files as f64 / began.elapsed().as_secs_f64());
    drop(tree);

    let began = Instant::now();
    let tree = open(dir.path());
    let first = lookup::walk(&tree.view(), &[name("d0"), name("f1")]).unwrap();
    println!("reopened and first file found after {:?}", began.elapsed());
    let mut listed = 0;
    list::list(&tree.view(), first.0, 0, &mut |_| {
        listed += 1;
        Ok(true)
    })
    .unwrap();
    assert_eq!(listed, files.min(FILES_PER_DIRECTORY));
    let began = Instant::now();
    let report = address_map::check::check(&tree.view()).unwrap();
    println!("checked in {:?}", began.elapsed());
    assert!(report.is_clean(), "{:?}", report.problems);
    let directories = files.div_ceil(FILES_PER_DIRECTORY);
    assert_eq!(report.inodes, files + directories + 1);
    assert_eq!(tree.view().tenant_record().unwrap().usage.inodes, report.inodes);
}
