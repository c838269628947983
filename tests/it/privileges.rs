//! Promise: what gives a program privileges is kept, inherited and taken away as on a local file system, and extended
//! attributes obey the rules of their name spaces.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    CWD, FileType, Mode, XattrFlags, getxattr, lgetxattr, listxattr, lsetxattr, mknodat, removexattr,
    setxattr,
};
use rustix::io::Errno;
use tests::{ok, run};

use crate::help::{everywhere, names, python, world};

/// Neither root nor in anybody's group.
const SOMEBODY: u32 = 1234;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Runs Python as somebody, with a group; it must succeed.
#[track_caller]
fn as_somebody(dir: &Path, gid: u32, program: &str) {
    ok(python(dir, &format!("import os\n{program}")).uid(SOMEBODY).gid(gid));
}

/// Changes of a file's bytes that take privileges away.
const WRITES: [(&str, &str); 6] = [
    ("write", "fd = os.open('f', os.O_WRONLY); os.write(fd, b'x')"),
    ("append", "fd = os.open('f', os.O_WRONLY | os.O_APPEND); os.write(fd, b'x')"),
    ("truncate", "os.truncate('f', 1)"),
    ("O_TRUNC", "os.close(os.open('f', os.O_WRONLY | os.O_TRUNC))"),
    ("fallocate", "fd = os.open('f', os.O_WRONLY); os.posix_fallocate(fd, 0, 10000)"),
    (
        "copy_file_range",
        "to = os.open('f', os.O_WRONLY); fr = os.open('from', os.O_RDONLY); os.copy_file_range(fr, to, 4)",
    ),
];

#[test]
fn a_change_of_bytes_by_somebody_takes_set_id_bits_away() {
    everywhere(|dir| {
        set_mode(dir, 0o755);
        let path = dir.join("f");
        fs::write(dir.join("from"), "from").unwrap();
        for (what, program) in WRITES {
            for (before, after) in [(0o6777, 0o777), (0o2767, 0o2767), (0o4766, 0o766), (0o1777, 0o1777)] {
                fs::write(&path, "bytes").unwrap();
                set_mode(&path, before);
                as_somebody(dir, SOMEBODY, program);
                // Without the group's permission to execute the bit says nothing about privileges; kernels differ.
                let seen = mode(&path);
                let same = seen == after || before == 0o2767 && seen == 0o767;
                assert!(same, "{what} leaves {seen:o} of {before:o}");
            }
        }
        fs::write(&path, "bytes").unwrap();
        set_mode(&path, 0o6777);
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"root", 0).unwrap();
        assert_eq!(mode(&path), 0o6777, "root may leave them");
    });
}

#[test]
fn a_change_of_owner_takes_set_id_bits_away() {
    everywhere(|dir| {
        set_mode(dir, 0o755);
        let path = dir.join("f");
        for (before, after) in [(0o6755, 0o755), (0o6711, 0o711), (0o4644, 0o644)] {
            fs::write(&path, "").unwrap();
            for (uid, gid) in [(Some(7), None), (None, Some(8)), (Some(9), Some(9))] {
                set_mode(&path, before);
                chown(&path, uid, gid).unwrap();
                assert_eq!(mode(&path), after, "{before:o} after {uid:?}:{gid:?}");
            }
        }
        // Directories keep theirs.
        fs::create_dir(dir.join("d")).unwrap();
        set_mode(&dir.join("d"), 0o2755);
        chown(dir.join("d"), Some(7), Some(7)).unwrap();
        assert_eq!(mode(&dir.join("d")), 0o2755);
    });
}

#[test]
fn who_is_not_in_the_group_gives_no_set_group_id_bit() {
    everywhere(|dir| {
        set_mode(dir, 0o777);
        let path = dir.join("f");
        for (gid, kept) in [(SOMEBODY, 0), (777, 0o2000)] {
            fs::write(&path, "").unwrap();
            chown(&path, Some(SOMEBODY), Some(777)).unwrap();
            as_somebody(dir, gid, "os.chmod('f', 0o2755)");
            assert_eq!(mode(&path), 0o755 | kept, "with group {gid}");
            fs::remove_file(&path).unwrap();
        }
        // In a directory that hands its group on, files that could be run with it neither.
        fs::create_dir(dir.join("d")).unwrap();
        chown(dir.join("d"), None, Some(777)).unwrap();
        set_mode(&dir.join("d"), 0o2777);
        as_somebody(
            dir,
            SOMEBODY,
            "os.umask(0); os.close(os.open('d/f', os.O_CREAT, 0o2775)); os.mkdir('d/d', 0o755)",
        );
        let (file, sub) = (fs::metadata(dir.join("d/f")).unwrap(), fs::metadata(dir.join("d/d")).unwrap());
        assert_eq!((file.mode() & 0o7777, file.gid()), (0o775, 777));
        assert_eq!((sub.mode() & 0o7777, sub.gid()), (0o2755, 777));
    });
}

/// `cap_net_raw+ep`, as `setcap` writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn any_change_of_bytes_takes_file_capabilities_away() {
    everywhere(|dir| {
        set_mode(dir, 0o755);
        let path = dir.join("f");
        fs::write(dir.join("from"), "from").unwrap();
        let get = || getxattr(&path, "security.capability", &mut [0; 64][..]);
        for (what, program) in WRITES {
            for by_root in [true, false] {
                fs::write(&path, "bytes").unwrap();
                set_mode(&path, 0o777);
                setxattr(&path, "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
                assert_eq!(get(), Ok(20));
                match by_root {
                    true => drop(ok(&mut python(dir, &format!("import os\n{program}")))),
                    false => as_somebody(dir, SOMEBODY, program),
                }
                assert_eq!(get(), Err(Errno::NODATA), "{what}, by root: {by_root}");
            }
        }
        setxattr(&path, "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
        chown(&path, Some(7), None).unwrap();
        assert_eq!(get(), Err(Errno::NODATA), "chown");
    });
}

#[test]
fn a_grantees_changes_take_privileges_away_at_the_owner() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("s")).unwrap();
    world.ctl(&["share", "grant", "alice:/s", "bob:/s", "--rw"]);
    let path = alice.join("s/f");
    fs::write(alice.join("s/from"), "from").unwrap();
    for (what, program) in WRITES {
        for by_root in [true, false] {
            fs::write(&path, "bytes").unwrap();
            set_mode(&path, 0o6777);
            setxattr(&path, "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
            match by_root {
                true => drop(ok(&mut python(&bob.join("s"), &format!("import os\n{program}")))),
                false => as_somebody(&bob.join("s"), SOMEBODY, program),
            }
            let capability = getxattr(&path, "security.capability", &mut [0; 64][..]);
            assert_eq!(capability, Err(Errno::NODATA), "{what}, by root: {by_root}");
            assert_eq!(mode(&path), if by_root { 0o6777 } else { 0o777 }, "{what}, by root: {by_root}");
        }
    }
    world.ctl(&["check"]);
}

#[test]
fn name_spaces_of_attributes_have_their_rules() {
    everywhere(|dir| {
        set_mode(dir, 0o777);
        let path = dir.join("f");
        fs::write(&path, "").unwrap();
        set_mode(&path, 0o666);
        std::os::unix::fs::symlink("f", dir.join("link")).unwrap();
        mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        let set = |name: &str, attribute| lsetxattr(dir.join(name), attribute, b"v", XattrFlags::empty());
        for name in ["link", "pipe"] {
            assert_eq!(set(name, "user.k"), Err(Errno::PERM), "{name}");
            assert_eq!(set(name, "trusted.k"), Ok(()), "{name}");
            assert_eq!(lgetxattr(dir.join(name), "trusted.k", &mut [0; 8][..]), Ok(1));
        }
        for unknown in ["nothing", "system.nothing", "os2.k", "user"] {
            assert_eq!(set("f", unknown), Err(Errno::OPNOTSUPP), "{unknown}");
        }
        assert_eq!(set("f", "user."), Err(Errno::INVAL));
        // Only root sees the trusted ones.
        assert_eq!((set("f", "trusted.k"), set("f", "user.k")), (Ok(()), Ok(())));
        as_somebody(
            dir,
            SOMEBODY,
            "import errno\n\
             assert os.listxattr('f') == ['user.k'], os.listxattr('f')\n\
             def fails(code, call, *args):\n\
             \x20   try: call(*args)\n\
             \x20   except OSError as e: assert e.errno == code, e\n\
             \x20   else: raise AssertionError('it worked')\n\
             fails(errno.ENODATA, os.getxattr, 'f', 'trusted.k')\n\
             fails(errno.EPERM, os.setxattr, 'f', 'trusted.k', b'')\n\
             fails(errno.EPERM, os.setxattr, 'f', 'security.capability', bytes([1, 0, 0, 2] + [0] * 16))\n\
             os.setxattr('f', 'user.k', b'w')\n",
        );
        // Who may not write a file does not set its attributes; in a sticky directory only its owner sets those.
        set_mode(&path, 0o644);
        let try_ = |script: &str| {
            let mut command = Command::new("python3");
            command
                .args(["-c", &format!("import os\n{script}")])
                .current_dir(dir)
                .uid(SOMEBODY)
                .gid(SOMEBODY);
            run(&mut command).status.success()
        };
        assert!(!try_("os.setxattr('f', 'user.k', b'x')") && try_("os.getxattr('f', 'user.k')"));
        set_mode(&path, 0o600);
        assert!(!try_("os.getxattr('f', 'user.k')"));
        set_mode(dir, 0o1777);
        assert!(!try_("os.setxattr('.', 'user.k', b'x')"));
    });
}

#[test]
fn attributes_have_their_limits() {
    everywhere(|dir| {
        let path = dir.join("f");
        fs::write(&path, "").unwrap();
        let set = |name: &str, value: &[u8]| setxattr(&path, name, value, XattrFlags::empty());
        let name = |length: usize| format!("user.{}", "n".repeat(length - 5));
        assert_eq!(set(&name(255), b"v"), Ok(()));
        assert_eq!(set(&name(256), b"v"), Err(Errno::RANGE));
        assert_eq!(set("", b"v"), Err(Errno::RANGE));
        assert_eq!(set("user.k", &vec![0; 65_537]), Err(Errno::TOOBIG));
        assert_eq!(listxattr(&path, &mut [0; 100][..]), Err(Errno::RANGE));
        assert_eq!(removexattr(&path, name(255).as_str()), Ok(()));
        assert_eq!(removexattr(&path, name(255).as_str()), Err(Errno::NODATA));
        assert_eq!(setxattr(dir.join("none"), "user.k", b"", XattrFlags::empty()), Err(Errno::NOENT));
    });
}

#[test]
fn a_tenants_file_has_as_many_attributes_as_a_list_can_name() {
    let world = world();
    let dir = world.mounted("alice");
    let path = dir.join("f");
    fs::write(&path, "").unwrap();
    let name = |number: usize| format!("user.{number:0250}");
    let set = |number| setxattr(&path, name(number), &[7; 1000], XattrFlags::empty());
    let full = (0..).find(|number| set(*number) == Err(Errno::NOSPC)).unwrap();
    assert_eq!(full, 65_536 / 256);
    let mut list = vec![0; 65_536];
    assert_eq!(listxattr(&path, &mut list), Ok(full * 256));
    removexattr(&path, name(3)).unwrap();
    assert_eq!((set(full), set(full + 1)), (Ok(()), Err(Errno::NOSPC)));
    assert_eq!(set(0), Ok(()), "what is there can be set again");
    fs::remove_file(&path).unwrap();
    assert_eq!(names(&dir), [""; 0]);
    world.ctl(&["check"]);
}
