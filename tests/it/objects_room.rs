//! Promise: where an object store or its staging directory has no room, or refuses, programs are told at the call that
//! is about it, and nothing else is harmed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use tests::s3::Fault;
use tests::{Random, SmallDisk, World, run_within, wait_until};

use crate::help::{SOON, assert_errno, binaries, python};

const MIB: u64 = 1 << 20;
/// What the staging directory has room for.
const ROOM: u64 = 16 * MIB;
/// Longest time a refused `close` may take: two deadlines of the pool, and what lies between.
const REFUSED_WITHIN: Duration = Duration::from_secs(120);

/// Writes until there is no room; gives how much was taken.
fn fill(file: &mut File, bytes: &[u8]) -> (usize, io::Error) {
    let mut taken = 0;
    loop {
        match file.write(&bytes[taken..taken + (256 << 10)]) {
            Ok(more) => taken += more,
            Err(error) => return (taken, error),
        }
    }
}

fn is_empty(dir: &Path) -> bool {
    tests::run(std::process::Command::new("find").arg(dir).args(["-type", "f"])).stdout.is_empty()
}

#[test]
fn a_full_staging_directory_is_told_at_the_write_and_harms_nothing_else() {
    let disk = SmallDisk::mount(ROOM);
    let world = World::start_on_objects_with(binaries(), &[], &["--staging", disk.path().to_str().unwrap()]);
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    let mut random = Random::new(31);
    let (large, small) = (random.bytes(8 << 20), random.bytes(1 << 20));
    fs::write(alice.join("large"), &large).unwrap();
    fs::write(bob.join("stored"), &small).unwrap();
    wait_until("nothing is being written", SOON, || is_empty(disk.path()));
    let mut open = File::create_new(bob.join("open")).unwrap();
    open.write_all(&small).unwrap();

    let bytes = random.bytes(2 * ROOM as usize);
    let mut big = File::create_new(alice.join("big")).unwrap();
    let (taken, error) = fill(&mut big, &bytes);
    assert_errno::<()>(Err(error), Errno::NOSPC);
    assert!(taken as u64 > ROOM / 2, "{taken} bytes were taken");
    // What was taken is there, and so is everything else; what needs no room goes on.
    assert!(fs::read(alice.join("big")).unwrap() == bytes[..taken]);
    assert!(fs::read(bob.join("stored")).unwrap() == small && fs::read(bob.join("open")).unwrap() == small);
    open.write_all_at(b"in place", 100).unwrap();
    fs::create_dir(bob.join("dir")).unwrap();
    fs::rename(bob.join("stored"), bob.join("dir/stored")).unwrap();
    // What needs room is refused: a new file, and one that would have to be fetched.
    assert_errno(fs::write(bob.join("new"), &small), Errno::NOSPC);
    let patched = OpenOptions::new().write(true).open(alice.join("large"));
    assert_errno(patched.and_then(|file| file.write_all_at(b"patch", 4 << 20)), Errno::NOSPC);
    assert!(fs::read(alice.join("large")).unwrap() == large, "it is as it was");

    // There is room again.
    big.set_len(MIB).unwrap();
    fs::write(bob.join("new"), &small).unwrap();
    let patched = OpenOptions::new().write(true).open(alice.join("large")).unwrap();
    patched.write_all_at(b"patch", 4 << 20).unwrap();
    drop((patched, big, open));
    wait_until("all is in the store", SOON, || is_empty(disk.path()));
    let mut expected = large;
    expected[4 << 20..(4 << 20) + 5].copy_from_slice(b"patch");
    assert!(fs::read(alice.join("large")).unwrap() == expected);
    assert!(fs::read(alice.join("big")).unwrap() == bytes[..MIB as usize]);
    let mut changed = small.clone();
    changed[100..108].copy_from_slice(b"in place");
    assert!(fs::read(bob.join("open")).unwrap() == changed && fs::read(bob.join("new")).unwrap() == small);
    world.ctl(&["check"]);
    drop(world);
}

/// Writes a file and tells how `write`, `fsync` and `close` have ended: 0, or the error's number.
fn steps(path: &Path, bytes: usize) -> [i32; 3] {
    const PROGRAM: &str = "
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
def told(call, *arguments):
    try:
        call(*arguments)
        print(0)
    except OSError as error:
        print(error.errno)
told(os.write, f, b'x' * int(sys.argv[2]))
told(os.fsync, f)
told(os.close, f)
";
    let mut program = python(Path::new("/"), PROGRAM);
    let outcome = run_within(REFUSED_WITHIN, program.arg(path).arg(bytes.to_string()));
    assert!(outcome.status.success(), "{outcome}");
    let errnos: Vec<i32> = outcome.stdout.lines().map(|line| line.parse().unwrap()).collect();
    errnos.try_into().unwrap()
}

#[test]
fn what_a_store_refuses_with_reaches_the_program_as_the_error_it_means() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    fs::write(&config, "pool_timeout = '2s'\n").unwrap();
    let world = World::start_on_objects_with(binaries(), &["--config", config.to_str().unwrap()], &[]);
    let root = world.mounted("a");
    let (none, io, full) = (0, Errno::IO.raw_os_error(), Errno::NOSPC.raw_os_error());
    let refusals = [
        (403, "AccessDenied", io),
        (403, "QuotaExceeded", full),
        (400, "EntityTooLarge", full),
        (400, "InvalidRequest", io),
        (404, "NoSuchBucket", io),
        (507, "InsufficientStorage", full),
        (500, "InternalError", io),
        (503, "SlowDown", io),
    ];
    for (status, code, errno) in refusals {
        let fault = world.objects().faults().add(Fault::Answer { status, code }.always().method("PUT"));
        // What was written is safe on this machine all the same.
        assert_eq!(steps(&root.join(code), 100_000), [none, none, errno], "{status} {code}");
        assert!(world.objects().faults().hits(fault) > 0, "{code}: the store was asked");
        assert!(fs::read(root.join(code)).unwrap() == vec![b'x'; 100_000], "{code}: it stays");
        world.objects().faults().clear();
    }
    // Who has a quota is told at the write, before anything is staged or stored.
    world.tenant_with("metered", &["--quota-bytes", "50000"]);
    let metered = world.mount("metered");
    let quota = Errno::DQUOT.raw_os_error();
    assert_eq!(steps(&metered.join("file"), 100_000), [quota, none, none]);
    let stored = || {
        let bucket = world.bucket();
        bucket.keys().iter().filter(|key| bucket.info(key).unwrap().length == 100_000).count()
    };
    wait_until("what was refused is in the store", REFUSED_WITHIN, || stored() >= refusals.len());
    for (_, code, _) in refusals {
        assert!(fs::read(root.join(code)).unwrap() == vec![b'x'; 100_000], "{code}");
    }
    world.ctl(&["check"]);
    drop(world);
}
