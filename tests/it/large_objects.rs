//! Large files of an object store: what of them moves, and when.
//!
//! Programs that tests beside these start inherit what this process has open for a moment, and close it: each such close
//! is one more upload of what has changed, and may come late. So what is counted is done by processes of their own.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::process::Signal;
use tests::s3::{Fault, RequestKind};
use tests::{Random, World, full, run, wait_until};

use crate::help::{SOON, Writer, binaries};

/// Bound of waits for the last close of a file, which a program of a test beside this one may hold up.
const LATE: Duration = Duration::from_secs(120);

const MIB: usize = 1024 * 1024;

fn world() -> World {
    World::start_on_objects(binaries())
}

/// The same every day; `VMDS_TEST_SEED` is another one.
fn seed() -> u64 {
    std::env::var("VMDS_TEST_SEED").map_or(5, |seed| seed.parse().unwrap())
}

fn await_nothing_staged(world: &World) {
    let empty = || {
        let mut find = std::process::Command::new("find");
        run(find.arg(world.state_dir().join("staging")).args(["-type", "f"])).stdout.is_empty()
    };
    wait_until("nothing is in the staging directory", LATE, empty);
}

/// Bytes of the answers to GETs that were not presigned: what the controller has fetched.
fn fetched(world: &World) -> u64 {
    let gets = world.objects().requests_of(RequestKind::GetObject).into_iter();
    let ranges = gets.filter(|get| !get.presigned).map(|get| get.range().expect("ranges only"));
    ranges.map(|range| range.end() - range.start() + 1).sum()
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn what_is_written_in_order_is_on_its_way_before_the_file_is_closed() {
    let world = world();
    let path = world.mounted("a").join("file");
    let bytes = Random::new(1).bytes(45 * MIB);
    // Of a handle of a process of its own nobody has a copy.
    let copy = "import sys; b = sys.stdin.buffer.read(); f = open(sys.argv[1], 'wb'); f.write(b); \
        open(sys.argv[2]).read(); f.close()";
    let go = world.dir().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let mut python = std::process::Command::new("python3");
    python.args(["-c", copy]).args([&path, &go]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut python = python.spawn().unwrap();
    python.stdin.take().unwrap().write_all(&bytes).unwrap();
    wait_until("all whole parts were sent", SOON, || world.objects().count(RequestKind::UploadPart) == 5);
    assert!(world.bucket().keys().is_empty(), "it is not an object before it is closed");
    fs::write(&go, "go").unwrap();
    assert!(python.wait().unwrap().success());
    assert_eq!(world.objects().count(RequestKind::UploadPart), 6, "only the rest was missing");
    await_nothing_staged(&world);
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn a_file_that_is_removed_while_it_is_written_leaves_nothing_in_the_store() {
    let world = world();
    let path = world.mounted("a").join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![1; 40 * MIB]).unwrap();
    let bucket = world.bucket();
    wait_until("parts were sent", SOON, || world.objects().count(RequestKind::UploadPart) > 0);
    fs::remove_file(&path).unwrap();
    drop(file);
    wait_until("they are given back", LATE, || bucket.uploads().is_empty());
    await_nothing_staged(&world);
}

#[test]
fn changing_a_little_of_a_large_object_moves_little() {
    let world = world();
    let path = world.mounted("a").join("file");
    let mut bytes = Random::new(2).bytes(60 * MIB + 5);
    fs::write(&path, &bytes).unwrap();
    await_nothing_staged(&world);
    let before = fs::metadata(&path).unwrap();

    world.objects().forget_requests();
    let mut file = Writer::open(&path, "os.O_RDWR");
    assert_eq!(file.does("os.pwrite(f, b'changed', 30 << 20)"), "7");
    bytes[30 * MIB..30 * MIB + 7].copy_from_slice(b"changed");
    assert_eq!(file.does("list(os.pread(f, 10, 5 << 20))"), format!("{:?}", &bytes[5 * MIB..5 * MIB + 10]));
    file.end();
    assert_eq!(fetched(&world), 16 << 20, "the part that was changed, and the one that was read");
    assert_eq!(world.objects().count(RequestKind::UploadPart), 1, "the part that was changed");
    assert_eq!(world.objects().count(RequestKind::UploadPartCopy), 7, "all others");
    await_nothing_staged(&world);
    assert!(fs::read(&path).unwrap() == bytes);

    world.objects().forget_requests();
    let mut file = Writer::open(&path, "os.O_WRONLY | os.O_APPEND");
    assert_eq!(file.does("os.write(f, b'more')"), "4");
    file.end();
    bytes.extend_from_slice(b"more");
    assert_eq!(fetched(&world), 4 * MIB as u64 + 5, "what shares a part with the end");
    assert_eq!(world.objects().count(RequestKind::UploadPart), 1);
    assert_eq!(world.objects().count(RequestKind::UploadPartCopy), 7);
    await_nothing_staged(&world);
    assert!(fs::read(&path).unwrap() == bytes);

    world.objects().forget_requests();
    let mut file = Writer::open(&path, "os.O_RDWR");
    assert_eq!(
        file.does("list(os.pread(f, 10, 50 << 20))"),
        format!("{:?}", &bytes[50 * MIB..50 * MIB + 10])
    );
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    file.end();
    await_nothing_staged(&world);
    assert_eq!(fetched(&world), 8 << 20, "the part that was read");
    assert_eq!(world.objects().count(RequestKind::UploadPart), 0, "what was only read is not sent");
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.modified().unwrap(), written, "and is as old as it was");
    assert!(written > before.modified().unwrap());
    assert_eq!((after.len(), world.bucket().uploads().len()), (bytes.len() as u64, 0));
    world.ctl(&["check"]);
}

#[test]
fn a_large_object_that_is_cut_and_grows_again_has_zeroes_there() {
    let world = world();
    let path = world.mounted("a").join("file");
    let mut bytes = Random::new(3).bytes(40 * MIB);
    fs::write(&path, &bytes).unwrap();
    await_nothing_staged(&world);
    // Cut to what is kept in the map, brought there by a copy of the handle, and grown again.
    let file = open(&path);
    file.set_len(100).unwrap();
    drop(file.try_clone().unwrap());
    file.write_all_at(b"y", 20 * MIB as u64).unwrap();
    drop(file);
    bytes.truncate(100);
    bytes.resize(20 * MIB, 0);
    bytes.push(b'y');
    await_nothing_staged(&world);
    assert!(fs::read(&path).unwrap() == bytes, "cut to a small file, and grown");
    bytes = Random::new(3).bytes(40 * MIB);
    fs::write(&path, &bytes).unwrap();
    await_nothing_staged(&world);
    for (cut, grown) in [(33 * MIB + 7, 50 * MIB), (24 * MIB, 25 * MIB), (10, 20 * MIB)] {
        let file = open(&path);
        file.set_len(cut as u64).unwrap();
        file.set_len(grown as u64).unwrap();
        bytes.truncate(cut);
        bytes.resize(grown, 0);
        file.write_all_at(b"x", grown as u64 - 1).unwrap();
        bytes[grown - 1] = b'x';
        assert!(fs::read(&path).unwrap() == bytes, "while it is open: {cut}");
        drop(file);
        await_nothing_staged(&world);
        assert!(fs::read(&path).unwrap() == bytes, "{cut}");
    }
}

#[test]
fn damaged_bytes_never_reach_a_program() {
    let world = world();
    let path = world.mounted("a").join("file");
    let bytes = Random::new(4).bytes(20 * MIB);
    fs::write(&path, &bytes).unwrap();
    await_nothing_staged(&world);
    let faults = world.objects().faults();
    let damaged = faults.add(Fault::FlipByte { at: 100_000 }.times(3).on(RequestKind::GetObject));
    assert!(fs::read(&path).unwrap() == bytes, "asked again, they come as they are");
    assert_eq!(faults.hits(damaged), 3);
    let damaged = faults.add(Fault::FlipByte { at: 100_000 }.times(2).on(RequestKind::GetObject));
    let file = open(&path);
    let mut some = vec![0; 200_000];
    file.read_exact_at(&mut some, 0).unwrap();
    assert!(some == bytes[..200_000], "fetched for a writer, too");
    assert_eq!(faults.hits(damaged), 2);
    faults.add(Fault::FlipByte { at: 100_000 }.always().on(RequestKind::GetObject));
    let error = file.read_exact_at(&mut some, 10 * MIB as u64).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    drop(file);
    faults.clear();
    assert!(fs::read(&path).unwrap() == bytes);
}

/// Changes of a large object, made by two tenants on both sides of a share and seen by both, while their VMDSes die.
#[test]
fn random_changes_of_a_large_object_are_those_of_a_local_file() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("dir")).unwrap();
    let mut random = Random::new(seed());
    let mut bytes = random.bytes(30 * MIB + 1234);
    fs::write(alice.join("dir/file"), &bytes).unwrap();
    world.ctl(&["share", "grant", "alice:/dir", "bob:/dir", "--rw"]);
    let paths = [alice.join("dir/file"), bob.join("dir/file")];
    let vmdses = world.vmdses().len();
    for round in 0..if full() { 60 } else { 6 } {
        await_nothing_staged(&world);
        let files = [open(&paths[0]), open(&paths[1])];
        for _ in 0..25 {
            let side = random.below(2) as usize;
            change(&files[side], &mut bytes, &mut random);
            if random.below(20) == 0 {
                world.vmdses()[random.below(vmdses as u64) as usize].signal(Signal::KILL);
            }
            look(&files[random.below(2) as usize], &bytes, &mut random);
        }
        drop(files);
        let reader = &paths[random.below(2) as usize];
        assert!(fs::read(reader).unwrap() == bytes, "round {round}");
    }
    world.ctl(&["check"]);
    assert!(world.bucket().uploads().is_empty());
}

fn change(file: &File, bytes: &mut Vec<u8>, random: &mut Random) {
    let size = bytes.len() as u64;
    let at = random.below(size);
    let most = if random.below(4) == 0 { 3 * MIB as u64 } else { 5000 };
    let length = random.below(most) + 1;
    match random.below(10) {
        0 => {
            let size = 17 * MIB as u64 + random.below(30 * MIB as u64);
            file.set_len(size).unwrap();
            bytes.resize(size as usize, 0);
        }
        1 => {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(file.as_fd(), mode, at, length).unwrap();
            let end = (at + length).min(size) as usize;
            bytes[at as usize..end].fill(0);
        }
        kind => {
            let at = if kind == 2 { size } else { at };
            let new = random.bytes(length as usize);
            file.write_all_at(&new, at).unwrap();
            let end = (at + length) as usize;
            bytes.resize(bytes.len().max(end), 0);
            bytes[at as usize..end].copy_from_slice(&new);
        }
    }
}

fn look(file: &File, bytes: &[u8], random: &mut Random) {
    assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
    let at = random.below(bytes.len() as u64) as usize;
    let mut some = vec![0; random.below(100_000).min((bytes.len() - at) as u64) as usize];
    file.read_exact_at(&mut some, at as u64).unwrap();
    assert!(some == bytes[at..at + some.len()], "{} bytes at {at}", some.len());
}
