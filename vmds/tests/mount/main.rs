//! A VMDS on a real kernel mount, with a controller of a few lines behind it.

// All of this crate is test code; clippy takes only the `#[test]` functions for such.
#![allow(clippy::unwrap_used)]

mod agent;
mod tree;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use address_map::ids::NodeId;
use address_map::name::Name;
use address_map::wire::{SessionOptions, Stale};
use agent::{Mounted, can_mount};

fn options() -> SessionOptions {
    SessionOptions {
        ttl_ms: 3_600_000,
        cache_entries: 4096,
        buffer_bytes: 1 << 24,
        leases_max: 64,
        metered: false,
        pool_timeout_ms: 60_000,
    }
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What every mode of I/O must do alike.
fn exercise(mounted: &Mounted) {
    let root = mounted.path();
    let dir = root.join("dir");
    fs::create_dir(&dir).unwrap();
    assert_eq!(errno(fs::create_dir(&dir)), libc::EEXIST);
    assert_eq!(errno(fs::metadata(root.join("none"))), libc::ENOENT);

    let path = dir.join("file");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"hello world").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 11);
    assert_eq!(fs::metadata(&path).unwrap().len(), 11);
    file.seek(SeekFrom::Start(6)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "world");
    // A second reader beside the writer, then appending, cutting and extending.
    assert_eq!(fs::read(&path).unwrap(), b"hello world");
    let mut appender = OpenOptions::new().append(true).open(&path).unwrap();
    appender.write_all(b"!").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello world!");
    file.set_len(5).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    file.write_all_at(b"x", 9999).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
    assert_eq!(fs::read(&path).unwrap().len(), 10_000);
    file.sync_all().unwrap();
    File::open(&dir).unwrap().sync_all().unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 20_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20_000);
    drop((file, appender));
    assert_eq!(fs::metadata(&path).unwrap().len(), 20_000);
    fs::write(&path, b"anew").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"anew");

    let large: Vec<u8> = (0..5_000_000u32).map(|n| (n / 7) as u8).collect();
    fs::write(dir.join("large"), &large).unwrap();
    assert!(fs::read(dir.join("large")).unwrap() == large);
    assert_eq!(fs::copy(dir.join("large"), dir.join("copy")).unwrap(), large.len() as u64);
    assert!(fs::read(dir.join("copy")).unwrap() == large);

    fs::rename(&path, root.join("moved")).unwrap();
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert_eq!(fs::read(root.join("moved")).unwrap(), b"anew");
    fs::hard_link(root.join("moved"), root.join("linked")).unwrap();
    assert_eq!(fs::metadata(root.join("moved")).unwrap().nlink(), 2);
    symlink("moved", root.join("symlink")).unwrap();
    assert_eq!(fs::read(root.join("symlink")).unwrap(), b"anew");
    fs::set_permissions(root.join("moved"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::metadata(root.join("linked")).unwrap().mode() & 0o7777, 0o600);

    for number in 0..250 {
        File::create(dir.join(format!("n{number}"))).unwrap();
    }
    assert_eq!(names(&dir).len(), 252);
    assert_eq!(names(root), ["dir", "linked", "moved", "symlink"]);
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        let expected =
            if entry.file_name().len() < 5 && entry.file_name() != "copy" { 0 } else { large.len() };
        assert_eq!(entry.metadata().unwrap().len(), expected as u64, "{:?}", entry.file_name());
    }

    // A file without a name lives until it is closed.
    let mut orphan =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(root.join("orphan"));
    let orphan = orphan.as_mut().unwrap();
    orphan.write_all(b"still here").unwrap();
    fs::remove_file(root.join("orphan")).unwrap();
    assert_eq!(orphan.metadata().unwrap().nlink(), 0);
    orphan.rewind().unwrap();
    let mut text = String::new();
    orphan.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");

    assert_eq!(errno(fs::remove_dir(&dir)), libc::ENOTEMPTY);
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(names(root), ["linked", "moved", "symlink"]);
    assert_eq!(rustix::fs::statvfs(root).unwrap().f_blocks, (1 << 30) / 4096);
    rustix::fs::setxattr(root.join("moved"), "user.key", b"value", rustix::fs::XattrFlags::CREATE).unwrap();
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(root.join("linked"), "user.key", &mut value[..]), Ok(5));
    let again = rustix::fs::setxattr(root.join("moved"), "user.key", b"v", rustix::fs::XattrFlags::CREATE);
    assert_eq!(again, Err(rustix::io::Errno::EXIST));
    rustix::fs::removexattr(root.join("moved"), "user.key").unwrap();
    assert_eq!(
        rustix::fs::getxattr(root.join("moved"), "user.key", &mut value[..]),
        Err(rustix::io::Errno::NODATA)
    );
}

#[test]
fn a_mount_with_passthrough() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new(true, options());
    exercise(&mounted);
    mounted.unmount();
}

#[test]
fn a_mount_whose_bytes_go_through_the_process() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new(false, options());
    exercise(&mounted);
    mounted.unmount();
}

#[test]
fn a_metered_mount_refuses_what_is_too_much() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new(true, SessionOptions { metered: true, ..options() });
    exercise(&mounted);
    mounted.tree.lock().unwrap().quota = 4096;
    let file = File::create(mounted.path().join("full")).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    assert_eq!(errno(file.write_all_at(b"x", 4096)), libc::EDQUOT);
    assert_eq!(file.metadata().unwrap().len(), 4096);
    drop(file);
    mounted.unmount();
}

#[test]
fn what_is_known_is_not_asked_for_again() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new(true, options());
    fs::write(mounted.path().join("a"), b"1").unwrap();
    for _ in 0..3 {
        fs::metadata(mounted.path().join("a")).unwrap();
        assert_eq!(errno(fs::metadata(mounted.path().join("none"))), libc::ENOENT);
        assert_eq!(fs::read(mounted.path().join("a")).unwrap(), b"1");
    }
    assert!(mounted.calls("Lookup") <= 2, "{}", mounted.calls("Lookup"));
    assert_eq!(mounted.calls("Lease"), 0, "the lease of the creation serves all readers");
    mounted.unmount();
}

#[test]
fn changes_of_others_are_seen_at_once() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new(true, options());
    let name = Name::new(b"theirs").unwrap();
    let path = mounted.path().join("theirs");
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert!(names(mounted.path()).is_empty());
    mounted.tree.lock().unwrap().make_behind_the_back(&name, b"surprise");
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT, "the kernel believes what it knows");
    mounted.push(1, vec![Stale::Entry { parent: NodeId::ROOT, name: name.clone() }]);
    assert_eq!(fs::read(&path).unwrap(), b"surprise");
    assert_eq!(names(mounted.path()), ["theirs"]);

    // The whole tree at once.
    let other = mounted.path().join("other");
    assert_eq!(errno(fs::metadata(&other)), libc::ENOENT);
    mounted.tree.lock().unwrap().make_behind_the_back(&Name::new(b"other").unwrap(), b"more");
    mounted.push(2, vec![Stale::Slot(address_map::ids::Slot::OWN)]);
    assert_eq!(fs::read(&other).unwrap(), b"more");
    assert_eq!(names(mounted.path()), ["other", "theirs"]);
    mounted.unmount();
}

#[test]
fn a_crash_is_not_noticed_by_open_files() {
    if !can_mount() {
        return;
    }
    for passthrough in [true, false] {
        let mut mounted = Mounted::new(passthrough, options());
        let path = mounted.path().join("file");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all_at(b"before", 0).unwrap();
        for _ in 0..3 {
            mounted.crash_and_restart();
            file.write_all_at(b"after!", 6).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"beforeafter!");
            fs::write(mounted.path().join("other"), b"x").unwrap();
        }
        drop(file);
        agent::wait_for(|| (mounted.calls("CloseWrite") >= 4).then_some(()));
        assert_eq!(fs::metadata(&path).unwrap().len(), 12);
        mounted.unmount();
    }
}

#[test]
fn when_the_controller_goes_requests_wait_for_the_next_one() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new(true, options());
    let open = fs::File::create(mounted.path().join("open")).unwrap();
    mounted.lose_controller();
    let path = mounted.path().join("later");
    let waiting = std::thread::spawn(move || fs::create_dir(path));
    mounted.find_controller();
    waiting.join().unwrap().unwrap();
    assert_eq!(mounted.calls("Held"), 1);
    assert!(mounted.path().join("later").is_dir());
    drop(open);
    mounted.unmount();
}
