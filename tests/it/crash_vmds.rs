//! Promise: a VMDS may be killed at any moment, again and again; programs at work notice a pause and nothing else.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tests::{
    Loads, Pauses, Pulse, Random, Stop, World, changes_beside, databases, fill, full, held_locks, listings,
    mapped_file, ok, sequential_files, tree_changes, unlinked_file, wait_for, wait_until,
};

use crate::help::{SOON, world};

/// Longest pause that a kill may cause, on whatever machine.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Most beats of the pulse between two kills.
const BEATS_MAX: u64 = 150;
/// Shortest time between two kills: a VMDS that ends sooner, several times in a row, is replaced with a delay.
const APART: Duration = Duration::from_millis(300);
/// How long the loads are looked at before each kill.
const UNDISTURBED: Duration = Duration::from_millis(25);
/// Variable with the seed of an earlier run.
const SEED_VARIABLE: &str = "VMDS_TEST_SEED";

/// The seed of this run: when to kill, and what the loads do.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
    };
    eprintln!("{SEED_VARIABLE}={seed}");
    seed
}

/// This many times: lets the loads work for a random while, then does something that must not disturb them. Answers
/// the pauses that it caused.
pub(crate) fn disturb(
    loads: &Loads,
    pulse: &Pulse,
    random: &mut Random,
    times: u32,
    mut what: impl FnMut(),
) -> Pauses {
    let mut pauses = Pauses::default();
    for _ in 0..times {
        let last = Instant::now();
        pulse.wait(loads, 1 + random.below(BEATS_MAX));
        wait_until("the next kill is due", SOON, || last.elapsed() >= APART);
        // As long as a kill takes, about: what these loads cost by themselves.
        let usual = pulse.pause_by(loads, || std::thread::sleep(UNDISTURBED));
        pauses.push(pulse.pause_by(loads, &mut what), usual);
    }
    pulse.wait(loads, BEATS_MAX);
    pauses
}

/// A directory in a mount for each load.
pub(crate) fn room(mount: &Path, name: &str) -> PathBuf {
    let dir = mount.join(name);
    fs::create_dir(&dir).unwrap();
    dir
}

/// Starts the loads that change names.
pub(crate) fn start_names(loads: &mut Loads, mount: &Path, seed: u64) {
    for number in 0..3 {
        let dir = room(mount, &format!("tree-{number}"));
        loads.start(&format!("tree {number}"), move |stop| tree_changes(&dir, seed + number, stop));
    }
}

/// Starts the loads that write and read bytes, and those that hold something.
pub(crate) fn start_bytes(loads: &mut Loads, mount: &Path, seed: u64) {
    let dir = room(mount, "large");
    loads.start("large files", move |stop| sequential_files(&dir, seed, stop));
    let dir = room(mount, "unlinked");
    loads.start("unlinked file", move |stop| unlinked_file(&dir, seed, stop));
    let dir = room(mount, "mapped");
    loads.start("mapped file", move |stop| mapped_file(&dir, stop));
    let dir = room(mount, "database");
    loads.start("database", move |stop| databases(&dir, stop));
    let dir = room(mount, "locks");
    loads.start("locks", move |stop| held_locks(&dir, stop));
}

/// Starts the loads on a large directory.
pub(crate) fn start_listings(loads: &mut Loads, mount: &Path) {
    let count = if full() { 100_000 } else { 20_000 };
    let dir = room(mount, "listed");
    fill(&dir, count);
    let beside = dir.clone();
    loads.start("listings", move |stop| listings(&dir, count, stop));
    loads.start("changes beside", move |stop| changes_beside(&beside, stop));
}

/// A world in which bob has write access to a directory of alice's. Gives the directory as alice and as bob sees it.
pub(crate) fn shared(world: &World) -> (PathBuf, PathBuf) {
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    let dir = room(&alice, "shared");
    world.ctl(&["share", "grant", "alice:/shared", "bob:/in", "--rw"]);
    (dir, bob.join("in"))
}

/// Starts the loads that change names on both sides of a share.
pub(crate) fn start_shared(loads: &mut Loads, owner: &Path, grantee: &Path, seed: u64) {
    for (number, side) in [(0, owner), (1, grantee), (2, grantee)] {
        let dir = room(side, &format!("tree-{number}"));
        loads.start(&format!("tree {number}"), move |stop| tree_changes(&dir, seed + number, stop));
    }
}

/// Starts loads, kills a VMDS under them again and again, and looks whether anybody noticed.
fn kill_under(what: &str, world: &World, mount: &Path, start: impl FnOnce(&mut Loads, u64)) {
    let seed = seed();
    let mut loads = Loads::default();
    start(&mut loads, seed);
    let pulse = Pulse::start(&mut loads, mount.join("pulse"));
    let kills = if full() { 100 } else { 10 };
    let mut which = Random::new(!seed);
    let pauses = disturb(&loads, &pulse, &mut Random::new(seed), kills, || {
        let vmdses = world.vmdses();
        let victim = vmdses[which.below(vmdses.len() as u64) as usize];
        victim.kill();
        wait_until("the VMDS has ended", SOON, || !victim.is_alive());
    });
    let operations = loads.finish();
    world.ctl(&["check"]);
    pauses.print_row("VMDS", what, operations);
    assert!(pauses.longest() < PAUSE_MAX, "{pauses}");
}

#[test]
fn every_change_of_names_is_made_once_over_kills_of_the_vmds() {
    let world = world();
    let mount = world.mounted("alice");
    kill_under("changes of names", &world, &mount, |loads, seed| start_names(loads, &mount, seed));
}

#[test]
fn no_byte_no_lock_and_no_transaction_is_lost_over_kills_of_the_vmds() {
    let world = world();
    let mount = world.mounted("alice");
    kill_under("bytes", &world, &mount, |loads, seed| start_bytes(loads, &mount, seed));
}

#[test]
fn no_byte_no_lock_and_no_transaction_of_a_tenant_with_a_quota_is_lost_over_kills_of_the_vmds() {
    let world = world();
    world.tenant_with("metered", &["--quota-bytes", "64GiB"]);
    let mount = world.mount("metered");
    kill_under("bytes with a quota", &world, &mount, |loads, seed| start_bytes(loads, &mount, seed));
}

#[test]
fn a_listing_over_kills_of_the_vmds_has_every_entry_once() {
    let world = world();
    let mount = world.mounted("alice");
    kill_under("listings", &world, &mount, |loads, _| start_listings(loads, &mount));
}

#[test]
fn every_change_through_a_share_is_made_once_over_kills_of_both_vmdses() {
    let world = world();
    let (owner, grantee) = shared(&world);
    kill_under("changes through a share", &world, &grantee, |loads, seed| {
        start_shared(loads, &owner, &grantee, seed);
    });
}

#[test]
fn a_verifying_benchmark_finds_all_its_blocks_over_kills_of_the_vmds() {
    let world = world();
    let mount = world.mounted("alice");
    kill_under("blocks verified by fio", &world, &mount, |loads, _| {
        let dir = room(&mount, "verified");
        loads.start("verified blocks", move |stop| verified_blocks(&dir, stop));
    });
}

/// Writes blocks with checksums in random order, and reads all of them back. Answers how often.
fn verified_blocks(dir: &Path, stop: &Stop) -> u64 {
    let mut rounds = 0;
    while !stop.is_set() || rounds == 0 {
        ok(Command::new("fio").current_dir(dir).args([
            "--name=verified",
            "--rw=randwrite",
            "--bs=4k",
            "--size=16m",
            "--ioengine=psync",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--end_fsync=1",
        ]));
        rounds += 1;
    }
    rounds
}

/// What a process reads into is new to it then: of requests that it dies over while they are copied to it, none may be
/// lost.
#[test]
fn the_first_large_writes_to_a_new_vmds_survive_its_kill() {
    let world = world();
    world.tenant_with("metered", &["--quota-bytes", "64GiB"]);
    let root = world.mount("metered");
    let file = fs::File::create(root.join("file")).unwrap();
    let (bytes, mut random) = (vec![7; 1 << 20], Random::new(seed()));
    for _ in 0..if full() { 300 } else { 60 } {
        let vmds = wait_for("a VMDS serves", SOON, || world.vmdses().first().copied());
        std::thread::scope(|scope| {
            let write = || (0..12).try_for_each(|chunk| file.write_all_at(&bytes, chunk << 20));
            let writer = scope.spawn(write);
            std::thread::sleep(Duration::from_micros(random.below(2000)));
            vmds.signal(Signal::KILL);
            writer.join().unwrap().unwrap();
        });
        std::thread::sleep(APART);
    }
}
