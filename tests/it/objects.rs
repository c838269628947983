//! Tenants whose bytes are in an object store.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tests::s3::{Fault, RequestKind};
use tests::{Random, World, fds_of, ok, run, wait_until};

use crate::help::{SOON, await_nothing_staged, binaries};

/// Larger than what is kept in the map, and than one part of an upload.
const LARGE: usize = 40 * 1024 * 1024 + 12_345;

fn world() -> World {
    World::start_on_objects(binaries())
}

#[test]
fn what_is_written_is_in_the_store_when_close_has_returned_and_is_read_from_there() {
    let world = world();
    let root = world.mounted("a");
    let mut random = Random::new(1);
    for (name, size) in [("empty", 0), ("small", 100), ("medium", 100_000), ("large", LARGE)] {
        let bytes = random.bytes(size);
        // By a process of its own: of its handle no program has a copy that a test beside this one starts.
        let local = world.dir().join(name);
        fs::write(&local, &bytes).unwrap();
        ok(Command::new("cp").args([&local, &root.join(name)]));
        assert_eq!(fs::read(root.join(name)).unwrap(), bytes, "{name}");
    }
    let bucket = world.bucket();
    let mut sizes: Vec<u64> = bucket.keys().iter().map(|key| bucket.info(key).unwrap().length).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [100_000, LARGE as u64], "small files are in the map, others one object each");
    assert!(bucket.uploads().is_empty());
    world.ctl(&["check"]);
}

#[test]
fn a_file_is_changed_in_place_and_grows_out_of_the_map_and_back() {
    let world = world();
    let root = world.mounted("a");
    let path = root.join("file");
    let mut random = Random::new(2);
    let mut expected = random.bytes(10);
    fs::write(&path, &expected).unwrap();
    for size in [20_000_usize, 9 * 1024 * 1024, 5, 100_000] {
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_len(size as u64).unwrap();
        expected.resize(size, 0);
        let patch = random.bytes(3);
        let at = random.below(size as u64 - 3);
        file.write_all_at(&patch, at).unwrap();
        expected[at as usize..at as usize + 3].copy_from_slice(&patch);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), expected, "{size}");
        assert_eq!(fs::metadata(&path).unwrap().len(), size as u64);
    }
    world.ctl(&["check"]);
}

#[test]
fn reading_anywhere_in_a_large_file_gives_what_is_there() {
    let world = world();
    let root = world.mounted("a");
    let mut random = Random::new(3);
    let bytes = random.bytes(LARGE);
    fs::write(root.join("large"), &bytes).unwrap();
    let mut file = File::open(root.join("large")).unwrap();
    for _ in 0..200 {
        let at = random.below(LARGE as u64) as usize;
        let length = (random.below(300_000) as usize).min(LARGE - at);
        let mut part = vec![0; length];
        file.read_exact_at(&mut part, at as u64).unwrap();
        assert!(part == bytes[at..at + length], "{length} bytes at {at}");
    }
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
}

#[test]
fn a_write_goes_on_and_is_read_by_others_meanwhile() {
    let world = world();
    let root = world.mounted("a");
    let path = root.join("log");
    fs::write(&path, vec![b'x'; 50_000]).unwrap();
    let mut reader = File::open(&path).unwrap();
    let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
    writer.write_all(b"one").unwrap();
    reader.seek(SeekFrom::Start(50_000)).unwrap();
    let mut tail = String::new();
    reader.read_to_string(&mut tail).unwrap();
    assert_eq!(tail, "one");
    writer.write_all(b"two").unwrap();
    writer.sync_all().unwrap();
    drop(writer);
    reader.read_to_string(&mut tail).unwrap();
    assert_eq!(tail, "onetwo");
}

#[test]
fn what_the_network_and_the_store_do_wrong_is_put_right_or_told() {
    let world = world();
    let root = world.mounted("a");
    let bytes = Random::new(4).bytes(LARGE);
    let faults = world.objects().faults();
    let gets = |fault: Fault| fault.times(3).on(RequestKind::GetObject);
    for (name, fault) in [
        ("latency", gets(Fault::Latency(Duration::from_millis(300)))),
        ("reset before", gets(Fault::ResetBefore)),
        ("reset within", gets(Fault::ResetInBody { after: 100_000 })),
        ("cut short", gets(Fault::TruncateBody { after: 77_777 })),
        ("slow down", gets(Fault::SLOW_DOWN)),
        ("server error", gets(Fault::INTERNAL_ERROR)),
        ("expired", gets(Fault::EXPIRED)),
    ] {
        let path = root.join(name);
        fs::write(&path, &bytes).unwrap();
        let fault = faults.add(fault);
        assert!(fs::read(&path).unwrap() == bytes, "{name}");
        assert_eq!(faults.hits(fault), 3, "{name}");
        faults.clear();
    }
}

#[test]
fn an_upload_that_fails_for_a_while_succeeds_and_its_answer_may_be_lost() {
    let world = world();
    let root = world.mounted("a");
    let bytes = Random::new(5).bytes(LARGE);
    let faults = world.objects().faults();
    for (name, fault) in [
        ("busy", Fault::SLOW_DOWN.times(2).on(RequestKind::UploadPart)),
        ("broken", Fault::ResetInBody { after: 1000 }.times(2).on(RequestKind::UploadPart)),
        ("unheard", Fault::LoseAnswer.once().on(RequestKind::CompleteMultipartUpload)),
        ("unsure", Fault::ERROR_IN_OK.once().on(RequestKind::CompleteMultipartUpload)),
    ] {
        let path = root.join(name);
        let fault = faults.add(fault);
        fs::write(&path, &bytes).unwrap();
        assert!(faults.hits(fault) > 0, "{name}");
        faults.clear();
        assert!(fs::read(&path).unwrap() == bytes, "{name}");
    }
    world.ctl(&["check"]);
}

#[test]
fn a_store_that_takes_nothing_fails_the_close_and_what_was_written_stays() {
    let world = world();
    let root = world.mounted("a");
    let path = root.join("file");
    let bytes = Random::new(6).bytes(100_000);
    let faults = world.objects().faults();
    let denied = Fault::Answer { status: 403, code: "AccessDenied" };
    faults.add(denied.always().method("PUT"));
    // `dd` tells what its close says.
    fs::write(world.dir().join("bytes"), &bytes).unwrap();
    let copy = ["dd", "bs=100000", "status=none"].map(str::to_owned);
    let mut dd = Command::new(&copy[0]);
    dd.args(&copy[1..]).arg(format!("if={}", world.dir().join("bytes").display()));
    let outcome = run(dd.arg(format!("of={}", path.display())));
    assert!(!outcome.status.success() && outcome.stderr.contains("Input/output error"), "{outcome}");
    assert!(fs::read(&path).unwrap() == bytes, "it is where it was written");
    faults.clear();
    wait_until("what was written is in the store", Duration::from_secs(120), || {
        world.bucket().keys().len() == 1
    });
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn a_vmds_reads_objects_of_its_tenant_and_does_nothing_else_at_the_store() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    world.objects().forget_requests();
    for (root, seed) in [(&alice, 7), (&bob, 8)] {
        let bytes = Random::new(seed).bytes(200_000);
        fs::write(root.join("file"), &bytes).unwrap();
        await_nothing_staged(&world);
        assert!(fs::read(root.join("file")).unwrap() == bytes);
    }
    let asked: Vec<_> = world.objects().requests().into_iter().filter(|request| request.presigned).collect();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|request| request.kind == RequestKind::GetObject), "{asked:?}");
    let keys: BTreeSet<String> = asked.iter().map(|request| request.key.clone()).collect();
    assert_eq!(keys.len(), 2, "one object of each tenant: {keys:?}");
    for vmds in world.vmdses() {
        let sockets = fds_of(vmds).into_iter();
        let sockets = sockets.filter(|(_, target)| target.to_string_lossy().starts_with("socket:"));
        assert!(sockets.count() <= 3 + 16, "the link, the door, the handshake, and connections it was given");
    }
}

#[test]
fn a_kill_of_the_vmds_loses_nothing_that_is_being_written() {
    let world = world();
    let root = world.mounted("a");
    let mut random = Random::new(9);
    let (path, bytes) = (root.join("file"), random.bytes(3_000_000));
    let mut file = File::create(&path).unwrap();
    file.write_all(&bytes[..1_000_000]).unwrap();
    world.vmds().signal(Signal::KILL);
    file.write_all(&bytes[1_000_000..]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert!(fs::read(&path).unwrap() == bytes);
    let bucket = world.bucket();
    let whole =
        || bucket.keys().into_iter().find(|key| bucket.info(key).unwrap().length == bytes.len() as u64);
    wait_until("one object has all of it", SOON, || whole().is_some());
    assert!(bucket.get(&whole().unwrap()).unwrap() == bytes);
}

#[test]
fn a_purge_that_a_crash_interrupts_is_ended_by_the_next_controller() {
    let mut world = world();
    let root = world.mounted("a");
    for number in 0..30 {
        fs::write(root.join(number.to_string()), vec![number; 20_000]).unwrap();
    }
    world.ctl(&["umount", root.to_str().unwrap()]);
    // All are deleted, and nobody hears of it; before that the list takes its time.
    let faults = world.objects().faults();
    let lost = faults.add(Fault::LoseAnswer.always().on(RequestKind::DeleteObjects));
    let mut purge = world.ctl_command(&["tenant", "delete", "a", "--purge"]).spawn().unwrap();
    wait_until("objects are being deleted", SOON, || faults.hits(lost) > 0);
    world.kill_controller();
    assert!(!purge.wait().unwrap().success());
    world.objects().faults().clear();
    world.bucket().put("pool/00000001/0/2.0123456789abcdef0123456789abcdef", "left");
    world.start_controller();
    wait_until("the purge is ended", SOON, || {
        world.bucket().keys().iter().all(|key| !key.starts_with("pool/0"))
            && run(&mut world.ctl_command(&["tenant", "show", "a"])).stderr.contains("there is no tenant")
    });
}

#[test]
fn an_object_is_where_locate_says_also_of_a_small_file() {
    let world = world();
    let root = world.mounted("a");
    for (name, size) in [("small", 100), ("large", 100_000)] {
        let bytes = Random::new(size as u64).bytes(size);
        fs::write(root.join(name), &bytes).unwrap();
        let told = world.ctl_json(&["locate", &format!("a:/{name}")]);
        let bucket = world.bucket();
        let told = told.to_string();
        let key = bucket.keys().into_iter().find(|key| told.contains(key.trim_start_matches("pool/")));
        let key = key.unwrap_or_else(|| panic!("no object of the bucket is told: {told}"));
        assert!(bucket.get(&key).unwrap() == bytes, "{key}");
        assert!(fs::read(root.join(name)).unwrap() == bytes);
    }
}

#[test]
fn a_share_of_files_in_a_store_shows_what_the_owner_has_and_takes() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("dir")).unwrap();
    let bytes = Random::new(11).bytes(300_000);
    fs::write(alice.join("dir/file"), &bytes).unwrap();
    world.ctl(&["share", "grant", "alice:/dir", "bob:/dir", "--rw"]);
    assert!(fs::read(bob.join("dir/file")).unwrap() == bytes);
    let mut reader = File::open(alice.join("dir/file")).unwrap();
    fs::write(bob.join("dir/file"), b"from bob").unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from bob");
    let mut held = File::open(bob.join("dir/file")).unwrap();
    world.ctl(&["share", "revoke", "alice:/dir", "bob"]);
    assert!(held.read(&mut [0; 8]).is_err(), "what was open reads no more");
    assert_eq!(fs::read(alice.join("dir/file")).unwrap(), b"from bob");
}
