//! Promise: a file behaves as POSIX and Linux say, also under mappings, appends, holes and removal while it is open.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tests::{Random, ok};

use crate::help::{assert_errno, assert_unknown, everywhere, python};

#[test]
fn what_is_written_is_read() {
    everywhere(|dir| {
        let mut random = Random::new(1);
        for size in [0, 1, 4095, 4096, 4097, 131_072, 1 << 20, (5 << 20) + 17] {
            let bytes = random.bytes(size);
            fs::write(dir.join("file"), &bytes).unwrap();
            assert!(fs::read(dir.join("file")).unwrap() == bytes, "{size} bytes differ");
            assert_eq!(fs::metadata(dir.join("file")).unwrap().len(), size as u64);
        }
    });
}

#[test]
fn random_writes_cuts_and_extensions_leave_what_they_would_in_memory() {
    everywhere(|dir| {
        let mut random = Random::new(2);
        let mut model: Vec<u8> = Vec::new();
        let path = dir.join("file");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        for step in 0..600 {
            let at = random.below(300_000) as usize;
            match random.below(10) {
                0 => {
                    model.resize(at, 0);
                    file.set_len(at as u64).unwrap();
                }
                1..=5 => {
                    let count = random.below(20_000) as usize;
                    let bytes = random.bytes(count);
                    model.resize(model.len().max(at + bytes.len()), 0);
                    model[at..at + bytes.len()].copy_from_slice(&bytes);
                    file.write_all_at(&bytes, at as u64).unwrap();
                }
                6 => file = OpenOptions::new().read(true).write(true).open(&path).unwrap(),
                _ => {
                    let mut bytes = vec![0; 10_000];
                    let count = file.read_at(&mut bytes, at as u64).unwrap();
                    let expected = model.get(at..model.len().min(at + 10_000)).unwrap_or(&[]);
                    assert!(bytes[..count] == *expected, "step {step}: bytes at {at} differ");
                }
            }
            assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "step {step}");
        }
        assert!(fs::read(&path).unwrap() == model);
    });
}

#[test]
fn appends_by_two_processes_lose_and_tear_nothing() {
    everywhere(|dir| {
        let program = "import os, sys\n\
             fd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
             for n in range(2000): os.write(fd, (sys.argv[1] * 62 + '\\n').encode())\n";
        let mut writers: Vec<_> =
            ["a", "b"].map(|letter| python(dir, program).arg(letter).spawn().unwrap()).into();
        for writer in &mut writers {
            assert!(writer.wait().unwrap().success());
        }
        let log = fs::read_to_string(dir.join("log")).unwrap();
        let whole = |letter: &str| log.lines().filter(|line| *line == letter.repeat(62)).count();
        assert_eq!((log.len(), whole("a"), whole("b")), (4000 * 63, 2000, 2000));
    });
}

#[test]
fn a_mapping_is_shared_between_processes_and_reaches_the_file() {
    everywhere(|dir| {
        fs::write(dir.join("map"), [0; 65_536]).unwrap();
        let program = "import mmap, os, sys\n\
             fd = os.open('map', os.O_RDWR)\n\
             m = mmap.mmap(fd, 65536)\n\
             me, other = int(sys.argv[1]), 1 - int(sys.argv[1])\n\
             for turn in range(1, 200):\n\
             \x20   m[me * 40000] = turn\n\
             \x20   while m[other * 40000] < turn: pass\n\
             m[me * 40000 + 1:me * 40000 + 6] = b'hello'\n\
             m.flush()\n";
        let mut players: Vec<_> = ["0", "1"].map(|who| python(dir, program).arg(who).spawn().unwrap()).into();
        for player in &mut players {
            assert!(player.wait().unwrap().success());
        }
        let bytes = fs::read(dir.join("map")).unwrap();
        for at in [0, 40_000] {
            assert_eq!((bytes[at], &bytes[at + 1..at + 6]), (199, &b"hello"[..]));
        }
    });
}

#[test]
fn a_mapping_and_writes_see_each_other() {
    everywhere(|dir| {
        ok(&mut python(
            dir,
            "import mmap, os\n\
             fd = os.open('both', os.O_RDWR | os.O_CREAT)\n\
             os.ftruncate(fd, 16384)\n\
             m = mmap.mmap(fd, 16384)\n\
             os.pwrite(fd, b'written', 9000)\n\
             assert m[9000:9007] == b'written', m[9000:9007]\n\
             m[100:106] = b'mapped'\n\
             assert os.pread(fd, 6, 100) == b'mapped'\n\
             m.flush()\n\
             p = mmap.mmap(fd, 16384, flags=mmap.MAP_PRIVATE)\n\
             p[0:7] = b'private'\n\
             assert os.pread(fd, 7, 0) == bytes(7)\n",
        ));
        let bytes = fs::read(dir.join("both")).unwrap();
        assert_eq!((&bytes[100..106], &bytes[9000..9007]), (&b"mapped"[..], &b"written"[..]));
    });
}

#[test]
fn an_open_file_outlives_its_name() {
    everywhere(|dir| {
        let path = dir.join("file");
        fs::write(&path, "before").unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_unknown(&path);
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b" and after").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before and after");
        file.set_len(3).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);
        fs::write(&path, "another file").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);
        fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_rename_over_an_open_file_leaves_the_handle_with_the_old_one() {
    everywhere(|dir| {
        fs::write(dir.join("config"), "old").unwrap();
        let old = File::open(dir.join("config")).unwrap();
        fs::write(dir.join("config.new"), "new!").unwrap();
        fs::rename(dir.join("config.new"), dir.join("config")).unwrap();
        assert_eq!(fs::read_to_string(dir.join("config")).unwrap(), "new!");
        let mut bytes = [0; 3];
        old.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"old");
        assert_eq!(old.metadata().unwrap().nlink(), 0);
    });
}

#[test]
fn a_program_runs_from_the_tree() {
    everywhere(|dir| {
        fs::copy("/bin/true", dir.join("program")).unwrap();
        ok(&mut std::process::Command::new(dir.join("program")));
        let script = dir.join("script");
        fs::write(&script, "#!/bin/sh\necho from a script\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, mode).unwrap();
        assert_eq!(ok(&mut std::process::Command::new(&script)), "from a script\n");
    });
}

#[test]
fn sync_calls_succeed_on_files_directories_and_the_file_system() {
    everywhere(|dir| {
        let mut file = File::create(dir.join("file")).unwrap();
        file.write_all(b"bytes").unwrap();
        file.sync_data().unwrap();
        file.write_all(b" more").unwrap();
        file.sync_all().unwrap();
        File::open(dir).unwrap().sync_all().unwrap();
        rustix::fs::syncfs(&file).unwrap();
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::SYNC | rustix::fs::OFlags::APPEND;
        let synced = rustix::fs::open(dir.join("file"), flags, rustix::fs::Mode::empty()).unwrap();
        rustix::io::write(&synced, b" yet").unwrap();
        assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "bytes more yet");
    });
}

#[test]
fn space_can_be_allocated_and_holes_are_found() {
    everywhere(|dir| {
        let file = File::create_new(dir.join("file")).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 2 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        file.write_all_at(&[1; 65_536], 0).unwrap();
        rustix::fs::fallocate(&file, punch, 4096, 8192).unwrap();
        let bytes = fs::read(dir.join("file")).unwrap();
        assert!(bytes[..4096].iter().all(|&b| b == 1) && bytes[4096..12_288].iter().all(|&b| b == 0));

        let sparse =
            OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("sparse")).unwrap();
        sparse.write_all_at(b"far", 1 << 30).unwrap();
        let metadata = sparse.metadata().unwrap();
        assert_eq!(metadata.len(), (1 << 30) + 3);
        assert!(metadata.blocks() * 512 < 1 << 20, "a hole takes {} blocks", metadata.blocks());
        assert_eq!(rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Data(0)), Ok(1 << 30));
        assert_eq!(rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Hole(0)), Ok(0));
        assert_eq!(rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Hole(1 << 30)), Ok((1 << 30) + 3));
        assert_eq!(rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Data((1 << 30) + 3)), Err(Errno::NXIO));
    });
}

#[test]
fn ranges_are_copied_within_the_kernel() {
    everywhere(|dir| {
        let bytes = Random::new(3).bytes(3 << 20);
        fs::write(dir.join("from"), &bytes).unwrap();
        let from = File::open(dir.join("from")).unwrap();
        let to = File::create_new(dir.join("to")).unwrap();
        let (mut read_at, mut write_at) = (1000, 0);
        while read_at < bytes.len() as u64 {
            let left = bytes.len() - read_at as usize;
            let done = rustix::fs::copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), left);
            assert_ne!(done.unwrap(), 0);
        }
        assert!(fs::read(dir.join("to")).unwrap() == bytes[1000..]);
        // Whole files, as `cp` and the standard library do it.
        fs::copy(dir.join("from"), dir.join("copy")).unwrap();
        assert!(fs::read(dir.join("copy")).unwrap() == bytes);
    });
}

#[test]
fn flags_of_open_are_honoured() {
    everywhere(|dir| {
        let path = dir.join("file");
        File::create_new(&path).unwrap();
        assert_errno(File::create_new(&path), Errno::EXIST);
        assert_errno(File::open(dir.join("missing")), Errno::NOENT);
        assert_errno(OpenOptions::new().write(true).open(dir), Errno::ISDIR);
        assert_errno(File::open(path.join("below")), Errno::NOTDIR);
        fs::write(&path, "text").unwrap();
        assert_errno(File::open(&path).unwrap().write_all(b"x"), Errno::BADF);
        File::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
        match rustix::fs::open(dir, flags, rustix::fs::Mode::from_raw_mode(0o600)) {
            // A file system may lack it; programs then make a file with a name.
            Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP),
            Ok(nameless) => assert_eq!(rustix::io::write(&nameless, b"x"), Ok(1)),
        }
    });
}

#[test]
fn direct_reads_and_writes_work() {
    everywhere(|dir: &Path| {
        ok(&mut python(
            dir,
            "import mmap, os\n\
             page = mmap.mmap(-1, 8192)\n\
             page[:] = b'd' * 8192\n\
             fd = os.open('direct', os.O_RDWR | os.O_CREAT | os.O_DIRECT)\n\
             assert os.pwritev(fd, [page], 0) == 8192\n\
             back = mmap.mmap(-1, 8192)\n\
             assert os.preadv(fd, [back], 0) == 8192\n\
             assert back[:] == page[:]\n",
        ));
        assert_eq!(fs::read(dir.join("direct")).unwrap(), vec![b'd'; 8192]);
    });
}

#[test]
fn locks_are_kept_between_processes_of_a_mount() {
    everywhere(|dir| {
        ok(&mut python(
            dir,
            "import fcntl, os, sys\n\
             for lock in (fcntl.flock, fcntl.lockf):\n\
             \x20   f = open('lock', 'w')\n\
             \x20   lock(f, fcntl.LOCK_EX)\n\
             \x20   if os.fork() == 0:\n\
             \x20       g = open('lock', 'w')\n\
             \x20       try: lock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
             \x20       except BlockingIOError: os._exit(0)\n\
             \x20       os._exit(1)\n\
             \x20   if os.wait()[1] != 0: sys.exit('the lock was given twice')\n\
             \x20   lock(f, fcntl.LOCK_UN)\n\
             \x20   g = open('lock', 'w')\n\
             \x20   lock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        ));
    });
}
