//! Promise: modes, owners, times and extended attributes are kept exactly.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags, getxattr, lgetxattr, listxattr, lsetxattr,
    removexattr, setxattr, utimensat,
};
use rustix::io::Errno;
use tests::{run, wait_until};

use crate::help::{everywhere, python, sh};

#[test]
fn times_are_kept_to_the_nanosecond() {
    everywhere(|dir| {
        let path = dir.join("file");
        fs::write(&path, "").unwrap();
        let stamp = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        for (atime, mtime) in [
            (stamp(1, 1), stamp(2, 999_999_999)),
            (stamp(1_700_000_000, 123_456_789), stamp(0, 0)),
            (stamp(-5, 500_000_000), stamp(4_000_000_000, 7)),
        ] {
            let times = Timestamps { last_access: atime, last_modification: mtime };
            utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
            let seen = fs::metadata(&path).unwrap();
            assert_eq!((seen.atime(), seen.atime_nsec()), (atime.tv_sec, atime.tv_nsec));
            assert_eq!((seen.mtime(), seen.mtime_nsec()), (mtime.tv_sec, mtime.tv_nsec));
        }
        let before = fs::metadata(&path).unwrap();
        let only_atime = Timestamps { last_access: stamp(9, 9), last_modification: stamp(0, UTIME_OMIT) };
        utimensat(CWD, &path, &only_atime, AtFlags::empty()).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.atime(), after.mtime()), (9, before.mtime()));
        std::os::unix::fs::symlink("file", dir.join("link")).unwrap();
        let times = Timestamps { last_access: stamp(11, 0), last_modification: stamp(12, 0) };
        utimensat(CWD, dir.join("link"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!(fs::symlink_metadata(dir.join("link")).unwrap().mtime(), 12);
        assert_eq!(fs::metadata(&path).unwrap().mtime(), before.mtime());
    });
}

#[test]
fn changes_move_the_right_times() {
    everywhere(|dir| {
        let (path, sub) = (dir.join("file"), dir.join("sub"));
        fs::create_dir(&sub).unwrap();
        fs::write(&path, "text").unwrap();
        let times = |path: &Path| {
            let m = fs::metadata(path).unwrap();
            ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()))
        };
        // The clock of files may tick slower than calls come.
        let moves = |what: &str, path: &Path, mtime: bool, change: &mut dyn FnMut()| {
            let (m0, c0) = times(path);
            wait_until(what, Duration::from_secs(5), || {
                change();
                times(path).1 > c0
            });
            assert_eq!(times(path).0 > m0, mtime, "mtime after {what}");
        };
        moves("a write", &path, true, &mut || fs::write(&path, "more").unwrap());
        let mode = |bits| Permissions::from_mode(bits);
        moves("a chmod", &path, false, &mut || fs::set_permissions(&path, mode(0o600)).unwrap());
        moves("a link", &path, false, &mut || {
            fs::hard_link(&path, dir.join("link")).unwrap();
            fs::remove_file(dir.join("link")).unwrap();
        });
        moves("an entry made", &sub, true, &mut || {
            fs::write(sub.join("x"), "").and_then(|()| fs::remove_file(sub.join("x"))).unwrap()
        });
        moves("an attribute set", &path, false, &mut || {
            setxattr(&path, "user.k", b"v", XattrFlags::empty()).unwrap();
        });
        moves("a chown to nobody else", &path, false, &mut || chown(&path, None, None).unwrap());
        let read = times(&path);
        fs::read(&path).unwrap();
        assert_eq!(times(&path), read, "reading moves neither mtime nor ctime");
    });
}

#[test]
fn what_happens_later_is_never_stamped_earlier() {
    everywhere(|dir| {
        let mut last = (0, 0);
        let mut look = |path: &Path, what: &str| {
            let metadata = fs::metadata(path).unwrap();
            let time = (metadata.mtime(), metadata.mtime_nsec());
            assert!(time >= last, "{what} is stamped {time:?}, after {last:?}");
            last = time;
        };
        // Stamps of names and stamps of bytes are made by different programs.
        for number in 0..200 {
            let (file, sub) = (dir.join(format!("file-{number}")), dir.join(format!("dir-{number}")));
            let mut open = fs::File::create(&file).unwrap();
            look(&file, "a file made");
            open.write_all(b"text").unwrap();
            look(&file, "a write");
            drop(open);
            look(&file, "a write, once closed,");
            fs::create_dir(&sub).unwrap();
            look(&sub, "a directory");
        }
    });
}

#[test]
fn modes_and_owners_are_kept_and_enforced() {
    everywhere(|dir| {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        let path = dir.join("file");
        fs::write(&path, "text").unwrap();
        for mode in [0o000, 0o644, 0o755, 0o4755, 0o2711, 0o1777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
        chown(&path, Some(1234), Some(4321)).unwrap();
        let seen = fs::metadata(&path).unwrap();
        assert_eq!((seen.uid(), seen.gid()), (1234, 4321));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let cat = |uid: u32| run(Command::new("cat").arg(&path).uid(uid)).code();
        assert_eq!((cat(1234), cat(1235), cat(0)), (0, 1, 0));

        // A changed owner takes the set-user-id bit away.
        fs::set_permissions(&path, Permissions::from_mode(0o4755)).unwrap();
        chown(&path, Some(99), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);

        // A set-group-id directory gives its group; the umask holds; new files are their maker's.
        fs::create_dir(dir.join("group")).unwrap();
        chown(dir.join("group"), None, Some(777)).unwrap();
        fs::set_permissions(dir.join("group"), Permissions::from_mode(0o2777)).unwrap();
        let touch = Command::new("sh")
            .arg("-c")
            .arg("umask 027; touch group/f; mkdir group/d")
            .current_dir(dir)
            .uid(1234)
            .gid(1234)
            .status();
        assert!(touch.unwrap().success());
        let (file, sub) =
            (fs::metadata(dir.join("group/f")).unwrap(), fs::metadata(dir.join("group/d")).unwrap());
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (1234, 777, 0o640));
        assert_eq!((sub.uid(), sub.gid(), sub.mode() & 0o7777), (1234, 777, 0o2750));

        // In a sticky directory others' files are safe.
        fs::create_dir(dir.join("sticky")).unwrap();
        fs::set_permissions(dir.join("sticky"), Permissions::from_mode(0o1777)).unwrap();
        fs::write(dir.join("sticky/mine"), "").unwrap();
        assert_eq!(run(Command::new("rm").arg("-f").arg(dir.join("sticky/mine")).uid(1234)).code(), 1);
    });
}

#[test]
fn a_write_by_another_user_takes_the_set_user_id_bit_away() {
    everywhere(|dir| {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        let path = dir.join("program");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o4777)).unwrap();
        let write =
            Command::new("sh").arg("-c").arg("echo new >> program").current_dir(dir).uid(1234).status();
        assert!(write.unwrap().success());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
    });
}

#[test]
fn extended_attributes_are_kept() {
    everywhere(|dir| {
        let path = dir.join("file");
        fs::write(&path, "").unwrap();
        // A local file system may keep less of them than a tenant's tree: 2,000 bytes fit everywhere.
        let large = vec![7; 2000];
        setxattr(&path, "user.one", b"1", XattrFlags::CREATE).unwrap();
        setxattr(&path, "user.large", &large, XattrFlags::empty()).unwrap();
        setxattr(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
        assert_eq!(setxattr(&path, "user.one", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
        assert_eq!(setxattr(&path, "user.two", b"2", XattrFlags::REPLACE), Err(Errno::NODATA));
        let get = |name: &str| {
            let mut buffer = vec![0; 70_000];
            getxattr(&path, name, &mut buffer[..]).map(|count| buffer[..count].to_vec())
        };
        assert_eq!(get("user.one").unwrap(), b"1");
        assert!(get("user.large").unwrap() == large);
        assert_eq!(get("user.empty").unwrap(), b"");
        assert_eq!(get("user.none"), Err(Errno::NODATA));
        assert_eq!(getxattr(&path, "user.large", &mut [0; 10][..]), Err(Errno::RANGE));
        let mut list = vec![0; 1000];
        let count = listxattr(&path, &mut list).unwrap();
        let mut listed: Vec<&[u8]> =
            list[..count].split(|&b| b == 0).filter(|n| n.starts_with(b"user.")).collect();
        listed.sort_unstable();
        assert_eq!(listed, [&b"user.empty"[..], b"user.large", b"user.one"]);
        removexattr(&path, "user.one").unwrap();
        assert_eq!(removexattr(&path, "user.one"), Err(Errno::NODATA));
        for (odd, errno) in
            [("other.k", Errno::OPNOTSUPP), ("system.k", Errno::OPNOTSUPP), ("user.", Errno::INVAL)]
        {
            assert_eq!(setxattr(&path, odd, b"v", XattrFlags::empty()), Err(errno), "{odd}");
        }
        // As root, also on links and in the trusted name space.
        std::os::unix::fs::symlink("file", dir.join("link")).unwrap();
        lsetxattr(dir.join("link"), "trusted.k", b"v", XattrFlags::empty()).unwrap();
        assert_eq!(lgetxattr(dir.join("link"), "trusted.k", &mut [0; 10][..]), Ok(1));
        setxattr(&path, "trusted.k", b"v", XattrFlags::empty()).unwrap();
        let program = "import os; print(sorted(os.listxattr('file')))";
        assert_eq!(run(python(dir, program).uid(1000)).stdout, "['user.empty', 'user.large']\n");
        setxattr(dir, "user.dir", b"d", XattrFlags::empty()).unwrap();
        fs::rename(&path, dir.join("moved")).unwrap();
        assert_eq!(getxattr(dir.join("moved"), "user.large", &mut vec![0; 4000][..]), Ok(2000));
    });
}

#[test]
fn a_large_attribute_is_kept_by_a_tenants_tree() {
    let world = crate::help::world();
    let dir = world.mounted("a");
    fs::write(dir.join("file"), "").unwrap();
    let large = vec![9; 60_000];
    setxattr(dir.join("file"), "user.large", &large, XattrFlags::empty()).unwrap();
    let mut back = vec![0; 65_536];
    assert_eq!(getxattr(dir.join("file"), "user.large", &mut back[..]), Ok(60_000));
    assert!(back[..60_000] == large);
}

#[test]
fn python_and_shell_agree_with_the_tree() {
    everywhere(|dir| {
        tests::ok(&mut python(
            dir,
            "import os, shutil, tempfile, pathlib\n\
             p = pathlib.Path('py'); p.mkdir(); (p / 'a').write_text('x')\n\
             os.setxattr('py/a', 'user.k', b'v'); assert os.getxattr('py/a', 'user.k') == b'v'\n\
             assert os.listxattr('py/a').count('user.k') == 1\n\
             shutil.copytree('py', 'py2'); assert os.getxattr('py2/a', 'user.k') == b'v'\n\
             with tempfile.NamedTemporaryFile(dir='.') as t: t.write(b'z'); t.flush()\n\
             assert sorted(e.name for e in os.scandir('.')) == ['py', 'py2']\n\
             shutil.rmtree('py'); shutil.rmtree('py2')\n",
        ));
        sh(
            dir,
            "mkdir a; touch a/b; chmod 600 a/b; [ $(stat -c %a a/b) = 600 ]; mv a c; rmdir c 2>/dev/null && exit 1; rm -r c; [ -z \"$(ls -A)\" ]",
        );
    });
}
