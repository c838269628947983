//! Promise: what was read from an object store is read again from a disk of this machine, as far as the operator gives
//! room; what that costs is never a wrong byte, an error or a right.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::s3::RequestKind;
use tests::{Random, World, fds_of, full, ok, run, wait_until};

use crate::help::{SOON, assert_errno, await_nothing_staged, binaries};

pub(crate) const MIB: usize = 1 << 20;
/// The least that is fetched for the cache at once.
const CHUNK: u64 = 2 << 20;

/// A world whose cache has room for all that is read.
pub(crate) fn world() -> World {
    World::start_on_cached_objects(binaries(), "256MiB")
}

/// Writes a file and waits until it is in the store.
pub(crate) fn stored(world: &World, path: &Path, seed: u64, size: usize) -> Vec<u8> {
    let bytes = Random::new(seed).bytes(size);
    fs::write(path, &bytes).unwrap();
    await_nothing_staged(world);
    bytes
}

/// Mounts a tenant anew: the kernel has nothing in memory. Programs that tests beside this one start inherit open files
/// for a moment.
pub(crate) fn remount(world: &World, tenant: &str) -> PathBuf {
    let dir = world.mount_point(tenant);
    let umount = || run(&mut world.ctl_command(&["umount", dir.to_str().unwrap()]));
    wait_until("nobody uses the mount", SOON, || umount().status.success());
    world.mount(tenant)
}

/// The file of the cache that belongs to a file of the only tenant, or of the first.
pub(crate) fn in_cache(cache: &Path, file: &Path) -> PathBuf {
    let ino = fs::metadata(file).unwrap().ino();
    cache.join(format!("{:08x}/{:x}/{ino:x}", 1, ino >> 12))
}

pub(crate) fn files_of(dir: &Path) -> Vec<String> {
    let found = run(Command::new("find").arg(dir).args(["-type", "f"]));
    found.stdout.lines().map(str::to_owned).collect()
}

/// Bytes of all answers of the store that have some.
pub(crate) fn fetched(world: &World) -> u64 {
    let gets = world.objects().requests_of(RequestKind::GetObject).into_iter();
    gets.filter_map(|get| get.range()).map(|range| range.end() - range.start() + 1).sum()
}

pub(crate) fn gets(world: &World) -> u64 {
    world.objects().count(RequestKind::GetObject)
}

/// How many of them VMDSes have made, with addresses.
pub(crate) fn by_address(world: &World) -> usize {
    world.objects().requests_of(RequestKind::GetObject).iter().filter(|get| get.presigned).count()
}

/// A metric of the pool.
pub(crate) fn metric(world: &World, name: &str) -> u64 {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--unix-socket"]).arg(world.run_dir().join("api.sock"));
    let text = ok(curl.arg("http://vmds/metrics"));
    let line = format!("vmds_disk_cache_{name}{{pool=\"objects\"}} ");
    let value = text.lines().find_map(|found| found.strip_prefix(&line));
    value.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
}

pub(crate) fn set_cache(world: &World, cache: Option<(&Path, &str)>) {
    let mut pool = world.ctl_json(&["pool", "show", "objects"]);
    let spec = pool["spec"]["s3"].as_object_mut().unwrap();
    spec.remove("diskCache");
    if let Some((directory, bytes)) = cache {
        spec.insert("diskCache".to_owned(), json!({"directory": directory, "bytes": bytes}));
    }
    let manifest = json!({"apiVersion": "vmds/v1", "kind": "Pool",
        "metadata": {"name": "objects"}, "spec": pool["spec"]});
    let file = world.dir().join("pool.json");
    fs::write(&file, manifest.to_string()).unwrap();
    world.ctl(&["apply", "--wait", "-f", file.to_str().unwrap()]);
}

#[test]
fn what_was_read_once_is_read_again_without_asking_the_store() {
    let world = world();
    let dir = world.mounted("a");
    let large = stored(&world, &dir.join("large"), 1, 20 * MIB + 5);
    let small = stored(&world, &dir.join("small"), 2, 100_000);
    let dir = remount(&world, "a");
    world.objects().forget_requests();

    // Of a part only that is fetched, and once, however many ask for it.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut some = [0; 100];
                File::open(dir.join("large")).unwrap().read_exact_at(&mut some, 11 * MIB as u64).unwrap();
                assert_eq!(some, large[11 * MIB..11 * MIB + 100]);
            });
        }
    });
    assert_eq!((fetched(&world), by_address(&world)), (CHUNK, 0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(fs::read(dir.join("large")).unwrap() == large));
        }
    });
    assert!(fs::read(dir.join("small")).unwrap() == small);
    assert_eq!(fetched(&world), (large.len() + small.len()) as u64, "each byte once");

    let dir = remount(&world, "a");
    world.objects().forget_requests();
    assert!(fs::read(dir.join("large")).unwrap() == large && fs::read(dir.join("small")).unwrap() == small);
    assert_eq!(gets(&world), 0);
    // Nor does who changes it, who needs what is around that.
    let mut changed = large.clone();
    changed[11 * MIB] ^= 1;
    OpenOptions::new()
        .write(true)
        .open(dir.join("large"))
        .unwrap()
        .write_all_at(&[changed[11 * MIB]], 11 << 20)
        .unwrap();
    assert_eq!(gets(&world), 0);
    await_nothing_staged(&world);
    // A copy of its own has nothing to do with it.
    ok(Command::new("cp").arg(dir.join("large")).arg(dir.join("copy")));
    await_nothing_staged(&world);
    assert!(
        fs::read(dir.join("large")).unwrap() == changed && fs::read(dir.join("copy")).unwrap() == changed
    );

    let private = |path: &Path, mode| assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, mode);
    let cached = in_cache(&world.cache_dir(), &dir.join("large"));
    private(&cached, 0o600);
    cached.ancestors().skip(1).take(3).for_each(|path| private(path, 0o700));
    assert!(metric(&world, "hits_total") > 10 && metric(&world, "misses_total") > 0);
    assert!(metric(&world, "bytes") >= (large.len() + small.len()) as u64);
    assert_eq!((metric(&world, "bytes_max"), metric(&world, "damaged_total")), (256 << 20, 0));
    // With less room it keeps less.
    let objects = metric(&world, "objects");
    set_cache(&world, Some((&world.cache_dir(), "16MiB")));
    wait_until("all is found again", SOON, || {
        (metric(&world, "bytes_max"), metric(&world, "objects")) == (16 << 20, objects)
    });
    wait_until("the bound holds", SOON, || {
        world.ctl(&["pool", "check", "objects"]);
        metric(&world, "bytes") <= 16 << 20
    });
    assert!(metric(&world, "evictions_total") > 0 && fs::read(dir.join("large")).unwrap() == changed);
    world.ctl(&["check"]);
}

#[test]
fn the_least_recently_used_goes_and_what_is_open_stays() {
    let world = World::start_on_cached_objects(binaries(), "16MiB");
    let dir = world.mounted("a");
    let names = ["open", "old", "new", "last"];
    let bytes: Vec<_> =
        names.iter().zip(0..).map(|(name, seed)| stored(&world, &dir.join(name), seed, 6 * MIB)).collect();
    let dir = remount(&world, "a");
    let cached = |name: &str| in_cache(&world.cache_dir(), &dir.join(name));
    // The kernel closes what was read in its own time.
    let only_open = |count: usize| {
        let descriptors = || fds_of(world.vmds()).into_iter().map(|(_, path)| path);
        wait_until("what was read is not open any more", SOON, || {
            descriptors().filter(|path| path.starts_with(world.cache_dir())).count() == count
        });
    };
    let mut open = File::open(dir.join("open")).unwrap();
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == bytes[0] && fs::read(dir.join("old")).unwrap() == bytes[1]);
    assert!(cached("open").exists() && cached("old").exists());
    only_open(1);
    assert!(fs::read(dir.join("new")).unwrap() == bytes[2]);
    assert!(cached("open").exists() && !cached("old").exists() && cached("new").exists());
    drop(open);
    only_open(0);
    assert!(fs::read(dir.join("last")).unwrap() == bytes[3]);
    assert!(!cached("open").exists() && cached("new").exists() && cached("last").exists());
    assert_eq!(metric(&world, "evictions_total"), 2);

    // One that has no room beside what is open, nor alone: it is read all the same, and the bound holds.
    let large = stored(&world, &dir.join("large"), 9, 30 * MIB);
    let dir = remount(&world, "a");
    world.objects().forget_requests();
    assert!(fs::read(dir.join("large")).unwrap() == large);
    assert!(by_address(&world) > 0);
    assert!(metric(&world, "bytes") <= 16 << 20 && metric(&world, "no_room_total") > 0);
    for (name, bytes) in names.iter().zip(&bytes) {
        assert!(fs::read(dir.join(name)).unwrap() == *bytes, "{name}");
    }
    assert!(metric(&world, "bytes") <= 16 << 20);
}

#[test]
fn no_byte_of_before_is_read_after_a_change() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("dir")).unwrap();
    let path = alice.join("dir/file");
    let mut bytes = stored(&world, &path, 5, 20 * MIB);
    world.ctl(&["share", "grant", "alice:/dir", "bob:/dir", "--rw"]);
    let cached = in_cache(&world.cache_dir(), &path);
    remount(&world, "alice");
    let held = [File::open(&path).unwrap(), File::open(bob.join("dir/file")).unwrap()];
    // A file that is made anew is not the one that somebody has, though it holds the same.
    let mut some = [0; 100];
    held[0].read_exact_at(&mut some, 0).unwrap();
    fs::remove_file(&cached).unwrap();
    assert!(fs::read(bob.join("dir/file")).unwrap() == bytes && cached.exists());
    held[0].read_exact_at(&mut some, 9 << 20).unwrap();
    assert_eq!(some, bytes[9 * MIB..9 * MIB + 100]);
    let shown = |bytes: &[u8], when: &str| {
        for file in &held {
            let mut read = vec![0; bytes.len() + 1];
            let mut done = 0;
            loop {
                match file.read_at(&mut read[done..], done as u64).unwrap() {
                    0 => break,
                    more => done += more,
                }
            }
            assert!(read[..done] == *bytes, "{when}");
        }
    };
    shown(&bytes, "before");
    for (round, writer) in [&path, &bob.join("dir/file"), &path].into_iter().enumerate() {
        let file = OpenOptions::new().write(true).open(writer).unwrap();
        let at = round * 7 * MIB + 100;
        file.write_all_at(b"changed", at as u64).unwrap();
        bytes[at..at + 7].copy_from_slice(b"changed");
        let mut some = [0; 7];
        held[1].read_exact_at(&mut some, at as u64).unwrap();
        assert_eq!(&some, b"changed", "a grantee sees it at once");
        drop(file);
        await_nothing_staged(&world);
        shown(&bytes, "after a change");
        assert!(fs::read(&cached).unwrap() == bytes, "it is cached anew");
    }
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    bytes.extend_from_slice(b"more");
    shown(&bytes, "longer");
    OpenOptions::new().write(true).open(&path).unwrap().set_len(18 * MIB as u64).unwrap();
    bytes.truncate(18 * MIB);
    await_nothing_staged(&world);
    shown(&bytes, "shorter");
    fs::write(&path, b"in the map").unwrap();
    shown(b"in the map", "small");
    assert!(!cached.exists(), "what is small is not cached");
    drop(held);
    assert_eq!(fs::read(remount(&world, "alice").join("dir/file")).unwrap(), b"in the map");
    world.ctl(&["check"]);
}

/// Files that are changed and read on both sides of a share, of which the cache has room for half, while VMDSes die and what
/// is cached is removed.
#[test]
fn random_reads_and_changes_with_little_room_are_those_of_local_files() {
    let world = World::start_on_cached_objects(binaries(), "16MiB");
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("dir")).unwrap();
    let names = ["a", "b", "c", "d"];
    let mut files: Vec<_> = names
        .iter()
        .zip([5, 20, 9, 3])
        .map(|(name, size)| stored(&world, &alice.join("dir").join(name), size, size as usize * MIB + 77))
        .collect();
    world.ctl(&["share", "grant", "alice:/dir", "bob:/dir", "--rw"]);
    let sides = [alice.join("dir"), bob.join("dir")];
    let mut random = Random::new(std::env::var("VMDS_TEST_SEED").map_or(9, |seed| seed.parse().unwrap()));
    for round in 0..if full() { 100 } else { 12 } {
        let (which, side) = (random.below(4) as usize, random.below(2) as usize);
        let at = random.below(files[which].len() as u64 - 5000) as usize;
        let new = random.bytes(5000);
        let file = OpenOptions::new().write(true).open(sides[side].join(names[which])).unwrap();
        file.write_all_at(&new, at as u64).unwrap();
        drop(file);
        files[which][at..at + 5000].copy_from_slice(&new);
        thread::scope(|scope| {
            for reader in 0..6 {
                let mut random = Random::new(random.below(1 << 40));
                let (sides, files) = (&sides, &files);
                scope.spawn(move || {
                    let which = random.below(4) as usize;
                    let file = File::open(sides[reader % 2].join(names[which])).unwrap();
                    for _ in 0..10 {
                        let at = random.below(files[which].len() as u64) as usize;
                        let length = (random.below(3 * MIB as u64) as usize).min(files[which].len() - at);
                        let mut some = vec![0; length];
                        file.read_exact_at(&mut some, at as u64).unwrap();
                        assert!(
                            some == files[which][at..at + length],
                            "{round}: {length} at {at} of {which}"
                        );
                    }
                });
            }
            match random.below(3) {
                0 => world.vmdses()[random.below(2) as usize].signal(Signal::KILL),
                1 => {
                    let cached = files_of(&world.cache_dir());
                    let some = random.below(cached.len().max(1) as u64) as usize;
                    // It may have gone by itself.
                    cached.get(some).map(fs::remove_file);
                }
                _ => {}
            }
        });
    }
    for (name, bytes) in names.iter().zip(&files) {
        assert!(fs::read(sides[1].join(name)).unwrap() == *bytes, "{name}");
    }
    assert!(metric(&world, "bytes") <= 16 << 20);
    world.ctl(&["check"]);
}

#[test]
fn a_revoke_takes_cached_files_from_the_grantee() {
    let world = world();
    let alice = world.mounted("alice");
    fs::create_dir(alice.join("dir")).unwrap();
    let bytes = stored(&world, &alice.join("dir/file"), 6, 8 * MIB);
    let alice = remount(&world, "alice");
    assert!(fs::read(alice.join("dir/file")).unwrap() == bytes);
    let before = world.vmds();
    let bob = world.mounted("bob");
    let vmds = world.vmdses().into_iter().find(|vmds| *vmds != before).unwrap();
    let of_cache = || {
        let fds = fds_of(vmds).into_iter().map(|(_, path)| path);
        fds.filter(|path| path.starts_with(world.cache_dir())).count()
    };
    world.ctl(&["share", "grant", "alice:/dir", "bob:/in", "--ro"]);
    world.objects().forget_requests();
    let held = File::open(bob.join("in/file")).unwrap();
    let mut some = [0; 100];
    held.read_exact_at(&mut some, 5 * MIB as u64).unwrap();
    assert_eq!((some.as_slice(), gets(&world)), (&bytes[5 * MIB..5 * MIB + 100], 0), "one cache for all");
    assert_eq!(of_cache(), 1);
    for (fd, _) in fds_of(vmds).into_iter().filter(|(_, path)| path.starts_with(world.cache_dir())) {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", vmds.pid)).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        assert!(flags.ends_with('0'), "it reads and does nothing else: {info}");
    }
    wait_until("it is in the log of leases", SOON, || {
        let log = fs::read_to_string(world.state_dir().join("audit/leases.jsonl")).unwrap();
        let mut leases = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        leases.any(|lease| {
            let of_bob = lease["tenant"] == "bob" && lease["through"].is_object();
            of_bob && lease["access"] == "cached" && lease["object"]["size"] == 8 * MIB
        })
    });
    world.ctl(&["share", "revoke", "alice:/dir", "bob"]);
    assert_eq!(of_cache(), 0, "the descriptor is closed");
    assert!(held.read_at(&mut some, 5 * MIB as u64).is_err() && held.read_at(&mut some, 0).is_err());
    assert!(fs::read(alice.join("dir/file")).unwrap() == bytes);

    // A share whose leases are to end by themselves has none that do not.
    world.ctl(&["share", "grant", "alice:/dir", "bob:/short", "--ro", "--lease-seconds", "5"]);
    let held = File::open(bob.join("short/file")).unwrap();
    held.read_exact_at(&mut some, 5 * MIB as u64).unwrap();
    assert_eq!(some.as_slice(), &bytes[5 * MIB..5 * MIB + 100]);
    assert!(of_cache() == 0 && by_address(&world) > 0);
}

#[test]
fn objects_that_were_there_before_are_pinned_in_the_cache_too() {
    let mut world = world();
    let (seen, other) = (Random::new(1).bytes(5 * MIB), Random::new(2).bytes(5 * MIB));
    let bucket = world.bucket();
    bucket.put("data/file", seen.clone());
    let dir = world.mounted("a");
    world.ctl(&["import", "vmds/data", "a:/in"]);
    let mut some = [0; 100];
    let file = File::open(dir.join("in/file")).unwrap();
    file.read_exact_at(&mut some, 3 * MIB as u64).unwrap();
    assert_eq!(some, seen[3 * MIB..3 * MIB + 100]);
    bucket.put("data/file", other);
    assert_errno(file.read_exact_at(&mut some, 100), Errno::STALE);
    drop(file);
    world.crash_controller();
    remount(&world, "a");
    world.objects().forget_requests();
    let file = File::open(dir.join("in/file")).unwrap();
    file.read_exact_at(&mut some, 3 * MIB as u64).unwrap();
    assert_eq!((some.as_slice(), gets(&world)), (&seen[3 * MIB..3 * MIB + 100], 0), "what was read before");
    assert_errno(file.read_exact_at(&mut some, 100), Errno::STALE);
}
