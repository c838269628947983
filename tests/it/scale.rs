//! Promise: many files are no different from few. `VMDS_TEST_FULL=1` asks for the large sizes.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use address_map::attr::{Caller, NewMode};
use address_map::check::check;
use address_map::clock::SystemClock;
use address_map::engine::{FjallOptions, FjallStore};
use address_map::ids::{Ino, PoolId, ShardId, TenantId};
use address_map::map::{AddressMap, Tree};
use address_map::name::Name;
use address_map::namespace::{create, list, lookup, tenant};
use address_map::record::{Entry, Quota};
use address_map::shard::Shard;
use address_map::wire::Make;

use crate::help::{names, world};

/// Files of a run: fewer unless the full run is asked for.
fn size(small: usize, full: usize) -> usize {
    if std::env::var_os("VMDS_TEST_FULL").is_some_and(|v| v == "1") { full } else { small }
}

/// Files per directory.
const PER_DIR: usize = 2_000;

#[test]
fn many_files_through_a_mount() {
    let files = size(10_000, 200_000);
    let mut world = world();
    let dir = world.mounted("alice");
    let before = used_inodes(&dir);
    in_two_halves(files, |number| {
        let parent = dir.join((number / PER_DIR).to_string());
        if number % PER_DIR == 0 {
            fs::create_dir(&parent).unwrap();
        }
        fs::write(parent.join(number.to_string()), number.to_string()).unwrap();
    });
    let dirs = files.div_ceil(PER_DIR);
    assert_eq!(used_inodes(&dir) - before, (files + dirs) as u64);
    world.restart_controller();
    assert_eq!(names(&dir).len(), dirs);
    for number in (0..files).step_by(97) {
        let path = dir.join((number / PER_DIR).to_string()).join(number.to_string());
        assert_eq!(fs::read_to_string(path).unwrap(), number.to_string());
    }
    world.ctl(&["check"]);
    tests::run_within(
        std::time::Duration::from_secs(600),
        std::process::Command::new("rm").arg("-r").args(names(&dir).iter().map(|name| dir.join(name))),
    );
    assert_eq!(names(&dir), [""; 0]);
    assert_eq!(used_inodes(&dir), before);
    world.ctl(&["check"]);
}

fn used_inodes(dir: &Path) -> u64 {
    let space = rustix::fs::statvfs(dir).unwrap();
    space.f_files - space.f_ffree
}

/// Does `work` for all numbers on two threads; each takes whole directories.
fn in_two_halves(count: usize, work: impl Fn(usize) + Sync) {
    let middle = count / 2 / PER_DIR * PER_DIR;
    thread::scope(|scope| {
        scope.spawn(|| (0..middle).for_each(&work));
        scope.spawn(|| (middle..count).for_each(&work));
    });
}

#[test]
fn many_tenants_on_one_machine() {
    let tenants = size(15, 200);
    let world = world();
    for number in 0..tenants {
        let dir = world.mounted(&format!("t{number}"));
        fs::write(dir.join("name"), number.to_string()).unwrap();
    }
    assert_eq!(world.vmdses().len(), tenants);
    for number in 0..tenants {
        let path = world.mount_point(&format!("t{number}")).join("name");
        assert_eq!(fs::read_to_string(path).unwrap(), number.to_string());
    }
    world.ctl(&["check"]);
}

#[test]
fn sharing_a_large_tree_copies_nothing() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("large")).unwrap();
    tests::tree(&alice.join("large"), 3, size(5_000, 50_000));
    fs::write(alice.join("small"), "").unwrap();
    let records =
        |world: &tests::World| world.ctl_json(&["tenant", "show", "bob"])["status"]["usage"].clone();
    let before = records(&world);
    world.ctl(&["share", "grant", "alice:/large", "bob:/large", "--ro"]);
    world.ctl(&["share", "grant", "alice:/small", "bob:/small", "--ro"]);
    assert_eq!(records(&world), before, "nothing is copied");
    assert!(!names(&bob.join("large")).is_empty());
    world.ctl(&["share", "revoke", "alice:/large", "bob"]);
    assert_eq!(names(&bob), ["small"]);
}

/// The only tenant of a map of its own, kept in a directory.
fn open_map(dir: &Path) -> Tree {
    let store = FjallStore::open(dir, FjallOptions::default()).unwrap();
    let shard = Arc::new(Shard::new(ShardId(0), Arc::new(store.engine("shard-0").unwrap()), 10_000));
    let map = AddressMap::new(vec![shard], Arc::new(SystemClock));
    map.route(TenantId(1), ShardId(0)).unwrap()
}

#[test]
fn a_map_of_many_files_is_the_same_after_reopening() {
    let files = size(50_000, 1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller { uid: 0, gid: 0 };
    let name = |number: usize| Name::new(number.to_string().as_bytes()).unwrap();
    let tree = open_map(dir.path());
    let new = tenant::NewTenant {
        pool: PoolId(1),
        quota: Quota::default(),
        uid: 0,
        gid: 0,
        mode: 0o755,
        name_key: 7,
    };
    tree.write(|txn| tenant::ensure(txn, &new)).unwrap();
    let mut parent = Ino::ROOT;
    for number in 0..files {
        if number % PER_DIR == 0 {
            let made = tree.write(|txn| {
                create::create(
                    txn,
                    Ino::ROOT,
                    &name(number / PER_DIR),
                    caller,
                    NewMode::exactly(0o755),
                    &Make::Directory,
                    false,
                )
            });
            parent = made.unwrap().ino;
        }
        tree.write(|txn| {
            create::create(txn, parent, &name(number), caller, NewMode::exactly(0o644), &Make::File, false)
        })
        .unwrap();
    }
    drop(tree);

    let tree = open_map(dir.path());
    let dirs = files.div_ceil(PER_DIR);
    let report = check(&tree.view()).unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!((report.inodes, report.entries), ((1 + dirs + files) as u64, (dirs + files) as u64));
    let view = tree.view();
    let mut listed = 0;
    list::list(&view, Ino::ROOT, 0, &mut |_| {
        listed += 1;
        Ok(true)
    })
    .unwrap();
    assert_eq!(listed, dirs);
    for number in (0..files).step_by(101) {
        let (_, entry) = lookup::walk(&view, &[name(number / PER_DIR), name(number)]).unwrap();
        assert!(matches!(entry, Entry::Inode { .. }));
    }
}
