//! Promise: a share ends when it is taken back, expires, or its root is gone; then nothing of it is left, not even
//! what was open.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use tests::{World, ok, run, wait_until};

use crate::help::{SOON, assert_errno, assert_unknown, names, python, world};

/// A file larger than any read-ahead, so that reading its end after a revoke needs the server.
const LARGE: usize = 8 << 20;

/// Alice shares `/d` with bob at `/in/d`; in it are `file`, `large` and `sub/file`. Gives both roots.
fn shared(world: &World, more: &[&str]) -> (PathBuf, PathBuf) {
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir_all(alice.join("d/sub")).unwrap();
    fs::write(alice.join("d/file"), "bytes").unwrap();
    fs::write(alice.join("d/large"), vec![7; LARGE]).unwrap();
    fs::write(alice.join("d/sub/file"), "deeper").unwrap();
    world.ctl(&[&["share", "grant", "alice:/d", "bob:/in/d"], more].concat());
    (alice, bob)
}

/// Nothing that bob kept from the share works.
struct Kept {
    dir: File,
    file: File,
    large: File,
}

impl Kept {
    fn open(share: &Path) -> Self {
        let kept = Self {
            dir: File::open(share).unwrap(),
            file: File::open(share.join("file")).unwrap(),
            large: File::open(share.join("large")).unwrap(),
        };
        // Warms every cache there is.
        assert_eq!(kept.read_file().unwrap(), *b"bytes");
        assert_eq!(names(share), ["file", "large", "sub"]);
        fs::read(share.join("sub/file")).unwrap();
        kept
    }

    fn read_file(&self) -> std::io::Result<[u8; 5]> {
        let mut bytes = [0; 5];
        self.file.read_exact_at(&mut bytes, 0).map(|()| bytes)
    }

    #[track_caller]
    fn assert_dead(&self) {
        assert!(self.read_file().is_err(), "what was read before is still read");
        assert!(self.large.read_at(&mut [0; 4096], (LARGE - 4096) as u64).is_err(), "new bytes are read");
        assert!(self.file.metadata().is_err(), "attributes are still told");
        assert!(self.large.set_len(0).is_err());
        let inside =
            rustix::fs::openat(&self.dir, "file", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        assert!(inside.is_err(), "names are still looked up");
    }
}

#[track_caller]
fn assert_gone(bob: &Path) {
    for path in ["in/d", "in/d/file", "in/d/sub", "in/d/sub/file"] {
        assert_errno(fs::symlink_metadata(bob.join(path)), Errno::NOENT);
        assert_errno(File::open(bob.join(path)), Errno::NOENT);
    }
    assert_errno(fs::read_dir(bob.join("in/d")), Errno::NOENT);
    assert_errno(fs::write(bob.join("in/d/new"), ""), Errno::NOENT);
    assert_eq!(names(&bob.join("in")), [""; 0]);
}

#[test]
fn a_revoked_share_is_gone_when_the_command_returns() {
    for rights in ["--ro", "--rw"] {
        let world = world();
        let (alice, bob) = shared(&world, &[rights]);
        let kept = Kept::open(&bob.join("in/d"));
        world.ctl(&["share", "revoke", "alice:/d", "bob"]);
        assert_gone(&bob);
        kept.assert_dead();
        assert_eq!(fs::read_to_string(alice.join("d/file")).unwrap(), "bytes");
        assert_eq!(fs::metadata(alice.join("d/large")).unwrap().len(), LARGE as u64);
        drop(kept);
        world.ctl(&["check"]);
    }
}

#[test]
fn a_revoke_by_name_is_a_revoke() {
    let world = world();
    let (_, bob) = shared(&world, &["--ro", "--name", "weekly"]);
    assert_eq!(names(&bob.join("in/d")), ["file", "large", "sub"]);
    world.ctl(&["share", "revoke", "weekly"]);
    assert_gone(&bob);
    let list = world.ctl(&["share", "list"]);
    assert!(!list.contains("weekly") || list.contains("Revoked"), "{list}");
}

#[test]
fn a_mapping_of_a_revoked_file_shows_no_more_bytes() {
    let world = world();
    let (_, bob) = shared(&world, &["--ro"]);
    let mut reader = python(
        &bob.join("in/d"),
        "import mmap, os, sys\n\
         fd = os.open('large', os.O_RDONLY)\n\
         m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)\n\
         assert m[0] == 7 and m[4 << 20] == 7\n\
         print('ready', flush=True)\n\
         sys.stdin.readline()\n\
         print('byte', m[4 << 20], flush=True)\n",
    );
    let out = world.dir().join("reader");
    let file = File::create(&out).unwrap();
    let mut child = reader.stdin(Stdio::piped()).stdout(file).spawn().unwrap();
    wait_until("the reader has mapped the file", SOON, || {
        fs::read_to_string(&out).unwrap().contains("ready")
    });
    world.ctl(&["share", "revoke", "alice:/d", "bob"]);
    drop(child.stdin.take());
    let status = child.wait().unwrap();
    assert!(!status.success(), "the reader should have been stopped by SIGBUS");
    assert_eq!(fs::read_to_string(&out).unwrap(), "ready\n");
}

#[test]
fn a_share_expires_by_itself() {
    let world = world();
    let (_, bob) = shared(&world, &["--ro", "--expires", "2s"]);
    let kept = Kept::open(&bob.join("in/d"));
    wait_until("the share expires", SOON, || !bob.join("in/d/file").exists());
    assert_errno(File::open(bob.join("in/d/sub/file")), Errno::NOENT);
    wait_until("the name goes too", SOON, || names(&bob.join("in")).is_empty());
    kept.assert_dead();
    assert_gone(&bob);
    drop(kept);
    world.ctl(&["check"]);
}

#[test]
fn a_share_that_was_taken_back_can_be_granted_again() {
    let world = world();
    let (alice, bob) = shared(&world, &["--ro"]);
    for round in 0..5 {
        world.ctl(&["share", "revoke", "alice:/d", "bob"]);
        assert_gone(&bob);
        fs::write(alice.join("d/file"), format!("round {round}")).unwrap();
        world.ctl(&["share", "grant", "alice:/d", "bob:/in/d", "--rw"]);
        assert_eq!(fs::read_to_string(bob.join("in/d/file")).unwrap(), format!("round {round}"));
        fs::write(bob.join("in/d/by-bob"), "x").unwrap();
        fs::remove_file(alice.join("d/by-bob")).unwrap();
    }
    world.ctl(&["check"]);
}

#[test]
fn a_handle_from_before_does_not_work_with_a_new_grant_of_something_else() {
    let world = world();
    let (alice, bob) = shared(&world, &["--ro"]);
    let kept = Kept::open(&bob.join("in/d"));
    world.ctl(&["share", "revoke", "alice:/d", "bob"]);
    fs::create_dir(alice.join("other")).unwrap();
    world.ctl(&["share", "grant", "alice:/other", "bob:/in/d", "--ro"]);
    assert_eq!(names(&bob.join("in/d")), [""; 0]);
    kept.assert_dead();
}

#[test]
fn a_share_vanishes_with_its_root() {
    let world = world();
    let (alice, bob) = shared(&world, &["--ro"]);
    fs::write(alice.join("f"), "text").unwrap();
    world.ctl(&["share", "grant", "alice:/f", "bob:/in/f", "--ro"]);
    assert_eq!(names(&bob.join("in")), ["d", "f"]);
    fs::remove_dir_all(alice.join("d")).unwrap();
    fs::remove_file(alice.join("f")).unwrap();
    for path in ["in/d", "in/d/file", "in/f"] {
        assert_errno(fs::symlink_metadata(bob.join(path)), Errno::NOENT);
    }
    wait_until("the names go too", SOON, || names(&bob.join("in")).is_empty());
    // A new thing under the old name is not what was shared.
    fs::create_dir(alice.join("d")).unwrap();
    assert_unknown(&bob.join("in/d"));
    world.ctl(&["check"]);
}

#[test]
fn a_share_follows_its_root_when_the_owner_moves_it() {
    let world = world();
    let (alice, bob) = shared(&world, &["--ro"]);
    fs::create_dir(alice.join("archive")).unwrap();
    fs::rename(alice.join("d"), alice.join("archive/2024")).unwrap();
    assert_eq!(fs::read_to_string(bob.join("in/d/file")).unwrap(), "bytes");
    fs::write(alice.join("archive/2024/file"), "moved").unwrap();
    assert_eq!(fs::read_to_string(bob.join("in/d/file")).unwrap(), "moved");
}

#[test]
fn what_the_owner_moves_out_of_the_share_is_gone_for_the_grantee() {
    let world = world();
    let (alice, bob) = shared(&world, &["--ro"]);
    let kept = Kept::open(&bob.join("in/d"));
    let inner = File::open(bob.join("in/d/sub/file")).unwrap();
    fs::rename(alice.join("d/file"), alice.join("private")).unwrap();
    fs::rename(alice.join("d/sub"), alice.join("private-dir")).unwrap();
    assert_unknown(&bob.join("in/d/file"));
    assert_unknown(&bob.join("in/d/sub"));
    assert_eq!(names(&bob.join("in/d")), ["large"]);
    fs::write(alice.join("private"), "later").unwrap();
    fs::write(alice.join("private-dir/file"), "later").unwrap();
    let mut bytes = [0; 5];
    for handle in [&kept.file, &inner] {
        let read = handle.read_at(&mut bytes, 0);
        assert!(
            read.is_err() || bytes != *b"later",
            "the grantee reads what is written after the move: {read:?}"
        );
    }
    assert!(
        rustix::fs::openat(&kept.dir, "file", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).is_err()
    );
}

#[test]
fn a_hard_link_inside_keeps_a_file_in_the_share_and_one_outside_does_not() {
    let world = world();
    let (alice, bob) = shared(&world, &["--ro"]);
    fs::hard_link(alice.join("d/file"), alice.join("d/sub/twin")).unwrap();
    fs::hard_link(alice.join("d/file"), alice.join("outside")).unwrap();
    assert_eq!(fs::metadata(bob.join("in/d/sub/twin")).unwrap().nlink(), 3);
    fs::remove_file(alice.join("d/file")).unwrap();
    assert_eq!(fs::read_to_string(bob.join("in/d/sub/twin")).unwrap(), "bytes");
    let handle = File::open(bob.join("in/d/sub/twin")).unwrap();
    fs::remove_file(alice.join("d/sub/twin")).unwrap();
    assert_unknown(&bob.join("in/d/sub/twin"));
    fs::write(alice.join("outside"), "later").unwrap();
    let mut bytes = [0; 5];
    let read = handle.read_at(&mut bytes, 0);
    assert!(read.is_err() || bytes != *b"later", "the file has left the share: {read:?}");
    world.ctl(&["check"]);
}

#[test]
fn guessed_inode_numbers_open_nothing_after_a_revoke() {
    let world = world();
    let (_, bob) = shared(&world, &["--ro"]);
    // A handle is made while the share lives and opened after it ended, by number, without any name.
    let program = "import ctypes, os, sys\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         class Handle(ctypes.Structure):\n\
         \x20   _fields_ = [('size', ctypes.c_uint), ('kind', ctypes.c_int), ('bytes', ctypes.c_ubyte * 128)]\n\
         handle = Handle(size=128)\n\
         mount = ctypes.c_int()\n\
         path = os.fsencode(sys.argv[1])\n\
         done = libc.name_to_handle_at(-100, path, ctypes.byref(handle), ctypes.byref(mount), 0)\n\
         if done != 0: sys.exit('no handles here: ' + os.strerror(ctypes.get_errno()))\n\
         print('handle', flush=True)\n\
         sys.stdin.readline()\n\
         root = os.open(sys.argv[2], os.O_RDONLY)\n\
         fd = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)\n\
         if fd < 0: sys.exit(0)\n\
         try: print(os.read(fd, 100), flush=True)\n\
         except OSError: pass\n";
    let out = world.dir().join("handles");
    let mut command = python(world.dir(), program);
    command.arg(bob.join("in/d/file")).arg(&bob);
    let mut child = command.stdin(Stdio::piped()).stdout(File::create(&out).unwrap()).spawn().unwrap();
    wait_until("the handle is made", SOON, || {
        fs::read_to_string(&out).unwrap().contains("handle") || child.try_wait().unwrap().is_some()
    });
    world.ctl(&["share", "revoke", "alice:/d", "bob"]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&out).unwrap(), "handle\n");
}

#[test]
fn a_revoke_while_the_grantee_works_ends_the_work_and_harms_nobody() {
    let world = world();
    let (alice, bob) = shared(&world, &["--rw"]);
    let script = "n=0; while :; do n=$((n + 1)); echo line > f$n && cat f$n file > /dev/null && rm f$n || exit 3; done";
    let mut worker = Command::new("sh");
    worker.args(["-c", script]).current_dir(bob.join("in/d")).stderr(Stdio::null()).stdout(Stdio::null());
    let mut worker = worker.spawn().unwrap();
    wait_until("the grantee works", SOON, || {
        names(&alice.join("d")).iter().any(|name| name.starts_with("f"))
    });
    world.ctl(&["share", "revoke", "alice:/d", "bob"]);
    assert_eq!(worker.wait().unwrap().code(), Some(3));
    assert_eq!(fs::read_to_string(alice.join("d/file")).unwrap(), "bytes");
    world.ctl(&["check"]);
    ok(Command::new("ls").arg("-lR").arg(&alice));
    assert_eq!(run(Command::new("ls").arg(bob.join("in/d"))).code(), 2);
}
