//! Promise: what is open of an object store stays what it is while names go and controllers die.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::s3::RequestKind;
use tests::{Random, World, wait_until};

use crate::help::{SOON, Writer, binaries, python};

/// More than what is kept in the map.
const SIZE: usize = 300_000;

fn world() -> World {
    World::start_on_objects(binaries())
}

/// Objects that were made so far.
fn made(world: &World) -> BTreeSet<String> {
    let requests = world.objects().requests();
    let made = requests.into_iter().filter(|request| {
        matches!(request.kind, RequestKind::PutObject | RequestKind::CompleteMultipartUpload)
    });
    made.map(|request| request.key).collect()
}

fn read_at(file: &File, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn await_nothing_staged(world: &World) {
    let staged = || {
        let files =
            tests::run(std::process::Command::new("find").arg(world.backing_dir()).args(["-type", "f"]));
        files.stdout
    };
    wait_until("nothing is in the staging directory", SOON, || staged().is_empty());
}

#[test]
fn an_unlinked_file_keeps_its_bytes_for_all_who_have_it_open_and_is_never_stored() {
    let world = world();
    let root = world.mounted("a");
    let path = root.join("file");
    let mut random = Random::new(21);
    let mut expected = random.bytes(SIZE);
    fs::write(&path, &expected).unwrap();
    await_nothing_staged(&world);
    let stored = made(&world);
    let early = File::open(&path).unwrap();
    let writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let patch = random.bytes(5_000);
    writer.write_all_at(&patch, 1_000).unwrap();
    expected[1_000..6_000].copy_from_slice(&patch);
    let late = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let more = random.bytes(70_000);
    writer.write_all_at(&more, SIZE as u64).unwrap();
    writer.sync_all().unwrap();
    expected.extend_from_slice(&more);
    for (name, file) in [("early", &early), ("late", &late), ("writer", &writer)] {
        assert!(read_at(file, expected.len()) == expected, "{name}");
        assert_eq!(file.metadata().unwrap().len(), expected.len() as u64, "{name}");
    }
    drop(writer);
    // The kernel may have kept what it has read; another process of the VMDS has nothing.
    world.vmds().kill();
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    for (name, file) in [("early", &early), ("late", &late)] {
        assert!(read_at(file, expected.len()) == expected, "{name}, after the writer has closed");
    }
    drop((early, late));
    await_nothing_staged(&world);
    assert_eq!(made(&world), stored, "what has no name is not brought to the store");
    wait_until("nothing of it is charged", SOON, || {
        let usage = world.ctl_json(&["tenant", "show", "a"])["status"]["usage"].clone();
        usage["bytes"] == 0 && usage["inodes"] == 1
    });
    world.ctl(&["check"]);
}

#[test]
fn what_is_closed_after_a_kill_of_the_vmds_leaves_the_staging_directory() {
    let world = world();
    let path = world.mounted("a").join("file");
    let mut expected = Random::new(24).bytes(SIZE);
    fs::write(&path, &expected).unwrap();
    await_nothing_staged(&world);
    let open = || Writer::open(&path, "os.O_RDWR");
    let (mut first, mut second, idle) = (open(), open(), open());
    assert_eq!(first.does("os.pwrite(f, b'first', 10)"), "5");
    expected[10..15].copy_from_slice(b"first");
    world.vmds().kill();
    first.end();
    // Others have it open for writing, but do not write.
    await_nothing_staged(&world);
    assert!(fs::read(&path).unwrap() == expected);
    // What they write is written all the same, and is stored when they close.
    assert_eq!(second.does("os.pwrite(f, b'second', 200000)"), "6");
    expected[200_000..200_006].copy_from_slice(b"second");
    assert!(fs::read(&path).unwrap() == expected, "while it is open");
    world.vmds().kill();
    assert_eq!(second.does("os.pread(f, 5, 10) + os.pread(f, 6, 200000)"), "b'firstsecond'");
    second.end();
    await_nothing_staged(&world);
    assert!(fs::read(&path).unwrap() == expected);
    idle.end();
    await_nothing_staged(&world);
    world.ctl(&["check"]);
}

#[test]
fn who_writes_on_after_a_kill_of_the_vmds_loses_nothing_while_others_close() {
    /// Writers, each with a part of the file, and handles that are closed meanwhile.
    const WRITERS: usize = 3;
    const CLOSED: usize = 12;
    let world = world();
    let path = world.mounted("a").join("file");
    let mut expected = Random::new(26).bytes(SIZE);
    fs::write(&path, &expected).unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let closed: Vec<File> = (0..CLOSED).map(|_| open()).collect();
    let writers: Vec<File> = (0..WRITERS).map(|_| open()).collect();
    world.vmds().kill();
    let all_closed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, (file, part)) in writers.iter().zip(expected.chunks_mut(SIZE / WRITERS)).enumerate() {
            let (all_closed, begin) = (&all_closed, number * (SIZE / WRITERS));
            scope.spawn(move || {
                let mut random = Random::new(number as u64);
                while !all_closed.load(Ordering::Relaxed) {
                    let at = random.below(part.len() as u64 - 5_000) as usize;
                    let bytes = random.bytes(5_000);
                    file.write_all_at(&bytes, (begin + at) as u64).unwrap();
                    part[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            });
        }
        closed.into_iter().for_each(drop);
        all_closed.store(true, Ordering::Relaxed);
    });
    assert!(read_at(&writers[0], SIZE) == expected, "while it is open");
    drop(writers);
    await_nothing_staged(&world);
    // The kernel may have kept what was written.
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    assert!(fs::read(&path).unwrap() == expected);
    world.ctl(&["check"]);
}

/// `truncate(2)`, by name.
fn cut(path: &Path, size: usize) {
    let mut program = python(Path::new("/"), "import os, sys\nos.truncate(sys.argv[1], int(sys.argv[2]))");
    let outcome = tests::run(program.arg(path).arg(size.to_string()));
    assert!(outcome.status.success(), "{outcome}");
}

#[test]
fn what_is_cut_or_extended_by_its_name_is_so_for_all_who_read_it() {
    let world = world();
    let path = world.mounted("a").join("file");
    // What is in the map, and what is an object of its own.
    for written in [5, SIZE] {
        let mut expected = Random::new(25).bytes(written);
        fs::write(&path, &expected).unwrap();
        await_nothing_staged(&world);
        let early = File::open(&path).unwrap();
        assert!(read_at(&early, written) == expected);
        for size in [written / 2, SIZE / 3, SIZE / 2, 3] {
            cut(&path, size);
            expected.resize(size, 0);
            assert!(fs::read(&path).unwrap() == expected, "{written} bytes, then {size}");
            assert!(read_at(&early, size) == expected, "{written} bytes, then {size}, opened before");
        }
        drop(early);
        assert!(fs::read(&path).unwrap() == expected);
        cut(&path, SIZE);
        expected.resize(SIZE, 0);
        assert!(fs::read(&path).unwrap() == expected, "nobody has it open");
    }
    await_nothing_staged(&world);
    world.ctl(&["check"]);
}

#[test]
fn a_kill_of_the_controller_loses_nothing_that_is_being_written() {
    let mut world = world();
    let root = world.mounted("a");
    let old = Random::new(22).bytes(SIZE);
    for name in ["patched", "untouched", "replaced"] {
        fs::write(root.join(name), &old).unwrap();
    }
    await_nothing_staged(&world);
    let mut fresh = Writer::open(&root.join("fresh"), "os.O_RDWR | os.O_CREAT");
    let mut patched = Writer::open(&root.join("patched"), "os.O_RDWR");
    let untouched = Writer::open(&root.join("untouched"), "os.O_RDWR");
    let mut replaced = Writer::open(&root.join("replaced"), "os.O_WRONLY | os.O_TRUNC");
    assert_eq!(fresh.does("os.write(f, b'1' * 100000)"), "100000");
    assert_eq!(patched.does("os.pwrite(f, b'22', 10)"), "2");
    assert_eq!(replaced.does("os.write(f, b'3' * 50)"), "50");
    world.crash_controller();
    // Half of what each does it does now; what was there is there.
    assert_eq!(fresh.does("os.write(f, b'4' * 100000)"), "100000");
    assert_eq!(fresh.does("os.fsync(f)"), "None");
    assert_eq!(patched.does("os.pread(f, 4, 9)[1:3]"), "b'22'");
    assert_eq!(patched.does("os.pwrite(f, b'55', 200000)"), "2");
    assert_eq!(replaced.does("os.write(f, b'6' * 50)"), "50");
    for writer in [fresh, patched, untouched, replaced] {
        writer.end();
    }
    let mut expected = old.clone();
    expected[10..12].copy_from_slice(b"22");
    expected[200_000..200_002].copy_from_slice(b"55");
    await_nothing_staged(&world);
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    let read = |name: &str| fs::read(root.join(name)).unwrap();
    assert!(read("fresh") == [[b'1'; 100_000], [b'4'; 100_000]].concat());
    assert!(read("patched") == expected && read("untouched") == old);
    assert_eq!(read("replaced"), [[b'3'; 50], [b'6'; 50]].concat());
    world.ctl(&["check"]);
}

#[test]
fn what_a_killed_program_left_half_written_is_stored_by_the_next_controller() {
    let mut world = world();
    let root = world.mounted("a");
    let mut writer = Writer::open(&root.join("file"), "os.O_RDWR | os.O_CREAT");
    assert_eq!(writer.does("os.write(f, b'x' * 200000)"), "200000");
    world.kill_controller();
    // It dies while there is no controller: nobody hears that the file was closed.
    let mut killed = writer.kill();
    world.start_controller();
    world.await_mounts(1);
    killed.wait().unwrap();
    await_nothing_staged(&world);
    assert!(fs::read(root.join("file")).unwrap() == vec![b'x'; 200_000]);
    let bucket = world.bucket();
    assert!(bucket.keys().iter().any(|key| bucket.info(key).unwrap().length == 200_000));
    world.ctl(&["check"]);
}
