//! Promise: what was acknowledged survives the crash of any one process.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tests::{mounts_under, snapshot, tree, wait_until};

use crate::help::{SOON, Writer, names, world};

/// Makes one of everything; each call has returned when this returns.
fn work(dir: &Path, round: u32) {
    let dir = dir.join(format!("round-{round}"));
    fs::create_dir(&dir).unwrap();
    tree(&dir, u64::from(round), 50);
    fs::write(dir.join("a"), "text").unwrap();
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    fs::hard_link(dir.join("b"), dir.join("c")).unwrap();
    fs::remove_file(dir.join("b")).unwrap();
    rustix::fs::setxattr(dir.join("c"), "user.k", b"v", rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn after_a_kill_of_the_vmds_the_mount_works_again_and_nothing_is_lost() {
    let world = world();
    let dir = world.mounted("alice");
    for round in 0..3 {
        work(&dir, round);
        let expected = snapshot(&dir);
        let victim = world.vmds();
        victim.kill();
        wait_until("the mount works again", SOON, || fs::read_dir(&dir).is_ok());
        assert_eq!(mounts_under(&dir).len(), 1);
        expected.assert_same(&snapshot(&dir));
        assert_ne!(world.vmds(), victim);
    }
    world.ctl(&["check"]);
}

#[test]
fn open_handles_survive_a_kill_of_the_vmds() {
    let world = world();
    let dir = world.mounted("alice");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("file")).unwrap();
    file.write_all(b"before ").unwrap();
    let gone = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("gone")).unwrap();
    gone.write_all_at(b"kept while open", 0).unwrap();
    fs::remove_file(dir.join("gone")).unwrap();
    let handle = File::open(&dir).unwrap();
    world.vmds().kill();
    file.write_all(b"after").unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "before after");
    let mut bytes = [0; 15];
    gone.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"kept while open");
    let inside = rustix::fs::openat(&handle, "file", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    assert!(inside.is_ok());
    drop((file, gone, handle));
    world.ctl(&["check"]);
}

#[test]
fn kills_under_load_cost_no_operation() {
    let world = world();
    let dir = world.mounted("alice");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for number in 0..3 {
            let (dir, done) = (&dir, &done);
            workers.push(scope.spawn(move || {
                let mut count = 0u32;
                while !done.load(Ordering::Relaxed) {
                    let path = dir.join(format!("w{number}-{count}"));
                    let moved = dir.join(format!("m{number}-{count}"));
                    fs::create_dir(&path).unwrap();
                    fs::write(path.join("f"), count.to_string()).unwrap();
                    fs::rename(&path, &moved).unwrap();
                    assert_eq!(fs::read_to_string(moved.join("f")).unwrap(), count.to_string());
                    if count.is_multiple_of(2) {
                        fs::remove_file(moved.join("f")).unwrap();
                        fs::remove_dir(&moved).unwrap();
                    }
                    count += 1;
                }
                count
            }));
        }
        for _ in 0..10 {
            let before = names(&dir).len();
            world.vmds().kill();
            wait_until("work goes on", SOON, || {
                fs::read_dir(&dir).is_ok_and(|list| list.count() != before) && !world.vmdses().is_empty()
            });
        }
        done.store(true, Ordering::Relaxed);
        let mut kept = 0;
        for worker in workers {
            kept += worker.join().unwrap() / 2;
        }
        assert_eq!(names(&dir).len(), kept as usize);
    });
    world.ctl(&["check"]);
}

#[test]
fn after_a_kill_of_the_controller_the_mounts_go_on_and_nothing_is_lost() {
    let mut world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    for round in 0..3 {
        work(&alice, round);
        let mut appended = OpenOptions::new().append(true).create(true).open(alice.join("log")).unwrap();
        appended.write_all(b"line\n").unwrap();
        drop(appended);
        if round == 0 {
            world.ctl(&["share", "grant", "alice:/round-0", "bob:/in", "--rw"]);
            fs::write(bob.join("in/by-bob"), "text").unwrap();
        }
        let expected = (snapshot(&alice), snapshot(&bob));
        world.crash_controller();
        expected.0.assert_same(&snapshot(&alice));
        expected.1.assert_same(&snapshot(&bob));
    }
    assert_eq!(fs::read_to_string(alice.join("log")).unwrap(), "line\nline\nline\n");
    world.ctl(&["check"]);
}

#[test]
fn a_kill_of_the_controller_during_writes_loses_nothing_that_was_closed() {
    let mut world = world();
    let dir = world.mounted("alice");
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Writes until the mount dies under it; what was closed before counts.
            (0u32..)
                .take_while(|number| {
                    let path = dir.join(format!("{number:06}"));
                    File::create_new(&path).and_then(|mut f| f.write_all(&[*number as u8; 3000])).is_ok()
                })
                .count()
        });
        wait_until("some files are written", SOON, || names(&dir).len() > 200);
        // The writer ends on its own error, or on the mount being taken away by the next controller.
        world.crash_controller();
        if writer.is_finished() { writer.join().unwrap() } else { stop(writer, &dir) }
    });
    for number in 0..written {
        let bytes = fs::read(dir.join(format!("{number:06}"))).unwrap();
        assert!(bytes == [number as u8; 3000], "file {number}: {} bytes", bytes.len());
    }
    world.ctl(&["check"]);
}

/// Makes the writer's next file impossible and waits for it.
fn stop(writer: thread::ScopedJoinHandle<'_, usize>, dir: &Path) -> usize {
    while !writer.is_finished() {
        let next = names(dir).len() + 50;
        let _ = fs::create_dir(dir.join(format!("{next:06}")));
    }
    writer.join().unwrap()
}

#[test]
fn what_was_open_and_unlinked_when_the_controller_died_is_cleaned_up() {
    let mut world = world();
    world.tenant_with("alice", &["--quota-bytes", "10MiB"]);
    let dir = world.mount("alice");
    let free = |dir: &Path| rustix::fs::statvfs(dir).map(|s| s.f_bavail * s.f_frsize);
    let all = free(&dir).unwrap();
    let mut file = Writer::open(&dir.join("gone"), "os.O_WRONLY | os.O_CREAT");
    assert_eq!(file.does("os.write(f, b'1' * 1048576)"), "1048576");
    fs::remove_file(dir.join("gone")).unwrap();
    assert_eq!(free(&dir).unwrap(), all - (1 << 20));
    world.crash_controller();
    file.end();
    wait_until("the space comes back", SOON, || free(&dir) == Ok(all));
    world.ctl(&["check"]);
}

#[test]
fn what_was_open_and_unlinked_when_the_vmds_died_goes_with_its_last_handle() {
    let world = world();
    world.tenant_with("alice", &["--quota-bytes", "10MiB"]);
    let dir = world.mount("alice");
    let free = |dir: &Path| rustix::fs::statvfs(dir).map(|s| s.f_bavail * s.f_frsize);
    let all = free(&dir).unwrap();
    let (path, bytes) = (dir.join("gone"), vec![1; 1 << 20]);
    fs::write(&path, &bytes).unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (used, unused) = (open(), open());
    fs::remove_file(&path).unwrap();
    world.vmds().kill();
    used.write_all_at(b"later", 0).unwrap();
    let mut back = vec![0; bytes.len()];
    unused.read_exact_at(&mut back, 0).unwrap();
    assert!(back[..5] == *b"later" && back[5..] == bytes[5..]);
    drop((used, unused));
    wait_until("the space comes back", SOON, || free(&dir) == Ok(all));
    wait_until("the bytes are gone", SOON, || {
        !world.stored_sizes().contains(&(1 << 20)) || world.has_objects()
    });
    world.ctl(&["check"]);
}

#[test]
fn written_bytes_are_seen_by_every_later_open_when_close_has_returned() {
    let world = world();
    let first = world.mounted("alice");
    let second = world.dir().join("second");
    fs::create_dir(&second).unwrap();
    world.mount_at("alice", &second, &[]);
    for round in 0..100u32 {
        let (writer, reader) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let text = format!("{round} ").repeat(1 + round as usize * 50);
        fs::write(writer.join("file"), &text).unwrap();
        assert!(fs::read_to_string(reader.join("file")).unwrap() == text, "round {round}");
    }
}
