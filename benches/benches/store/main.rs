//! What an object store costs behind a mount, beside a plain HTTP client and other mounts of the same store, in the
//! same run. The store is the tests' server: in memory, on loopback, in a process of its own; or the one that the
//! environment names (`tests/rgw cargo bench -p benches --bench store`). It and its clients share the machine, so only
//! ratios mean anything.
//!
//! It needs root and the programs beside it: `cargo build --release && cargo bench -p benches --bench store`. `FILES` says
//! how many small files are written, `MIB` how large the large one is, `ROUNDS` how often it is written and read. Other
//! mounts are measured if they are installed (`apt-get install s3fs rclone fuse3`).

mod others;
mod plain;
mod server;
mod store;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use benches::{Table, once, setting};
use plain::Plain;
use store::{Place, Store};
use tests::{Binaries, World, run, status_field, wait_until};

/// What a program reads and writes at once, bytes.
const AT_ONCE: usize = 1 << 20;
/// Bytes of a small file.
const SMALL: usize = 4096;
/// How many of the small files the other mounts write, which take their time.
const FILES_OF_OTHERS: u32 = 200;

fn main() {
    if server::serves() {
        return;
    }
    // `cargo test --benches` calls this too; a mount is not a thing to do in passing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (files, mib, rounds) = (setting("FILES", 10_000), setting("MIB", 1024), setting("ROUNDS", 5));
    let mut store = Store::start();
    let place = store.place();
    let world = World::start(binaries());
    add_pool(&world, &place);
    world.tenant_with("alice", &["--pool", "objects"]);
    let mount = world.mount("alice");
    let mut table = Table::default();
    for &ms in store.distances() {
        store.be_away(ms);
        small_files(&mount, &place, (files, ms), &mut table);
    }
    store.be_away(0);
    let sizes = Sizes { mib, rounds, read_target: store.read_target() };
    large_file(&world, &mount, &Plain::new(&place), &sizes, &mut table);
    println!("{}", table.render());
}

/// Makes the bucket a pool.
fn add_pool(world: &World, place: &Place) {
    let keys = world.dir().join("keys");
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        place.access_key, place.secret_key
    );
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&keys);
    options.and_then(|mut file| file.write_all(text.as_bytes())).expect("write the credentials");
    let bucket = format!("{}/{}", place.bucket, place.key("pool"));
    let there = ["pool", "add", "objects", "--s3", &bucket, "--endpoint", &place.endpoint, "--path-style"];
    let as_whom = ["--region", &place.region, "--credentials", &format!("file:{}", keys.display())];
    world.ctl(&[&there[..], &as_whom].concat());
}

/// Makes, writes and closes files.
fn write_small(dir: &Path, files: u32) {
    let bytes = vec![7; SMALL];
    let write = |number| fs::write(dir.join(format!("f{number}")), &bytes).expect("write a small file");
    (0..files).for_each(write);
}

/// The same, and waits until all of them would survive a loss of power: changes of a tenant are durable in their order,
/// so that the last one says it for all. Others have put each file into the store when its `close` has returned.
fn write_small_durably(dir: &Path, files: u32) {
    write_small(dir, files);
    File::open(dir).and_then(|dir| dir.sync_all()).expect("sync a directory");
}

/// Many small files, here and on other mounts of the same store.
fn small_files(mount: &Path, place: &Place, (files, ms): (u32, u32), table: &mut Table) {
    let dir = mount.join(format!("small-{ms}"));
    fs::create_dir(&dir).expect("make a directory");
    let ours = once(|| write_small_durably(&dir, files)).0 / files;
    for other in others::OTHERS {
        let Some(mounted) = others::Mounted::start(other, place) else {
            println!("{other} is not installed or does not mount: not measured");
            continue;
        };
        let theirs = once(|| write_small(mounted.dir(), FILES_OF_OTHERS)).0 / FILES_OF_OTHERS;
        let share = ours.as_secs_f64() / theirs.as_secs_f64();
        println!(
            "small files, the store {ms} ms farther away: {files} here and {FILES_OF_OTHERS} through {other}; a file takes 1/{:.0} of its time (target: 1/20 at most)",
            1.0 / share
        );
        table.row(&format!("write and close 4 KiB, {ms} ms farther away"), "vmds", ours, (other, theirs));
    }
}

/// What is done with a large file, and what is hoped for.
struct Sizes {
    /// How large it is.
    mib: u32,
    /// How often it is written and read; the median is told.
    rounds: u32,
    /// What part of a plain client's speed reading should have.
    read_target: f64,
}

/// One large file, written and read, beside a client that does nothing else.
fn large_file(world: &World, mount: &Path, plain: &Plain, sizes: &Sizes, table: &mut Table) {
    let (path, size) = (mount.join("large"), u64::from(sizes.mib) << 20);
    let vmds = world.vmds();
    let (mut written, mut uploaded) = (Vec::new(), Vec::new());
    for _ in 0..sizes.rounds {
        written.push(once(|| write_large(&path, size)).0);
        uploaded.push(once(|| plain.write(size)).0);
    }
    let peak_writing = peak_mib(vmds.pid);
    await_nothing_staged(world);
    forget_peak(vmds.pid);
    let (mut read, mut fetched) = (Vec::new(), Vec::new());
    for _ in 0..sizes.rounds {
        read.push(once(|| read_large(&path, size)).0);
        fetched.push(once(|| plain.read(size)).0);
    }
    let (peak_reading, what) = (peak_mib(vmds.pid), format!("{} MiB", sizes.mib));
    let target = format!(" (target: {} at least)", sizes.read_target);
    for (verb, ours, theirs, target) in
        [("read", read, fetched, target.as_str()), ("write and close", written, uploaded, "")]
    {
        let (ours, theirs) = (median(ours), median(theirs));
        let speed = theirs.as_secs_f64() / ours.as_secs_f64();
        println!("{verb} {what}: {speed:.2} of the speed of a plain client{target}");
        table.row(&format!("{verb} {what}"), "vmds", ours, ("plain client", theirs));
    }
    println!(
        "VMDS at its peak: {peak_writing} MiB writing, {peak_reading} MiB reading (target: 128 at most)"
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn write_large(path: &Path, size: u64) {
    let bytes = vec![7; AT_ONCE];
    let mut file = File::create(path).expect("make a large file");
    for _ in 0..size / AT_ONCE as u64 {
        file.write_all(&bytes).expect("write a large file");
    }
}

/// Reads what the page cache does not have.
fn read_large(path: &Path, size: u64) {
    let mut file = File::open(path).expect("open a large file");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("empty the page cache");
    let (mut buffer, mut read) = (vec![0; AT_ONCE], 0);
    loop {
        match file.read(&mut buffer).expect("read a large file") {
            0 => break,
            more => read += more as u64,
        }
    }
    assert_eq!(read, size);
}

/// Waits until all that was written is read from the store.
fn await_nothing_staged(world: &World) {
    wait_until("nothing is in the staging directory", Duration::from_secs(60), || {
        let staging = world.state_dir().join("staging");
        run(Command::new("find").arg(staging).args(["-type", "f"])).stdout.is_empty()
    });
}

/// The most memory that a process has had, MiB.
fn peak_mib(pid: u32) -> u64 {
    let process = tests::Process::find(pid).expect("the VMDS is there");
    let peak = status_field(process, "VmHWM");
    peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// From now on the peak is what it has from now on.
fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("forget the peak");
}

/// The programs as they were built beside this one.
fn binaries() -> Binaries {
    let this = std::env::current_exe().expect("this program has a path");
    let dir = this.ancestors().nth(2).expect("benches are two levels deep");
    let named = |name: &str| -> PathBuf {
        let path = dir.join(name);
        assert!(path.exists(), "{} is missing: run `cargo build --release` first", path.display());
        path
    };
    Binaries { controller: named("vmds-controller"), ctl: named("vmdsctl"), vmds: named("vmds") }
}
