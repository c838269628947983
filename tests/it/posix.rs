//! Promise: the corners of POSIX and Linux are where programs expect them; where they are not, it is said here.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, StatxFlags, Timespec, Timestamps, statx, utimensat,
};
use rustix::io::Errno;
use tests::ok;

use crate::help::{assert_errno, everywhere, names, python, sh, world};

#[test]
fn paths_end_where_they_should() {
    everywhere(|dir| {
        let long = dir.join("x".repeat(256));
        assert_errno(File::create(&long), Errno::NAMETOOLONG);
        assert_errno(fs::metadata(&long), Errno::NAMETOOLONG);
        assert_errno(fs::metadata(dir.join("./".repeat(2100))), Errno::NAMETOOLONG);
        assert!(fs::metadata(dir.join("./".repeat(1500))).is_ok());
        // Symbolic links that lead in circles, and chains that are too long.
        symlink("loop", dir.join("loop")).unwrap();
        symlink("pong", dir.join("ping")).unwrap();
        symlink("ping", dir.join("pong")).unwrap();
        for name in ["loop", "ping", "ping/below"] {
            assert_errno(File::open(dir.join(name)), Errno::LOOP);
        }
        fs::write(dir.join("0"), "end").unwrap();
        for number in 1..=41 {
            symlink((number - 1).to_string(), dir.join(number.to_string())).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.join("40")).unwrap(), "end");
        assert_errno(fs::read_to_string(dir.join("41")), Errno::LOOP);
        let no_follow = rustix::fs::open(dir.join("1"), OFlags::NOFOLLOW | OFlags::RDONLY, Mode::empty());
        assert_eq!(no_follow.err(), Some(Errno::LOOP));
        // A slash at the end asks for a directory.
        for name in ["0/", "1/", "0/.", "0/.."] {
            assert_errno(fs::metadata(dir.join(name)), Errno::NOTDIR);
        }
        assert_errno(fs::metadata(dir.join("none/..")), Errno::NOENT);
        assert_errno(File::create(dir.join("new/")), Errno::ISDIR);
        assert_errno(fs::remove_dir(dir.join("0/")), Errno::NOTDIR);
        // `..` follows a directory that moves, and leads out of one that is gone.
        fs::create_dir_all(dir.join("a/deep")).unwrap();
        fs::create_dir(dir.join("b")).unwrap();
        fs::write(dir.join("b/mark"), "").unwrap();
        let deep = rustix::fs::open(dir.join("a/deep"), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let up = |name: &str| rustix::fs::statat(&deep, format!("../{name}"), AtFlags::empty()).map(drop);
        assert_eq!(up("mark"), Err(Errno::NOENT));
        fs::rename(dir.join("a/deep"), dir.join("b/deep")).unwrap();
        assert_eq!(up("mark"), Ok(()));
        fs::remove_dir(dir.join("b/deep")).unwrap();
        assert_eq!(rustix::fs::statat(&deep, "new", AtFlags::empty()).err(), Some(Errno::NOENT));
        let made = rustix::fs::openat(&deep, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
        assert_eq!(made.err(), Some(Errno::NOENT));
    });
}

#[test]
fn files_may_be_larger_than_four_gigabytes() {
    everywhere(|dir| {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("f")).unwrap();
        let far = 7 << 32;
        file.write_all_at(b"far", far).unwrap();
        assert_eq!(file.metadata().unwrap().len(), far + 3);
        let mut bytes = [1; 6];
        file.read_exact_at(&mut bytes, far - 3).unwrap();
        assert_eq!(&bytes, b"\0\0\0far");
        ok(&mut python(
            dir,
            "import mmap, os\n\
             fd = os.open('f', os.O_RDWR)\n\
             with mmap.mmap(fd, 3, offset=7 << 32) as m:\n\
             \x20   assert m[:3] == b'far'\n\
             \x20   m[:3] = b'FAR'\n\
             assert os.pread(fd, 3, 7 << 32) == b'FAR'\n\
             assert os.lseek(fd, 0, os.SEEK_END) == (7 << 32) + 3\n",
        ));
        file.set_len(5 << 32).unwrap();
        assert_eq!(fs::metadata(dir.join("f")).unwrap().len(), 5 << 32);
    });
}

#[test]
fn the_largest_file_is_that_of_the_pool() {
    let world = world();
    let local = world.dir().join("local");
    fs::create_dir(&local).unwrap();
    for dir in [local, world.mounted("alice")] {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("f")).unwrap();
        file.write_all_at(b"far", 8 << 40).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (8 << 40) + 3);
        // More than ext4 can hold.
        for size in [1 << 50, i64::MAX as u64] {
            assert_errno(file.set_len(size), Errno::FBIG);
            assert_errno(file.write_at(b"x", size - 1), Errno::FBIG);
        }
        assert_eq!(file.metadata().unwrap().len(), (8 << 40) + 3, "what was refused changed nothing");
        assert_eq!(fs::metadata(dir.join("f")).unwrap().len(), (8 << 40) + 3);
        file.set_len(3).unwrap();
        drop(file);
        // The same by name, while nobody has it open.
        let by_name = "import errno, os\n\
            try: os.truncate('f', 1 << 50)\n\
            except OSError as e: assert e.errno == errno.EFBIG, e\n\
            else: raise AssertionError('cut to a size that cannot be')\n";
        ok(&mut python(&dir, by_name));
        assert_eq!(fs::metadata(dir.join("f")).unwrap().len(), 3);
    }
    let space = rustix::fs::statvfs(world.mount_point("alice")).unwrap();
    let used = (space.f_blocks - space.f_bfree) * space.f_frsize;
    assert!(used < 1 << 20, "{used} bytes are charged for a size that was refused");
    world.ctl(&["check"]);
}

#[test]
fn ranges_are_zeroed_and_neither_cut_out_nor_put_in() {
    everywhere(|dir| {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("f")).unwrap();
        let allocate = |flags, at, len| rustix::fs::fallocate(&file, flags, at, len);
        file.write_all_at(&[7; 20_000], 0).unwrap();
        allocate(FallocateFlags::ZERO_RANGE, 100, 5000).unwrap();
        let bytes = fs::read(dir.join("f")).unwrap();
        let zero = |at: usize| (100..5100).contains(&at);
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == if zero(at) { 0 } else { 7 }));
        allocate(FallocateFlags::ZERO_RANGE, 19_000, 5000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 24_000);
        allocate(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 23_000, 5000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 24_000);
        assert_eq!(allocate(FallocateFlags::PUNCH_HOLE, 0, 10), Err(Errno::OPNOTSUPP), "only with KEEP_SIZE");
        assert_eq!(allocate(FallocateFlags::empty(), 0, 0), Err(Errno::INVAL));
        let reader = File::open(dir.join("f")).unwrap();
        let refused = rustix::fs::fallocate(&reader, FallocateFlags::empty(), 0, 10);
        assert_eq!(refused, Err(Errno::BADF));
        let before = fs::read(dir.join("f")).unwrap();
        for flags in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
            match allocate(flags, 4096, 4096) {
                Ok(()) => assert!(dir.ends_with("local"), "FUSE has no {flags:?}"),
                Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP),
            }
        }
        if !dir.ends_with("local") {
            assert!(fs::read(dir.join("f")).unwrap() == before);
        }
    });
}

#[test]
fn writes_obey_the_flags_of_the_call() {
    everywhere(|dir| {
        ok(&mut python(
            dir,
            "import os\n\
             fd = os.open('f', os.O_RDWR | os.O_CREAT)\n\
             os.pwrite(fd, b'first', 0)\n\
             assert os.pwritev(fd, [b' second'], 0, os.RWF_APPEND) == 7\n\
             assert os.pread(fd, 100, 0) == b'first second'\n\
             assert os.pwritev(fd, [b'FIR', b'ST'], 0, os.RWF_DSYNC | os.RWF_SYNC) == 5\n\
             buffers = [bytearray(3), bytearray(9)]\n\
             assert os.preadv(fd, buffers, 0) == 12 and bytes(buffers[1]) == b'ST second'\n\
             app = os.open('f', os.O_WRONLY | os.O_APPEND)\n\
             assert os.pwrite(app, b'!', 0) == 1\n\
             assert os.pread(fd, 100, 0) == b'FIRST second!', 'Linux appends, whatever offset is given'\n",
        ));
    });
}

#[test]
fn direct_input_and_output_is_aligned_or_correct() {
    everywhere(|dir| {
        ok(&mut python(
            dir,
            "import errno, mmap, os\n\
             page = mmap.mmap(-1, 16384)\n\
             page[:] = b'a' * 16384\n\
             fd = os.open('f', os.O_RDWR | os.O_CREAT | os.O_DIRECT)\n\
             assert os.pwritev(fd, [page], 0) == 16384\n\
             view = memoryview(page)\n\
             view[:4096] = b'b' * 4096\n\
             for piece, at in ((view[:100], 0), (view[:4096], 10), (view[3:4099], 4096)):\n\
             \x20   wanted = bytearray(open('f', 'rb').read())\n\
             \x20   try: assert os.pwritev(fd, [piece], at) == len(piece)\n\
             \x20   except OSError as e: assert e.errno == errno.EINVAL, e\n\
             \x20   else: wanted[at:at + len(piece)] = piece\n\
             \x20   assert open('f', 'rb').read() == wanted\n\
             back = mmap.mmap(-1, 4096)\n\
             assert os.preadv(fd, [back], 16384) == 0\n\
             assert os.preadv(fd, [back], 8192) == 4096 and back[:] == b'a' * 4096\n",
        ));
    });
}

#[test]
fn mappings_end_with_the_file() {
    everywhere(|dir| {
        // A process dies of SIGBUS behind the end of the file, of SIGSEGV where it may not write.
        ok(&mut python(
            dir,
            "import mmap, os, signal\n\
             fd = os.open('f', os.O_RDWR | os.O_CREAT)\n\
             os.write(fd, b'x' * 12288)\n\
             def dies(signal_, work):\n\
             \x20   pid = os.fork()\n\
             \x20   if pid == 0:\n\
             \x20       work()\n\
             \x20       os._exit(0)\n\
             \x20   status = os.waitpid(pid, 0)[1]\n\
             \x20   assert os.WTERMSIG(status) == signal_, status\n\
             m = mmap.mmap(fd, 12288)\n\
             dies(0, lambda: m[11000])\n\
             os.ftruncate(fd, 5000)\n\
             assert m[4999] == ord('x') and m[5000] == 0, 'the rest of the last page is zero'\n\
             dies(signal.SIGBUS, lambda: m[8192])\n\
             dies(signal.SIGBUS, lambda: m.__setitem__(8192, 1))\n\
             os.ftruncate(fd, 12288)\n\
             assert m[8192] == 0 and m[5000] == 0\n\
             m[8192] = 7\n\
             m.flush()\n\
             assert os.pread(fd, 1, 8192) == b'\\x07'\n\
             ro = os.open('f', os.O_RDONLY)\n\
             try: mmap.mmap(ro, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)\n\
             except PermissionError: pass\n\
             else: raise AssertionError('mapped for writing')\n",
        ));
    });
}

#[test]
fn files_without_a_name() {
    everywhere(|dir| {
        // Where `O_TMPFILE` is missing, libraries make a file with a name and remove it.
        sh(
            dir,
            "python3 -c \"import tempfile; f = tempfile.TemporaryFile(dir='.'); f.write(b'x'); f.flush()\"",
        );
        assert_eq!(names(dir), [""; 0]);
        // An open file that has lost its last name does not get one again; one that has a name gets another.
        let file = File::create_new(dir.join("f")).unwrap();
        let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let link = |name: &str| rustix::fs::linkat(CWD, &magic, CWD, dir.join(name), AtFlags::SYMLINK_FOLLOW);
        link("second").unwrap();
        fs::remove_file(dir.join("f")).unwrap();
        fs::remove_file(dir.join("second")).unwrap();
        assert_eq!(link("third"), Err(Errno::NOENT));
        assert_eq!(
            rustix::fs::linkat(&file, "", CWD, dir.join("third"), AtFlags::EMPTY_PATH),
            Err(Errno::NOENT)
        );
    });
}

#[test]
fn a_tenants_tree_has_no_tmpfile_and_says_so() {
    let world = world();
    let dir = world.mounted("alice");
    for flags in [OFlags::RDWR, OFlags::WRONLY | OFlags::EXCL] {
        let made = rustix::fs::open(&dir, OFlags::TMPFILE | flags, Mode::RUSR | Mode::WUSR);
        assert_eq!(made.err(), Some(Errno::OPNOTSUPP));
    }
    assert_eq!(names(&dir), [""; 0]);
}

#[test]
fn statx_tells_what_is_known() {
    let world = world();
    let dir = world.mounted("alice");
    fs::write(dir.join("f"), "12345").unwrap();
    let ask = |path: &Path| statx(CWD, path, AtFlags::empty(), StatxFlags::ALL | StatxFlags::MNT_ID).unwrap();
    let (file, root) = (ask(&dir.join("f")), ask(&dir));
    let mask = StatxFlags::from_bits_retain(file.stx_mask);
    assert!(mask.contains(StatxFlags::BASIC_STATS | StatxFlags::MNT_ID));
    assert!(!mask.contains(StatxFlags::BTIME), "the kernel does not ask for times of birth");
    let device = |x: &rustix::fs::Statx| (x.stx_dev_major, x.stx_dev_minor, x.stx_mnt_id);
    assert_eq!((file.stx_size, file.stx_nlink, file.stx_blksize), (5, 1, 4096));
    assert_eq!(device(&file), device(&root));
    assert_ne!(device(&root), device(&ask(dir.parent().unwrap())));
    assert!(
        root.stx_attributes_mask.bits() & 0x2000 != 0 && root.stx_attributes.bits() & 0x2000 != 0,
        "a mount's root"
    );
}

#[test]
fn access_times_are_those_that_were_set() {
    let world = world();
    let dir = world.mounted("alice");
    let other = world.dir().join("other");
    fs::create_dir(&other).unwrap();
    world.mount_at("alice", &other, &["--noatime"]);
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/f"), "text").unwrap();
    symlink("f", dir.join("d/link")).unwrap();
    let stamp = |tv_sec| Timespec { tv_sec, tv_nsec: 5 };
    let set = |path: &str, time| {
        let times = Timestamps { last_access: stamp(time), last_modification: stamp(time + 1) };
        utimensat(CWD, dir.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    };
    for path in ["d", "d/f", "d/link"] {
        set(path, 1_000_000_000);
    }
    for root in [&dir, &other] {
        // Older than the last change, and long ago: with `relatime` a local file system would write each of them down.
        fs::read(root.join("d/f")).unwrap();
        fs::read_dir(root.join("d")).unwrap().for_each(drop);
        fs::read_link(root.join("d/link")).unwrap();
        sh(
            root,
            "cat d/f > /dev/null; python3 -c \"import mmap; f = open('d/f'); mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[0]\"",
        );
        for path in ["d", "d/f", "d/link"] {
            assert_eq!(fs::symlink_metadata(root.join(path)).unwrap().atime(), 1_000_000_000, "{path}");
        }
    }
    sh(&dir, "touch -a -d 2001-01-01T00:00:00Z d/f");
    assert_eq!(fs::metadata(other.join("d/f")).unwrap().atime(), 978_307_200);
    let file = OpenOptions::new().write(true).open(dir.join("d/f")).unwrap();
    file.write_all_at(b"more", 0).unwrap();
    drop(file);
    assert_eq!(fs::metadata(dir.join("d/f")).unwrap().atime(), 978_307_200, "writing is no access");
    world.ctl(&["check"]);
}
