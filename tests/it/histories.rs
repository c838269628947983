//! Promise: whatever sequence of calls programs make, it is answered as on a local file system, and leaves the same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, mount_bind, mount_remount};
use tests::{Histories, Trees, World, full, wait_until};

use crate::help::world;

/// How many histories of each kind, every day and in full.
const COUNT: (u32, u32) = (100, 4_000);
/// Most steps in one.
const STEPS: usize = 120;
/// How long the room of a file that was removed while it was open may be charged after it was closed.
const RECLAIM: Duration = Duration::from_secs(2);
/// Of those that wait for the clock before each step there are fewer by this factor.
const WAITING: u32 = 10;

/// The seed is the same every day; `VMDS_TEST_SEED` is another one.
fn kind() -> Histories {
    let seed = std::env::var("VMDS_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let count = if full() { COUNT.1 } else { COUNT.0 };
    Histories { seed, count, steps: STEPS, pipes: true, alone: true, patient: false, holes: true }
}

/// A directory of the file system that holds the pools, mounted such that reading leaves `atime` as it is: so do
/// mounts of VMDS.
fn local(world: &World) -> PathBuf {
    let dir = world.dir().join("local");
    fs::create_dir(&dir).unwrap();
    mount_bind(&dir, &dir).unwrap();
    mount_remount(&dir, MountFlags::BIND | MountFlags::NOATIME, "").unwrap();
    dir
}

/// Creates and mounts a tenant, with everything that a local file system has.
fn mounted(world: &World, tenant: &str, settings: &[&str]) -> PathBuf {
    world.tenant_with(tenant, settings);
    let dir = world.mount_point(tenant);
    fs::create_dir_all(&dir).unwrap();
    world.mount_at(tenant, &dir, &["--suid", "--dev"]);
    dir
}

/// Tries histories on a tree: on `tried`, which are all ways to one directory.
fn histories(world: &World, tried: Vec<PathBuf>, kind: Histories, after: impl Fn()) {
    let trees = Trees::new(local(world), tried);
    // An object has none.
    trees.try_histories(Histories { holes: !world.has_objects(), ..kind }, after);
    world.ctl(&["check"]);
}

#[test]
fn a_tree_answers_like_a_local_one() {
    let world = world();
    let alice = mounted(&world, "alice", &[]);
    histories(&world, vec![alice], kind(), || {});
}

#[test]
fn times_move_as_in_a_local_tree() {
    let world = world();
    let alice = mounted(&world, "alice", &[]);
    // Nobody tells a mount of what is written to a pipe.
    let kind = Histories { count: kind().count / WAITING, patient: true, pipes: false, ..kind() };
    histories(&world, vec![alice], kind, || {});
}

#[test]
fn a_tree_with_a_quota_answers_like_a_local_one_and_is_charged_exactly() {
    let world = world();
    let alice = mounted(&world, "alice", &["--quota-bytes", "1GiB", "--quota-inodes", "10000"]);
    histories(&world, vec![alice.clone()], kind(), || {
        // Nothing is open, so what is charged is what is there; what was removed while it was open, in a moment.
        let (files, bytes) = sizes(&alice);
        wait_until("what is charged is what is there", RECLAIM, || {
            let space = rustix::fs::statvfs(&alice).unwrap();
            let charged = (space.f_files - space.f_ffree, space.f_blocks - space.f_bfree);
            charged == (files, bytes.div_ceil(space.f_frsize))
        });
    });
}

/// How many inodes there are, the root included, and the sizes of all files together.
fn sizes(root: &Path) -> (u64, u64) {
    let mut files = BTreeMap::from([(fs::metadata(root).unwrap().ino(), 0)]);
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            files.insert(metadata.ino(), if metadata.is_file() { metadata.len() } else { 0 });
            if metadata.is_dir() {
                dirs.push(path);
            }
        }
    }
    (files.len() as u64, files.values().sum())
}

#[test]
fn a_shared_tree_answers_its_grantee_like_a_local_one() {
    let world = world();
    let (alice, bob) = (mounted(&world, "alice", &[]), mounted(&world, "bob", &[]));
    fs::create_dir(alice.join("set")).unwrap();
    world.ctl(&["share", "grant", "alice:/set", "bob:/set", "--rw"]);
    histories(&world, vec![bob.join("set")], kind(), || {});
}

#[test]
fn a_shared_tree_answers_both_sides_like_one_local_one() {
    let world = world();
    let (alice, bob) = (mounted(&world, "alice", &[]), mounted(&world, "bob", &[]));
    fs::create_dir(alice.join("set")).unwrap();
    world.ctl(&["share", "grant", "alice:/set", "bob:/set", "--rw"]);
    let kind = Histories { pipes: false, alone: false, ..kind() };
    histories(&world, vec![alice.join("set"), bob.join("set")], kind, || {});
}

#[test]
fn a_tree_that_is_mounted_twice_answers_like_one_local_one() {
    let world = world();
    let alice = mounted(&world, "alice", &[]);
    let again = world.mount_point("again");
    fs::create_dir_all(&again).unwrap();
    world.mount_at("alice", &again, &["--suid", "--dev"]);
    let kind = Histories { pipes: false, ..kind() };
    histories(&world, vec![alice, again], kind, || {});
}
