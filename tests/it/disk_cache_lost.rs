//! Promise: a disk cache is never needed. Whatever becomes of its files, its directory, its disk or its setting costs time
//! and no byte.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::fs::Advice;
use rustix::process::Signal;
use tests::{SmallDisk, World, ok, run, wait_until};

use crate::disk_cache::{
    MIB, by_address, fetched, files_of, gets, in_cache, metric, remount, set_cache, stored, world,
};
use crate::help::{SOON, binaries};

/// From then on an address of two seconds is of no use.
const LEASE_ENDS: Duration = Duration::from_secs(3);

#[test]
fn a_crash_keeps_the_cache_and_what_is_damaged_is_fetched_again() {
    let mut world = world();
    let dir = world.mounted("a");
    let names = ["whole", "flipped", "cut", "lost", "bare"];
    let bytes: Vec<_> =
        names.iter().zip(0..).map(|(name, seed)| stored(&world, &dir.join(name), seed, 5 * MIB)).collect();
    let read = |world: &World| {
        for (name, bytes) in names.iter().zip(&bytes) {
            assert!(fs::read(world.mount_point("a").join(name)).unwrap() == *bytes, "{name}");
        }
    };
    remount(&world, "a");
    read(&world);
    let mut held = File::open(dir.join("whole")).unwrap();
    world.vmds().signal(Signal::KILL);
    let mut all = Vec::new();
    held.read_to_end(&mut all).unwrap();
    assert!(all == bytes[0]);
    world.crash_controller();
    held.read_exact_at(&mut [0; 100], 0).unwrap();
    drop(held);
    remount(&world, "a");
    world.objects().forget_requests();
    read(&world);
    assert_eq!(gets(&world), 0, "it is found again");

    let cached = |name: &str| in_cache(&world.cache_dir(), &dir.join(name));
    let file = OpenOptions::new().read(true).write(true).open(cached("flipped")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 3 * MIB as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 3 * MIB as u64).unwrap();
    OpenOptions::new().write(true).open(cached("cut")).unwrap().set_len(4 * MIB as u64).unwrap();
    fs::remove_file(cached("lost")).unwrap();
    // What somebody puts there is not taken for anything.
    fs::remove_file(cached("bare")).unwrap();
    fs::write(cached("bare"), vec![0; 5 * MIB]).unwrap();
    remount(&world, "a");
    world.objects().forget_requests();
    read(&world);
    // What was read of a file before its damage was met need not be fetched.
    let fetched = fetched(&world) / MIB as u64;
    assert!((16..=20).contains(&fetched), "all four, and no more: {fetched} MiB");
    assert_eq!(metric(&world, "damaged_total"), 1);
    remount(&world, "a");
    read(&world);
    world.restart_controller();
    world.objects().forget_requests();
    read(&world);
    assert_eq!(gets(&world), 0);
    world.ctl(&["check"]);
}

#[test]
fn a_full_disk_of_the_cache_costs_time_and_no_byte() {
    let disk = SmallDisk::mount(16 << 20);
    let cache = disk.path().join("cache");
    let cached = ["--disk-cache", cache.to_str().unwrap(), "--disk-cache-bytes", "1GiB"];
    let more = [&cached[..], &["--lease-seconds", "2"]].concat();
    let mut world = World::start_on_objects_with(binaries(), &[], &more);
    let dir = world.mounted("a");
    let names = ["a", "b", "c", "d"];
    let bytes: Vec<_> =
        names.iter().zip(0..).map(|(name, seed)| stored(&world, &dir.join(name), seed, 9 * MIB)).collect();
    let dir = remount(&world, "a");
    world.objects().forget_requests();
    // All are open: nothing can go.
    let mut open = Vec::new();
    for (name, bytes) in names.iter().zip(&bytes) {
        let mut file = File::open(dir.join(name)).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == *bytes, "{name}");
        open.push(file);
    }
    assert!(by_address(&world) > 0, "what had no room");
    // Whoever has begun with addresses goes on with addresses, also under another controller.
    let file = &open[3];
    // Of what was read the kernel has a copy.
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).unwrap();
    let look = |world: &World, at: usize| {
        let (mut some, before) = ([0; 100], by_address(world));
        file.read_exact_at(&mut some, at as u64).unwrap();
        assert_eq!(some, bytes[3][at..at + 100]);
        assert!(by_address(world) > before);
    };
    look(&world, MIB);
    thread::sleep(LEASE_ENDS);
    look(&world, 4 * MIB);
    world.crash_controller();
    thread::sleep(LEASE_ENDS);
    look(&world, 7 * MIB);
    drop(open);
    let dir = remount(&world, "a");
    for (name, bytes) in names.iter().zip(&bytes) {
        assert!(fs::read(dir.join(name)).unwrap() == *bytes, "{name}");
    }
    assert!(metric(&world, "evictions_total") > 0, "what nobody has open goes");
    fs::write(dir.join("new"), &bytes[0]).unwrap();
    assert!(fs::read(dir.join("new")).unwrap() == bytes[0]);
    world.ctl(&["check"]);
    drop(world);
}

#[test]
fn a_directory_of_the_cache_that_is_lost_keeps_nobody_from_reading() {
    let mut world = world();
    let dir = world.mounted("a");
    let bytes = stored(&world, &dir.join("file"), 8, 9 * MIB);
    let dir = remount(&world, "a");
    let file = File::open(dir.join("file")).unwrap();
    let mut some = [0; 100];
    let mut look = |file: &File, at: usize| {
        file.read_exact_at(&mut some, at as u64).unwrap();
        assert_eq!(some, bytes[at..at + 100]);
    };
    look(&file, 3 * MIB);
    fs::remove_dir_all(world.cache_dir()).unwrap();
    look(&file, 7 * MIB);
    drop(file);
    let dir = remount(&world, "a");
    assert!(fs::read(dir.join("file")).unwrap() == bytes && by_address(&world) > 0);

    // Nor at a start.
    fs::create_dir(world.cache_dir()).unwrap();
    world.restart_controller();
    assert!(fs::read(dir.join("file")).unwrap() == bytes);
    fs::write(dir.join("new"), &bytes).unwrap();
    let why = || world.ctl(&["pool", "show", "objects"]);
    wait_until("it is told", SOON, || why().contains("open to others (mode 0755); make it 0700"));
    fs::set_permissions(world.cache_dir(), fs::Permissions::from_mode(0o700)).unwrap();
    world.restart_controller();
    assert!(fs::read(dir.join("file")).unwrap() == bytes);
    assert!(in_cache(&world.cache_dir(), &dir.join("file")).exists());
}

#[test]
fn what_nobody_needs_any_more_leaves_the_cache() {
    let world = world();
    let dir = world.mounted("a");
    for name in ["removed", "replaced", "kept"] {
        stored(&world, &dir.join(name), 3, 100_000);
    }
    let cache = world.cache_dir();
    let dir = remount(&world, "a");
    let read_all = |dir: &Path| ["removed", "replaced", "kept"].map(|name| fs::read(dir.join(name)).is_ok());
    assert_eq!((read_all(&dir), files_of(&cache).len()), ([true; 3], 3));
    fs::remove_file(dir.join("removed")).unwrap();
    fs::rename(dir.join("kept"), dir.join("replaced")).unwrap();
    wait_until("the files that are gone are gone from the cache", SOON, || files_of(&cache).len() == 1);
    let objects = || world.ctl_json(&["pool", "show", "objects"])["status"]["diskCache"].clone();
    assert_eq!(objects()["bytesMax"], 256 << 20);

    // What has come without the controller: a file that says nothing of itself, one of no inode, and one that is none.
    let kept = in_cache(&cache, &dir.join("replaced"));
    fs::write(kept.with_file_name("ffe"), "nothing").unwrap();
    ok(Command::new("cp").arg("--preserve=all").arg(&kept).arg(kept.with_file_name("fff")));
    fs::write(cache.join("readme"), "not of the cache").unwrap();
    set_cache(&world, Some((&cache, "128MiB")));
    wait_until("the cache has another size", SOON, || objects()["bytesMax"] == 128 << 20);
    wait_until("what says nothing is removed", SOON, || files_of(&cache).len() == 3);
    world.ctl(&["pool", "check", "objects"]);
    assert!(kept.exists() && files_of(&cache).len() == 2);

    let elsewhere = world.dir().join("elsewhere");
    set_cache(&world, Some((&elsewhere, "128MiB")));
    wait_until("it is somewhere else", SOON, || files_of(&cache) == [cache.join("readme").to_str().unwrap()]);
    let dir = remount(&world, "a");
    assert!(fs::read(dir.join("replaced")).is_ok() && files_of(&elsewhere).len() == 1);
    set_cache(&world, None);
    wait_until("there is none", SOON, || files_of(&elsewhere).is_empty() && objects().is_null());
    let dir = remount(&world, "a");
    world.objects().forget_requests();
    assert!(fs::read(dir.join("replaced")).is_ok() && by_address(&world) > 0);

    set_cache(&world, Some((&elsewhere, "128MiB")));
    wait_until("there is one again", SOON, || !objects().is_null());
    let dir = remount(&world, "a");
    assert!(fs::read(dir.join("replaced")).is_ok() && files_of(&elsewhere).len() == 1);
    world.ctl(&["umount", dir.to_str().unwrap()]);
    world.ctl(&["tenant", "delete", "a", "--purge"]);
    assert!(files_of(&elsewhere).is_empty());
    world.ctl(&["pool", "remove", "objects"]);
}

#[test]
fn a_directory_that_cannot_be_a_cache_is_refused_in_a_sentence() {
    let world = World::start_on_objects(binaries());
    let (dir, staging) = (world.dir(), world.dir().join("stage"));
    let credentials = format!("file:{}", world.dir().join("credentials").display());
    let endpoint = world.objects().endpoint();
    let refused = |cache: &Path, size: &str| {
        let pool = ["pool", "add", "second", "--s3", "vmds/second", "--path-style", "--endpoint", &endpoint];
        let more = ["--credentials", &credentials, "--staging", staging.to_str().unwrap()];
        let cache = ["--disk-cache", cache.to_str().unwrap(), "--disk-cache-bytes", size];
        let told = world.ctl_refuses(&[&pool[..], &more, &cache].concat());
        run(&mut world.ctl_command(&["pool", "remove", "second"]));
        told
    };
    let said = |told: String, part: &str| assert!(told.contains(part), "{part} is not in {told}");
    fs::create_dir(dir.join("open")).unwrap();
    said(refused(&dir.join("open"), "1GiB"), "is open to others (mode 0755); make it 0700");
    fs::write(dir.join("file"), "").unwrap();
    said(refused(&dir.join("file"), "1GiB"), "cannot be made");
    said(refused(&staging.join("cache"), "1GiB"), "give another directory");
    said(refused(&world.backing_dir(), "1GiB"), "two pools need two directories");
    said(refused(Path::new("/proc/1"), "1GiB"), "disk cache directory");
    said(refused(&dir.join("cache"), "1MiB"), "a disk cache has at least 16MiB");
}
